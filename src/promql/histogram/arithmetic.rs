//! Sums, differences, products and comparison of native histograms.
//!
//! *Invariants:* results are float histograms: counts need not be whole.
//!
//! *Not here:* compensated sums (`accumulator` with `Compensated` cells), means (`mean`).

use super::accumulator::{Accumulator, Added, IncompatibleSchemas};
use super::side::Side;
use crate::model::{Histogram, ResetHint, Span};

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

fn combine(a: &Histogram, b: &Histogram, sign: f64) -> Result<Combined, IncompatibleSchemas> {
    let mut out = Accumulator::<f64>::of(a);
    let Added { hints_clash, bounds_reconciled } = out.add(b, sign)?;
    Ok(Combined { histogram: out.finish(), hints_clash, bounds_reconciled })
}

/// The histogram with all counts and the sum multiplied; a negative factor makes it a gauge.
pub fn scaled(h: &Histogram, factor: f64) -> Histogram {
    mapped(h, |v| v * factor, factor < 0.0)
}

/// The histogram with all counts and the sum divided; a negative divisor makes it a gauge.
pub fn divided(h: &Histogram, by: f64) -> Histogram {
    if by == 0.0 {
        // Only count, sum and zero bucket can say "infinite" or "undefined" about themselves.
        let bare = Histogram {
            positive: Vec::new(),
            negative: Vec::new(),
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            custom_values: h.custom_values.clone(),
            ..*h
        };
        return mapped(&bare, |v| v / by, false);
    }
    mapped(h, |v| v / by, by < 0.0)
}

fn mapped(h: &Histogram, f: impl Fn(f64) -> f64, to_gauge: bool) -> Histogram {
    let all = |counts: &[f64]| counts.iter().map(|c| f(*c)).collect();
    Histogram {
        integer: false,
        schema: h.schema,
        reset_hint: if to_gauge { ResetHint::Gauge } else { h.reset_hint },
        zero_threshold: h.zero_threshold,
        zero_count: f(h.zero_count),
        count: f(h.count),
        sum: f(h.sum),
        positive_spans: h.positive_spans.clone(),
        positive: all(&h.positive),
        negative_spans: h.negative_spans.clone(),
        negative: all(&h.negative),
        custom_values: h.custom_values.clone(),
    }
}

/// The histogram without empty buckets.
pub fn compacted(mut h: Histogram) -> Histogram {
    for (spans, counts) in [(&mut h.positive_spans, &mut h.positive), (&mut h.negative_spans, &mut h.negative)] {
        let joined = spans.iter().enumerate().any(|(i, s)| s.length == 0 || (i > 0 && s.offset == 0));
        if joined || counts.contains(&0.0) {
            (*spans, *counts) = Side::<f64>::of(spans, counts).into_spans();
        }
    }
    h
}

/// Whether two histograms hold the same data, bit for bit, whatever their reset hints.
pub fn same(a: &Histogram, b: &Histogram) -> bool {
    let bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
    let counts = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bits(*a, *b));
    a.schema == b.schema
        && bits(a.count, b.count)
        && bits(a.sum, b.sum)
        && bits(a.zero_count, b.zero_count)
        && a.zero_threshold == b.zero_threshold
        && a.custom_values == b.custom_values
        && same_spans(&a.positive_spans, &b.positive_spans)
        && same_spans(&a.negative_spans, &b.negative_spans)
        && counts(&a.positive, &b.positive)
        && counts(&a.negative, &b.negative)
}

/// Whether spans name the same buckets, in the same runs up to empty ones.
fn same_spans(a: &[Span], b: &[Span]) -> bool {
    fn folded(spans: &[Span]) -> impl Iterator<Item = Span> {
        let mut gap = 0i32;
        spans.iter().filter_map(move |s| {
            gap = gap.saturating_add(s.offset);
            (s.length > 0).then(|| Span { offset: std::mem::take(&mut gap), length: s.length })
        })
    }
    a == b || folded(a).eq(folded(b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{custom, of};
    use super::*;

    #[test]
    fn meets_at_the_lower_resolution() {
        let sum = add(&of(1, 1, &[1.0, 2.0, 3.0, 4.0]), &of(0, 1, &[10.0, 20.0])).unwrap().histogram;
        assert_eq!((sum.schema, sum.positive), (0, vec![13.0, 27.0]));
        let none = sub(&of(0, 1, &[1.0]), &of(0, 1, &[1.0])).unwrap().histogram;
        assert!(none.positive_spans.is_empty());
    }

    #[test]
    fn meets_at_the_wider_zero_bucket() {
        // (0.5, 1] straddles 0.6, so the zero bucket grows to 1 and takes it in; the other side follows.
        let mut narrow = of(0, 0, &[1.0, 2.0]);
        (narrow.negative_spans, narrow.negative) = (narrow.positive_spans.clone(), vec![4.0, 8.0]);
        let wide = Histogram { zero_threshold: 0.6, zero_count: 16.0, ..Histogram::default() };
        for (a, b) in [(&narrow, &wide), (&wide, &narrow)] {
            let sum = add(a, b).unwrap().histogram;
            assert_eq!((sum.zero_threshold, sum.zero_count), (1.0, 21.0));
            assert_eq!((sum.positive, sum.negative), (vec![2.0], vec![8.0]));
        }
        let odd = Histogram { zero_threshold: f64::NAN, ..Histogram::default() };
        assert!(add(&narrow, &odd).is_ok());
    }

    #[test]
    fn meets_at_the_bounds_both_have() {
        let combined = sub(&custom(&[1.0, 2.0, 4.0], &[1.0, 2.0, 3.0, 4.0]), &custom(&[2.0, 3.0], &[1.0, 1.0, 1.0]));
        let Combined { histogram, bounds_reconciled, .. } = combined.unwrap();
        assert!(bounds_reconciled);
        assert_eq!((histogram.custom_values, histogram.positive), (vec![2.0], vec![2.0, 5.0]));
        assert_eq!(add(&custom(&[1.0], &[1.0]), &of(0, 0, &[1.0])), Err(IncompatibleSchemas));
    }

    #[test]
    fn spans_that_name_the_same_buckets_are_the_same() {
        let span = |offset, length| Span { offset, length };
        assert!(same_spans(&[span(1, 1), span(2, 0), span(1, 2)], &[span(1, 1), span(3, 2)]));
        assert!(!same_spans(&[span(1, 1), span(0, 1)], &[span(1, 1), span(1, 1)]));
        let (a, mut b) = (of(0, 0, &[1.0]), of(0, 0, &[1.0]));
        b.reset_hint = ResetHint::Gauge;
        assert!(same(&a, &b));
    }
}
