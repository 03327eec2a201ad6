#!/usr/bin/env bash
# Is every segment exactly at the point?  Three proofs:
#  - its new timeline begins at the very LSN that the point's manifest gives;
#  - pgbench's books balance on each segment: no transaction is torn;
#  - the chain of ticks is whole across the segments, has every tick whose
#    client had its reply before the point, and none that began after it.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

point=$(cat "$dir/promoted_at_point")
say "Is the remote site exactly at point \"$point\"?"
failed=0
check()
{
	if [ "$2" = "$3" ]; then
		printf 'ok      %-62s %s\n' "$1" "$2"
	else
		printf 'FAILED  %-62s got %s, expected %s\n' "$1" "$2" "$3"
		failed=1
	fi
}

# when its commit barrier was raised, and when all of its restore points were written
IFS='|' read -r created written < <(sql "$(remote_port -1)" "SELECT extract(epoch FROM created_at),
	extract(epoch FROM created_at) + barrier_ms / 1000.0 FROM multisite_consistency_points WHERE name = '$point'")
# the client's own book of the ticks: how many had their reply by a time
replies_by() { as_server awk -v t="$1" 'NF == 2 && $2 <= t { n = $1 } END { print n + 0 }' "$dir/chain.log"; }
for id in "${segments[@]}"; do
	fork=$(as_server cut -f 2 "$dir/dr_$(segment_name $id)/pg_wal/00000002.history" | tail -1)
	check "$(segment_name $id): recovery ended at the point's LSN" "$fork" \
		"$(sql "$(remote_port $id)" "SELECT lsn FROM multisite_consistency_points WHERE name = '$point'")"
done
for id in 0 1 2; do
	check "$(segment_name $id): pgbench's four sums are equal" \
		"$(sql "$(remote_port $id)" "SELECT count(DISTINCT s) FROM (SELECT sum(abalance) FROM pgbench_accounts
			UNION ALL SELECT sum(tbalance) FROM pgbench_tellers UNION ALL SELECT sum(bbalance) FROM pgbench_branches
			UNION ALL SELECT sum(delta) FROM pgbench_history) t (s)")" 1
done

last=()
for id in 0 1 2; do
	last[$id]=$(sql "$(remote_port $id)" "SELECT max(n) FROM tick")
	check "$(segment_name $id): every tick up to its last is there" \
		"$(sql "$(remote_port $id)" "SELECT count(*) FROM tick")" "${last[$id]}"
done
# the tick after the last reply may have been under way
must=$(replies_by "$created") may=$(($(replies_by "$written") + 1))
check "all $must ticks with a reply before the point are everywhere" "$((last[2] >= must))" 1
check "no tick after the $may that had begun by then is anywhere" "$((last[0] <= may))" 1
check "the chain is whole: ${last[0]} >= ${last[1]} >= ${last[2]} >= ${last[0]} - 1" \
	"$((last[0] >= last[1] && last[1] >= last[2] && last[2] >= last[0] - 1))" 1

if [ -e "$dir/lost_at" ]; then
	committed=$(replies_by "$(cat "$dir/lost_at")")
	printf '\nRPO  %.2f s of work lost (the point was created %.2f s before the loss; %d of %d ticks)\n' \
		"$(awk -v a="$created" -v b="$(cat "$dir/lost_at")" 'BEGIN { print b - a }')" \
		"$(awk -v a="$created" -v b="$(cat "$dir/lost_at")" 'BEGIN { print b - a }')" \
		"$((committed - last[2]))" "$committed"
fi
printf 'RTO  %s s from the command to writes on every segment\n' "$(cat "$dir/rto")"
exit $failed
