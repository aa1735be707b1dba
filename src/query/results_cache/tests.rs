//! What is kept, for how long it may be used, and what is evaluated anew. The bits of answers over real storage are
//! compared in `tests/api_http/caching.rs`.

use std::time::Duration;

use prometheus_client::registry::Registry;

use super::*;
use crate::model::Labels;
use crate::promql::position::Span;
use crate::query::active::{ActiveQueries, Job, QueryKind};
use crate::query::budget::{NodeBudget, QueryBudget};

const HISTORY: History = History { shards: 2, table: Some(7) };

fn settled(until: i64) -> Settled {
    Settled { until, history: HISTORY }
}

fn asked(start: i64, end: i64) -> Asked {
    let grid = StepGrid { start, end, step: 10 };
    let key = Key { tenant: TenantId::anonymous(), query: "m".into(), raster: Raster::of(grid), lookback: 5 };
    Asked { key, text: "m".into(), grid, reach: 0 }
}

/// A cache, and an engine that notes what it is asked.
struct Bench {
    cache: Arc<ResultsCache>,
    active: Arc<Active>,
    registry: Registry,
    /// Series `a` has a sample on all steps, series `b` on those from here on.
    second_from: i64,
    said: bool,
    entangled: bool,
    evaluated: Vec<(i64, i64)>,
}

impl Bench {
    fn new(capacity: usize) -> Self {
        let job = Job { tenant: TenantId::anonymous(), kind: QueryKind::Range, text: "m".into(), times: None };
        let budget = |cancel| QueryBudget::new(NodeBudget::new(1 << 30), 1 << 20, cancel);
        let mut registry = Registry::default();
        Self {
            cache: Arc::new(ResultsCache::new(capacity, Metrics::register(&mut registry))),
            active: ActiveQueries::new(0).begin(job, (0, Duration::ZERO), budget),
            registry,
            second_from: 100,
            said: false,
            entangled: false,
            evaluated: Vec::new(),
        }
    }

    /// The steps that were evaluated (first and last of each run) for an answer, which is as it should be.
    fn ask(&mut self, asked: &Asked, settled: Settled) -> Vec<(i64, i64)> {
        self.evaluated.clear();
        let want = self.evaluate(asked.grid);
        self.evaluated.clear();
        let (cache, active) = (Arc::clone(&self.cache), Arc::clone(&self.active));
        let got = cache.answer(asked, settled, &active, &mut |grid| Ok(self.evaluate(grid)));
        let got = got.unwrap();
        assert_eq!((got.value, got.annotations), (want.value, want.annotations));
        std::mem::take(&mut self.evaluated)
    }

    fn evaluate(&mut self, grid: StepGrid) -> QueryResult {
        self.evaluated.push((grid.start, grid.end));
        let of = |name: &str, from: i64| RangeSeries {
            labels: Labels::from_pairs([("a", name)]),
            floats: grid.iter().filter(|t| *t >= from).map(|t| (t, t as f64)).collect(),
            histograms: Vec::new(),
        };
        let series = [of("x", i64::MIN), of("y", self.second_from)];
        let value = QueryValue::Matrix(series.into_iter().filter(|s| !s.floats.is_empty()).collect());
        let mut annotations = Annotations::default();
        if self.said {
            annotations.warning(Span::new(0, 1), "odd");
        }
        let entangled = self.entangled;
        QueryResult { value, annotations, stats: QueryStats { entangled, ..QueryStats::default() } }
    }

    fn figures(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

#[test]
fn only_what_is_missing_is_evaluated() {
    let mut bench = Bench::new(1 << 20);
    assert_eq!(bench.ask(&asked(0, 100), settled(1000)), [(0, 100)]);
    assert_eq!(bench.ask(&asked(0, 100), settled(1000)), []);
    assert_eq!(bench.active.spent.lock().cached_steps, 11);
    assert_eq!(bench.ask(&asked(50, 150), settled(1000)), [(110, 150)]);
    assert_eq!(bench.ask(&asked(-50, 200), settled(1000)), [(-50, -10), (160, 200)]);
    assert_eq!(bench.ask(&asked(-50, 200), settled(1000)), []);
    assert_eq!(bench.ask(&asked(300, 400), settled(1000)), [(300, 400)]);
    assert_eq!(bench.ask(&asked(0, 400), settled(1000)), [(210, 290)]);
    assert_eq!(bench.ask(&asked(-50, 400), settled(1000)), []);
    let text = bench.figures();
    for (outcome, n) in [("Miss", 2), ("Partial", 3), ("Hit", 3)] {
        let line = format!("query_results_cache_requests_total{{outcome=\"{outcome}\",reason=\"\"}} {n}\n");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn another_alignment_step_tenant_lookback_or_query_is_another_key() {
    let mut bench = Bench::new(1 << 20);
    bench.ask(&asked(0, 100), settled(1000));
    let with = |change: &dyn Fn(&mut Key)| {
        let mut asked = asked(0, 100);
        change(&mut asked.key);
        asked
    };
    let others = [
        asked(5, 105),
        with(&|key| key.tenant = TenantId::new("other").unwrap()),
        with(&|key| key.query = "n".into()),
        with(&|key| key.lookback = 6),
    ];
    for other in others {
        assert_eq!(bench.ask(&other, settled(1000)).len(), 1, "{other:?}");
    }
    assert_eq!(bench.ask(&asked(0, 100), settled(1000)), []);
}

#[test]
fn only_settled_steps_are_kept_and_used() {
    let mut bench = Bench::new(1 << 20);
    bench.ask(&asked(0, 100), settled(59));
    assert_eq!(bench.ask(&asked(0, 100), settled(59)), [(60, 100)]);
    assert_eq!(bench.ask(&asked(0, 100), settled(29)), [(30, 100)], "no history takes back what it settled");
    let ahead = Asked { reach: 25, ..asked(0, 100) };
    assert_eq!(bench.ask(&ahead, settled(59)), [(40, 100)]);
    assert_eq!(bench.ask(&asked(0, 100), settled(i64::MIN)), [(0, 100)]);
}

#[test]
fn another_history_makes_everything_anew() {
    let mut bench = Bench::new(1 << 20);
    bench.ask(&asked(0, 100), settled(1000));
    for history in [History { shards: 3, ..HISTORY }, History { table: Some(8), ..HISTORY }] {
        let settled = Settled { history, ..settled(1000) };
        assert_eq!(bench.ask(&asked(0, 100), settled), [(0, 100)]);
        assert_eq!(bench.ask(&asked(0, 100), settled), []);
    }
    assert_eq!(bench.ask(&asked(0, 100), settled(1000)), [(0, 100)], "nothing of the old one is left");
}

#[test]
fn what_was_said_goes_with_all_its_steps_and_its_text() {
    let mut bench = Bench::new(1 << 20);
    bench.said = true;
    bench.ask(&asked(0, 100), settled(50));
    assert_eq!(bench.ask(&asked(0, 100), settled(1000)), [(0, 100)], "which settled step it was about is not known");
    assert_eq!(bench.ask(&asked(0, 100), settled(1000)), []);
    assert_eq!(bench.ask(&asked(0, 200), settled(1000)), [(110, 200)]);
    assert_eq!(bench.ask(&asked(10, 200), settled(1000)), [(10, 200)]);
    let spaced = Asked { text: " m".into(), ..asked(0, 100) };
    assert_eq!(bench.ask(&spaced, settled(1000)), [(0, 100)]);
}

#[test]
fn parts_that_say_the_same_of_different_places_are_evaluated_together() {
    let mut bench = Bench::new(1 << 20);
    bench.said = true;
    bench.ask(&asked(0, 100), settled(1000));
    let asked = asked(0, 200);
    let mut grids = Vec::new();
    let result = bench.cache.answer(&asked, settled(1000), &bench.active, &mut |grid| {
        grids.push((grid.start, grid.end));
        let mut annotations = Annotations::default();
        annotations.warning(Span::new(3, 4), "odd");
        let value = QueryValue::Matrix(Vec::new());
        Ok(QueryResult { value, annotations, stats: QueryStats::default() })
    });
    assert_eq!((grids, result.unwrap().value), (vec![(110, 200), (0, 200)], QueryValue::Matrix(Vec::new())));
}

#[test]
fn entangled_steps_are_not_kept_and_make_the_whole_be_evaluated() {
    let mut bench = Bench::new(1 << 20);
    bench.entangled = true;
    bench.ask(&asked(0, 100), settled(1000));
    bench.entangled = false;
    assert_eq!(bench.ask(&asked(0, 100), settled(1000)), [(0, 100)]);
    bench.entangled = true;
    assert_eq!(bench.ask(&asked(0, 200), settled(1000)), [(110, 200), (0, 200)]);
}

#[test]
fn a_part_that_fails_is_evaluated_with_the_rest() {
    let mut bench = Bench::new(1 << 20);
    bench.ask(&asked(0, 100), settled(1000));
    let mut grids = Vec::new();
    let mut failing = |error: fn() -> EvalError| {
        grids.clear();
        let asked = asked(0, 200);
        let answer = bench.cache.answer(&asked, settled(1000), &bench.active, &mut |grid| {
            grids.push((grid.start, grid.end));
            Err(error().into())
        });
        (answer.unwrap_err().to_string(), grids.clone())
    };
    assert_eq!(
        failing(|| EvalError::TooManySamples),
        (EvalError::TooManySamples.to_string(), vec![(110, 200), (0, 200)])
    );
    assert_eq!(failing(|| EvalError::TimedOut), (EvalError::TimedOut.to_string(), vec![(110, 200)]));
}

#[test]
fn what_is_copied_out_is_charged() {
    let mut bench = Bench::new(1 << 20);
    bench.ask(&asked(0, 1000), settled(10_000));
    assert_eq!(bench.active.budget.held(), 0);
    bench.ask(&asked(0, 500), settled(10_000));
    assert_eq!(bench.active.budget.held(), (2 * size_of::<RangeSeries>() + 16 * (51 + 41)) as u64);
    bench.active.cancel();
    let refused = bench.cache.answer(&asked(0, 500), settled(10_000), &bench.active, &mut |_| panic!("it is all here"));
    assert!(matches!(refused, Err(QueryError::Eval(EvalError::Storage(_)))), "{refused:?}");
}

#[test]
fn the_cache_stays_within_its_bytes() {
    let mut bench = Bench::new(8000);
    // 2 series × 61 steps × 16 bytes are less than a quarter, twice as much is not.
    bench.second_from = 0;
    bench.ask(&asked(0, 500), settled(100_000));
    assert_eq!(bench.ask(&asked(0, 500), settled(100_000)), []);
    bench.ask(&asked(0, 1200), settled(100_000));
    assert_eq!(bench.ask(&asked(0, 1200), settled(100_000)), [(510, 1200)], "only the first part was kept");
    for query in 0..10 {
        let mut asked = asked(0, 500);
        asked.key.query = query.to_string().into();
        bench.ask(&asked, settled(100_000));
        let held = bench.cache.kept.lock().bytes();
        assert!(held <= 8000, "{held}");
    }
    assert_eq!(bench.ask(&asked(0, 500), settled(100_000)), [(0, 500)]);
    let text = bench.figures();
    assert!(!text.contains("query_results_cache_evicted_total 0\n"), "{text}");
    assert!(text.contains(&format!("query_results_cache_bytes {}\n", bench.cache.kept.lock().bytes())), "{text}");
}

#[test]
fn an_extent_loses_its_oldest_steps_first() {
    let mut bench = Bench::new(64 << 20);
    let all = 10 * MOST_STEPS;
    bench.ask(&asked(0, all - 10), settled(i64::MAX));
    bench.ask(&asked(all - 100, all + 90), settled(i64::MAX));
    assert_eq!(bench.ask(&asked(100, all + 90), settled(i64::MAX)), []);
    assert_eq!(bench.ask(&asked(80, all + 90), settled(i64::MAX)), [(80, 90)]);
}
