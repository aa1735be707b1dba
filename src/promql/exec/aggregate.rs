//! Aggregations that take series one by one: `sum avg min max count group stddev stdvar`.
//!
//! *Invariants:* samples of a group are added in an order that labels alone decide (that of reading for stored series), so
//! that a sum is the same whatever else the range holds; compensated, as Prometheus does. Only variances of what is
//! computed already take it as it comes. A group holds a few numbers per step and no series.
//!
//! *Not here:* aggregations that need all series of a group at once (`select_k`).

use std::sync::Arc;

use super::column::{Column, Series};
use super::control::Budget;
use super::error::Error;
use super::histogram_cell::HistogramCell;
use super::labels::{KeyIndex, KeyLabels};
use crate::model::Labels;
use crate::promql::annotations::Annotations;
use crate::promql::functions::kahan::{self, Mean};
use crate::promql::functions::window::{ABSENT, is_absent};
use crate::promql::operator::AggregateOp;
use crate::promql::position::Span;

/// The group labels of an aggregation.
pub fn key_labels(grouping: &[Arc<str>], without: bool) -> KeyLabels {
    if without { KeyLabels::all_but(grouping) } else { KeyLabels::only(grouping) }
}

/// An aggregation under way.
pub struct Aggregation {
    op: AggregateOp,
    keys: KeyLabels,
    steps: usize,
    span: Span,
    index: KeyIndex,
    groups: Vec<Group>,
    /// What it has to say; said after what its input has to say.
    notes: Annotations,
    buf: String,
}

struct Group {
    labels: Labels,
    dropped: bool,
    /// Lowest rank of its series.
    first: u32,
    cells: Cells,
    /// Sums or means of native histograms; empty until the first one comes.
    histograms: Vec<Option<Box<HistogramCell>>>,
}

/// What is kept for each step; [`ABSENT`] in the first column where there was no sample yet.
enum Cells {
    Sum { sum: Vec<f64>, c: Vec<f64> },
    Avg(Vec<Option<Mean>>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Count(Vec<f64>),
    Group(Vec<f64>),
    Variance { m2: Vec<f64>, mean: Vec<f64>, count: Vec<f64> },
}

impl Aggregation {
    /// An empty aggregation; `span` is the place of its input in the text.
    pub fn new(op: AggregateOp, keys: KeyLabels, steps: usize, span: Span) -> Self {
        Self {
            op,
            keys,
            steps,
            span,
            index: KeyIndex::default(),
            groups: Vec::new(),
            notes: Annotations::default(),
            buf: String::new(),
        }
    }

    /// Takes one series, `rank` being its position in order of labels; `nameless` when its name is to be taken for absent.
    /// What is kept of it is held.
    pub fn push(&mut self, series: &Series, rank: u32, nameless: bool, budget: &mut Budget) -> Result<(), Error> {
        self.keys.write(&mut self.buf, &series.labels, nameless);
        let (n, new) = self.index.number(&self.buf, budget)?;
        if new {
            let labels = Labels::from_canonical(&self.buf).unwrap_or_default();
            let cells = self.steps * Cells::bytes_per_step(self.op);
            budget.hold(0, size_of::<Group>() + labels.heap_bytes() + cells)?;
            self.groups.push(Group::new(self.op, labels, rank, self.steps));
        }
        let group = &mut self.groups[n];
        group.dropped |= series.dropped;
        group.first = group.first.min(rank);
        group.cells.push(&series.column.values);
        if !series.column.histograms.is_empty() {
            let metric = if nameless { "" } else { series.labels.metric() };
            let grown = group.push_histograms(self.op, &series.column, (self.span, metric), &mut self.notes);
            budget.hold(0, grown)?;
        }
        Ok(())
    }

    /// Whether the order of series makes a last bit of difference at most. Variances go digits apart: they are taken in the
    /// order in which the input comes, as Prometheus does.
    pub fn is_compensated(&self) -> bool {
        !matches!(self.op, AggregateOp::Stddev | AggregateOp::Stdvar)
    }

    /// The groups in order of the first series of each, by labels.
    pub fn finish(mut self, notes: &mut Annotations) -> Vec<Series> {
        self.groups.sort_by_key(|g| g.first);
        let (op, span) = (self.op, self.span);
        notes.merge(self.notes);
        let mut out = Vec::with_capacity(self.groups.len());
        for mut group in self.groups {
            let mut column = Column { values: group.cells.finish(op == AggregateOp::Stddev), histograms: Vec::new() };
            for (step, cell) in group.histograms.into_iter().enumerate() {
                let Some(cell) = cell else { continue };
                let floats = !is_absent(std::mem::replace(&mut column.values[step], ABSENT));
                if let Some(h) = cell.finish(floats, span, notes) {
                    column.histograms.push((step as u32, Arc::new(h)));
                }
            }
            if !column.is_empty() {
                out.push(Series { labels: std::mem::take(&mut group.labels), dropped: group.dropped, column });
            }
        }
        out
    }
}

impl Group {
    fn new(op: AggregateOp, labels: Labels, first: u32, steps: usize) -> Self {
        let empty = || vec![ABSENT; steps];
        let zero = || vec![0.0; steps];
        let cells = match op {
            AggregateOp::Avg => Cells::Avg(vec![None; steps]),
            AggregateOp::Min => Cells::Min(empty()),
            AggregateOp::Max => Cells::Max(empty()),
            AggregateOp::Count => Cells::Count(empty()),
            AggregateOp::Group => Cells::Group(empty()),
            AggregateOp::Stddev | AggregateOp::Stdvar => Cells::Variance { m2: empty(), mean: zero(), count: zero() },
            _ => Cells::Sum { sum: empty(), c: zero() },
        };
        Self { labels, dropped: false, first, cells, histograms: Vec::new() }
    }

    /// Takes the histograms of a series; returns how many bytes more are held.
    fn push_histograms(
        &mut self,
        op: AggregateOp,
        column: &Column,
        (span, metric): (Span, &str),
        notes: &mut Annotations,
    ) -> usize {
        let mut grown = 0;
        match (&mut self.cells, op) {
            (Cells::Count(count), _) => {
                for (step, _) in &column.histograms {
                    let slot = &mut count[*step as usize];
                    *slot = if is_absent(*slot) { 1.0 } else { *slot + 1.0 };
                }
            }
            (Cells::Group(group), _) => column.histograms.iter().for_each(|(step, _)| group[*step as usize] = 1.0),
            (_, AggregateOp::Sum | AggregateOp::Avg) => {
                if self.histograms.is_empty() {
                    grown += column.values.len() * size_of::<Option<Box<HistogramCell>>>();
                    self.histograms.resize_with(column.values.len(), || None);
                }
                for (step, h) in &column.histograms {
                    let floats = self.cells.has(*step as usize);
                    match &mut self.histograms[*step as usize] {
                        Some(cell) => cell.push(h, floats, (span, metric), notes),
                        slot if floats => *slot = Some(Box::new(HistogramCell::behind_floats())),
                        slot => {
                            *slot = Some(Box::new(HistogramCell::new(op == AggregateOp::Avg, h)));
                            // Indexes and compensated counts take two and a half times the room of counts.
                            grown += 3 * h.heap_bytes();
                        }
                    }
                }
            }
            _ => notes.info(span, format!("ignored histogram in {op} aggregation")),
        }
        grown
    }
}

impl Cells {
    fn bytes_per_step(op: AggregateOp) -> usize {
        match op {
            AggregateOp::Avg => size_of::<Option<Mean>>(),
            AggregateOp::Min | AggregateOp::Max | AggregateOp::Count | AggregateOp::Group => 8,
            AggregateOp::Stddev | AggregateOp::Stdvar => 24,
            _ => 16,
        }
    }

    /// Whether there was a float on a step.
    fn has(&self, step: usize) -> bool {
        match self {
            Self::Avg(means) => means[step].is_some(),
            Self::Sum { sum: v, .. } | Self::Min(v) | Self::Max(v) | Self::Count(v) | Self::Group(v) => {
                !is_absent(v[step])
            }
            Self::Variance { m2, .. } => !is_absent(m2[step]),
        }
    }

    fn push(&mut self, values: &[f64]) {
        match self {
            Self::Sum { sum, c } => push_sum(sum, c, values),
            Self::Avg(means) => {
                for (mean, v) in means.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    match mean {
                        Some(mean) => mean.push(*v),
                        None => *mean = Some(Mean::of(*v)),
                    }
                }
            }
            Self::Min(min) => fold(min, values, |a, v| if a > v || a.is_nan() { v } else { a }),
            Self::Max(max) => fold(max, values, |a, v| if a < v || a.is_nan() { v } else { a }),
            Self::Count(count) => {
                for (count, _) in count.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
                }
            }
            Self::Group(group) => fold(group, values, |_, _| 1.0),
            Self::Variance { m2, mean, count } => {
                for i in 0..values.len() {
                    let v = values[i];
                    if is_absent(v) {
                        continue;
                    }
                    count[i] += 1.0;
                    if is_absent(m2[i]) {
                        mean[i] = v;
                        m2[i] = if v.is_finite() { 0.0 } else { f64::NAN };
                        continue;
                    }
                    let delta = v - mean[i];
                    mean[i] += delta / count[i];
                    m2[i] += delta * (v - mean[i]);
                }
            }
        }
    }

    fn finish(&mut self, root: bool) -> Vec<f64> {
        match self {
            Self::Sum { sum, c } => {
                for (sum, c) in sum.iter_mut().zip(c).filter(|(s, _)| !is_absent(**s)) {
                    *sum += *c;
                }
                std::mem::take(sum)
            }
            Self::Avg(means) => means.iter().map(|m| m.map_or(ABSENT, |m| m.get())).collect(),
            Self::Min(v) | Self::Max(v) | Self::Count(v) => std::mem::take(v),
            Self::Group(v) => {
                v.iter_mut().filter(|v| !is_absent(**v)).for_each(|v| *v = 1.0);
                std::mem::take(v)
            }
            Self::Variance { m2, count, .. } => {
                for (m2, n) in m2.iter_mut().zip(count).filter(|(m, _)| !is_absent(**m)) {
                    let variance = *m2 / *n;
                    *m2 = if root { variance.sqrt() } else { variance };
                }
                std::mem::take(m2)
            }
        }
    }
}

/// Adds a series to the sums of its group: the hottest loop of most dashboards.
fn push_sum(sum: &mut [f64], c: &mut [f64], values: &[f64]) {
    for ((sum, c), &v) in sum.iter_mut().zip(c).zip(values) {
        if is_absent(v) {
            continue;
        }
        if is_absent(*sum) {
            *sum = v;
        } else {
            (*sum, *c) = kahan::add(v, *sum, *c);
        }
    }
}

#[inline(always)]
fn fold(cells: &mut [f64], values: &[f64], f: impl Fn(f64, f64) -> f64) {
    for (cell, &v) in cells.iter_mut().zip(values) {
        if !is_absent(v) {
            *cell = if is_absent(*cell) { v } else { f(*cell, v) };
        }
    }
}
