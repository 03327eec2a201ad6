"""Makes the broker one that has been at work for a while, which any real one
has: a Java machine that has just started compiles what it runs, beside its
work and for half a minute, and a request costs it several times the CPU.  It
compiles for the requests that it gets, so these are our own."""
from benchlib import *

multisite = Multisite("warm", scale=5, conf="multisite.consistency_point_interval = '1s'").start()
source = multisite.source
pgbench_init(source, 20, "dtgp")
source.set(synchronous_standby_names="multisite")
Pgbench(source, pick(8, 60)).wait()
multisite.remove()
