"""Source TPS, pgbench TPC-B with 8 clients, everything on all cores: ours
with Kafka and a remote site, a point a second, against a native asynchronous
standby and against no replication.  The servers whose turn it is not are
down."""
from benchlib import *

seconds = pick(3, 30)
multisite = Multisite("tps", scale=10, conf="multisite.consistency_point_interval = '1s'").start()
multisite.stop()
native = Native("tpsnative", scale=10).start()
native.stop()


def turn(who, servers, source):
    for server in servers:
        server.start()
    if len(servers) == 2:
        wait_until("replication", lambda: source.is_true("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"))
    source.sql("CHECKPOINT")
    tps, latencies = Pgbench(source, seconds).wait()
    record("TPS", who, tps, "TPS", p99=quantile(latencies, 0.99), p50=quantile(latencies, 0.5))
    for server in servers:
        server.stop()


for number in range(rounds(2, 5)):
    turn("ours", [multisite.source, multisite.remote], multisite.source)
    turn("peer", [native.source, native.remote], native.source)
    # its slot keeps the WAL for the standby
    turn("none", [native.source], native.source)
finish()
