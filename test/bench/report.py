#!/usr/bin/env python3
"""report.py RESULTS DOCS: writes DOCS/benchmarks.md and DOCS/img/*.svg from
the lines of JSON that the figures have left in RESULTS.

What stands in benchmarks.md behind the line KEEP was written by hand, and
stays.
"""
import glob
import json
import os
import statistics
import sys

KEEP = "<!-- what follows is written by hand, and kept by test/bench/report.py -->"
COLOURS = ["#31688e", "#e08214", "#7fbc41", "#999999", "#8073ac", "#d6604d"]

results, docs = sys.argv[1:3]
lines = []
for name in sorted(glob.glob(results + "/*.jsonl")):
    with open(name) as f:
        lines += [json.loads(line) for line in f]


def values(figure, measure, who, field="value"):
    return [line[field] for line in lines
            if line["figure"] == figure and line["measure"] == measure and line.get("who") == who and field in line]


def number(value):
    return "%.0f" % value if abs(value) >= 100 else "%.3g" % value


def spread(some, unit=""):
    """min / median / max, or fewer of them."""
    if not some:
        return "–"
    unit = " " + unit if unit else ""
    if len(some) == 1:
        return number(some[0]) + unit
    return " / ".join(number(f(some)) for f in (min, statistics.median, max)) + unit


def quantile(some, q):
    return sorted(some)[min(len(some) - 1, int(len(some) * q))]


def ratios(ours, peer):
    """Of each measurement of ours to the peer's of the same round."""
    if not ours or not peer:
        return []
    if len(ours) == len(peer):
        return [a / b for a, b in zip(ours, peer)]
    return [a / statistics.median(peer) for a in ours]


# --- the table

rows = []


def row(title, ours, peer, ratio, aim, met):
    rows.append((title, ours, peer, ratio, aim, "–" if met is None else "yes" if met else "**no**"))


def compare(title, figure, measure, ours, peer, unit, aim, text, more_is_better=True,
            peer_measure=None, field="value", peer_title=""):
    a, b = values(figure, measure, ours, field), values(figure, peer_measure or measure, peer, field)
    if not a or not b:
        return
    r = ratios(a, b)
    middle = statistics.median(r)
    met = None if aim is None else middle >= aim if more_is_better else middle <= aim
    row(title, spread(a, unit), spread(b, unit) + peer_title, spread(r, "×"), text, met)


def absolute(title, figure, measure, who, unit, limit, text, field="value", peer="–"):
    a = values(figure, measure, who, field)
    if a:
        row(title, spread(a, unit), peer, "–", text, None if limit is None else statistics.median(a) <= limit)


for compression in ("lz4", "zstd", "none"):
    compare("WAL through the pipe, %s" % compression, "pipe", "throughput " + compression, "ours", "peer", "MB/s",
            1.0 if compression == "lz4" else None, "≥ 1.0 ×" if compression == "lz4" else "",
            peer_measure="throughput", peer_title=" (pg_receivewal)")
compare("whole way: Kafka and the remote were away, backlog → replayed, per GB", "whole_way", "time per GB", "ours", "peer", "s", 1.1, "≤ 1.1 ×", False)
for field in ("staged", "released"):
    absolute("– of that until it is %s" % field, "whole_way", "time per GB", "ours", "s", None, "", field)
compare("– only the remote site was away: the backlog is in Kafka", "whole_way", "time per GB, remote was away", "ours", "peer",
        "s", 1.1, "≤ 1.1 ×", False, peer_measure="time per GB")
compare("– publishing was off: no point in the backlog", "whole_way", "time per GB, no point in it", "ours", "peer",
        "s", None, "", False, peer_measure="time per GB")
loads = ["pgbench", "bulk load", "index build", "random text", "index on random text"]
for load in loads:
    for compression, aim in (("lz4", 0.30), ("zstd", 0.20)):
        aimed = load in loads[:3]
        compare("bytes on the link per WAL byte: %s, %s" % (load, compression), "link", "bytes per WAL byte, " + load,
                compression, "peer", "", aim if aimed else None, "≤ %.2f" % aim if aimed else "", False)
compare("source TPS, 8 clients, everything on all cores", "tps", "TPS", "ours", "peer", "", 1.0, "≥ 1.0 ×")
compare("– against no replication", "tps", "TPS", "ours", "none", "", None, "")
compare("source TPS, source on one core, against none", "pinned", "TPS", "ours", "peer", "", 0.95, "≥ 0.95 ×")
compare("– against a native standby", "pinned", "TPS", "ours", "native", "", 1.0, "≥ 1.0 ×")
compare("synchronous: source TPS", "sync", "TPS", "ours", "peer", "", 0.8, "≥ 0.8 ×")
compare("synchronous: p99 latency", "sync", "p99 latency", "ours", "peer", "ms", None, "", False)
for interval in (1000, 200):
    compare("commit → applied, a point every %d ms: p50" % interval, "latency", "p50 at %d ms" % interval, "ours", "peer",
            "ms", None, "", False, peer_measure="p50")
    peer = values("latency", "p99", "peer")
    absolute("– p99", "latency", "p99 at %d ms" % interval, "ours", "ms", interval + 100, "< %d ms" % (interval + 100),
             peer=spread(peer, "ms"))
a = values("promote", "promote", "ours")
compare("promotion of 1 + 3 segments", "promote", "promote", "ours", "peer", "s", 1.2, "≤ 1.2 ×", False)
absolute("– the same", "promote", "promote", "ours", "s", 2.0, "< 2 s")
for who in ("publisher", "receiver"):
    small, large = (values("memory", "memory of " + who, size) for size in ("small", "large"))
    if small and large:
        backlogs = [values("memory", "memory of " + who, size, "backlog")[0] for size in ("small", "large")]
        own = values("memory", "memory of " + who, "large", "own")
        row("RSS of the %s, most, backlog of %s MB" % (who, number(backlogs[1])), spread(large, "MB"),
            "%s with %s MB" % (spread(small, "MB"), number(backlogs[0])), spread(ratios(large, small), "×"),
            "≤ 64 + 32 MB", max(large + small) <= 96)
        row("– of it the process's own (RssAnon)", spread(own, "MB"),
            spread(values("memory", "memory of " + who, "small", "own"), "MB"), "–", "", None)
compare("CPU per GB of WAL: publisher, its walsender, receiver, orchestrator", "whole_way", "cpu in sum", "ours", "peer",
        "s", 2.0, "≤ 2 ×", False, peer_title=" (walsender, walreceiver)")
for who in ("publisher", "walsender", "receiver", "orchestrator", "broker"):
    peer = {"walsender": "walsender", "receiver": "walreceiver"}.get(who)
    absolute("– " + who, "whole_way", "cpu", who, "s", None, "",
             peer=spread(values("whole_way", "cpu of the peer", peer), "s") + " (%s)" % peer if peer else "–")
compare("pgbench TPS, extension loaded, barrier down, against not loaded", "barrier", "TPS", "ours", "peer", "",
        0.99, "no loss that can be measured (≥ 0.99 ×)")
counts = sorted({line["segments"] for line in lines if line["figure"] == "segments" and "segments" in line})
for n in counts:
    for where, title in (("source alone", "TPS, a point a second on 1 + %d segments, against none" % n),
                         ("with remote", "– with the remote's replay on the same cores")):
        compare(title, "segments", "TPS at %d segments, %s" % (n, where), "ours", "peer", "",
                *((0.99, "≥ 0.99 ×") if where == "source alone" else (None, "")))
        compare("– – p99 latency", "segments", "p99 latency at %d segments, %s" % (n, where), "ours", "peer", "ms", None, "", False)
for n in counts:
    barrier = values("segments", "barrier", str(n))
    if not barrier:
        continue
    p50, p99 = quantile(barrier, 0.5), quantile(barrier, 0.99)
    row("barrier time of a point, 1 + %d segments, p50 / p99" % n, "%s / %s ms" % (number(p50), number(p99)), "–",
        "–", "p99 < 5 ms" if n == 4 else "", p99 < 5 if n == 4 else None)
    applied = values("segments", "created to applied", str(n))
    row("– created → applied, p50 / p99", "%s / %s ms" % (number(quantile(applied, 0.5)), number(quantile(applied, 0.99))),
        "–", "–", "p50 < 100 ms", quantile(applied, 0.5) < 100)
if len(counts) > 1:
    first, last = counts[0], counts[-1]
    for measure, title in (("barrier", "barrier time"), ("created to applied", "created → applied")):
        grown = (quantile(values("segments", measure, str(last)), 0.5) / quantile(values("segments", measure, str(first)), 0.5))
        # the coordinator, a server more, takes the steps in the process that makes the point
        row("%s, p50: growth from %d to %d segments" % (title, first, last), number(grown) + " ×",
            "%s × segments, %s × servers" % (number(last / first), number((last + 1) / (first + 1))), "–",
            "slower than N", grown < last / first)
messages = {n: values("segments", "messages a point", str(n)) for n in counts}
if counts and messages[counts[-1]]:
    each = [messages[n][0] / (n + 1) for n in counts]
    row("messages a point, 1 + %d segments" % counts[-1], number(messages[counts[-1]][0]), "–", "–", "", None)
    row("– for each server, with %s segments" % " / ".join(map(str, counts)), " / ".join(map(number, each)), "–", "–",
        "O(N)", each[-1] <= 2 * each[0])


# --- plots

def svg(name, title, body, width, height):
    os.makedirs(docs + "/img", exist_ok=True)
    with open("%s/img/%s.svg" % (docs, name), "w") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
                'font-family="sans-serif" font-size="12">\n<rect width="100%%" height="100%%" fill="white"/>\n'
                '<text x="10" y="20" font-size="14" font-weight="bold">%s</text>\n%s</svg>\n'
                % (width, height, width, height, title, "".join(body)))
    plots.append((name, title))


plots = []


def text(x, y, what, anchor="start", colour="black"):
    return '<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>\n' % (x, y, anchor, colour, what)


def line(x1, y1, x2, y2, colour="black", width=1):
    return '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%s"/>\n' % (x1, y1, x2, y2, colour, width)


def bars(name, title, unit, groups):
    """Horizontal bars of medians, a whisker from the least to the most.
    groups: [(label, [(series, values)])]"""
    groups = [(label, [s for s in series if s[1]]) for label, series in groups]
    groups = [g for g in groups if g[1]]
    if not groups:
        return
    most = max(max(v) for _, series in groups for _, v in series) or 1
    scale = 380 / most
    names = []
    y = 36
    body = []
    for label, series in groups:
        body.append(text(10, y + 9 * len(series) + 4, label))
        for who, some in series:
            if who not in names:
                names.append(who)
            colour = COLOURS[names.index(who) % len(COLOURS)]
            middle = statistics.median(some)
            body.append('<rect x="190" y="%d" width="%.1f" height="14" fill="%s"/>\n' % (y, middle * scale, colour))
            body.append(line(190 + min(some) * scale, y + 7, 190 + max(some) * scale, y + 7))
            body.append(text(196 + max(some) * scale, y + 11, "%s %s" % (number(middle), unit)))
            y += 18
        y += 8
    x = 190
    for i, who in enumerate(names):
        body.append('<rect x="%d" y="%d" width="12" height="12" fill="%s"/>\n' % (x, y, COLOURS[i % len(COLOURS)]))
        body.append(text(x + 16, y + 10, who))
        x += 30 + 7 * len(who)
    svg(name, title, body, 680, y + 22)


def curves(name, title, unit, xlabel, series):
    """Lines through (x, y) points. series: [(label, [(x, y)])]"""
    series = [s for s in series if s[1]]
    if not series:
        return
    most_x = max(x for _, points in series for x, _ in points)
    most_y = max(y for _, points in series for _, y in points) or 1

    def place(x, y):
        return 60 + x / most_x * 440, 260 - y / most_y * 210
    body = [line(60, 260, 500, 260), line(60, 260, 60, 40), text(500, 290, xlabel, "end")]
    for i in range(5):
        x, y = place(0, most_y * i / 4)
        body += [line(x - 4, y, x, y), text(x - 8, y + 4, "%s%s" % (number(most_y * i / 4), " " + unit if i == 4 else ""), "end")]
    for x in sorted({x for _, points in series for x, _ in points}):
        body += [line(place(x, 0)[0], 260, place(x, 0)[0], 264), text(place(x, 0)[0], 277, "%d" % x, "middle")]
    for i, (label, points) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        places = [place(x, y) for x, y in sorted(points)]
        body += [line(*a, *b, colour, 2) for a, b in zip(places, places[1:])]
        body += ['<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>\n' % (x, y, colour) for x, y in places]
        body.append(text(510, 50 + 18 * i, label, colour=colour))
    svg(name, title, body, 680, 300)


bars("pipe", "WAL through the pipe", "MB/s",
     [(c, [("ours", values("pipe", "throughput " + c, "ours"))]) for c in ("lz4", "zstd", "none")] +
     [("pg_receivewal", [("peer", values("pipe", "throughput", "peer"))])])
bars("whole_way", "The whole way, seconds per GB of WAL", "s",
     [("native standby", [("replayed", values("whole_way", "time per GB", "peer"))]),
      ("ours", [("staged", values("whole_way", "time per GB", "ours", "staged")),
                ("released", values("whole_way", "time per GB", "ours", "released")),
                ("replayed", values("whole_way", "time per GB", "ours"))])])
bars("link", "Bytes on the link for each byte of WAL", "",
     [(load, [(who, values("link", "bytes per WAL byte, " + load, who)) for who in ("lz4", "zstd", "peer")]) for load in loads])
bars("tps", "Source TPS, pgbench, 8 clients", "",
     [("asynchronous", [("ours", values("tps", "TPS", "ours")), ("native standby", values("tps", "TPS", "peer")),
                        ("no replication", values("tps", "TPS", "none"))]),
      ("source on one core", [("ours", values("pinned", "TPS", "ours")), ("native standby", values("pinned", "TPS", "native")),
                              ("no replication", values("pinned", "TPS", "peer"))]),
      ("synchronous", [("ours", values("sync", "TPS", "ours")), ("native standby", values("sync", "TPS", "peer"))])])
bars("cpu", "CPU seconds per GB of WAL", "s",
     [(who, [("ours", values("whole_way", "cpu", who)), ("native", values("whole_way", "cpu of the peer", who))])
      for who in ("publisher", "walsender", "receiver", "walreceiver", "orchestrator", "broker")])
for measure, name, title in (("barrier", "barrier", "How long commits wait for a point"),
                             ("created to applied", "applied", "A point, created to applied")):
    curves(name, title, "ms", "segments, and a coordinator",
           [(label, [(n, quantile(values("segments", measure, str(n)), q)) for n in counts if values("segments", measure, str(n))])
            for label, q in (("p50", 0.5), ("p99", 0.99))])

# --- the page

runs = [line for line in lines if line["measure"] == "run"]
kept = ""
page = docs + "/benchmarks.md"
if os.path.exists(page):
    with open(page) as f:
        kept = f.read().partition(KEEP)[2]
with open(page, "w") as f:
    f.write("""# Benchmarks

`test/bench/run` measures all of this; `--full` is the long form, and the name of a figure (`test/bench/figures`) measures only
that one. Each figure of ours is taken in turn with its peer's, in the same run on the same machine, and what counts is their
ratio, round by round. Where there are several rounds, a cell says min / median / max. A figure of this kind depends on the
machine: Kafka, both sites and the clients share its cores and its disk here.

""")
    for mode in ("quick", "full"):
        some = [run for run in runs if run["mode"] == mode]
        if some:
            f.write("%s run of %s: %d cores, %s. Measured: %s. The load average at the ends of the figures was %s: "
                    "much above 8 there, others used the machine, and only a quiet one's figures count.\n\n" % (
                        mode.capitalize(), max(run["at"] for run in some), some[0]["cores"], some[0]["server"],
                        ", ".join(run["figure"] for run in some), spread([run["load"] for run in some])))
    f.write("| figure | ours | peer | ratio | aim | met |\n|---|---|---|---|---|---|\n")
    for r in rows:
        f.write("| " + " | ".join(r) + " |\n")
    f.write("\n")
    for name, title in plots:
        f.write("![%s](img/%s.svg)\n" % (title, name))
    f.write("\n" + KEEP + (kept or "\n"))
