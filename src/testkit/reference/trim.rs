//! `h </ v` and `h >/ v`: a native histogram without the observations above (or below) a value.
//!
//! *Invariants:* a bucket across the value keeps the share that quantiles would find on its side, and its observations
//! count for the sum as in the middle of what is left. A histogram that loses nothing stays as it is.
//!
//! *Not here:* quantiles (`native`).

use super::apart::Apart;
use crate::model::Histogram;
use crate::model::buckets::{Bucket, buckets};

/// How a bucket is divided.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// The zero bucket and custom ones.
    Linear,
    Positive,
    Negative,
}

/// The histogram without the observations above (`upper`) or below the value.
pub(super) fn trimmed(h: &Histogram, at: f64, upper: bool) -> Histogram {
    let mut out = Histogram { integer: false, ..h.clone() };
    let (mut count, mut sum, mut lost) = (0.0, 0.0, false);
    let mut keep = |b: &Bucket, scale| {
        let (kept, middle) = cut(b, at, upper, scale);
        lost |= kept != b.count;
        count += kept;
        if kept != 0.0 {
            sum += kept * middle;
        }
        kept
    };
    let (positive, negative) = sides(h);
    let scale = if h.is_custom() { Scale::Linear } else { Scale::Positive };
    out.positive = positive.iter().map(|b| keep(b, scale)).collect();
    out.negative = negative.iter().map(|b| keep(b, Scale::Negative)).collect();
    if h.zero_count > 0.0 {
        // Where in a zero bucket something that is no number lies is no number either; other buckets lose everything.
        let zero = zero_bucket(h);
        out.zero_count = if at.is_nan() {
            keep(&Bucket { count: f64::NAN, ..zero }, Scale::Linear)
        } else {
            keep(&zero, Scale::Linear)
        };
    }
    if !lost {
        return Apart::of(h).whole();
    }
    (out.count, out.sum) = (count, sum);
    Apart::of(&out).whole()
}

/// The zero bucket; of a histogram with one side only, the half on that side.
fn zero_bucket(h: &Histogram) -> Bucket {
    let any = |counts: &[f64]| counts.iter().any(|c| *c != 0.0);
    let (positive, negative) = (any(&h.positive), any(&h.negative));
    let lower = if positive && !negative { 0.0 } else { -h.zero_threshold };
    let upper = if negative && !positive { 0.0 } else { h.zero_threshold };
    Bucket { lower, upper, lower_inclusive: true, upper_inclusive: true, count: h.zero_count }
}

/// The buckets of both sides in the order of their counts.
fn sides(h: &Histogram) -> (Vec<Bucket>, Vec<Bucket>) {
    if h.is_custom() {
        return (buckets(h), Vec::new());
    }
    let bare = Histogram { zero_count: 0.0, ..h.clone() };
    let positive = Histogram { negative_spans: Vec::new(), negative: Vec::new(), ..bare.clone() };
    let negative = Histogram { positive_spans: Vec::new(), positive: Vec::new(), ..bare };
    let mut descending = buckets(&negative);
    descending.reverse();
    (buckets(&positive), descending)
}

/// What is kept of a bucket, and the value in its middle.
fn cut(b: &Bucket, at: f64, upper: bool, scale: Scale) -> (f64, f64) {
    if at.is_nan() {
        return if b.count.is_nan() { (f64::NAN, f64::NAN) } else { (0.0, 0.0) };
    }
    if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
        return if upper { cut_endless_above(b, at) } else { cut_endless_below(b, at) };
    }
    let below = position(b, at, scale);
    let share = if upper { below } else { 1.0 - below };
    if share == 0.0 {
        return (0.0, 0.0);
    }
    let (from, to) = if upper { (b.lower, at.min(b.upper)) } else { (at.max(b.lower), b.upper) };
    let middle = match scale {
        Scale::Linear => (from + to) / 2.0,
        Scale::Positive => (from * to).sqrt(),
        Scale::Negative => -(from * to).sqrt(),
    };
    (b.count * share, middle)
}

/// Where in a bucket a value lies, from 0 to 1. A zero bucket without width begins at its value.
fn position(b: &Bucket, v: f64, scale: Scale) -> f64 {
    if v <= b.lower || v >= b.upper {
        return f64::from(v > b.lower);
    }
    let of = |v: f64| if scale == Scale::Linear { v } else { v.abs().log2() };
    (of(v) - of(b.lower)) / (of(b.upper) - of(b.lower))
}

/// An endless custom bucket of which what lies above `at` is to go.
fn cut_endless_above(b: &Bucket, at: f64) -> (f64, f64) {
    let all = (
        b.count,
        if b.upper == f64::INFINITY {
            b.lower
        } else if b.upper > 0.0 {
            b.upper / 2.0
        } else {
            b.upper
        },
    );
    if at >= b.upper {
        return all;
    }
    if b.upper == f64::INFINITY || at == f64::NEG_INFINITY {
        return (0.0, 0.0);
    }
    // The lowest bucket begins at zero if it can; else nothing is known but that all of it may lie below.
    match (b.upper > 0.0, at >= 0.0) {
        (true, true) => (b.count * at / b.upper, at / 2.0),
        (true, false) => (0.0, 0.0),
        _ => (b.count, at),
    }
}

/// An endless custom bucket of which what lies below `at` is to go.
fn cut_endless_below(b: &Bucket, at: f64) -> (f64, f64) {
    if at == f64::NEG_INFINITY {
        return (b.count, if b.lower == f64::NEG_INFINITY { b.upper } else { b.lower });
    }
    if b.lower != f64::NEG_INFINITY {
        // The highest bucket may lie above `at` as a whole.
        return if at == f64::INFINITY { (0.0, 0.0) } else { (b.count, at.max(b.lower)) };
    }
    if at >= 0.0 && b.upper > at && b.upper != f64::INFINITY {
        return (b.count * (1.0 - at / b.upper), (at + b.upper) / 2.0);
    }
    (0.0, 0.0)
}
