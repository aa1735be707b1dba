//! One Parquet file in the store: its footer kept, its pages fetched as they are wanted.
//!
//! *Invariants:* only the footer, the offset index and the pages that hold wanted rows are fetched; whatever a decoder
//! makes of broken bytes, a panic included, becomes [`Error::Corrupt`].
//!
//! *Not here:* caching, counting, retries: the store that is handed in does that.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::{Buf, Bytes, buf::Reader};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy,
    RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use super::claims;
use super::reader::FileRef;
use super::schema::{VERSION, VERSION_KEY};
use super::{Error, Result};

/// First guess of how many bytes at the end of a file hold footer and page index.
const TAIL_BYTES: u64 = 32 << 10;

/// Ranges closer than this are fetched as one: the bytes between cost less than a request.
const COALESCE_GAP: u64 = 16 << 10;

/// Rows per record batch.
const BATCH_ROWS: usize = 1024;

/// An open file.
pub(crate) struct OpenFile {
    store: Arc<dyn ObjectStore>,
    file: FileRef,
    metadata: ArrowReaderMetadata,
}

impl OpenFile {
    /// Fetches and checks the footer.
    pub(crate) async fn open(store: Arc<dyn ObjectStore>, file: FileRef) -> Result<Self> {
        let mut tail = TAIL_BYTES.min(file.size);
        loop {
            let bytes = fetch(&*store, &file, file.size - tail..file.size).await?;
            match guard(&file, || parse_footer(&bytes, file.size))? {
                Ok(metadata) => return Ok(Self { store, file, metadata }),
                Err(ParquetError::NeedMoreData(want)) if want as u64 > tail && want as u64 <= file.size => {
                    tail = want as u64;
                }
                Err(e) => return Err(corrupt(&file, e)),
            }
        }
    }

    /// Opens a file whose bytes are all there.
    pub(crate) async fn open_whole(store: Arc<dyn ObjectStore>, file: FileRef) -> Result<(Self, Sparse)> {
        let bytes = fetch(&*store, &file, 0..file.size).await?;
        let metadata = guard(&file, || parse_footer(&bytes, file.size))?.map_err(|e| corrupt(&file, e))?;
        let whole = Sparse { size: file.size, parts: Arc::new(vec![(0, bytes)]) };
        Ok((Self { store, file, metadata }, whole))
    }

    /// The footer.
    pub(crate) fn footer(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// The value of a key of the file's metadata.
    pub(crate) fn metadata_value(&self, key: &str) -> Option<&str> {
        let all = self.footer().file_metadata().key_value_metadata()?;
        all.iter().find(|kv| kv.key == key)?.value.as_deref()
    }

    /// Names of the columns.
    pub(crate) fn column_names(&self) -> impl Iterator<Item = &str> {
        self.metadata.schema().fields().iter().map(|f| f.name().as_str())
    }

    /// Number of rows of a row group.
    pub(crate) fn rows(&self, group: usize) -> usize {
        self.footer().row_group(group).num_rows().max(0) as usize
    }

    /// The error that says this file is broken.
    pub(crate) fn corrupt(&self, what: impl ToString) -> Error {
        corrupt(&self.file, what)
    }

    /// Heap bytes held by the footer.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.footer().memory_size()
    }

    /// Adds to `want` the ranges that hold `rows` (ascending) of the columns of a row group.
    pub(crate) fn ranges(&self, group: usize, columns: &[&str], rows: &Rows, want: &mut Vec<Range<u64>>) -> Result<()> {
        let metadata = self.footer().row_group(group);
        let index = self.footer().page_index_for_row_group(group);
        let selection = rows.selection(self.rows(group));
        for (i, chunk) in metadata.columns().iter().enumerate() {
            let root = chunk.column_path().parts().first().map_or("", String::as_str);
            if !columns.contains(&root) {
                continue;
            }
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let (Ok(start), Ok(len)) = (u64::try_from(start), u64::try_from(chunk.compressed_size())) else {
                return Err(self.corrupt(format!("column {root} lies at a negative place")));
            };
            let end = start.saturating_add(len);
            match (index.offset_index(i), &selection) {
                (Some(pages), Some(selection)) => {
                    let pages = pages.page_locations();
                    if let Some(first) = pages.first().map(|p| p.offset.max(0) as u64).filter(|f| *f > start) {
                        want.push(start..first);
                    }
                    want.extend(guard(&self.file, || selection.scan_ranges(pages))?);
                }
                _ => want.push(start..end),
            }
        }
        match want.iter().find(|r| r.start >= r.end || r.end > self.file.size) {
            Some(r) => Err(self.corrupt(format!("page at {}..{} is not in the file", r.start, r.end))),
            None => Ok(()),
        }
    }

    /// First rows of the pages of a column; empty when the file does not say.
    pub(crate) fn page_starts(&self, group: usize, column: &str) -> Vec<i64> {
        let chunks = self.footer().row_group(group).columns();
        let found = chunks.iter().position(|c| c.column_path().parts().first().is_some_and(|p| p == column));
        let index = self.footer().page_index_for_row_group(group);
        let pages = found.and_then(|i| index.offset_index(i)).map(|pages| pages.page_locations());
        pages.into_iter().flatten().map(|page| page.first_row_index).collect()
    }

    /// Fetches ranges, neighbours together.
    pub(crate) async fn fetch(&self, mut want: Vec<Range<u64>>) -> Result<Sparse> {
        want.sort_unstable_by_key(|r| r.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in want {
            match merged.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(COALESCE_GAP) => {
                    last.end = last.end.max(range.end)
                }
                _ => merged.push(range),
            }
        }
        let path = &self.file.path;
        let parts = match merged.as_slice() {
            [] => Vec::new(),
            [one] => vec![fetch(&*self.store, &self.file, one.clone()).await?],
            all => self.store.get_ranges(path, all).await.map_err(|source| store_error(&self.file, source))?,
        };
        let parts = merged.iter().map(|r| r.start).zip(parts).collect();
        Ok(Sparse { size: self.file.size, parts: Arc::new(parts) })
    }

    /// Decodes `rows` of some columns of a row group and hands each batch to `each`, whose error says what is wrong.
    pub(crate) fn decode(
        &self,
        bytes: &Sparse,
        group: usize,
        columns: &[&str],
        rows: &Rows,
        mut each: impl FnMut(&RecordBatch) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let run = || -> std::result::Result<usize, String> {
            claims::check_pages(self, bytes, group, columns, rows)?;
            let mask = ProjectionMask::columns(self.metadata.parquet_schema(), columns.iter().copied());
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), self.metadata.clone())
                .with_projection(mask)
                .with_row_groups(vec![group])
                .with_batch_size(BATCH_ROWS)
                .with_row_selection_policy(RowSelectionPolicy::Selectors);
            if let Some(selection) = rows.selection(self.rows(group)) {
                builder = builder.with_row_selection(selection);
            }
            let mut decoded = 0;
            for batch in builder.build().map_err(|e| e.to_string())? {
                let batch = batch.map_err(|e| e.to_string())?;
                decoded += batch.num_rows();
                each(&batch)?;
            }
            Ok(decoded)
        };
        let decoded = guard(&self.file, run)?.map_err(|what| self.corrupt(what))?;
        let wanted = rows.len(self.rows(group));
        if decoded != wanted {
            return Err(self.corrupt(format!("row group {group} gave {decoded} of {wanted} rows of {columns:?}")));
        }
        Ok(())
    }
}

/// Rows of one row group.
#[derive(Debug, Clone)]
pub(crate) enum Rows {
    /// All of them.
    All,
    /// These, ascending.
    Some(Vec<u32>),
}

impl Rows {
    fn len(&self, of: usize) -> usize {
        match self {
            Self::All => of,
            Self::Some(rows) => rows.len(),
        }
    }

    /// `None` when all rows are wanted.
    pub(super) fn selection(&self, of: usize) -> Option<RowSelection> {
        let Self::Some(rows) = self else { return None };
        if rows.len() == of {
            return None;
        }
        let (mut selectors, mut at) = (Vec::<RowSelector>::new(), 0usize);
        for row in rows {
            let row = *row as usize;
            if row > at || selectors.is_empty() {
                if row > at {
                    selectors.push(RowSelector::skip(row - at));
                }
                selectors.push(RowSelector::select(1));
            } else if let Some(last) = selectors.last_mut() {
                last.row_count += 1;
            }
            at = row + 1;
        }
        if at < of {
            selectors.push(RowSelector::skip(of - at));
        }
        Some(RowSelection::from(selectors))
    }
}

/// The fetched parts of a file, as the decoder wants to see them.
#[derive(Clone)]
pub(crate) struct Sparse {
    size: u64,
    /// Where each part begins; ascending.
    parts: Arc<Vec<(u64, Bytes)>>,
}

impl Sparse {
    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.parts.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    pub(super) fn part(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = self.parts.partition_point(|(from, _)| *from <= start).checked_sub(1);
        let found = at.and_then(|at| self.parts.get(at)).and_then(|(from, bytes)| {
            let skip = usize::try_from(start - from).ok().filter(|s| *s <= bytes.len())?;
            Some(bytes.slice(skip..))
        });
        found.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not fetched")))
    }
}

impl Length for Sparse {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Sparse {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.part(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let part = self.part(start)?;
        if part.len() < length {
            return Err(ParquetError::EOF(format!("bytes {start}+{length} were not fetched")));
        }
        Ok(part.slice(..length))
    }
}

fn parse_footer(tail: &Bytes, size: u64) -> std::result::Result<ArrowReaderMetadata, ParquetError> {
    claims::check_footer(tail, size)?;
    let mut reader = ParquetMetaDataReader::new();
    reader.try_parse_sized(tail, size)?;
    let metadata = reader.finish()?;
    claims::check_offset_indexes(&metadata, tail, size)?;
    let mut reader = ParquetMetaDataReader::new_with_metadata(metadata)
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Optional);
    reader.read_page_indexes_sized(tail, size)?;
    let metadata = reader.finish()?;
    let version =
        metadata.file_metadata().key_value_metadata().and_then(|kv| kv.iter().find(|kv| kv.key == VERSION_KEY));
    match version.and_then(|kv| kv.value.as_deref()) {
        Some(VERSION) => {}
        other => {
            let found = other.unwrap_or("none");
            return Err(ParquetError::General(format!("block format version is {found}, this reads {VERSION}")));
        }
    }
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::try_new(Arc::new(metadata), options)
}

async fn fetch(store: &dyn ObjectStore, file: &FileRef, range: Range<u64>) -> Result<Bytes> {
    if range.is_empty() {
        // Stores refuse to fetch nothing.
        return Err(corrupt(file, "is empty"));
    }
    let want = range.end - range.start;
    let bytes = store.get_range(&file.path, range).await.map_err(|source| store_error(file, source))?;
    if bytes.len() as u64 != want {
        return Err(corrupt(file, format!("asked for {want} bytes, got {}", bytes.len())));
    }
    Ok(bytes)
}

fn store_error(file: &FileRef, source: object_store::Error) -> Error {
    Error::Store { path: file.path.to_string(), source }
}

fn corrupt(file: &FileRef, what: impl ToString) -> Error {
    Error::Corrupt { path: file.path.to_string(), what: what.to_string() }
}

/// Runs a decoder of foreign bytes: the `parquet` crate has asserts that broken pages can reach.
fn guard<T>(file: &FileRef, run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        corrupt(file, format!("decoder gave up: {}", what.unwrap_or("no reason given")))
    })
}
