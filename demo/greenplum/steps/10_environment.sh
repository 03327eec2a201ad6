#!/usr/bin/env bash
# Builds the extension for the Greenplum at PG_CONFIG and installs it; starts
# Kafka.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Environment: the extension, Kafka"
[ -e "$dir/running" ] && die "the demo in $dir is still running: call demo/greenplum/stop first"
"$top/test/setup"
# only what an earlier demo has made is removed
if [ -e "$dir" ] && [ ! -e "$dir/build/multisite_repl.control" ]; then
	rmdir "$dir" || die "$dir is not of this demo: set MULTISITE_DEMO_DIR, or remove it yourself"
fi
rm -rf "$dir"
mkdir -p "$dir/build"
# servers ask nobody for a password who gets here
chmod 700 "$dir"
tar -C "$top" --exclude=.git --exclude='*.o' --exclude='*.so' -cf - Makefile multisite_repl.control sql src test/kafka |
	tar -C "$dir/build" -xf -
if [ "$(id -u)" = 0 ]; then
	chown -R postgres "$dir"
fi
touch "$dir/running"
as_server make -s -C "$dir/build" PG_CONFIG="$PG_CONFIG"
# a Greenplum is often its user's own
if [ -w "$("$PG_CONFIG" --pkglibdir)" ]; then
	make -s -C "$dir/build" PG_CONFIG="$PG_CONFIG" install >/dev/null
else
	as_root make -s -C "$dir/build" PG_CONFIG="$PG_CONFIG" install >/dev/null
fi
if [ -n "${KAFKA_BROKERS:-}" ]; then
	echo "$KAFKA_BROKERS" | as_server tee "$dir/brokers"
else
	as_server "$dir/build/test/kafka/broker" start "$dir/kafka" $kafka_port | as_server tee "$dir/brokers"
fi
