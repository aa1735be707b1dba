//! What became of the samples of a write request: counts, and why some were refused.
//!
//! *Invariants:* labels and ids of a [`Reason`] never change: dashboards and runbooks name them.
//!
//! *Not here:* who decides (`decode`, `admit`, the shard's head), status codes (`api`).

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::error::Kind;
use crate::model::TenantId;

/// Why a sample was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// A label without a name, not UTF-8, or referring to no symbol.
    LabelInvalid,
    /// Two labels of the same name.
    DuplicateLabelNames,
    /// A label set longer than any limit of a tenant allows.
    LabelSetTooLong,
    /// No `__name__`.
    MissingMetricName,
    /// More labels than the tenant may use.
    MaxLabelNamesPerSeries,
    /// A longer label name than the tenant may use.
    LabelNameTooLong,
    /// A longer label value than the tenant may use.
    LabelValueTooLong,
    /// A native histogram that contradicts itself.
    NativeHistogramInvalid,
    /// An exemplar that is not well formed or too long.
    ExemplarInvalid,
    /// A timestamp beyond the grace period.
    TooFarInFuture,
    /// A timestamp before the out-of-order window.
    SampleTooOld,
    /// Another value at a timestamp that has one.
    NewValueForTimestamp,
    /// A new series where the tenant has all it may have.
    MaxSeriesPerUser,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 13] = [
        Self::LabelInvalid,
        Self::DuplicateLabelNames,
        Self::LabelSetTooLong,
        Self::MissingMetricName,
        Self::MaxLabelNamesPerSeries,
        Self::LabelNameTooLong,
        Self::LabelValueTooLong,
        Self::NativeHistogramInvalid,
        Self::ExemplarInvalid,
        Self::TooFarInFuture,
        Self::SampleTooOld,
        Self::NewValueForTimestamp,
        Self::MaxSeriesPerUser,
    ];

    /// Value of the metric label `reason` (Mimir's, where it has one).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LabelInvalid => "label_invalid",
            Self::DuplicateLabelNames => "duplicate_label_names",
            Self::LabelSetTooLong => "label_set_too_long",
            Self::MissingMetricName => "missing_metric_name",
            Self::MaxLabelNamesPerSeries => "max_label_names_per_series",
            Self::LabelNameTooLong => "label_name_too_long",
            Self::LabelValueTooLong => "label_value_too_long",
            Self::NativeHistogramInvalid => "native_histogram_invalid",
            Self::ExemplarInvalid => "exemplar_invalid",
            Self::TooFarInFuture => "too_far_in_future",
            Self::SampleTooOld => "sample_too_old",
            Self::NewValueForTimestamp => "new_value_for_timestamp",
            Self::MaxSeriesPerUser => "per_user_series_limit",
        }
    }

    /// The reason with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The id that error texts carry, so that existing runbooks are found.
    pub fn id(self) -> &'static str {
        match self {
            Self::LabelInvalid => "err-mimir-label-invalid",
            Self::DuplicateLabelNames => "err-mimir-duplicate-label-names",
            Self::LabelSetTooLong => "err-mimir-label-set-too-long",
            Self::MissingMetricName => "err-mimir-missing-metric-name",
            Self::MaxLabelNamesPerSeries => "err-mimir-max-label-names-per-series",
            Self::LabelNameTooLong => "err-mimir-label-name-too-long",
            Self::LabelValueTooLong => "err-mimir-label-value-too-long",
            Self::NativeHistogramInvalid => "err-mimir-native-histogram-invalid",
            Self::ExemplarInvalid => "err-mimir-exemplar-invalid",
            Self::TooFarInFuture => "err-mimir-too-far-in-future",
            Self::SampleTooOld => "err-mimir-sample-timestamp-too-old",
            Self::NewValueForTimestamp => "err-mimir-sample-duplicate-timestamp",
            Self::MaxSeriesPerUser => "err-mimir-max-series-per-user",
        }
    }

    /// What the sender should do: slow down ([`Kind::Limited`]) or fix its samples ([`Kind::Invalid`]).
    pub fn kind(self) -> Kind {
        match self {
            Self::MaxSeriesPerUser => Kind::Limited,
            _ => Kind::Invalid,
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Refused samples by reason, with the first as an example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rejections {
    counts: [u64; Reason::ALL.len()],
    first: Option<(Reason, String)>,
}

impl Rejections {
    /// Counts `samples` refused for `reason`; `example` says what exactly, and is asked only for the first refusal.
    pub fn add(&mut self, reason: Reason, samples: u64, example: impl FnOnce() -> String) {
        self.counts[reason as usize] += samples;
        if self.first.is_none() {
            self.first = Some((reason, example()));
        }
    }

    /// Adds what another stage refused.
    pub fn merge(&mut self, other: &Rejections) {
        for (into, n) in self.counts.iter_mut().zip(other.counts) {
            *into += n;
        }
        if self.first.is_none() {
            self.first.clone_from(&other.first);
        }
    }

    /// The first refusal and what exactly was wrong.
    pub fn first(&self) -> Option<(Reason, &str)> {
        self.first.as_ref().map(|(reason, example)| (*reason, example.as_str()))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Samples refused.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Samples refused for `reason`.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// Reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().map(|r| (r, self.count(r))).filter(|(_, n)| *n > 0)
    }

    /// What the sender should do about it; `None` when nothing was refused.
    ///
    /// A limit wins over bad samples: the request is worth sending again, as what was stored is not stored twice.
    pub fn kind(&self) -> Option<Kind> {
        let mut kinds = self.iter().map(|(r, _)| r.kind());
        let first = kinds.next()?;
        Some(if first == Kind::Limited || kinds.any(|k| k == Kind::Limited) { Kind::Limited } else { first })
    }
}

impl fmt::Display for Rejections {
    /// `3 samples rejected (2 too_far_in_future, 1 label_invalid); first: … (err-mimir-…)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "{total} sample{} rejected (", if total == 1 { "" } else { "s" })?;
        for (i, (reason, n)) in self.iter().enumerate() {
            write!(f, "{}{n} {}", if i == 0 { "" } else { ", " }, reason.as_str())?;
        }
        f.write_str(")")?;
        match &self.first {
            Some((reason, example)) => write!(f, "; first: {example} ({})", reason.id()),
            None => Ok(()),
        }
    }
}

/// What became of one write request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriteOutcome {
    /// Floats stored (a repeated equal sample counts).
    pub samples: u64,
    /// Native histograms stored.
    pub histograms: u64,
    /// Exemplars stored.
    pub exemplars: u64,
    /// What was refused and why.
    pub rejected: Rejections,
}

impl WriteOutcome {
    /// Adds what another part of the same request came to.
    pub fn merge(&mut self, other: &WriteOutcome) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.rejected.merge(&other.rejected);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectLabels {
    reason: Reason,
    tenant: String,
}

/// Samples in, by tenant and fate.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    written: Family<TenantLabel, Counter>,
    histograms: Family<TenantLabel, Counter>,
    exemplars: Family<TenantLabel, Counter>,
    rejected: Family<RejectLabels, Counter>,
}

impl Metrics {
    /// Registers the metrics of this module.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("written_samples", "Float samples stored and acknowledged", m.written.clone());
        registry.register("written_histograms", "Native histograms stored and acknowledged", m.histograms.clone());
        registry.register("written_exemplars", "Exemplars stored and acknowledged", m.exemplars.clone());
        registry.register("rejected_samples", "Samples refused, by reason", m.rejected.clone());
        m
    }

    /// Counts a finished request (once per request: the look-ups are not for each sample).
    pub fn record(&self, tenant: &TenantId, outcome: &WriteOutcome) {
        let label = || TenantLabel { tenant: tenant.as_str().to_owned() };
        for (family, n) in [
            (&self.written, outcome.samples),
            (&self.histograms, outcome.histograms),
            (&self.exemplars, outcome.exemplars),
        ] {
            if n > 0 {
                family.get_or_create(&label()).inc_by(n);
            }
        }
        for (reason, n) in outcome.rejected.iter() {
            self.rejected.get_or_create(&RejectLabels { reason, tenant: tenant.as_str().to_owned() }).inc_by(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_their_counts() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }

    #[test]
    fn text_names_counts_and_the_first_example() {
        let mut r = Rejections::default();
        assert_eq!(r.kind(), None);
        r.add(Reason::TooFarInFuture, 2, || "up at 17".into());
        r.add(Reason::LabelInvalid, 1, || panic!("only the first example is kept"));
        assert_eq!(
            r.to_string(),
            "3 samples rejected (1 label_invalid, 2 too_far_in_future); first: up at 17 (err-mimir-too-far-in-future)"
        );
        assert_eq!(r.kind(), Some(Kind::Invalid));
        r.add(Reason::MaxSeriesPerUser, 1, String::new);
        assert_eq!(r.kind(), Some(Kind::Limited));
    }

    #[test]
    fn metrics_carry_reason_and_tenant() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let mut outcome = WriteOutcome { samples: 3, ..WriteOutcome::default() };
        outcome.rejected.add(Reason::LabelInvalid, 2, String::new);
        metrics.record(&TenantId::anonymous(), &outcome);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("rejected_samples_total{reason=\"label_invalid\",tenant=\"anonymous\"} 2"), "{text}");
        assert!(text.contains("written_samples_total{tenant=\"anonymous\"} 3"), "{text}");
    }
}
