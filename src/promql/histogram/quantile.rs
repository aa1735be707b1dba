//! Quantiles, fractions and variance of native histograms.
//!
//! *Invariants:* within a bucket observations are taken to lie as those of a histogram of higher resolution would: evenly
//! on a logarithmic scale, but evenly on a linear one in the zero bucket and in custom buckets. The order of operations
//! is that of Prometheus' `quantile.go`.
//!
//! *Not here:* quantiles of classic buckets (`functions::quantile`).

use crate::model::Histogram;
use crate::model::buckets::{Bucket, indexed, negative, positive, reversed, zero};
use crate::promql::functions::kahan;

/// What observations of NaN do to a quantile: they count but are in no bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NanObservations {
    /// The quantile is one of them.
    Result,
    /// They are taken to be above all others.
    Skew,
}

/// A bucket by its place.
#[derive(Debug, Clone, Copy)]
enum Place {
    Negative(i32),
    Zero,
    Positive(i32),
}

/// Places and counts of the buckets, ascending.
fn ascending(h: &Histogram) -> impl Iterator<Item = (Place, f64)> {
    let zero = (h.zero_count > 0.0).then_some((Place::Zero, h.zero_count));
    let negative = reversed(&h.negative_spans, &h.negative).map(|(i, c)| (Place::Negative(i), c));
    negative.chain(zero).chain(indexed(&h.positive_spans, &h.positive).map(|(i, c)| (Place::Positive(i), c)))
}

/// Places and counts of the buckets, descending.
fn descending(h: &Histogram) -> impl Iterator<Item = (Place, f64)> {
    let zero = (h.zero_count > 0.0).then_some((Place::Zero, h.zero_count));
    let positive = reversed(&h.positive_spans, &h.positive).map(|(i, c)| (Place::Positive(i), c));
    positive.chain(zero).chain(indexed(&h.negative_spans, &h.negative).map(|(i, c)| (Place::Negative(i), c)))
}

/// The bucket at a place, cut off where it overlaps with the zero bucket.
fn bucket(h: &Histogram, place: Place, count: f64) -> Bucket {
    match place {
        Place::Zero => zero(h),
        Place::Negative(i) => {
            let b = negative(h, i, count);
            if b.upper < 0.0 && b.upper > -h.zero_threshold { Bucket { upper: -h.zero_threshold, ..b } } else { b }
        }
        Place::Positive(i) => {
            let b = positive(h, i, count);
            if b.lower > 0.0 && b.lower < h.zero_threshold { Bucket { lower: h.zero_threshold, ..b } } else { b }
        }
    }
}

/// The zero bucket of a histogram whose observations all have one sign has that sign too.
fn one_sided(h: &Histogram, b: &mut Bucket) {
    match (h.negative.is_empty(), h.positive.is_empty()) {
        (true, false) => b.lower = 0.0,
        (false, true) => b.upper = 0.0,
        _ => {}
    }
}

/// Walks up to the bucket in which the count reaches `rank`: that bucket's place and count, and the count so far. Where
/// no bucket does, the last one.
fn locate(walk: &mut impl Iterator<Item = (Place, f64)>, rank: f64) -> (Option<(Place, f64)>, f64) {
    let (mut last, mut count) = (None, 0.0);
    for (place, in_bucket) in walk {
        last = Some((place, in_bucket));
        if in_bucket == 0.0 {
            continue;
        }
        count += in_bucket;
        if count >= rank {
            break;
        }
    }
    (last, count)
}

/// The `q`-quantile, and what NaN observations did to it.
pub fn quantile(q: f64, h: &Histogram) -> (f64, Option<NanObservations>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    // The shorter way; NaN observations count as the highest ones, so with them only the way up gives the rank.
    let upwards = h.sum.is_nan() || q < 0.5;
    let mut rank = if upwards { q * h.count } else { (1.0 - q) * h.count };
    let mut total = h.count;
    let (found, mut count) = if upwards {
        let mut walk = ascending(h);
        let (found, count) = locate(&mut walk, rank);
        if h.sum.is_nan() {
            total = walk.fold(count.min(h.count), |total, (_, c)| total + c);
        }
        (found, count)
    } else {
        locate(&mut descending(h), rank)
    };
    let nothing = Bucket { lower: 0.0, upper: 0.0, lower_inclusive: false, upper_inclusive: false, count: 0.0 };
    let mut b = found.map_or(nothing, |(place, count)| bucket(h, place, count));
    if h.is_custom() {
        if b.lower == f64::NEG_INFINITY {
            if b.upper <= 0.0 {
                return (b.upper, None);
            }
            b.lower = 0.0;
        } else if b.upper == f64::INFINITY {
            return (b.lower, None);
        }
    } else if b.lower < 0.0 && b.upper > 0.0 {
        one_sided(h, &mut b);
    }
    count = count.min(h.count);
    if count < rank {
        return if h.sum.is_nan() { (f64::NAN, Some(NanObservations::Result)) } else { (b.upper, None) };
    }
    rank = if upwards { rank - (count - b.count) } else { count - rank };
    // −Inf and +Inf observed make the sum NaN too, but they are in buckets.
    (interpolate(h, &b, rank / b.count), (total < h.count).then_some(NanObservations::Skew))
}

/// The value below which a share of a bucket's observations lie.
fn interpolate(h: &Histogram, b: &Bucket, share: f64) -> f64 {
    if h.is_custom() || (b.lower <= 0.0 && b.upper >= 0.0) {
        return b.lower + (b.upper - b.lower) * share;
    }
    let (log_lower, log_upper) = (b.lower.abs().log2(), b.upper.abs().log2());
    if b.lower > 0.0 {
        return (log_lower + (log_upper - log_lower) * share).exp2();
    }
    -(log_upper + (log_lower - log_upper) * (1.0 - share)).exp2()
}

/// The share of a bucket's observations below `v`, a value inside of it, on a logarithmic scale.
pub(super) fn share_below(b: &Bucket, v: f64) -> f64 {
    let (log_lower, log_upper, log_v) = (b.lower.abs().log2(), b.upper.abs().log2(), v.abs().log2());
    if v > 0.0 {
        (log_v - log_lower) / (log_upper - log_lower)
    } else {
        1.0 - (log_v - log_upper) / (log_lower - log_upper)
    }
}

/// The share of observations between `lower` and `upper`, and whether there are NaN ones, which are not.
pub fn fraction(lower: f64, upper: f64, h: &Histogram) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
    let mut walk = ascending(h);
    let mut count = 0.0;
    for (place, in_bucket) in walk.by_ref() {
        count += in_bucket;
        let mut b = bucket(h, place, in_bucket);
        let around_zero = b.lower <= 0.0 && b.upper >= 0.0;
        if around_zero {
            one_sided(h, &mut b);
        }
        for (edge, slot) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if slot.is_some() {
                continue;
            }
            if b.lower >= edge {
                *slot = Some(rank);
            } else if b.upper > edge {
                *slot = Some(if !h.is_custom() && !around_zero {
                    rank + b.count * share_below(&b, edge)
                } else if b.lower == f64::NEG_INFINITY {
                    // Where in it they lie nobody knows: the lowest bucket counts as a whole.
                    b.count
                } else {
                    rank + b.count * (edge - b.lower) / (b.upper - b.lower)
                });
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += b.count;
    }
    let mut nan_observations = false;
    if h.sum.is_nan() {
        count = walk.fold(count, |total, (_, c)| total + c);
        nan_observations = count < h.count;
    } else {
        count = h.count;
    }
    let rank = |found: Option<f64>| found.filter(|rank| *rank <= count).unwrap_or(count);
    ((rank(upper_rank) - rank(lower_rank)) / h.count, nan_observations)
}

/// The estimated variance: every observation is taken to lie in the middle of its bucket.
pub fn variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut sum, mut c) = (0.0, 0.0);
    for (place, count) in ascending(h).filter(|(_, count)| *count != 0.0) {
        let b = bucket(h, place, count);
        let middle = if h.is_custom() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            (b.upper * b.lower).sqrt().copysign(b.upper)
        };
        let delta = middle - mean;
        (sum, c) = kahan::add(count * delta * delta, sum, c);
    }
    (sum + c) / h.count
}

#[cfg(test)]
mod tests {
    use super::super::tests::{custom, of};
    use super::*;

    #[test]
    fn quantiles_lie_evenly_on_a_logarithmic_scale() {
        let h = of(0, 0, &[1.0, 2.0, 1.0]);
        assert_eq!(quantile(0.5, &h).0, std::f64::consts::SQRT_2);
        assert_eq!(quantile(1.0, &h).0, 4.0);
        assert_eq!(quantile(0.5, &custom(&[5.0, 10.0], &[1.0, 2.0, 1.0])).0, 7.5);
        assert_eq!(quantile(1.0, &custom(&[5.0, 10.0], &[1.0, 2.0, 1.0])).0, 10.0);
        let upside_down =
            Histogram { count: 4.0, negative: h.positive, negative_spans: h.positive_spans, ..of(0, 0, &[]) };
        assert_eq!(quantile(0.5, &upside_down).0, -std::f64::consts::SQRT_2);
    }

    #[test]
    fn nan_observations_are_the_highest() {
        let h = Histogram { sum: f64::NAN, count: 15.0, ..of(0, 0, &[12.0]) };
        assert_eq!(quantile(0.8, &h), (1.0, Some(NanObservations::Skew)));
        let (v, why) = quantile(0.81, &h);
        assert!(v.is_nan() && why == Some(NanObservations::Result));
        assert_eq!(fraction(f64::NEG_INFINITY, f64::INFINITY, &h), (0.8, true));
    }

    #[test]
    fn fractions_undo_quantiles() {
        let h =
            Histogram { zero_count: 2.0, zero_threshold: 0.001, count: 12.0, ..of(0, 0, &[2.0, 3.0, 0.0, 1.0, 4.0]) };
        for q in [0.05, 0.2, 0.45, 0.6, 0.99] {
            let v = quantile(q, &h).0;
            assert!((fraction(f64::NEG_INFINITY, v, &h).0 - q).abs() < 1e-12, "{q}");
        }
    }

    #[test]
    fn nothing_known_is_no_panic() {
        assert!(variance(&Histogram::default()).is_nan());
        assert!(quantile(0.5, &Histogram { count: 1.0, ..Histogram::default() }).0 == 0.0);
        assert_eq!(fraction(0.0, 1.0, &Histogram { count: 1.0, ..Histogram::default() }), (0.0, false));
    }
}
