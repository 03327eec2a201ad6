#!/usr/bin/env bash
# Makes the source site: a Greenplum cluster of a coordinator and three
# primaries on this machine, by hand, that publishes.  A cluster that is there
# already only needs the lines about multisite_repl, and a restart.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Source site \"main\": a coordinator and three primaries"
cluster=greenplum_$(date +%s)
for id in "${segments[@]}"; do
	data=$(data_directory main $id)
	as_server initdb -D "$data" -E UTF8 --no-sync -k >"$data.initdb.log" 2>&1 || { tail "$data.initdb.log"; exit 1; }
	echo "gp_dbid=$((id + 2))" | as_server tee -a "$data/internal.auto.conf" >/dev/null
	as_server tee -a "$data/pg_hba.conf" >/dev/null <<-EOC
		local all all trust
		host all all 127.0.0.1/32 trust
		local replication all trust
		host replication all 127.0.0.1/32 trust
	EOC
	as_server tee -a "$data/postgresql.conf" >/dev/null <<-EOC

		gp_contentid = $id
		port = $(source_port $id)
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$dir'
		shared_buffers = 64MB
		max_connections = 100
		max_prepared_transactions = 100
		logging_collector = off
		# --- multisite_repl, the same on all servers: ids are content ids
		shared_preload_libraries = 'multisite_repl'
		wal_level = replica
		max_wal_senders = 10
		multisite.cluster_name = '$cluster'
		multisite.site_name = 'main'
		multisite.brokers = '$(cat "$dir/brokers")'
		multisite.replication_factor = 1		# one broker only
		multisite.publish = on
	EOC
done

# the coordinator learns of its segments in utility role
coordinator=$(data_directory main -1)
start_in utility "$coordinator"
for id in "${segments[@]}"; do
	utility "$(source_port -1)" "SELECT gp_add_segment($((id + 2))::int2, $id::int2, 'p', 'p', 's', 'u',
		$(source_port $id), '127.0.0.1', '127.0.0.1', '$(data_directory main $id)')" >/dev/null
done
stop_server "$coordinator"
for id in 0 1 2; do
	start_in execute "$(data_directory main $id)"
done
start_in dispatch "$coordinator"

gp "$(source_port -1)" "CREATE EXTENSION multisite_repl" 2>&1 | grep -v 'referential integrity' || true
for id in "${segments[@]}"; do
	wait_until "$(source_port $id)" "SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'" "the publisher"
done
gp_table "$(source_port -1)" "SELECT dbid, content, role, status, port FROM gp_segment_configuration ORDER BY content"
