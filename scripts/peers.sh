#!/usr/bin/env bash
# Metrolith beside VictoriaMetrics and Prometheus: see scripts/peers.py (writes) and scripts/query_peers.py (queries,
# with the argument query_peers) for what is counted.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/tools.sh
[ -n "${METROLITH:-}" ] || cargo build --release --locked
exec python3 "scripts/${1:-peers}.py"
