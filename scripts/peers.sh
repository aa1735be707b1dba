#!/usr/bin/env bash
# Metrolith beside VictoriaMetrics and Prometheus on one load: see scripts/peers.py for what is counted.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/tools.sh
[ -n "${METROLITH:-}" ] || cargo build --release --locked
exec python3 scripts/peers.py
