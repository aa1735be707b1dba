//! `histogram </ v` and `histogram >/ v`: the observations on one side of a value.
//!
//! *Invariants:* a bucket on the side kept stays whole, one on the other goes; one that holds the value is divided as
//! for fractions. Where anything went, count and sum are estimated anew from the buckets.

use super::arithmetic::compacted;
use super::quantile::share_below;
use crate::model::Histogram;
use crate::model::buckets::{Bucket, indexed, negative, positive, zero};

/// Which observations stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those below the value (`</`).
    Below,
    /// Those above it (`>/`).
    Above,
}

/// What is left so far.
#[derive(Default)]
struct Left {
    count: f64,
    sum: f64,
    changed: bool,
}

impl Left {
    /// Puts down what is kept of a bucket: how many observations, and around which value they lie.
    fn take(&mut self, slot: &mut f64, (kept, middle): (f64, f64)) {
        self.count += kept;
        self.sum += middle * kept;
        self.changed |= *slot != kept;
        *slot = kept;
    }
}

/// The histogram with the observations on one side of `at`.
pub fn trimmed(h: &Histogram, at: f64, keep: Keep) -> Histogram {
    let (mut out, mut left) = (h.clone(), Left::default());
    let kept = |b: &Bucket, geometric: f64| {
        let whole = if keep == Keep::Below { b.upper <= at } else { b.lower >= at };
        let split = if keep == Keep::Below { b.lower < at } else { b.upper > at };
        match (whole, split) {
            (true, _) => Some((b.count, middle(b.lower, b.upper, geometric))),
            (false, true) => Some(divide(b, at, keep, geometric)),
            (false, false) => None,
        }
    };
    let sign = if h.is_custom() { 0.0 } else { 1.0 };
    for ((i, count), slot) in
        indexed(&h.positive_spans, &h.positive).zip(&mut out.positive).filter(|((_, c), _)| *c != 0.0)
    {
        match kept(&positive(h, i, count), sign) {
            Some(kept) => left.take(slot, kept),
            None => left.take(slot, (0.0, 0.0)),
        }
    }
    for ((i, count), slot) in
        indexed(&h.negative_spans, &h.negative).zip(&mut out.negative).filter(|((_, c), _)| *c != 0.0)
    {
        match kept(&negative(h, i, count), -sign) {
            Some(kept) => left.take(slot, kept),
            None => left.take(slot, (0.0, 0.0)),
        }
    }
    if h.zero_count > 0.0 {
        left.take(&mut out.zero_count, zero_bucket(h, at, keep));
    }
    if !left.changed {
        return out;
    }
    (out.integer, out.count, out.sum) = (false, left.count, left.sum);
    compacted(out)
}

/// What is kept of the bucket that holds `at`.
fn divide(b: &Bucket, at: f64, keep: Keep, geometric: f64) -> (f64, f64) {
    if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
        return divide_infinite(b, at, keep);
    }
    let below = if at <= b.lower {
        0.0
    } else if at >= b.upper {
        b.count
    } else if geometric == 0.0 {
        b.count * ((at - b.lower) / (b.upper - b.lower))
    } else {
        b.count * share_below(b, at)
    };
    match keep {
        Keep::Below => (below, middle(b.lower, at, geometric)),
        Keep::Above => (b.count - below, middle(at, b.upper, geometric)),
    }
}

/// How observations lie in an infinite bucket nobody knows: it goes as a whole rather than in part, unless it begins or
/// ends where no observation can be beyond `at`. Below a positive bound nothing is taken to be negative.
fn divide_infinite(b: &Bucket, at: f64, keep: Keep) -> (f64, f64) {
    let finite = |v: f64| if v.is_infinite() { 0.0 } else { v };
    if b.lower != f64::NEG_INFINITY {
        let stays = keep == Keep::Above && at >= b.lower;
        return if stays { (b.count, at) } else { (0.0, finite(b.lower)) };
    }
    let bounded = b.upper != f64::INFINITY;
    match keep {
        Keep::Below if at >= b.upper => (b.count, 0.0),
        Keep::Below if at > 0.0 && b.upper > 0.0 && bounded => (b.count * at / b.upper, at / 2.0),
        Keep::Below if b.upper <= 0.0 => (b.count, at),
        Keep::Above if at <= b.lower => (b.count, 0.0),
        Keep::Above if at >= 0.0 && b.upper > at && bounded => (b.count * (1.0 - at / b.upper), (at + b.upper) / 2.0),
        _ => (0.0, finite(b.upper)),
    }
}

/// What is kept of the zero bucket; that of a histogram whose observations all have one sign has that sign too.
fn zero_bucket(h: &Histogram, at: f64, keep: Keep) -> (f64, f64) {
    let mut b = zero(h);
    let any = |counts: &[f64]| counts.iter().any(|c| *c != 0.0);
    match (any(&h.negative), any(&h.positive)) {
        (true, false) => b.upper = 0.0,
        (false, true) => b.lower = 0.0,
        _ => {}
    }
    let width = b.upper - b.lower;
    match keep {
        Keep::Below if at <= b.lower => (0.0, 0.0),
        // Asked before the one below: a zero bucket without width is not below its own value.
        Keep::Above if at <= b.lower => (b.count, (b.lower + b.upper) / 2.0),
        Keep::Above if at >= b.upper => (0.0, 0.0),
        Keep::Below if at >= b.upper => (b.count, (b.lower + b.upper) / 2.0),
        Keep::Below => (b.count * ((at - b.lower) / width), (b.lower + at) / 2.0),
        Keep::Above => (b.count * ((b.upper - at) / width), (at + b.upper) / 2.0),
    }
}

/// The value that stands for observations between two bounds: the geometric mean with the sign of `geometric`, or where
/// that is 0 the arithmetic one.
fn middle(lower: f64, upper: f64, geometric: f64) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if geometric == 0.0 => (lower + upper) / 2.0,
        (false, false) => (lower * upper).abs().sqrt() * geometric,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{custom, of};
    use super::*;

    #[test]
    fn a_zero_bucket_without_width_lies_above_its_value() {
        let h = Histogram { zero_count: 2.0, count: 2.0, sum: 0.5, ..Histogram::default() };
        assert_eq!(trimmed(&h, 0.0, Keep::Above), h);
        assert_eq!(trimmed(&h, 0.0, Keep::Below).count, 0.0);
    }

    #[test]
    fn what_is_on_no_side_is_on_the_other() {
        let h = Histogram { zero_count: 2.0, zero_threshold: 0.5, count: 12.0, ..of(0, 1, &[3.0, 4.0, 3.0]) };
        for at in [-1.0, 0.0, 0.25, 0.5, 1.0, 1.7, 2.0, 5.0, 8.0, 9.0] {
            let (below, above) = (trimmed(&h, at, Keep::Below), trimmed(&h, at, Keep::Above));
            assert!((below.count + above.count - 12.0).abs() < 1e-12, "{at}");
        }
    }

    #[test]
    fn untouched_histograms_keep_count_and_sum() {
        let h = Histogram { sum: 77.0, ..custom(&[5.0], &[1.0, 2.0]) };
        assert_eq!(trimmed(&h, f64::INFINITY, Keep::Below), h);
        assert_eq!(trimmed(&h, 5.0, Keep::Below).count, 1.0);
        assert!(trimmed(&h, f64::NAN, Keep::Above).positive.is_empty());
    }
}
