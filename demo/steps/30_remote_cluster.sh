#!/usr/bin/env bash
# Makes the remote site from base backups.  Without -R: a remote segment gets
# its WAL from Kafka alone.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Remote site \"dr\": base backups of all segments"
for id in "${segments[@]}"; do
	data=$dir/dr_$(segment_name $id)
	as_server pg_basebackup -h "$dir" -p "$(source_port $id)" -U postgres -D "$data" -c fast --no-sync
	as_server tee -a "$data/postgresql.conf" >/dev/null <<-EOC

		# --- multisite_repl, remote segment $id
		multisite.site_name = 'dr'
		multisite.source_site = 'main'
		# --- for this demo
		port = $(remote_port $id)
	EOC
	as_server touch "$data/standby.signal"
	echo "$(segment_name $id) copied to $data"
done
