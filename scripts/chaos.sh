#!/usr/bin/env bash
# Runs a chaos profile (chaos/README.md) on METROLITH_BIN, or on a release build made now. What it found is in
# target/chaos/PROFILE-SEED-TIME.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-short} seed=${2:-1}
cargo build --locked --manifest-path chaos/Cargo.toml --target-dir chaos/target --quiet
if [ -z "${METROLITH_BIN:-}" ]; then
  cargo build --locked --release --bin metrolith
  export METROLITH_BIN=target/release/metrolith
fi
mkdir -p target/chaos
exec chaos/target/debug/chaos --profile "$profile" --seed "$seed" --dir "target/chaos/$profile-$seed-$(date +%s)"
