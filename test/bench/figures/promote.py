"""Promotion of a coordinator and three segments, from the command until every
segment has accepted a write, with the source site lost, against native
standbys that are promoted one after another."""
import time

from benchlib import *

segments = 3


def wait_writes(servers):
    for server in servers:
        wait_until("writes", lambda: server.is_true("CREATE TABLE after_promotion (a int); SELECT true"))


def light_load(servers):
    for server in servers:
        server.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 10000) g")


def ours(number):
    multisite = Multisite("promote%d" % number, segments=segments, conf=SMALL).start()
    light_load(multisite.sources.values())
    multisite.wait_applied(multisite.point())
    for server in multisite.sources.values():
        server.stop("immediate")
    start = time.time()
    multisite.remote.sql("SELECT multisite_promote()")
    wait_writes(multisite.remotes.values())
    record("promote", "ours", time.time() - start, "s")
    multisite.remove()


def peer(number):
    clusters = [Native("promotenative%d_%d" % (number, n), conf=SMALL).start() for n in range(segments + 1)]
    light_load([c.source for c in clusters])
    for c in clusters:
        c.wait_applied(c.source.wal_end())
    for c in clusters:
        c.source.stop("immediate")
    start = time.time()
    for c in clusters:
        out([BIN + "/pg_ctl", "-D", c.remote.data, "-w", "promote"])
    wait_writes([c.remote for c in clusters])
    record("promote", "peer", time.time() - start, "s")
    for c in clusters:
        c.remove()


for number in range(rounds(1, 5)):
    ours(number)
    peer(number)
finish()
