//! Samples of an answer as they were fetched, decoded a page or two at a time when they are taken.
//!
//! *Invariants:* a batch of neighbouring series is decoded when the first of them is taken and dropped with the last, so
//! that taking series in block order holds one batch, and taking all of them once more, afterwards, too. Batches begin
//! where pages begin as far as that is possible.
//!
//! *Not here:* fetching (`select`), Parquet (`fetch`).

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::Result;
use super::fetch::Sparse;
use super::reader::RowsFile;
use super::select::{Part, Plan, Timelines, inside};
use crate::model::{Columns, Labels, TimeRange};

/// Series of a batch, at least, if pages are smaller; a decoder takes longer to set up than to decode a small page.
const FEWEST: usize = 16;

/// Series of a batch, at most.
const MOST: usize = 64;

/// What an answer needs of one file.
pub(crate) struct PackedFile {
    pub(crate) rows: Arc<RowsFile>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) bytes: Sparse,
    pub(crate) timelines: Timelines,
}

impl PackedFile {
    fn decode(&self, part: &mut Part) -> Result<()> {
        self.plans.iter().try_for_each(|plan| plan.decode(&self.rows.file, &self.bytes, &self.timelines, part))
    }

    fn heap_bytes(&self) -> usize {
        let timelines: usize = self.timelines.values().map(|t| 8 * t.capacity() + 64).sum();
        self.bytes.heap_bytes() + timelines + self.plans.iter().map(|p| size_of_val(p.hits())).sum::<usize>()
    }
}

/// The series of one answer of one block.
pub(crate) struct Packed {
    files: Vec<PackedFile>,
    range: TimeRange,
    /// Number of series asked for.
    wanted: usize,
    /// Positions at which batches begin; ascending, the first is 0.
    batches: Vec<usize>,
    /// Bytes of the largest batch once it is decoded.
    largest_batch: usize,
    /// Each batch has a lock of its own: who needs it waits until it is decoded, others go on.
    open: Mutex<HashMap<usize, Arc<Mutex<Option<Batch>>>>>,
    /// Empty, with room: a query over many series allocates for the first batch only.
    spare: Mutex<Vec<Decoded>>,
}

/// A timeline and which of its timestamps are wanted.
pub(crate) type Line = (Arc<Vec<i64>>, Range<usize>);

/// Samples of a series. Those of floats have timestamps only where they came from, so that they are copied once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decoded {
    /// Samples, without timestamps if there are `lines`.
    pub(crate) columns: Columns,
    /// Timelines and the part of each, in order of time.
    pub(crate) lines: SmallVec<[Line; 1]>,
}

impl Decoded {
    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.columns.values.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last timestamp.
    pub(crate) fn last(&self) -> Option<i64> {
        let of_lines = || self.lines.iter().rev().find_map(|(line, part)| line[part.clone()].last());
        self.columns.timestamps.last().or_else(of_lines).copied()
    }

    fn append_to(&self, out: &mut Columns) {
        for (line, part) in &self.lines {
            out.timestamps.extend_from_slice(&line[part.clone()]);
        }
        out.append(&self.columns);
    }

    fn clear(&mut self) {
        self.columns.clear();
        self.lines.clear();
    }
}

/// A decoded batch.
struct Batch {
    /// `None` once they are taken.
    series: Vec<Option<Decoded>>,
    /// How many of them, of those with samples, were not taken yet.
    left: usize,
}

impl Packed {
    pub(crate) fn new(files: Vec<PackedFile>, wanted: usize, range: TimeRange) -> Self {
        let batches = batches(&files);
        let mut packed =
            Self { files, range, wanted, batches, largest_batch: 0, open: Mutex::default(), spare: Mutex::default() };
        packed.largest_batch = packed.batch_bytes().into_iter().max().unwrap_or(0);
        packed
    }

    /// Which batch a series belongs to.
    fn batch_of(&self, at: usize) -> usize {
        self.batches.partition_point(|start| *start <= at) - 1
    }

    /// Bytes of timestamps and values of each batch (histograms count as their timestamps).
    fn batch_bytes(&self) -> Vec<usize> {
        let mut bytes = vec![0; self.batches.len()];
        for file in &self.files {
            for hit in file.plans.iter().flat_map(Plan::hits) {
                let samples = file.timelines.get(&hit.timeline).map_or(0, |line| inside(line, self.range).len());
                bytes[self.batch_of(hit.at)] += size_of::<(i64, f64)>() * samples;
            }
        }
        bytes
    }

    /// Bounds of the timestamps of each series that may have samples, by position.
    fn spans(&self) -> Vec<Option<TimeRange>> {
        let mut spans: Vec<Option<TimeRange>> = vec![None; self.wanted];
        for hit in self.files.iter().flat_map(|f| &f.plans).flat_map(Plan::hits) {
            let span = spans[hit.at].get_or_insert(hit.span);
            *span = TimeRange::new(span.start.min(hit.span.start), span.end.max(hit.span.end));
        }
        let clip = |s: TimeRange| TimeRange::new(s.start.max(self.range.start), s.end.min(self.range.end));
        spans.into_iter().map(|s| s.map(clip)).collect()
    }

    fn take(&self, at: usize, out: &mut Columns) -> Result<()> {
        let number = self.batch_of(at);
        let first = self.batches[number];
        let place = Arc::clone(self.open.lock().entry(number).or_default());
        let mut batch = place.lock();
        let batch = match &mut *batch {
            Some(batch) => batch,
            empty => {
                let end = self.batches.get(number + 1).copied().unwrap_or(self.wanted);
                let series = self.decode(first..end)?;
                let left = series.iter().filter(|s| !s.is_empty()).count();
                empty.insert(Batch { series: series.into_iter().map(Some).collect(), left })
            }
        };
        // A batch without any samples stays: it is small, and is not decoded for each of its series.
        if batch.series[at - first].as_ref().is_some_and(Decoded::is_empty) {
            return Ok(());
        }
        let Some(mut samples) = batch.series[at - first].take() else {
            // Two readers within one batch: who comes second decodes for itself.
            self.decode(at..at + 1)?.iter().for_each(|samples| samples.append_to(out));
            return Ok(());
        };
        batch.left -= 1;
        if batch.left == 0 {
            self.open.lock().remove(&number);
        }
        samples.append_to(out);
        samples.clear();
        let mut spare = self.spare.lock();
        if spare.len() < MOST {
            spare.push(samples);
        }
        Ok(())
    }

    fn decode(&self, positions: Range<usize>) -> Result<Vec<Decoded>> {
        let mut found = self.recycled(positions.len());
        for file in &self.files {
            if found.iter().all(Decoded::is_empty) {
                file.decode(&mut Part { positions: positions.clone(), range: self.range, found: &mut found })?;
                continue;
            }
            let mut others = vec![Decoded::default(); positions.len()];
            file.decode(&mut Part { positions: positions.clone(), range: self.range, found: &mut others })?;
            for (one, other) in found.iter_mut().zip(others).filter(|(_, other)| !other.is_empty()) {
                let (mut floats, mut histograms) = (Columns::default(), Columns::default());
                one.append_to(&mut floats);
                other.append_to(&mut histograms);
                *one = Decoded { columns: merge(floats, histograms), lines: SmallVec::new() };
            }
        }
        Ok(found)
    }

    /// `n` times nothing, with room as far as there is any.
    fn recycled(&self, n: usize) -> Vec<Decoded> {
        let mut spare = self.spare.lock();
        let kept = spare.len().saturating_sub(n);
        let mut series = spare.split_off(kept);
        series.resize_with(n, Decoded::default);
        series
    }

    /// Heap bytes held, with one batch decoded.
    fn heap_bytes(&self) -> usize {
        let files: usize = self.files.iter().map(PackedFile::heap_bytes).sum();
        files + 8 * self.batches.capacity() + self.largest_batch
    }
}

/// Where batches begin: where a page of the first row group with hits there does, if the batch before is large enough.
fn batches(files: &[PackedFile]) -> Vec<usize> {
    let mut starts = vec![0];
    let (mut start, mut last) = (0, None);
    for (number, (file, plan)) in files.iter().flat_map(|f| f.plans.iter().map(move |p| (f, p))).enumerate() {
        for (hit, page) in plan.pages(&file.rows.file) {
            let turned = last.replace((number, page)) != Some((number, page));
            // Later row groups hold other slices of the same series.
            if hit.at > start && (turned && hit.at - start >= FEWEST || hit.at - start >= MOST) {
                start = hit.at;
                starts.push(start);
            }
        }
    }
    starts
}

/// A series whose samples are still packed; its clones yield the same samples.
#[derive(Clone)]
pub struct PackedSeries {
    /// Its labels.
    pub labels: Labels,
    /// [`series_hash`](crate::model::labels::series_hash) of tenant and labels.
    pub hash: u64,
    /// Bounds of its timestamps.
    pub span: TimeRange,
    packed: Arc<Packed>,
    at: usize,
}

impl PackedSeries {
    /// The series of an answer that may have samples; `identity` gives labels and hash by position.
    pub(crate) fn all(packed: Packed, identity: impl Fn(usize) -> (Labels, u64)) -> Vec<Self> {
        let spans = packed.spans();
        let packed = Arc::new(packed);
        let series = spans.into_iter().enumerate().filter_map(|(at, span)| {
            let span = span?;
            let (labels, hash) = identity(at);
            Some(Self { labels, hash, span, packed: Arc::clone(&packed), at })
        });
        series.collect()
    }

    /// Decodes its samples, and those of its neighbours for when they are asked.
    pub fn samples(self) -> Result<Columns> {
        let mut out = Columns::default();
        self.append_to(&mut out)?;
        Ok(out)
    }

    /// As [`PackedSeries::samples`], behind what is in `out`, which is earlier.
    pub fn append_to(self, out: &mut Columns) -> Result<()> {
        self.packed.take(self.at, out)
    }

    /// The number of its batch within the answer: series of one batch are decoded together.
    pub fn batch(&self) -> usize {
        self.packed.batch_of(self.at)
    }

    /// Batches that are decoded and not taken to their end.
    #[cfg(test)]
    pub(crate) fn open_batches(&self) -> usize {
        self.packed.open.lock().len()
    }

    /// Heap bytes that all series of the answer hold together while they are taken in block order.
    pub fn shared_bytes(&self) -> usize {
        self.packed.heap_bytes()
    }
}

/// Floats and histograms of one series, together in order of time.
fn merge(floats: Columns, histograms: Columns) -> Columns {
    if floats.is_empty() {
        return histograms;
    }
    let mut out = Columns::default();
    let (mut f, mut h) = (0, 0);
    while f < floats.len() || h < histograms.len() {
        let float_next = match (floats.timestamps.get(f), histograms.timestamps.get(h)) {
            (Some(a), Some(b)) => a < b,
            (a, _) => a.is_some(),
        };
        if float_next {
            out.push_float(floats.timestamps[f], floats.values[f]);
            out.set_last_start(floats.start(f));
            f += 1;
        } else {
            out.push_histogram(histograms.timestamps[h], Arc::clone(&histograms.histograms[h].1));
            out.set_last_start(histograms.start(h));
            h += 1;
        }
    }
    out
}
