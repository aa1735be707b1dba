//! Jobs: who is listed, who waits, who is stopped, and what stays held.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::active::{Active, Job, QueryKind};
use super::blocks::Blocks;
use super::budget::NodeBudget;
use super::frontend::{Queries, QueryError, QueryOptions, QueryRequest};
use super::{Leaf, Metrics, Remote};
use crate::config::Features;
use crate::env::SystemClock;
use crate::error::{Error, Kind};
use crate::meta;
use crate::model::{StepGrid, TenantId};
use crate::promql::exec::Times;
use crate::promql::exec::control::Limits;
use crate::promql::exec::error::Error as EvalError;
use crate::store::{self, Bucket, Tables};

/// Queries of a node that holds nothing, of which one runs at a time.
fn queries(timeout: Duration) -> (Arc<Queries>, Registry) {
    let mut registry = Registry::default();
    let bucket = Bucket::open("memory://").unwrap();
    let blocks = Blocks::new(Arc::clone(bucket.store()), 1 << 20);
    let tables = Arc::new(Tables::new(bucket, store::Metrics::register(&mut registry)));
    let remote = Remote::new(Arc::new(|_, _| Box::pin(futures::stream::empty())));
    let leaf = Leaf {
        shards: Default::default(),
        tables,
        meta: meta::Machine::new().1,
        blocks,
        config: Arc::default(),
        remote,
        evaluate: None,
    };
    let limits = Limits { max_bytes: 20_000, ..Limits::default() };
    let options = QueryOptions {
        timeout,
        lookback_ms: 300_000,
        concurrency: 1,
        threads: 2,
        limits,
        features: Features::default(),
        slow: Duration::ZERO,
        results_cache_bytes: 1 << 20,
    };
    let metrics = Metrics::register(&mut registry);
    (
        Arc::new(Queries::new(Arc::new(leaf), NodeBudget::new(40_000), options, Arc::new(SystemClock::new()), metrics)),
        registry,
    )
}

fn job(text: &str) -> Job {
    Job { tenant: TenantId::anonymous(), kind: QueryKind::Series, text: text.into(), times: None }
}

fn instant(text: &str) -> QueryRequest {
    let (tenant, text) = (TenantId::anonymous(), text.to_owned());
    let times = Times::Instant(0);
    QueryRequest { tenant, text, times, timeout: None, lookback_ms: None, count_samples: false, no_cache: false }
}

/// A job that says when it works and goes on when told.
struct Held {
    release: mpsc::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

async fn hold(queries: &Arc<Queries>, text: &str) -> (Held, Arc<Active>) {
    let (release, released) = mpsc::channel::<()>();
    let (working, begun) = tokio::sync::oneshot::channel();
    let (own, job) = (Arc::clone(queries), job(text));
    let task = tokio::spawn(async move {
        let work = move |_: &Arc<Leaf>, active: &Arc<Active>, _: &tokio::runtime::Handle| {
            working.send(Arc::clone(active)).unwrap();
            released.recv().unwrap();
            Ok::<_, Error>(())
        };
        own.job(job, None, work).await.map(|_| ())
    });
    (Held { release, task }, begun.await.unwrap())
}

fn listed(queries: &Queries) -> Vec<String> {
    queries.active().list(None).iter().map(|a| a.job.text.clone()).collect()
}

#[tokio::test]
async fn a_cancelled_query_is_answered_at_once_and_keeps_its_place_until_it_ends() {
    let (queries, _) = queries(Duration::from_secs(600));
    let (held, active) = hold(&queries, "first").await;
    assert_eq!(listed(&queries), ["first"]);
    active.cancel();
    assert_eq!(held.task.await.unwrap().unwrap_err().kind, Kind::Cancelled);
    drop(active);
    // Its thread still works: the next one waits, and can be cancelled too.
    let own = Arc::clone(&queries);
    let second = tokio::spawn(async move { own.run(instant("vector(1)")).await });
    let waiting = loop {
        let all = queries.active().list(None);
        if let [_, waiting] = &all[..] {
            break Arc::clone(waiting);
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((waiting.job.text.as_str(), waiting.job.kind), ("vector(1)", QueryKind::Instant));
    waiting.cancel();
    assert!(matches!(second.await.unwrap(), Err(QueryError::Eval(EvalError::Cancelled))));
    held.release.send(()).unwrap();
    assert!(queries.run(instant("vector(2)")).await.is_ok());
}

#[tokio::test]
async fn a_query_whose_client_goes_away_is_stopped_and_leaves_the_list() {
    let (queries, registry) = queries(Duration::from_secs(600));
    let (held, active) = hold(&queries, "forgotten").await;
    held.task.abort();
    assert!(held.task.await.is_err());
    assert!(active.stop.is_cancelled());
    assert_eq!(listed(&queries), ["forgotten"]);
    held.release.send(()).unwrap();
    drop(active);
    while !listed(&queries).is_empty() {
        tokio::task::yield_now().await;
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("queries_total{kind=\"Series\",outcome=\"Failed\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_query_that_waits_longer_than_its_time_gives_up() {
    let (queries, _) = queries(Duration::from_secs(600));
    let (held, active) = hold(&queries, "first").await;
    let request = QueryRequest { timeout: Some(Duration::from_millis(1)), ..instant("1") };
    assert!(matches!(queries.run(request).await, Err(QueryError::Eval(EvalError::TimedOut))));
    assert_eq!(listed(&queries), ["first"]);
    drop(active);
    held.release.send(()).unwrap();
    held.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_is_held_until_it_is_dropped() {
    let (queries, _) = queries(Duration::from_secs(600));
    let answered = queries.run(instant("vector(1)")).await.unwrap();
    assert!(answered.active.budget.held() > 0);
    assert_eq!(listed(&queries), ["vector(1)"]);
    drop(answered);
    assert!(listed(&queries).is_empty());
}

#[tokio::test]
async fn what_a_query_took_is_known() {
    let (queries, _) = queries(Duration::from_secs(600));
    let grid = StepGrid { start: 0, end: 30_000, step: 10_000 };
    let limits_over = queries.run(QueryRequest { times: Times::Range(grid), ..instant("vector(time()) + 1") });
    let answered = limits_over.await.unwrap();
    assert!(answered.active.peak_bytes() >= 32, "four floats at least");
    let spent = *answered.active.spent.lock();
    assert!(spent.evaluate > Duration::ZERO);
    let wide = StepGrid { start: 0, end: 10_000_000, step: 1000 };
    let refused = queries.run(QueryRequest { times: Times::Range(wide), ..instant("vector(time())") }).await;
    assert!(matches!(refused, Err(QueryError::Eval(EvalError::TooManyBytes { limit: 20_000 }))), "{refused:?}");
}
