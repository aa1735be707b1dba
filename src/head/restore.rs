//! Builds a head from a snapshot.
//!
//! *Invariants:* the restored head gives the same ids and verdicts as the captured one. Any bytes end in a head or in a
//! [`RestoreError`]; memory is bounded by the length of what is read.
//!
//! *Not here:* writing (`snapshot`).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::core::{Head, HeadOptions, TenantIdx};
use super::exemplars::Entry;
use super::ooo::{OooBuffer, Value};
use super::series::Series;
use super::snapshot::{MAGIC, Tag};
use super::window::{WindowInfo, WindowState, Windows, window_of};
use crate::chunk::bits::{take_varint, take_zigzag};
use crate::chunk::{self, Chunk};
use crate::error::{HasKind, Kind};
use crate::model::labels::LabelIter;
use crate::model::{Columns, Exemplar, Histogram, Labels, MetadataRow, MetricType, ResetHint, TenantId};

/// Why a snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Reading failed.
    #[error("restore head: read section {section}")]
    Io {
        /// Number of the section, from 0.
        section: usize,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The bytes do not begin like a snapshot of this version.
    #[error("restore head: not a head snapshot of a known version: {0:02x?}")]
    Magic([u8; 8]),
    /// The checksum does not fit.
    #[error("restore head: checksum of section {section} is {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// Number of the section, from 0.
        section: usize,
        /// Stored.
        found: u32,
        /// Computed.
        computed: u32,
    },
    /// A chunk or number in a section is malformed.
    #[error("restore head: section {section}")]
    Chunk {
        /// Number of the section, from 0.
        section: usize,
        /// What is wrong.
        #[source]
        source: chunk::Error,
    },
    /// A section says what no head writes.
    #[error("restore head: section {section}: {what}")]
    Malformed {
        /// Number of the section, from 0.
        section: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl HasKind for RestoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::Unavailable,
            _ => Kind::Corrupt,
        }
    }
}

/// What is wrong inside a section, before it is known which one it is.
enum Fault {
    Chunk(chunk::Error),
    Malformed(&'static str),
}

impl From<chunk::Error> for Fault {
    fn from(e: chunk::Error) -> Self {
        Self::Chunk(e)
    }
}

fn take<'a>(data: &mut &'a [u8], len: usize) -> Result<&'a [u8], Fault> {
    let (part, rest) = data.split_at_checked(len).ok_or(Fault::Malformed("it ends early"))?;
    *data = rest;
    Ok(part)
}

fn take_u8(data: &mut &[u8]) -> Result<u8, Fault> {
    Ok(take(data, 1)?[0])
}

fn take_u64(data: &mut &[u8]) -> Result<u64, Fault> {
    let (part, rest) = data.split_first_chunk::<8>().ok_or(Fault::Malformed("it ends early"))?;
    *data = rest;
    Ok(u64::from_le_bytes(*part))
}

fn take_u32(data: &mut &[u8]) -> Result<u32, Fault> {
    u32::try_from(take_varint(data)?).map_err(|_| Fault::Malformed("a number is larger than 32 bits"))
}

fn take_text<'a>(data: &mut &'a [u8]) -> Result<&'a str, Fault> {
    let len = take_u32(data)? as usize;
    std::str::from_utf8(take(data, len)?).map_err(|_| Fault::Malformed("a text is not UTF-8"))
}

fn take_window(data: &mut &[u8]) -> Result<i32, Fault> {
    window_of(take_zigzag(data)?).ok_or(Fault::Malformed("a window is out of range"))
}

impl Head {
    /// Reads what [`HeadSnapshot::write`](super::HeadSnapshot::write) wrote, up to and including its end mark; `seed` as for
    /// [`Head::new`].
    pub fn restore(from: &mut dyn Read, seed: u64) -> Result<Self, RestoreError> {
        let mut magic = [0u8; 8];
        from.read_exact(&mut magic).map_err(|source| RestoreError::Io { section: 0, source })?;
        if magic != MAGIC {
            return Err(RestoreError::Magic(magic));
        }
        let mut restorer = Restorer::new(seed, false);
        let mut buf = Vec::new();
        for section in 0.. {
            let tag = read_section(from, section, &mut buf)?;
            if restorer.section(section, tag, &buf)? {
                break;
            }
        }
        Ok(restorer.head)
    }
}

/// Reads a section into `buf`, checking it; its tag.
pub(super) fn read_section(from: &mut dyn Read, section: usize, buf: &mut Vec<u8>) -> Result<u8, RestoreError> {
    let io = |source| RestoreError::Io { section, source };
    let mut head = [0u8; 9];
    from.read_exact(&mut head).map_err(io)?;
    let len = u64::from_le_bytes(head[1..].first_chunk().copied().unwrap_or_default());
    buf.clear();
    // Grows as bytes arrive: a wrong length cannot make it allocate more than there is.
    let got = from.take(len).read_to_end(buf).map_err(io)?;
    if got as u64 != len {
        return Err(io(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut stored = [0u8; 4];
    from.read_exact(&mut stored).map_err(io)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head);
    crc.update(buf);
    let (found, computed) = (u32::from_le_bytes(stored), crc.finalize());
    if found != computed {
        return Err(RestoreError::Checksum { section, found, computed });
    }
    Ok(head[0])
}

pub(super) struct Restorer {
    pub(super) head: Head,
    /// Held back until the series are there.
    exemplars: Vec<(usize, Entry)>,
    /// Whether what comes is a part of a head: of one tenant, series numbered from 1 without gaps, samples left out.
    part: bool,
}

impl Restorer {
    pub(super) fn new(seed: u64, part: bool) -> Self {
        Self { head: Head::new(HeadOptions::default(), seed), exemplars: Vec::new(), part }
    }

    /// Takes one section in; `true` at the end mark.
    pub(super) fn section(&mut self, number: usize, tag: u8, data: &[u8]) -> Result<bool, RestoreError> {
        self.take_section(number, tag, data).map_err(|fault| match fault {
            Fault::Chunk(source) => RestoreError::Chunk { section: number, source },
            Fault::Malformed(what) => RestoreError::Malformed { section: number, what },
        })
    }

    fn take_section(&mut self, number: usize, tag: u8, mut data: &[u8]) -> Result<bool, Fault> {
        let data = &mut data;
        if (number == 0) != (tag == Tag::Head as u8) {
            return Err(Fault::Malformed("the head section must be the first"));
        }
        match tag {
            t if t == Tag::Head as u8 => self.head_section(data)?,
            t if t == Tag::Tenant as u8 => self.tenant_section(data)?,
            t if t == Tag::Series as u8 => {
                for _ in 0..take_varint(data)? {
                    self.series(data)?;
                }
            }
            t if t == Tag::Exemplars as u8 => self.exemplar_section(data)?,
            t if t == Tag::Metadata as u8 => self.metadata_section(data)?,
            t if t == Tag::LeftOut as u8 && self.part => self.left_out_section(data)?,
            t if t == Tag::End as u8 => self.finish()?,
            _ => return Err(Fault::Malformed("its tag is unknown")),
        }
        if data.is_empty() { Ok(tag == Tag::End as u8) } else { Err(Fault::Malformed("it has bytes left over")) }
    }

    fn head_section(&mut self, data: &mut &[u8]) -> Result<(), Fault> {
        self.head.next_id = take_u32(data)?;
        self.head.options =
            HeadOptions { exemplars: take_varint(data)? as usize, metadata_metrics: take_varint(data)? as usize };
        let mut list = Vec::new();
        for _ in 0..take_varint(data)? {
            list.push(take_window_info(data)?);
        }
        let mut next = BTreeMap::new();
        for _ in 0..take_varint(data)? {
            next.insert(take_window(data)?, take_u32(data)?);
        }
        self.head.windows = Windows::restored(list, next);
        Ok(())
    }

    fn tenant_section(&mut self, data: &mut &[u8]) -> Result<(), Fault> {
        let id = TenantId::new(take_text(data)?).map_err(|_| Fault::Malformed("a tenant id is not valid"))?;
        if self.head.tenant(&id).is_some() || self.part && !self.head.tenants.is_empty() {
            return Err(Fault::Malformed("a tenant comes twice, or another one in a part"));
        }
        let n = self.head.tenant_or_create(&id);
        self.head.tenants[n.0 as usize].newest = take_zigzag(data)?;
        Ok(())
    }

    fn series(&mut self, data: &mut &[u8]) -> Result<(), Fault> {
        let (id, tenant, hash) = (take_u32(data)?, take_u32(data)?, take_u64(data)?);
        let canonical = take_text(data)?;
        if id >= self.head.next_id || self.head.series_exists(crate::model::SeriesId(id)) {
            return Err(Fault::Malformed("a series id is out of order"));
        }
        // Ids beyond the number of series would make tables larger than what was read.
        if self.part && id as usize != self.head.series + 1 {
            return Err(Fault::Malformed("a series of a part is not the next one"));
        }
        let known = self.head.tenants.get(tenant as usize).is_some();
        if !known || LabelIter::over(canonical).count() > usize::from(u16::MAX) {
            return Err(Fault::Malformed("a series has no such tenant or too many labels"));
        }
        if Labels::from_canonical(canonical).is_none() {
            return Err(Fault::Malformed("a label set is not canonical"));
        }
        let slot = self.head.insert_series(id, TenantIdx(tenant), hash, canonical);
        let Some(series) = self.head.slab.get_mut(slot) else { return Ok(()) };
        series.floats.set_last_t(take_zigzag(data)?);
        for _ in 0..take_varint(data)? {
            let generation = take_u32(data)?;
            series.push_sealed(Chunk::take(data)?, generation);
        }
        match take_u8(data)? {
            0 => {}
            1 => restore_open(series, data)?,
            _ => return Err(Fault::Malformed("an open mark is neither 0 nor 1")),
        }
        for _ in 0..take_varint(data)? {
            let mut buffer = OooBuffer::new(take_window(data)?, take_u32(data)?);
            let mut columns = Columns::default();
            for _ in 0..take_varint(data)? {
                columns.clear();
                Chunk::take(data)?.decode(&mut columns)?;
                for_each(&columns, |t, start, value| buffer.insert(t, start, value));
            }
            series.extra().ooo.push(buffer);
        }
        self.head.series_bytes += series.heap_bytes();
        Ok(())
    }

    fn exemplar_section(&mut self, data: &mut &[u8]) -> Result<(), Fault> {
        let Some(tenant) = self.head.tenants.len().checked_sub(1) else {
            return Err(Fault::Malformed("exemplars come before their tenant"));
        };
        for _ in 0..take_varint(data)? {
            let (series, generation, t) = (take_u32(data)?, take_u32(data)?, take_zigzag(data)?);
            let value = f64::from_bits(take_u64(data)?);
            let labels =
                Labels::from_canonical(take_text(data)?).ok_or(Fault::Malformed("a label set is not canonical"))?;
            let exemplar = Exemplar { labels, value, t };
            self.exemplars.push((tenant, Entry { series, generation, exemplar }));
        }
        Ok(())
    }

    fn metadata_section(&mut self, data: &mut &[u8]) -> Result<(), Fault> {
        let Some(tenant) = self.head.tenants.last_mut() else {
            return Err(Fault::Malformed("metadata comes before its tenant"));
        };
        let mut last: Option<Arc<str>> = None;
        for _ in 0..take_varint(data)? {
            let metric = take_text(data)?;
            let metric = last.filter(|m| **m == *metric).unwrap_or_else(|| Arc::from(metric));
            last = Some(Arc::clone(&metric));
            let kind = MetricType::from_wire(u64::from(take_u8(data)?));
            let (help, unit) = (Arc::from(take_text(data)?), Arc::from(take_text(data)?));
            tenant.metadata.put(MetadataRow { metric, kind, help, unit }, usize::MAX);
        }
        Ok(())
    }

    fn left_out_section(&mut self, data: &mut &[u8]) -> Result<(), Fault> {
        let Some(tenant) = self.head.tenants.last_mut() else {
            return Err(Fault::Malformed("what was left out comes before its tenant"));
        };
        tenant.left_out = take_varint(data)?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Fault> {
        for (tenant, entry) in self.exemplars.drain(..) {
            self.head.tenants[tenant].exemplars.push(entry, usize::MAX);
        }
        if self.part || self.head.windows_are_sound() {
            Ok(())
        } else {
            Err(Fault::Malformed("its windows do not list what its series hold"))
        }
    }
}

fn take_window_info(data: &mut &[u8]) -> Result<WindowInfo, Fault> {
    let start = super::window::start_of(take_window(data)?);
    let generation = take_u32(data)?;
    let state = match take_u8(data)? {
        0 => WindowState::Open,
        1 => WindowState::Closed,
        _ => return Err(Fault::Malformed("a window state is unknown")),
    };
    let (min_t, max_t) = (take_zigzag(data)?, take_zigzag(data)?);
    Ok(WindowInfo { start, generation, state, min_t, max_t, samples: take_varint(data)?, bytes: take_varint(data)? })
}

/// Appends the samples of an open chunk again: encoders are deterministic, so this restores their very state.
fn restore_open(series: &mut Series, data: &mut &[u8]) -> Result<(), Fault> {
    series.window = take_window(data)?;
    series.generation = take_u32(data)?;
    let chunk = Chunk::take(data)?;
    if chunk.last_t() != series.floats.last_t() {
        return Err(Fault::Malformed("an open chunk does not end at the newest timestamp"));
    }
    let mut columns = Columns::default();
    chunk.decode(&mut columns)?;
    let mut n = 0;
    for_each(&columns, |t, start, value| {
        if !columns.starts.is_empty() {
            series.extra().starts.push(n, start);
        }
        match value {
            Value::Float(v) => series.floats.push(t, v),
            Value::Histogram(h) => series.extra().histograms.get_or_insert_default().push(t, h),
        }
        n += 1;
    });
    Ok(())
}

fn for_each(columns: &Columns, mut tell: impl FnMut(i64, i64, Value)) {
    let mut histograms = columns.histograms.iter().peekable();
    for (i, (t, v)) in columns.timestamps.iter().zip(&columns.values).enumerate() {
        let value = match histograms.next_if(|(at, _)| *at as usize == i) {
            Some((_, h)) => Value::Histogram(forget_hint(h)),
            None => Value::Float(*v),
        };
        tell(*t, columns.start(i), value);
    }
}

/// Counter hints of a decoded chunk say where the sample stood in it, which does not concern the next chunk.
fn forget_hint(h: &Arc<Histogram>) -> Arc<Histogram> {
    if h.reset_hint != ResetHint::NotReset {
        return Arc::clone(h);
    }
    Arc::new(Histogram { reset_hint: ResetHint::Unknown, ..(**h).clone() })
}
