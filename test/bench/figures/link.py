"""Bytes on the link for each byte of WAL, by the kernel's count of the TCP
connections: publisher to Kafka, and Kafka to the receiver, against the
walsender of a native standby.  Bulk load and index build are pgbench's own
(pgbench -i), which compress well; the last two, rows and an index with a
random text of 32 hexadecimal digits each, do not."""
from benchlib import *

broker_port = int(BROKERS.rsplit(":", 1)[1])
mb = pick(30, 200)


def measure(who, compression, cluster, sent, received, settle):
    """Runs the loads and records what each has sent, on each leg."""
    source = cluster.source
    loads = [("pgbench", lambda: load_pgbench(source, pick(2, 6))),
             ("bulk load", lambda: pgbench_init(source, mb // 10, "dtg")),
             ("index build", lambda: pgbench_init(source, mb // 10, "p")),
             ("random text", lambda: load_bulk(source, mb)),
             ("index on random text", lambda: load_index(source))]
    for name, load in loads:
        settle()
        before = source.wal_end(), sent(), received()
        load()
        settle()
        wal = source.wal_end() - before[0]
        record("bytes per WAL byte, " + name, who, (sent() - before[1]) / wal, "", leg="out", wal=wal)
        if who != "peer":
            record("bytes per WAL byte, " + name, who + ", in", (received() - before[2]) / wal, "", wal=wal)


def ours(compression):
    multisite = Multisite("link", scale=10, conf="multisite.compression = '%s'" % compression).start()
    source, remote = multisite.source, multisite.remote

    def settle():
        multisite.wait_applied(multisite.point())
    measure(compression, compression, multisite,
            lambda: tcp_bytes(source.processes(p="multisite publisher")["p"], broker_port, "bytes_sent"),
            lambda: tcp_bytes(remote.processes(p="multisite receiver")["p"], broker_port, "bytes_received"), settle)
    multisite.remove()


def peer():
    native = Native("linknative", scale=10).start()

    def settle():
        native.wait_applied(native.source.wal_end())
    measure("peer", "", native,
            lambda: tcp_bytes(native.source.processes(p="walsender")["p"], native.source.port, "bytes_sent"),
            lambda: 0, settle)
    native.remove()


for compression in ("lz4", "zstd"):
    ours(compression)
peer()
finish()
