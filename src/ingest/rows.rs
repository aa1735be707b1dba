//! Rows of one request for one shard, as bytes between nodes.
//!
//! *Invariants:* a batch that was read fulfils what [`Batch`] promises, whatever the bytes were: label sets are canonical,
//! ranges lie inside their tables, histograms are valid. How much memory reading takes is known before it is taken.
//!
//! *Not here:* who sends them where (`ingest::distributor`), sections (`ingest::entry`).
#![doc = ""]
#![doc = include_str!("format.md")]

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::IngestError;
use super::codec::{Malformed, Reader, put_varint};
use super::entry::{Section, SectionBuilder, SeriesRef};
use super::ingester::Request;
use crate::model::labels::{is_canonical, series_hash_seeded, tenant_seed};
use crate::model::{Batch, HistogramRow, SampleRow, SeriesRow};
use crate::peers::MESSAGE_BYTES;
use crate::raft::{GroupId, RaftError};

const VERSION: u8 = 1;
/// Most bytes of rows, and of their labels written out.
const MOST_BYTES: usize = 128 << 20;
/// Rows that are shorter are sent as they are.
const COMPRESS_FROM: usize = 4 << 10;
/// Of zstd: the network between nodes is faster than any higher level.
const LEVEL: i32 = 1;
/// Room that a message needs beside its rows.
const ENVELOPE: usize = 1 << 10;

thread_local! {
    // Making one costs as much as using it for a small request.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Rows as they are sent.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Compressed if that is shorter.
    pub bytes: Bytes,
    /// Length once uncompressed; 0 if not compressed.
    pub uncompressed: u64,
}

/// Writes the series `rows` of a request, and the metadata rows named, for `group`.
pub fn pack(request: Request<'_>, group: GroupId, rows: &[u32], metadata: &[u32]) -> Result<Packed, IngestError> {
    let rows = encode(request, rows, metadata);
    let compressed = (rows.len() >= COMPRESS_FROM).then(|| compress(&rows)).flatten();
    let uncompressed = compressed.as_ref().map_or(0, |_| rows.len() as u64);
    let too_large = |bytes, limit| Err(RaftError::TooLarge { group, bytes, limit }.into());
    if rows.len() > MOST_BYTES {
        return too_large(rows.len(), MOST_BYTES);
    }
    let bytes = Bytes::from(compressed.unwrap_or(rows));
    match bytes.len() > MESSAGE_BYTES - ENVELOPE {
        true => too_large(bytes.len(), MESSAGE_BYTES - ENVELOPE),
        false => Ok(Packed { bytes, uncompressed }),
    }
}

fn encode(request: Request<'_>, rows: &[u32], metadata: &[u32]) -> Vec<u8> {
    let batch = request.batch;
    let mut section = SectionBuilder::for_floats(rows.len());
    let (mut front, mut last, mut label_bytes) = (Vec::with_capacity(rows.len() * 32), "", 0);
    for (n, index) in rows.iter().enumerate() {
        let row = &batch.series[*index as usize];
        let labels = batch.labels_of(row);
        let shared = last.bytes().zip(labels.bytes()).take_while(|(a, b)| a == b).count();
        put_varint(&mut front, shared as u64);
        put_varint(&mut front, (labels.len() - shared) as u64);
        front.extend_from_slice(&labels.as_bytes()[shared..]);
        label_bytes += labels.len();
        last = labels;
        section.rows_of(SeriesRef::New(n as u32), batch, row);
    }
    metadata.iter().for_each(|m| section.metadata(&batch.metadata[*m as usize]));
    let section = section.finish(request.tenant.as_str(), request.out_of_order_ms);
    let mut out = Vec::with_capacity(front.len() + section.len() + 32);
    out.push(VERSION);
    put_varint(&mut out, label_bytes as u64);
    put_varint(&mut out, rows.len() as u64);
    put_varint(&mut out, front.len() as u64);
    out.extend_from_slice(&front);
    out.extend_from_slice(&section);
    out
}

/// Compressed bytes, if they are fewer. A compressor that fails costs bytes on the wire and nothing else.
fn compress(rows: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let zstd = match slot {
            Some(zstd) => zstd,
            none => none.insert(Compressor::new(LEVEL).ok()?),
        };
        zstd.compress(rows).ok().filter(|compressed| compressed.len() < rows.len())
    })
}

const NOT_COMPRESSED_SO: Malformed = Malformed { what: "compressed rows", at: 0 };

/// Room that the rows of a message take once they are uncompressed.
pub fn uncompressed_len(uncompressed: u64) -> Result<usize, Malformed> {
    usize::try_from(uncompressed).ok().filter(|n| *n <= MOST_BYTES).ok_or(NOT_COMPRESSED_SO)
}

/// The rows of a message; there is room for what it says they are once uncompressed.
pub fn unpack(bytes: Bytes, uncompressed: u64) -> Result<Bytes, Malformed> {
    let (length, malformed) = (uncompressed_len(uncompressed)?, NOT_COMPRESSED_SO);
    if length == 0 {
        return Ok(bytes);
    }
    let mut rows = Vec::new();
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let zstd = match slot {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new().map_err(|_| malformed)?),
        };
        rows.reserve_exact(length);
        zstd.decompress_to_buffer(&bytes, &mut rows).map_err(|_| malformed)
    })?;
    (rows.len() == length).then(|| rows.into()).ok_or(malformed)
}

/// Rows whose head was read.
pub struct Rows<'a> {
    label_bytes: usize,
    count: usize,
    front: Reader<'a>,
    section: Section<'a>,
}

impl<'a> Rows<'a> {
    /// Reads the head of uncompressed rows.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        if r.byte("rows version")? != VERSION {
            return Err(r.malformed("rows version"));
        }
        let label_bytes = usize::try_from(r.varint("label bytes")?).ok().filter(|n| *n <= MOST_BYTES);
        let label_bytes = label_bytes.ok_or(r.malformed("label bytes"))?;
        let count = r.count("row count")?;
        let front = r.part("labels")?;
        let section = Section::decode(r)?;
        Ok(Self { label_bytes, count, front, section })
    }

    /// Whose they are.
    pub fn tenant(&self) -> &'a str {
        self.section.tenant
    }

    /// How late they may be, milliseconds.
    pub fn out_of_order_ms(&self) -> i64 {
        self.section.out_of_order_ms
    }

    /// Bytes that a batch of them takes, beside what is as large as the rows themselves.
    pub fn batch_bytes(&self) -> usize {
        let floats = self.section.float_count() * size_of::<SampleRow>();
        self.label_bytes + self.count * size_of::<SeriesRow>() + floats
    }

    /// Reads all rows into `batch`, which is emptied first; there is room for [`Self::batch_bytes`].
    pub fn decode(mut self, batch: &mut Batch) -> Result<(), Malformed> {
        batch.clear();
        self.read_labels(batch)?;
        let Batch { series, samples, histograms, exemplars, metadata, .. } = batch;
        fill(series, |row| &mut row.samples, self.section.floats(), samples)?;
        fill(series, |row| &mut row.histograms, self.section.histograms().map(valid), histograms)?;
        fill(series, |row| &mut row.exemplars, self.section.exemplars(), exemplars)?;
        for row in self.section.metadata() {
            metadata.push(row?);
        }
        Ok(())
    }

    /// Makes a series of each label set.
    fn read_labels(&mut self, batch: &mut Batch) -> Result<(), Malformed> {
        let wrong = Malformed { what: "labels of a row", at: 0 };
        let mut bytes = std::mem::take(&mut batch.labels).into_bytes();
        let (front, mut last) = (&mut self.front, 0..0);
        batch.series.reserve(self.count);
        for _ in 0..self.count {
            let shared = front.varint("shared bytes")?;
            let shared = usize::try_from(shared).ok().filter(|n| *n <= last.len()).ok_or(wrong)?;
            let length = front.count("label bytes")?;
            let rest = front.take(length, "label bytes")?;
            let start = bytes.len();
            if start + shared + rest.len() > self.label_bytes {
                return Err(wrong);
            }
            bytes.extend_from_within(last.start..last.start + shared);
            bytes.extend_from_slice(rest);
            last = start..bytes.len();
            let labels = start as u32..last.end as u32;
            batch.series.push(SeriesRow { labels, hash: 0, samples: 0..0, histograms: 0..0, exemplars: 0..0 });
        }
        batch.labels = String::from_utf8(bytes).map_err(|_| wrong)?;
        let seed = tenant_seed(self.section.tenant);
        for row in &mut batch.series {
            let labels = batch.labels.get(row.labels.start as usize..row.labels.end as usize);
            let labels = labels.filter(|labels| is_canonical(labels)).ok_or(wrong)?;
            row.hash = series_hash_seeded(seed, labels);
        }
        Ok(())
    }
}

type Item<T> = Result<(SeriesRef, T), Malformed>;

fn valid(item: Item<HistogramRow>) -> Item<HistogramRow> {
    let (series, row) = item?;
    row.h.validate().map_err(|_| Malformed { what: "histogram", at: 0 })?;
    Ok((series, row))
}

/// Puts items, which come in the order of their series, into `table`, and their places into the series.
fn fill<T>(
    series: &mut [SeriesRow],
    place: fn(&mut SeriesRow) -> &mut Range<u32>,
    items: impl Iterator<Item = Item<T>>,
    table: &mut Vec<T>,
) -> Result<(), Malformed> {
    let wrong = Malformed { what: "series of a row", at: 0 };
    let mut last = None;
    for item in items {
        let (SeriesRef::New(n), value) = item? else { return Err(wrong) };
        if last.is_some_and(|last| n < last) {
            return Err(wrong);
        }
        let range = place(series.get_mut(n as usize).ok_or(wrong)?);
        let at = table.len() as u32;
        if last != Some(n) {
            range.start = at;
        }
        range.end = at + 1;
        last = Some(n);
        table.push(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
