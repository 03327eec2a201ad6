#!/usr/bin/env bash
# chain.sh SOCKET_DIRECTORY PORT...: commits tick n on each server in turn, each
# after the reply of the one before, for as long as they answer.  Prints n, and
# the time, once it is committed on all of them.
directory=$1
shift
names=()
for port in "$@"; do
	coproc psql -XAtq -h "$directory" -p "$port" -U postgres postgres 2>&1
	# a shell has one coprocess by name, so keep its ends by number
	exec {in}>&"${COPROC[1]}" {out}<&"${COPROC[0]}"
	names+=("$in $out")
done 2>/dev/null
for ((n = 1; ; n++)); do
	for ends in "${names[@]}"; do
		read -r in out <<<"$ends"
		echo "INSERT INTO tick (n) VALUES ($n) RETURNING n;" >&"$in" || exit
		read -r -t 30 reply <&"$out" || exit
		[ "$reply" = "$n" ] || exit
	done
	echo "$n ${EPOCHREALTIME/,/.}"
done
