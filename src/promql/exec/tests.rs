//! Whole queries: depth, limits, cancellation, names. What values are right is tested by `tests/promql_conformance.rs`.

use futures::executor::block_on;

use super::column::Sample;
use super::control::{CancelToken, Limits};
use super::error::Error;
use super::result::{QueryResult, QueryValue};
use super::{Engine, EngineOptions, Times};
use crate::model::{Labels, StepGrid};
use crate::promql::source::{SelectRequest, SeriesSet, Source};
use crate::promql::{ParseOptions, parse};
use crate::testkit::memory_source::{MemorySource, Point};

fn source() -> MemorySource {
    let mut source = MemorySource::new();
    for (name, job) in [("a_total", "x"), ("a_total", "y"), ("b_total", "x")] {
        let labels = Labels::from_pairs([("__name__", name), ("job", job)]);
        for i in 0..100 {
            source.append(&labels, i * 15_000, 0, &Point::Float(i as f64)).unwrap();
        }
    }
    source
}

fn with(options: EngineOptions, query: &str, times: Times) -> Result<QueryResult, Error> {
    let ast = parse(query, ParseOptions::all()).unwrap();
    block_on(Engine::new(options).query(&source(), &ast, times, &CancelToken::default()))
}

fn at(query: &str) -> QueryValue {
    with(EngineOptions::default(), query, Times::Instant(600_000)).unwrap().value
}

/// Storage that keeps its series the other way round.
struct Backwards(MemorySource);

impl Source for Backwards {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> futures::future::BoxFuture<'a, Result<SeriesSet, crate::error::Error>> {
        Box::pin(async {
            let mut set = self.0.select(request).await?;
            set.series.iter_mut().rev().zip(0..).for_each(|(series, place)| series.place = place);
            Ok(set)
        })
    }
}

#[test]
fn the_order_in_which_storage_is_read_does_not_show() {
    let queries = [
        "a_total",
        "last_over_time({job=~'.+'}[1m])",
        "topk(1, {job=~'.+'})",
        "topk(1, sum by (job) (a_total))",
        "-a_total",
    ];
    for query in queries {
        let ast = parse(query, ParseOptions::all()).unwrap();
        for times in [Times::Instant(600_000), Times::Range(StepGrid { start: 0, end: 600_000, step: 60_000 })] {
            let ask = |source: &dyn Source| {
                block_on(Engine::default().query(source, &ast, times, &CancelToken::default())).unwrap().value
            };
            assert_eq!(ask(&Backwards(source())), ask(&source()), "{query} {times:?}");
        }
    }
}

#[test]
fn deep_and_long_queries_do_not_exhaust_the_stack() {
    let sum = vec!["1"; 100_000].join(" + ");
    assert_eq!(at(&sum), QueryValue::Scalar(600_000, 100_000.0));
    let vectors = vec!["vector(1)"; 20_000].join(" + ");
    assert!(matches!(at(&vectors), QueryValue::Vector(v) if v[0].sample == Sample::Float(20_000.0)));
    let calls = format!("{}vector(-1){}", "abs(".repeat(10_000), ")".repeat(10_000));
    assert!(matches!(at(&calls), QueryValue::Vector(v) if v[0].sample == Sample::Float(1.0)));
    let parens = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(at(&parens), QueryValue::Scalar(600_000, 1.0));
}

#[test]
fn limits_stop_a_query_with_their_own_error() {
    let few = |max_samples, max_bytes| EngineOptions {
        limits: Limits { max_samples, max_bytes },
        ..EngineOptions::default()
    };
    let times = Times::Range(StepGrid { start: 0, end: 1_500_000, step: 15_000 });
    let samples = with(few(150, usize::MAX), "a_total", times);
    assert!(matches!(samples, Err(Error::TooManySamples)), "{samples:?}");
    let bytes = with(few(usize::MAX, 1000), "a_total", times);
    assert!(matches!(bytes, Err(Error::TooManyBytes { limit: 1000 })), "{bytes:?}");
    assert!(with(few(300, 1 << 20), "sum(a_total)", times).is_ok());
}

#[test]
fn a_cancelled_query_says_why() {
    let ast = parse("sum(a_total)", ParseOptions::all()).unwrap();
    let (cancelled, late) = (CancelToken::default(), CancelToken::default());
    cancelled.cancel();
    late.time_out();
    let run = |token| block_on(Engine::default().query(&source(), &ast, Times::Instant(0), token));
    assert!(matches!(run(&cancelled), Err(Error::Cancelled)));
    assert!(matches!(run(&late), Err(Error::TimedOut)));
}

#[test]
fn names_removed_at_once_must_not_make_series_equal() {
    let query = r#"sum(rate({job="x"}[5m]))"#;
    let times = Times::Instant(600_000);
    let at_once = with(EngineOptions::default(), query, times);
    assert!(matches!(&at_once, Err(Error::Query(e)) if e.contains("same labelset")), "{at_once:?}");
    let delayed = EngineOptions { delayed_name_removal: true, ..EngineOptions::default() };
    assert!(with(delayed, query, times).is_ok());
    assert!(with(EngineOptions::default(), r#"sum(rate({__name__="a_total"}[5m]))"#, times).is_ok());
}

#[test]
fn subqueries_step_on_multiples_of_their_step() {
    let QueryValue::Matrix(series) = at(r#"a_total{job="x"}[4m:1m] offset 10s"#) else { panic!("no matrix") };
    let times: Vec<i64> = series[0].floats.iter().map(|f| f.0).collect();
    assert_eq!(times, [360_000, 420_000, 480_000, 540_000]);
}
