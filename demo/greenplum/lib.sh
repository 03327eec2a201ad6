# Settings and small functions that the steps of the Greenplum demo share.
#
#	PG_CONFIG			of an installed Greenplum 7; there is no default
#	MULTISITE_DEMO_DIR	where everything lives, default /var/tmp/multisite_greenplum
#	KAFKA_BROKERS		host:port of a Kafka that is there already
#
# As root, servers and clients run as the user postgres; otherwise as you.

export MULTISITE_DEMO_DIR=${MULTISITE_DEMO_DIR:-/var/tmp/multisite_greenplum}
: "${PG_CONFIG:?"must name the pg_config of an installed Greenplum"}"
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
grep -qs 'define GP_VERSION_NUM' "$("$PG_CONFIG" --includedir-server)/pg_config.h" ||
	die "there is no Greenplum at $PG_CONFIG"
export LD_LIBRARY_PATH=$("$PG_CONFIG" --libdir)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

source_port=6201				# of content 0; the coordinator's is one less
remote_port=6301
kafka_port=6951
mapping=$dir/remote_segments	# content, host, address, port, directory

data_directory() { echo "$dir/${1}_$(segment_name "$2")"; }

# gp PORT STATEMENT: in dispatch role, on a coordinator; utility: on one server
gp() { as_server psql -XAtq -v ON_ERROR_STOP=1 -h "$dir" -p "$1" -d postgres -c "$2"; }
utility() { PGOPTIONS="-c gp_role=utility ${3:-}" gp "$1" "$2"; }

gp_table() { as_server psql -Xq -v ON_ERROR_STOP=1 -P footer=off -P pager=off -h "$dir" -p "$1" -d postgres -c "$2"; }

# start_in ROLE DIRECTORY
start_in()
{
	# by PGHOST a coordinator reaches itself, which some queries need
	as_server env PGHOST="$dir" pg_ctl -D "$2" -l "$2.log" -w -t 60 -o "-c gp_role=$1" start >/dev/null ||
		{ tail -20 "$2.log"; die "could not start $2"; }
}
stop_server() { as_server pg_ctl -D "$1" -m fast -w stop >/dev/null; }

# wait_until PORT QUERY WHAT: until the query gives t, in utility role
wait_until()
{
	local tries=600
	until [ "$(utility "$1" "$2" 2>/dev/null)" = t ]; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || die "timed out waiting for $3"
		sleep 0.1
	done
}
