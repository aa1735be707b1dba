//! Series by series: a selector, what is done to each of its samples, and whoever takes the outcome.
//!
//! *Invariants:* what is computed for one series depends on that series (and on scalars) alone, so series can be
//! computed in any order or at once; those of a leaf come in the order that storage reads cheapest, each with its rank
//! among the labels.
//!
//! *Not here:* operations that need several series (`aggregate`, `join`, `call`).

use super::column::{Column, ScalarColumn, Series};
use super::control::{Budget, CancelToken};
use super::error::Error;
use super::labels::{TYPE_LABEL, UNIT_LABEL, drop_name, drop_reserved, has_equal, merge_equal};
use super::range::RangeFunction;
use super::range_histogram;
use super::reader::{RangeSamples, read_all, totals_only};
use super::select::select;
use super::stage::Stage;
use crate::model::labels::Quoted;
use crate::model::{Columns, StepGrid};
use crate::promql::annotations::Annotations;
use crate::promql::functions::histogram_range::Findings;
use crate::promql::functions::window::{Windows, is_absent};
use crate::promql::plan::{NodeId, Pick};
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;
use crate::promql::source::SelectedSeries;

/// A stored series and its position when series are ordered by labels.
pub type Ranked = (u32, SelectedSeries);

/// Stored series in the order in which they are read.
pub fn in_reading_order(series: Vec<SelectedSeries>) -> std::vec::IntoIter<Ranked> {
    let mut ranked: Vec<Ranked> = (0u32..).zip(series).collect();
    // Stable: of one place in order of labels.
    ranked.sort_by_key(|(_, s)| s.place);
    ranked.into_iter()
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

/// Where series come from.
pub enum Leaf {
    /// An instant vector selector.
    Select {
        /// Stored series.
        series: std::vec::IntoIter<Ranked>,
        /// Steps and lookback.
        windows: Windows,
        /// What is taken of a sample.
        pick: Pick,
        /// Place of the selector in the text.
        span: Span,
    },
    /// A function of stored series.
    Range {
        /// Stored series.
        series: std::vec::IntoIter<Ranked>,
        /// The function.
        function: Box<RangeFunction>,
    },
    /// A function of a subquery.
    Subquery {
        /// Series of the inner expression.
        series: std::vec::IntoIter<Series>,
        /// Inner steps.
        grid: StepGrid,
        /// The function.
        function: Box<RangeFunction>,
    },
    /// Series that are there already.
    Ready(std::vec::IntoIter<Series>),
}

/// How names are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRemoval {
    /// By each operation.
    AtOnce,
    /// At the end of the query.
    Delayed,
}

/// A leaf and the stages behind it.
pub struct Pipeline {
    leaf: Leaf,
    /// The leaf in the plan.
    node: NodeId,
    /// From the leaf outwards.
    stages: Vec<Stage>,
    removal: NameRemoval,
    with_starts: bool,
    type_labels: bool,
    columns: Columns,
    piece: Columns,
    samples: RangeSamples,
    last_metric: String,
    rank: u32,
    /// Ranks of series that are there already, where they do not simply ascend.
    ranks: std::vec::IntoIter<u32>,
}

impl Pipeline {
    /// A pipeline; `stages` from the leaf outwards.
    pub fn new(
        (leaf, node): (Leaf, NodeId),
        stages: Vec<Stage>,
        removal: NameRemoval,
        with_starts: bool,
        type_labels: bool,
    ) -> Self {
        Self {
            leaf,
            node,
            stages,
            removal,
            with_starts,
            type_labels,
            columns: Columns::default(),
            piece: Columns::default(),
            samples: RangeSamples::default(),
            last_metric: String::new(),
            rank: 0,
            ranks: Vec::new().into_iter(),
        }
    }

    /// Leaves names in place, marking series that lost theirs.
    pub fn delay_removal(&mut self) {
        self.removal = NameRemoval::Delayed;
    }

    /// Puts series that are there already in order of labels, keeping their ranks. They come in an order that depends on
    /// which others there are, and a sum in another order may have another last bit (or overflow the other way).
    pub fn order_by_labels(&mut self) {
        let (Leaf::Ready(series) | Leaf::Subquery { series, .. }) = &mut self.leaf else { return };
        if series.as_slice().is_sorted_by(|a, b| a.labels <= b.labels) {
            return;
        }
        let mut ranked: Vec<(u32, Series)> = (1u32..).zip(&mut *series).collect();
        ranked.sort_by(|(_, a), (_, b)| a.labels.cmp(&b.labels));
        let (ranks, sorted): (Vec<u32>, Vec<Series>) = ranked.into_iter().unzip();
        *series = sorted.into_iter();
        self.ranks = ranks.into_iter();
    }

    /// Whether series can lose their names on the way.
    pub fn drops_names(&self) -> bool {
        self.stages.iter().any(Stage::drops_name) || self.leaf_drops_names()
    }

    fn leaf_drops_names(&self) -> bool {
        match &self.leaf {
            Leaf::Range { function, .. } | Leaf::Subquery { function, .. } => {
                use FunctionName as F;
                !matches!(function.function, F::LastOverTime | F::FirstOverTime | F::AbsentOverTime)
            }
            Leaf::Select { pick, .. } => matches!(pick, Pick::Timestamp | Pick::StartTimestamp),
            Leaf::Ready(_) => false,
        }
    }

    /// Whether two series of the leaf become equal when their names are gone. Series of a leaf differ, so they do only
    /// if they differ in reserved labels; one metric name and no type or unit labels rule that out cheaply.
    pub fn may_collide(&self) -> bool {
        fn any<'a>(mut labels: impl Iterator<Item = &'a crate::model::Labels>) -> bool {
            let Some(first) = labels.next() else { return false };
            let metadata = |l: &crate::model::Labels| l.has(TYPE_LABEL) || l.has(UNIT_LABEL);
            metadata(first) || labels.any(|l| l.metric() != first.metric() || metadata(l))
        }
        match &self.leaf {
            Leaf::Select { series, .. } | Leaf::Range { series, .. } => {
                any(series.as_slice().iter().map(|(_, s)| &s.labels))
            }
            Leaf::Subquery { series, .. } | Leaf::Ready(series) => any(series.as_slice().iter().map(|s| &s.labels)),
        }
    }

    /// Position of the series computed last, when those of the leaf are ordered by labels.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Whether the leaf is a function of a range vector.
    pub fn is_range_call(&self) -> bool {
        matches!(self.leaf, Leaf::Range { .. } | Leaf::Subquery { .. })
    }

    /// Computes the next series that has a sample into `out`; `false` when there are none left.
    pub fn next(
        &mut self,
        out: &mut Series,
        notes: &mut Annotations,
        budget: &mut Budget,
        cancel: &CancelToken,
    ) -> Result<bool, Error> {
        loop {
            cancel.check()?;
            if !self.next_of_leaf(out, notes, budget)? {
                return Ok(false);
            }
            if out.column.is_empty() {
                continue;
            }
            for stage in &self.stages {
                stage.apply(out, notes);
                if stage.drops_name() {
                    remove_name(out, self.removal, stage.keeps_metadata());
                }
            }
            if self.stages.is_empty() || !out.column.is_empty() {
                return Ok(true);
            }
        }
    }

    /// All series that have a sample, with names removed operation by operation: what becomes equal on the way is merged
    /// or refused as the operation does it. Counts as held while it runs.
    pub fn collect_at_once(
        &mut self,
        notes: &mut Annotations,
        budget: &mut Budget,
        cancel: &CancelToken,
    ) -> Result<Vec<Series>, Error> {
        let stages = std::mem::take(&mut self.stages);
        let (mut all, mut ranks, mut held) = (Vec::new(), Vec::new(), (0, 0));
        let mut series = Series::default();
        while self.next(&mut series, notes, budget, cancel)? {
            let (samples, bytes) = (series.column.samples(), series.column.bytes());
            budget.hold(samples, bytes)?;
            held = (held.0 + samples, held.1 + bytes);
            all.push(std::mem::take(&mut series));
            ranks.push(self.rank);
        }
        let mut all = in_label_order(all, &ranks);
        if self.leaf_drops_names() {
            // A function of range vectors goes series by series: it refuses equal ones even without a step in common.
            if self.is_range_call() && has_equal(&all) {
                return Err(Error::same_labels());
            }
            all = merge_equal(all)?;
        }
        for stage in &stages {
            for series in &mut all {
                cancel.check()?;
                stage.apply(series, notes);
                if stage.drops_name() {
                    remove_name(series, self.removal, stage.keeps_metadata());
                }
            }
            all.retain(|s| !s.column.is_empty());
            if stage.drops_name() {
                all = merge_equal(all)?;
            }
        }
        budget.release(held.0, held.1);
        Ok(all)
    }

    fn next_of_leaf(&mut self, out: &mut Series, notes: &mut Annotations, budget: &mut Budget) -> Result<bool, Error> {
        let drops = self.leaf_drops_names();
        match &mut self.leaf {
            Leaf::Ready(series) => {
                let Some(next) = series.next() else { return Ok(false) };
                self.rank = self.ranks.next().unwrap_or(self.rank + 1);
                *out = next;
                return Ok(true);
            }
            Leaf::Select { series, windows, pick, span } => {
                let Some((rank, mut next)) = series.next() else { return Ok(false) };
                self.rank = rank;
                read_all(next.cursor.as_mut(), &mut self.columns, &mut self.piece)?;
                count_read(&self.columns, budget)?;
                if *pick == Pick::Totals {
                    totals_only(&mut self.columns);
                }
                (out.labels, out.dropped) = (next.labels, false);
                let mut found = Findings::default();
                select(&self.columns, windows, *pick, &mut out.column, &mut found);
                range_histogram::note(found, out.labels.metric(), *span, notes);
                if let Some(counts) = &mut budget.counts {
                    counts.selected(self.node, windows.grid, &out.column);
                }
            }
            Leaf::Range { series, function } => {
                let Some((rank, mut next)) = series.next() else { return Ok(false) };
                self.rank = rank;
                read_all(next.cursor.as_mut(), &mut self.columns, &mut self.piece)?;
                count_read(&self.columns, budget)?;
                if function.totals {
                    totals_only(&mut self.columns);
                }
                self.samples.take(&mut self.columns, self.with_starts);
                if let Some(counts) = &mut budget.counts {
                    counts.windowed(self.node, &function.windows, &self.samples, true);
                }
                (out.labels, out.dropped) = (next.labels, false);
                function.eval(&out.labels, &self.samples, &mut out.column, notes)?;
                note_gauges(function, out, &mut self.last_metric, self.type_labels, notes);
            }
            Leaf::Subquery { series, grid, function } => {
                let Some(next) = series.next() else { return Ok(false) };
                self.rank = self.ranks.next().unwrap_or(self.rank + 1);
                self.samples.take_steps(&next.column, *grid);
                if let Some(counts) = &mut budget.counts {
                    counts.windowed(self.node, &function.windows, &self.samples, false);
                }
                (out.labels, out.dropped) = (next.labels, next.dropped);
                function.eval(&out.labels, &self.samples, &mut out.column, notes)?;
                note_gauges(function, out, &mut self.last_metric, self.type_labels, notes);
            }
        }
        if drops {
            remove_name(out, self.removal, false);
        }
        Ok(true)
    }
}

/// Samples of one series count while it is computed; nothing of it stays.
fn count_read(columns: &Columns, budget: &mut Budget) -> Result<(), Error> {
    budget.samples_read += columns.len() as u64;
    let (samples, bytes) = (columns.len(), columns.heap_bytes());
    budget.hold(samples, bytes)?;
    budget.release(samples, bytes);
    Ok(())
}

fn remove_name(series: &mut Series, removal: NameRemoval, keep_metadata: bool) {
    match removal {
        NameRemoval::Delayed => series.dropped = true,
        NameRemoval::AtOnce if keep_metadata => series.labels = drop_name(&series.labels),
        NameRemoval::AtOnce => series.labels = drop_reserved(&series.labels),
    }
}

/// Hints at metrics that do not look like counters.
fn note_gauges(
    function: &RangeFunction,
    series: &Series,
    last: &mut String,
    type_labels: bool,
    notes: &mut Annotations,
) {
    if !matches!(function.function, FunctionName::Rate | FunctionName::Increase) {
        return;
    }
    let metric = series.labels.metric();
    let counter_name = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix));
    let has_floats = |c: &Column| c.values.iter().any(|v| !is_absent(*v));
    if metric.is_empty() || (!type_labels && (counter_name || *last == metric)) || !has_floats(&series.column) {
        return;
    }
    if !type_labels {
        metric.clone_into(last);
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        notes.info(function.span, format!("{text} {}", Quoted(metric)));
        return;
    }
    let declared = series.labels.get(TYPE_LABEL);
    if declared != "counter" && declared != "histogram" {
        let text = "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\"";
        notes.info(function.span, format!("{text}, got {}: {}", Quoted(declared), Quoted(metric)));
    }
}

/// The scalar arguments of a function, one value per step each.
pub fn per_step(params: Vec<ScalarColumn>, steps: usize) -> Vec<Vec<f64>> {
    params.into_iter().map(|p| p.to_vec(steps)).collect()
}
