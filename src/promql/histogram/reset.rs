//! Whether a counter histogram began anew.
//!
//! *Invariants:* nothing is allocated unless custom bounds differ.

use super::accumulator::{Zero, zero_of};
use super::side::{Coarser, steps};
use crate::model::buckets::{exponential_bound, indexed};
use crate::model::{Histogram, ResetHint, Span};

/// Whether a counter histogram began anew between `before` and `h`: its hint says so, or, where that says nothing, it
/// is smaller anywhere. A gauge is treated as if it were a counter.
pub fn detect_reset(h: &Histogram, before: &Histogram) -> bool {
    match h.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    // Higher resolution and a narrower zero bucket come only with a reset.
    if h.count < before.count || h.is_custom() != before.is_custom() || h.schema > before.schema {
        return true;
    }
    if h.is_custom() && h.custom_values != before.custom_values {
        return shrank_between_bounds(h, before);
    }
    if h.zero_threshold < before.zero_threshold {
        return true;
    }
    if h.schema == before.schema && h.zero_threshold == before.zero_threshold {
        return h.zero_count < before.zero_count
            || side_shrank((&h.positive_spans, &h.positive), (&before.positive_spans, &before.positive))
            || side_shrank((&h.negative_spans, &h.negative), (&before.negative_spans, &before.negative));
    }
    let zero: Zero<f64> = zero_of(before, h.zero_threshold);
    if zero.threshold != h.zero_threshold || h.zero_count < zero.cell {
        return true;
    }
    let by = steps(before.schema, h.schema);
    let outside = |(at, _): &(i32, f64)| exponential_bound(*at, h.schema) > h.zero_threshold;
    let now = |spans, counts| indexed(spans, counts).skip_while(move |c| !outside(c));
    let then = |spans, counts| Coarser::of(indexed(spans, counts), by).skip_while(move |c| !outside(c));
    shrank(now(&h.positive_spans, &h.positive), then(&before.positive_spans, &before.positive))
        || shrank(now(&h.negative_spans, &h.negative), then(&before.negative_spans, &before.negative))
}

fn side_shrank(now: (&[Span], &[f64]), then: (&[Span], &[f64])) -> bool {
    if now.0 == then.0 {
        return now.1.iter().zip(then.1).any(|(now, then)| now < then);
    }
    shrank(indexed(now.0, now.1), indexed(then.0, then.1))
}

/// Whether any bucket has become smaller, or is gone although it was populated.
fn shrank(now: impl Iterator<Item = (i32, f64)>, then: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut now = now.peekable();
    for (at, count) in then {
        while now.next_if(|(i, _)| *i < at).is_some() {}
        match now.next_if(|(i, _)| *i == at) {
            Some((_, now)) if now < count => return true,
            None if count != 0.0 => return true,
            _ => {}
        }
    }
    false
}

/// As [`shrank`] for custom buckets, between the bounds that both histograms have.
fn shrank_between_bounds(h: &Histogram, before: &Histogram) -> bool {
    let common = h.custom_values.iter().filter(|b| before.custom_values.contains(b));
    let bounds: Vec<f64> = common.copied().chain([f64::INFINITY]).collect();
    let counts = |h: &Histogram| {
        let mut out = vec![0.0; bounds.len()];
        for (at, count) in indexed(&h.positive_spans, &h.positive) {
            let upper = h.custom_values.get(at.max(0) as usize).copied().unwrap_or(f64::INFINITY);
            out[bounds.partition_point(|b| *b < upper).min(bounds.len() - 1)] += count;
        }
        out
    };
    counts(h).iter().zip(counts(before)).any(|(now, then)| *now < then)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{custom, of};
    use super::*;

    #[test]
    fn a_smaller_bucket_is_a_reset() {
        assert!(detect_reset(&of(0, 1, &[1.0, 5.0]), &of(0, 1, &[2.0, 3.0])));
        assert!(!detect_reset(&of(0, 1, &[2.0, 5.0]), &of(0, 1, &[2.0, 3.0])));
        assert!(!detect_reset(&of(0, 1, &[2.0, 5.0]), &of(1, 1, &[1.0, 1.0, 2.0, 3.0])));
        assert!(detect_reset(&of(0, 1, &[1.0, 6.0]), &of(1, 1, &[1.0, 1.0, 2.0, 3.0])));
        assert!(detect_reset(&of(1, 1, &[9.0]), &of(0, 1, &[1.0])));
    }

    #[test]
    fn a_hint_decides() {
        let mut h = of(0, 1, &[1.0]);
        h.reset_hint = ResetHint::NotReset;
        assert!(!detect_reset(&h, &of(0, 1, &[5.0])));
        h.reset_hint = ResetHint::Gauge;
        assert!(detect_reset(&h, &of(0, 1, &[5.0])));
    }

    #[test]
    fn a_wider_zero_bucket_takes_in_what_was_there() {
        let before = Histogram { zero_threshold: 0.25, zero_count: 1.0, ..of(0, 0, &[2.0, 3.0]) };
        let wide = |zero_count| Histogram { zero_threshold: 1.0, zero_count, count: 9.0, ..of(0, 1, &[3.0]) };
        assert!(!detect_reset(&wide(3.0), &before));
        assert!(detect_reset(&wide(2.0), &before));
        let straddling = Histogram { zero_threshold: 0.75, ..wide(9.0) };
        assert!(detect_reset(&straddling, &before));
    }

    #[test]
    fn other_bounds_are_compared_where_they_meet() {
        let before = custom(&[2.0, 4.0], &[1.0, 2.0, 3.0]);
        assert!(!detect_reset(&custom(&[1.0, 2.0, 4.0], &[0.0, 1.0, 2.0, 3.0]), &before));
        assert!(detect_reset(&custom(&[1.0, 2.0, 4.0], &[0.0, 0.0, 3.0, 9.0]), &before));
    }
}
