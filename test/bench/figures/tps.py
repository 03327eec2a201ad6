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

for number in range(rounds(2, 5)):
    tps_turn("ours", [multisite.source, multisite.remote], multisite.source, seconds)
    tps_turn("peer", [native.source, native.remote], native.source, seconds)
    # its slot keeps the WAL for the standby
    tps_turn("none", [native.source], native.source, seconds)
finish()
