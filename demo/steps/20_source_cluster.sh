#!/usr/bin/env bash
# Makes the source site: a coordinator and three segments that publish.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Source site \"main\": a coordinator and three segments"
cluster=demo_$(date +%s)
echo "$cluster" | as_server tee "$dir/cluster" >/dev/null
for id in "${segments[@]}"; do
	data=$dir/main_$(segment_name $id)
	as_server initdb -D "$data" -U postgres -A trust --no-sync >/dev/null
	as_server tee -a "$data/postgresql.conf" >/dev/null <<-EOC

		# --- multisite_repl, source segment $id
		shared_preload_libraries = 'multisite_repl'
		wal_level = replica
		max_wal_senders = 10
		multisite.cluster_name = '$cluster'
		multisite.site_name = 'main'
		multisite.segment_id = $id
		multisite.brokers = '$(cat "$dir/brokers")'
		multisite.replication_factor = 1		# one broker only
		multisite.publish = on
		# --- for this demo
		port = $(source_port $id)
		unix_socket_directories = '$dir'
		listen_addresses = ''
		shared_buffers = 64MB
		dynamic_shared_memory_type = mmap		# leaves nothing in /dev/shm when killed
	EOC
	start_server "$data"
	sql "$(source_port $id)" "CREATE EXTENSION multisite_repl"
done

# the coordinator knows the segments of both sites
for id in 0 1 2; do
	sql "$(source_port -1)" "SELECT multisite_add_segment($id, 'host=$dir port=$(source_port $id) user=postgres dbname=postgres'),
		multisite_add_segment($id, 'host=$dir port=$(remote_port $id) user=postgres dbname=postgres', 'dr')" >/dev/null
done
for id in "${segments[@]}"; do
	wait_for "$(source_port $id)" "SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'" "the publisher"
done
table "$(source_port -1)" "SELECT worker, state, reason FROM multisite_status WHERE state <> 'stopped'"
