//! Metrolith's own PromQL test scripts: what Prometheus' do not cover.
//!
//! *Invariants:* every eval passes, in the engine and in the reference evaluator.
//!
//! *Not here:* Prometheus' scripts (`promql_conformance`), the language of scripts (`testkit::script`).

use metrolith::promql::exec::EngineOptions;
use metrolith::testkit::reference::Reference;
use metrolith::testkit::script::{self, Outcome};

fn run(name: &str, text: &str, options: EngineOptions) {
    let reference = Reference::new(options);
    let evaluate = |source: &_, ast: &_, times| reference.query(source, ast, times).map_err(|e| e.to_string());
    check(name, script::run_script(text, options));
    check(&format!("reference: {name}"), script::run_script_with(text, &evaluate));
}

fn check(name: &str, outcomes: Result<Vec<Outcome>, String>) {
    let outcomes = outcomes.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(!outcomes.is_empty(), "{name} has no evals");
    let failed =
        outcomes.into_iter().filter_map(|o| Some(format!("{name}:{} {}\n      {}", o.line, o.query, o.error?)));
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{} evals fail:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn names_are_removed_by_each_operation_by_default() {
    let options = EngineOptions { delayed_name_removal: false, ..script::options() };
    run("names_at_once", include_str!("promql/names_at_once.test"), options);
}

#[test]
fn names_may_be_removed_at_the_end() {
    run("names_delayed", include_str!("promql/names_delayed.test"), script::options());
}
