//! Arithmetic on native histograms.
//!
//! *Invariants:* results are float histograms: counts need not be whole.
//!
//! *Not here:* what a histogram is (`model::histogram`), classic buckets (`functions::quantile`). Addition, subtraction,
//! reset detection, quantiles and trimming come with the native histogram functions.

use crate::model::{Histogram, ResetHint};

/// The histogram with all counts and the sum multiplied; a negative factor makes it a gauge.
pub fn scaled(h: &Histogram, factor: f64) -> Histogram {
    let times = |counts: &[f64]| counts.iter().map(|c| c * factor).collect();
    Histogram {
        integer: false,
        reset_hint: if factor < 0.0 { ResetHint::Gauge } else { h.reset_hint },
        zero_count: h.zero_count * factor,
        count: h.count * factor,
        sum: h.sum * factor,
        positive: times(&h.positive),
        negative: times(&h.negative),
        ..h.clone()
    }
}

/// The histogram with all counts and the sum divided.
pub fn divided(h: &Histogram, by: f64) -> Histogram {
    let over = |counts: &[f64]| counts.iter().map(|c| c / by).collect();
    Histogram {
        integer: false,
        reset_hint: if by < 0.0 { ResetHint::Gauge } else { h.reset_hint },
        zero_count: h.zero_count / by,
        count: h.count / by,
        sum: h.sum / by,
        positive: over(&h.positive),
        negative: over(&h.negative),
        ..h.clone()
    }
}
