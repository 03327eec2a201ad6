"""What the barrier costs while it is down: pgbench TPS with the extension
loaded, and nothing published, against the same server without it."""
from benchlib import *

seconds = pick(3, 30)
source = Server("barrier").init(10)


def turn(who, library):
    source.append("shared_preload_libraries = '%s'\nmultisite.cluster_name = 'barrier'" % library)
    source.start()
    source.sql("CHECKPOINT")
    tps, latencies = Pgbench(source, seconds).wait()
    record("TPS", who, tps, "TPS", p99=quantile(latencies, 0.99))
    source.stop()


for number in range(rounds(2, 8)):
    # whoever comes first finds a smaller history table
    for who, library in [("ours", "multisite_repl"), ("peer", "")][::-1 if number % 2 else 1]:
        turn(who, library)
finish()
