//! The sum or mean of native histograms on one step of a group.
//!
//! *Invariants:* exponential and custom buckets cannot be combined, nor can floats and histograms: such a step has no
//! result, and says so. Behind floats histograms are not looked at, and the other way round.

use super::histogram_notes as wording;
use crate::model::Histogram;
use crate::promql::annotations::Annotations;
use crate::promql::functions::histogram_range::HintsSeen;
use crate::promql::histogram::{Accumulator, Compensated, Mean};
use crate::promql::position::Span;

/// A sum or mean under way.
pub struct HistogramCell {
    total: Total,
    hints: HintsSeen,
}

enum Total {
    Sum(Accumulator<Compensated>),
    Mean(Mean),
    /// Exponential and custom buckets met; whether floats were there before.
    Incompatible {
        with_floats: bool,
    },
    /// Floats came first.
    BehindFloats,
}

impl HistogramCell {
    /// Begins a mean, or else a sum, with its first histogram.
    pub fn new(mean: bool, h: &Histogram) -> Self {
        let total = if mean { Total::Mean(Mean::of(h)) } else { Total::Sum(Accumulator::of(h)) };
        let mut hints = HintsSeen::default();
        hints.see(h.reset_hint);
        Self { total, hints }
    }

    /// What there is where floats came first.
    pub fn behind_floats() -> Self {
        Self { total: Total::BehindFloats, hints: HintsSeen::default() }
    }

    /// Takes one more, of a metric; `span` is the place of the aggregated expression, `floats` whether there were any.
    pub fn push(&mut self, h: &Histogram, floats: bool, (span, metric): (Span, &str), notes: &mut Annotations) {
        let added = match &mut self.total {
            Total::Sum(sum) => sum.add(h, 1.0),
            Total::Mean(mean) => mean.push(h),
            Total::Incompatible { .. } | Total::BehindFloats => return,
        };
        self.hints.see(h.reset_hint);
        match added {
            Ok(added) if added.bounds_reconciled => notes.info(span, wording::reconciled_bounds("aggregation")),
            Ok(_) => {}
            Err(_) => {
                notes.warning(span, wording::mixed_schemas(metric));
                self.total = Total::Incompatible { with_floats: floats };
            }
        }
    }

    /// The outcome; `floats` says whether there were any.
    pub fn finish(self, floats: bool, span: Span, notes: &mut Annotations) -> Option<Histogram> {
        if floats && !matches!(self.total, Total::Incompatible { with_floats: false }) {
            notes.warning(span, "encountered a mix of histograms and floats for aggregation");
            return None;
        }
        let out = match self.total {
            Total::Sum(sum) => sum.finish(),
            Total::Mean(mean) => mean.finish(),
            Total::Incompatible { .. } | Total::BehindFloats => return None,
        };
        if self.hints.conflict() {
            notes.warning(span, wording::conflicting_resets("aggregation"));
        }
        Some(out)
    }
}
