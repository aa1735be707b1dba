//! Prometheus' PromQL test scripts over a real head and real blocks.
//!
//! *Invariants:* wherever samples are kept, every eval yields what it yields in memory.
//!
//! *Not here:* the scripts in memory, with all variants of each eval (`promql_conformance`).

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

use metrolith::testkit::script;
use metrolith::testkit::shared;
use metrolith::testkit::stored_source::{Kept, StoredSource};

/// Evals of the corpus.
const EVALS: usize = 2214;

fn failing(kept: Kept) -> Vec<String> {
    let Some(dir) = shared() else { return Vec::new() };
    let (mut evals, mut failed) = (0, Vec::new());
    for entry in std::fs::read_dir(dir.join("promql/testdata")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "test") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut storage = StoredSource::new(kept);
        let outcomes = script::run_script_on(&text, script::options(), &mut storage);
        let outcomes = outcomes.unwrap_or_else(|e| panic!("{name}: {e}"));
        evals += outcomes.len();
        let error = |o: script::Outcome| Some(format!("{name}:{} {}\n      {}", o.line, o.query, o.error?));
        failed.extend(outcomes.into_iter().filter_map(error));
    }
    assert_eq!(evals, EVALS);
    failed
}

#[test]
fn every_eval_passes_over_a_head() {
    let failed = failing(Kept::Head);
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_eval_passes_over_blocks() {
    let failed = failing(Kept::Blocks);
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_eval_passes_over_blocks_and_a_head() {
    let failed = failing(Kept::Both);
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), failed.join("\n"));
}
