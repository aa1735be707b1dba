//! Aggregations that take series one by one: `sum avg min max count group stddev stdvar`.
//!
//! *Invariants:* samples of a group are added in an order that labels alone decide (that of reading for stored series), so
//! that a sum is the same whatever else the range holds; compensated, as Prometheus does. Only variances of what is
//! computed already take it as it comes. A group holds a few numbers per step and no series.
//!
//! Series of different partitions of the storage go to different cells, which are merged in order of partitions at the end:
//! what a partition adds to a sum is the same number whoever computes it, and so is the sum.
//!
//! *Not here:* what the cells are (`cells`), parts that others computed (`partial`), aggregations that need all series of a group at once (`select_k`).

use std::sync::Arc;

use super::cells::Cells;
use super::column::{Column, Series};
use super::control::Budget;
use super::error::Error;
use super::histogram_cell::HistogramCell;
use super::labels::{KeyIndex, KeyLabels};
use super::partial::Row;
use crate::model::Labels;
use crate::promql::annotations::Annotations;
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
    /// The first series of each group by labels, kept where ranks of others' series are not known.
    firsts: Option<Vec<Labels>>,
}

/// Where a series stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its position in order of labels.
    pub rank: u32,
    /// The partition of the storage that holds it.
    pub partition: u32,
}

struct Group {
    labels: Labels,
    dropped: bool,
    /// Lowest rank of its series.
    first: u32,
    /// By partition, ascending. Where the order of series does not matter all are of partition 0.
    parts: Vec<(u32, Cells)>,
    /// The part that took a series last.
    last: usize,
    /// Sums or means of native histograms; empty until the first one comes.
    histograms: Vec<Option<Box<HistogramCell>>>,
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
            firsts: None,
        }
    }

    /// The same, to be merged with what others make of other partitions. It takes no native histograms.
    pub fn mergeable(self) -> Self {
        Self { firsts: Some(Vec::new()), ..self }
    }

    /// Whether it is to be merged with others.
    pub fn is_mergeable(&self) -> bool {
        self.firsts.is_some()
    }

    /// Takes one series; `nameless` when its name is to be taken for absent. What is kept of it is held.
    pub fn push(&mut self, series: &Series, place: Place, nameless: bool, budget: &mut Budget) -> Result<(), Error> {
        let rank = place.rank;
        self.keys.write(&mut self.buf, &series.labels, nameless);
        let (n, new) = self.index.number(&self.buf, budget)?;
        if new {
            let labels = Labels::from_canonical(&self.buf).unwrap_or_default();
            budget.hold(0, size_of::<Group>() + labels.heap_bytes())?;
            self.groups.push(Group::new(labels, rank));
            if let Some(firsts) = &mut self.firsts {
                firsts.push(series.labels.clone());
            }
        }
        let group = &mut self.groups[n];
        group.dropped |= series.dropped;
        if rank < group.first {
            group.first = rank;
            if let Some(firsts) = &mut self.firsts {
                firsts[n] = series.labels.clone();
            }
        }
        if self.firsts.is_some() && !series.column.histograms.is_empty() {
            return Err(Error::NotMergeable("native histograms are aggregated"));
        }
        let partition = if self.op.depends_on_order() { place.partition } else { 0 };
        group.cells(partition, self.op, self.steps, budget)?.push(&series.column.values);
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

    /// Takes what somebody else computed; its cells are held already.
    pub fn absorb(&mut self, row: Row, budget: &mut Budget) -> Result<(), Error> {
        let firsts = self.firsts.get_or_insert_default();
        let (n, new) = self.index.number(row.labels.canonical(), budget)?;
        if new {
            budget.hold(0, size_of::<Group>())?;
            self.groups.push(Group::new(row.labels, u32::MAX));
            firsts.push(row.first);
        } else if row.first < firsts[n] {
            firsts[n] = row.first;
        }
        let group = &mut self.groups[n];
        group.dropped |= row.dropped;
        match group.parts.binary_search_by_key(&row.partition, |(partition, _)| *partition) {
            Err(at) => group.parts.insert(at, (row.partition, row.cells)),
            Ok(at) if !self.op.depends_on_order() => group.parts[at].1.merge(&row.cells),
            Ok(_) => return Err(Error::NotMergeable("one partition came twice")),
        }
        Ok(())
    }

    /// What there is of each group and partition, for somebody else.
    pub fn into_rows(self) -> Vec<Row> {
        let firsts = self.firsts.unwrap_or_default();
        let mut rows = Vec::with_capacity(self.groups.len());
        for (group, first) in self.groups.into_iter().zip(firsts) {
            let Group { labels, dropped, parts, .. } = group;
            rows.extend(parts.into_iter().map(|(partition, cells)| {
                let (labels, first) = (labels.clone(), first.clone());
                Row { labels, first, dropped, partition, cells }
            }));
        }
        rows
    }

    /// The groups in order of the first series of each, by labels.
    pub fn finish(mut self, notes: &mut Annotations) -> Vec<Series> {
        match self.firsts.take() {
            None => self.groups.sort_by_key(|g| g.first),
            Some(firsts) => {
                let mut ordered: Vec<(Labels, Group)> = firsts.into_iter().zip(self.groups).collect();
                ordered.sort_by(|(a, _), (b, _)| a.cmp(b));
                self.groups = ordered.into_iter().map(|(_, group)| group).collect();
            }
        }
        let (op, span) = (self.op, self.span);
        notes.merge(self.notes);
        let mut out = Vec::with_capacity(self.groups.len());
        for mut group in self.groups {
            let values = group.take_cells().finish(op == AggregateOp::Stddev);
            let mut column = Column { values, histograms: Vec::new() };
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
    fn new(labels: Labels, first: u32) -> Self {
        Self { labels, dropped: false, first, parts: Vec::new(), last: 0, histograms: Vec::new() }
    }

    /// The cells of a partition.
    #[inline(always)]
    fn cells(
        &mut self,
        partition: u32,
        op: AggregateOp,
        steps: usize,
        budget: &mut Budget,
    ) -> Result<&mut Cells, Error> {
        if self.parts.get(self.last).is_none_or(|(of, _)| *of != partition) {
            self.last = match self.parts.binary_search_by_key(&partition, |(of, _)| *of) {
                Ok(at) => at,
                Err(at) => {
                    budget.hold(0, size_of::<(u32, Cells)>() + steps * Cells::bytes_per_step(op))?;
                    self.parts.insert(at, (partition, Cells::new(op, steps)));
                    at
                }
            };
        }
        Ok(&mut self.parts[self.last].1)
    }

    /// The cells of all partitions as one.
    fn take_cells(&mut self) -> Cells {
        let mut parts = std::mem::take(&mut self.parts).into_iter().map(|(_, cells)| cells);
        let first = parts.next().unwrap_or_else(|| unreachable!("BUG: a group without a series"));
        parts.fold(first, |mut all, part| {
            all.merge(&part);
            all
        })
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
        let Some((_, cells)) = self.parts.get_mut(self.last) else { return 0 };
        match (cells, op) {
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
                    let floats = self.parts.iter().any(|(_, cells)| cells.has(*step as usize));
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
