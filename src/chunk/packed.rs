//! A finished chunk: one shared run of bytes that describes itself.
//!
//! *Invariants:* the header was checked when the bytes came in, so its fields can be trusted; the payload is checked
//! while it is decoded.
//!
//! *Not here:* writing payloads (`float`, `histogram`), reading several chunks in order (`iter`).

use std::sync::Arc;

use super::bits::{push_varint, take_varint};
use super::{Error, StartRuns, float, histogram};
use crate::model::{Columns, TimeRange};

/// Bytes of the header.
pub(super) const HEADER: usize = 16;
/// Flag in the kind byte: a section of start timestamps follows the payload.
const HAS_STARTS: u8 = 0x80;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkKind {
    /// Floats.
    Float = 1,
    /// Histograms with counts coded as integers.
    IntegerHistogram = 2,
    /// Histograms with counts coded as floats.
    FloatHistogram = 3,
}

/// The samples of one series, packed and immutable; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk(Arc<[u8]>);

impl Chunk {
    /// Takes stored bytes, checking the header.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(Error::Truncated { len: bytes.len(), part: "the header" });
        };
        if !(1..=3).contains(&(header[0] & !HAS_STARTS)) {
            return Err(Error::UnknownKind(header[0]));
        }
        let chunk = Self(Arc::from(bytes));
        if chunk.first_t().checked_add(i64::from(chunk.span())).is_none() {
            return Err(Error::Malformed("the last timestamp overflows"));
        }
        if chunk.len() == 0 {
            return Err(Error::Malformed("it has no samples"));
        }
        Ok(chunk)
    }

    /// Finishes a payload written behind an empty header.
    pub(super) fn seal(kind: ChunkKind, count: u16, last_t: i64, buf: &[u8], starts: Option<&StartRuns>) -> Self {
        let mut arc: Arc<[u8]> = match starts.filter(|s| !s.is_empty()) {
            None => Arc::from(buf),
            Some(starts) => {
                let mut with = buf.to_vec();
                starts.write(&mut with);
                let len = (with.len() - buf.len()) as u32;
                with.extend_from_slice(&len.to_le_bytes());
                Arc::from(with)
            }
        };
        let flag = if starts.is_some_and(|s| !s.is_empty()) { HAS_STARTS } else { 0 };
        if let Some(bytes) = Arc::get_mut(&mut arc) {
            bytes[0] = kind as u8 | flag;
            bytes[2..4].copy_from_slice(&count.to_le_bytes());
            let first = i64::from_le_bytes(bytes[8..16].first_chunk().copied().unwrap_or_default());
            bytes[4..8].copy_from_slice(&((last_t - first) as u32).to_le_bytes());
        }
        Self(arc)
    }

    /// The bytes, to be stored.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it holds.
    pub fn kind(&self) -> ChunkKind {
        match self.0[0] & !HAS_STARTS {
            2 => ChunkKind::IntegerHistogram,
            3 => ChunkKind::FloatHistogram,
            _ => ChunkKind::Float,
        }
    }

    /// Number of samples, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[2], self.0[3]]))
    }

    fn span(&self) -> u32 {
        u32::from_le_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Timestamp of the first sample, milliseconds.
    pub fn first_t(&self) -> i64 {
        i64::from_le_bytes(self.0[8..16].first_chunk().copied().unwrap_or_default())
    }

    /// Timestamp of the last sample, milliseconds.
    pub fn last_t(&self) -> i64 {
        self.first_t() + i64::from(self.span())
    }

    /// From the first to the last sample.
    pub fn range(&self) -> TimeRange {
        TimeRange::new(self.first_t(), self.last_t())
    }

    /// Heap bytes held, shared by all clones.
    pub fn heap_bytes(&self) -> usize {
        self.0.len() + 2 * size_of::<usize>()
    }

    /// Appends all samples to `out`, whose last timestamp must be earlier. After an error `out` holds garbage.
    pub fn decode(&self, out: &mut Columns) -> Result<(), Error> {
        let (payload, starts) = self.split()?;
        let before = out.len();
        match self.kind() {
            ChunkKind::Float => float::decode(payload, self.first_t(), self.len(), out)?,
            kind => histogram::decode(kind, payload, self.first_t(), self.len(), out)?,
        }
        if out.timestamps.last() != Some(&self.last_t()) {
            return Err(Error::Malformed("the last timestamp is not the one in the header"));
        }
        match starts {
            Some(section) => StartRuns::read_into(section, before, out)?,
            None if !out.starts.is_empty() => out.starts.resize(out.timestamps.len(), 0),
            None => {}
        }
        Ok(())
    }

    /// Payload and section of start timestamps.
    fn split(&self) -> Result<(&[u8], Option<&[u8]>), Error> {
        let body = &self.0[HEADER..];
        if self.0[0] & HAS_STARTS == 0 {
            return Ok((body, None));
        }
        let truncated = Error::Truncated { len: self.0.len(), part: "the start timestamps" };
        let (body, len) = body.split_last_chunk::<4>().ok_or_else(|| truncated.clone())?;
        let at = body.len().checked_sub(u32::from_le_bytes(*len) as usize).ok_or(truncated)?;
        Ok((&body[..at], Some(&body[at..])))
    }

    /// Appends length and bytes, to be read by [`Chunk::take`].
    pub fn write(&self, buf: &mut Vec<u8>) {
        push_varint(buf, self.0.len() as u64);
        buf.extend_from_slice(&self.0);
    }

    /// Splits a chunk off that [`Chunk::write`] wrote.
    pub fn take(data: &mut &[u8]) -> Result<Self, Error> {
        let len = take_varint(data)?;
        let whole = usize::try_from(len).ok().and_then(|len| data.split_at_checked(len));
        let (bytes, rest) = whole.ok_or(Error::Truncated { len: data.len(), part: "a chunk" })?;
        *data = rest;
        Self::from_bytes(bytes)
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({} samples, {}..={})", self.kind(), self.len(), self.first_t(), self.last_t())
    }
}
