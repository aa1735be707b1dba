//! Aggregations: series of one group become one.
//!
//! *Invariants:* groups come in the order of their first series, members of a group are added in the order of series. A
//! group's name is to be removed if that of one of its members is.
//!
//! *Not here:* aggregations that choose among series (`ranking`).

use super::apart::Apart;
use super::evaluator::Evaluator;
use super::notes::{self, Doing};
use super::running::{self, Sum};
use super::value::{Sample, Samples, Series};
use crate::model::{Histogram, Labels, METRIC_NAME, StepGrid};
use crate::promql::ast::{Aggregate, AggregateOp, Expr, ExprId};
use crate::promql::exec::error::Error;
use crate::promql::position::Span;

/// The labels of a series' group.
pub(super) fn group_labels(aggregate: &Aggregate, labels: &Labels) -> Labels {
    let named = |name: &str| aggregate.grouping.iter().any(|l| **l == *name);
    let keep = |name: &str| if aggregate.without { !named(name) && name != METRIC_NAME } else { named(name) };
    labels.to_builder().retain(keep).build()
}

/// Groups and, in the order of series, their members.
pub(super) fn groups<'s>(aggregate: &Aggregate, series: &'s [Series]) -> Vec<(Labels, Vec<&'s Series>)> {
    let mut out: Vec<(Labels, Vec<&Series>)> = Vec::new();
    for s in series {
        let labels = group_labels(aggregate, &s.labels);
        match out.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, members)) => members.push(s),
            None => out.push((labels, vec![s])),
        }
    }
    out
}

/// The samples of a group at one step.
struct Members<'s> {
    floats: Vec<f64>,
    /// With the metric each belongs to.
    histograms: Vec<(&'s str, &'s Histogram)>,
    /// How many floats come before each of them.
    floats_before: Vec<usize>,
}

impl Members<'_> {
    /// Whether floats and histograms are found to be mixed: nothing behind buckets that do not fit is looked at.
    fn mixed(&self) -> bool {
        let Some((_, first)) = self.histograms.first() else { return false };
        let misfit = self.histograms.iter().position(|(_, h)| h.is_custom() != first.is_custom());
        misfit.map_or(self.floats.len(), |at| self.floats_before[at]) > 0
    }
}

/// Where native histograms are added up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Summed {
    /// In a group of an aggregation.
    Group,
    /// In a group with floats, of which nothing will come.
    MixedGroup,
    /// Over time.
    Window,
}

impl Evaluator<'_> {
    /// An aggregation on each step.
    pub fn aggregate(&mut self, id: ExprId, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let ast = self.ast;
        let Expr::Aggregate(aggregate) = ast.expr(id) else { return Err(Error::query("BUG: not an aggregation")) };
        if let Some(param) = aggregate.param {
            return self.ranking(aggregate, param, ast.span(id), grid);
        }
        let input = self.vector(aggregate.expr, grid)?;
        let span = ast.span(ast.unwrap_parens(aggregate.expr));
        let mut out = Vec::new();
        for (labels, mut members) in groups(aggregate, &input) {
            if matches!(aggregate.op, AggregateOp::Sum | AggregateOp::Avg) {
                // Sums are taken in this order, so that nothing below them changes their last bit.
                members.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            let mut samples = Samples::new();
            for t in grid.iter() {
                let found = self.aggregate_step(aggregate.op, span, &members, t);
                samples.extend(found.map(|sample| (t, sample)));
            }
            let dropped = members.iter().any(|s| s.dropped);
            if !samples.is_empty() {
                out.push(Series { labels, dropped, samples });
            }
        }
        Ok(out)
    }

    fn aggregate_step(&mut self, op: AggregateOp, span: Span, members: &[&Series], t: i64) -> Option<Sample> {
        let mut present = Members { floats: Vec::new(), histograms: Vec::new(), floats_before: Vec::new() };
        for s in members {
            match s.samples.get(&t) {
                Some(Sample::Float(v)) => present.floats.push(*v),
                Some(Sample::Histogram(h)) => {
                    present.histograms.push((s.labels.metric(), h));
                    present.floats_before.push(present.floats.len());
                }
                None => {}
            }
        }
        let (floats, histograms) = (&present.floats, &present.histograms);
        let count = floats.len() + histograms.len();
        if count == 0 {
            return None;
        }
        match op {
            AggregateOp::Count => return Some(Sample::Float(count as f64)),
            AggregateOp::Group => return Some(Sample::Float(1.0)),
            AggregateOp::Sum | AggregateOp::Avg if !histograms.is_empty() => {
                // In the order of the series: behind floats histograms are not added, and buckets that do not fit end all.
                let of = if present.mixed() { Summed::MixedGroup } else { Summed::Group };
                let behind_floats = present.floats_before[0] > 0;
                let sum = (!behind_floats)
                    .then(|| self.sum_of_histograms(histograms, op == AggregateOp::Avg, of, span))
                    .flatten();
                if present.mixed() {
                    self.notes.warning(span, notes::FLOATS_AND_HISTOGRAMS_AGGREGATED);
                    return None;
                }
                return sum;
            }
            _ => {}
        }
        if !histograms.is_empty() {
            self.notes.info(span, notes::ignored_in_aggregation(op.as_str()));
        }
        (!floats.is_empty()).then(|| Sample::Float(float_aggregate(op, floats)))
    }

    /// The sum or average of native histograms, with what is to be said about it; `None` where they do not go together.
    pub fn sum_of_histograms(
        &mut self,
        histograms: &[(&str, &Histogram)],
        average: bool,
        of: Summed,
        span: Span,
    ) -> Option<Sample> {
        let (_, first) = histograms.first()?;
        let has = |hint| histograms.iter().any(|(_, h)| h.reset_hint == hint);
        let clash = has(crate::model::ResetHint::Reset) && has(crate::model::ResetHint::NotReset);
        let (mut sum, mut reconciled) = (Apart::of(first), false);
        let mut moving: Option<Apart> = None;
        for (i, (metric, h)) in histograms.iter().enumerate().skip(1) {
            let count = (i + 1) as f64;
            let added = match &mut moving {
                None => {
                    let mut next = sum.clone();
                    let added = next.add(h, 1.0);
                    if !(average && next.overflows()) {
                        sum = next;
                        added
                    } else {
                        let mut mean = sum.clone();
                        mean.scale(|v| v / (count - 1.0));
                        let added = add_to_mean(&mut mean, h, count);
                        moving = Some(mean);
                        added
                    }
                }
                Some(mean) => add_to_mean(mean, h, count),
            };
            let Ok(noticed) = added else {
                if reconciled && of != Summed::Window {
                    self.notes.info(span, notes::bounds_reconciled(Doing::Aggregation));
                }
                self.notes.warning(span, notes::exponential_and_custom(metric));
                return None;
            };
            reconciled |= noticed.bounds_reconciled;
        }
        if reconciled {
            self.notes.info(span, notes::bounds_reconciled(Doing::Aggregation));
        }
        if clash && of != Summed::MixedGroup {
            self.notes.warning(span, notes::conflicting_resets(Doing::Aggregation));
        }
        if let Some(mean) = moving {
            return Some(Sample::Histogram(mean.whole().into()));
        }
        if average {
            sum.scale(|v| v / histograms.len() as f64);
        }
        Some(Sample::Histogram(sum.whole().into()))
    }
}

/// Moves a mean by its `count`-th histogram.
fn add_to_mean(
    mean: &mut Apart,
    h: &Histogram,
    count: f64,
) -> Result<super::apart::Noticed, super::apart::Incompatible> {
    mean.scale(|v| v * ((count - 1.0) / count));
    let mut part = Apart::of(h);
    part.scale(|v| v / count);
    mean.add(&part.whole(), 1.0)
}

/// An aggregation of floats, of which there is one at least.
fn float_aggregate(op: AggregateOp, values: &[f64]) -> f64 {
    // Any number replaces NaN.
    let extreme = |better: fn(f64, f64) -> bool| {
        values.iter().skip(1).fold(values[0], |best, v| if better(*v, best) || best.is_nan() { *v } else { best })
    };
    match op {
        AggregateOp::Avg => running::mean(values),
        AggregateOp::Min => extreme(|v, best| v < best),
        AggregateOp::Max => extreme(|v, best| v > best),
        AggregateOp::Stdvar => variance(values),
        AggregateOp::Stddev => variance(values).sqrt(),
        _ => values[1..].iter().fold(Sum { value: values[0], lost: 0.0 }, |sum, v| sum.add(*v)).total(),
    }
}

/// The variance by Welford; other than over time without compensation.
fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (values[0], if values[0].is_finite() { 0.0 } else { f64::NAN });
    for (i, v) in values.iter().enumerate().skip(1) {
        let delta = v - mean;
        mean += delta / (i + 1) as f64;
        squares += delta * (v - mean);
    }
    squares / values.len() as f64
}
