#!/usr/bin/env bash
# 65_watch.sh [SECONDS]: points once a second by themselves, and a live table of
# how far each segment is.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "A point a second, and where each segment is"
sql "$(source_port -1)" "ALTER SYSTEM SET multisite.consistency_point_interval = '1s'"
sql "$(source_port -1)" "SELECT pg_reload_conf()" >/dev/null

rounds=${1:-12}
for ((i = 1; i <= rounds; i++)); do
	if [ ! -t 1 ] && [ $((i % 4)) -ne 0 ]; then
		sleep 1
		continue
	fi
	# the remote site first: what it has was published before
	remote=$(sql "$(remote_port -1)" "SELECT string_agg(format('(%s, %L::pg_lsn, %L::pg_lsn, %L::pg_lsn, %L)',
		segment_id, staged_lsn, released_lsn, applied_lsn, applied_point), ',') FROM multisite_segments WHERE site = 'dr'")
	published=""
	for id in "${segments[@]}"; do
		published+="${published:+,}($id, '$(sql "$(source_port $id)" \
			"SELECT published_lsn FROM multisite_status WHERE worker = 'publisher'")'::pg_lsn)"
	done
	lines=$(
		table "$(remote_port -1)" "SELECT segment, published, staged, released, applied, applied_point
			FROM (VALUES $published) p (segment, published)
			JOIN (VALUES $remote) r (segment, staged, released, applied, applied_point) USING (segment) ORDER BY 1" &&
		table "$(remote_port -1)" "SELECT reason AS orchestrator FROM multisite_status WHERE worker = 'orchestrator'" | tail -n +3
	)
	if [ -t 1 ]; then
		# in place of the last one: no line may wrap, or it would be two
		[ $i = 1 ] || printf '\033[%dA\033[J' "$height"
		lines=$(cut -c "1-$(($(tput cols || echo 80) - 1))" <<<"$lines")
		height=$(($(wc -l <<<"$lines") + 1))
	fi
	printf '%s\n\n' "$lines"
	sleep 1
done
