#!/usr/bin/env bash
# The source site is lost: SIGKILL to every process of it, in mid-load.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "The source site is lost"
# no Ctrl-C between halting the servers and killing them
trap '' INT TERM
pids=()
for id in "${segments[@]}"; do
	postmaster=$(head -1 "$dir/main_$(segment_name $id)/postmaster.pid")
	# it must not start more while we look
	as_server kill -STOP "$postmaster"
	pids+=("$postmaster" $(pgrep -P "$postmaster"))
done
as_server kill -KILL "${pids[@]}" 2>/dev/null || true
date +%s.%N | as_server tee "$dir/lost_at" >/dev/null
echo "killed ${#pids[@]} processes at $(date +%T)"
