//! A native histogram taken apart, to be added to and subtracted from.
//!
//! *Invariants:* every count is a [`Sum`], so that long sums lose no low bits and short ones are what plain addition
//! gives. Exponential histograms meet at the coarser schema and at the wider zero bucket, custom ones at the bounds both
//! have.
//!
//! *Not here:* what is said about it (`notes`), quantiles (`native`).

use std::collections::BTreeMap;

use super::running::Sum;
use crate::model::buckets::exponential_bound;
use crate::model::{Histogram, ResetHint, Span};

/// Counts by bucket index.
type Cells = BTreeMap<i32, Sum>;

/// A histogram taken apart.
#[derive(Debug, Clone)]
pub(super) struct Apart {
    pub hint: ResetHint,
    schema: i32,
    bounds: Vec<f64>,
    zero_threshold: f64,
    zero: Sum,
    count: Sum,
    sum: Sum,
    positive: Cells,
    negative: Cells,
}

/// What was noticed when two histograms were put together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Noticed {
    /// One is known to begin anew, the other known not to.
    pub hints_clash: bool,
    /// Custom bounds differed.
    pub bounds_reconciled: bool,
}

/// One has exponential buckets, the other custom ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Incompatible;

impl Apart {
    pub fn of(h: &Histogram) -> Self {
        Self {
            hint: h.reset_hint,
            schema: h.schema,
            bounds: h.custom_values.clone(),
            zero_threshold: h.zero_threshold,
            zero: exact(h.zero_count),
            count: exact(h.count),
            sum: exact(h.sum),
            positive: cells(&h.positive_spans, &h.positive),
            negative: cells(&h.negative_spans, &h.negative),
        }
    }

    /// The histogram put together again, without empty buckets.
    pub fn whole(&self) -> Histogram {
        let (positive_spans, positive) = spans(&self.positive);
        let (negative_spans, negative) = spans(&self.negative);
        Histogram {
            integer: false,
            schema: self.schema,
            reset_hint: self.hint,
            zero_threshold: self.zero_threshold,
            zero_count: total(&self.zero),
            count: total(&self.count),
            sum: total(&self.sum),
            positive_spans,
            positive,
            negative_spans,
            negative,
            custom_values: self.bounds.clone(),
        }
    }

    fn is_custom(&self) -> bool {
        self.schema == crate::model::histogram::CUSTOM_BUCKETS_SCHEMA
    }

    /// Adds `other`, multiplied by `sign`.
    pub fn add(&mut self, other: &Histogram, sign: f64) -> Result<Noticed, Incompatible> {
        let mut other = Self::of(other);
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let noticed =
            Noticed { hints_clash: self.meet_hint(other.hint), bounds_reconciled: self.bounds != other.bounds };
        if self.is_custom() {
            let both: Vec<f64> = self.bounds.iter().copied().filter(|b| other.bounds.contains(b)).collect();
            self.narrow(&both);
            other.narrow(&both);
        } else {
            while self.zero_threshold != other.zero_threshold {
                let wide = self.zero_threshold.max(other.zero_threshold);
                self.widen_zero(wide);
                other.widen_zero(wide);
            }
            let schema = self.schema.min(other.schema);
            self.coarsen(schema);
            other.coarsen(schema);
        }
        let put =
            |cell: &mut Sum, from: Sum| *cell = merged(*cell, Sum { value: sign * from.value, lost: sign * from.lost });
        put(&mut self.zero, other.zero);
        put(&mut self.count, other.count);
        put(&mut self.sum, other.sum);
        for (into, from) in [(&mut self.positive, other.positive), (&mut self.negative, other.negative)] {
            from.into_iter().for_each(|(i, cell)| put(into.entry(i).or_default(), cell));
        }
        Ok(noticed)
    }

    /// What is known of resets of two histograms together; `true` when they contradict each other.
    fn meet_hint(&mut self, other: ResetHint) -> bool {
        use ResetHint as R;
        let (hint, clash) = match (self.hint, other) {
            (a, b) if a == b => (a, false),
            (R::Gauge, _) | (_, R::Gauge) => (R::Gauge, false),
            (R::Unknown, _) | (_, R::Unknown) => (R::Unknown, false),
            _ => (R::Unknown, true),
        };
        self.hint = hint;
        clash
    }

    /// Multiplies everything; a negative factor makes it a gauge.
    pub fn scale(&mut self, f: impl Fn(f64) -> f64) {
        let apply = |cell: &mut Sum| *cell = Sum { value: f(cell.value), lost: f(cell.lost) };
        [&mut self.zero, &mut self.count, &mut self.sum].into_iter().for_each(apply);
        self.positive.values_mut().chain(self.negative.values_mut()).for_each(apply);
    }

    /// Whether anything exceeds the range of floats.
    pub fn overflows(&self) -> bool {
        let buckets = self.positive.values().chain(self.negative.values());
        [&self.zero, &self.count, &self.sum].into_iter().chain(buckets).any(|c| c.value.is_infinite())
    }

    /// Merges buckets down to a coarser schema.
    pub fn coarsen(&mut self, schema: i32) {
        let by = (self.schema - schema).max(0);
        for side in [&mut self.positive, &mut self.negative] {
            for (i, cell) in std::mem::take(side) {
                let into = side.entry(((i - 1) >> by) + 1).or_default();
                *into = merged(*into, cell);
            }
        }
        self.schema -= by;
    }

    /// Keeps only some of the custom bounds.
    fn narrow(&mut self, bounds: &[f64]) {
        for (i, cell) in std::mem::take(&mut self.positive) {
            let upper = self.bounds.get(i as usize).copied().unwrap_or(f64::INFINITY);
            let to = bounds.iter().position(|b| *b >= upper).unwrap_or(bounds.len());
            let into = self.positive.entry(to as i32).or_default();
            *into = merged(*into, cell);
        }
        self.bounds = bounds.to_vec();
    }

    /// The least zero threshold from `threshold` on that no bucket with observations lies across.
    fn clear_threshold(&self, threshold: f64) -> f64 {
        let mut clear = threshold;
        loop {
            let across = |(i, cell): (&i32, &Sum)| {
                let (lower, upper) = (exponential_bound(i - 1, self.schema), exponential_bound(*i, self.schema));
                (cell.total() != 0.0 && lower < clear && upper > clear).then_some(upper)
            };
            let found = self.positive.iter().chain(&self.negative).find_map(across);
            match found {
                Some(upper) => clear = upper,
                None => return clear,
            }
        }
    }

    /// Widens the zero bucket, which takes in the buckets below its new threshold.
    fn widen_zero(&mut self, threshold: f64) {
        if threshold <= self.zero_threshold {
            return;
        }
        self.zero_threshold = self.clear_threshold(threshold);
        for side in [&mut self.positive, &mut self.negative] {
            for (i, cell) in std::mem::take(side) {
                if exponential_bound(i - 1, self.schema) < self.zero_threshold {
                    self.zero = merged(self.zero, cell);
                } else {
                    side.insert(i, cell);
                }
            }
        }
    }
}

/// Whether a counter began anew between `before` and `h`.
pub(super) fn is_reset(h: &Histogram, before: &Histogram) -> bool {
    match h.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        // A gauge should not be here; if it is, its counts are looked at.
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    if h.count < before.count || h.is_custom() != before.is_custom() {
        return true;
    }
    let (mut now, mut then) = (Apart::of(h), Apart::of(before));
    if now.is_custom() {
        let both: Vec<f64> = now.bounds.iter().copied().filter(|b| then.bounds.contains(b)).collect();
        now.narrow(&both);
        then.narrow(&both);
        return shrank(&now.positive, &then.positive);
    }
    if h.schema > before.schema || h.zero_threshold < before.zero_threshold {
        return true;
    }
    then.widen_zero(h.zero_threshold);
    then.coarsen(h.schema);
    then.zero_threshold != now.zero_threshold
        || now.zero.total() < then.zero.total()
        || shrank(&now.positive, &then.positive)
        || shrank(&now.negative, &then.negative)
}

/// Whether any bucket has become smaller, or is gone although there was something in it.
fn shrank(now: &Cells, then: &Cells) -> bool {
    then.iter().any(|(i, cell)| now.get(i).map_or(cell.total() != 0.0, |now| now.total() < cell.total()))
}

/// The total; what was never added to keeps the sign of its zero.
fn total(sum: &Sum) -> f64 {
    if sum.lost == 0.0 { sum.value } else { sum.total() }
}

fn exact(value: f64) -> Sum {
    Sum { value, lost: 0.0 }
}

fn merged(into: Sum, from: Sum) -> Sum {
    let sum = into.add(from.value);
    Sum { lost: sum.lost + from.lost, ..sum }
}

fn cells(spans: &[Span], counts: &[f64]) -> Cells {
    let (mut out, mut i, mut counts) = (Cells::new(), 0, counts.iter());
    for span in spans {
        i += span.offset;
        for count in counts.by_ref().take(span.length as usize) {
            out.insert(i, exact(*count));
            i += 1;
        }
    }
    out
}

fn spans(cells: &Cells) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut counts, mut next) = (Vec::<Span>::new(), Vec::new(), 0);
    for (i, cell) in cells.iter().filter(|(_, cell)| cell.total() != 0.0) {
        match spans.last_mut() {
            Some(span) if *i == next => span.length += 1,
            _ => spans.push(Span { offset: i - next, length: 1 }),
        }
        counts.push(total(cell));
        next = i + 1;
    }
    (spans, counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: i32, zero_threshold: f64, counts: &[f64]) -> Histogram {
        Histogram {
            schema,
            zero_threshold,
            count: counts.iter().sum(),
            positive: counts.to_vec(),
            positive_spans: vec![Span { offset: 1, length: counts.len() as u32 }],
            ..Histogram::default()
        }
    }

    #[test]
    fn meets_at_the_wider_zero_bucket_before_the_coarser_schema() {
        // At schema 0 the bucket across 1.2 would reach up to 2.
        let mut sum = Apart::of(&of(1, 0.0, &[1.0, 2.0, 4.0]));
        sum.add(&of(0, 1.2, &[]), 1.0).unwrap();
        let whole = sum.whole();
        assert_eq!((whole.schema, whole.zero_threshold, whole.zero_count), (0, exponential_bound(1, 1), 1.0));
    }

    #[test]
    fn a_smaller_bucket_is_a_reset() {
        assert!(is_reset(&of(0, 0.0, &[1.0, 9.0]), &of(0, 0.0, &[2.0, 3.0])));
        assert!(!is_reset(&of(0, 0.0, &[2.0, 9.0]), &of(1, 0.0, &[1.0, 1.0, 2.0, 3.0])));
    }
}
