"""Processor and memory of Metrolith, VictoriaMetrics and Prometheus under one load, one after the other.

Each server starts with an empty directory on a free loopback port. The load is the same remote write, made by
`metrolith load`. Counted are the processor seconds of the server alone, from before the load until it has settled (all
merging that follows from the load is part of its price), and its resident memory then, less what it held when idle.

Environment: SERIES (200000), SCRAPES (20), SETTLE seconds (15), METROLITH (path of a release build), ONLY (one name).
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERIES = int(os.environ.get("SERIES", "200000"))
SCRAPES = int(os.environ.get("SCRAPES", "20"))
SETTLE = float(os.environ.get("SETTLE", "15"))
METROLITH = os.environ.get("METROLITH", str(ROOT / "target/release/metrolith"))
TICKS = os.sysconf("SC_CLK_TCK")


def tool(name):
    found = shutil.which(name) or str(ROOT / "target/tools/root/usr/bin" / name)
    if not os.path.exists(found):
        sys.exit(f"{name} is missing: run scripts/tools.sh")
    return found


def servers(port, directory):
    """Name, command, and whether an answer of 2xx means that the samples are on disk."""
    address = f"127.0.0.1:{port}"
    data = f"{directory}/data"
    return {
        "metrolith": (
            [METROLITH, "serve", "--data-dir", data, "--http", address, "--self-monitoring-enabled", "false"],
            "yes",
        ),
        "victoria-metrics": (
            ["victoria-metrics", f"-storageDataPath={data}", f"-httpListenAddr={address}", "-retentionPeriod=10y"],
            "no",
        ),
        "prometheus": (
            [
                "prometheus",
                "--web.enable-remote-write-receiver",
                f"--config.file={directory}/empty.yml",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={address}",
            ],
            "no",
        ),
    }


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def wait_ready(url, child, log):
    for _ in range(600):
        if child.poll() is not None:
            sys.exit(f"{url} ended before it was ready:\n{pathlib.Path(log).read_text()[-2000:]}")
        for page in ("/-/ready", "/-/healthy", "/health"):
            try:
                with urllib.request.urlopen(url + page, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
        time.sleep(0.1)
    sys.exit(f"{url} was not ready within 60 s")


def load(url):
    """Sends the load and returns its report."""
    command = [METROLITH, "load", "--url", url, "--series", str(SERIES), "--scrapes", str(SCRAPES)]
    out = subprocess.run([*command, "--max-speed", "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(out.stdout)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(name):
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="peers-", dir=ROOT / "target") as directory:
        pathlib.Path(directory, "empty.yml").write_text("global: {}\n")
        command, durable = servers(port, directory)[name]
        log = f"{directory}/log"
        with open(log, "wb") as out:
            child = subprocess.Popen([tool(command[0]), *command[1:]], stdout=out, stderr=out)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, child, log)
            time.sleep(2)
            idle, before = resident_bytes(child.pid), cpu_seconds(child.pid)
            report = load(url)
            time.sleep(SETTLE)
            used, held = cpu_seconds(child.pid) - before, resident_bytes(child.pid)
        finally:
            child.kill()
            child.wait()
    samples = report["samples_acked"]
    return {
        "name": name,
        "durable": durable,
        "samples": samples,
        "cpu": used / (samples / 1e6),
        "memory": (held - idle) / SERIES,
        "rate": report["samples_per_second"],
        "p99": report["latency_ms"]["p99"],
    }


def main():
    names = ["metrolith", "victoria-metrics", "prometheus"]
    names = [os.environ["ONLY"]] if os.environ.get("ONLY") else names
    rows = []
    for name in names:
        print(f"peers: {name}: {SERIES} series x {SCRAPES} scrapes", file=sys.stderr)
        rows.append(measure(name))
    first = rows[0]
    print(f"{SERIES} series x {SCRAPES} scrapes, one server after the other, {os.cpu_count()} cores\n")
    head = ["server", "on disk at 2xx", "CPU-s / M samples", "ratio", "bytes / series", "ratio", "samples / s", "p99 ms"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        cells = [
            row["name"],
            row["durable"],
            f"{row['cpu']:.2f}",
            f"{row['cpu'] / first['cpu']:.1f}",
            f"{row['memory']:.0f}",
            f"{row['memory'] / first['memory']:.1f}",
            f"{row['rate']:.0f}",
            f"{row['p99']:.0f}",
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
