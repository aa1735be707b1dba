//! Finished steps of range queries, kept so that later queries evaluate only what they lack.
//!
//! *Invariants:* an answer with steps from here is the one that an evaluation of all steps would give, bit for bit. A query
//! that fails in parts is evaluated as a whole. All that is kept takes at most `query.results_cache_bytes`, one query's
//! steps at most a quarter of that.
//!
//! *Why kept steps stay true:* [`Settled`] is read before the evaluation, and only steps that read nothing after its
//! `until` are kept: whatever may still be accepted, by heads that know the tenant, is later. What would change the past
//! nevertheless (a shard new to the tenant, blocks that come or go otherwise than by a flush, which only moves samples)
//! changes its `history`: steps are used under the very history they were kept under, which never comes back.
//!
//! *Why a step is the same whatever the range:* `promql::stepwise`.
//!
//! *Not here:* evaluating (`query::frontend`), how far samples are settled (`query::settled`).

pub mod cover;
pub mod extent;
pub mod lru;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

use super::active::Active;
use super::frontend::QueryError;
use super::metrics::{Metrics, Outcome};
use super::settled::{History, Settled};
use crate::model::{StepGrid, TenantId};
use crate::promql::annotations::Annotations;
use crate::promql::exec::error::Error as EvalError;
use crate::promql::exec::result::{QueryResult, QueryStats, QueryValue, RangeSeries};
use cover::{Run, Usable, cover};
use extent::{Extent, Part, Raster, Said, Steps, join};
use lru::Lru;

/// Most steps of an extent: no query over HTTP can ask for more.
const MOST_STEPS: i64 = 11_000;
/// Most extents of a key.
const MOST_EXTENTS: usize = 8;
/// Of the cache one key may take one part in so many.
const SHARE: usize = 4;

/// Queries whose steps are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose samples.
    pub tenant: TenantId,
    /// The query as the printer writes it.
    pub query: Box<str>,
    /// Where steps may lie.
    pub raster: Raster,
    /// How far back instant selectors look, milliseconds.
    pub lookback: i64,
}

impl Key {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.tenant.as_str().len() + self.query.len()
    }
}

/// A range query that may be answered from here.
#[derive(Debug)]
pub struct Asked {
    /// What it has in common with others.
    pub key: Key,
    /// As it was written.
    pub text: Arc<str>,
    /// Its steps; two at least.
    pub grid: StepGrid,
    /// How far behind a step its samples may lie, milliseconds.
    pub reach: i64,
}

impl Asked {
    fn steps(&self) -> Steps {
        self.key.raster.steps(self.grid)
    }

    /// The number of the last step that is settled.
    fn settled(&self, settled: Settled) -> i64 {
        self.key.raster.number(settled.until.saturating_sub(self.reach))
    }

    fn times(&self, steps: Steps) -> (i64, i64) {
        (self.key.raster.time(steps.first), self.key.raster.time(steps.last))
    }
}

/// What is kept of a key.
#[derive(Debug)]
struct Kept {
    history: History,
    extents: Vec<Arc<Extent>>,
}

/// The cache.
pub struct ResultsCache {
    kept: Mutex<Lru<Key, Arc<Kept>>>,
    metrics: Metrics,
}

/// Evaluates steps of the query.
pub type Evaluate<'a> = dyn FnMut(StepGrid) -> Result<QueryResult, QueryError> + 'a;

impl ResultsCache {
    /// An empty cache for `capacity` bytes.
    pub fn new(capacity: usize, metrics: Metrics) -> Self {
        Self { kept: Mutex::new(Lru::new(capacity)), metrics }
    }

    /// Answers a query, evaluating what is not here, and keeps what is settled of it. `settled` was read before.
    pub fn answer(
        &self,
        asked: &Asked,
        settled: Settled,
        active: &Active,
        evaluate: &mut Evaluate<'_>,
    ) -> Result<QueryResult, QueryError> {
        let kept = self.kept.lock().get(&asked.key).filter(|kept| kept.history == settled.history);
        let extents = kept.as_ref().map_or(&[][..], |kept| &kept.extents);
        let runs = cover(asked.steps(), &usable(asked, settled, extents));
        if runs.iter().any(|run| run.from.is_some())
            && let Some(result) = put_together(asked, extents, &runs, active, evaluate)?
        {
            let missed = runs.iter().filter(|run| run.from.is_none());
            let outcome = if missed.clone().count() > 0 { Outcome::Partial } else { Outcome::Hit };
            self.metrics.cached(outcome);
            let until = asked.settled(settled);
            if missed.clone().any(|run| run.steps.first <= until) {
                self.keep(asked, settled, &result);
            }
            return Ok(result);
        }
        self.metrics.cached(Outcome::Miss);
        let result = evaluate(asked.grid)?;
        self.keep(asked, settled, &result);
        Ok(result)
    }

    /// Keeps the settled steps of an answer.
    fn keep(&self, asked: &Asked, settled: Settled, result: &QueryResult) {
        let QueryValue::Matrix(series) = &result.value else { return };
        let all = asked.steps();
        let steps = Steps { last: all.last.min(asked.settled(settled)), ..all };
        let said = !result.annotations.is_empty();
        // Of an annotation it is not known which step it is about.
        if result.stats.entangled || steps.count() < 2 || (said && steps != all) {
            return;
        }
        let limit = (self.kept.lock().capacity() / SHARE).saturating_sub(asked.key.bytes());
        let part = Part { series, times: asked.times(steps) };
        if part.bytes() > limit {
            return;
        }
        let said = said.then(|| Said { annotations: result.annotations.clone(), text: Arc::clone(&asked.text) });
        let new = Arc::new(Extent { steps, series: join(&[part]), said });
        if new.bytes() > limit {
            return;
        }
        let before = self.kept.lock().get(&asked.key).filter(|kept| kept.history == settled.history);
        let extents = with_new(asked, before.as_ref().map_or(&[], |kept| &kept.extents), new, limit);
        let bytes = asked.key.bytes() + extents.iter().map(|e| e.bytes()).sum::<usize>();
        let kept = Arc::new(Kept { history: settled.history, extents });
        let (gone, evicted, held) = {
            let mut lru = self.kept.lock();
            let (gone, evicted) = lru.insert(asked.key.clone(), kept, bytes);
            (gone, evicted, lru.bytes())
        };
        drop(gone);
        self.metrics.cache_holds(held, evicted);
    }
}

/// Which steps of extents may answer a query now.
fn usable(asked: &Asked, settled: Settled, extents: &[Arc<Extent>]) -> Vec<Usable> {
    let (all, until) = (asked.steps(), asked.settled(settled));
    let of = |(at, extent): (usize, &Arc<Extent>)| {
        let settled = Steps { last: extent.steps.last.min(until), ..extent.steps };
        let fits = match &extent.said {
            // Positions point into the text.
            Some(said) => said.text == asked.text && all.contains(extent.steps) && settled == extent.steps,
            None => !settled.clip(all).is_empty(),
        };
        fits.then_some(Usable { extent: at, steps: settled, whole: extent.said.is_some() })
    };
    extents.iter().enumerate().filter_map(of).collect()
}

/// The answer from extents and from evaluations of what they lack; `None` if only an evaluation of all steps can tell.
fn put_together(
    asked: &Asked,
    extents: &[Arc<Extent>],
    runs: &[Run],
    active: &Active,
    evaluate: &mut Evaluate<'_>,
) -> Result<Option<QueryResult>, QueryError> {
    let mut evaluated: Vec<Option<Vec<RangeSeries>>> = Vec::with_capacity(runs.len());
    let (mut annotations, mut stats) = (Annotations::default(), QueryStats::default());
    let mut from_here = 0;
    for run in runs {
        let said = match run.from {
            Some(from) => {
                let extent = &extents[from];
                let part = Part { series: &extent.series, times: asked.times(run.steps) };
                active.budget.charge(part.bytes() as u64).map_err(EvalError::Storage)?;
                from_here += run.steps.count() as u64;
                evaluated.push(None);
                extent.said.as_ref().map(|said| said.annotations.clone()).unwrap_or_default()
            }
            None => match evaluate(asked.key.raster.grid(run.steps)) {
                Ok(QueryResult { value: QueryValue::Matrix(series), annotations, stats: of_run })
                    if !of_run.entangled =>
                {
                    evaluated.push(Some(series));
                    stats.samples_read += of_run.samples_read;
                    stats.series_read += of_run.series_read;
                    stats.peak_samples = stats.peak_samples.max(of_run.peak_samples);
                    annotations
                }
                Err(e @ QueryError::Eval(EvalError::Cancelled | EvalError::TimedOut)) => return Err(e),
                // What is wrong, and with which step, an evaluation of all steps may say otherwise.
                _ => return Ok(None),
            },
        };
        if !annotations.agrees(&said) {
            return Ok(None);
        }
        annotations.merge(said);
    }
    let parts = runs.iter().zip(&evaluated).map(|(run, evaluated)| {
        let kept = run.from.map_or(&[][..], |from| &extents[from].series);
        Part { series: evaluated.as_deref().unwrap_or(kept), times: asked.times(run.steps) }
    });
    let parts: Vec<Part<'_>> = parts.collect();
    active.spend(|spent| spent.cached_steps = from_here);
    Ok(Some(QueryResult { value: QueryValue::Matrix(join(&parts)), annotations, stats }))
}

/// The extents of a key when a new one, which takes at most `limit` bytes, has come: those it touches are joined with it.
fn with_new(asked: &Asked, before: &[Arc<Extent>], new: Arc<Extent>, limit: usize) -> Vec<Arc<Extent>> {
    let (joined, mut others): (Arc<Extent>, Vec<Arc<Extent>>) = match &new.said {
        // What was said is about the extent as it is. Equal steps can only be from a query that ran at the same time.
        Some(_) => (Arc::clone(&new), before.iter().filter(|e| e.steps != new.steps).cloned().collect()),
        None => {
            let touches = |e: &&Arc<Extent>| e.said.is_none() && e.steps.touches(new.steps);
            let (near, far): (Vec<_>, Vec<_>) = before.iter().partition(touches);
            (Arc::new(joined(asked, &new, &near)), far.into_iter().cloned().collect())
        }
    };
    let joined = if joined.bytes() > limit { new } else { joined };
    let mut bytes = joined.bytes();
    // The longest ones are worth most.
    others.sort_by_key(|e| std::cmp::Reverse(e.steps.count()));
    others.truncate(MOST_EXTENTS - 1);
    others.retain(|e| {
        let fits = bytes + e.bytes() <= limit;
        bytes += if fits { e.bytes() } else { 0 };
        fits
    });
    others.push(joined);
    others
}

/// `new` with what extents next to it have before and behind it.
fn joined(asked: &Asked, new: &Extent, near: &[&Arc<Extent>]) -> Extent {
    let own = new.steps;
    let before = near.iter().filter(|e| e.steps.first < own.first).min_by_key(|e| e.steps.first);
    let behind = near.iter().filter(|e| e.steps.last > own.last).max_by_key(|e| e.steps.last);
    let mut steps = own;
    let mut parts = vec![Part { series: &new.series, times: asked.times(own) }];
    if let Some(behind) = behind {
        steps.last = behind.steps.last.min(own.first.saturating_add(MOST_STEPS - 1)).max(own.last);
        let times = asked.times(Steps { first: own.last + 1, last: steps.last });
        parts.push(Part { series: &behind.series, times });
    }
    if let Some(before) = before {
        // The oldest steps go: dashboards follow the present.
        steps.first = before.steps.first.max(steps.last.saturating_sub(MOST_STEPS - 1)).min(own.first);
        let times = asked.times(Steps { first: steps.first, last: own.first - 1 });
        parts.insert(0, Part { series: &before.series, times });
    }
    Extent { steps, series: join(&parts), said: None }
}
