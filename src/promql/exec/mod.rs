//! Evaluation of plans: columns in, columns out.
//!
//! *Invariants:* samples are fetched before evaluation begins; evaluation is plain computation without waiting. Nodes are
//! evaluated in the order of the plan, so no query is deep enough to exhaust the stack. Names are removed either by
//! each operation or at the end of the query, the same way everywhere. Answers do not depend on the number of threads.
//!
//! *Not here:* parsing, planning, who asks and how long it may take (`query`).

pub mod aggregate;
pub mod binary;
pub mod call;
pub mod cells;
pub mod classic;
pub mod column;
pub mod control;
pub mod counts;
pub mod error;
pub mod evaluate;
pub mod grouping;
pub mod helpers;
pub mod histogram_cell;
pub mod histogram_notes;
pub mod info;
pub mod join;
pub mod labels;
pub mod parallel;
pub mod partial;
pub mod range;
pub mod range_histogram;
pub mod reader;
pub mod result;
pub mod select;
pub mod select_k;
pub mod set;
pub mod shared;
pub mod sort;
pub mod stage;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod work;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::annotations::Annotations;
use super::ast::Ast;
use super::duration::fold_durations;
use super::plan::{self, Fragment, Op, Plan, PlanOptions};
use super::source::{SeriesSet, Source};
use super::stepwise::{self, Entangled};
use crate::model::StepGrid;
use control::{Budget, CancelToken, Limits, Meter};
use counts::SampleCounts;
use error::Error;
use evaluate::Evaluation;
use helpers::Helpers;
use partial::{Partial, Partials};
use result::{QueryResult, QueryStats};

/// Requests that storage works on at a time.
const REQUESTS_IN_FLIGHT: usize = 16;

/// How queries are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// How old the newest sample of a series may be to count as present, milliseconds.
    pub lookback: i64,
    /// Step of subqueries that name none, milliseconds.
    pub subquery_step: i64,
    /// What one query may hold.
    pub limits: Limits,
    /// Metric names are removed at the end of the query (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Start timestamps tell counter resets (`use-start-timestamps`).
    pub use_start_timestamps: bool,
    /// `__type__` tells counters from gauges (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    /// Samples are counted per step, which takes a second walk over the windows.
    pub count_samples: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback: 5 * 60_000,
            subquery_step: 60_000,
            limits: Limits::default(),
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            count_samples: false,
        }
    }
}

/// When a query is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Once, at a time in milliseconds.
    Instant(i64),
    /// On each step.
    Range(StepGrid),
}

impl Times {
    /// The steps.
    pub fn grid(self) -> StepGrid {
        match self {
            Self::Instant(t) => StepGrid::instant(t),
            Self::Range(grid) => grid,
        }
    }
}

/// Evaluates queries.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    options: EngineOptions,
    helpers: Arc<Helpers>,
}

impl Engine {
    /// An engine.
    pub fn new(options: EngineOptions) -> Self {
        Self { options, helpers: Arc::default() }
    }

    /// How it evaluates.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The same engine with threads that help it, which others may share.
    pub fn with_helpers(self, helpers: Arc<Helpers>) -> Self {
        Self { helpers, ..self }
    }

    /// Plans a checked tree: durations are folded, times resolved.
    pub fn plan(&self, ast: &Ast, times: Times) -> Result<Plan, Error> {
        let mut ast = ast.clone();
        fold_durations(&mut ast, &times.grid()).map_err(Error::Duration)?;
        let plan = plan::build(&ast, times.grid(), self.plan_options());
        // A subquery may ask for more steps than anything could hold; nothing is allocated before this check.
        let Limits { max_samples, max_bytes } = self.options.limits;
        for node in &plan.nodes {
            let steps = node.grid.len();
            if steps > max_samples {
                return Err(Error::TooManySamples);
            }
            let is_literal = matches!(node.op, Op::Number(_) | Op::String(_));
            if !is_literal && steps.saturating_mul(size_of::<f64>()) > max_bytes {
                return Err(Error::TooManyBytes { limit: max_bytes });
            }
        }
        Ok(plan)
    }

    /// How far behind a step of a range query the newest sample may lie that its value depends on, milliseconds; or why
    /// steps of the query cannot be told apart.
    pub fn reach(&self, ast: &Ast, grid: StepGrid) -> Result<i64, Entangled> {
        if self.options.delayed_name_removal {
            return Err(Entangled::Names);
        }
        let mut ast = ast.clone();
        // What cannot be folded fails when it is planned.
        fold_durations(&mut ast, &grid).map_err(|_| Entangled::Range)?;
        stepwise::reach(&ast, grid.step, self.plan_options())
    }

    fn plan_options(&self) -> PlanOptions {
        PlanOptions {
            lookback: self.options.lookback,
            subquery_step: self.options.subquery_step,
            share: !self.options.count_samples,
        }
    }

    /// Fetches what a plan needs, one set per request.
    pub async fn fetch(&self, source: &dyn Source, plan: &Plan, cancel: &CancelToken) -> Result<Vec<SeriesSet>, Error> {
        self.fetch_some(source, plan, |_| true, cancel).await
    }

    /// As [`Engine::fetch`] for those requests that are wanted, by number; nothing is found by the others.
    pub async fn fetch_some(
        &self,
        source: &dyn Source,
        plan: &Plan,
        wanted: impl Fn(usize) -> bool,
        cancel: &CancelToken,
    ) -> Result<Vec<SeriesSet>, Error> {
        let wanted = &wanted;
        let selects = plan.requests.iter().enumerate().map(|(number, request)| async move {
            cancel.check()?;
            if request.range.is_empty() || !wanted(number) {
                return Ok(SeriesSet::default());
            }
            source.select(request).await.map_err(Error::Storage)
        });
        // Not all at once: a query may have a hundred thousand.
        futures::stream::iter(selects).buffered(REQUESTS_IN_FLIGHT).try_collect().await
    }

    /// Evaluates a plan over what was fetched for it; what is held meanwhile is taken from `meter` too. Takes as long as
    /// it takes: call it where that may be.
    pub fn evaluate(
        &self,
        plan: &Plan,
        fetched: Vec<SeriesSet>,
        times: Times,
        cancel: &CancelToken,
        meter: Option<Arc<dyn Meter>>,
    ) -> Result<QueryResult, Error> {
        self.evaluate_with(plan, (fetched, Partials::default()), times, cancel, meter)
    }

    /// As [`Engine::evaluate`], with what others computed of some aggregations from series that were not fetched.
    pub fn evaluate_with(
        &self,
        plan: &Plan,
        (fetched, partials): (Vec<SeriesSet>, Partials),
        times: Times,
        cancel: &CancelToken,
        meter: Option<Arc<dyn Meter>>,
    ) -> Result<QueryResult, Error> {
        let others = partials.values().flatten().map(|p| p.end.series_read).sum::<u64>();
        let (mut evaluation, series_read) = self.begin(plan, fetched, cancel, meter);
        evaluation.partials = partials;
        let value = evaluation.run()?;
        let (annotations, mut budget, entangled) = evaluation.into_parts();
        let value = result::finish(value, plan.grid, matches!(times, Times::Instant(_)), &mut budget)?;
        let (peak_samples, counts) = (budget.peak_samples as u64, budget.counts.take());
        let (samples_read, series_read) = (budget.samples_read, series_read + others);
        let stats = QueryStats { samples_read, peak_samples, series_read, counts, entangled };
        Ok(QueryResult { value, annotations, stats })
    }

    /// Evaluates some aggregations of a plan for somebody who has the other series; [`Error::NotMergeable`] where what
    /// comes out depends on those.
    pub fn partials(
        &self,
        plan: &Plan,
        fragments: &[Fragment],
        fetched: Vec<SeriesSet>,
        cancel: &CancelToken,
        meter: Option<Arc<dyn Meter>>,
    ) -> Result<Vec<Partial>, Error> {
        if fetched.iter().any(|set| !set.warnings.is_empty()) {
            return Err(Error::NotMergeable("the storage has something to say"));
        }
        let (mut evaluation, series_read) = self.begin(plan, fetched, cancel, meter);
        let mut partials = fragments.iter().map(|f| evaluation.partial(f)).collect::<Result<Vec<_>, _>>()?;
        if let Some(first) = partials.first_mut() {
            first.end.series_read = series_read;
        }
        Ok(partials)
    }

    /// An evaluation over what was fetched, and how many series that are.
    fn begin<'a>(
        &'a self,
        plan: &'a Plan,
        fetched: Vec<SeriesSet>,
        cancel: &'a CancelToken,
        meter: Option<Arc<dyn Meter>>,
    ) -> (Evaluation<'a>, u64) {
        let mut annotations = Annotations::default();
        let mut series_read = 0;
        let mut sets = Vec::with_capacity(fetched.len());
        for set in fetched {
            set.warnings.into_iter().for_each(|w| annotations.storage_warning(w));
            series_read += set.series.len() as u64;
            sets.push(set.series);
        }
        let mut budget = Budget::new(self.options.limits, cancel, meter);
        budget.counts = self.options.count_samples.then(|| Box::new(SampleCounts::new(plan)));
        let helpers = (cancel, &*self.helpers);
        (Evaluation::new(plan, self.options, sets, budget, helpers, annotations), series_read)
    }

    /// Plans, fetches and evaluates.
    pub async fn query(
        &self,
        source: &dyn Source,
        ast: &Ast,
        times: Times,
        cancel: &CancelToken,
    ) -> Result<QueryResult, Error> {
        let plan = self.plan(ast, times)?;
        let fetched = self.fetch(source, &plan, cancel).await?;
        self.evaluate(&plan, fetched, times, cancel, None)
    }
}
