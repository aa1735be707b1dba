//! An open block: its series in memory, the rest fetched as it is asked for.
//!
//! *Invariants:* after opening nothing is fetched for questions about labels. What a reader has learned (footers, scalar
//! columns) stays in it until it is dropped; [`BlockReader::heap_bytes`] says how much that is.
//!
//! *Not here:* fetching (`fetch`), decoding of samples (`select`), which blocks there are (`store`).

use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, TimestampMillisecondType};
use object_store::ObjectStore;
use object_store::path::Path;

use super::directory::{Directory, HISTOGRAM_COLUMNS, SAMPLE_COLUMNS};
use super::fetch::{OpenFile, Rows};
use super::index::SeriesIndex;
use super::packed::PackedSeries;
use super::schema::{Kind, TENANT_KEY};
use super::select::Admit;
use super::series::{SeriesBatch, read_map};
use super::{Error, Result};
use crate::model::{Columns, Exemplar, Labels, LabelsBuilder, Matcher, TimeRange};

/// A file of a block in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// What it holds.
    pub kind: Kind,
    /// Where it is.
    pub path: Path,
    /// Its length in bytes.
    pub size: u64,
}

/// A series with its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSeries {
    /// Its labels.
    pub labels: Labels,
    /// [`series_hash`](crate::model::labels::series_hash) of tenant and labels.
    pub hash: u64,
    /// Its samples in order of time.
    pub samples: Columns,
}

/// A file of rows per series and slice.
pub(crate) struct RowsFile {
    pub(crate) file: OpenFile,
    directories: Vec<OnceLock<Directory>>,
    columns: &'static [&'static str],
}

impl RowsFile {
    async fn open(store: Arc<dyn ObjectStore>, file: FileRef) -> Result<Self> {
        let columns = if file.kind == Kind::Samples { &SAMPLE_COLUMNS[..] } else { &HISTOGRAM_COLUMNS[..] };
        let file = OpenFile::open(store, file).await?;
        let directories = (0..file.footer().num_row_groups()).map(|_| OnceLock::new()).collect();
        Ok(Self { file, directories, columns })
    }

    /// Number of row groups.
    pub(crate) fn groups(&self) -> usize {
        self.directories.len()
    }

    /// The directory of a row group, if it was loaded.
    pub(crate) fn directory(&self, group: usize) -> Option<&Directory> {
        self.directories[group].get()
    }

    /// Loads the directories of row groups that are not loaded yet.
    pub(crate) async fn load(&self, groups: &[usize]) -> Result<()> {
        let mut want = Vec::new();
        let missing: Vec<usize> = groups.iter().copied().filter(|g| self.directory(*g).is_none()).collect();
        for group in &missing {
            self.file.ranges(*group, self.columns, &Rows::All, &mut want)?;
        }
        let bytes = self.file.fetch(want).await?;
        for group in missing {
            let mut directory = Directory::default();
            self.file.decode(&bytes, group, self.columns, &Rows::All, |batch| directory.extend(batch))?;
            // Another query may have been faster; what it stored is the same.
            let _ = self.directories[group].set(directory);
        }
        Ok(())
    }

    fn heap_bytes(&self) -> usize {
        self.file.heap_bytes()
            + self.directories.iter().filter_map(OnceLock::get).map(Directory::heap_bytes).sum::<usize>()
    }
}

/// A block, open for reading. Cheap to share behind an `Arc`; all methods take `&self`.
pub struct BlockReader {
    pub(crate) index: SeriesIndex,
    pub(crate) timelines: Option<OpenFile>,
    pub(crate) samples: Option<Arc<RowsFile>>,
    pub(crate) histograms: Option<Arc<RowsFile>>,
    exemplars: Option<OpenFile>,
}

impl BlockReader {
    /// Reads the series file and the other files' footers.
    pub async fn open(store: Arc<dyn ObjectStore>, files: Vec<FileRef>) -> Result<Self> {
        let of = |kind| files.iter().find(|f| f.kind == kind).cloned();
        let whole = async |kind| match of(kind) {
            Some(file) => OpenFile::open(Arc::clone(&store), file).await.map(Some),
            None => Ok(None),
        };
        let rows = async |kind| match of(kind) {
            Some(file) => RowsFile::open(Arc::clone(&store), file).await.map(|f| Some(Arc::new(f))),
            None => Ok(None),
        };
        let index = async {
            match of(Kind::Series) {
                Some(file) => read_index(Arc::clone(&store), file).await,
                None => Ok(SeriesIndex::default()),
            }
        };
        let (index, timelines, samples, histograms, exemplars) = futures::try_join!(
            index,
            whole(Kind::Timelines),
            rows(Kind::Samples),
            rows(Kind::Histograms),
            whole(Kind::Exemplars)
        )?;
        Ok(Self { index, timelines, samples, histograms, exemplars })
    }

    /// Number of series.
    pub fn series_count(&self) -> usize {
        self.index.len()
    }

    /// The series that fulfil all matchers and have a sample in `range`, in block order.
    pub async fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<BlockSeries>> {
        self.read_series(&self.index.matching(matchers, range), range).await
    }

    /// As [`BlockReader::select`], with samples that are fetched and decoded only when they are taken. A series may turn out
    /// to have none in `range`.
    pub async fn select_packed(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<PackedSeries>> {
        self.select_within(matchers, range, &|_| Ok(())).await
    }

    /// As [`BlockReader::select_packed`]; `admit` is told of bytes before they are held.
    pub async fn select_within(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        admit: &Admit<'_>,
    ) -> Result<Vec<PackedSeries>> {
        self.select_hashes(matchers, range, |_| true, admit).await
    }

    /// As [`BlockReader::select_within`], of the series whose stable hash is wanted: of others nothing is read.
    pub async fn select_hashes(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        wanted: impl Fn(u64) -> bool,
        admit: &Admit<'_>,
    ) -> Result<Vec<PackedSeries>> {
        let mut rows = self.index.matching(matchers, range);
        rows.retain(|row| wanted(self.index.hash(*row)));
        self.pack_series(&rows, range, admit).await
    }

    /// Label sets (and hashes) of the series that fulfil all matchers and may have a sample in `range`, in block order.
    pub fn series<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = (Labels, u64)> + use<'a> {
        let rows = self.index.matching(matchers, range);
        rows.into_iter().map(|row| (self.index.labels(row), self.index.hash(row)))
    }

    /// Names of labels of those series.
    pub fn label_names<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        self.index.label_names(matchers, range)
    }

    /// Values of one label of those series.
    pub fn label_values<'a>(
        &'a self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        self.index.label_values(name, matchers, range)
    }

    /// Reads all series in block order, `batch` at a time: `while let Some(series) = scan.next().await? { … }`.
    pub fn read_all(&self, batch: usize) -> Scan<'_> {
        Scan { reader: self, next: 0, batch: batch.max(1) as u32 }
    }

    /// Exemplars in `range` of the series that fulfil all matchers, in order of time per series.
    pub async fn exemplars(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<(Labels, Vec<Exemplar>)>> {
        let Some(file) = &self.exemplars else { return Ok(Vec::new()) };
        let wanted = self.index.matching(matchers, range);
        let columns = ["series_id", "exemplar_ts", "exemplar_value", "labels"];
        let mut want = Vec::new();
        for group in 0..file.footer().num_row_groups() {
            file.ranges(group, &columns, &Rows::All, &mut want)?;
        }
        let bytes = file.fetch(want).await?;
        let mut found: Vec<Vec<Exemplar>> = vec![Vec::new(); wanted.len()];
        for group in 0..file.footer().num_row_groups() {
            file.decode(&bytes, group, &columns, &Rows::All, |batch| {
                let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column {name}"));
                let ids = column("series_id")?.as_primitive_opt::<Int32Type>().ok_or("series_id")?;
                let times =
                    column("exemplar_ts")?.as_primitive_opt::<TimestampMillisecondType>().ok_or("exemplar_ts")?;
                let values = column("exemplar_value")?.as_primitive_opt::<Float64Type>().ok_or("exemplar_value")?;
                let labels = column("labels")?.as_map_opt().ok_or("labels")?;
                for i in 0..ids.len() {
                    let Ok(at) = wanted.binary_search(&(ids.value(i) as u32)) else { continue };
                    if range.contains(times.value(i)) {
                        let mut builder = LabelsBuilder::new();
                        read_map(labels, i, |name, value| {
                            builder.set(name, value);
                        })?;
                        found[at].push(Exemplar { labels: builder.build(), value: values.value(i), t: times.value(i) });
                    }
                }
                Ok(())
            })?;
        }
        let with_labels = wanted.iter().zip(found).filter(|(_, e)| !e.is_empty());
        Ok(with_labels.map(|(row, e)| (self.index.labels(*row), e)).collect())
    }

    /// Heap bytes held: series, footers, scalar columns seen so far.
    pub fn heap_bytes(&self) -> usize {
        let files = [&self.timelines, &self.exemplars];
        self.index.heap_bytes()
            + files.into_iter().flatten().map(OpenFile::heap_bytes).sum::<usize>()
            + [&self.samples, &self.histograms].into_iter().flatten().map(|f| f.heap_bytes()).sum::<usize>()
    }
}

async fn read_index(store: Arc<dyn ObjectStore>, file: FileRef) -> Result<SeriesIndex> {
    let (file, bytes) = OpenFile::open_whole(store, file).await?;
    let promoted: Vec<Arc<str>> = file.column_names().filter_map(|n| n.strip_prefix("l_")).map(Arc::from).collect();
    let columns: Vec<&str> = file.column_names().filter(|n| *n != "block").collect();
    let tenant = file.metadata_value(TENANT_KEY).map(str::to_owned);
    let mut index = SeriesIndex::default();
    for group in 0..file.footer().num_row_groups() {
        file.decode(&bytes, group, &columns, &Rows::All, |batch| {
            let rows = SeriesBatch::new(batch, &promoted, index.len())?;
            index.extend(&rows, batch.num_rows(), tenant.as_deref())
        })?;
    }
    Ok(index)
}

/// All series of a block, some at a time.
pub struct Scan<'a> {
    reader: &'a BlockReader,
    next: u32,
    batch: u32,
}

impl Scan<'_> {
    /// The next series, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<BlockSeries>>> {
        let end = self.next.saturating_add(self.batch).min(self.reader.index.len() as u32);
        if self.next >= end {
            return Ok(None);
        }
        let rows: Vec<u32> = (self.next..end).collect();
        self.next = end;
        self.reader.read_series(&rows, TimeRange::all()).await.map(Some)
    }
}

/// A missing timelines file is noticed when a row refers to it.
pub(crate) fn no_timelines(of: &OpenFile) -> Error {
    of.corrupt("rows refer to timelines, but the block has no file of them")
}
