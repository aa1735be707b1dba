//! The fast engine against the reference evaluator, on random queries and data.
//!
//! *Invariants:* both give the same answer, the same error or the same annotations, as `random::answers` defines it, and
//! the engine gives it on one thread and on four, bit for bit and with the same figures. The
//! pairs of a run depend on nothing but their number and the seed.
//!
//! *Not here:* Prometheus' own scripts (`promql_conformance`, `promql_reference`).
//!
//! `METROLITH_PAIRS=100000` makes it a long run, `METROLITH_SEED` another one.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod random;

use std::sync::Arc;

use metrolith::model::StepGrid;
use metrolith::promql::ast::{AggregateOp, Ast, Expr};
use metrolith::promql::exec::control::CancelToken;
use metrolith::promql::exec::helpers::Helpers;
use metrolith::promql::exec::result::QueryValue;
use metrolith::promql::exec::{Engine, EngineOptions, Times};
use metrolith::promql::signature::FunctionName;
use metrolith::promql::value_type::ValueType;
use metrolith::promql::{ParseOptions, parse};
use metrolith::testkit::reference::Reference;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use random::answers::{Answer, difference};
use random::data::RandomData;

/// Pairs of a run under `cargo test`.
const PAIRS: u32 = 300;
/// Pairs from one seed: a difference ends the rest of them.
const BATCH: u32 = 500;
/// Differences after which a run ends.
const ENOUGH: usize = 12;

/// What an answer is worth as a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kind {
    fails: bool,
    has_values: bool,
    is_annotated: bool,
}

impl Kind {
    fn of(answer: &Answer) -> Self {
        let Ok(result) = answer else { return Self { fails: true, ..Self::default() } };
        let has_values = match &result.value {
            QueryValue::Scalar(..) | QueryValue::String(..) => true,
            QueryValue::Vector(v) => !v.is_empty(),
            QueryValue::Matrix(m) => !m.is_empty(),
        };
        Self { fails: false, has_values, is_annotated: !result.annotations.is_empty() }
    }
}

/// A query with data, times and options.
#[derive(Debug, Clone)]
struct Pair {
    query: String,
    data: RandomData,
    times: Times,
    options: EngineOptions,
}

fn times() -> impl Strategy<Value = Times> {
    let grid =
        (0..400i64, 1..12i64, select(&[15_000i64, 30_000, 7_000, 60_000, 1_001][..])).prop_map(|(start, n, step)| {
            let start = start * 1000;
            Times::Range(StepGrid { start, end: start + n * step + step / 2, step })
        });
    prop_oneof![2 => (0..500i64).prop_map(|t| Times::Instant(t * 1000)), 3 => grid]
}

fn options() -> impl Strategy<Value = EngineOptions> {
    let rarely = || prop_oneof![5 => Just(false), 1 => Just(true)];
    (any::<bool>(), any::<bool>(), rarely(), rarely()).prop_map(|(delayed, starts, types, short)| EngineOptions {
        delayed_name_removal: delayed,
        use_start_timestamps: starts,
        type_and_unit_labels: types,
        lookback: if short { 40_000 } else { 300_000 },
        ..EngineOptions::default()
    })
}

fn pair() -> impl Strategy<Value = Pair> {
    let parts = (random::query::query(), random::data::data(), times(), options());
    parts.prop_map(|(query, data, times, options)| Pair { query, data, times, options })
}

/// Whether the order of an instant answer means something.
fn is_ordered(ast: &Ast) -> bool {
    use FunctionName as F;
    match ast.expr(ast.unwrap_parens(ast.root)) {
        Expr::Aggregate(a) => {
            matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk) && a.grouping.is_empty() && !a.without
        }
        Expr::Call(c) => matches!(c.function.id, F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc),
        _ => false,
    }
}

/// Compares; `None` where the query cannot be read.
fn compare(pair: &Pair) -> Option<Result<Kind, String>> {
    let ast = parse(&pair.query, ParseOptions::all()).ok()?;
    // A range query yields no range vector; the one who asks sees to that.
    if ast.value_type(ast.root) == ValueType::Matrix && matches!(pair.times, Times::Range(_)) {
        return None;
    }
    let source = pair.data.source();
    let want: Answer = Reference::new(pair.options).query(&source, &ast, pair.times);
    let ask = |helpers: &Arc<Helpers>| -> Answer {
        let (engine, cancel) = (Engine::new(pair.options).with_helpers(Arc::clone(helpers)), CancelToken::default());
        futures::executor::block_on(engine.query(&source, &ast, pair.times, &cancel))
    };
    let (got, helped) = (ask(&Helpers::new(0)), ask(&Helpers::eager(3)));
    // Every float prints as itself; NaN does not equal itself.
    if format!("{got:?}") != format!("{helped:?}") {
        return Some(Err(format!("one thread answers {got:?}, four answer {helped:?}")));
    }
    Some(match difference(&pair.query, is_ordered(&ast), &want, &got) {
        None => Ok(Kind::of(&want)),
        Some(text) => Err(text),
    })
}

fn environment(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn engine_and_reference_agree() {
    let (pairs, seed) = (environment("METROLITH_PAIRS").unwrap_or(PAIRS), environment("METROLITH_SEED").unwrap_or(0));
    let (mut compared, mut failed) = (Vec::new(), Vec::new());
    for batch in 0.. {
        if compared.len() >= pairs as usize || failed.len() >= ENOUGH {
            break;
        }
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_le_bytes());
        bytes[4..8].copy_from_slice(&(batch as u32).to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config =
            Config { cases: BATCH.min(pairs), failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
        let found = std::cell::RefCell::new(Vec::new());
        let outcome = TestRunner::new_with_rng(config, rng).run(&pair(), |pair| match compare(&pair) {
            None => Ok(()),
            Some(Ok(kind)) => {
                found.borrow_mut().push(kind);
                Ok(())
            }
            Some(Err(e)) => Err(TestCaseError::fail(e)),
        });
        compared.extend(found.into_inner());
        if let Err(TestError::Fail(why, pair)) = outcome {
            failed.push(format!("{}\n{:?} {:?}\n{:#?}\n{why}\n", pair.query, pair.times, pair.options, series(&pair)));
        }
    }
    let count = |f: fn(&Kind) -> bool| compared.iter().filter(|kind| f(kind)).count();
    println!(
        "{} pairs of a query and data compared: {} answers with values, {} errors, {} with annotations",
        compared.len(),
        count(|k| k.has_values),
        count(|k| k.fails),
        count(|k| k.is_annotated)
    );
    assert!(failed.is_empty(), "{} differences:\n\n{}", failed.len(), failed.join("\n"));
}

/// The series of a pair as one line each.
fn series(pair: &Pair) -> Vec<String> {
    let source = pair.data.source();
    let line = |(labels, c): (&metrolith::model::Labels, &metrolith::model::Columns)| {
        let samples: Vec<String> = (0..c.len())
            .map(|i| match c.histogram(i) {
                Some(h) => format!("{}:{h:?}", c.timestamps[i]),
                None => format!("{}:{}", c.timestamps[i], c.values[i]),
            })
            .collect();
        format!("{labels} starts {:?} {}", c.starts, samples.join(" "))
    };
    source.iter().map(line).collect()
}
