//! A part of a head: what another node needs of it to answer as the whole head would.
//!
//! *Invariants:* a part is a head. Asked what it was cut for, without any matchers or with the same ones, it answers as
//! the head it was cut from: the same series in the same order, with the very chunks that the whole head would hand out.
//! Cutting copies labels and open chunks only; finished chunks are shared.
//!
//! *Not here:* sending it, and how far the shard was flushed (`query`).

use std::collections::BTreeMap;
use std::io::{self, Read};

use roaring::RoaringBitmap;

use super::core::{Head, Tenant};
use super::exemplars::Entry;
use super::restore::{RestoreError, Restorer, read_section};
use super::series::Series;
use super::snapshot::{MAGIC, Section, Tag, push_exemplar, push_identity, push_metadata, push_window, tenant_section};
use crate::chunk::Chunk;
use crate::chunk::bits::push_varint;
use crate::model::{Matcher, TenantId, TimeRange};

/// Bytes at which a section, and a piece of sections, is full.
const FULL_BYTES: usize = 128 << 10;

/// What a part is cut for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want<'a> {
    /// [`Head::select`].
    Samples,
    /// [`Head::series_labels`].
    Labels,
    /// [`Head::label_names`]: of the series only as many as carry all names.
    Names,
    /// [`Head::label_values`] of this label: of the series only as many as carry all values.
    Values(&'a str),
    /// [`Head::exemplars`].
    Exemplars,
    /// [`Head::count`], [`Head::label_pairs`], [`Head::chunks`], [`Head::windows`], whatever the range. Without matchers
    /// [`Head::tenant_stats`], too.
    Counts,
    /// [`Head::metadata`] of this metric, or of all; whatever matchers and range.
    Metadata(Option<&'a str>),
    /// Whether the tenant is known, and its newest timestamp; nothing else.
    Tenant,
}

/// A part, independent of the live head.
#[derive(Debug)]
pub struct HeadPart {
    sections: Vec<Section>,
}

impl HeadPart {
    /// Its bytes for a [`PartReader`], in pieces of less than 256 KiB (unless one series takes more).
    pub fn into_pieces(self) -> impl Iterator<Item = io::Result<Vec<u8>>> + Send {
        let mut sections = self.sections.into_iter();
        let mut first = true;
        std::iter::from_fn(move || {
            let mut piece = Vec::new();
            while piece.len() < FULL_BYTES {
                let Some(section) = sections.next() else { break };
                if std::mem::take(&mut first) {
                    piece.extend_from_slice(&MAGIC);
                }
                if let Err(e) = section.write(&mut piece) {
                    return Some(Err(e));
                }
            }
            (!piece.is_empty()).then_some(Ok(piece))
        })
    }
}

impl Head {
    /// Cuts out what `want` needs of a tenant's series that fulfil all matchers within the range. `admit` is told the bytes
    /// of each series, exemplar and metadata row, and ends it with an error.
    pub fn part<E>(
        &self,
        tenant: &TenantId,
        want: Want<'_>,
        matchers: &[Matcher],
        range: TimeRange,
        admit: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<HeadPart, E> {
        let mut cut = Cut { head: self, admit, series: 0, sections: Vec::new(), text: String::new() };
        if let Some(n) = self.tenant(tenant) {
            let tenant = &self.tenants[n.0 as usize];
            cut.sections.push(tenant_section(tenant));
            cut.tenant(tenant, want, matchers, range)?;
            if want == Want::Counts {
                let mut section = Section::new(Tag::LeftOut);
                push_varint(&mut section.fixed, self.chunks(&tenant.id));
                cut.sections.push(section);
            }
        }
        let mut sections = vec![self.part_section(cut.series, want)];
        sections.append(&mut cut.sections);
        sections.push(Section::new(Tag::End));
        Ok(HeadPart { sections })
    }

    fn part_section(&self, series: u32, want: Want<'_>) -> Section {
        // Windows say what a head covers. A part covers what it was cut for: without windows it has no doubt.
        let windows = if want == Want::Counts { self.windows.list() } else { &[] };
        let mut section = Section::new(Tag::Head);
        let out = &mut section.fixed;
        push_varint(out, u64::from(series) + 1);
        push_varint(out, self.options.exemplars as u64);
        push_varint(out, self.options.metadata_metrics as u64);
        push_varint(out, windows.len() as u64);
        windows.iter().for_each(|w| push_window(out, w));
        push_varint(out, 0);
        section
    }

    /// Of some series as many as carry all of the names (or all values of one) that they carry.
    fn representatives(tenant: &Tenant, ids: &RoaringBitmap, of: Option<&str>) -> RoaringBitmap {
        let first = |pair: &u32| tenant.index.pair(*pair).postings.first_in(ids);
        match of {
            Some(name) => tenant.index.name(name).into_iter().flat_map(|name| &name.pairs).filter_map(first).collect(),
            None => tenant.index.names().filter_map(|name| name.pairs.iter().find_map(first)).collect(),
        }
    }
}

/// A part that is being cut.
struct Cut<'a, A> {
    head: &'a Head,
    admit: A,
    /// Series so far.
    series: u32,
    sections: Vec<Section>,
    /// Labels of the series at hand.
    text: String,
}

impl<A: FnMut(usize) -> Result<(), E>, E> Cut<'_, A> {
    fn tenant(&mut self, tenant: &Tenant, want: Want<'_>, matchers: &[Matcher], range: TimeRange) -> Result<(), E> {
        let head = self.head;
        match want {
            Want::Samples => {
                for series in head.matching(tenant, matchers).iter().filter_map(|id| head.series_by_id(id)) {
                    let chunks = series.chunks_in(range);
                    if !chunks.is_empty() {
                        self.series(tenant, series, &chunks)?;
                    }
                }
                Ok(())
            }
            Want::Labels => self.without_samples(tenant, &head.matching_in(tenant, matchers, range)),
            Want::Counts => self.without_samples(tenant, &head.matching(tenant, matchers)),
            Want::Names => {
                let ids = head.matching_in(tenant, matchers, range);
                self.without_samples(tenant, &Head::representatives(tenant, &ids, None))
            }
            Want::Values(name) => {
                let ids = head.matching_in(tenant, matchers, range);
                self.without_samples(tenant, &Head::representatives(tenant, &ids, Some(name)))
            }
            Want::Exemplars => self.exemplars(tenant, matchers, range),
            Want::Metadata(Some(metric)) => self.metadata(tenant.metadata.of(metric).iter()),
            Want::Metadata(None) => self.metadata(tenant.metadata.iter()),
            Want::Tenant => Ok(()),
        }
    }

    /// The section that takes the next item.
    fn open(&mut self, tag: Tag) -> &mut Section {
        if self.sections.last().is_none_or(|last| last.tag() != tag || last.len() >= FULL_BYTES) {
            self.sections.push(Section::list(tag));
        }
        let last = self.sections.len() - 1;
        &mut self.sections[last]
    }

    /// Adds a series with the chunks that a selection of it hands out, as finished ones and in their order.
    fn series(&mut self, tenant: &Tenant, series: &Series, chunks: &[Chunk]) -> Result<(), E> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        tenant.index.write_canonical(self.head.labels.get(series.labels_at, series.label_count), &mut text);
        let held: usize = chunks.iter().map(|c| c.heap_bytes() + size_of::<(u32, Chunk)>()).sum();
        (self.admit)(text.len() + held)?;
        self.series += 1;
        let id = self.series;
        let section = self.open(Tag::Series);
        push_identity(section, (id, 0), series, &text);
        push_varint(&mut section.fixed, chunks.len() as u64);
        for chunk in chunks {
            push_varint(&mut section.fixed, 0);
            section.splice(chunk);
        }
        // Neither an open chunk nor late samples: those are among the chunks.
        section.fixed.extend_from_slice(&[0, 0]);
        self.text = text;
        Ok(())
    }

    fn without_samples(&mut self, tenant: &Tenant, ids: &RoaringBitmap) -> Result<(), E> {
        let head = self.head;
        ids.iter().filter_map(|id| head.series_by_id(id)).try_for_each(|series| self.series(tenant, series, &[]))
    }

    fn exemplars(&mut self, tenant: &Tenant, matchers: &[Matcher], range: TimeRange) -> Result<(), E> {
        let head = self.head;
        let ids = head.matching(tenant, matchers);
        let wanted = |e: &&Entry| range.contains(e.exemplar.t) && ids.contains(e.series);
        let mut numbers = BTreeMap::new();
        for e in tenant.exemplars.iter().filter(wanted) {
            numbers.insert(e.series, 0);
        }
        for (id, number) in &mut numbers {
            let Some(series) = head.series_by_id(*id) else { continue };
            self.series(tenant, series, &[])?;
            *number = self.series;
        }
        for e in tenant.exemplars.iter().filter(wanted) {
            (self.admit)(size_of::<Entry>() + e.exemplar.labels.heap_bytes())?;
            let number = numbers.get(&e.series).copied().unwrap_or(0);
            push_exemplar(self.open(Tag::Exemplars), number, e);
        }
        Ok(())
    }

    fn metadata<'m>(&mut self, mut rows: impl Iterator<Item = &'m crate::model::MetadataRow>) -> Result<(), E> {
        rows.try_for_each(|row| {
            (self.admit)(row.metric.len() + row.help.len() + row.unit.len())?;
            push_metadata(self.open(Tag::Metadata), row);
            Ok(())
        })
    }
}

/// Puts a part together from its pieces, as they come.
pub struct PartReader {
    restorer: Restorer,
    /// Sections so far.
    sections: usize,
    ended: bool,
    buf: Vec<u8>,
}

impl Default for PartReader {
    fn default() -> Self {
        // Nothing looks a series of a part up by its labels, which is what a seed is for.
        Self { restorer: Restorer::new(0, true), sections: 0, ended: false, buf: Vec::new() }
    }
}

impl PartReader {
    /// Takes the next piece in. Any bytes end in a head or in an error; memory is bounded by the length of what is read.
    pub fn read(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        let mut piece = piece;
        if self.sections == 0 {
            let mut magic = [0u8; 8];
            piece.read_exact(&mut magic).map_err(|source| RestoreError::Io { section: 0, source })?;
            if magic != MAGIC {
                return Err(RestoreError::Magic(magic));
            }
        }
        while !piece.is_empty() {
            let section = self.sections;
            if self.ended {
                return Err(RestoreError::Malformed { section, what: "it comes after the end" });
            }
            let tag = read_section(&mut piece, section, &mut self.buf)?;
            self.ended = self.restorer.section(section, tag, &self.buf)?;
            self.sections += 1;
        }
        Ok(())
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        self.restorer.head.bytes() + self.buf.capacity()
    }

    /// The part, once its end was read.
    pub fn finish(self) -> Option<Head> {
        self.ended.then_some(self.restorer.head)
    }
}
