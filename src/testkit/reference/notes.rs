//! The texts of warnings and infos.
//!
//! *Invariants:* texts are Prometheus' own, without prefix and position.
//!
//! *Not here:* collecting (`promql::annotations`).

use crate::model::labels::Quoted;

/// Texts that may name the metric they are about.
fn of_metric(text: &str, metric: &str) -> String {
    if metric.is_empty() { text.to_owned() } else { format!("{text} for metric name {}", Quoted(metric)) }
}

pub(super) fn bad_bucket_label(label: &str, metric: &str) -> String {
    of_metric(&format!("bucket label \"le\" is missing or has a malformed value of {}", Quoted(label)), metric)
}

pub(super) fn classic_and_native(metric: &str) -> String {
    of_metric("vector contains a mix of classic and native histograms", metric)
}

pub(super) fn forced_monotonicity(metric: &str) -> String {
    let link = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile";
    of_metric(&format!("input to histogram_quantile needed to be fixed for monotonicity (see {link})"), metric)
}

pub(super) fn quantile_is_nan(metric: &str) -> String {
    of_metric("input to histogram_quantile has NaN observations, result is NaN", metric)
}

pub(super) fn quantile_is_skewed(metric: &str) -> String {
    of_metric("input to histogram_quantile has NaN observations, result is skewed higher", metric)
}

pub(super) fn fraction_without_nan(metric: &str) -> String {
    let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
    of_metric(text, metric)
}

pub(super) fn floats_and_histograms(metric: &str) -> String {
    format!("encountered a mix of histograms and floats for metric name {}", Quoted(metric))
}

pub(super) fn exponential_and_custom(metric: &str) -> String {
    let text = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
    format!("{text} {}", Quoted(metric))
}

pub(super) fn ignored_in_range(metric: &str) -> String {
    let text = "ignored histograms in a range containing both floats and histograms for metric name";
    format!("{text} {}", Quoted(metric))
}

pub(super) fn not_a_counter(metric: &str) -> String {
    format!("this native histogram metric is not a counter: {}", Quoted(metric))
}

pub(super) fn not_a_gauge(metric: &str) -> String {
    format!("this native histogram metric is not a gauge: {}", Quoted(metric))
}

pub(super) fn start_overlaps(metric: &str) -> String {
    format!("sample has start time that overlaps with previous sample timestamp for metric {}", Quoted(metric))
}

pub(super) fn maybe_no_counter_by_name(metric: &str) -> String {
    let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
    format!("{text} {}", Quoted(metric))
}

pub(super) fn maybe_no_counter_by_label(declared: &str, metric: &str) -> String {
    let text = "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got";
    format!("{text} {}: {}", Quoted(declared), Quoted(metric))
}

pub(super) fn bad_quantile(q: f64) -> String {
    format!("quantile value should be between 0 and 1, got {}", crate::model::number::format_g(q))
}

pub(super) fn bad_ratio(ratio: f64, capped: f64) -> String {
    let ratio = crate::model::number::format_g(ratio);
    format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}")
}

pub(super) fn ignored_in_aggregation(aggregation: &str) -> String {
    format!("ignored histogram in {aggregation} aggregation")
}

pub(super) const FLOATS_AND_HISTOGRAMS_AGGREGATED: &str = "encountered a mix of histograms and floats for aggregation";

pub(super) const SORT_IN_RANGE_QUERY: &str =
    "sort is ineffective for range queries since results are always ordered by labels";

/// What was done to two native histograms that did not quite fit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doing {
    Addition,
    Subtraction,
    Aggregation,
}

impl Doing {
    fn word(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

pub(super) fn bounds_reconciled(doing: Doing) -> String {
    format!("mismatched custom buckets were reconciled during {}", doing.word())
}

pub(super) fn conflicting_resets(doing: Doing) -> String {
    format!("conflicting counter resets during histogram {}", doing.word())
}
