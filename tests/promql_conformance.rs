//! Prometheus' own PromQL test scripts against the engine.
//!
//! *Invariants:* of files that have to pass, every eval passes. Of all other files at least as many evals pass as did
//! before.
//!
//! *Not here:* the scripts (shared test data) and their language (`testkit::script`).

use std::collections::BTreeMap;
use std::path::Path;

use metrolith::promql::exec::EngineOptions;
use metrolith::testkit::script::{self, Outcome};
use metrolith::testkit::shared;

/// Files of which every eval has to pass.
const COMPLETE: [&str; 19] = [
    "aggregators",
    "at_modifier",
    "collision",
    "duration_expression",
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
    "subquery",
    "trig_functions",
    "type_and_unit",
];

/// Evals that pass in the other files; raise these, never lower them.
const PASSING: [(&str, usize); 2] = [("extended_vectors", 124), ("start_timestamps", 22)];

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
fn every_eval_of_complete_files_passes() {
    let Some(dir) = shared() else { return };
    let mut failed = BTreeMap::new();
    for name in COMPLETE {
        failed.extend(failing(name, run(&dir, name, script::options())));
    }
    let shown: Vec<String> = failed.iter().map(|(at, what)| format!("{at} {what}")).collect();
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), shown.join("\n"));
}

#[test]
fn no_other_file_falls_behind() {
    let Some(dir) = shared() else { return };
    for (name, least) in PASSING {
        let outcomes = run(&dir, name, script::options());
        let total = outcomes.len();
        let failed = failing(name, outcomes);
        let passing = total - failed.len();
        if std::env::var("PROMQL_SHOW").as_deref() == Ok(name) {
            failed.iter().for_each(|(at, what)| println!("{at} {what}"));
        }
        println!("{name}: {passing} of {total} evals pass");
        assert!(passing >= least, "{name}: {passing} evals pass, {least} did before");
    }
}

/// With names removed by each operation the corpus (written for removal at the end) passes except where it tests just
/// that difference.
#[test]
fn names_may_be_removed_at_once() {
    let Some(dir) = shared() else { return };
    let options = EngineOptions { delayed_name_removal: false, ..script::options() };
    let mut failed = BTreeMap::new();
    for name in COMPLETE.into_iter().filter(|name| !matches!(*name, "name_label_dropping" | "type_and_unit")) {
        failed.extend(failing(name, run(&dir, name, options)));
    }
    // Their annotations name the metric, of which nothing is known any more then.
    let nameless = failed.len();
    failed.retain(|_, what| !what.contains("has NaN observations"));
    assert_eq!(nameless - failed.len(), 9);
    let shown: Vec<String> = failed.iter().map(|(at, what)| format!("{at} {what}")).collect();
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), shown.join("\n"));
}
