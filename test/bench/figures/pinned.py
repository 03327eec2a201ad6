"""Source TPS with the source and its clients on core 0, and the broker and
the remote site on core 1: ours against no replication, and against a native
standby that is pinned in the same way."""
from benchlib import *

seconds = pick(3, 30)


def pin_broker(cores):
    out(["taskset", "-a", "-c", "-p", cores, str(broker_pid())])


pin_broker("1")
multisite = Multisite("pinned", scale=10, source_core=0, remote_core=1,
                      conf="multisite.consistency_point_interval = '1s'").start()
multisite.stop()
native = Native("pinnednative", scale=10, source_core=0, remote_core=1).start()
native.stop()


def turn(who, servers, source):
    for server in servers:
        server.start()
    if len(servers) == 2:
        wait_until("replication", lambda: source.is_true("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"))
    source.sql("CHECKPOINT")
    tps, latencies = Pgbench(source, seconds, core=0).wait()
    record("TPS", who, tps, "TPS", p99=quantile(latencies, 0.99), p50=quantile(latencies, 0.5))
    for server in servers:
        server.stop()


for number in range(rounds(2, 5)):
    turn("ours", [multisite.source, multisite.remote], multisite.source)
    turn("native", [native.source, native.remote], native.source)
    turn("peer", [native.source], native.source)
pin_broker("0-%d" % (os.cpu_count() - 1))
finish()
