//! The sum or mean of native histograms on one step of a group.
//!
//! *Invariants:* exponential and custom buckets cannot be combined: such a step has no result, and says so.

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
    Incompatible,
}

impl HistogramCell {
    /// Begins a mean, or else a sum, with its first histogram.
    pub fn new(mean: bool, h: &Histogram) -> Self {
        let total = if mean { Total::Mean(Mean::of(h)) } else { Total::Sum(Accumulator::of(h)) };
        let mut hints = HintsSeen::default();
        hints.see(h.reset_hint);
        Self { total, hints }
    }

    /// Takes one more, of a metric; `span` is the place of the aggregated expression.
    pub fn push(&mut self, h: &Histogram, (span, metric): (Span, &str), notes: &mut Annotations) {
        let added = match &mut self.total {
            Total::Sum(sum) => sum.add(h, 1.0),
            Total::Mean(mean) => mean.push(h),
            Total::Incompatible => return,
        };
        self.hints.see(h.reset_hint);
        match added {
            Ok(added) if added.bounds_reconciled => notes.info(span, wording::reconciled_bounds("aggregation")),
            Ok(_) => {}
            Err(_) => {
                notes.warning(span, wording::mixed_schemas(metric));
                self.total = Total::Incompatible;
            }
        }
    }

    /// The outcome.
    pub fn finish(self, span: Span, notes: &mut Annotations) -> Option<Histogram> {
        let out = match self.total {
            Total::Sum(sum) => sum.finish(),
            Total::Mean(mean) => mean.finish(),
            Total::Incompatible => return None,
        };
        if self.hints.conflict() {
            notes.warning(span, wording::conflicting_resets("aggregation"));
        }
        Some(out)
    }
}
