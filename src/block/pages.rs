//! Pages of lists of numbers: their rows, decoded straight into whatever takes them.
//!
//! *Invariants:* a page is read only if it is of the form our writer gives it (data page of version 1, zstd, levels as
//! runs), anything else is refused; memory is that of one uncompressed page, whatever the page claims to hold.
//!
//! *Not here:* which rows are wanted (`select`), all other columns, which the `parquet` crate decodes (`fetch`).
//!
//! Rows are most of the work of a query over blocks. Assembled into arrow's lists by the `parquet` crate they took three times the
//! time: a codec for every call, levels and offsets for every element, and two copies of each value.

use std::cell::RefCell;

use parquet::basic::Compression;
use parquet::file::page_index::offset_index::PageLocation;
use zstd::bulk::Decompressor;

use super::claims::{MAX_PAGE_BYTES, MAX_VALUES};
use super::delta::DeltaReader;
use super::fetch::{OpenFile, Sparse};
use super::levels::{ListRows, Row, Shape};
use super::thrift::PageHeader;

/// Encodings by their number in the format.
const PLAIN: u64 = 0;
const RLE: u64 = 3;
const DELTA_BINARY_PACKED: u64 = 5;

/// Largest uncompressed page whose memory a thread keeps for the next one.
const KEPT_BYTES: usize = 4 << 20;

/// What a thread needs to uncompress pages again and again.
#[derive(Default)]
struct Scratch {
    page: Vec<u8>,
    zstd: Option<Decompressor<'static>>,
}

thread_local! {
    // Making a decompressor costs as much as uncompressing a small page.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A column of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// `value_i`: decimals.
    Decimals,
    /// `value_f`.
    Doubles,
    /// `ts`.
    Timestamps,
}

impl Lists {
    /// Which column has this name, if one does.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Decimals, Self::Doubles, Self::Timestamps].into_iter().find(|lists| lists.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Decimals => "value_i",
            Self::Doubles => "value_f",
            Self::Timestamps => "ts",
        }
    }

    fn encoding(self) -> u64 {
        if self == Self::Doubles { PLAIN } else { DELTA_BINARY_PACKED }
    }

    fn shape(self) -> Shape {
        if self == Self::Timestamps { Shape::REQUIRED } else { Shape::OPTIONAL }
    }
}

/// The values of one row that are not read yet.
pub(super) struct RowValues<'a, 'p> {
    values: &'a mut Values<'p>,
    left: usize,
    /// Number of elements, null ones included.
    pub(super) len: usize,
    /// Which elements are null; ascending ranges.
    pub(super) nulls: &'a [std::ops::Range<usize>],
}

/// The values of a page.
enum Values<'p> {
    Integers(DeltaReader<'p>),
    Doubles(&'p [u8]),
}

impl RowValues<'_, '_> {
    /// Passes over `n` values that are not null.
    pub(super) fn skip(&mut self, n: usize) -> Result<(), String> {
        self.count(n)?;
        match self.values {
            Values::Integers(reader) => reader.skip(n),
            Values::Doubles(bytes) => doubles(bytes, n).map(drop),
        }
    }

    /// Appends the next `n` values that are not null to `out`; `convert` makes values of integers.
    pub(super) fn take(&mut self, n: usize, out: &mut Vec<f64>, convert: impl Fn(i64) -> f64) -> Result<(), String> {
        self.count(n)?;
        match self.values {
            Values::Integers(reader) => reader.take(n, |integers| out.extend(integers.iter().map(|i| convert(*i)))),
            Values::Doubles(bytes) => {
                let bytes = doubles(bytes, n)?.as_chunks::<8>().0;
                out.extend(bytes.iter().map(|b| f64::from_le_bytes(*b)));
                Ok(())
            }
        }
    }

    /// All values, which are integers and none of which is null.
    pub(super) fn integers(&mut self) -> Result<Vec<i64>, String> {
        let Values::Integers(reader) = &mut self.values else { return Err("BUG: doubles are no integers".into()) };
        let mut out = Vec::with_capacity(self.left.min(KEPT_BYTES / 8));
        reader.take(self.left, |integers| out.extend_from_slice(integers))?;
        self.left = 0;
        Ok(out)
    }

    fn count(&mut self, n: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(n).ok_or("a row has fewer values than its timeline has timestamps")?;
        Ok(())
    }
}

fn doubles<'p>(bytes: &mut &'p [u8], n: usize) -> Result<&'p [u8], String> {
    let len = n.checked_mul(8).ok_or("too many doubles")?;
    let (found, rest) = bytes.split_at_checked(len).ok_or("doubles are cut")?;
    *bytes = rest;
    Ok(found)
}

/// A column of lists of a row group.
pub(super) struct ListColumn {
    lists: Lists,
    pages: Vec<PageLocation>,
    rows: u32,
    compressed: bool,
}

impl ListColumn {
    /// The column of a row group.
    pub(super) fn new(file: &OpenFile, group: usize, lists: Lists) -> Result<Self, String> {
        let (footer, name) = (file.footer(), lists.name());
        let row_group = footer.row_group(group);
        let found = row_group.columns().iter().position(|c| c.column_path().parts().first().is_some_and(|p| p == name));
        let at = found.ok_or_else(|| format!("no column {name}"))?;
        let chunk = row_group.column(at);
        let index = footer.page_index_for_row_group(group);
        let pages = index.offset_index(at).ok_or_else(|| format!("no offset index of column {name}"))?;
        let pages = pages.page_locations().clone();
        let compressed = match chunk.compression() {
            Compression::ZSTD(_) => true,
            Compression::UNCOMPRESSED => false,
            other => return Err(format!("column {name} is compressed with {other}")),
        };
        let rows = u32::try_from(file.rows(group)).unwrap_or(u32::MAX);
        Ok(Self { lists, pages, rows, compressed })
    }

    /// Hands the rows `wanted` (ascending) to `each`, with their positions among the wanted.
    pub(super) fn read(
        &self,
        bytes: &Sparse,
        wanted: &[u32],
        mut each: impl FnMut(usize, RowValues<'_, '_>) -> Result<(), String>,
    ) -> Result<(), String> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut at = 0;
            while at < wanted.len() {
                let page = self.pages.partition_point(|p| p.first_row_index <= i64::from(wanted[at])).checked_sub(1);
                let page = page.ok_or_else(|| format!("row {} of {} is in no page", wanted[at], self.lists.name()))?;
                let end = self.pages.get(page + 1).map_or(i64::from(self.rows), |next| next.first_row_index);
                let here = wanted[at..].partition_point(|row| i64::from(*row) < end);
                if here == 0 {
                    return Err(format!("row {} of {} is in no page", wanted[at], self.lists.name()));
                }
                let location = &self.pages[page];
                let wrong = |what: String| format!("column {}, page at {}: {what}", self.lists.name(), location.offset);
                let header = scratch.load(bytes, location, self.compressed).map_err(wrong)?;
                let first = u32::try_from(location.first_row_index).map_err(|e| wrong(e.to_string()))?;
                let rows = wanted[at..at + here].iter().map(|row| row - first);
                self.read_page(&scratch.page, header, rows, |i, row| each(at + i, row)).map_err(wrong)?;
                at += here;
            }
            scratch.page.shrink_to(KEPT_BYTES);
            Ok(())
        })
    }

    fn read_page(
        &self,
        page: &[u8],
        header: PageHeader,
        wanted: impl Iterator<Item = u32>,
        mut each: impl FnMut(usize, RowValues<'_, '_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if header.encodings != Some([self.lists.encoding(), RLE, RLE]) {
            return Err(format!("is no page of lists (encodings {:?})", header.encodings));
        }
        let (mut rows, bytes) = ListRows::new(page, header.values as usize, self.lists.shape())?;
        let mut values = match self.lists {
            Lists::Doubles => Values::Doubles(bytes),
            Lists::Decimals | Lists::Timestamps => Values::Integers(DeltaReader::new(bytes)?),
        };
        let mut row = 0;
        for (i, wanted) in wanted.enumerate() {
            // A row on the way is passed over: its values stand before those of the next.
            while row < wanted {
                if let Row::List { values: left, .. } = rows.next()? {
                    RowValues { values: &mut values, left, len: left, nulls: &[] }.skip(left)?;
                }
                row += 1;
            }
            let Row::List { len, values: left } = rows.next()? else {
                return Err(format!("row {wanted} of the page is null"));
            };
            row += 1;
            each(i, RowValues { values: &mut values, left, len, nulls: &rows.nulls })?;
        }
        Ok(())
    }
}

impl Scratch {
    /// Puts a page there, uncompressed.
    fn load(&mut self, bytes: &Sparse, at: &PageLocation, compressed: bool) -> Result<PageHeader, String> {
        let start = u64::try_from(at.offset).map_err(|e| e.to_string())?;
        let part = bytes.part(start).map_err(|e| e.to_string())?;
        let header = PageHeader::parse(&part).ok_or("has a broken header")?;
        if header.uncompressed > MAX_PAGE_BYTES || header.values > MAX_VALUES {
            return Err(format!("holds {} values in {} bytes", header.values, header.uncompressed));
        }
        let body = part[header.len..].get(..header.compressed as usize).ok_or("is cut")?;
        self.page.clear();
        if !compressed {
            self.page.extend_from_slice(body);
            return Ok(header);
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new().map_err(|e| e.to_string())?),
        };
        self.page.reserve(header.uncompressed as usize);
        let len = zstd.decompress_to_buffer(body, &mut self.page).map_err(|e| e.to_string())?;
        match len as u64 == header.uncompressed {
            true => Ok(header),
            false => Err(format!("is {len} bytes uncompressed, not {}", header.uncompressed)),
        }
    }
}
