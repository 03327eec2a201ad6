"""The whole way: a backlog that was written while Kafka and the remote site
were away, until a point behind it is applied there (Kafka, staging, release,
replay), against a native standby that was away and catches up on a backlog of
the same load.  Both times begin when what was away is back.  The CPU of the
workers is taken on the way.

Points are made each second, also while Kafka is away, so replay begins while
the rest is staged.  The full run also has a backlog without a point in it, since
publishing was off, and one that is in Kafka already, since the remote site alone
was away.

Kafka is away by SIGSTOP: a broker that is started has compiled nothing yet."""
import os
import signal
import time

from benchlib import *

mb = backlog_mb(400, 5120)


class Away:
    """Kafka, or publishing."""
    def __init__(self, multisite, with_points):
        self.source, self.with_points = multisite.source, with_points
        if with_points:
            os.kill(broker_pid(), signal.SIGSTOP)
        else:
            multisite.stop_publishing()

    def end(self):
        if self.with_points:
            os.kill(broker_pid(), signal.SIGCONT)
        else:
            self.source.set(multisite__publish="on")


def ours(mb, with_points):
    multisite = Multisite("way", scale=10, conf="multisite.consistency_point_interval = '%s'"
                          % ("1s" if with_points else "0"))
    multisite.start_source().make_remote()
    source, remote = multisite.source, multisite.remote
    away = Away(multisite, with_points)
    try:
        begin, end = make_backlog(source, mb)
    except BaseException:
        away.end()
        raise
    size = (end - begin) / 1e6
    cpu = Cpu(lambda: dict(source.processes(publisher="multisite publisher", walsender="walsender"),
                           **remote.processes(receiver="multisite receiver", orchestrator="multisite orchestrator",
                                              startup="startup"), broker=broker_pid()))
    watch = Watch(remote)
    start = time.time()
    away.end()
    remote.start(wait=False)
    session = Session(source)
    # the worker needs a moment to see that it may work
    point = wait_until("a point", lambda: (lambda text: None if "ERROR" in text else text)(
        out_or_error(source, "SELECT multisite_create_consistency_point()")))
    made = time.time() - start
    session.close()

    def applied():
        cpu.look()
        return watch.is_true("SELECT state = 'applied' FROM multisite_consistency_points WHERE name = '%s'" % point)
    wait_until("the point to be applied", applied, 0.1)
    seconds = time.time() - start
    watch.close()
    cpu.whole_life("receiver", "orchestrator", "startup", *([] if with_points else ["walsender"]))
    staged, released = remote.sql(
        "SELECT extract(epoch FROM staged_at - to_timestamp(%f)), extract(epoch FROM released_at - to_timestamp(%f)) "
        "FROM multisite_consistency_points WHERE name = '%s'" % (start, start, point)).split("|")
    record("time per GB" if with_points else "time per GB, no point in it", "ours", seconds / size * 1000, "s/GB",
           staged=float(staged) / size * 1000, released=float(released) / size * 1000, mb=size, point=made)
    if with_points:
        used = cpu.seconds()
        for name in ("publisher", "walsender", "receiver", "orchestrator", "broker", "startup"):
            record("cpu", name, used.get(name, 0) / size * 1000, "s/GB")
        record("cpu in sum", "ours", sum(used.get(name, 0) for name in
                                         ("publisher", "walsender", "receiver", "orchestrator")) / size * 1000, "s/GB")
    multisite.remove()


def ours_away(mb):
    multisite = Multisite("wayaway", scale=10, conf="multisite.consistency_point_interval = '1s'")
    multisite.start_source().make_remote()
    begin, end = make_backlog(multisite.source, mb)
    point = multisite.point()
    multisite.wait_published(multisite.source)
    watch = Watch(multisite.remote)
    start = time.time()
    multisite.remote.start(wait=False)
    wait_until("the point to be applied", lambda: watch.is_true(
        "SELECT state = 'applied' FROM multisite_consistency_points WHERE name = '%s'" % point), 0.1)
    record("time per GB, remote was away", "ours", (time.time() - start) / (end - begin) * 1e9, "s/GB")
    watch.close()
    multisite.remove()


def out_or_error(server, statement):
    try:
        return server.sql(statement)
    except RuntimeError:
        return "ERROR"


def peer(mb):
    native = Native("waynative", scale=10)
    native.start_source().make_remote()
    source, remote = native.source, native.remote
    begin, end = make_backlog(source, mb)
    size = (end - begin) / 1e6
    cpu = Cpu(lambda: dict(source.processes(walsender="walsender"),
                           **remote.processes(walreceiver="walreceiver", startup="startup")))
    watch = Watch(remote)
    start = time.time()
    remote.start(wait=False)
    wait_until("the standby to catch up", lambda: cpu.look() or watch.is_true(
        "SELECT pg_last_wal_replay_lsn() >= '%X/%X'" % (end >> 32, end & 0xffffffff)), 0.1)
    seconds = time.time() - start
    watch.close()
    cpu.whole_life("walsender", "walreceiver", "startup")
    record("time per GB", "peer", seconds / size * 1000, "s/GB", mb=size)
    used = cpu.seconds()
    for name in ("walsender", "walreceiver", "startup"):
        record("cpu of the peer", name, used.get(name, 0) / size * 1000, "s/GB")
    record("cpu in sum", "peer", (used.get("walsender", 0) + used.get("walreceiver", 0)) / size * 1000, "s/GB")
    native.remove()


for number in range(rounds(1, 3)):
    ours(mb, True)
    peer(mb)
    if not QUICK:
        ours_away(mb)
        ours(mb, False)
finish()
