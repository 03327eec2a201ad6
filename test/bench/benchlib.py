"""What the figures share: servers, clusters with a remote site, native
standbys, loads, and what /proc says of a process.

A figure is a script that calls record() for each single measurement, of ours
and of the peer in turn, and finish() at its end.  Everything is below
BENCH_DIR; servers are durable (fsync on), so that both sides pay for it.
"""
import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

DIR = os.environ["BENCH_DIR"]
BIN = os.environ["BENCH_PG_BIN"]
BROKERS = os.environ["BENCH_BROKERS"]
QUICK = os.environ.get("BENCH_MODE", "quick") == "quick"
FIGURE = os.path.splitext(os.path.basename(sys.argv[0]))[0]
TICKS = os.sysconf("SC_CLK_TCK")
TIMEOUT = 600					# of a wait for an event; then something is wrong

servers = []					# that run
children = []


def pick(quick, full):
    """A parameter's value in a quick and in a full run."""
    return quick if QUICK else full


def rounds(quick, full):
    return int(os.environ.get("BENCH_ROUNDS") or pick(quick, full))


def backlog_mb(quick, full):
    return int(os.environ.get("BENCH_BACKLOG") or pick(quick, full))


def say(text):
    print("   " + text, flush=True)


# --- results

_results = []


def record(measure, who, value, unit, **more):
    """One measurement; who is 'ours', 'peer', or another variant's name."""
    _results.append(dict(figure=FIGURE, measure=measure, who=who, value=value, unit=unit, **more))
    say("%-28s %-12s %12.4g %s" % (measure, who, value, unit))


def finish():
    os.makedirs(DIR + "/results", exist_ok=True)
    info = dict(figure=FIGURE, measure="run", mode="quick" if QUICK else "full",
                at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), cores=os.cpu_count(),
                load=os.getloadavg()[0], server=out([BIN + "/postgres", "--version"]).strip())
    with open("%s/results/%s.jsonl" % (DIR, FIGURE), "w") as f:
        for line in [info] + _results:
            f.write(json.dumps(line) + "\n")


def _end():
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()
    for server in list(servers):
        server.stop("immediate")


atexit.register(_end)
signal.signal(signal.SIGTERM, lambda *args: sys.exit(1))


# --- processes

def out(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError("%s failed: %s%s" % (" ".join(command), done.stdout, done.stderr))
    return done.stdout


def wait_until(what, condition, pause=0.02):
    deadline = time.time() + TIMEOUT
    while True:
        value = condition()
        if value:
            return value
        if time.time() > deadline:
            raise RuntimeError("timed out waiting for " + what)
        time.sleep(pause)


def cpu_seconds(pid):
    """Of all threads, user and system."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    except (FileNotFoundError, ProcessLookupError):
        return None


def memory_mb(pid):
    """The most that was resident, and what is now the process's alone."""
    with open("/proc/%d/status" % pid) as f:
        status = f.read()
    return tuple(int(re.search(name + r":\s+(\d+) kB", status).group(1)) / 1024 for name in ("VmHWM", "RssAnon"))


def children_of(pid):
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as f:
                    stat = f.read()
                if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                    with open("/proc/%s/cmdline" % entry) as f:
                        found[int(entry)] = f.read().replace("\0", " ").strip()
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


def broker_pid():
    with open(DIR + "/kafka/node0/pid") as f:
        return int(f.read())


def tcp_bytes(pid, port, field):
    """Bytes that a process has sent or received on its connections to or
    from a port, by the kernel's count."""
    total = 0
    lines = out(["ss", "-tinpH", "( sport = :%d or dport = :%d )" % (port, port)]).split("\n")
    for head, info in zip(lines, lines[1:]):
        if "pid=%d," % pid in head:
            found = re.search(field + r":(\d+)", info)
            total += int(found.group(1)) if found else 0
    return total


class Cpu:
    """CPU seconds of named processes from here to the last look at each; a
    process that has ended keeps the figure of the look before."""
    def __init__(self, find):
        self.find = find			# gives {name: pid}
        self.first = {}
        self.last = {}
        self.look()

    def look(self):
        for name, pid in self.find().items():
            now = cpu_seconds(pid)
            if now is not None:
                self.first.setdefault((name, pid), now)
                self.last[(name, pid)] = now

    def whole_life(self, *names):
        """What these have used before the first look counts, too."""
        for key in self.first:
            if key[0] in names:
                self.first[key] = 0

    def seconds(self):
        used = {}
        for (name, pid), last in self.last.items():
            used[name] = used.get(name, 0) + last - self.first[(name, pid)]
        return used


# --- servers

def _free_port():
    _free_port.next += 1
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", _free_port.next))
                return _free_port.next
            except OSError:
                _free_port.next += 1


_free_port.next = 12000 + os.getpid() % 4000


def lsn(text):
    high, low = text.strip().split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Session:
    """A psql that stays."""
    END = "--end--"

    def __init__(self, server):
        self.psql = subprocess.Popen(server.psql_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True, bufsize=1)
        children.append(self.psql)

    def sql(self, statement):
        self.psql.stdin.write("%s;\nSELECT '%s';\n" % (statement, self.END))
        self.psql.stdin.flush()
        lines = []
        while True:
            line = self.psql.stdout.readline()
            if line == "":
                raise RuntimeError("session ended: " + "".join(lines))
            if line.rstrip("\n") == self.END:
                return "\n".join(lines)
            lines.append(line.rstrip("\n"))

    def close(self):
        self.psql.stdin.close()
        self.psql.wait()


class Watch:
    """Asks a server, which may not be there yet, again and again while
    something is measured, by one session: a psql each time takes a fifth of
    a core from what is measured."""
    def __init__(self, server):
        self.server = server
        self.session = None

    def is_true(self, statement):
        try:
            self.session = self.session or Session(self.server)
            return self.session.sql(statement) == "t"
        except (RuntimeError, OSError):
            self.close()
            return False

    def close(self):
        if self.session:
            try:
                self.session.close()
            except OSError:
                pass
            self.session = None


class Server:
    def __init__(self, name, core=None):
        self.name = name
        self.core = core			# the only one to run on
        self.port = _free_port()
        self.data = "%s/servers/%s" % (DIR, name)
        self.running = False
        shutil.rmtree(self.data, ignore_errors=True)
        os.makedirs(DIR + "/servers", exist_ok=True)

    def _pin(self, command):
        return command if self.core is None else ["taskset", "-c", str(self.core)] + command

    def append(self, conf):
        with open(self.data + "/postgresql.conf", "a") as f:
            f.write("\n" + conf + "\n")

    def init(self, scale, conf=""):
        """A copy of a template that is made once a run."""
        template = "%s/template_%d" % (DIR, scale)
        if not os.path.exists(template + "/ready"):
            _make_template(template, scale)
        shutil.copytree(template, self.data)
        self.append(COMMON + conf)
        self._own_port()
        return self

    def _own_port(self):
        self.append("port = %d\nunix_socket_directories = '%s'\nlisten_addresses = '127.0.0.1'" % (self.port, DIR))

    def init_backup(self, source, conf=""):
        out([BIN + "/pg_basebackup", "-h", DIR, "-p", str(source.port), "-U", "postgres", "-D", self.data,
             "-c", "fast", "--no-sync"])
        os.sync()
        self.append(conf)
        self._own_port()
        open(self.data + "/standby.signal", "w").close()
        return self

    def start(self, wait=True):
        out(self._pin([BIN + "/pg_ctl", "-D", self.data, "-l", self.data + ".log", "-t", "300",
                       "-w" if wait else "-W", "start"]), stdin=subprocess.DEVNULL)
        self.running = True
        servers.append(self)
        return self

    def stop(self, how="fast"):
        if self.running:
            subprocess.run([BIN + "/pg_ctl", "-D", self.data, "-m", how, "-w", "-t", "300", "stop"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.running = False
            servers.remove(self)

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.data, ignore_errors=True)

    def postmaster(self):
        try:
            with open(self.data + "/postmaster.pid") as f:
                return int(f.readline())
        except (FileNotFoundError, ValueError):
            return 0

    def processes(self, **kinds):
        """{name: pid} of the children whose titles contain these words."""
        found = {}
        for pid, title in children_of(self.postmaster()).items():
            for name, word in kinds.items():
                if word in title:
                    found[name] = pid
        return found

    def psql_command(self):
        return [BIN + "/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", DIR, "-p", str(self.port),
                "-U", "postgres", "-d", "postgres"]

    def sql(self, statement):
        return out(self.psql_command() + ["-c", statement]).strip()

    def is_true(self, statement):
        try:
            return self.sql(statement) == "t"
        except RuntimeError:
            return False

    def set(self, **settings):
        for name, value in settings.items():
            self.append("%s = '%s'" % (name.replace("__", "."), value))
        out([BIN + "/pg_ctl", "-D", self.data, "reload"])

    def wal_end(self):
        return lsn(self.sql("SELECT pg_current_wal_flush_lsn()"))

    def conninfo(self, tcp=False):
        return "host=%s port=%d user=postgres" % ("127.0.0.1" if tcp else DIR, self.port)


COMMON = """
# --- benchmarks
wal_level = replica
max_wal_senders = 10
max_connections = 60
max_prepared_transactions = 10
max_wal_size = 64GB
checkpoint_timeout = 1h
shared_buffers = 256MB
log_checkpoints = off
"""

SMALL = """
shared_buffers = 16MB
max_connections = 30
"""


def _make_template(template, scale):
    shutil.rmtree(template, ignore_errors=True)
    out([BIN + "/initdb", "-D", template, "-U", "postgres", "-A", "trust", "--no-sync"])
    with open(template + "/pg_hba.conf", "a") as f:
        f.write("\n# benchmarks\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n")
    if scale:
        server = Server("template_%d" % scale)
        server.data = template
        with open(template + "/postgresql.conf") as f:
            before = f.read()
        server.append("fsync = off")
        server._own_port()
        server.start()
        pgbench_init(server, scale)
        server.stop()
        with open(template + "/postgresql.conf", "w") as f:
            f.write(before)
    os.sync()
    open(template + "/ready", "w").close()


# --- clusters

class Multisite:
    """A source site, and a remote one that follows it through Kafka."""
    instances = 0

    def __init__(self, name, segments=0, scale=0, conf="", source_core=None, remote_core=None):
        Multisite.instances += 1
        self.name = name
        self.cluster = "%s_%d_%d" % (name, time.time(), Multisite.instances)
        self.ids = list(range(-1, segments))
        self.scale = scale
        self.conf = conf
        self.sources = {id: Server("%s_main_%d" % (name, id), source_core) for id in self.ids}
        self.remotes = {id: Server("%s_dr_%d" % (name, id), remote_core) for id in self.ids}
        self.source = self.sources[-1]
        self.remote = self.remotes[-1]

    def start_source(self):
        for id, server in self.sources.items():
            server.init(self.scale if id == -1 else 0, """
shared_preload_libraries = 'multisite_repl'
multisite.cluster_name = '%s'
multisite.site_name = 'main'
multisite.segment_id = %d
multisite.brokers = '%s'
multisite.replication_factor = 1
multisite.publish = on
%s""" % (self.cluster, id, BROKERS, self.conf)).start()
            server.sql("CREATE EXTENSION multisite_repl")
        for id in self.ids[1:]:
            self.source.sql("SELECT multisite_add_segment(%d, '%s dbname=postgres'), "
                            "multisite_add_segment(%d, '%s dbname=postgres', 'dr')"
                            % (id, self.sources[id].conninfo(), id, self.remotes[id].conninfo()))
        for server in self.sources.values():
            self.wait_published(server)
        return self

    def wait_published(self, server):
        wait_until("the publisher", lambda: server.is_true(
            "SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'"))

    def stop_publishing(self):
        self.source.set(multisite__publish="off")
        wait_until("the publisher to end", lambda: self.source.is_true(
            "SELECT state = 'disabled' FROM multisite_status WHERE worker = 'publisher'"))

    def control_messages(self):
        """So many, of all kinds but WAL, were ever sent."""
        offsets = out([DIR + "/src/test/kafka/broker", "tool", DIR + "/kafka", "org.apache.kafka.tools.GetOffsetShell",
                       "--topic", re.escape(self.cluster) + r"\..*", "--time", "-1"])
        return sum(int(line.split(":")[-1]) for line in offsets.splitlines() if ".wal." not in line)

    def make_remote(self, conf=""):
        for id, server in self.remotes.items():
            server.init_backup(self.sources[id], """
multisite.site_name = 'dr'
multisite.source_site = 'main'
multisite.consistency_point_interval = 0
%s""" % conf)
        return self

    def start_remote(self, wait=True):
        for server in self.remotes.values():
            server.start(wait)
        return self

    def start(self):
        self.start_source().make_remote().start_remote()
        self.wait_applied(self.point())
        return self

    def point(self):
        return self.source.sql("SELECT multisite_create_consistency_point()")

    def wait_applied(self, point, state="applied"):
        if not self.remote.is_true("SELECT multisite_wait_for_consistency_point('%s', '%s', '10 min')" % (point, state)):
            raise RuntimeError("point %s is not %s" % (point, state))

    def servers(self):
        return list(self.sources.values()) + list(self.remotes.values())

    def stop(self, how="fast"):
        for server in self.servers():
            server.stop(how)

    def remove(self):
        for server in self.servers():
            server.remove()


class Native:
    """A server without the extension, and its streaming standby."""

    def __init__(self, name, scale=0, conf="", source_core=None, remote_core=None):
        self.source = Server(name + "_primary", source_core).init(scale, conf)
        self.remote = Server(name + "_standby", remote_core)

    def start_source(self):
        self.source.start()
        self.source.sql("SELECT pg_create_physical_replication_slot('standby', true)")
        return self

    def make_remote(self, conf=""):
        self.remote.init_backup(self.source, """
primary_conninfo = '%s application_name=standby'
primary_slot_name = 'standby'
%s""" % (self.source.conninfo(tcp=True), conf))
        return self

    def start(self):
        self.start_source().make_remote()
        self.remote.start()
        wait_until("the standby", lambda: self.source.is_true("SELECT count(*) = 1 FROM pg_stat_replication"))
        self.wait_applied(self.source.wal_end())
        return self

    def wait_applied(self, end, pause=0.01):
        session = Session(self.remote)
        wait_until("the standby's replay",
                   lambda: lsn(session.sql("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')")) >= end, pause)
        session.close()

    def stop(self, how="fast"):
        self.source.stop(how)
        self.remote.stop(how)

    def remove(self):
        self.source.remove()
        self.remote.remove()


# --- loads

def pgbench_init(server, scale, steps="dtgvp"):
    out([BIN + "/pgbench", "-h", DIR, "-p", str(server.port), "-U", "postgres", "-i", "-I", steps, "-q",
         "-s", str(scale), "postgres"])


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))]


class Pgbench:
    """A TPC-B load that runs beside; wait() gives TPS and latencies in ms."""
    number = 0

    def __init__(self, server, seconds, clients=8, core=None, more=()):
        Pgbench.number += 1
        self.prefix = "%s/pgbench_%s_%d" % (DIR, FIGURE, Pgbench.number)
        self.process = subprocess.Popen(
            ([] if core is None else ["taskset", "-c", str(core)]) +
            [BIN + "/pgbench", "-h", DIR, "-p", str(server.port), "-U", "postgres", "-n", "-M", "prepared",
             "-c", str(clients), "-j", "1", "-T", str(seconds), "-l", "--log-prefix=" + self.prefix] +
            list(more) + ["postgres"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        children.append(self.process)

    def transactions(self):
        """At its end: TPS, and when each transaction ended and its latency in ms."""
        text = self.process.communicate()[0]
        found = re.search(r"^tps = ([\d.]+)", text, re.M)
        if self.process.returncode != 0 or not found:
            raise RuntimeError("pgbench failed: " + text)
        transactions = []
        directory, prefix = os.path.split(self.prefix)
        for name in os.listdir(directory):
            if re.fullmatch(re.escape(prefix) + r"\.\d+(\.\d+)?", name):
                with open(directory + "/" + name) as f:
                    for line in f:
                        fields = line.split()
                        transactions.append((int(fields[4]) + int(fields[5]) / 1e6, int(fields[2]) / 1000))
                os.unlink(directory + "/" + name)
        return float(found.group(1)), transactions

    def wait(self):
        tps, transactions = self.transactions()
        return tps, [latency for end, latency in transactions]


def load_pgbench(server, seconds=4):
    """TPC-B, right behind a checkpoint, so with full page images, too."""
    server.sql("CHECKPOINT")
    Pgbench(server, seconds).wait()


def load_bulk(server, mb):
    """Rows as an import has them: numbers, a time, words, some random text."""
    server.sql("CREATE TABLE IF NOT EXISTS bulk (id bigint, at timestamptz, what text, code text)")
    for part in range(max(1, mb // 100)):
        server.sql("INSERT INTO bulk SELECT i, now() + i * interval '1 s', "
                   "(ARRAY['order', 'invoice', 'delivery', 'return'])[1 + i %% 4] || ' of customer ' || i %% 1000, "
                   "md5(i::text) FROM generate_series(1, %d) i" % (7400 * min(mb, 100)))


def load_index(server):
    server.sql("CREATE INDEX ON bulk (code)")
    server.sql("CREATE INDEX ON bulk (id, at)")


def make_backlog(server, mb):
    """That much WAL of all three kinds; returns where it begins and ends."""
    begin = server.wal_end()
    goal = begin + mb * 1024 * 1024
    load_pgbench(server, 2 if mb <= 1024 else 15)
    while server.wal_end() < goal:
        load_bulk(server, min(100, 1 + (goal - server.wal_end()) // (1024 * 1024)))
        if server.wal_end() + 200 * 1024 * 1024 < goal:
            load_index(server)
            server.sql("TRUNCATE bulk")
    server.sql("CHECKPOINT")
    return begin, server.wal_end()


# What servers cost a source: TPS of pgbench there while they run, the source
# itself first; with a native standby, once it streams.
def tps_turn(who, servers, source, seconds, core=None):
    for server in servers:
        server.start()
    if len(servers) == 2:
        wait_until("replication", lambda: source.is_true("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"))
    source.sql("CHECKPOINT")
    tps, latencies = Pgbench(source, seconds, core=core).wait()
    record("TPS", who, tps, "TPS", p99=quantile(latencies, 0.99), p50=quantile(latencies, 0.5))
    for server in servers:
        server.stop()
