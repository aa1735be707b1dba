//! Arithmetic on native histograms, and what is read from them: quantiles, fractions, parts.
//!
//! *Invariants:* operations do not change their operands. Malformed histograms give odd results, never a panic.
//!
//! *Not here:* what a histogram is (`model::histogram`), classic buckets (`functions::quantile`), windows of them
//! (`functions::histogram_range`).

pub mod accumulator;
pub mod arithmetic;
pub mod cell;
pub mod mean;
pub mod quantile;
pub mod reset;
pub mod side;
pub mod text;
pub mod trim;

pub use accumulator::{Accumulator, IncompatibleSchemas};
pub use arithmetic::{Combined, add, compacted, divided, same, scaled, sub};
pub use cell::Compensated;
pub use mean::Mean;
pub use quantile::{NanObservations, fraction, quantile, variance};
pub use reset::detect_reset;
pub use text::text;
pub use trim::{Keep, trimmed};

#[cfg(test)]
mod tests {
    use crate::model::histogram::CUSTOM_BUCKETS_SCHEMA;
    use crate::model::{Histogram, Span};

    /// Positive buckets from an index on.
    pub fn of(schema: i32, offset: i32, counts: &[f64]) -> Histogram {
        Histogram {
            schema,
            count: counts.iter().sum(),
            positive: counts.to_vec(),
            positive_spans: vec![Span { offset, length: counts.len() as u32 }],
            ..Histogram::default()
        }
    }

    /// Custom buckets.
    pub fn custom(bounds: &[f64], counts: &[f64]) -> Histogram {
        Histogram { custom_values: bounds.to_vec(), ..of(CUSTOM_BUCKETS_SCHEMA, 0, counts) }
    }
}
