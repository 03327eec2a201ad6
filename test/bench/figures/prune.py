"""Kafka's disk under a load that goes on, with multisite.prune: the most that
the pipe takes in each part of the time, and what was published until then.
A broker deletes whole segments of its log, and looks for them at intervals, so
both have to be small for a run of an hour:

KAFKA_CONFIG=$'log.segment.bytes=16777216\\nlog.retention.check.interval.ms=10000' test/bench/run --full prune
"""
import glob

from benchlib import *

seconds = pick(60, 600)
parts = rounds(1, 6)
multisite = Multisite("prune", scale=10, conf="""
multisite.consistency_point_interval = '1s'
multisite.prune = on
multisite.prune_margin = '32MB'
checkpoint_timeout = '5min'
""").start()
source = multisite.source


def pipe_mb():
    size = 0
    for name in glob.glob("%s/kafka/node0/data/%s.main.wal.-1-*/*.log*" % (DIR, multisite.cluster)):
        try:
            size += os.stat(name).st_size
        except FileNotFoundError:
            pass
    return size / 1e6


def published_mb():
    return int(source.sql("SELECT bytes FROM multisite_status WHERE worker = 'publisher'")) / 1e6


load = Pgbench(source, parts * seconds, more=["--rate", "200"])
for part in range(parts):
    end = time.time() + seconds
    most = 0
    while time.time() < end:
        most = max(most, pipe_mb())
        time.sleep(1)
    record("pipe in Kafka, at most", "part %d" % (part + 1), most, "MB", published=published_mb())
tps, latencies = load.wait()
record("load", "all", tps, "TPS")
multisite.wait_applied(multisite.point())
finish()
