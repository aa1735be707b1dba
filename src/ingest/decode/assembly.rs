//! The batch under construction: where both protocol versions put what they read, and where limits are kept.
//!
//! *Invariants:* rows of a refused series are taken back before the next one begins. Every `push` is preceded by a check
//! against the request's limits, so memory stays in proportion to them and not to what the bytes claim.
//!
//! *Not here:* wire formats (`v1`, `v2`).

use std::sync::Arc;

use super::DecodeLimits;
use super::histogram::{BucketBudget, HistogramReader};
use super::labels::LabelWriter;
use super::wire::{Fault, Reader, Wire};
use crate::ingest::outcome::{Reason, Rejections};
use crate::model::labels::series_hash_seeded;
use crate::model::{Batch, ExemplarRow, HistogramRow, Labels, MetadataRow, MetricType, SampleRow, SeriesRow};

/// Most characters of all names and values of one exemplar (OpenMetrics 1.0, "Exemplars").
const EXEMPLAR_CHARS: usize = 128;

/// Where the rows of a series begin.
pub(super) struct Marks {
    samples: usize,
    histograms: usize,
    exemplars: usize,
    /// Histograms and exemplars of this series refused on their own.
    refused: u64,
}

/// A batch under construction.
pub(super) struct Assembly<'a> {
    pub(super) batch: &'a mut Batch,
    pub(super) rejected: &'a mut Rejections,
    pub(super) labels: &'a mut LabelWriter,
    pub(super) exemplar_labels: &'a mut LabelWriter,
    pub(super) histogram: &'a mut HistogramReader,
    pub(super) limits: &'a DecodeLimits,
    pub(super) buckets: BucketBudget,
    /// Seed of the tenant's series hashes.
    pub(super) seed: u64,
    /// Series begun so far.
    pub(super) series: usize,
    /// Bytes of text that may still be made of the request (symbols can be referred to again and again).
    pub(super) text_left: usize,
}

impl Assembly<'_> {
    /// Begins a series.
    #[inline]
    pub(super) fn begin(&mut self, r: &Reader<'_>) -> Wire<Marks> {
        within(r, "series", self.series, self.limits.series)?;
        self.series += 1;
        self.labels.start();
        Ok(Marks {
            samples: self.batch.samples.len(),
            histograms: self.batch.histograms.len(),
            exemplars: self.batch.exemplars.len(),
            refused: 0,
        })
    }

    /// Adds a float.
    #[inline]
    pub(super) fn sample(&mut self, r: &Reader<'_>, row: SampleRow) -> Wire<()> {
        within(r, "samples", self.batch.samples.len(), self.limits.samples)?;
        self.batch.samples.push(row);
        Ok(())
    }

    /// Reads a native histogram and adds it, unless it contradicts itself.
    pub(super) fn histogram(&mut self, message: Reader<'_>, with_start: bool, marks: &mut Marks) -> Wire<()> {
        within(&message, "histograms", self.batch.histograms.len(), self.limits.histograms)?;
        self.histogram.read(message, with_start, &mut self.buckets).map_err(|e| e.inside("Histogram"))?;
        let (t, start) = (self.histogram.t, self.histogram.start);
        match self.histogram.build() {
            Ok(h) => self.batch.histograms.push(HistogramRow { t, h: Arc::new(h), start }),
            Err(problem) => {
                marks.refused += 1;
                let labels = &self.labels;
                let example = || format!("{} at {t}: {problem}", labels.describe());
                self.rejected.add(Reason::NativeHistogramInvalid, 1, example);
            }
        }
        Ok(())
    }

    /// Adds an exemplar of the labels last written to `exemplar_labels`, unless they are not well formed.
    pub(super) fn exemplar(&mut self, r: &Reader<'_>, t: i64, v: f64) -> Wire<()> {
        within(r, "exemplars", self.batch.exemplars.len(), self.limits.exemplars)?;
        let labels = self.exemplar_labels.finish().ok().and_then(|canonical| {
            // Four bytes of UTF-8 at most, and two lengths per label.
            let small = canonical.len() <= 6 * EXEMPLAR_CHARS;
            small.then(|| Labels::from_canonical(canonical)).flatten()
        });
        let chars = |l: &Labels| l.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum::<usize>();
        match labels.filter(|l| chars(l) <= EXEMPLAR_CHARS) {
            Some(labels) => self.batch.exemplars.push(ExemplarRow { t, v, labels }),
            None => {
                let (series, exemplar) = (&self.labels, &self.exemplar_labels);
                let example = || format!("exemplar {} of {}", exemplar.describe(), series.describe());
                self.rejected.add(Reason::ExemplarInvalid, 1, example);
            }
        }
        Ok(())
    }

    /// Ends a series; `created` is the start timestamp of those of its samples that have none of their own.
    #[inline]
    pub(super) fn end(&mut self, r: &Reader<'_>, marks: &Marks, created: i64) -> Wire<()> {
        let samples = self.batch.samples.len() - marks.samples + self.batch.histograms.len() - marks.histograms;
        if samples == 0 && self.batch.exemplars.len() == marks.exemplars {
            return Ok(());
        }
        let canonical = match self.labels.finish() {
            Ok(canonical) => canonical,
            Err(reason) => {
                self.refuse(marks, reason, samples as u64);
                return Ok(());
            }
        };
        let from = self.batch.labels.len();
        spend(&mut self.text_left, self.limits, r, canonical.len())?;
        self.batch.labels.push_str(canonical);
        self.batch.series.push(SeriesRow {
            labels: from as u32..self.batch.labels.len() as u32,
            hash: series_hash_seeded(self.seed, canonical),
            samples: marks.samples as u32..self.batch.samples.len() as u32,
            histograms: marks.histograms as u32..self.batch.histograms.len() as u32,
            exemplars: marks.exemplars as u32..self.batch.exemplars.len() as u32,
        });
        if created != 0 {
            self.set_starts(marks, created);
        }
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, marks: &Marks, reason: Reason, samples: u64) {
        self.batch.samples.truncate(marks.samples);
        self.batch.histograms.truncate(marks.histograms);
        self.batch.exemplars.truncate(marks.exemplars);
        let (index, labels) = (self.series - 1, &self.labels);
        self.rejected.add(reason, samples, || format!("series {index} {}", labels.describe()));
    }

    fn set_starts(&mut self, marks: &Marks, created: i64) {
        for row in self.batch.samples[marks.samples..].iter_mut().filter(|row| row.start == 0) {
            row.start = created;
        }
        for row in self.batch.histograms[marks.histograms..].iter_mut().filter(|row| row.start == 0) {
            row.start = created;
        }
    }

    /// Adds what a source says about a metric.
    pub(super) fn metadata(
        &mut self,
        r: &Reader<'_>,
        metric: &str,
        kind: MetricType,
        help: &str,
        unit: &str,
    ) -> Wire<()> {
        if metric.is_empty() {
            return Ok(());
        }
        within(r, "metadata entries", self.batch.metadata.len(), self.limits.metadata)?;
        spend(&mut self.text_left, self.limits, r, metric.len() + help.len() + unit.len())?;
        let (metric, help, unit) = (metric.into(), help.into(), unit.into());
        self.batch.metadata.push(MetadataRow { metric, kind, help, unit });
        Ok(())
    }
}

#[inline]
fn within(r: &Reader<'_>, what: &'static str, have: usize, limit: usize) -> Wire<()> {
    if have >= limit { r.fail(Fault::TooMany { what, limit }) } else { Ok(()) }
}

#[inline]
fn spend(left: &mut usize, limits: &DecodeLimits, r: &Reader<'_>, bytes: usize) -> Wire<()> {
    match left.checked_sub(bytes) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => r.fail(Fault::TooMany { what: "bytes of labels and metadata", limit: limits.text_bytes }),
    }
}
