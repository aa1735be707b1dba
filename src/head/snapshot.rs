//! Captures the head, and writes the capture as a stream.
//!
//! *Invariants:* the capture is consistent and cheap: finished chunks are shared, all else is encoded into memory at
//! once. Equal heads give equal bytes.
//!
//! *Not here:* reading it back (`restore`), files (`raft::snapshot`).

use std::io::{self, Write};

use super::core::{Head, Tenant};
use super::exemplars::Entry;
use super::series::Series;
use super::window::{WindowInfo, start_of};
use crate::chunk::Chunk;
use crate::chunk::bits::{push_varint, push_zigzag};
use crate::model::MetadataRow;

/// First bytes of a snapshot; the last is the version.
pub(super) const MAGIC: [u8; 8] = *b"MLHEAD\0\x01";
/// Series per section: bounds what a reader holds at a time.
const SERIES_PER_SECTION: usize = 4096;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    Head = 1,
    Tenant = 2,
    Series = 3,
    Exemplars = 4,
    Metadata = 5,
    End = 6,
    /// Only in parts of a head.
    LeftOut = 7,
}

/// One section: bytes, into which shared chunks are spliced.
#[derive(Debug)]
pub(super) struct Section {
    tag: Tag,
    /// Number of items, written before them; `None` for a section that is no list.
    items: Option<u64>,
    pub(super) fixed: Vec<u8>,
    /// Offset in `fixed` before which a chunk is to be written, ascending.
    spliced: Vec<(u32, Chunk)>,
}

impl Section {
    pub(super) fn new(tag: Tag) -> Self {
        Self { tag, items: None, fixed: Vec::new(), spliced: Vec::new() }
    }

    /// A section of items, none yet.
    pub(super) fn list(tag: Tag) -> Self {
        Self { items: Some(0), ..Self::new(tag) }
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    /// Begins an item: where its bytes go.
    pub(super) fn item(&mut self) -> &mut Vec<u8> {
        self.items = self.items.map(|n| n + 1);
        &mut self.fixed
    }

    /// Bytes of its items, chunks included.
    pub(super) fn len(&self) -> usize {
        self.fixed.len() + self.spliced.iter().map(|(_, c)| c.bytes().len()).sum::<usize>()
    }

    pub(super) fn splice(&mut self, chunk: &Chunk) {
        push_varint(&mut self.fixed, chunk.bytes().len() as u64);
        self.spliced.push((self.fixed.len() as u32, chunk.clone()));
    }

    /// Tag, length, payload, CRC-32 of all of it.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut items = Vec::new();
        if let Some(n) = self.items {
            push_varint(&mut items, n);
        }
        let len = items.len() + self.len();
        let mut head = [0u8; 9];
        head[0] = self.tag as u8;
        head[1..].copy_from_slice(&(len as u64).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        let mut put = |bytes: &[u8]| {
            crc.update(bytes);
            out.write_all(bytes)
        };
        put(&head)?;
        put(&items)?;
        let mut from = 0;
        for (at, chunk) in &self.spliced {
            put(&self.fixed[from..*at as usize])?;
            put(chunk.bytes())?;
            from = *at as usize;
        }
        put(&self.fixed[from..])?;
        out.write_all(&crc.finalize().to_le_bytes())
    }
}

/// A captured head; independent of the live one.
#[derive(Debug)]
pub struct HeadSnapshot {
    sections: Vec<Section>,
}

impl HeadSnapshot {
    /// Writes the snapshot.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = io::BufWriter::with_capacity(1 << 16, out);
        out.write_all(&MAGIC)?;
        for section in &self.sections {
            section.write(&mut out)?;
        }
        out.flush()
    }
}

impl Head {
    /// Captures the head as it is.
    pub fn snapshot(&self) -> HeadSnapshot {
        let mut sections = vec![self.head_section()];
        for tenant in &self.tenants {
            sections.push(tenant_section(tenant));
            sections.push(exemplar_section(tenant));
            sections.push(metadata_section(tenant));
        }
        // In order of id, whatever the slots: postings are built by appending.
        let mut slots: Vec<(u32, u32)> = self.slab.iter().map(|(slot, s)| (s.id, slot)).collect();
        slots.sort_unstable();
        let mut canonical = String::new();
        for some in slots.chunks(SERIES_PER_SECTION) {
            let mut section = Section::list(Tag::Series);
            for series in some.iter().filter_map(|(_, slot)| self.slab.get(*slot)) {
                canonical.clear();
                let list = self.labels.get(series.labels_at, series.label_count);
                self.tenants[series.tenant as usize].index.write_canonical(list, &mut canonical);
                push_series(&mut section, series, &canonical);
            }
            sections.push(section);
        }
        sections.push(Section::new(Tag::End));
        HeadSnapshot { sections }
    }

    fn head_section(&self) -> Section {
        let mut section = Section::new(Tag::Head);
        let out = &mut section.fixed;
        push_varint(out, u64::from(self.next_id));
        push_varint(out, self.options.exemplars as u64);
        push_varint(out, self.options.metadata_metrics as u64);
        push_varint(out, self.windows.list().len() as u64);
        for w in self.windows.list() {
            push_window(out, w);
        }
        push_varint(out, self.windows.next_generations().count() as u64);
        for (window, generation) in self.windows.next_generations() {
            push_zigzag(out, start_of(window));
            push_varint(out, u64::from(generation));
        }
        section
    }
}

pub(super) fn push_window(out: &mut Vec<u8>, w: &WindowInfo) {
    push_zigzag(out, w.start);
    push_varint(out, u64::from(w.generation));
    out.push(w.state as u8);
    push_zigzag(out, w.min_t);
    push_zigzag(out, w.max_t);
    push_varint(out, w.samples);
    push_varint(out, w.bytes);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn tenant_section(tenant: &Tenant) -> Section {
    let mut section = Section::new(Tag::Tenant);
    push_text(&mut section.fixed, tenant.id.as_str());
    push_zigzag(&mut section.fixed, tenant.newest);
    section
}

/// The beginning of a series: all before its chunks.
pub(super) fn push_identity(section: &mut Section, (id, tenant): (u32, u32), series: &Series, canonical: &str) {
    let out = section.item();
    push_varint(out, u64::from(id));
    push_varint(out, u64::from(tenant));
    out.extend_from_slice(&series.hash.to_le_bytes());
    push_text(out, canonical);
    push_zigzag(out, series.floats.last_t());
}

fn push_series(section: &mut Section, series: &Series, canonical: &str) {
    push_identity(section, (series.id, series.tenant), series, canonical);
    let out = &mut section.fixed;
    push_varint(out, series.sealed.len() as u64);
    for sealed in &series.sealed {
        push_varint(&mut section.fixed, u64::from(sealed.generation));
        section.splice(&sealed.chunk);
    }
    match series.open_chunk() {
        None => section.fixed.push(0),
        Some(chunk) => {
            section.fixed.push(1);
            push_zigzag(&mut section.fixed, start_of(series.window));
            push_varint(&mut section.fixed, u64::from(series.generation));
            chunk.write(&mut section.fixed);
        }
    }
    let buffers = series.extra.as_ref().map_or(&[][..], |e| &e.ooo);
    push_varint(&mut section.fixed, buffers.len() as u64);
    for buffer in buffers {
        push_zigzag(&mut section.fixed, start_of(buffer.window));
        push_varint(&mut section.fixed, u64::from(buffer.generation));
        let chunks = buffer.pack();
        push_varint(&mut section.fixed, chunks.len() as u64);
        for chunk in chunks {
            chunk.write(&mut section.fixed);
        }
    }
}

fn exemplar_section(tenant: &Tenant) -> Section {
    let mut section = Section::list(Tag::Exemplars);
    for e in tenant.exemplars.iter() {
        push_exemplar(&mut section, e.series, e);
    }
    section
}

/// An exemplar of the series with this number.
pub(super) fn push_exemplar(section: &mut Section, series: u32, e: &Entry) {
    let out = section.item();
    push_varint(out, u64::from(series));
    push_varint(out, u64::from(e.generation));
    push_zigzag(out, e.exemplar.t);
    out.extend_from_slice(&e.exemplar.value.to_bits().to_le_bytes());
    push_text(out, e.exemplar.labels.canonical());
}

fn metadata_section(tenant: &Tenant) -> Section {
    let mut section = Section::list(Tag::Metadata);
    for row in tenant.metadata.iter() {
        push_metadata(&mut section, row);
    }
    section
}

pub(super) fn push_metadata(section: &mut Section, row: &MetadataRow) {
    let MetadataRow { metric, kind, help, unit } = row;
    let out = section.item();
    push_text(out, metric);
    out.push(*kind as u8);
    push_text(out, help);
    push_text(out, unit);
}
