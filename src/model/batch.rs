//! The decoded samples of one write request: flat tables that refer to one text of canonical label sets.
//!
//! *Invariants:* ranges of a [`SeriesRow`] lie inside the tables they name; `labels` holds canonical forms
//! (`model::labels`) back to back. Rows are not yet admitted: limits and order are judged later.
//!
//! *Not here:* wire formats (`ingest::decode`), admission (`ingest::admit`), routing (`ingest::distributor`).

use std::ops::Range;
use std::sync::Arc;

use super::{Histogram, Labels};

/// One series of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesRow {
    /// Its label set within [`Batch::labels`].
    pub labels: Range<u32>,
    /// [`series_hash`](super::labels::series_hash) of tenant and labels.
    pub hash: u64,
    /// Its floats within [`Batch::samples`].
    pub samples: Range<u32>,
    /// Its native histograms within [`Batch::histograms`].
    pub histograms: Range<u32>,
    /// Its exemplars within [`Batch::exemplars`].
    pub exemplars: Range<u32>,
}

/// One float sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRow {
    /// Timestamp, milliseconds.
    pub t: i64,
    /// Value; NaN bits matter (stale marker).
    pub v: f64,
    /// Start (created) timestamp, milliseconds; 0 is none.
    pub start: i64,
}

/// One native histogram sample.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramRow {
    /// Timestamp, milliseconds.
    pub t: i64,
    /// The histogram.
    pub h: Arc<Histogram>,
    /// Start (created) timestamp, milliseconds; 0 is none.
    pub start: i64,
}

/// One exemplar.
#[derive(Debug, Clone, PartialEq)]
pub struct ExemplarRow {
    /// Timestamp, milliseconds.
    pub t: i64,
    /// Value.
    pub v: f64,
    /// Labels of the exemplar (not of its series).
    pub labels: Labels,
}

/// Kind of a metric as its source declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum MetricType {
    /// Not declared.
    #[default]
    Unknown = 0,
    /// Counter.
    Counter = 1,
    /// Gauge.
    Gauge = 2,
    /// Histogram, classic or native.
    Histogram = 3,
    /// Gauge histogram.
    GaugeHistogram = 4,
    /// Summary.
    Summary = 5,
    /// Info.
    Info = 6,
    /// State set.
    StateSet = 7,
}

impl MetricType {
    /// The type with this number in remote write (1.0 and 2.0 agree); others read as unknown.
    pub fn from_wire(n: u64) -> Self {
        [
            Self::Unknown,
            Self::Counter,
            Self::Gauge,
            Self::Histogram,
            Self::GaugeHistogram,
            Self::Summary,
            Self::Info,
            Self::StateSet,
        ]
        .get(n as usize)
        .copied()
        .unwrap_or_default()
    }

    /// The word the HTTP API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// What a source says about a metric family.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MetadataRow {
    /// Metric (family) name.
    pub metric: Arc<str>,
    /// Declared type.
    pub kind: MetricType,
    /// Help text.
    pub help: Arc<str>,
    /// Unit.
    pub unit: Arc<str>,
}

/// The decoded request. Reused between requests: [`Batch::clear`] keeps the memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Canonical label sets, one after another.
    pub labels: String,
    /// Series in the order of the request.
    pub series: Vec<SeriesRow>,
    /// All floats.
    pub samples: Vec<SampleRow>,
    /// All native histograms.
    pub histograms: Vec<HistogramRow>,
    /// All exemplars.
    pub exemplars: Vec<ExemplarRow>,
    /// All metadata.
    pub metadata: Vec<MetadataRow>,
}

impl Batch {
    /// Forgets the request, keeping the memory.
    pub fn clear(&mut self) {
        self.labels.clear();
        self.series.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.metadata.clear();
    }

    /// The canonical label set of a series of this batch.
    pub fn labels_of(&self, row: &SeriesRow) -> &str {
        &self.labels[row.labels.start as usize..row.labels.end as usize]
    }

    /// The floats of a series of this batch.
    pub fn samples_of(&self, row: &SeriesRow) -> &[SampleRow] {
        &self.samples[row.samples.start as usize..row.samples.end as usize]
    }

    /// The histograms of a series of this batch.
    pub fn histograms_of(&self, row: &SeriesRow) -> &[HistogramRow] {
        &self.histograms[row.histograms.start as usize..row.histograms.end as usize]
    }

    /// The exemplars of a series of this batch.
    pub fn exemplars_of(&self, row: &SeriesRow) -> &[ExemplarRow] {
        &self.exemplars[row.exemplars.start as usize..row.exemplars.end as usize]
    }
}
