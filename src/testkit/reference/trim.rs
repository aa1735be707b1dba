//! `h </ v` and `h >/ v`: a native histogram without the observations above (or below) a value.
//!
//! *Invariants:* a bucket across the value keeps the share quantiles would find on its side; of an endless bucket nothing
//! is known, so it goes as a whole unless it is on the right side entirely.
//!
//! *Not here:* quantiles (`native`).

use super::apart::Apart;
use crate::model::Histogram;
use crate::model::buckets::{Bucket, buckets};

/// The histogram without the observations above (`upper`) or below the value.
pub(super) fn trimmed(h: &Histogram, at: f64, upper: bool) -> Histogram {
    let custom = h.is_custom();
    let mut out = Histogram { integer: false, ..h.clone() };
    let (mut kept, mut removed_sum) = (0.0, 0.0);
    let (mut has_positive, mut has_negative) = (false, false);
    let (positive, negative) = sides(h);
    for (sides, is_positive) in [(&positive, true), (&negative, false)] {
        for (i, b) in sides.iter().enumerate().filter(|(_, b)| b.count != 0.0) {
            has_positive |= if custom { b.upper > 0.0 } else { is_positive };
            has_negative |= if custom { b.lower < 0.0 } else { !is_positive };
            let (keep, middle) = cut(b, at, upper, is_positive, custom);
            kept += keep;
            removed_sum += if keep == b.count { 0.0 } else { (b.count - keep) * middle };
            if is_positive { out.positive[i] = keep } else { out.negative[i] = keep }
        }
    }
    if h.zero_count > 0.0 {
        let zero = Bucket {
            lower: -h.zero_threshold,
            upper: h.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: h.zero_count,
        };
        let below = below(&zero, at, true, true);
        out.zero_count = if upper { below } else { h.zero_count - below };
        kept += out.zero_count;
    }
    out.count = kept;
    out.sum = 0.0;
    if kept != 0.0 {
        let sum = h.sum - removed_sum;
        // Only values below zero could add up to less than zero, and the other way round.
        let impossible = (!has_negative && sum < 0.0) || (!has_positive && sum > 0.0);
        out.sum = if impossible { 0.0 } else { sum };
    }
    Apart::of(&out).whole()
}

/// The buckets of both sides in the order of their counts.
fn sides(h: &Histogram) -> (Vec<Bucket>, Vec<Bucket>) {
    let bare = Histogram { zero_count: 0.0, ..h.clone() };
    let positive = Histogram { negative_spans: Vec::new(), negative: Vec::new(), ..bare.clone() };
    let negative = Histogram { positive_spans: Vec::new(), positive: Vec::new(), ..bare };
    // Custom histograms have one side only.
    let mut mirrored = if h.is_custom() { Vec::new() } else { buckets(&negative) };
    mirrored.reverse();
    (buckets(&positive), mirrored)
}

/// What is kept of a bucket, and the value its removed observations are taken to have.
fn cut(b: &Bucket, at: f64, upper: bool, is_positive: bool, custom: bool) -> (f64, f64) {
    let inside = if upper { b.upper <= at } else { b.lower >= at };
    if inside {
        return (b.count, 0.0);
    }
    if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
        return cut_endless(b, at, upper);
    }
    // Written so that NaN removes everything.
    let across = if upper { b.lower < at } else { b.upper > at };
    let edge = if upper { b.lower } else { b.upper };
    let middle = |other: f64| match (custom, is_positive) {
        (true, _) => (b.lower + b.upper) / 2.0,
        (false, true) => (edge.abs() * other.abs()).sqrt(),
        (false, false) => -(edge.abs() * other.abs()).sqrt(),
    };
    if !across {
        // Prometheus forgets the sign of a negative bucket that goes as a whole.
        let middle = if custom { middle(0.0) } else { (b.lower * b.upper).sqrt() };
        return (0.0, middle);
    }
    let below = below(b, at, is_positive, custom);
    (if upper { below } else { b.count - below }, middle(at))
}

/// An endless bucket: the lowest one is taken to begin at zero if that can be.
fn cut_endless(b: &Bucket, at: f64, upper: bool) -> (f64, f64) {
    if b.lower == f64::NEG_INFINITY {
        if at >= 0.0 && b.upper > at && b.upper.is_finite() {
            return match upper {
                true => (b.count * at / b.upper, (at + b.upper) / 2.0),
                false => (b.count * (1.0 - at / b.upper), at / 2.0),
            };
        }
        return (0.0, b.upper);
    }
    (0.0, b.lower)
}

/// How many observations of a bucket lie at or below the value.
fn below(b: &Bucket, at: f64, is_positive: bool, linear: bool) -> f64 {
    if at <= b.lower {
        return 0.0;
    }
    if at >= b.upper {
        return b.count;
    }
    if linear {
        return b.count * ((at - b.lower) / (b.upper - b.lower));
    }
    let (lower, upper, v) = (b.lower.abs().log2(), b.upper.abs().log2(), at.abs().log2());
    b.count * if is_positive { (v - lower) / (upper - lower) } else { 1.0 - (v - upper) / (lower - upper) }
}
