//! What a file claims about itself, looked at before it is believed.
//!
//! *Invariants:* what passed these checks makes the `parquet` crate allocate a bounded multiple of the bytes that are there,
//! except for runs of equal values, which [`MAX_VALUES`] and [`MAX_PAGE_BYTES`] bound.
//!
//! *Not here:* whether the claims are true: decoding tells (`fetch`).

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::fetch::{OpenFile, Rows, Sparse};
use super::thrift::{self, PageHeader};

/// Most values of a column that are decoded in one go; a row group has fewer ([`MAX_GROUP_VALUES`](super::writer)).
///
/// A run of equal values takes no room in a file: without a limit a few bytes would fill any memory.
pub(super) const MAX_VALUES: u64 = 1 << 27;

/// Most bytes of a page, uncompressed.
pub(super) const MAX_PAGE_BYTES: u64 = 1 << 29;

/// Looks at the footer before it is parsed; parsing says what is wrong with its length, or that more bytes are needed.
pub(super) fn check_footer(tail: &Bytes, size: u64) -> Result<(), ParquetError> {
    let Some(trailer) = tail.len().checked_sub(8) else { return Ok(()) };
    let length = tail[trailer..].first_chunk().map_or(0, |n| u32::from_le_bytes(*n) as usize);
    match trailer.checked_sub(length) {
        Some(start) if !thrift::check_footer(&tail[start..trailer]) => {
            Err(ParquetError::General(format!("broken metadata in the last {} of {size} bytes", length + 8)))
        }
        _ => Ok(()),
    }
}

/// Looks at the offset indexes before they are parsed.
pub(super) fn check_offset_indexes(metadata: &ParquetMetaData, tail: &Bytes, size: u64) -> Result<(), ParquetError> {
    let begin = size - tail.len() as u64;
    for chunk in metadata.row_groups().iter().flat_map(|g| g.columns()) {
        let Some(range) = chunk.offset_index_range() else { continue };
        if range.start < begin {
            return Err(ParquetError::NeedMoreData((size - range.start) as usize));
        }
        let place = usize::try_from(range.start - begin).unwrap_or(usize::MAX)
            ..usize::try_from(range.end - begin).unwrap_or(usize::MAX);
        if !tail.get(place).is_some_and(thrift::check) {
            return Err(ParquetError::General(format!("broken offset index at {}", range.start)));
        }
    }
    Ok(())
}

/// Looks at the headers of all pages that are about to be decoded: what they claim is allocated.
pub(super) fn check_pages(
    file: &OpenFile,
    bytes: &Sparse,
    group: usize,
    columns: &[&str],
    rows: &Rows,
) -> Result<(), String> {
    let index = file.footer().page_index_for_row_group(group);
    let selection = rows.selection(file.rows(group));
    for (i, chunk) in file.footer().row_group(group).columns().iter().enumerate() {
        let root = chunk.column_path().parts().first().map_or("", String::as_str);
        if !columns.contains(&root) {
            continue;
        }
        let (mut at, len) = chunk.byte_range();
        let mut budget = Budget { root, values: MAX_VALUES };
        let Some(pages) = index.offset_index(i) else {
            let end = at.saturating_add(len);
            while at < end {
                at = budget.take(bytes, at)?;
            }
            continue;
        };
        let pages = pages.page_locations();
        if pages.first().is_some_and(|p| p.offset.max(0) as u64 > at) {
            budget.take(bytes, at)?;
        }
        let wanted = match &selection {
            Some(selection) => selection.scan_ranges(pages).into_iter().map(|r| r.start).collect(),
            None => pages.iter().map(|p| p.offset.max(0) as u64).collect::<Vec<_>>(),
        };
        for at in wanted {
            budget.take(bytes, at)?;
        }
    }
    Ok(())
}

/// What the pages of a column may still hold.
struct Budget<'a> {
    root: &'a str,
    values: u64,
}

impl Budget<'_> {
    /// Counts the page at `at`; where the next one begins.
    fn take(&mut self, bytes: &Sparse, at: u64) -> Result<u64, String> {
        let part = bytes.part(at).map_err(|e| e.to_string())?;
        let wrong = |what: &str| format!("column {} has a page at {at} with {what}", self.root);
        let header = PageHeader::parse(&part).ok_or_else(|| wrong("a broken header"))?;
        if header.uncompressed > MAX_PAGE_BYTES || (header.is_dictionary && header.values > header.uncompressed) {
            return Err(wrong(&format!("{} values in {} bytes", header.values, header.uncompressed)));
        }
        let values = if header.is_dictionary { 0 } else { header.values };
        self.values = self.values.checked_sub(values).ok_or_else(|| wrong("more values than are read at once"))?;
        Ok(at.saturating_add(header.len as u64).saturating_add(header.compressed))
    }
}
