//! The page as delimited messages `io.prometheus.client.MetricFamily`: the one form that carries native histograms.
//!
//! *Invariants:* a family is one message, so one family is in memory twice. A histogram keeps the sort of its counts,
//! integers or floats; without a bucket it has an empty span, or readers would take it for a classic one.
//!
//! *Not here:* the text form (`api::http::federate`), exemplars and start times (the page has the newest sample only).

use std::iter::Peekable;
use std::sync::Arc;

use prost::Message;

use super::{legible, own_labels};
use crate::api::http::body::{PIECE_BYTES, Pieces};
use crate::model::buckets::buckets;
use crate::model::histogram::Span;
use crate::model::labels::{is_legacy_label_name, is_legacy_metric_name};
use crate::model::{Histogram, ResetHint};
use crate::promql::exec::column::Sample;
use crate::proto::client::{self, Bucket, BucketSpan, LabelPair, Metric, MetricFamily, MetricType, Untyped};
use crate::query::{Active, Newest};

/// The page in the making.
pub(super) struct Families {
    rest: Peekable<std::vec::IntoIter<Newest>>,
    any_name: bool,
    _held: Arc<Active>,
}

impl Families {
    pub(super) fn new(samples: Vec<Newest>, any_name: bool, held: Arc<Active>) -> Self {
        Self { rest: samples.into_iter().peekable(), any_name, _held: held }
    }

    /// The next metrics of one name and type.
    fn family(&mut self) -> Option<MetricFamily> {
        while self.rest.next_if(|nameless| nameless.labels.metric().is_empty()).is_some() {}
        let first = self.rest.next()?;
        let (name, kind) = (first.labels.metric(), type_of(&first.sample));
        let mut metric = vec![self.metric(&first)];
        while let Some(next) = self.rest.next_if(|n| n.labels.metric() == name && type_of(&n.sample) == kind) {
            metric.push(self.metric(&next));
        }
        let name = self.name(name, is_legacy_metric_name(name));
        Some(MetricFamily { name, r#type: kind as i32, metric, ..MetricFamily::default() })
    }

    fn metric(&self, newest: &Newest) -> Metric {
        let label = own_labels(&newest.labels)
            .map(|(name, value)| LabelPair {
                name: self.name(name, is_legacy_label_name(name)),
                value: value.to_owned(),
            })
            .collect();
        let (untyped, histogram) = match &newest.sample {
            Sample::Float(value) => (Some(Untyped { value: *value }), None),
            Sample::Histogram(h) if h.is_custom() => (None, Some(classic(h))),
            Sample::Histogram(h) => (None, Some(native(h))),
        };
        Metric { label, untyped, histogram, timestamp_ms: newest.t, ..Metric::default() }
    }

    fn name(&self, name: &str, plain: bool) -> String {
        if plain || self.any_name { name.to_owned() } else { legible(name) }
    }
}

impl Pieces for Families {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < PIECE_BYTES {
            let Some(family) = self.family() else { return false };
            out.extend_from_slice(&family.encode_length_delimited_to_vec());
        }
        true
    }
}

fn type_of(sample: &Sample) -> MetricType {
    match sample {
        Sample::Float(_) => MetricType::Untyped,
        Sample::Histogram(h) if h.reset_hint == ResetHint::Gauge => MetricType::GaugeHistogram,
        Sample::Histogram(_) => MetricType::Histogram,
    }
}

/// Exponential buckets.
fn native(h: &Histogram) -> client::Histogram {
    let mut out = client::Histogram {
        sample_sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        negative_span: spans(&h.negative_spans),
        positive_span: spans(&h.positive_spans),
        ..client::Histogram::default()
    };
    if h.integer {
        (out.sample_count, out.zero_count) = (h.count as u64, h.zero_count as u64);
        (out.negative_delta, out.positive_delta) = (deltas(&h.negative), deltas(&h.positive));
    } else {
        (out.sample_count_float, out.zero_count_float) = (h.count, h.zero_count);
        (out.negative_count, out.positive_count) = (h.negative.clone(), h.positive.clone());
    }
    if out.negative_span.is_empty() && out.positive_span.is_empty() && h.zero_threshold == 0.0 {
        out.positive_span.push(BucketSpan::default());
    }
    out
}

/// Custom buckets as cumulative ones.
fn classic(h: &Histogram) -> client::Histogram {
    let filled = buckets(h);
    let mut filled = filled.iter().peekable();
    let mut below = 0.0;
    let mut bucket = Vec::with_capacity(h.custom_values.len() + 1);
    let count = |n: f64| if h.integer { (n as u64, 0.0) } else { (0, n) };
    for bound in h.custom_values.iter().copied().chain([f64::INFINITY]) {
        while let Some(next) = filled.next_if(|b| b.upper <= bound) {
            below += next.count;
        }
        // What lies above all bounds is known by the count alone.
        let (cumulative_count, cumulative_count_float) = count(if bound.is_infinite() { h.count } else { below });
        bucket.push(Bucket { cumulative_count, cumulative_count_float, upper_bound: bound, exemplar: None });
    }
    let (sample_count, sample_count_float) = count(h.count);
    client::Histogram { sample_count, sample_count_float, sample_sum: h.sum, bucket, ..client::Histogram::default() }
}

fn spans(spans: &[Span]) -> Vec<BucketSpan> {
    spans.iter().map(|s| BucketSpan { offset: s.offset, length: s.length }).collect()
}

/// Differences of neighbours, the first one from 0.
fn deltas(counts: &[f64]) -> Vec<i64> {
    let mut before = 0;
    counts.iter().map(|count| *count as i64 - std::mem::replace(&mut before, *count as i64)).collect()
}
