#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (default 60) on stable Rust: libFuzzer with the coverage flags cargo-fuzz would set,
# without the address sanitizer, which needs nightly. Inputs that fail land in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
target=x86_64-unknown-linux-gnu

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --manifest-path fuzz/Cargo.toml --target-dir fuzz/target --profile release --target "$target" --bins

for source in fuzz/fuzz_targets/*.rs; do
  name=$(basename "$source" .rs)
  mkdir -p "fuzz/artifacts/$name" "fuzz/target/corpus/$name"
  kept=fuzz/corpus/$name
  echo "fuzz: $name for $seconds s"
  # New inputs go to target/; only what is minimised by hand is kept in fuzz/corpus.
  "fuzz/target/$target/release/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
    -artifact_prefix="fuzz/artifacts/$name/" "fuzz/target/corpus/$name" $([ -d "$kept" ] && echo "$kept")
done
