"""The whole way: a backlog that was written while the remote site was away,
until a point behind it is applied there (Kafka, staging, release, replay),
against a native standby that catches up on a backlog of the same load.
Both times begin with the start of the remote server.  CPU and memory of the
workers are taken on the way, memory again with a smaller backlog.

The other case is that of a standby that was away while its source and Kafka
worked: the WAL is in Kafka, with a point a second in it, so replay begins
while the rest is staged."""
import time

from benchlib import *

mb = backlog_mb(400, 5120)


def watch_memory(cpu, peak):
    cpu.look()
    for name, pid in cpu.find().items():
        if name in ("publisher", "receiver"):
            try:
                memory = memory_mb(pid)
                peak[name] = tuple(max(a, b) for a, b in zip(peak.get(name, (0, 0)), memory))
            except (FileNotFoundError, AttributeError, ProcessLookupError):
                pass
    return False


def ours(mb, number, timed):
    multisite = Multisite("way", scale=10)
    multisite.start_source().make_remote()
    source, remote = multisite.source, multisite.remote
    source.set(multisite__publish="off")
    wait_until("the publisher to end", lambda: source.is_true(
        "SELECT state = 'disabled' FROM multisite_status WHERE worker = 'publisher'"))
    begin, end = make_backlog(source, mb)
    size = (end - begin) / 1e6
    cpu = Cpu(lambda: dict(source.processes(publisher="multisite publisher", walsender="walsender"),
                           **remote.processes(receiver="multisite receiver", orchestrator="multisite orchestrator",
                                              startup="startup"), broker=broker_pid()))
    peak = {}
    start = time.time()
    source.set(multisite__publish="on")
    remote.start(wait=False)
    session = Session(source)
    # the worker needs a moment to see that it may work
    point = wait_until("a point", lambda: (lambda text: None if "ERROR" in text else text)(
        out_or_error(source, "SELECT multisite_create_consistency_point()")))
    made = time.time() - start
    session.close()

    def applied():
        watch_memory(cpu, peak)
        return remote.is_true("SELECT state = 'applied' FROM multisite_consistency_points WHERE name = '%s'" % point)
    wait_until("the point to be applied", applied, 0.05)
    seconds = time.time() - start
    cpu.whole_life("walsender", "receiver", "orchestrator", "startup")
    staged, released = remote.sql(
        "SELECT extract(epoch FROM staged_at - to_timestamp(%f)), extract(epoch FROM released_at - to_timestamp(%f)) "
        "FROM multisite_consistency_points WHERE name = '%s'" % (start, start, point)).split("|")
    if timed:
        record("time per GB", "ours", seconds / size * 1000, "s/GB", staged=float(staged) / size * 1000,
               released=float(released) / size * 1000, mb=size, point=made)
        used = cpu.seconds()
        for name in ("publisher", "walsender", "receiver", "orchestrator", "broker", "startup"):
            record("cpu", name, used.get(name, 0) / size * 1000, "s/GB")
        record("cpu in sum", "ours", sum(used.get(name, 0) for name in
                                         ("publisher", "walsender", "receiver", "orchestrator")) / size * 1000, "s/GB")
    for name, (most, own) in peak.items():
        record("memory of " + name, "large" if timed else "small", most, "MB", own=own, backlog=size)
    multisite.remove()


def ours_away(mb):
    multisite = Multisite("wayaway", scale=10, conf="multisite.consistency_point_interval = '1s'")
    multisite.start_source().make_remote()
    begin, end = make_backlog(multisite.source, mb)
    point = multisite.point()
    multisite.wait_published(multisite.source)
    start = time.time()
    multisite.remote.start(wait=False)
    wait_until("the point to be applied", lambda: multisite.remote.is_true(
        "SELECT state = 'applied' FROM multisite_consistency_points WHERE name = '%s'" % point), 0.05)
    record("time per GB, remote was away", "ours", (time.time() - start) / (end - begin) * 1e9, "s/GB")
    multisite.remove()


def out_or_error(server, statement):
    try:
        return server.sql(statement)
    except RuntimeError:
        return "ERROR"


def peer(mb, number):
    native = Native("waynative", scale=10)
    native.start_source().make_remote()
    source, remote = native.source, native.remote
    begin, end = make_backlog(source, mb)
    size = (end - begin) / 1e6
    cpu = Cpu(lambda: dict(source.processes(walsender="walsender"),
                           **remote.processes(walreceiver="walreceiver", startup="startup")))
    start = time.time()
    remote.start(wait=False)
    wait_until("the standby to catch up", lambda: cpu.look() or remote.is_true(
        "SELECT pg_last_wal_replay_lsn() >= '%X/%X'" % (end >> 32, end & 0xffffffff)), 0.05)
    seconds = time.time() - start
    cpu.whole_life("walsender", "walreceiver", "startup")
    record("time per GB", "peer", seconds / size * 1000, "s/GB", mb=size)
    used = cpu.seconds()
    for name in ("walsender", "walreceiver", "startup"):
        record("cpu of the peer", name, used.get(name, 0) / size * 1000, "s/GB")
    record("cpu in sum", "peer", (used.get("walsender", 0) + used.get("walreceiver", 0)) / size * 1000, "s/GB")
    native.remove()


for number in range(rounds(1, 3)):
    ours(mb, number, True)
    peer(mb, number)
    ours_away(mb)
if not QUICK:
    ours(mb // 4, 0, False)
finish()
