//! Values of expressions while a query runs: dense columns, one place per step.
//!
//! *Invariants:* all columns of one node have as many places as its grid has steps. Where a sample is a native
//! histogram its place in `values` is [`ABSENT`] and `histograms` holds it, ascending by step.
//!
//! *Not here:* results as callers get them (`exec::result`).

use std::sync::Arc;

use crate::model::{Histogram, Labels};
use crate::promql::functions::window::{ABSENT, is_absent};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// The samples of one series, step by step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    /// Floats; [`ABSENT`] where there is none.
    pub values: Vec<f64>,
    /// Native histograms by step.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
}

impl Column {
    /// An empty column of `steps` places.
    pub fn absent(steps: usize) -> Self {
        Self { values: vec![ABSENT; steps], histograms: Vec::new() }
    }

    /// Empties the column and gives it `steps` places, keeping the memory.
    pub fn reset(&mut self, steps: usize) {
        self.values.clear();
        self.values.resize(steps, ABSENT);
        self.histograms.clear();
    }

    /// The histogram at a step.
    pub fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let at = self.histograms.binary_search_by_key(&(step as u32), |(s, _)| *s).ok()?;
        Some(&self.histograms[at].1)
    }

    /// The sample at a step.
    pub fn sample(&self, step: usize) -> Option<Sample> {
        let v = self.values[step];
        if !is_absent(v) {
            return Some(Sample::Float(v));
        }
        self.histogram(step).map(|h| Sample::Histogram(Arc::clone(h)))
    }

    /// Whether there is a sample at a step.
    pub fn has(&self, step: usize) -> bool {
        !is_absent(self.values[step]) || self.histogram(step).is_some()
    }

    /// Whether there is no sample at all.
    pub fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.values.iter().all(|v| is_absent(*v))
    }

    /// Puts a sample at a step; steps with histograms must come in order.
    pub fn put(&mut self, step: usize, sample: Sample) {
        match sample {
            Sample::Float(v) => self.values[step] = v,
            Sample::Histogram(h) => self.histograms.push((step as u32, h)),
        }
    }

    /// Takes over the samples of another column; `false` when both have one at the same step.
    #[must_use]
    pub fn merge(&mut self, other: &Column) -> bool {
        if (0..other.values.len()).any(|step| other.has(step) && self.has(step)) {
            return false;
        }
        for (mine, v) in self.values.iter_mut().zip(&other.values).filter(|(_, v)| !is_absent(**v)) {
            *mine = *v;
        }
        if !other.histograms.is_empty() {
            self.histograms.extend_from_slice(&other.histograms);
            // Histograms of the two may interleave.
            self.histograms.sort_by_key(|(s, _)| *s);
        }
        true
    }

    /// Number of samples; a histogram counts for as many as take its room.
    pub fn samples(&self) -> usize {
        let histograms: usize = self.histograms.iter().map(|(_, h)| h.heap_bytes().div_ceil(16)).sum();
        self.values.iter().filter(|v| !is_absent(**v)).count() + histograms
    }

    /// Bytes held (histograms are shared and count once for each reference).
    pub fn bytes(&self) -> usize {
        8 * self.values.capacity() + self.histograms.iter().map(|(_, h)| h.heap_bytes()).sum::<usize>()
    }
}

/// A series of an instant vector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Labels; with delayed name removal they still hold a name that is already `dropped`.
    pub labels: Labels,
    /// The metric name (and type and unit) is to be removed at the end of the query.
    pub dropped: bool,
    /// Samples.
    pub column: Column,
}

impl Series {
    /// Bytes held. Labels count for each series that refers to them.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.labels.heap_bytes() + self.column.bytes()
    }
}

/// An instant vector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vector {
    /// Series in a fixed order.
    pub series: Vec<Series>,
    /// The order means something (`sort`, `topk`) and has to be kept in the answer of an instant query.
    pub ordered: bool,
}

impl From<Vec<Series>> for Vector {
    fn from(series: Vec<Series>) -> Self {
        Self { series, ordered: false }
    }
}

/// A scalar on each step.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarColumn {
    /// The same everywhere.
    Same(f64),
    /// One value per step.
    Steps(Vec<f64>),
}

impl ScalarColumn {
    /// The value on a step.
    #[inline(always)]
    pub fn at(&self, step: usize) -> f64 {
        match self {
            Self::Same(v) => *v,
            Self::Steps(values) => values[step],
        }
    }

    /// One value per step.
    pub fn to_vec(&self, steps: usize) -> Vec<f64> {
        match self {
            Self::Same(v) => vec![*v; steps],
            Self::Steps(values) => values.clone(),
        }
    }
}

/// The value of a node.
#[derive(Debug, Clone)]
pub enum Value {
    /// A scalar.
    Scalar(ScalarColumn),
    /// A string, not necessarily UTF-8.
    Text(Box<[u8]>),
    /// An instant vector.
    Vector(Vector),
    /// A range vector: the answer of an instant query.
    Matrix(Vec<super::result::RangeSeries>),
}

impl Value {
    /// Samples and bytes of it.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Self::Scalar(ScalarColumn::Steps(v)) => (v.len(), 8 * v.len()),
            Self::Vector(v) => v.series.iter().fold((0, 0), |(n, b), s| (n + s.column.samples(), b + s.bytes())),
            Self::Matrix(m) => m.iter().fold((0, 0), |(n, b), s| (n + s.samples(), b + s.bytes())),
            _ => (0, 0),
        }
    }
}
