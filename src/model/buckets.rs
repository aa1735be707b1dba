//! The buckets of a native histogram with their bounds.
//!
//! *Invariants:* buckets come in ascending order of value: negative side, zero bucket, positive side. Index `i` of an
//! exponential schema `s` ends at `2^(i · 2^-s)`; the bucket before the one for infinities ends at the largest float. Bounds
//! are those of Prometheus to the last bit, on every platform.
//!
//! *Not here:* interpolation and arithmetic (`promql`).
//!
//! Source: Prometheus native histograms specification.

use std::sync::LazyLock;

use super::{Histogram, Span};

/// Schema with the most buckets.
const FINEST: i32 = 8;

/// `2^(k/256)/2`, not rounded to the nearest but as Prometheus has them in its tables: products of square roots of
/// square roots of 2, the largest first. In place of half the largest stands its reciprocal.
static FRACTIONS: LazyLock<[f64; 1 << FINEST]> = LazyLock::new(|| {
    std::array::from_fn(|k| {
        let mut root = std::f64::consts::SQRT_2;
        let mut product = if k >= 128 { root.recip() } else { 0.5 };
        for bit in (0..FINEST - 1).rev() {
            root = root.sqrt();
            if k >> bit & 1 == 1 {
                product *= root;
            }
        }
        product
    })
});

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether a value equal to the lower bound is inside.
    pub lower_inclusive: bool,
    /// Whether a value equal to the upper bound is inside.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

/// Upper bound of the positive bucket with this index.
pub fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema <= 0 {
        return power_of_two(i64::from(index) << -schema);
    }
    // The fraction's power first, then exact doublings: neighbouring schemas agree on the bounds they share.
    let steps = 1 << schema;
    let doublings = power_of_two(i64::from(index.div_euclid(steps)));
    match index.rem_euclid(steps) {
        0 => doublings,
        part if schema <= FINEST => 2.0 * FRACTIONS[(part << (FINEST - schema)) as usize] * doublings,
        part => (f64::from(part) / f64::from(steps)).exp2() * doublings,
    }
}

/// `2^exponent`; of exponents beyond the range of floats the first is the largest float, so that finite observations
/// have a finite bucket.
fn power_of_two(exponent: i64) -> f64 {
    match exponent {
        1024 => f64::MAX,
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => (exponent.clamp(-1100, 1100) as f64).exp2(),
    }
}

/// All buckets that the spans name, empty ones too, ascending.
pub fn buckets(h: &Histogram) -> Vec<Bucket> {
    let mut out = Vec::with_capacity(h.positive.len() + h.negative.len() + 1);
    if h.is_custom() {
        out.extend(indexed(&h.positive_spans, &h.positive).map(|(i, count)| custom(h, i, count)));
        return out;
    }
    out.extend(reversed(&h.negative_spans, &h.negative).map(|(i, count)| negative(h, i, count)));
    if h.zero_count != 0.0 {
        out.push(zero(h));
    }
    out.extend(indexed(&h.positive_spans, &h.positive).map(|(i, count)| positive(h, i, count)));
    out
}

/// The zero bucket.
pub fn zero(h: &Histogram) -> Bucket {
    let (upper, count) = (h.zero_threshold, h.zero_count);
    Bucket { lower: -upper, upper, lower_inclusive: true, upper_inclusive: true, count }
}

/// The negative bucket with this index.
pub fn negative(h: &Histogram, i: i32, count: f64) -> Bucket {
    let (lower, upper) = (-exponential_bound(i, h.schema), -exponential_bound(i.saturating_sub(1), h.schema));
    Bucket { lower, upper, lower_inclusive: true, upper_inclusive: false, count }
}

/// The positive bucket with this index, or the custom one.
pub fn positive(h: &Histogram, i: i32, count: f64) -> Bucket {
    if h.is_custom() {
        return custom(h, i, count);
    }
    let (lower, upper) = (exponential_bound(i.saturating_sub(1), h.schema), exponential_bound(i, h.schema));
    Bucket { lower, upper, lower_inclusive: false, upper_inclusive: true, count }
}

fn custom(h: &Histogram, i: i32, count: f64) -> Bucket {
    let bound = |i: i32| usize::try_from(i).ok().and_then(|i| h.custom_values.get(i)).copied();
    let lower = if i == 0 { f64::NEG_INFINITY } else { bound(i - 1).unwrap_or(f64::INFINITY) };
    let upper = bound(i).unwrap_or(f64::INFINITY);
    Bucket { lower, upper, lower_inclusive: i == 0, upper_inclusive: true, count }
}

/// Bucket indexes and counts of one side, ascending.
pub fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0i32;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next.saturating_add(span.offset);
        next = first.saturating_add_unsigned(span.length);
        first..next
    });
    indexes.zip(counts.iter().copied())
}

/// Bucket indexes and counts of one side, descending; spans and counts must be of one length.
pub fn reversed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = spans.iter().fold(0i32, |at, s| at.saturating_add(s.offset).saturating_add_unsigned(s.length));
    let indexes = spans.iter().rev().flat_map(move |span| {
        let (first, last) = (next.saturating_sub_unsigned(span.length), next);
        next = first.saturating_sub(span.offset);
        (first..last).rev()
    });
    indexes.zip(counts.iter().rev().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_the_schema() {
        assert_eq!(exponential_bound(3, 0), 8.0);
        assert_eq!(exponential_bound(-2, -1), 2f64.powi(-4));
        assert_eq!(exponential_bound(4, 2), 2.0);
        assert_eq!([1023, 1024, 1025].map(|i| exponential_bound(i, 0)), [2f64.powi(1023), f64::MAX, f64::INFINITY]);
        assert_eq!([2047, 2048, 2049].map(|i| exponential_bound(i, 1).is_finite()), [true, true, false]);
        assert_eq!([-1074, -1075].map(|i| exponential_bound(i, 0)), [f64::from_bits(1), 0.0]);
    }

    /// As Prometheus answers them; the nearest floats are others.
    #[test]
    #[allow(clippy::approx_constant, reason = "they are no roots of 2 to the last bit, that is the point")]
    fn bounds_are_those_of_prometheus_to_the_last_bit() {
        let bounds = [(-1, 1), (1, 1), (-3, 2), (-1, 2), (-2, 3), (-250, 8), (-186, 8), (-106, 8), (-1, 8)];
        assert_eq!(
            bounds.map(|(i, schema)| exponential_bound(i, schema)),
            [
                0.7071067811865475,
                1.414213562373095,
                0.5946035575013605,
                0.8408964152537144,
                0.8408964152537144,
                0.5081891574554764,
                0.6043421618132907,
                0.7505070348132126,
                0.9972960560854698
            ]
        );
        let nearest = |i: i32| (f64::from(i) / 256.0).exp2();
        assert!((-255..0).filter(|i| exponential_bound(*i, 8) != nearest(*i)).count() > 100);
        assert!((-255..0).all(|i| (exponential_bound(i, 8) - nearest(i)).abs() < 1e-15));
    }

    #[test]
    fn schemas_share_bounds() {
        assert!((1..8).all(|schema| (-600..600).all(|i| exponential_bound(i, schema) == exponential_bound(2 * i, schema + 1))));
        assert!((-600..600).all(|i| exponential_bound(i, 8) < exponential_bound(i + 1, 8)));
    }

    #[test]
    fn buckets_ascend_from_negative_to_positive() {
        let span = |offset, length| Span { offset, length };
        let h = Histogram {
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![span(0, 1), span(1, 1)],
            positive: vec![2.0, 3.0],
            negative_spans: vec![span(0, 2)],
            negative: vec![4.0, 5.0],
            ..Histogram::default()
        };
        let down: Vec<_> = reversed(&h.positive_spans, &h.positive).collect();
        assert_eq!(down, [(2, 3.0), (0, 2.0)]);
        let got: Vec<_> = buckets(&h).iter().map(|b| (b.lower, b.upper, b.count)).collect();
        assert_eq!(got, [(-2.0, -1.0, 5.0), (-1.0, -0.5, 4.0), (-0.001, 0.001, 1.0), (0.5, 1.0, 2.0), (2.0, 4.0, 3.0)]);
    }

    #[test]
    fn custom_buckets_take_their_bounds_from_the_list() {
        let h = Histogram {
            schema: -53,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive: vec![1.0, 2.0, 3.0],
            custom_values: vec![5.0, 10.0],
            ..Histogram::default()
        };
        let got: Vec<_> = buckets(&h).iter().map(|b| (b.lower, b.upper)).collect();
        assert_eq!(got, [(f64::NEG_INFINITY, 5.0), (5.0, 10.0), (10.0, f64::INFINITY)]);
    }
}
