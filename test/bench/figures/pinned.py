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

for number in range(rounds(2, 5)):
    tps_turn("ours", [multisite.source, multisite.remote], multisite.source, seconds, core=0)
    tps_turn("native", [native.source, native.remote], native.source, seconds, core=0)
    tps_turn("peer", [native.source], native.source, seconds, core=0)
pin_broker("0-%d" % (os.cpu_count() - 1))
finish()
