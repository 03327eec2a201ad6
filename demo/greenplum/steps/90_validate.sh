#!/usr/bin/env bash
# Is the remote cluster what the source was, and can it be written to?  Asks
# by psql on the remote coordinator's port.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Validation on the remote coordinator, port $(remote_port -1)"
failed=0
check()
{
	if [ "$2" = "$3" ]; then
		printf 'ok      %-50s %s\n' "$1" "$2"
	else
		printf 'FAILED  %-50s got %s, expected %s\n' "$1" "$2" "$3"
		failed=1
	fi
}
port=$(remote_port -1)
check "sales is as it was when the source was drained" "$(gp "$port" "SELECT count(*), sum(amount) FROM sales")" "$(as_server cat "$dir/expected")"
for table in sales_row sales_column; do
	check "$table (append-optimized)" "$(gp "$port" "SELECT count(*), sum(amount) FROM $table")" "50000|24975000"
done
check "region (replicated)" "$(gp "$port" "SELECT count(*) FROM region")" 10
check "no transaction is in doubt" "$(gp "$port" "SELECT count(*) FROM gp_dist_random('pg_prepared_xacts')")" 0
gp "$port" "CREATE TABLE after_promotion (a int) DISTRIBUTED BY (a); INSERT INTO after_promotion SELECT generate_series(1, 1000)"
check "a new table is spread over all segments" "$(gp "$port" "SELECT count(DISTINCT gp_segment_id), count(*) FROM after_promotion")" "3|1000"
check "it makes points of its own" "$(gp "$port" "SELECT multisite_create_consistency_point('second_life')")" second_life
exit $failed
