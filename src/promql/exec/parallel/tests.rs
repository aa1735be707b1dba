//! What may differ with the number of threads: nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;
use futures::future::BoxFuture;

use super::THREAD_NAME;
use crate::error::{Error, Kind};
use crate::model::{Columns, Labels, StepGrid};
use crate::promql::exec::control::{CancelToken, Limits};
use crate::promql::exec::error::Error as EvalError;
use crate::promql::exec::helpers::Helpers;
use crate::promql::exec::result::QueryResult;
use crate::promql::exec::{Engine, EngineOptions, Times};
use crate::promql::source::{SampleCursor, SelectRequest, SelectedSeries, SeriesSet, Source};
use crate::promql::{ParseOptions, parse};

const TIMES: Times = Times::Range(StepGrid { start: 0, end: 1_500_000, step: 15_000 });

/// What a series does when it is read.
type OnRead = Arc<dyn Fn(usize) -> Result<(), Error> + Send + Sync>;

fn is_helper() -> bool {
    std::thread::current().name() == Some(THREAD_NAME)
}

/// Makes a query's own thread wait for what a helper does: which thread is faster decides nothing.
fn until(done: impl Fn() -> bool) {
    while !is_helper() && !done() {
        std::thread::yield_now();
    }
}

/// Series of 100 samples, decoded in batches of 5, stored in an order of its own.
struct Numbered {
    series: usize,
    on_read: OnRead,
}

impl Numbered {
    fn plain(series: usize) -> Self {
        Self { series, on_read: Arc::new(|_| Ok(())) }
    }
}

struct Cursor {
    number: usize,
    on_read: OnRead,
    done: bool,
}

impl SampleCursor for Cursor {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        out.clear();
        if std::mem::replace(&mut self.done, true) {
            return Ok(false);
        }
        (self.on_read)(self.number)?;
        for i in 0..100 {
            // Sums of these depend on their order.
            out.push_float(i * 15_000, (self.number as f64 + 0.1).powi(7) * 10f64.powi((i % 30) as i32 - 20));
        }
        Ok(true)
    }

    fn fork(&self) -> Box<dyn SampleCursor> {
        Box::new(Self { number: self.number, on_read: Arc::clone(&self.on_read), done: self.done })
    }
}

impl Source for Numbered {
    fn select<'a>(&'a self, _: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        let series = (0..self.series).map(|number| SelectedSeries {
            labels: Labels::from_pairs([("__name__", "m"), ("n", &format!("{number:05}"))]),
            place: (number * 7919 % self.series) as u32,
            partition: 0,
            batch: 1 + ((number * 7919 % self.series) / 5) as u32,
            cursor: Box::new(Cursor { number, on_read: Arc::clone(&self.on_read), done: false }),
        });
        let series = series.collect();
        Box::pin(async { Ok(SeriesSet { series, warnings: Vec::new() }) })
    }
}

fn ask(
    source: &Numbered,
    query: &str,
    helpers: &Arc<Helpers>,
    limits: Limits,
    cancel: &CancelToken,
) -> Result<QueryResult, EvalError> {
    let ast = parse(query, ParseOptions::all()).unwrap();
    let engine = Engine::new(EngineOptions { limits, ..EngineOptions::default() }).with_helpers(Arc::clone(helpers));
    block_on(engine.query(source, &ast, TIMES, cancel))
}

fn plainly(source: &Numbered, query: &str, helpers: &Arc<Helpers>) -> Result<QueryResult, EvalError> {
    ask(source, query, helpers, Limits::default(), &CancelToken::default())
}

#[test]
fn one_and_many_threads_agree_bit_for_bit() {
    let source = Numbered::plain(301);
    for query in [
        "sum(m)",
        "avg(rate(m[5m]))",
        "stddev by (x) (-m * 3)",
        "rate(m[1m])",
        "topk(3, m)",
        "m + m offset 1m",
        "sum(max_over_time(rate(m[2m])[4m:30s]))",
        "absent_over_time(m[1h])",
        "quantile_over_time(2, m[5m])",
        "histogram_count(m) or sum(m)",
    ] {
        let alone = format!("{:?}", plainly(&source, query, &Helpers::new(0)));
        for helpers in [Helpers::new(1), Helpers::new(7), Helpers::eager(1), Helpers::eager(3), Helpers::eager(50)] {
            assert_eq!(format!("{:?}", plainly(&source, query, &helpers)), alone, "{query} {helpers:?}");
        }
    }
}

#[test]
fn helpers_do_help() {
    let (all, helped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (reads, count) = (Arc::clone(&all), Arc::clone(&helped));
    let on_read: OnRead = Arc::new(move |_| {
        if is_helper() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let early = reads.fetch_add(1, Ordering::Relaxed) < 100;
        until(|| early || count.load(Ordering::Relaxed) > 0);
        Ok(())
    });
    let source = Numbered { series: 3000, on_read };
    plainly(&source, "sum(rate(m[5m]))", &Helpers::new(3)).unwrap();
    assert!(helped.load(Ordering::Relaxed) > 0);
    let few = Numbered { series: 40, on_read: Arc::clone(&source.on_read) };
    helped.store(0, Ordering::Relaxed);
    all.store(0, Ordering::Relaxed);
    plainly(&few, "sum(rate(m[5m]))", &Helpers::new(3)).unwrap();
    assert_eq!(helped.load(Ordering::Relaxed), 0, "not worth it");
}

#[test]
fn the_first_error_in_the_order_of_series_is_the_one() {
    let on_read: OnRead = Arc::new(|number| match number {
        100 | 200 | 250 => Err(Error::new(Kind::Corrupt, format!("series {number}"))),
        _ => Ok(()),
    });
    let source = Numbered { series: 301, on_read };
    let alone = plainly(&source, "sum(m)", &Helpers::new(0)).unwrap_err().to_string();
    for _ in 0..20 {
        let together = plainly(&source, "sum(m)", &Helpers::eager(3)).unwrap_err().to_string();
        assert_eq!(together, alone);
    }
}

#[test]
fn limits_strike_at_the_same_series() {
    let source = Numbered::plain(301);
    let with = |max_samples, helpers| {
        let limits = Limits { max_samples, ..Limits::default() };
        ask(&source, "rate(m[5m])", &helpers, limits, &CancelToken::default())
    };
    for max_samples in [50, 2_000, 20_000, 25_000] {
        for helpers in [Helpers::new(0), Helpers::eager(3)] {
            assert!(matches!(with(max_samples, helpers), Err(EvalError::TooManySamples)), "{max_samples}");
        }
    }
    let peak = |helpers| with(40_000, helpers).unwrap().stats.peak_samples;
    assert_eq!(peak(Helpers::eager(3)), peak(Helpers::new(0)));
    let limits = Limits { max_bytes: 20_000, ..Limits::default() };
    let bytes = ask(&source, "rate(m[5m])", &Helpers::eager(3), limits, &CancelToken::default());
    assert!(matches!(bytes, Err(EvalError::TooManyBytes { limit: 20_000 })), "{bytes:?}");
    assert!(ask(&source, "sum(m)", &Helpers::eager(3), limits, &CancelToken::default()).is_ok(), "runs are cut to fit");
}

#[test]
fn a_cancelled_query_ends_on_all_threads() {
    let cancel = CancelToken::default();
    let (token, reads) = (cancel.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&reads);
    let on_read: OnRead = Arc::new(move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == 100 {
            token.cancel();
        }
        Ok(())
    });
    let source = Numbered { series: 5000, on_read };
    let got = ask(&source, "sum(m)", &Helpers::eager(3), Limits::default(), &cancel);
    assert!(matches!(got, Err(EvalError::Cancelled)), "{got:?}");
    assert!(reads.load(Ordering::Relaxed) < 200, "{}", reads.load(Ordering::Relaxed));
}

#[test]
fn a_panic_of_a_helper_is_an_error_of_the_query() {
    let failed = Arc::new(AtomicUsize::new(0));
    let on_read: OnRead = Arc::new(move |_| {
        if is_helper() {
            failed.fetch_add(1, Ordering::Relaxed);
            panic!("a helper fails on purpose");
        }
        until(|| failed.load(Ordering::Relaxed) > 0);
        Ok(())
    });
    let source = Numbered { series: 3000, on_read };
    let helpers = Helpers::eager(2);
    let got = plainly(&source, "sum(m)", &helpers);
    assert!(matches!(got, Err(EvalError::Panicked)), "{got:?}");
    assert_eq!(helpers.borrow(9).count, 2, "helpers came back");
}

#[test]
fn many_queries_at_once_never_have_more_helpers_than_there_are() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (n, m) = (Arc::clone(&now), Arc::clone(&most));
    let on_read: OnRead = Arc::new(move |_| {
        if is_helper() {
            m.fetch_max(n.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            n.fetch_sub(1, Ordering::SeqCst);
        }
        until(|| m.load(Ordering::SeqCst) > 0);
        Ok(())
    });
    let source = Numbered { series: 400, on_read };
    let helpers = Helpers::eager(2);
    let alone = format!("{:?}", plainly(&Numbered::plain(400), "sum(m)", &Helpers::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(format!("{:?}", plainly(&source, "sum(m)", &helpers)), alone);
                }
            });
        }
    });
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!(helpers.borrow(9).count, 2);
}
