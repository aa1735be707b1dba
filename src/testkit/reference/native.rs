//! Native histograms as numbers: quantiles, fractions and variance.
//!
//! *Invariants:* inside of an exponential bucket observations are spread evenly over the logarithm, inside of a zero or
//! custom bucket over the value itself. Observations of NaN are in the count, in no bucket, and make the sum NaN.
//!
//! *Not here:* sums (`apart`), classic histograms (`classic`).

use std::sync::Arc;

use super::notes;
use super::running::Sum;
use super::value::Sample;
use crate::model::buckets::{Bucket, buckets};
use crate::model::{Histogram, ResetHint, Span};

/// Whether two histograms are the same to the last bit, reset hints aside. Empty buckets count: results of operations
/// have none.
pub(super) fn equal(a: &Histogram, b: &Histogram) -> bool {
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
    let all = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(*a, *b));
    a.schema == b.schema
        && same(a.count, b.count)
        && same(a.sum, b.sum)
        && same(a.zero_threshold, b.zero_threshold)
        && same(a.zero_count, b.zero_count)
        && all(&a.custom_values, &b.custom_values)
        && places(&a.positive_spans) == places(&b.positive_spans)
        && places(&a.negative_spans) == places(&b.negative_spans)
        && all(&a.positive, &b.positive)
        && all(&a.negative, &b.negative)
}

/// The indexes of the buckets that spans name.
fn places(spans: &[Span]) -> Vec<i32> {
    let mut next = 0;
    let of_span = |span: &Span| {
        let first = next + span.offset;
        next = first + span.length as i32;
        first..next
    };
    spans.iter().flat_map(of_span).collect()
}

/// The sample as a subquery hands it on.
pub(super) fn without_reset_hint(sample: Sample) -> Sample {
    match sample {
        Sample::Histogram(h) if matches!(h.reset_hint, ResetHint::Reset | ResetHint::NotReset) => {
            Sample::Histogram(Arc::new(Histogram { reset_hint: ResetHint::Unknown, ..(*h).clone() }))
        }
        sample => sample,
    }
}

/// The buckets, each cut where the zero bucket begins. A zero bucket of less than nothing is none.
fn all_buckets(h: &Histogram) -> Vec<Bucket> {
    let mut all = match h.zero_count > 0.0 {
        true => buckets(h),
        false => buckets(&Histogram { zero_count: 0.0, ..h.clone() }),
    };
    for b in all.iter_mut().filter(|_| !h.is_custom()) {
        if b.lower > 0.0 && b.lower < h.zero_threshold {
            b.lower = h.zero_threshold;
        } else if b.upper < 0.0 && b.upper > -h.zero_threshold {
            b.upper = -h.zero_threshold;
        }
    }
    all
}

/// The buckets, with the one around zero of a one-sided histogram cut at zero.
fn one_sided(h: &Histogram) -> Vec<Bucket> {
    let mut all = all_buckets(h);
    let across = |b: &Bucket| match h.is_custom() {
        true => b.lower <= 0.0 && b.upper >= 0.0,
        false => b.lower < 0.0 && b.upper > 0.0,
    };
    for b in all.iter_mut().filter(|b| across(b)) {
        if h.negative.is_empty() && !h.positive.is_empty() {
            b.lower = 0.0;
        } else if h.positive.is_empty() && !h.negative.is_empty() {
            b.upper = 0.0;
        }
    }
    all
}

/// The `q`-quantile, and what is to be said about it.
pub(super) fn quantile(q: f64, h: &Histogram, metric: &str) -> (f64, Option<String>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    // From the nearer end, which is the more exact; with NaN observations, which come last, from the lower one.
    let from_below = h.sum.is_nan() || q < 0.5;
    let mut all = if h.is_custom() { all_buckets(h) } else { one_sided(h) };
    if !from_below {
        all.reverse();
    }
    let rank = if from_below { q * h.count } else { (1.0 - q) * h.count };
    let mut count = 0.0;
    let nothing = Bucket { lower: 0.0, upper: 0.0, lower_inclusive: true, upper_inclusive: true, count: 0.0 };
    let (mut at, mut bucket) = (0, nothing);
    for (i, b) in all.iter().enumerate() {
        (at, bucket) = (i, *b);
        count += b.count;
        if b.count != 0.0 && count >= rank {
            break;
        }
    }
    if h.is_custom() && bucket.lower == f64::NEG_INFINITY {
        if bucket.upper <= 0.0 {
            return (bucket.upper, None);
        }
        bucket.lower = 0.0;
    } else if h.is_custom() && bucket.upper == f64::INFINITY {
        return (bucket.lower, None);
    }
    count = count.min(h.count);
    if count < rank {
        return match h.sum.is_nan() {
            true => (f64::NAN, Some(notes::quantile_is_nan(metric))),
            false => (bucket.upper, None),
        };
    }
    let inside = if from_below { rank - (count - bucket.count) } else { count - rank };
    let found = all.iter().skip(at + 1).fold(count, |n, b| n + b.count);
    let note = (h.sum.is_nan() && found < h.count).then(|| notes::quantile_is_skewed(metric));
    (point_in(&bucket, inside / bucket.count, h.is_custom()), note)
}

/// The value a fraction of the way through a bucket.
fn point_in(b: &Bucket, fraction: f64, is_custom: bool) -> f64 {
    if is_custom || (b.lower <= 0.0 && b.upper >= 0.0) {
        return b.lower + (b.upper - b.lower) * fraction;
    }
    let (lower, upper) = (b.lower.abs().log2(), b.upper.abs().log2());
    if b.lower > 0.0 {
        return (lower + (upper - lower) * fraction).exp2();
    }
    // A negative bucket is the mirror image.
    -(upper + (lower - upper) * (1.0 - fraction)).exp2()
}

/// The share of observations between two values, and what is to be said about it.
pub(super) fn fraction(lower: f64, upper: f64, h: &Histogram, metric: &str) -> (f64, Option<String>) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let all = one_sided(h);
    let in_buckets: f64 = all.iter().fold(0.0, |n, b| n + b.count);
    let most = if h.sum.is_nan() { in_buckets } else { h.count };
    let note = (h.sum.is_nan() && in_buckets < h.count).then(|| notes::fraction_without_nan(metric));
    let rank = |v: f64| rank_of(v, &all, h.is_custom()).unwrap_or(most).min(most);
    ((rank(upper) - rank(lower)) / h.count, note)
}

/// How many observations lie below a value; `None` where it is above all buckets.
fn rank_of(v: f64, all: &[Bucket], is_custom: bool) -> Option<f64> {
    let mut rank = 0.0;
    for b in all {
        if b.lower >= v {
            return Some(rank);
        }
        if b.upper > v {
            let is_zero = b.lower <= 0.0 && b.upper >= 0.0;
            return Some(if !is_custom && !is_zero {
                let (l, u, x) = (b.lower.abs().log2(), b.upper.abs().log2(), v.abs().log2());
                let through = if v > 0.0 { (x - l) / (u - l) } else { 1.0 - (x - u) / (l - u) };
                rank + b.count * through
            } else if b.lower == f64::NEG_INFINITY {
                // Nothing is known about where in an endless bucket observations lie.
                b.count
            } else {
                rank + b.count * (v - b.lower) / (b.upper - b.lower)
            });
        }
        rank += b.count;
    }
    None
}

/// The variance, with every observation taken to be in the middle of its bucket.
pub(super) fn variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let mut sum = Sum::default();
    for b in all_buckets(h).iter().filter(|b| b.count != 0.0) {
        let middle = if h.is_custom() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            (b.upper * b.lower).sqrt().copysign(b.upper)
        };
        let delta = middle - mean;
        sum = sum.add(b.count * delta * delta);
    }
    sum.total() / h.count
}
