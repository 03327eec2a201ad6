#!/usr/bin/env bash
# Installs what is missing, builds and installs the extension, starts Kafka.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Environment: packages, extension, Kafka"
[ -e "$dir/running" ] && die "the demo in $dir is still running: call demo/stop first"
"$top/test/setup"

# only what an earlier demo has made is removed
if [ -e "$dir" ] && [ ! -e "$dir/build/multisite_repl.control" ]; then
	rmdir "$dir" || die "$dir is not of this demo: set MULTISITE_DEMO_DIR, or remove it yourself"
fi
rm -rf "$dir"
mkdir -p "$dir/build"
# servers ask nobody for a password who gets here
chmod 700 "$dir"
tar -C "$top" --exclude=.git --exclude='*.o' --exclude='*.so' -cf - Makefile multisite_repl.control sql src test/kafka demo/chain.sh |
	tar -C "$dir/build" -xf -
if [ "$(id -u)" = 0 ]; then
	chown -R postgres "$dir"
fi
touch "$dir/running"
as_server make -s -C "$dir/build" PG_CONFIG="$pg_config"
as_root make -s -C "$dir/build" PG_CONFIG="$pg_config" install >/dev/null

if [ -n "${KAFKA_BROKERS:-}" ]; then
	echo "$KAFKA_BROKERS" | as_server tee "$dir/brokers" >/dev/null
	echo "using Kafka at $KAFKA_BROKERS"
else
	as_server "$dir/build/test/kafka/broker" start "$dir/kafka" $kafka_port | as_server tee "$dir/brokers" >/dev/null
	echo "Kafka runs at $(cat "$dir/brokers")"
fi
