//! Aggregations with a parameter: `topk bottomk limitk limit_ratio quantile count_values`.
//!
//! *Invariants:* the parameter may differ from step to step. Which of equal values `topk` keeps is decided as by the heap
//! Prometheus uses, given the same order of series.
//!
//! *Not here:* plain aggregations (`aggregate`).

use std::collections::BTreeMap;

use xxhash_rust::xxh64::xxh64;

use super::aggregate::{group_labels, groups};
use super::evaluator::Evaluator;
use super::value::{self, Element, Sample, Samples, Series};
use super::{notes, running};
use crate::model::number::{format_f, format_g};
use crate::model::{Labels, StepGrid};
use crate::promql::ast::{Aggregate, AggregateOp, ExprId};
use crate::promql::exec::error::Error;
use crate::promql::histogram;
use crate::promql::position::Span;

impl Evaluator<'_> {
    pub(super) fn ranking(
        &mut self,
        aggregate: &Aggregate,
        param: ExprId,
        span: Span,
        grid: StepGrid,
    ) -> Result<Vec<Series>, Error> {
        if aggregate.op == AggregateOp::CountValues {
            return self.count_values(aggregate, param, grid);
        }
        let params = self.scalar(param, grid)?;
        let input = self.vector(aggregate.expr, grid)?;
        let param_span = self.ast.span(self.ast.unwrap_parens(param));
        if aggregate.op == AggregateOp::Quantile {
            return Ok(self.quantiles(aggregate, &params, param_span, &input));
        }
        if !self.check_param(aggregate.op, &params, param_span)? {
            return Ok(Vec::new());
        }
        let most = input.len();
        let mut steps = Vec::new();
        for (t, param) in params {
            let mut out = Vec::new();
            for (labels, _) in groups(aggregate, &input) {
                let mut members = value::at(&input, t);
                members.retain(|e| group_labels(aggregate, &e.labels) == labels);
                out.extend(self.choose(aggregate.op, members, param, most, span));
            }
            steps.push((t, out));
        }
        self.collect(steps)
    }

    /// Checks the parameters of all steps; `false` when nothing can be chosen on any.
    fn check_param(&mut self, op: AggregateOp, params: &BTreeMap<i64, f64>, span: Span) -> Result<bool, Error> {
        let any_nan = params.values().any(|v| v.is_nan());
        let max = params.values().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = params.values().copied().fold(f64::INFINITY, f64::min);
        if op == AggregateOp::LimitRatio {
            if any_nan {
                return Err(Error::query("Ratio value is NaN"));
            }
            if max > 1.0 {
                self.notes.warning(span, notes::bad_ratio(max, 1.0));
            }
            if min < -1.0 {
                self.notes.warning(span, notes::bad_ratio(min, -1.0));
            }
            return Ok(max != 0.0 || min != 0.0);
        }
        if any_nan {
            return Err(Error::query("Parameter value is NaN"));
        }
        if max < 1.0 {
            return Ok(false);
        }
        if min <= i64::MIN as f64 {
            return Err(Error::query(format!("Scalar value {} underflows int64", format_g(min))));
        }
        if max >= i64::MAX as f64 {
            return Err(Error::query(format!("Scalar value {} overflows int64", format_g(max))));
        }
        Ok(true)
    }

    /// The chosen ones of a group at one step.
    fn choose(&mut self, op: AggregateOp, members: Vec<Element>, param: f64, most: usize, span: Span) -> Vec<Element> {
        let k = (param as i64).clamp(0, most as i64) as usize;
        match op {
            AggregateOp::Limitk => members.into_iter().take(k).collect(),
            AggregateOp::LimitRatio => {
                let ratio = param.clamp(-1.0, 1.0);
                members.into_iter().filter(|e| is_in_ratio(ratio, &e.labels)).collect()
            }
            _ if k == 0 => Vec::new(),
            _ => {
                let best_is_greatest = op == AggregateOp::Topk;
                let mut heap = Heap { elements: Vec::new(), best_is_greatest };
                for element in members {
                    match element.sample {
                        Sample::Float(v) => heap.offer(v, element, k),
                        Sample::Histogram(_) => self.notes.info(span, notes::ignored_in_aggregation(op.as_str())),
                    }
                }
                heap.best_first()
            }
        }
    }

    fn quantiles(
        &mut self,
        aggregate: &Aggregate,
        params: &BTreeMap<i64, f64>,
        param_span: Span,
        input: &[Series],
    ) -> Vec<Series> {
        let span = self.ast.span(self.ast.unwrap_parens(aggregate.expr));
        let bad = match params.values().any(|q| q.is_nan()) {
            true => vec![f64::NAN],
            false => {
                let max = params.values().copied().fold(0.0, f64::max);
                let min = params.values().copied().fold(1.0, f64::min);
                [(max, max > 1.0), (min, min < 0.0)].into_iter().filter(|(_, bad)| *bad).map(|(q, _)| q).collect()
            }
        };
        for q in bad {
            self.notes.warning(param_span, notes::bad_quantile(q));
        }
        let mut out = Vec::new();
        for (labels, members) in groups(aggregate, input) {
            let mut samples = Samples::new();
            for (t, q) in params {
                let mut values = Vec::new();
                for sample in members.iter().filter_map(|s| s.samples.get(t)) {
                    match sample {
                        Sample::Float(v) => values.push(*v),
                        Sample::Histogram(_) => self.notes.info(span, notes::ignored_in_aggregation("quantile")),
                    }
                }
                if !values.is_empty() {
                    samples.insert(*t, Sample::Float(running::quantile(*q, &values)));
                }
            }
            let dropped = members.iter().any(|s| s.dropped);
            if !samples.is_empty() {
                out.push(Series { labels, dropped, samples });
            }
        }
        out
    }

    /// One series for each value of a group, counting the members that have it.
    fn count_values(&mut self, aggregate: &Aggregate, param: ExprId, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let bytes = self.text(param, grid)?;
        let label = match std::str::from_utf8(&bytes) {
            Ok(label) if !label.is_empty() => label.to_owned(),
            _ => return Err(Error::query(format!("invalid label name {}", quoted(&bytes)))),
        };
        let input = self.vector(aggregate.expr, grid)?;
        let mut by_value = aggregate.clone();
        if !aggregate.without {
            by_value.grouping.push(label.as_str().into());
        }
        let mut steps = Vec::new();
        for t in grid.iter() {
            let mut counts: Vec<(Labels, f64, usize)> = Vec::new();
            for element in value::at(&input, t) {
                let text = match &element.sample {
                    Sample::Float(v) => format_f(*v),
                    Sample::Histogram(h) => histogram::text(h),
                };
                let labels = group_labels(&by_value, &element.labels.to_builder().set(&label, &text).build());
                match counts.iter_mut().find(|(known, ..)| *known == labels) {
                    Some((_, count, _)) => *count += 1.0,
                    None => counts.push((labels, 1.0, element.from)),
                }
            }
            let element =
                |(labels, count, from)| Element { labels, dropped: false, sample: Sample::Float(count), from };
            steps.push((t, counts.into_iter().map(element).collect()));
        }
        self.collect(steps)
    }
}

/// The best elements so far, in a binary heap with the worst in front.
struct Heap {
    elements: Vec<(f64, Element)>,
    best_is_greatest: bool,
}

impl Heap {
    /// Whether one is worse than another; NaN is worse than anything, itself included.
    fn is_worse(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if self.best_is_greatest { a < b } else { a > b }
    }

    fn offer(&mut self, v: f64, element: Element, k: usize) {
        if self.elements.len() < k {
            self.elements.push((v, element));
            self.rise(self.elements.len() - 1);
            return;
        }
        let worst = self.elements[0].0;
        let beats = if self.best_is_greatest { worst < v } else { worst > v };
        if beats || (worst.is_nan() && !v.is_nan()) {
            self.elements[0] = (v, element);
            self.sink(0);
        }
    }

    fn rise(&mut self, at: usize) {
        let parent = at.saturating_sub(1) / 2;
        if at != parent && self.is_worse(self.elements[at].0, self.elements[parent].0) {
            self.elements.swap(at, parent);
            self.rise(parent);
        }
    }

    fn sink(&mut self, at: usize) {
        let value = |i: usize| self.elements.get(i).map(|e| e.0);
        let (Some(own), Some(left)) = (value(at), value(2 * at + 1)) else { return };
        let right_is_worse = value(2 * at + 2).is_some_and(|right| self.is_worse(right, left));
        let child = 2 * at + 1 + usize::from(right_is_worse);
        if self.is_worse(self.elements[child].0, own) {
            self.elements.swap(at, child);
            self.sink(child);
        }
    }

    /// Best first, NaN last; equal ones in the order of the heap.
    fn best_first(mut self) -> Vec<Element> {
        let greatest = self.best_is_greatest;
        self.elements.sort_by(|(a, _), (b, _)| best_first(*a, *b, greatest));
        self.elements.into_iter().map(|(_, element)| element).collect()
    }
}

/// The order of `sort_desc` (greatest first) or `sort`: NaN last either way.
pub(super) fn best_first(a: f64, b: f64, greatest: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering as O;
    let order = if greatest { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
    order.unwrap_or(match (a.is_nan(), b.is_nan()) {
        (true, false) => O::Greater,
        (false, true) => O::Less,
        _ => O::Equal,
    })
}

/// Whether `limit_ratio` takes a series: a hash of its labels lies in the first (or, with a negative ratio, last) part.
fn is_in_ratio(ratio: f64, labels: &Labels) -> bool {
    let mut bytes = Vec::new();
    for part in labels.iter().flat_map(|(name, value)| [name, value]) {
        // Prometheus' own encoding of label sets.
        match part.len() {
            len @ 0..0xff => bytes.push(len as u8),
            len => bytes.extend([0xff, len as u8, (len >> 8) as u8, (len >> 16) as u8]),
        }
        bytes.extend(part.as_bytes());
    }
    let place = xxh64(&bytes, 0) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio }
}

/// Bytes in quotes, the unprintable ones escaped.
fn quoted(bytes: &[u8]) -> String {
    let escaped = |b: &u8| match b {
        b'"' | b'\\' => format!("\\{}", *b as char),
        0x20..0x7f => (*b as char).to_string(),
        _ => format!("\\x{b:02x}"),
    };
    format!("\"{}\"", bytes.iter().map(escaped).collect::<String>())
}
