#!/usr/bin/env bash
# A planned switch: the load ends, a last point reaches the remote site, and the
# source site is stopped.  Nothing is lost.  (demo/run loses the site instead.)
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Draining: the load ends, and a last point is applied"
stop_load
for id in 0 1 2; do
	wait_for "$(source_port $id)" "SELECT count(*) = 0 FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND application_name <> 'multisite' AND pid <> pg_backend_pid()" "the load to end"
done
"$top/demo/steps/60_create_point.sh" "drained_$(date +%s)"
for id in "${segments[@]}"; do
	as_server pg_ctl -D "$dir/main_$(segment_name $id)" -m fast -w stop >/dev/null
done
echo "the source site is stopped"
