//! Every kept fuzz input passes the checks of its target, on stable and without a fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

#[path = "../fuzz/checks/block.rs"]
mod block_checks;
#[path = "../fuzz/checks/entry.rs"]
mod entry_checks;
#[path = "../fuzz/checks/head.rs"]
mod head_checks;
#[path = "../fuzz/checks/log.rs"]
mod log_checks;
#[path = "../fuzz/checks/promql.rs"]
mod promql_checks;
#[path = "../fuzz/checks/remote_write.rs"]
mod remote_write_checks;
#[path = "../fuzz/seeds.rs"]
mod seeds;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn replay<T>(target: &str, check: fn(&[u8]) -> T) {
    let dir = corpus().join(target);
    let mut seen = 0;
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        // The name of the input stands above the panic, should there be one.
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
        seen += 1;
    }
    assert!(seen > 0, "no inputs in {}", dir.display());
}

#[test]
fn block_reader() {
    replay("block_reader", block_checks::block_reader);
}

#[test]
fn head_snapshot() {
    replay("head_snapshot", head_checks::head_snapshot);
}

#[test]
fn log_reader() {
    replay("log_reader", log_checks::log_reader);
}

#[test]
fn promql_parser() {
    replay("promql_parser", promql_checks::promql_parser);
}

#[test]
fn remote_write_v1() {
    replay("remote_write_v1", remote_write_checks::remote_write_v1);
}

#[test]
fn remote_write_v2() {
    replay("remote_write_v2", remote_write_checks::remote_write_v2);
}

#[test]
fn shard_entry() {
    replay("shard_entry", entry_checks::shard_entry);
}

/// Run by hand after a format has changed: `cargo test --test fuzz_corpus -- --ignored`.
#[test]
#[ignore = "writes the first inputs of the targets"]
fn write_seeds() {
    seeds::write(&corpus());
}
