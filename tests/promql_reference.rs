//! Prometheus' own PromQL test scripts against the reference evaluator.
//!
//! *Invariants:* every eval of every script passes, in all the variants the runner makes of it: what the fast engine is
//! compared with is right itself.
//!
//! *Not here:* the scripts (shared test data), the comparison (`promql_equivalence`).

use metrolith::testkit::reference::Reference;
use metrolith::testkit::{script, shared};

#[test]
fn every_eval_passes() {
    let Some(dir) = shared() else { return };
    let reference = Reference::new(script::options());
    let mut paths: Vec<_> =
        std::fs::read_dir(dir.join("promql/testdata")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "test"));
    paths.sort();
    let (mut evals, mut failed) = (0, Vec::new());
    for path in &paths {
        let name = path.file_stem().unwrap().to_string_lossy();
        let text = std::fs::read_to_string(path).unwrap();
        let evaluate = |source: &_, ast: &_, times| reference.query(source, ast, times).map_err(|e| e.to_string());
        let outcomes = script::run_script_with(&text, &evaluate).unwrap_or_else(|e| panic!("{name}: {e}"));
        evals += outcomes.len();
        for outcome in outcomes {
            failed.extend(outcome.error.map(|e| format!("{name}:{} {}\n      {e}", outcome.line, outcome.query)));
        }
    }
    assert!(failed.is_empty(), "{} of {evals} evals fail:\n{}", failed.len(), failed.join("\n"));
    assert_eq!((paths.len(), evals), (21, 2214));
}
