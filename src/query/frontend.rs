//! Queries as clients ask them: parse, plan, fetch, evaluate, within time and memory.
//!
//! *Invariants:* a query that is no PromQL never waits for a place, unless it is so large that even reading it is work.
//! Evaluation runs on a blocking thread, so a heavy query never holds up writes. Tree and plan count for the budget.
//!
//! *Not here:* places, time limits, what is counted (`query::job`), HTTP (`api::http::query`), where samples come from
//! (`query::leaf`).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::active::{Active, ActiveQueries, Job, QueryKind};
use super::budget::{NodeBudget, QueryBudget};
use super::job::{Done, Interrupted};
use super::leaf::{Leaf, TenantSource};
use super::metrics::{Bypass, Metrics};
use super::results_cache::extent::Raster;
use super::results_cache::{Asked, Key, ResultsCache};
use super::slow::SlowLog;
use crate::config::{Feature, Features};
use crate::env::Clock;
use crate::error::{HasKind, Kind};
use crate::model::TenantId;
use crate::promql::ast::{Ast, Expr, Node};
use crate::promql::exec::control::Limits;
use crate::promql::exec::error::Error as EvalError;
use crate::promql::exec::helpers::Helpers;
use crate::promql::exec::result::QueryResult;
use crate::promql::exec::{Engine, EngineOptions, Times};
use crate::promql::plan::PlanNode;
use crate::promql::value_type::ValueType;
use crate::promql::{ParseError, ParseOptions, parse_within};

/// Longest text that is read before it has a place, bytes, and most regular expressions in it.
const AT_ONCE: (usize, usize) = (16 << 10, 8);

/// Share of `query.max_bytes` that a tree may take while it is made.
pub(super) const TREE_SHARE: usize = 2;

/// What planning takes at most for a node of the tree: a copy, and a node in a list that may just be growing.
pub(super) const PLAN_BYTES: usize = size_of::<Node>() + 3 * size_of::<PlanNode>();
use crate::store::counted::counting;

/// Settings of queries.
#[derive(Debug, Clone, Copy)]
pub struct QueryOptions {
    /// Longest a query may run.
    pub timeout: Duration,
    /// How far back an instant selector looks, milliseconds.
    pub lookback_ms: i64,
    /// Queries at the same time.
    pub concurrency: usize,
    /// Threads that compute for queries; what is beyond the first helps whoever has most to do.
    pub threads: usize,
    /// What one query may hold.
    pub limits: Limits,
    /// Parts of the language that are switched on.
    pub features: Features,
    /// From how long on a query is logged; zero logs none.
    pub slow: Duration,
    /// What finished steps of range queries may take, bytes; 0 keeps none.
    pub results_cache_bytes: usize,
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
    /// Count samples per step.
    pub count_samples: bool,
    /// Neither take steps from the results cache nor put any there.
    pub no_cache: bool,
}

/// An answer and what it cost: its bytes are held until this is dropped.
#[derive(Debug)]
pub struct Answered {
    /// Value, annotations, samples.
    pub result: QueryResult,
    /// The query, into whose text positions of annotations point, and what it took.
    pub active: Arc<Active>,
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

impl From<Interrupted> for QueryError {
    fn from(why: Interrupted) -> Self {
        match why {
            Interrupted::TimedOut => EvalError::TimedOut.into(),
            Interrupted::Cancelled => EvalError::Cancelled.into(),
            Interrupted::Lost => Self::Lost,
        }
    }
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
    pub(super) leaf: Arc<Leaf>,
    pub(super) options: QueryOptions,
    pub(super) places: Arc<Semaphore>,
    /// Places of parts of other nodes' queries.
    pub(super) fragments: Arc<Semaphore>,
    pub(super) node: Arc<NodeBudget>,
    pub(super) helpers: Arc<Helpers>,
    pub(super) active: Arc<ActiveQueries>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) slow: SlowLog,
    results: Option<Arc<ResultsCache>>,
}

impl Queries {
    /// Queries over what this node holds.
    ///
    /// `node` bounds what all of them hold together, and with them whatever else it was given to.
    pub fn new(
        leaf: Arc<Leaf>,
        node: Arc<NodeBudget>,
        options: QueryOptions,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let [places, fragments] = [0; 2].map(|_| Arc::new(Semaphore::new(options.concurrency)));
        let helpers = Helpers::new(options.threads.saturating_sub(1));
        let active = ActiveQueries::new(clock.now_ms());
        let slow = SlowLog { threshold: options.slow };
        let capacity = options.results_cache_bytes;
        let results = (capacity > 0).then(|| Arc::new(ResultsCache::new(capacity, metrics.clone())));
        Self { leaf, options, places, fragments, node, helpers, active, clock, metrics, slow, results }
    }

    /// Queries that are not over.
    pub fn active(&self) -> &ActiveQueries {
        &self.active
    }

    /// How they are answered.
    pub fn options(&self) -> &QueryOptions {
        &self.options
    }

    /// Now, milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Now, on the clock of [`Active::since`].
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
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

    /// Answers a query.
    pub async fn run(&self, request: QueryRequest) -> Result<Answered, QueryError> {
        let QueryRequest { tenant, text, times, timeout, lookback_ms, count_samples, no_cache } = request;
        let kind = if matches!(times, Times::Instant(_)) { QueryKind::Instant } else { QueryKind::Range };
        let (options, most) = (self.parse_options(), self.options.limits.max_bytes / TREE_SHARE);
        let at_once = text.len() <= AT_ONCE.0 && text.matches('~').count() <= AT_ONCE.1;
        let ast = at_once.then(|| checked(&text, times, options, most).inspect_err(|_| self.metrics.refused(kind)));
        let mut ast = ast.transpose()?;
        let on = |feature| self.options.features.has(feature);
        let lookback = lookback_ms.unwrap_or(self.options.lookback_ms);
        let engine = Engine::new(EngineOptions {
            lookback,
            limits: self.options.limits,
            delayed_name_removal: on(Feature::DelayedNameRemoval),
            use_start_timestamps: on(Feature::UseStartTimestamps),
            type_and_unit_labels: on(Feature::TypeAndUnitLabels),
            count_samples,
            ..EngineOptions::default()
        })
        .with_helpers(Arc::clone(&self.helpers));
        let wishes = Wishes { lookback, count_samples, no_cache };
        // A text so long that it is read later is not one that comes again and again.
        let asked = ast.as_ref().and_then(|ast| self.asked(&tenant, ast, &engine, times, wishes));
        let through = self.results.clone().zip(asked);
        let job = Job { tenant, kind, text, times: Some(times) };
        let lap = Lap(Arc::clone(&self.clock), Duration::ZERO);
        let metrics = self.metrics.clone();
        let work = move |leaf: &Arc<Leaf>, active: &Arc<Active>, runtime: &Handle| {
            let budget = &active.budget;
            let ast = match ast.take() {
                Some(ast) => ast,
                None => within(budget, most, || checked(&active.job.text, times, options, most))?,
            };
            charge(budget, ast.heap_bytes())?;
            let source = leaf.source(active);
            let mut evaluator = Evaluator { engine, language: options, ast, source, active, runtime, metrics, lap };
            let result = match through {
                Some((results, asked)) => {
                    let settled = counting(Arc::clone(&active.fetched), leaf.settled(&active.job.tenant, budget));
                    let settled = runtime.block_on(settled).map_err(EvalError::Storage)?;
                    results.answer(&asked, settled, active, &mut |grid| evaluator.run(Times::Range(grid)))?
                }
                None => evaluator.run(times)?,
            };
            budget.settle(result.value.bytes() as u64);
            Ok::<_, QueryError>(result)
        };
        self.job(job, timeout, work).await.map(|Done { value: result, active }| Answered { result, active })
    }

    /// What to ask the results cache, if there is one and it can help.
    fn asked(&self, tenant: &TenantId, ast: &Ast, engine: &Engine, times: Times, wishes: Wishes) -> Option<Asked> {
        self.results.as_ref()?;
        let Times::Range(grid) = times else { return None };
        let reach = match () {
            () if wishes.no_cache => Err(Bypass::Wanted),
            () if wishes.count_samples => Err(Bypass::Counted),
            () if grid.len() < 2 => Err(Bypass::OneStep),
            () => engine.reach(ast, grid).map_err(Bypass::Entangled),
        };
        let reach = reach.inspect_err(|why| self.metrics.bypassed(*why)).ok()?;
        let (tenant, query) = (tenant.clone(), ast.to_string().into());
        let key = Key { tenant, query, raster: Raster::of(grid), lookback: wishes.lookback };
        Some(Asked { key, text: Arc::clone(&ast.text), grid, reach })
    }
}

/// What a request says besides the query.
#[derive(Clone, Copy)]
struct Wishes {
    lookback: i64,
    count_samples: bool,
    no_cache: bool,
}

/// Evaluates a query, or parts of its range one after another.
pub(super) struct Evaluator<'a> {
    pub(super) engine: Engine,
    /// How its text was read.
    pub(super) language: ParseOptions,
    pub(super) ast: Ast,
    pub(super) source: TenantSource,
    pub(super) active: &'a Active,
    pub(super) runtime: &'a Handle,
    pub(super) metrics: Metrics,
    pub(super) lap: Lap,
}

impl Evaluator<'_> {
    fn run(&mut self, times: Times) -> Result<QueryResult, QueryError> {
        self.lap.next();
        let (engine, ast, cancel) = (&self.engine, &self.ast, &self.active.cancel);
        let budget = &self.active.budget;
        let planned = ast.nodes.iter().filter(|n| !matches!(n.expr, Expr::Paren(_))).count();
        let plan = within(budget, PLAN_BYTES * planned, || Ok(engine.plan(ast, times)?))?;
        charge(budget, plan.heap_bytes())?;
        let result = match self.in_parts(&plan, times) {
            Some(result) => result,
            None => {
                let (engine, budget) = (&self.engine, Arc::clone(budget));
                let fetched = self.runtime.block_on(engine.fetch(&self.source, &plan, cancel))?;
                self.active.spend(|s| s.prepare += self.lap.next());
                engine.evaluate(&plan, fetched, times, cancel, Some(budget as _))?
            }
        };
        self.active.spend(|s| {
            s.evaluate += self.lap.next();
            s.series += result.stats.series_read;
            s.samples += result.stats.samples_read;
        });
        Ok(result)
    }
}

fn checked(text: &str, times: Times, options: ParseOptions, most_bytes: usize) -> Result<Ast, QueryError> {
    let ast = parse_within(text, options, most_bytes)?;
    check_type(&ast, times)?;
    Ok(ast)
}

pub(super) fn charge(budget: &QueryBudget, bytes: usize) -> Result<(), QueryError> {
    budget.charge(bytes as u64).map_err(|e| EvalError::Bytes(e).into())
}

/// Does something that takes up to `bytes` while it is done.
pub(super) fn within<T>(
    budget: &QueryBudget,
    bytes: usize,
    work: impl FnOnce() -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    charge(budget, bytes)?;
    let outcome = work();
    budget.release(bytes as u64);
    outcome
}

/// A clock and when the current stage began.
pub(super) struct Lap(Arc<dyn Clock>, Duration);

impl Lap {
    /// How long the stage took; the next one begins.
    pub(super) fn next(&mut self) -> Duration {
        let now = self.0.monotonic();
        now.saturating_sub(std::mem::replace(&mut self.1, now))
    }
}

fn check_type(ast: &Ast, times: Times) -> Result<(), QueryError> {
    let value_type = ast.value_type(ast.root);
    match (times, value_type) {
        (Times::Instant(_), _) | (Times::Range(_), ValueType::Scalar | ValueType::Vector) => Ok(()),
        (Times::Range(_), other) => Err(QueryError::RangeType(other.documented_name())),
    }
}
