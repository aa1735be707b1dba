//! Arithmetic on native histograms.
//!
//! *Invariants:* results are float histograms: counts need not be whole. Exponential histograms of different resolution
//! meet at the lower one, zero buckets at the wider one, custom buckets at the bounds both have.
//!
//! *Not here:* what a histogram is (`model::histogram`), classic buckets (`functions::quantile`). Quantiles, fractions
//! and trimming come with the native histogram functions.

use std::collections::BTreeMap;

use crate::model::{Histogram, ResetHint, Span};

/// Exponential and custom buckets cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncompatibleSchemas;

/// Two histograms combined.
#[derive(Debug, Clone, PartialEq)]
pub struct Combined {
    /// The outcome, compact.
    pub histogram: Histogram,
    /// One operand is known to be a reset and the other known not to be.
    pub hints_clash: bool,
    /// Custom bounds differed and were cut down to the common ones.
    pub bounds_reconciled: bool,
}

/// `a + b`.
pub fn add(a: &Histogram, b: &Histogram) -> Result<Combined, IncompatibleSchemas> {
    combine(a, b, 1.0)
}

/// `a - b`; the outcome's hint is left to the caller.
pub fn sub(a: &Histogram, b: &Histogram) -> Result<Combined, IncompatibleSchemas> {
    combine(a, b, -1.0)
}

/// The histogram with all counts and the sum multiplied; a negative factor makes it a gauge.
pub fn scaled(h: &Histogram, factor: f64) -> Histogram {
    mapped(h, |v| v * factor, factor < 0.0)
}

/// The histogram with all counts and the sum divided; a negative divisor makes it a gauge.
pub fn divided(h: &Histogram, by: f64) -> Histogram {
    if by == 0.0 {
        // Only count, sum and zero bucket can say "infinite" or "undefined" about themselves.
        let bare = Histogram { positive: Vec::new(), negative: Vec::new(), ..h.clone() };
        let bare = Histogram { positive_spans: Vec::new(), negative_spans: Vec::new(), ..bare };
        return mapped(&bare, |v| v / by, false);
    }
    mapped(h, |v| v / by, by < 0.0)
}

fn mapped(h: &Histogram, f: impl Fn(f64) -> f64, to_gauge: bool) -> Histogram {
    let all = |counts: &[f64]| counts.iter().map(|c| f(*c)).collect();
    Histogram {
        integer: false,
        reset_hint: if to_gauge { ResetHint::Gauge } else { h.reset_hint },
        zero_count: f(h.zero_count),
        count: f(h.count),
        sum: f(h.sum),
        positive: all(&h.positive),
        negative: all(&h.negative),
        ..h.clone()
    }
}

/// Counts by bucket index.
type Buckets = BTreeMap<i32, f64>;

fn buckets(spans: &[Span], counts: &[f64]) -> Buckets {
    let (mut out, mut at, mut counts) = (Buckets::new(), 0i32, counts.iter());
    for span in spans {
        at = at.saturating_add(span.offset);
        for count in counts.by_ref().take(span.length as usize) {
            out.insert(at, *count);
            at = at.saturating_add(1);
        }
    }
    out
}

/// Spans and counts without empty buckets.
fn compact(buckets: &Buckets) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut counts, mut next) = (Vec::<Span>::new(), Vec::new(), 0i32);
    for (&at, &count) in buckets.iter().filter(|(_, c)| **c != 0.0) {
        match spans.last_mut() {
            Some(span) if at == next => span.length += 1,
            _ => spans.push(Span { offset: at - next, length: 1 }),
        }
        counts.push(count);
        next = at + 1;
    }
    (spans, counts)
}

/// The histogram without empty buckets.
pub fn compacted(h: &Histogram) -> Histogram {
    let (positive_spans, positive) = compact(&buckets(&h.positive_spans, &h.positive));
    let (negative_spans, negative) = compact(&buckets(&h.negative_spans, &h.negative));
    Histogram { positive_spans, positive, negative_spans, negative, ..h.clone() }
}

/// Merges the buckets of a finer schema into those of one `by` steps coarser.
fn coarser(from: Buckets, by: u32) -> Buckets {
    if by == 0 {
        return from;
    }
    let mut out = Buckets::new();
    for (at, count) in from {
        *out.entry(((at - 1) >> by) + 1).or_default() += count;
    }
    out
}

/// Upper bound of an exponential bucket.
pub fn upper_bound(schema: i32, index: i32) -> f64 {
    // 2^(index · 2^-schema), split so that exponents stay exact.
    if schema < 0 {
        return 2f64.powi(index.saturating_mul(1 << -schema));
    }
    let per_octave = 1i32 << schema;
    let (octave, part) = (index.div_euclid(per_octave), index.rem_euclid(per_octave));
    2f64.powi(octave) * 2f64.powf(f64::from(part) / f64::from(per_octave))
}

/// An exponential histogram taken apart.
struct Exponential {
    schema: i32,
    zero_threshold: f64,
    zero_count: f64,
    positive: Buckets,
    negative: Buckets,
}

impl Exponential {
    fn of(h: &Histogram) -> Self {
        Self {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count,
            positive: buckets(&h.positive_spans, &h.positive),
            negative: buckets(&h.negative_spans, &h.negative),
        }
    }

    fn reduce_to(&mut self, schema: i32) {
        let by = (self.schema - schema).max(0) as u32;
        self.positive = coarser(std::mem::take(&mut self.positive), by);
        self.negative = coarser(std::mem::take(&mut self.negative), by);
        self.schema = self.schema.min(schema);
    }

    /// Widens the zero bucket to at least `threshold`; a populated bucket that straddles it is taken in whole.
    fn widen_zero(&mut self, threshold: f64) {
        let mut wide = threshold.max(self.zero_threshold);
        for side in [&mut self.positive, &mut self.negative] {
            side.retain(|at, count| {
                let inside = upper_bound(self.schema, at.saturating_sub(1)) < wide;
                if inside {
                    self.zero_count += *count;
                    if *count != 0.0 {
                        wide = wide.max(upper_bound(self.schema, *at));
                    }
                }
                !inside
            });
        }
        self.zero_threshold = wide;
    }
}

fn combine(a: &Histogram, b: &Histogram, sign: f64) -> Result<Combined, IncompatibleSchemas> {
    if a.is_custom() != b.is_custom() {
        return Err(IncompatibleSchemas);
    }
    let hints_clash = matches!(
        (a.reset_hint, b.reset_hint),
        (ResetHint::Reset, ResetHint::NotReset) | (ResetHint::NotReset, ResetHint::Reset)
    );
    let mut out = Histogram {
        reset_hint: combined_hint(a.reset_hint, b.reset_hint),
        count: a.count + sign * b.count,
        sum: a.sum + sign * b.sum,
        ..Histogram::default()
    };
    let mut bounds_reconciled = false;
    if a.is_custom() {
        bounds_reconciled = a.custom_values != b.custom_values;
        combine_custom(a, b, sign, &mut out);
    } else {
        let (mut x, mut y) = (Exponential::of(a), Exponential::of(b));
        let schema = a.schema.min(b.schema);
        x.reduce_to(schema);
        y.reduce_to(schema);
        while x.zero_threshold != y.zero_threshold {
            let wide = x.zero_threshold.max(y.zero_threshold);
            x.widen_zero(wide);
            y.widen_zero(wide);
        }
        merge(&mut x.positive, &y.positive, sign);
        merge(&mut x.negative, &y.negative, sign);
        (out.schema, out.zero_threshold) = (schema, x.zero_threshold);
        out.zero_count = x.zero_count + sign * y.zero_count;
        (out.positive_spans, out.positive) = compact(&x.positive);
        (out.negative_spans, out.negative) = compact(&x.negative);
    }
    Ok(Combined { histogram: out, hints_clash, bounds_reconciled })
}

fn merge(into: &mut Buckets, from: &Buckets, sign: f64) {
    for (at, count) in from {
        *into.entry(*at).or_default() += sign * count;
    }
}

/// What is known of a reset in a sum.
fn combined_hint(a: ResetHint, b: ResetHint) -> ResetHint {
    match (a, b) {
        _ if a == b => a,
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

fn combine_custom(a: &Histogram, b: &Histogram, sign: f64, out: &mut Histogram) {
    out.schema = a.schema;
    let bounds: Vec<f64> = if a.custom_values == b.custom_values {
        a.custom_values.clone()
    } else {
        a.custom_values.iter().copied().filter(|v| b.custom_values.contains(v)).collect()
    };
    let mut total = Buckets::new();
    for (h, sign) in [(a, 1.0), (b, sign)] {
        for (at, count) in buckets(&h.positive_spans, &h.positive) {
            let upper = h.custom_values.get(at.max(0) as usize).copied().unwrap_or(f64::INFINITY);
            let to = bounds.partition_point(|bound| *bound < upper) as i32;
            *total.entry(to).or_default() += sign * count;
        }
    }
    (out.positive_spans, out.positive) = compact(&total);
    out.custom_values = bounds;
}

/// Whether a counter histogram began anew between `before` and `h`.
pub fn detect_reset(h: &Histogram, before: &Histogram) -> bool {
    match h.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset | ResetHint::Gauge => return false,
        ResetHint::Unknown => {}
    }
    if before.reset_hint == ResetHint::Gauge || h.is_custom() != before.is_custom() || h.count < before.count {
        return h.reset_hint != before.reset_hint || h.is_custom() != before.is_custom() || h.count < before.count;
    }
    if h.is_custom() {
        return h.custom_values == before.custom_values
            && shrank(&buckets(&h.positive_spans, &h.positive), &buckets(&before.positive_spans, &before.positive));
    }
    if h.schema > before.schema || h.zero_threshold < before.zero_threshold {
        return true;
    }
    let (now, mut then) = (Exponential::of(h), Exponential::of(before));
    then.reduce_to(h.schema);
    then.widen_zero(h.zero_threshold);
    then.zero_threshold > now.zero_threshold
        || now.zero_count < then.zero_count
        || shrank(&now.positive, &then.positive)
        || shrank(&now.negative, &then.negative)
}

fn shrank(now: &Buckets, then: &Buckets) -> bool {
    then.iter().any(|(at, count)| now.get(at).copied().unwrap_or(0.0) < *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: i32, offset: i32, counts: &[f64]) -> Histogram {
        Histogram {
            schema,
            count: counts.iter().sum(),
            positive: counts.to_vec(),
            positive_spans: vec![Span { offset, length: counts.len() as u32 }],
            ..Histogram::default()
        }
    }

    #[test]
    fn meets_at_the_lower_resolution() {
        let sum = add(&of(1, 1, &[1.0, 2.0, 3.0, 4.0]), &of(0, 1, &[10.0, 20.0])).unwrap().histogram;
        assert_eq!((sum.schema, sum.positive), (0, vec![13.0, 27.0]));
        let none = sub(&of(0, 1, &[1.0]), &of(0, 1, &[1.0])).unwrap().histogram;
        assert!(none.positive_spans.is_empty());
    }

    #[test]
    fn a_smaller_bucket_is_a_reset() {
        assert!(detect_reset(&of(0, 1, &[1.0, 5.0]), &of(0, 1, &[2.0, 3.0])));
        assert!(!detect_reset(&of(0, 1, &[2.0, 5.0]), &of(0, 1, &[2.0, 3.0])));
        assert!(!detect_reset(&of(0, 1, &[2.0, 5.0]), &of(1, 1, &[1.0, 1.0, 2.0, 3.0])));
    }
}
