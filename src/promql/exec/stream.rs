//! Series by series: a selector, what is done to each of its samples, and whoever takes the outcome.
//!
//! *Invariants:* series of a leaf are taken in the order that storage reads cheapest, each with its rank among the labels,
//! whatever the number of threads that compute them: sums, errors and figures are the same.
//!
//! *Not here:* what is computed for one series (`exec::work`), operations that need several (`aggregate`, `join`, `call`).

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::column::{ScalarColumn, Series};
use super::control::{Budget, CancelToken};
use super::error::Error;
use super::helpers::Helpers;
use super::labels::{TYPE_LABEL, UNIT_LABEL, has_equal, merge_equal};
use super::parallel::{self, Seen, Take};
use super::stage::Stage;
use super::work::{Input, Leaf, NameRemoval, Read, Rules, Worker};
use crate::model::{Labels, METRIC_NAME};
use crate::promql::annotations::Annotations;
use crate::promql::plan::NodeId;
use crate::promql::source::SelectedSeries;

/// A series and its position when series are ordered by labels.
pub type Ranked = (u32, Input);

/// Stored series in the order in which they are read.
pub fn in_reading_order(series: Vec<SelectedSeries>) -> Vec<(u32, SelectedSeries)> {
    let mut ranked: Vec<(u32, SelectedSeries)> = (0u32..).zip(series).collect();
    // Stable: of one place in order of labels.
    ranked.sort_by_key(|(_, s)| s.place);
    ranked
}

/// Stored series as a pipeline takes them.
pub fn as_stored(series: Vec<SelectedSeries>) -> Vec<Ranked> {
    in_reading_order(series).into_iter().map(|(rank, series)| (rank, Input::Stored(series))).collect()
}

/// Series of another node in their order.
pub fn as_they_come(series: Vec<Series>) -> Vec<Ranked> {
    (0u32..).zip(series.into_iter().map(Input::Made)).collect()
}

/// Puts series back in order of labels.
pub fn in_label_order(series: Vec<Series>, ranks: &[u32]) -> Vec<Series> {
    if ranks.is_sorted() {
        return series;
    }
    let mut ranked: Vec<(u32, Series)> = ranks.iter().copied().zip(series).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, s)| s).collect()
}

/// What a running pipeline needs of its query.
pub struct Context<'a> {
    /// What the query has to say.
    pub notes: &'a mut Annotations,
    /// What it holds.
    pub budget: &'a mut Budget,
    /// Whether it goes on.
    pub cancel: &'a CancelToken,
    /// Who helps.
    pub helpers: &'a Helpers,
    /// Most bytes of columns in memory at once.
    pub max_bytes: usize,
}

impl Context<'_> {
    /// Samples of one series count while it is computed; nothing of it stays.
    pub fn count_read(&mut self, read: Read) -> Result<(), Error> {
        self.budget.samples_read += read.samples as u64;
        self.budget.hold(read.samples, read.bytes)?;
        self.budget.release(read.samples, read.bytes);
        Ok(())
    }
}

/// Which partitions series are of.
pub enum Partitions {
    /// All of the same.
    Same(u32),
    /// By rank.
    Different(Vec<u32>),
}

impl Partitions {
    /// That of the series with this rank.
    #[inline(always)]
    pub fn of(&self, rank: u32) -> u32 {
        match self {
            Self::Same(partition) => *partition,
            Self::Different(by_rank) => by_rank.get(rank as usize).copied().unwrap_or_default(),
        }
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        if let Self::Different(by_rank) = self { size_of_val(&**by_rank) } else { 0 }
    }
}

/// Series after which a query that computes alone looks for helpers again.
const LOOK_AGAIN: usize = 64;

/// A leaf, its series, and the stages behind it.
pub struct Pipeline {
    series: std::vec::IntoIter<Ranked>,
    worker: Worker,
}

impl Pipeline {
    /// A pipeline over `series`, of which all are stored or none; `stages` from the leaf outwards.
    pub fn new((leaf, series): (Leaf, Vec<Ranked>), node: NodeId, stages: Vec<Stage>, rules: Rules) -> Self {
        Self { series: series.into_iter(), worker: Worker::new((leaf, node), stages, rules) }
    }

    /// Leaves names in place, marking series that lost theirs.
    pub fn delay_removal(&mut self) {
        self.worker.rules.removal = NameRemoval::Delayed;
    }

    /// Puts series of another node in order of labels, keeping their ranks. They come in an order that depends on which
    /// others there are, and a sum in another order may have another last bit (or overflow the other way).
    pub fn order_by_labels(&mut self) {
        let all = self.series.as_slice();
        let stored = matches!(all.first(), Some((_, Input::Stored(_))));
        if !stored && !all.is_sorted_by(|(_, a), (_, b)| a.labels() <= b.labels()) {
            let mut sorted: Vec<Ranked> = std::mem::take(&mut self.series).collect();
            sorted.sort_by(|(_, a), (_, b)| a.labels().cmp(b.labels()));
            self.series = sorted.into_iter();
        }
    }

    /// Whether series can lose their names on the way.
    pub fn drops_names(&self) -> bool {
        self.worker.stages.iter().any(Stage::drops_name) || self.worker.leaf.drops_names()
    }

    /// Whether series of the leaf may differ in reserved labels: without one metric name for all they may become equal when
    /// names are gone, here or in another range.
    pub fn mixes_names(&self) -> bool {
        let mut labels = self.series.as_slice().iter().map(|(_, input)| input.labels());
        let Some(first) = labels.next() else { return false };
        has_metadata(first) || labels.any(|l| l.metric() != first.metric() || has_metadata(l))
    }

    /// The metric of its first series.
    pub fn metric(&self) -> Option<&str> {
        self.series.as_slice().first().map(|(_, input)| input.labels().metric())
    }

    /// Which partitions its series are of.
    pub fn partitions(&self) -> Partitions {
        let series = self.series.as_slice();
        let first = series.first().map_or(0, |(_, input)| input.partition());
        if series.iter().all(|(_, input)| input.partition() == first) {
            return Partitions::Same(first);
        }
        let mut by_rank = vec![0; series.len()];
        for (rank, input) in series {
            by_rank[*rank as usize] = input.partition();
        }
        Partitions::Different(by_rank)
    }

    /// Whether two series of the leaf become equal when their names are gone. Equal hashes count as equal, and so do all
    /// series with type or unit, of which some functions remove the name alone.
    pub fn may_collide(&self) -> bool {
        let mut seen = HashSet::with_capacity_and_hasher(self.series.as_slice().len(), FixedState::default());
        let hash = |labels: &Labels| {
            let mut hasher = FixedState::default().build_hasher();
            labels.iter().filter(|(name, _)| *name != METRIC_NAME).for_each(|pair| pair.hash(&mut hasher));
            hasher.finish()
        };
        let mut labels = self.series.as_slice().iter().map(|(_, input)| input.labels());
        labels.any(|l| has_metadata(l) || !seen.insert(hash(l)))
    }

    /// Computes all series, and hands those that have a sample to `take` one by one, with their ranks. What `take` leaves
    /// of a series is used for the next one.
    pub fn run(
        &mut self,
        context: &mut Context<'_>,
        mut take: impl FnMut(&mut Series, u32, &mut Budget) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let first = context.helpers.cut.first;
        let (mut out, mut seen) = (Series::default(), Seen::default());
        loop {
            // Samples are counted by one thread. Who found no helpers looks again from time to time.
            if context.budget.counts.is_none()
                && seen.series >= first
                && (seen.series - first).is_multiple_of(LOOK_AGAIN)
                && let Some(steps) = self.worker.leaf.steps()
                && let Some(share) = seen.share(steps, self.series.as_slice(), context)
            {
                let series = std::mem::take(&mut self.series);
                return parallel::run(series, &mut self.worker, share, context, &mut take);
            }
            let Some(next) = self.series.next() else { return Ok(()) };
            let read = one(&mut self.worker, next, &mut out, context, &mut take)?;
            seen.add(read, &out);
        }
    }

    /// All series that have a sample, with names removed operation by operation: what becomes equal on the way is merged
    /// or refused as the operation does it. They are held.
    pub fn collect_at_once(&mut self, context: &mut Context<'_>) -> Result<Vec<Series>, Error> {
        let stages = std::mem::replace(&mut self.worker.stages, Arc::new([]));
        let (mut all, mut ranks) = (Vec::new(), Vec::new());
        self.run(context, |series, rank, budget| {
            budget.hold(series.column.samples(), series.bytes())?;
            all.push(std::mem::take(series));
            ranks.push(rank);
            Ok(())
        })?;
        let mut all = in_label_order(all, &ranks);
        if self.worker.leaf.drops_names() {
            // A function of range vectors goes series by series: it refuses equal ones even without a step in common.
            if self.worker.leaf.is_range_call() && has_equal(&all, context.budget)? {
                return Err(Error::same_labels());
            }
            all = merge_equal(all, context.budget)?;
        }
        for stage in stages.iter() {
            for series in &mut all {
                context.cancel.check()?;
                self.worker.apply(stage, series, context.notes);
            }
            all.retain(|s| !s.column.is_empty());
            if stage.drops_name() {
                all = merge_equal(all, context.budget)?;
            }
        }
        Ok(all)
    }
}

/// Computes one series in `out` and hands it to `take` if it has a sample.
pub fn one(
    worker: &mut Worker,
    (rank, input): Ranked,
    out: &mut Series,
    context: &mut Context<'_>,
    take: &mut Take<'_>,
) -> Result<Read, Error> {
    context.cancel.check()?;
    if let Some(steps) = worker.leaf.steps() {
        context.budget.room(8 * steps + worker.leaf.inner_bytes())?;
    }
    let (read, outcome) = worker.column(input, out, context.notes);
    context.count_read(read)?;
    outcome?;
    if let Some(counts) = &mut context.budget.counts {
        worker.count(out, counts);
    }
    if worker.stage(out, context.notes) {
        take(out, rank, context.budget)?;
    }
    Ok(read)
}

fn has_metadata(labels: &Labels) -> bool {
    labels.has(TYPE_LABEL) || labels.has(UNIT_LABEL)
}

/// The scalar arguments of a function, one value per step each.
pub fn per_step(params: Vec<ScalarColumn>, steps: usize) -> Vec<Vec<f64>> {
    params.into_iter().map(|p| p.to_vec(steps)).collect()
}
