#!/usr/bin/env bash
# Makes the remote site from base backups of all primaries and of the
# coordinator, each with its source's dbid; and the mapping file, which says
# where each content id will be found there.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Remote site \"dr\": base backups of all segments"
for id in "${segments[@]}"; do
	data=$(data_directory dr $id)
	as_server pg_basebackup -h 127.0.0.1 -p "$(source_port $id)" -D "$data" -c fast --no-sync --target-gp-dbid $((id + 2))
	as_server tee -a "$data/postgresql.conf" >/dev/null <<-EOC

		port = $(remote_port $id)
		# --- multisite_repl
		multisite.site_name = 'dr'
		multisite.source_site = 'main'
		hot_standby = on			# on the coordinator, to call functions there
	EOC
	# what fault tolerance has set for the source's mirrors is of no use here
	echo "synchronous_standby_names = ''" | as_server tee -a "$data/postgresql.auto.conf" >/dev/null
	as_server touch "$data/standby.signal"
	echo "$id|localhost|127.0.0.1|$(remote_port $id)|$data"
done | as_server tee "$mapping"
