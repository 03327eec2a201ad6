"""Commit to applied at the remote site: a commit every 10 ms or so, and when
the remote's replay has passed it, for points at intervals of 1 s and 200 ms,
against a native asynchronous standby."""
import threading
import time

from benchlib import *

seconds = pick(4, 30)


def measure(cluster):
    writer, reader = Session(cluster.source), Session(cluster.remote)
    writer.sql("CREATE TABLE IF NOT EXISTS ticks (a int)")
    commits = []
    seen = []
    last = threading.Event()

    def watch():
        while not last.is_set() or seen[-1][1] < commits[-1][1]:
            replayed = lsn(reader.sql("SELECT pg_last_wal_replay_lsn()"))
            seen.append((time.time(), replayed))
            time.sleep(0.001)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    end = time.time() + seconds
    while time.time() < end:
        writer.sql("INSERT INTO ticks VALUES (1)")
        now = time.time()
        commits.append((now, lsn(writer.sql("SELECT pg_current_wal_flush_lsn()"))))
        time.sleep(0.01)
    last.set()
    thread.join(TIMEOUT)
    writer.close()
    reader.close()
    latencies = []
    at = 0
    for when, position in commits:
        while seen[at][1] < position:
            at += 1
        latencies.append(max(0, seen[at][0] - when) * 1000)
    return latencies


multisite = Multisite("latency").start()
native = Native("latencynative").start()
for number in range(rounds(1, 3)):
    for interval in (1000, 200):
        multisite.source.set(multisite__consistency_point_interval=interval)
        # the first one still comes at the interval before
        newest = "SELECT coalesce(max(id), 0) FROM multisite_consistency_points"
        before = multisite.source.sql(newest)
        multisite.source.sql("CREATE TABLE IF NOT EXISTS ticks (a int); INSERT INTO ticks VALUES (0)")
        wait_until("the first point", lambda: multisite.source.is_true("SELECT (%s) > %s" % (newest, before)))
        latencies = measure(multisite)
        record("p50 at %d ms" % interval, "ours", quantile(latencies, 0.5), "ms")
        record("p99 at %d ms" % interval, "ours", quantile(latencies, 0.99), "ms", beyond=quantile(latencies, 0.99) - interval)
    multisite.source.set(multisite__consistency_point_interval=0)
    latencies = measure(native)
    record("p50", "peer", quantile(latencies, 0.5), "ms")
    record("p99", "peer", quantile(latencies, 0.99), "ms")
finish()
