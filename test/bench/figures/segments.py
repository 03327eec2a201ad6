"""Clusters of more and more segments, all on this machine: what a point a
second costs the coordinator's clients, against none on the same cluster, for
the source site alone and with a remote site that applies the points on the
same cores; and the times of points under a light load on all segments.

Points are switched on and off every few seconds of one and the same load, since
what they cost is less than two loads differ by themselves.  Messages are all
but those of WAL."""
import time

from benchlib import *

window = 3						# seconds, of which the first half second does not count
pairs = rounds(2, 20)			# on, off, off, on: the first is the slowest
watch = pick(4, 40)


def wait_quiet(multisite):
    multisite.wait_applied(multisite.point())


def point_times(multisite, since):
    """Of the points since then, in ms, as the remote coordinator saw them."""
    rows = multisite.remote.sql(
        "SELECT barrier_ms, extract(epoch FROM published_at - created_at) * 1000, "
        "extract(epoch FROM applied_at - created_at) * 1000 FROM multisite_consistency_points "
        "WHERE created_at > to_timestamp(%f) AND applied_at IS NOT NULL ORDER BY id" % since)
    return [[float(field) for field in row.split("|")] for row in rows.splitlines()]


def alternate(multisite, where):
    """Points on, off, off, on, …; each window's TPS and latencies."""
    begin = time.time() + 1			# the load has begun by then
    load = Pgbench(multisite.source, 1 + 2 * pairs * window)
    on = [number % 4 in (0, 3) for number in range(2 * pairs)]
    for number, points in enumerate(on):
        time.sleep(max(0, begin + number * window - time.time()))
        multisite.source.set(multisite__consistency_point_interval=1000 if points else 0)
    tps, transactions = load.transactions()
    multisite.source.set(multisite__consistency_point_interval=0)
    latencies = [[] for points in on]
    for end, latency in transactions:
        number, second = divmod(end - begin, window)
        if 0 <= number < len(on) and second >= 0.5:
            latencies[int(number)].append(latency)
    for points, some in zip(on, latencies):
        who = "ours" if points else "peer"
        record("TPS at %d segments, %s" % (len(multisite.ids) - 1, where), who, len(some) / (window - 0.5), "TPS")
        record("p99 latency at %d segments, %s" % (len(multisite.ids) - 1, where), who, quantile(some, 0.99), "ms")


for segments in pick([1, 4], [1, 4, 16, 32]):
    multisite = Multisite("seg%d" % segments, segments=segments, scale=10, conf=SMALL)
    multisite.start_source()
    for id in multisite.ids[1:]:
        pgbench_init(multisite.sources[id], 1)
    alternate(multisite, "source alone")
    multisite.make_remote().start_remote()
    wait_quiet(multisite)
    since = time.time()
    if not QUICK:
        alternate(multisite, "with remote")
    wait_quiet(multisite)
    for barrier, published, applied in point_times(multisite, since):
        record("barrier under full load", str(segments), barrier, "ms", segments=segments)

    # 200 transactions a second in all
    sent = multisite.control_messages()
    since = time.time()
    multisite.source.set(multisite__consistency_point_interval=1000)
    loads = [Pgbench(multisite.sources[id], watch, clients=1, more=["-R", str(max(1, 200 // len(multisite.ids)))])
             for id in multisite.ids]
    for load in loads:
        load.wait()
    multisite.source.set(multisite__consistency_point_interval=0)
    wait_quiet(multisite)
    times = point_times(multisite, since)
    record("messages a point", str(segments), (multisite.control_messages() - sent) / len(times), "")
    for barrier, published, applied in times:
        record("barrier", str(segments), barrier, "ms", segments=segments)
        record("created to published", str(segments), published, "ms", segments=segments)
        record("created to applied", str(segments), applied, "ms", segments=segments)
    multisite.remove()
finish()
