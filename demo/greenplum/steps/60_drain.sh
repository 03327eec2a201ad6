#!/usr/bin/env bash
# A planned switch: a last point reaches the remote site, and the source site
# is stopped.  After the loss of a site this step is left out.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Draining: a last point is applied, and the source stops"
gp "$(source_port -1)" "INSERT INTO sales SELECT i, '2026-11-24', 1 FROM generate_series(50001, 50100) i"
"$top/demo/greenplum/steps/50_point.sh" "drained_$(date +%s)"
gp "$(source_port -1)" "SELECT count(*), sum(amount) FROM sales" | as_server tee "$dir/expected" >/dev/null
for id in -1 0 1 2; do
	stop_server "$(data_directory main $id)"
done
echo "the source site is stopped"
