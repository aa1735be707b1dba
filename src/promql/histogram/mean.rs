//! The mean of native histograms.
//!
//! *Invariants:* the sum is compensated and divided at the end; where it would overflow, the mean goes on incrementally.

use super::accumulator::{Accumulator, Added, IncompatibleSchemas};
use super::arithmetic::divided;
use super::cell::Compensated;
use crate::model::Histogram;

/// A mean under way.
#[derive(Debug, Clone)]
pub struct Mean {
    /// The sum, or once that would overflow the mean.
    total: Accumulator<Compensated>,
    taken: f64,
    incremental: bool,
    /// No number in `total` can be larger.
    magnitude: f64,
}

impl Mean {
    /// The mean of one histogram.
    pub fn of(h: &Histogram) -> Self {
        Self { total: Accumulator::of(h), taken: 1.0, incremental: false, magnitude: magnitude(h) }
    }

    /// Takes one more histogram.
    pub fn push(&mut self, h: &Histogram) -> Result<Added, IncompatibleSchemas> {
        self.taken += 1.0;
        if !self.incremental {
            self.magnitude += magnitude(h);
            if self.magnitude.is_finite() {
                return self.total.add(h, 1.0);
            }
            // It may overflow now: try it.
            let mut sum = self.total.clone();
            let added = sum.add(h, 1.0)?;
            if !sum.overflows() {
                self.total = sum;
                return Ok(added);
            }
            self.incremental = true;
            let before = self.taken - 1.0;
            self.total.map(|v| v / before);
        }
        let weight = (self.taken - 1.0) / self.taken;
        self.total.map(|v| v * weight);
        self.total.add(&divided(h, self.taken), 1.0)
    }

    /// The mean.
    pub fn finish(mut self) -> Histogram {
        if !self.incremental {
            let taken = self.taken;
            self.total.map(|v| v / taken);
        }
        self.total.finish()
    }
}

/// The largest number of a histogram.
fn magnitude(h: &Histogram) -> f64 {
    let buckets = h.positive.iter().chain(&h.negative);
    [h.zero_count, h.count, h.sum].iter().chain(buckets).fold(0.0, |m, v| m.max(v.abs()))
}
