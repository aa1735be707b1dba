//! Whole queries: depth, limits, cancellation, names. What values are right is tested by `tests/promql_conformance.rs`.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use futures::executor::block_on;

use super::column::Sample;
use super::control::{CancelToken, Limits, Meter};
use super::error::Error;
use super::result::{QueryResult, QueryValue};
use super::{Engine, EngineOptions, Times};
use crate::model::{Labels, StepGrid};
use crate::promql::source::{SelectRequest, SeriesSet, Source};
use crate::promql::{ParseOptions, parse, parse_metric};
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

/// Evaluates at 10 minutes over samples at 0 and 10 minutes.
fn over(series: &[(&str, [Point; 2])], query: &str, options: EngineOptions) -> Result<QueryValue, Error> {
    let mut source = MemorySource::new();
    for (metric, points) in series {
        let (labels, _) = parse_metric(metric).unwrap();
        for (i, point) in points.iter().enumerate() {
            source.append(&labels, i as i64 * 600_000, 0, point).unwrap();
        }
    }
    let ast = parse(query, ParseOptions::all()).unwrap();
    let engine = Engine::new(options);
    block_on(engine.query(&source, &ast, Times::Instant(600_000), &CancelToken::default())).map(|r| r.value)
}

fn float(v: f64) -> [Point; 2] {
    [Point::Float(v), Point::Float(v)]
}

fn histogram() -> [Point; 2] {
    let h = Point::Histogram(std::sync::Arc::new(crate::model::Histogram::default()));
    [h.clone(), h]
}

#[test]
fn a_pair_the_operator_has_no_meaning_for_is_no_match() {
    let series = [("a{x=\"1\"}", float(1.0)), ("a{x=\"2\"}", histogram()), ("b", float(2.0))];
    for query in ["a + on () b", "a + on () group_left () b", "b - on () group_right () a"] {
        let got = over(&series, query, EngineOptions::default());
        assert!(matches!(&got, Ok(QueryValue::Vector(v)) if v.len() == 1), "{query}: {got:?}");
    }
}

#[test]
fn bad_smoothing_factors_matter_only_to_samples() {
    let options = EngineOptions::default();
    let of = |name| over(&[("a", float(1.0))], &format!("double_exponential_smoothing({name}[20m], 1, 0.5)"), options);
    assert!(matches!(of("a"), Err(Error::Query(e)) if e.ends_with("0 < sf < 1, got: 1.000000")));
    assert!(of("nothing").is_ok());
}

#[test]
fn start_timestamps_that_are_not_used_are_not_there() {
    let of = |use_start_timestamps| {
        let options = EngineOptions { use_start_timestamps, ..EngineOptions::default() };
        match over(&[("a", float(1.0))], "start_timestamp(a)", options) {
            Ok(QueryValue::Vector(v)) => v.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((of(true), of(false)), (1, 0));
}

#[test]
fn of_several_mistakes_the_one_of_the_earliest_step_is_reported() {
    let mut source = MemorySource::new();
    // At 0 two series are matched with one; at 1 min that one side is ambiguous too.
    for (metric, t) in [("a{x=\"1\"}", 0), ("a{x=\"2\"}", 0), ("b{x=\"1\"}", 0), ("b{x=\"2\"}", 60_000)] {
        source.append(&parse_metric(metric).unwrap().0, t, 0, &Point::Float(1.0)).unwrap();
    }
    let ast = parse("a + on () b", ParseOptions::all()).unwrap();
    let times = Times::Range(StepGrid { start: 0, end: 60_000, step: 60_000 });
    let got = block_on(Engine::default().query(&source, &ast, times, &CancelToken::default()));
    assert!(matches!(&got, Err(Error::Query(e)) if e.starts_with("multiple matches")), "{got:?}");
}

#[test]
fn a_parameter_varies_although_the_vector_does_not() {
    let times = Times::Range(StepGrid { start: 0, end: 30_000, step: 15_000 });
    let query = r#"quantile(scalar(a_total{job="x"}), vector(1))"#;
    let QueryValue::Matrix(m) = with(EngineOptions::default(), query, times).unwrap().value else {
        panic!("no matrix")
    };
    assert_eq!(m[0].floats, [(0, 1.0), (15_000, 1.0), (30_000, f64::INFINITY)]);
}

#[test]
fn equal_labels_of_a_join_are_no_mistake_of_its_own_where_names_go_last() {
    let options = EngineOptions { delayed_name_removal: true, ..EngineOptions::default() };
    let series = [("a{__type__=\"counter\"}", float(1.0)), ("a", float(2.0))];
    let of = |query| over(&series, query, options);
    assert!(
        matches!(of("sum(a + on (__name__, __type__) a)"), Ok(QueryValue::Vector(v)) if v[0].sample == Sample::Float(6.0))
    );
    assert!(matches!(of("a + on (__name__, __type__) a"), Err(Error::Query(e)) if e.contains("same labelset")));
}

#[test]
fn sorting_what_is_pinned_needs_no_warning() {
    let times = Times::Range(StepGrid { start: 0, end: 30_000, step: 15_000 });
    let warns = |query| !with(EngineOptions::default(), query, times).unwrap().annotations.is_empty();
    assert!(warns("sort(a_total)"));
    assert!(!warns("sort(a_total @ 60)"));
}

#[test]
fn info_series_that_nobody_asks_for_do_not_clash() {
    let clash = [("target_info{job=\"j\",v=\"1\"}", float(1.0)), ("target_info{job=\"j\",v=\"2\"}", float(1.0))];
    let of = |metric| {
        let series = [clash.clone().as_slice(), &[(metric, float(1.0))]].concat();
        over(&series, "info({__name__=\"a\"})", EngineOptions::default())
    };
    assert!(of("a{job=\"i\"}").is_ok());
    assert!(matches!(of("a{job=\"j\"}"), Err(Error::Query(e)) if e.starts_with("found duplicate series for info")));
    assert!(over(&clash, "info(a)", EngineOptions::default()).is_ok(), "no series at all");
}

#[test]
fn annotations_about_buckets_name_the_metric_only_where_names_go_last() {
    let of = |delayed_name_removal| {
        let options = EngineOptions { delayed_name_removal, ..EngineOptions::default() };
        let result = with(options, "histogram_quantile(0.5, b_total)", Times::Instant(600_000)).unwrap();
        result.annotations.render(crate::promql::annotations::Severity::Warning, "", 0).remove(0)
    };
    assert!(of(true).contains("malformed value of \"\" for metric name \"b_total\""), "{}", of(true));
    assert!(!of(false).contains("for metric name"), "{}", of(false));
}

#[test]
fn floats_within_reach_of_an_anchored_window_mix_with_histograms() {
    let mut source = MemorySource::new();
    let (labels, _) = parse_metric("a").unwrap();
    source.append(&labels, 0, 0, &Point::Float(1.0)).unwrap();
    for t in [60_000, 120_000] {
        source.append(&labels, t, 0, &histogram()[0]).unwrap();
    }
    let ast = parse("rate(a[1m] anchored)", ParseOptions::all()).unwrap();
    let got =
        block_on(Engine::default().query(&source, &ast, Times::Instant(120_000), &CancelToken::default())).unwrap();
    assert_eq!(got.value, QueryValue::Vector(Vec::new()));
    assert!(!got.annotations.is_empty());
}

/// Counts what is held, and cancels a query when it takes bytes for a certain time.
#[derive(Default)]
struct Watch {
    held: AtomicUsize,
    peak: AtomicUsize,
    takes: AtomicUsize,
    cancel_at: usize,
    cancel: CancelToken,
}

impl Meter for Watch {
    fn take(&self, bytes: usize) -> Result<(), crate::error::Error> {
        let held = self.held.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(held, Relaxed);
        if self.takes.fetch_add(1, Relaxed) + 1 == self.cancel_at {
            self.cancel.cancel();
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }
}

/// Operations that make much of 1,000 series.
const MAKERS: [&str; 16] = [
    "m",
    "-m",
    "m * on(n) m",
    "m * on(n) group_left(x) m",
    "m and on(n) m",
    "m or ignoring(n) m",
    "sum by (n) (m)",
    "topk(2000, m)",
    "quantile by (n) (0.5, m)",
    "count_values('v', m)",
    "label_replace(m, 'x', '$1$1', 'n', '(.*)')",
    "label_join(m, 'x', '-', 'n', 'n')",
    "histogram_quantile(0.5, label_replace(m, 'le', '1', '', ''))",
    "info(m, {__name__='m'})",
    "max_over_time(m[30s:15s])",
    "vector(1) * on() group_right m",
];

fn watched(source: &MemorySource, query: &str, cancel_at: usize) -> (Result<QueryResult, Error>, Arc<Watch>) {
    let watch = Arc::new(Watch { cancel_at, ..Watch::default() });
    let (engine, times) = (Engine::default(), Times::Range(StepGrid { start: 0, end: 450_000, step: 15_000 }));
    let plan = engine.plan(&parse(query, ParseOptions::all()).unwrap(), times).unwrap();
    let fetched = block_on(engine.fetch(source, &plan, &watch.cancel)).unwrap();
    (engine.evaluate(&plan, fetched, times, &watch.cancel, Some(watch.clone())), watch)
}

#[test]
fn what_operations_make_is_metered_and_given_back_and_ends_when_cancelled() {
    let mut source = MemorySource::new();
    for n in 0..1000 {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("n", n.to_string())]);
        for step in 0..31 {
            source.append(&labels, step * 15_000, 0, &Point::Float((n * 31 + step) as f64)).unwrap();
        }
    }
    for query in MAKERS {
        let (whole, watch) = watched(&source, query, 0);
        let bytes = whole.unwrap().value.bytes();
        let (peak, takes) = (watch.peak.load(Relaxed), watch.takes.load(Relaxed));
        assert!(peak >= bytes, "{query}: an answer of {bytes} bytes, metered are {peak}");
        assert_eq!(watch.held.load(Relaxed), 0, "{query}");
        for at in (1..takes).step_by(1 + takes / 2) {
            let (ended, watch) = watched(&source, query, at);
            let more = watch.takes.load(Relaxed) - at;
            assert!(matches!(ended, Err(Error::Cancelled)), "{query}: cancelled at {at} of {takes}, went on {more}");
            assert!(more <= 2, "{query}: took {more} times after it was cancelled");
            assert_eq!(watch.held.load(Relaxed), 0, "{query}");
        }
    }
}

#[test]
fn series_of_several_metrics_are_not_all_held_to_see_whether_they_collide() {
    let mut source = MemorySource::new();
    for n in 0..1000 {
        let (name, of) = if n % 2 == 0 { ("a", "even") } else { ("b", "odd") };
        let labels = Labels::from_pairs([("__name__", name.to_owned()), (of, n.to_string())]);
        for step in 0..31 {
            source.append(&labels, step * 15_000, 0, &Point::Float((n * 31 + step) as f64)).unwrap();
        }
    }
    // Their columns take 1,000 x 31 x 8 bytes.
    let limits = Limits { max_bytes: 100_000, ..Limits::default() };
    let engine = Engine::new(EngineOptions { limits, ..EngineOptions::default() });
    let ask = |query: &str| {
        let ast = parse(query, ParseOptions::all()).unwrap();
        let times = Times::Range(StepGrid { start: 0, end: 450_000, step: 15_000 });
        block_on(engine.query(&source, &ast, times, &CancelToken::default()))
    };
    assert!(ask("sum(rate({__name__=~'a|b'}[1m]))").is_ok());
    assert!(matches!(ask("rate({__name__=~'a|b'}[1m])"), Err(Error::TooManyBytes { .. })));
}

#[test]
fn what_a_step_owes_to_others_is_noticed() {
    let grid = StepGrid { start: 0, end: 600_000, step: 60_000 };
    let entangled = |query| with(EngineOptions::default(), query, Times::Range(grid)).unwrap().stats.entangled;
    for query in
        ["a_total", "rate(a_total[5m])", "topk(2, a_total)", "topk(2, sum by (job) (a_total))", "sum(-b_total)"]
    {
        assert!(!entangled(query), "{query}");
    }
    // Both jobs have the same value; two metrics lose their names.
    for query in ["topk(1, a_total)", "bottomk(1, sum by (job) (a_total))", "-(b_total or {job='y'})"] {
        assert!(entangled(query), "{query}");
    }
}

#[test]
fn what_is_there_already_is_aggregated_in_order_of_labels() {
    let mut source = MemorySource::new();
    for (a, b, v) in [("1", "z", 1e308), ("2", "y", 1e308), ("3", "x", -1e308), ("4", "w", -1e308)] {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", a), ("b", b)]);
        source.append(&labels, 0, 0, &Point::Float(v)).unwrap();
    }
    let ask = |query: &str| {
        let ast = parse(query, ParseOptions::all()).unwrap();
        let cancel = CancelToken::default();
        let answer = block_on(Engine::default().query(&source, &ast, Times::Instant(0), &cancel));
        let QueryValue::Vector(found) = answer.unwrap().value else { panic!("{query}") };
        let Sample::Float(v) = found[0].sample else { panic!("{query}") };
        v
    };
    // Groups appear in order of `a`, and are called by `b`: the other way round.
    assert_eq!(ask("sum(m)"), f64::INFINITY);
    assert_eq!(ask("sum(sum by (b) (m))"), f64::NEG_INFINITY);
    assert_eq!(ask("sum(label_replace(m, 'a', '', '', ''))"), f64::NEG_INFINITY);
}
