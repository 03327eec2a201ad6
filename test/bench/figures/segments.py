"""Clusters of more and more segments, all on this machine, with a remote site
each: what a point a second costs the coordinator's clients, against none on
the same cluster; and the times of points under a light load on all segments."""
import time

from benchlib import *

seconds = pick(3, 20)
watch = pick(6, 40)


def wait_quiet(multisite):
    multisite.wait_applied(multisite.point())


def point_times(multisite, since):
    """Of the points since then, in ms, as the remote coordinator saw them."""
    rows = multisite.remote.sql(
        "SELECT barrier_ms, extract(epoch FROM published_at - created_at) * 1000, "
        "extract(epoch FROM applied_at - created_at) * 1000 FROM multisite_consistency_points "
        "WHERE created_at > to_timestamp(%f) AND applied_at IS NOT NULL ORDER BY id" % since)
    return [[float(field) for field in row.split("|")] for row in rows.splitlines()]


for segments in pick([1, 4, 8], [1, 4, 16, 32]):
    multisite = Multisite("seg%d" % segments, segments=segments, scale=10, conf=SMALL)
    multisite.start()
    for id in multisite.ids[1:]:
        pgbench_init(multisite.sources[id], 1)
    wait_quiet(multisite)

    for number in range(rounds(1, 4)):
        for who, interval in (("ours", 1000), ("peer", 0)):
            multisite.source.set(multisite__consistency_point_interval=interval)
            since = time.time()
            tps, latencies = Pgbench(multisite.source, seconds).wait()
            record("TPS at %d segments" % segments, who, tps, "TPS", segments=segments)
            record("p99 latency at %d segments" % segments, who, quantile(latencies, 0.99), "ms", segments=segments)
            multisite.source.set(multisite__consistency_point_interval=0)
            wait_quiet(multisite)
            if interval:
                for barrier, published, applied in point_times(multisite, since):
                    record("barrier under full load", str(segments), barrier, "ms", segments=segments)

    # 200 transactions a second in all
    since = time.time()
    multisite.source.set(multisite__consistency_point_interval=1000)
    loads = [Pgbench(multisite.sources[id], watch, clients=1, more=["-R", str(max(1, 200 // len(multisite.ids)))])
             for id in multisite.ids]
    for load in loads:
        load.wait()
    multisite.source.set(multisite__consistency_point_interval=0)
    wait_quiet(multisite)
    for barrier, published, applied in point_times(multisite, since):
        record("barrier", str(segments), barrier, "ms", segments=segments)
        record("created to published", str(segments), published, "ms", segments=segments)
        record("created to applied", str(segments), applied, "ms", segments=segments)
    multisite.remove()
finish()
