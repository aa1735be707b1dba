//! Writes a block: series in block order in, files out.
//!
//! *Invariants:* equal input and options give equal bytes. Memory is bounded by one row group per slice plus the files.
//!
//! *Not here:* where files go and what they are called (`store`), sorting of series (`ingest`).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;

use super::encoding::{self, File};
use super::histograms::HistogramRows;
use super::order::Key;
use super::samples::SampleRows;
use super::schema::{DEFAULT_PROMOTED, Kind, check_promoted, file_schema};
use super::series::{self, SeriesRow};
use super::slices;
use super::timelines::Timelines;
use super::{Error, Result};
use crate::model::labels::series_hash;
use crate::model::time::WINDOW_MS;
use crate::model::{BlockName, Columns, Exemplar, Labels, TenantId};

/// A row group ends with the series that reaches this many values (samples, and buckets of histograms) before it has all
/// its series: readers decode a column of it at once.
const MAX_GROUP_VALUES: usize = 1 << 25;

/// How a block is written.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Name of the block, a constant column of every file.
    pub block: BlockName,
    /// Whose series these are. If given, hashes are checked against it and not stored: eight bytes per series that do not
    /// compress, and a reader can compute them.
    pub tenant: Option<TenantId>,
    /// Length of a slice in milliseconds, aligned to the epoch: 2 h in a flush.
    pub slice_ms: i64,
    /// Labels with a column of their own.
    pub promoted: Vec<Arc<str>>,
    /// Series per row group.
    pub row_group_rows: usize,
    /// Rows per page of values.
    pub page_rows: usize,
    /// zstd level of lists.
    pub level: i32,
    /// zstd level of the series file, which is small and read whole.
    pub series_level: i32,
}

impl WriterOptions {
    /// The options of a flush (`docs/decisions/0002-block-layout.md` has the measurements).
    pub fn flush(block: BlockName) -> Self {
        Self {
            block,
            tenant: None,
            slice_ms: WINDOW_MS,
            promoted: DEFAULT_PROMOTED.map(Arc::from).to_vec(),
            row_group_rows: 4096,
            page_rows: 32,
            level: 3,
            series_level: 9,
        }
    }

    /// The same with hashes derived from the tenant's name.
    pub fn for_tenant(self, tenant: &TenantId) -> Self {
        Self { tenant: Some(tenant.clone()), ..self }
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.slice_ms < 1 || self.row_group_rows == 0 || self.page_rows == 0 {
            return Err("slice length, rows per row group and rows per page must be at least 1".into());
        }
        check_promoted(&self.promoted)
    }
}

/// One series to be written.
#[derive(Debug, Clone, Copy)]
pub struct SeriesInput<'a> {
    /// Its labels; series come in the order of [`order::compare`](super::order::compare), each once.
    pub labels: &'a Labels,
    /// [`series_hash`] of tenant and labels.
    pub hash: u64,
    /// Its samples; timestamps ascend strictly.
    pub samples: &'a Columns,
    /// Its exemplars.
    pub exemplars: &'a [Exemplar],
}

/// Smallest and largest values in a file, for the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileStats {
    /// First timestamp, milliseconds.
    pub min_ts: i64,
    /// Last timestamp, milliseconds.
    pub max_ts: i64,
    /// First and last metric name, where the kind has the column.
    pub metric: Option<(String, String)>,
    /// Smallest and largest series hash of the block, as stored (signed), in the series file.
    pub series_hash: Option<(i64, i64)>,
    /// Samples in the file (floats or histograms; 0 in other kinds).
    pub samples: u64,
}

/// One file of a block.
#[derive(Debug, Clone)]
pub struct BlockFile {
    /// What it holds.
    pub kind: Kind,
    /// The Parquet file.
    pub bytes: Bytes,
    /// Number of rows.
    pub rows: u64,
    /// Smallest and largest values.
    pub stats: FileStats,
}

/// A finished block; kinds without a row have no file.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its name.
    pub name: BlockName,
    /// Its files in the order of [`Kind::ALL`].
    pub files: Vec<BlockFile>,
    /// First timestamp, milliseconds.
    pub min_ts: i64,
    /// Last timestamp, milliseconds.
    pub max_ts: i64,
    /// Number of series.
    pub series: u64,
    /// Number of samples, floats and histograms.
    pub samples: u64,
}

/// A file whose row groups are written one after another, and what is in it so far.
struct Open<F> {
    file: F,
    rows: u64,
    stats: FileStats,
}

impl<F> Open<F> {
    fn new(file: F) -> Self {
        Self { file, rows: 0, stats: FileStats { min_ts: i64::MAX, max_ts: i64::MIN, ..FileStats::default() } }
    }

    fn count(&mut self, rows: &slices::SliceRows) -> std::result::Result<(), ParquetError> {
        self.rows += rows.len() as u64;
        self.stats.samples += rows.len.iter().map(|n| u64::from(*n)).sum::<u64>();
        self.stats.min_ts = rows.min_ts.iter().copied().fold(self.stats.min_ts, i64::min);
        self.stats.max_ts = rows.max_ts.iter().copied().fold(self.stats.max_ts, i64::max);
        // Not sorted across row groups: the leading order is by metric, but each slice begins anew.
        for metric in &rows.metric {
            let metric = metric.as_utf8()?;
            match &mut self.stats.metric {
                None => self.stats.metric = Some((metric.to_owned(), metric.to_owned())),
                Some((min, _)) if metric < min.as_str() => metric.clone_into(min),
                Some((_, max)) if metric > max.as_str() => metric.clone_into(max),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Writes one block.
pub struct BlockWriter {
    options: WriterOptions,
    name: ByteArray,
    series: Vec<SeriesRow>,
    /// First series of the current row groups.
    group_from: usize,
    group_values: usize,
    timelines: Timelines,
    sample_rows: BTreeMap<i64, SampleRows>,
    histogram_rows: BTreeMap<i64, HistogramRows>,
    samples: Option<Open<File>>,
    histograms: Option<Open<ArrowWriter<Vec<u8>>>>,
    exemplars: Vec<(u32, Exemplar)>,
    metric: ByteArray,
    floats: Columns,
}

impl BlockWriter {
    /// An empty block.
    pub fn new(options: WriterOptions) -> Result<Self> {
        options.check().map_err(|what| Error::Input { block: options.block.to_string(), what })?;
        Ok(Self {
            name: ByteArray::from(&*options.block.0),
            options,
            series: Vec::new(),
            group_from: 0,
            group_values: 0,
            timelines: Timelines::default(),
            sample_rows: BTreeMap::new(),
            histogram_rows: BTreeMap::new(),
            samples: None,
            histograms: None,
            exemplars: Vec::new(),
            metric: ByteArray::from(""),
            floats: Columns::default(),
        })
    }

    /// Adds the next series in block order. A series without samples and exemplars is left out.
    pub fn push(&mut self, input: SeriesInput<'_>) -> Result<()> {
        if input.samples.is_empty() && input.exemplars.is_empty() {
            return Ok(());
        }
        self.check(&input)?;
        let id = self.series.len() as u32;
        if self.series.last().is_none_or(|last| last.labels.metric() != input.labels.metric()) {
            self.metric = ByteArray::from(input.labels.metric());
        }
        let times = input.samples.timestamps.iter().copied().chain(input.exemplars.iter().map(|e| e.t));
        let (min_ts, max_ts) = times.fold((i64::MAX, i64::MIN), |(lo, hi), t| (lo.min(t), hi.max(t)));
        self.series.push(SeriesRow { labels: input.labels.clone(), hash: input.hash, min_ts, max_ts });
        self.exemplars.extend(input.exemplars.iter().map(|e| (id, e.clone())));
        if input.samples.histograms.is_empty() {
            self.push_floats(id, input.samples);
        } else {
            self.push_mixed(id, input.samples);
        }
        let buckets = input.samples.histograms.iter().map(|(_, h)| h.positive.len() + h.negative.len());
        self.group_values += input.samples.len() + buckets.sum::<usize>();
        if self.series.len() - self.group_from >= self.options.row_group_rows || self.group_values >= MAX_GROUP_VALUES {
            self.flush_row_groups()?;
        }
        Ok(())
    }

    fn check(&self, input: &SeriesInput<'_>) -> Result<()> {
        let wrong = |what: String| Err(Error::Input { block: self.options.block.to_string(), what });
        if let Some(last) = self.series.last()
            && Key::new(&last.labels) >= Key::new(input.labels)
        {
            return wrong(format!("series {} does not come after {}", input.labels, last.labels));
        }
        if let Some(tenant) = &self.options.tenant
            && series_hash(tenant.as_str(), input.labels.canonical()) != input.hash
        {
            return wrong(format!("hash of series {} is not that of tenant {tenant}", input.labels));
        }
        let samples = input.samples;
        if !samples.timestamps.is_sorted_by(|a, b| a < b) {
            return wrong(format!("timestamps of series {} do not ascend", input.labels));
        }
        let fits = samples.values.len() == samples.len()
            && (samples.starts.is_empty() || samples.starts.len() == samples.len())
            && samples.histograms.is_sorted_by(|a, b| a.0 < b.0)
            && samples.histograms.last().is_none_or(|(i, _)| (*i as usize) < samples.len());
        if !fits || self.series.len() >= i32::MAX as usize {
            return wrong(format!("columns of series {} differ in length", input.labels));
        }
        Ok(())
    }

    fn push_floats(&mut self, id: u32, samples: &Columns) {
        for (slice, range) in slices::cut(&samples.timestamps, self.options.slice_ms) {
            let timestamps = &samples.timestamps[range.clone()];
            let starts = samples.starts.get(range.clone()).unwrap_or_default();
            let timeline = self.timelines.intern(timestamps);
            let rows = self.sample_rows.entry(slice).or_default();
            rows.push(id, timestamps, timeline, &self.metric, &samples.values[range], starts);
        }
    }

    /// A series with histograms, perhaps between floats: the two go to different files.
    fn push_mixed(&mut self, id: u32, samples: &Columns) {
        let mut floats = std::mem::take(&mut self.floats);
        floats.clear();
        let (mut timestamps, mut starts) = (Vec::new(), Vec::new());
        let mut histograms = samples.histograms.iter().peekable();
        for (i, t) in samples.timestamps.iter().enumerate() {
            if histograms.peek().is_some_and(|(at, _)| *at as usize == i) {
                histograms.next();
                timestamps.push(*t);
                starts.push(samples.start(i));
            } else {
                floats.push_float(*t, samples.values[i]);
                floats.set_last_start(samples.start(i));
            }
        }
        self.push_floats(id, &floats);
        self.floats = floats;
        for (slice, range) in slices::cut(&timestamps, self.options.slice_ms) {
            let timeline = self.timelines.intern(&timestamps[range.clone()]);
            let rows = self.histogram_rows.entry(slice).or_default();
            rows.rows.push(id, &timestamps[range.clone()], timeline, &self.metric);
            let histograms = samples.histograms[range.clone()].iter().map(|(_, h)| Arc::clone(h));
            rows.push(histograms, &starts[range]);
        }
    }

    /// Writes what was collected: one row group per slice, in order of time.
    fn flush_row_groups(&mut self) -> Result<()> {
        (self.group_from, self.group_values) = (self.series.len(), 0);
        self.try_flush_row_groups().map_err(|source| self.encode_error(source))
    }

    fn try_flush_row_groups(&mut self) -> std::result::Result<(), ParquetError> {
        for rows in std::mem::take(&mut self.sample_rows).into_values() {
            let open = match &mut self.samples {
                Some(open) => open,
                none => {
                    let properties = encoding::properties(Kind::Samples, self.options.level)?;
                    none.insert(Open::new(encoding::new_file(&file_schema(Kind::Samples, &[]), properties)?))
                }
            };
            rows.write(&mut open.file, &self.name, self.options.page_rows)?;
            open.count(&rows.rows)?;
        }
        for rows in std::mem::take(&mut self.histogram_rows).into_values() {
            let open = match &mut self.histograms {
                Some(open) => open,
                none => {
                    let properties = encoding::properties(Kind::Histograms, self.options.level)?;
                    none.insert(Open::new(encoding::new_arrow_file(&file_schema(Kind::Histograms, &[]), properties)?))
                }
            };
            rows.write(&mut open.file, &self.options.block.0)?;
            open.count(&rows.rows)?;
        }
        Ok(())
    }

    fn encode_error(&self, source: ParquetError) -> Error {
        Error::Encode { block: self.options.block.to_string(), source }
    }

    /// Ends the block.
    pub fn finish(mut self) -> Result<Block> {
        self.flush_row_groups()?;
        let name = self.options.block.clone();
        self.try_finish().map_err(|source| Error::Encode { block: name.to_string(), source })
    }

    fn try_finish(mut self) -> std::result::Result<Block, ParquetError> {
        let min_ts = self.series.iter().map(|s| s.min_ts).min().unwrap_or(0);
        let max_ts = self.series.iter().map(|s| s.max_ts).max().unwrap_or(0);
        let mut files = Vec::new();
        if !self.series.is_empty() {
            files.push(self.series_file(min_ts, max_ts)?);
        }
        if self.timelines.len() > 0 {
            let bytes = self.timelines.encode(&self.name, self.options.level)?.into();
            let (lo, hi) = self.timelines.bounds();
            let stats = FileStats { min_ts: lo, max_ts: hi, ..FileStats::default() };
            files.push(BlockFile { kind: Kind::Timelines, bytes, rows: self.timelines.len() as u64, stats });
        }
        let mut samples = 0;
        if let Some(Open { file, rows, stats }) = self.samples.take() {
            samples += stats.samples;
            files.push(BlockFile { kind: Kind::Samples, bytes: file.into_inner()?.into(), rows, stats });
        }
        if let Some(Open { file, rows, stats }) = self.histograms.take() {
            samples += stats.samples;
            files.push(BlockFile { kind: Kind::Histograms, bytes: file.into_inner()?.into(), rows, stats });
        }
        if !self.exemplars.is_empty() {
            files.push(self.exemplar_file()?);
        }
        Ok(Block { name: self.options.block, files, min_ts, max_ts, series: self.series.len() as u64, samples })
    }

    fn series_file(&self, min_ts: i64, max_ts: i64) -> std::result::Result<BlockFile, ParquetError> {
        let o = &self.options;
        let bytes = series::encode(&self.series, &o.block.0, o.tenant.as_ref(), &o.promoted, o.series_level)?.into();
        let metrics = (self.series.first(), self.series.last());
        let metric =
            metrics.0.zip(metrics.1).map(|(a, b)| (a.labels.metric().to_owned(), b.labels.metric().to_owned()));
        let hashes = || self.series.iter().map(|s| s.hash as i64);
        let stats = FileStats { min_ts, max_ts, metric, series_hash: hashes().min().zip(hashes().max()), samples: 0 };
        Ok(BlockFile { kind: Kind::Series, bytes, rows: self.series.len() as u64, stats })
    }

    fn exemplar_file(&self) -> std::result::Result<BlockFile, ParquetError> {
        let all = &self.exemplars;
        let times = TimestampMillisecondArray::from_iter_values(all.iter().map(|(_, e)| e.t)).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(all.iter().map(|_| &self.options.block.0))),
            Arc::new(Int32Array::from_iter_values(all.iter().map(|(id, _)| *id as i32))),
            Arc::new(times),
            Arc::new(Float64Array::from_iter_values(all.iter().map(|(_, e)| e.value))),
            series::label_map(all.iter().map(|(_, e)| e.labels.iter())),
        ];
        let schema = Arc::new(file_schema(Kind::Exemplars, &[]));
        let mut file = encoding::new_arrow_file(&schema, encoding::properties(Kind::Exemplars, self.options.level)?)?;
        file.write(&RecordBatch::try_new(schema, columns)?)?;
        let times = || all.iter().map(|(_, e)| e.t);
        let stats = FileStats {
            min_ts: times().min().unwrap_or(0),
            max_ts: times().max().unwrap_or(0),
            ..FileStats::default()
        };
        Ok(BlockFile { kind: Kind::Exemplars, bytes: file.into_inner()?.into(), rows: all.len() as u64, stats })
    }
}
