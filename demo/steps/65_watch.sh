#!/usr/bin/env bash
# 65_watch.sh [SECONDS]: points once a second by themselves, and a live table of
# how far each segment is.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "A point a second, and where each segment is"
sql "$(source_port -1)" "ALTER SYSTEM SET multisite.consistency_point_interval = '1s'"
sql "$(source_port -1)" "SELECT pg_reload_conf()" >/dev/null

rounds=${1:-12}
for ((i = 1; i <= rounds; i++)); do
	if [ -t 1 ]; then
		[ $i -gt 1 ] && printf '\033[9A'
	elif [ $((i % 4)) -ne 0 ]; then
		sleep 1
		continue
	fi
	{
		for id in "${segments[@]}"; do
			sql "$(source_port $id)" "SELECT $id, published_lsn FROM multisite_status WHERE worker = 'publisher'"
		done
	} | tr '|' ' ' | {
		values=""
		while read -r id lsn; do values+="${values:+,}($id, '$lsn'::pg_lsn)"; done
		table "$(remote_port -1)" "SELECT segment_id AS segment, p.lsn AS published, staged_lsn AS staged,
			released_lsn AS released, applied_lsn AS applied, applied_point
			FROM multisite_segments s JOIN (VALUES $values) p (id, lsn) ON p.id = s.segment_id
			WHERE s.site = 'dr' ORDER BY 1"
		table "$(remote_port -1)" "SELECT reason AS orchestrator FROM multisite_status WHERE worker = 'orchestrator'" | tail -n +3
	}
	sleep 1
done
