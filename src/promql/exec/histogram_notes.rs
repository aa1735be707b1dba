//! What several operations have to say about samples, above all native histograms, in Prometheus' words.

use crate::model::labels::Quoted;

/// Exponential and custom buckets in one sum.
pub fn mixed_schemas(metric: &str) -> String {
    let text = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
    format!("{text} {}", Quoted(metric))
}

/// Samples contradict each other about when the counter began.
pub fn start_overlap(metric: &str) -> String {
    let text = "sample has start time that overlaps with previous sample timestamp for metric";
    format!("{text} {}", Quoted(metric))
}

/// Custom bounds were cut down to the common ones; `operation` is `addition`, `subtraction` or `aggregation`.
pub fn reconciled_bounds(operation: &str) -> String {
    format!("mismatched custom buckets were reconciled during {operation}")
}

/// Some operands follow a counter reset and others do not.
pub fn conflicting_resets(operation: &str) -> String {
    format!("conflicting counter resets during histogram {operation}")
}
