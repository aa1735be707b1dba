//! Prometheus' own PromQL test scripts against the engine.
//!
//! *Invariants:* every eval of every file passes.
//!
//! *Not here:* the scripts (shared test data) and their language (`testkit::script`).

use std::collections::BTreeMap;
use std::path::Path;

use metrolith::promql::exec::EngineOptions;
use metrolith::testkit::script::{self, Outcome};
use metrolith::testkit::shared;

/// Every file of the corpus.
const FILES: [&str; 21] = [
    "aggregators",
    "at_modifier",
    "collision",
    "duration_expression",
    "extended_vectors",
    "fill-modifier",
    "functions",
    "histograms",
    "info",
    "limit",
    "literals",
    "name_label_dropping",
    "native_histograms",
    "operators",
    "range_queries",
    "selectors",
    "staleness",
    "start_timestamps",
    "subquery",
    "trig_functions",
    "type_and_unit",
];

/// Evals of the corpus.
const EVALS: usize = 2214;

fn run(dir: &Path, name: &str, options: EngineOptions) -> Vec<Outcome> {
    let path = dir.join(format!("promql/testdata/{name}.test"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    script::run_script(&text, options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Evals that fail, by `file:line`.
fn failing(name: &str, outcomes: Vec<Outcome>) -> BTreeMap<String, String> {
    let failed =
        outcomes.into_iter().filter_map(|o| Some((format!("{name}:{}", o.line), o.error.map(|e| (o.query, e))?)));
    failed.map(|(at, (query, error))| (at, format!("{query}\n      {error}"))).collect()
}

#[test]
fn every_eval_passes() {
    let Some(dir) = shared() else { return };
    let (mut evals, mut failed) = (0, BTreeMap::new());
    for name in FILES {
        let outcomes = run(&dir, name, script::options());
        evals += outcomes.len();
        failed.extend(failing(name, outcomes));
    }
    let shown: Vec<String> = failed.iter().map(|(at, what)| format!("{at} {what}")).collect();
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), shown.join("\n"));
    assert_eq!(evals, EVALS);
}

/// With names removed by each operation the corpus (written for removal at the end) passes except where it tests just
/// that difference.
#[test]
fn names_may_be_removed_at_once() {
    let Some(dir) = shared() else { return };
    let options = EngineOptions { delayed_name_removal: false, ..script::options() };
    let mut failed = BTreeMap::new();
    for name in FILES.into_iter().filter(|name| !matches!(*name, "name_label_dropping" | "type_and_unit")) {
        failed.extend(failing(name, run(&dir, name, options)));
    }
    // Their annotations name the metric, which these functions do not do then: the text differs by that name alone.
    let named = failed.len();
    let of_buckets =
        ["has NaN observations", "mix of classic and native histograms", "is missing or has a malformed value"];
    failed.retain(|_, what| !of_buckets.iter().any(|text| what.contains(text)));
    assert_eq!(named - failed.len(), 25);
    let shown: Vec<String> = failed.iter().map(|(at, what)| format!("{at} {what}")).collect();
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), shown.join("\n"));
}
