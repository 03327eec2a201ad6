#!/usr/bin/env bash
# Fills all segments, and keeps a load running on each until its server ends:
# pgbench, and a chain of ticks.  Tick n is committed on segment 0, then, after
# the reply, on segment 1, then on segment 2: no consistent state of the
# cluster can have a tick without all those before it.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Tables, data, and a load on every segment"
for id in 0 1 2; do
	as_server pgbench -q -i -s 5 -h "$dir" -p "$(source_port $id)" -U postgres postgres 2>&1 | tail -1
	sql "$(source_port $id)" "CREATE TABLE tick (n bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())"
done
sql "$(source_port -1)" "CREATE TABLE note (what text)"

for id in 0 1 2; do
	keep_running "$dir/pgbench_$id.log" pgbench -n -c 2 -T 600 -h "$dir" -p "$(source_port $id)" -U postgres postgres
done
keep_running "$dir/chain.log" "$dir/build/demo/chain.sh" "$dir" "$(source_port 0)" "$(source_port 1)" "$(source_port 2)"
wait_for "$(source_port 2)" "SELECT count(*) > 0 FROM tick" "the first tick"
echo "pgbench and the chain of ticks are running"
