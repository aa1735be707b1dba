//! Prometheus' PromQL test scripts over a real head and real blocks.
//!
//! *Invariants:* wherever samples are kept, every eval yields what it yields in memory.
//!
//! *Not here:* the scripts in memory, with all variants of each eval (`promql_conformance`).

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

use std::sync::Arc;

use futures::executor::block_on;
use metrolith::model::{Labels, StepGrid};
use metrolith::promql::exec::control::CancelToken;
use metrolith::promql::exec::helpers::Helpers;
use metrolith::promql::exec::{Engine, Times};
use metrolith::promql::source::Source;
use metrolith::promql::{ParseOptions, parse};
use metrolith::testkit::memory_source::{MemorySource, Point};
use metrolith::testkit::script::{self, Storage};
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

/// Counters of 300 targets, each load half an hour.
fn fill(storage: &mut impl Storage, loads: i64) {
    for load in 0..loads {
        for target in 0..300 {
            let (job, instance) = (format!("job-{}", target % 7), format!("host-{target}"));
            let labels = Labels::from_pairs([("__name__", "x_total"), ("job", &job), ("instance", &instance)]);
            for i in load * 120..(load + 1) * 120 {
                let value = (i * target) as f64 / 7.0 + 1e15 * (target % 3) as f64;
                storage.append(&labels, i * 15_000, 0, &Point::Float(value)).unwrap();
            }
        }
        storage.commit().unwrap();
    }
}

#[test]
fn one_and_four_threads_agree_bit_for_bit_on_what_is_stored() {
    let mut memory = MemorySource::new();
    fill(&mut memory, 3);
    for kept in [Kept::Head, Kept::Blocks, Kept::Both] {
        let mut stored = StoredSource::new(kept);
        fill(&mut stored, 3);
        for query in [
            "sum by (job) (rate(x_total[5m]))",
            "avg(x_total) / stddev(x_total)",
            "topk(3, increase(x_total[10m]))",
            "sum(rate(x_total[5m])) / count(rate(x_total[5m]))",
            "x_total + x_total",
            "max_over_time(sum by (job) (x_total)[10m:1m])",
        ] {
            let ast = parse(query, ParseOptions::default()).unwrap();
            let times = Times::Range(StepGrid { start: 0, end: 360 * 15_000, step: 30_000 });
            let ask = |source: &dyn Source, helpers: Arc<Helpers>| {
                let (engine, cancel) = (Engine::default().with_helpers(helpers), CancelToken::default());
                block_on(engine.query(source, &ast, times, &cancel)).unwrap()
            };
            let alone = ask(&stored, Helpers::new(0));
            for helpers in [Helpers::new(3), Helpers::eager(3)] {
                assert_eq!(format!("{:?}", ask(&stored, helpers)), format!("{alone:?}"), "{kept:?} {query}");
            }
            let read = |source: &dyn Source| ask(source, Helpers::new(0)).stats;
            assert_eq!(read(&stored).samples_read, read(&memory).samples_read, "{kept:?} {query}");
        }
    }
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
