# Settings and small functions that the steps of the demo share.
#
#	MULTISITE_DEMO_DIR	where everything lives, default /var/tmp/multisite_demo_UID
#	KAFKA_BROKERS		host:port of a Kafka that is there already
#	PG_MAJOR, PG_CONFIG	which PostgreSQL, default 15
#
# As root, servers and clients run as the user postgres; otherwise as you.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${MULTISITE_DEMO_DIR:-/var/tmp/multisite_demo_$(id -u)}
# not PG_CONFIG itself: to test/setup that is a server which is there already
pg_config=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}

segments=(-1 0 1 2)				# -1 is the coordinator
source_port=6001				# of segment 0; the coordinator's is one less
remote_port=6101
kafka_port=6901

source_port() { echo $((source_port + $1)); }
remote_port() { echo $((remote_port + $1)); }
segment_name() { [ "$1" = -1 ] && echo coordinator || echo "segment$1"; }

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
die() { echo "demo: $*" >&2; exit 1; }

# Ctrl-C ends a step, and the demo, even if the command under way ends as if
# nothing had been: a psql whose statement was done already does.
trap 'exit 130' INT

[ ! -e "$dir" ] || [ -O "$dir" ] || [ "$(id -u)" = 0 ] ||
	die "$dir belongs to $(stat -c %U "$dir"): set MULTISITE_DEMO_DIR to another directory"

# Runs a command as the user who owns the servers.
as_server()
{
	if [ "$(id -u)" = 0 ]; then
		(cd "$dir" && runuser -u postgres -- env PATH="$(bindir):$PATH" "$@")
	else
		(cd "$dir" && env PATH="$(bindir):$PATH" "$@")
	fi
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
bindir() { "$pg_config" --bindir; }

# sql PORT STATEMENT: its output, unaligned
sql()
{
	as_server psql -XAtq -v ON_ERROR_STOP=1 -h "$dir" -p "$1" -U postgres -d postgres -c "$2"
}

# table PORT STATEMENT: its output as a table
table()
{
	as_server psql -Xq -v ON_ERROR_STOP=1 -P footer=off -P pager=off -h "$dir" -p "$1" -U postgres -d postgres -c "$2"
}

# wait_for PORT QUERY WHAT: until the query gives t
wait_for()
{
	local tries=300
	until [ "$(sql "$1" "$2" 2>/dev/null)" = t ]; do
		tries=$((tries - 1))
		if [ $tries = 0 ]; then
			table "$1" "SELECT worker, state, reason FROM multisite_status WHERE state <> 'stopped'" >&2 || true
			die "timed out waiting for $3"
		fi
		sleep 0.1
	done
}

start_server()
{
	as_server pg_ctl -D "$1" -l "$1.log" -w -t 60 start >/dev/null || { tail -20 "$1.log"; die "could not start $1"; }
}

# keep_running LOG COMMAND...: in the background, of a session of its own; the
# process writes its own id down, for stop_load
keep_running()
{
	local log=$1
	shift
	as_server setsid bash -c 'echo $$ >>"$0/load_pids"; exec "$@"' "$dir" "$@" >"$log" 2>&1 </dev/null &
}

# Ends what keep_running() has started, if it is still that: a pid may have
# become another process's since.
stop_load()
{
	local pid
	[ -e "$dir/load_pids" ] || return 0
	while read -r pid; do
		if ps -ww -o args= -p "$pid" | grep -qF "$dir"; then
			as_server kill "$pid" 2>/dev/null || true
		fi
	done <"$dir/load_pids"
}

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
