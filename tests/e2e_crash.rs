//! kill -9 at any moment: what was acknowledged is there after the restart, and nothing is there twice.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod source;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use metrolith::env::{Clock, SystemClock};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use support::http::Api;
use support::node::Setup;
use support::now_ms;
use support::writer::{Ledger, Outcome, value_of};

const METRIC: &str = "crash_test";
/// Writers at the same time, each with its own series.
const WRITERS: usize = 4;
/// Series of one writer, all in one request.
const SERIES: usize = 25;
/// Milliseconds between a writer's requests, in timestamps.
const STEP_MS: i64 = 100;

/// Writers that go on until the server is gone.
struct Load {
    gone: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<Ledger>>,
}

impl Load {
    fn start(api: &Api, next: &Arc<Vec<AtomicI64>>) -> Self {
        let gone = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS)
            .map(|writer| {
                let (api, next, gone) = (api.clone(), Arc::clone(next), Arc::clone(&gone));
                tokio::spawn(async move {
                    let mut ledger = Ledger::default();
                    let series = writer * SERIES..(writer + 1) * SERIES;
                    while !gone.load(Ordering::SeqCst) {
                        let t = next[writer].fetch_add(STEP_MS, Ordering::SeqCst);
                        if !ledger.write(&api, METRIC, series.clone(), t).await {
                            break;
                        }
                        // A client that lost the answer sends the same again: that must not count twice.
                        if (t / STEP_MS) % 7 == 0 && !ledger.write(&api, METRIC, series.clone(), t).await {
                            break;
                        }
                    }
                    ledger
                })
            })
            .collect();
        Self { gone, writers }
    }

    async fn end(self, into: &mut Ledger) {
        self.gone.store(true, Ordering::SeqCst);
        for writer in self.writers {
            into.merge(writer.await.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_sample_survives_twenty_kills_in_a_row() {
    const KILLS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let base = now_ms() - 40 * 60 * 1000;
    let next: Arc<Vec<AtomicI64>> = Arc::new((0..WRITERS).map(|_| AtomicI64::new(base)).collect());
    let mut ledger = Ledger::default();
    let mut rng = StdRng::seed_from_u64(1);
    for kill in 0..KILLS {
        let mut node = setup.start().await;
        let before = ledger.acknowledged();
        let load = Load::start(&node.api, &next);
        tokio::time::sleep(Duration::from_millis(rng.random_range(150..600))).await;
        // Now and then the kill falls into a flush.
        let flush = (kill % 3 == 2).then(|| {
            let api = node.api.clone();
            tokio::spawn(async move { api.post("/api/v1/admin/flush", &[], Vec::new()).await })
        });
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
        node.program.kill9();
        load.end(&mut ledger).await;
        if let Some(flush) = flush {
            // It may have been answered before the kill or not.
            let _ = flush.await.unwrap();
        }
        assert!(ledger.acknowledged() > before, "nothing was acknowledged in round {kill}");
        let node = setup.start().await;
        let to = next.iter().map(|t| t.load(Ordering::SeqCst)).max().unwrap();
        if let Err(wrong) = ledger.check(&node.api, METRIC, base, to).await {
            panic!("after kill {} of {KILLS}: {wrong}", kill + 1);
        }
        node.stop().await;
    }
    println!("{} acknowledged samples, {KILLS} kills", ledger.acknowledged());
}

/// Crash points of the sources, by their names.
fn crash_points() -> BTreeSet<String> {
    let sources = source::all();
    let calls = sources.iter().flat_map(|s| s.text.split("crash::point(\"").skip(1));
    calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_flush_neither_loses_nor_doubles_a_sample() {
    let points: Vec<String> = crash_points().into_iter().filter(|p| p.starts_with("flush")).collect();
    assert!(!points.is_empty(), "the sources have no crash point whose name begins with flush");
    for point in &points {
        crash_in_flush(point).await;
    }
    println!("crashed at {}", points.join(", "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_compaction_neither_loses_nor_doubles_a_sample() {
    let points: Vec<String> = crash_points().into_iter().filter(|p| p.starts_with("compact")).collect();
    assert!(points.len() > 1, "the sources lack crash points whose names begin with compact");
    for point in &points {
        crash_in_compaction(point).await;
    }
    println!("crashed at {}", points.join(", "));
}

async fn crash_in_compaction(point: &str) {
    let dir = tempfile::tempdir().unwrap();
    let base = now_ms() - 30 * 60 * 1000;
    let to = base + 60 * 15_000;
    let mut ledger = Ledger::default();
    let node = Setup::new(dir.path()).env("METROLITH_CRASH_AT", point).start().await;
    for part in 0..3 {
        for i in 0..10 {
            assert!(ledger.write(&node.api, METRIC, 0..50, base + (3 * i + part) * 15_000).await);
        }
        node.api.flush().await;
    }
    let answer = node.api.post("/api/v1/admin/compact", &[], Vec::new()).await;
    assert!(answer.is_err(), "the compaction did not pass the crash point {point}: {answer:?}");
    drop(node);
    let node = Setup::new(dir.path()).start().await;
    for compacted in [false, true] {
        if compacted {
            node.api.compact().await;
        }
        let found = ledger.check(&node.api, METRIC, base, to).await;
        found.unwrap_or_else(|wrong| panic!("crash at {point}, compacted again: {compacted}: {wrong}"));
        outside_count(dir.path(), ledger.acknowledged());
    }
    node.stop().await;
}

async fn crash_in_flush(point: &str) {
    let dir = tempfile::tempdir().unwrap();
    let base = now_ms() - 30 * 60 * 1000;
    let mut ledger = Ledger::default();
    let doomed = Setup::new(dir.path()).env("METROLITH_CRASH_AT", point);
    let node = doomed.start().await;
    for i in 0..20 {
        assert!(ledger.write(&node.api, METRIC, 0..50, base + i * 15_000).await);
    }
    let answer = node.api.post("/api/v1/admin/flush", &[], Vec::new()).await;
    assert!(answer.is_err(), "the flush did not pass the crash point {point}: {answer:?}");
    drop(node);
    let healthy = Setup::new(dir.path());
    let node = healthy.start().await;
    let to = base + 25 * 15_000;
    let check = async |ledger: &Ledger, when: &str| {
        let found = ledger.check(&node.api, METRIC, base, to).await;
        found.unwrap_or_else(|wrong| panic!("crash at {point}, {when}: {wrong}"));
    };
    check(&ledger, "after the restart").await;
    for i in 20..24 {
        assert!(ledger.write(&node.api, METRIC, 0..50, base + i * 15_000).await);
    }
    node.api.flush().await;
    check(&ledger, "after the next flush").await;
    outside_count(dir.path(), ledger.acknowledged());
    node.stop().await;
}

/// The table itself holds each sample once, not only what PromQL makes of it.
fn outside_count(dir: &Path, expected: usize) {
    let Some(python) = support::python::find() else { return };
    let table = dir.join("data/bucket/tables/anonymous");
    let found = support::python::run(&python, "sql/count.py", &[table.to_str().unwrap(), METRIC], &[]);
    assert_eq!(found, json!({"samples": expected, "distinct": expected}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_and_a_new_start_keep_everything() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let base = now_ms() - 600_000;
    let mut ledger = Ledger::default();
    for round in 0..3 {
        let node = setup.start().await;
        assert!(ledger.write(&node.api, METRIC, 0..10, base + round * 1000).await);
        ledger.check(&node.api, METRIC, base, base + 10_000).await.unwrap();
        let clock = SystemClock::new();
        node.stop().await;
        assert!(clock.monotonic() < Duration::from_secs(30));
    }
}

#[test]
fn the_checker_notices_what_it_is_there_for() {
    let mut ledger = Ledger::default();
    for t in [1000, 2000] {
        ledger.note(3, t, Outcome::Acknowledged);
    }
    ledger.note(3, 3000, Outcome::Unknown);
    let point = |t: i64, value: f64| json!([t as f64 / 1000.0, value.to_string()]);
    let good = |t: i64| point(t, value_of(3, t));
    let matrix = |values: Vec<serde_json::Value>| json!([{"metric": {"series": "3"}, "values": values}]);
    assert_eq!(ledger.compare(&matrix(vec![good(1000), good(2000)])), Ok(()));
    assert_eq!(ledger.compare(&matrix(vec![good(1000), good(2000), good(3000)])), Ok(()));
    for (bad, wrong) in [
        (matrix(vec![good(1000)]), "lost"),
        (matrix(vec![good(1000), good(1000), good(2000)]), "twice"),
        (matrix(vec![good(1000), point(2000, 1.0)]), "was sent as"),
        (matrix(vec![good(1000), good(2000), good(4000)]), "never sent"),
        (json!([]), "lost"),
    ] {
        let said = ledger.compare(&bad).unwrap_err();
        assert!(said.contains(wrong), "{said}");
    }
}
