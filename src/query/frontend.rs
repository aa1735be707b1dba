//! Queries as clients ask them: parse, wait for a place, fetch, evaluate, within time and memory.
//!
//! *Invariants:* at most `max_concurrency` queries run; a waiting one gives up when its time is over. Evaluation runs on a
//! blocking thread, so a heavy query never holds up writes. A query whose client went away is cancelled.
//!
//! *Not here:* HTTP (`api::http::query`), where samples come from (`query::leaf`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::budget::{NodeBudget, QueryBudget};
use super::leaf::Leaf;
use super::metrics::Metrics;
use crate::config::{Feature, Features};
use crate::env::Clock;
use crate::error::{Error, HasKind, Kind};
use crate::model::TenantId;
use crate::promql::ast::Ast;
use crate::promql::exec::control::{CancelToken, Limits};
use crate::promql::exec::error::Error as EvalError;
use crate::promql::exec::result::QueryResult;
use crate::promql::exec::{Engine, EngineOptions, Times};
use crate::promql::value_type::ValueType;
use crate::promql::{ParseError, ParseOptions, parse};
use crate::store::FetchStats;
use crate::store::counted::FetchTotals;

/// Settings of queries.
#[derive(Debug, Clone, Copy)]
pub struct QueryOptions {
    /// Longest a query may run.
    pub timeout: Duration,
    /// How far back an instant selector looks, milliseconds.
    pub lookback_ms: i64,
    /// Queries at the same time.
    pub concurrency: usize,
    /// What one query may hold.
    pub limits: Limits,
    /// Parts of the language that are switched on.
    pub features: Features,
    /// What all queries may hold, bytes.
    pub total_bytes: u64,
}

/// A query.
#[derive(Debug, Clone)]
pub struct QueryRequest {
    /// Who asks.
    pub tenant: TenantId,
    /// PromQL.
    pub text: String,
    /// One moment or many.
    pub times: Times,
    /// Less time than the node allows.
    pub timeout: Option<Duration>,
    /// Another lookback, milliseconds.
    pub lookback_ms: Option<i64>,
}

/// An answer and what it cost.
#[derive(Debug)]
pub struct Answered {
    /// The query, into which positions of annotations point.
    pub text: String,
    /// Value, annotations, samples.
    pub result: QueryResult,
    /// What was fetched from the bucket.
    pub fetched: FetchTotals,
    /// Where the time went.
    pub timings: Timings,
}

/// Where the time of a query went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Waiting for a place.
    pub queue: Duration,
    /// Planning, and fetching samples.
    pub prepare: Duration,
    /// Evaluating.
    pub evaluate: Duration,
}

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It is not PromQL.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// A range query must be of a scalar or an instant vector.
    #[error("invalid expression type \"{0}\" for range query, must be Scalar or instant Vector")]
    RangeType(&'static str),
    /// It failed while it was evaluated.
    #[error("{0}")]
    Eval(#[from] EvalError),
    /// The thread that evaluated it is gone.
    #[error("query evaluation stopped unexpectedly")]
    Lost,
}

impl HasKind for QueryError {
    fn kind(&self) -> Kind {
        match self {
            Self::Parse(_) | Self::RangeType(_) => Kind::Invalid,
            Self::Eval(e) => e.kind(),
            Self::Lost => Kind::Internal,
        }
    }
}

/// Answers queries.
pub struct Queries {
    leaf: Arc<Leaf>,
    options: QueryOptions,
    places: Arc<Semaphore>,
    node: Arc<NodeBudget>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Queries {
    /// Queries over what this node holds.
    pub fn new(leaf: Arc<Leaf>, options: QueryOptions, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        let places = Arc::new(Semaphore::new(options.concurrency));
        let node = NodeBudget::new(options.total_bytes);
        Self { leaf, options, places, node, clock, metrics }
    }

    /// Series and labels.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Now, milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Which parts of the language are on.
    pub fn parse_options(&self) -> ParseOptions {
        let on = |feature| self.options.features.has(feature);
        ParseOptions {
            experimental_functions: on(Feature::ExperimentalFunctions),
            extended_range_selectors: on(Feature::ExtendedRangeSelectors),
            fill_modifiers: on(Feature::FillModifiers),
        }
    }

    /// Runs a look-up of series, labels or metadata within the same bounds of number and time as a query.
    pub async fn bounded<T>(&self, lookup: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let run = async {
            let closed = |_| Error::new(Kind::Unavailable, "the node is stopping");
            let _place = self.places.acquire().await.map_err(closed)?;
            lookup.await
        };
        let seconds = self.options.timeout.as_secs_f64();
        let late = |_| Error::new(Kind::Unavailable, format!("look-up took longer than query.timeout ({seconds} s)"));
        tokio::time::timeout(self.options.timeout, run).await.map_err(late)?
    }

    /// Answers a query.
    pub async fn run(&self, request: QueryRequest) -> Result<Answered, QueryError> {
        let began = self.clock.monotonic();
        let answered = self.run_unmeasured(&request).await;
        let took = self.clock.monotonic().saturating_sub(began);
        self.metrics.finished(matches!(request.times, Times::Instant(_)), took, answered.as_ref());
        answered
    }

    async fn run_unmeasured(&self, request: &QueryRequest) -> Result<Answered, QueryError> {
        let ast = parse(&request.text, self.parse_options())?;
        check_type(&ast, request.times)?;
        let timeout = request.timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        if timeout.is_zero() {
            // The timer would let a query through that never has to wait.
            return Err(EvalError::TimedOut.into());
        }
        let cancel = CancelToken::default();
        // A client that goes away drops this future, and the guard with it.
        let guard = CancelOnDrop(Some(cancel.clone()));
        let run = self.fetch_and_evaluate(ast, request, cancel.clone());
        let answered = match tokio::time::timeout(timeout, run).await {
            Ok(answered) => answered,
            Err(_) => {
                cancel.time_out();
                Err(EvalError::TimedOut.into())
            }
        };
        guard.disarm();
        answered
    }

    async fn fetch_and_evaluate(
        &self,
        ast: Ast,
        request: &QueryRequest,
        cancel: CancelToken,
    ) -> Result<Answered, QueryError> {
        let mut lap = Lap::begin(&self.clock);
        // The semaphore is never closed; the timeout is around this future.
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| QueryError::Lost)?;
        let queue = lap.next();
        let on = |feature| self.options.features.has(feature);
        let engine = Engine::new(EngineOptions {
            lookback: request.lookback_ms.unwrap_or(self.options.lookback_ms),
            limits: self.options.limits,
            delayed_name_removal: on(Feature::DelayedNameRemoval),
            use_start_timestamps: on(Feature::UseStartTimestamps),
            type_and_unit_labels: on(Feature::TypeAndUnitLabels),
            ..EngineOptions::default()
        });
        let times = request.times;
        let plan = engine.plan(&ast, times)?;
        let stats = Arc::new(FetchStats::default());
        let budget = QueryBudget::new(Arc::clone(&self.node), self.options.limits.max_bytes as u64);
        let source = self.leaf.source(request.tenant.clone(), Arc::clone(&stats), budget);
        let runtime = tokio::runtime::Handle::current();
        // Decoding and evaluating are work, not waiting. Place and bytes are held until that work has really ended,
        // which for a cancelled query is later than its answer.
        let work = move || {
            let (_place, source) = (place, source);
            let fetched = runtime.block_on(engine.fetch(&source, &plan, &cancel))?;
            let prepare = lap.next();
            let result = engine.evaluate(&plan, fetched, times, &cancel)?;
            Ok::<_, EvalError>((result, Timings { queue, prepare, evaluate: lap.next() }))
        };
        let (result, timings) = tokio::task::spawn_blocking(work).await.map_err(|_| QueryError::Lost)??;
        Ok(Answered { text: request.text.clone(), result, fetched: stats.totals(), timings })
    }
}

/// A clock and when the current stage began.
struct Lap(Arc<dyn Clock>, Duration);

impl Lap {
    fn begin(clock: &Arc<dyn Clock>) -> Self {
        Self(Arc::clone(clock), clock.monotonic())
    }

    /// How long the stage took; the next one begins.
    fn next(&mut self) -> Duration {
        let now = self.0.monotonic();
        now.saturating_sub(std::mem::replace(&mut self.1, now))
    }
}

/// Cancels a query when the future that waits for it is dropped.
struct CancelOnDrop(Option<CancelToken>);

impl CancelOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

fn check_type(ast: &Ast, times: Times) -> Result<(), QueryError> {
    let value_type = ast.value_type(ast.root);
    match (times, value_type) {
        (Times::Instant(_), _) | (Times::Range(_), ValueType::Scalar | ValueType::Vector) => Ok(()),
        (Times::Range(_), other) => Err(QueryError::RangeType(other.documented_name())),
    }
}
