"""Processor and memory of queries on Metrolith, VictoriaMetrics and Prometheus over the same data, one after the other.

Each server starts with an empty directory on a free loopback port, takes the same remote write (`metrolith load`), settles
(merging included: Metrolith compacts every period that is over), starts again so that memory of the load is not reused,
and is asked the queries below, each ROUNDS times after one that does not count. Counted for a query are the processor
seconds of the server alone and the most memory it held meanwhile, the first time included, less what it held before.
Answers are compared by the number of series and of points: the servers extrapolate rates differently, so values are left
to the tests.

Environment: SERIES (2000), SCRAPES (960: 4 h), INTERVAL (15s), ROUNDS (10), SETTLE seconds (10), STEP seconds (60),
METROLITH (path of a release build), ONLY (one server).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import peers

SERIES = int(os.environ.get("SERIES", "2000"))
SCRAPES = int(os.environ.get("SCRAPES", "960"))
INTERVAL = int(os.environ.get("INTERVAL", "15s").removesuffix("s"))
ROUNDS = int(os.environ.get("ROUNDS", "10"))
SETTLE = float(os.environ.get("SETTLE", "10"))
STEP = int(os.environ.get("STEP", "60"))

# Every metric, as far as no two of them differ by their names alone.
ALL_RATES = 'sum(rate({__name__=~"http_request_duration_seconds_bucket|http_requests_total|node_cpu_seconds_total|go_gc_duration_seconds"}[5m]))'

# Name, query, whether it is asked over the whole range (else at its end).
QUERIES = [
    ("rate, sum by", "sum by (instance) (rate(node_cpu_seconds_total[5m]))", True),
    ("rate, sum", "sum(rate(node_cpu_seconds_total[5m]))", True),
    (
        "histogram_quantile",
        "histogram_quantile(0.9, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))",
        True,
    ),
    ("topk", "topk(5, rate(http_requests_total[5m]))", True),
    (
        "join",
        "node_filesystem_avail_bytes / on (instance, mountpoint) group_left () node_filesystem_size_bytes",
        True,
    ),
    ("count by", "count by (job) (up)", True),
    ("regex matcher", 'sum(rate(http_requests_total{handler=~"/api/.*",code!~"2.."}[5m]))', True),
    ("one series", 'node_load1{instance="10.0.0.0:9100"}', True),
    ("rate of all, sum", ALL_RATES, True),
    ("instant sum of all", 'count({__name__=~".+"})', False),
    ("instant rate", "sum by (mode) (rate(node_cpu_seconds_total[5m]))", False),
]


def ask(url, query, ranged, start, end):
    """Numbers of series and of points of an answer."""
    fields = {"query": query, "start": start, "end": end, "step": STEP} if ranged else {"query": query, "time": end}
    # Nobody may answer from what it kept of the round before.
    fields["nocache"] = "1"
    path = "/api/v1/query_range" if ranged else "/api/v1/query"
    request = urllib.request.Request(url + path, data=urllib.parse.urlencode(fields).encode())
    with urllib.request.urlopen(request, timeout=600) as answer:
        result = json.load(answer)["data"]["result"]
    return len(result), sum(len(s["values"]) if ranged else 1 for s in result)


def peak_bytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def start_server(name, port, directory):
    command, _ = peers.servers(port, directory)[name]
    if name == "prometheus":
        command += ["--query.timeout=10m"]
    if name == "metrolith":
        command += ["--compaction-check-interval", "1s", "--compaction-quiet-period", "0s"]
    log = f"{directory}/log"
    with open(log, "ab") as out:
        child = subprocess.Popen([peers.tool(command[0]), *command[1:]], stdout=out, stderr=out)
    try:
        peers.wait_ready(f"http://127.0.0.1:{port}", child, log)
    except BaseException:
        child.kill()
        raise
    return child


def stop_server(child):
    child.terminate()
    child.wait(timeout=120)


def measure_queries(pid, url, start, end):
    rows = {}
    for name, query, ranged in QUERIES:
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        held = peers.resident_bytes(pid)
        ask(url, query, ranged, start, end)
        before = peers.cpu_seconds(pid)
        for _ in range(ROUNDS):
            found = ask(url, query, ranged, start, end)
        cpu = (peers.cpu_seconds(pid) - before) / ROUNDS
        rows[name] = {"cpu": cpu, "peak": max(peak_bytes(pid) - held, 0), "found": found}
    return rows


def measure(name, start, end):
    port = peers.free_port()
    with tempfile.TemporaryDirectory(prefix="queries-", dir=peers.ROOT / "target") as directory:
        pathlib.Path(directory, "empty.yml").write_text("global: {}\n")
        child = start_server(name, port, directory)
        try:
            url = f"http://127.0.0.1:{port}"
            load = [peers.METROLITH, "load", "--url", url, "--series", str(SERIES), "--scrapes", str(SCRAPES)]
            load += ["--interval", f"{INTERVAL}s", "--start-time", str(start * 1000), "--max-speed", "--json"]
            # Prometheus refuses what lies behind a head it has cut meanwhile: one scrape after the other.
            load += ["--concurrency", "1"]
            subprocess.run(load, stdout=subprocess.PIPE, check=True)
            time.sleep(SETTLE)
            stop_server(child)
            child = start_server(name, port, directory)
            return measure_queries(child.pid, url, start, end)
        finally:
            child.kill()
            child.wait()


def main():
    names = ["metrolith", "victoria-metrics", "prometheus"]
    names = [os.environ["ONLY"]] if os.environ.get("ONLY") else names
    end = int(time.time()) // STEP * STEP - STEP
    start = end - (SCRAPES - 1) * INTERVAL
    measured = {}
    for name in names:
        print(f"queries: {name}: {SERIES} series x {SCRAPES} scrapes", file=sys.stderr)
        measured[name] = measure(name, start, end)
        for query, row in measured[name].items():
            print(f"  {query}: {1000 * row['cpu']:.0f} ms, {row['peak'] / 1e6:.1f} MB", file=sys.stderr)
    print(f"{SERIES} series x {SCRAPES} scrapes of {INTERVAL} s, step {STEP} s, {ROUNDS} rounds, {os.cpu_count()} cores\n")
    head = ["query"] + [f"{n}: CPU ms, peak MB, series, points" for n in names]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, _, _ in QUERIES:
        cells = [name]
        for server in names:
            row = measured[server][name]
            cells.append(f"{1000 * row['cpu']:.0f}, {row['peak'] / 1e6:.1f}, {row['found'][0]}, {row['found'][1]}")
        print("| " + " | ".join(cells) + " |")


main()
