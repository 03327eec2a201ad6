"""Source TPS and commit latency when each commit waits: for Kafka
(synchronous_standby_names = 'multisite'), against a native synchronous
standby; synchronous_commit = on for both."""
from benchlib import *

seconds = pick(3, 30)
multisite = Multisite("sync", scale=10, conf="multisite.consistency_point_interval = '1s'").start()
multisite.source.append("synchronous_standby_names = 'multisite'")
multisite.stop()
native = Native("syncnative", scale=10).start()
native.source.append("synchronous_standby_names = 'standby'")
native.stop()


def turn(who, cluster):
    cluster.source.start()
    cluster.remote.start()
    wait_until("replication", lambda: cluster.source.is_true(
        "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"))
    cluster.source.sql("CHECKPOINT")
    tps, latencies = Pgbench(cluster.source, seconds).wait()
    record("TPS", who, tps, "TPS")
    record("p50 latency", who, quantile(latencies, 0.5), "ms")
    record("p99 latency", who, quantile(latencies, 0.99), "ms")
    cluster.stop()


for number in range(rounds(2, 5)):
    turn("ours", multisite)
    turn("peer", native)
finish()
