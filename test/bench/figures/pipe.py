"""WAL through the pipe: a backlog on the source until Kafka has acknowledged
it, against pg_receivewal of the same backlog to the local disk.  Both begin
with the connection, from a slot that keeps the whole backlog."""
import subprocess
import time

from benchlib import *

mb = backlog_mb(500, 5120)
compressions = pick(["lz4"], ["lz4", "zstd", "none"])
multisite = Multisite("pipe", scale=10)
multisite.start_source()
source = multisite.source
source.sql("SELECT pg_create_physical_replication_slot('keep', true)")
multisite.stop_publishing()
begin, end = make_backlog(source, mb)
size = (end - begin) / 1e6
say("backlog of %.0f MB" % size)


def set_slot(name):
    source.sql("SELECT pg_drop_replication_slot('%s')" % name
               + " WHERE EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '%s')" % name)
    source.sql("SELECT pg_copy_physical_replication_slot('keep', '%s')" % name)


def ours(compression, number):
    # another cluster's name, so that it begins with an empty topic
    source.stop()
    source.append("multisite.cluster_name = '%s_%s_%d'\nmultisite.compression = '%s'"
                  % (multisite.cluster, compression, number, compression))
    source.start()
    set_slot("multisite_main")
    session = Session(source)
    cpu = Cpu(lambda: dict(source.processes(publisher="multisite publisher", walsender="walsender"), broker=broker_pid()))
    start = time.time()
    source.set(multisite__publish="on")
    wait_until("Kafka's acknowledgement", lambda: cpu.look() or session.sql(
        "SELECT coalesce(published_lsn >= '%X/%X', false) FROM multisite_status WHERE worker = 'publisher'"
        % (end >> 32, end & 0xffffffff)) == "t", 0.05)
    seconds = time.time() - start
    cpu.whole_life("walsender")
    session.close()
    source.set(multisite__publish="off")
    record("throughput " + compression, "ours", size / seconds, "MB/s")
    used = cpu.seconds()
    for name in ("publisher", "walsender", "broker"):
        record("cpu of pipe " + compression, name, used.get(name, 0) / size * 1000, "s/GB")


def peer():
    set_slot("receivewal")
    directory = "%s/receivewal" % DIR
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    start = time.time()
    process = subprocess.Popen([BIN + "/pg_receivewal", "-h", "127.0.0.1", "-p", str(source.port), "-U", "postgres",
                                "-D", directory, "-S", "receivewal", "-E", "%X/%X" % (end >> 32, end & 0xffffffff),
                                "--no-loop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children.append(process)
    if process.wait() != 0:
        raise RuntimeError("pg_receivewal failed")
    record("throughput", "peer", size / (time.time() - start), "MB/s")
    shutil.rmtree(directory)


for number in range(rounds(2, 5)):
    for compression in compressions if number < 3 else compressions[:1]:
        ours(compression, number)
        peer()
finish()
