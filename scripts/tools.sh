#!/usr/bin/env bash
# Fetches what the end-to-end tests compare Metrolith with, into target/tools: Debian's Prometheus, its node exporter and
# VictoriaMetrics, and a Python with DuckDB, deltalake and a client of the API. Nothing is installed on the machine, no
# service is started.
# Safe to run again: what is there stays. Tests look in PATH first, then in target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
mkdir -p "$tools"

fetch_deb() { # package, program
  command -v "$2" >/dev/null && return
  [ -x "$tools/root/usr/bin/$2" ] && return
  echo "tools: fetching $1"
  (cd "$tools" && { apt-get -qq download "$1" 2>/dev/null || { apt-get -qq update && apt-get -qq download "$1"; }; } &&
    dpkg -x "$1"_*.deb root && rm -f "$1"_*.deb)
}
fetch_deb prometheus prometheus
fetch_deb prometheus-node-exporter prometheus-node-exporter
fetch_deb victoria-metrics victoria-metrics

if ! "$tools/venv/bin/python" -c 'import duckdb, deltalake, pyarrow, prometheus_api_client' 2>/dev/null; then
  echo "tools: making a Python environment with duckdb, deltalake and prometheus-api-client"
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install -q --disable-pip-version-check -r tests/sql/requirements.txt \
    -r tests/clients/requirements.txt
fi
echo "tools: ready in $tools"
