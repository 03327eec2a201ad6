"""The most memory that publisher and receiver have while a backlog goes from
the source to the remote site, for a backlog and for one four times as large."""
import shutil

from benchlib import *

mb = backlog_mb(100, 5120)


def most(size, mb):
    multisite = Multisite("memory" + size, scale=10)
    multisite.start_source().make_remote()
    source, remote = multisite.source, multisite.remote
    multisite.stop_publishing()
    begin, end = make_backlog(source, mb)
    source.set(multisite__publish="on")
    remote.start()
    peak = {}

    def staged():
        found = dict(source.processes(publisher="multisite publisher"), **remote.processes(receiver="multisite receiver"))
        for name, pid in found.items():
            try:
                peak[name] = tuple(map(max, peak.get(name, (0, 0)), memory_mb(pid)))
            except (FileNotFoundError, AttributeError, ProcessLookupError):
                pass
        return remote.is_true("SELECT staged_lsn >= '%X/%X' FROM multisite_status WHERE worker = 'receiver'"
                              % (end >> 32, end & 0xffffffff))
    wait_until("the backlog to be staged", staged, 0.2)
    multisite.wait_applied(multisite.point(), "released")
    staged()
    for name, (resident, own) in peak.items():
        record("memory of " + name, size, resident, "MB", own=own, backlog=(end - begin) / 1e6)
    multisite.remove()


most("small", mb)
# in the source, packed in Kafka, and at the remote site
if shutil.disk_usage(DIR).free > 2.6 * 4 * mb * 1024 * 1024:
    most("large", 4 * mb)
else:
    say("not enough room for a backlog of %d MB" % (4 * mb))
finish()
