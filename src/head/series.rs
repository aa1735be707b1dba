//! One series: its open chunk, its finished chunks, and what only some series need.
//!
//! *Invariants:* at most one of the two in-order encoders holds samples; the float encoder remembers the newest in-order
//! timestamp of both. Start timestamps are those of the open in-order chunk.
//!
//! *Not here:* labels as text (`index`), which verdict a sample gets (`append`).

use std::sync::Arc;

use smallvec::SmallVec;

use super::ooo::OooBuffer;
use crate::chunk::{Chunk, FloatEncoder, HistogramEncoder, StartRuns};
use crate::model::{Columns, Histogram};

/// A finished chunk and the generation of its window that it belongs to.
#[derive(Debug, Clone)]
pub(super) struct HeadChunk {
    pub(super) chunk: Chunk,
    pub(super) generation: u32,
}

/// What only some series need.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) histograms: Option<Box<HistogramEncoder>>,
    pub(super) starts: StartRuns,
    pub(super) ooo: Vec<OooBuffer>,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) hash: u64,
    pub(super) floats: FloatEncoder,
    pub(super) sealed: SmallVec<[HeadChunk; 1]>,
    pub(super) extra: Option<Box<Extra>>,
    pub(super) id: u32,
    pub(super) tenant: u32,
    pub(super) labels_at: u32,
    pub(super) label_count: u16,
    /// Window of the open in-order chunk.
    pub(super) window: i32,
    /// Generation of the open in-order chunk.
    pub(super) generation: u32,
}

/// A sample held at some timestamp.
pub(super) enum Held {
    Float(f64),
    Histogram(Arc<Histogram>),
}

impl Series {
    pub(super) fn new(id: u32, tenant: u32, hash: u64, labels_at: u32, label_count: u16) -> Self {
        Self {
            hash,
            floats: FloatEncoder::default(),
            sealed: SmallVec::new(),
            extra: None,
            id,
            tenant,
            labels_at,
            label_count,
            window: 0,
            generation: 0,
        }
    }

    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(super) fn histograms(&self) -> Option<&HistogramEncoder> {
        self.extra.as_ref()?.histograms.as_deref()
    }

    /// Whether an in-order chunk is open.
    pub(super) fn is_open(&self) -> bool {
        !self.floats.is_empty() || self.histograms().is_some()
    }

    /// Number of its chunks, those of late samples too.
    pub(super) fn chunks(&self) -> u64 {
        let late = self.extra.as_ref().map_or(0, |e| e.ooo.len());
        self.sealed.len() as u64 + u64::from(self.is_open()) + late as u64
    }

    /// Whether it holds no sample at all.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_open() && self.sealed.is_empty() && self.extra.as_ref().is_none_or(|e| e.ooo.is_empty())
    }

    /// The open in-order chunk as it is now.
    pub(super) fn open_chunk(&self) -> Option<Chunk> {
        let starts = self.extra.as_ref().map(|e| &e.starts);
        self.floats.snapshot(starts).or_else(|| self.histograms()?.snapshot(starts))
    }

    /// Finishes the open in-order chunk, if there is one.
    pub(super) fn seal(&mut self) {
        let starts = self.extra.as_ref().map(|e| &e.starts);
        let chunk = match self.floats.finish(starts) {
            Some(chunk) => Some(chunk),
            None => self.extra.as_mut().and_then(|e| e.histograms.take()?.finish(Some(&e.starts))),
        };
        if let Some(extra) = &mut self.extra {
            extra.starts = StartRuns::default();
        }
        if let Some(chunk) = chunk {
            self.push_sealed(chunk, self.generation);
        }
        self.drop_idle_extra();
    }

    pub(super) fn push_sealed(&mut self, chunk: Chunk, generation: u32) {
        if self.sealed.len() == self.sealed.capacity() {
            self.sealed.reserve_exact(1);
        }
        self.sealed.push(HeadChunk { chunk, generation });
    }

    /// Gives the extra part back when nothing in it is used.
    pub(super) fn drop_idle_extra(&mut self) {
        if self.extra.as_ref().is_some_and(|e| e.histograms.is_none() && e.starts.is_empty() && e.ooo.is_empty()) {
            self.extra = None;
        }
    }

    /// Heap bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        let spilled = if self.sealed.spilled() { self.sealed.capacity() * size_of::<HeadChunk>() } else { 0 };
        let sealed: usize = self.sealed.iter().map(|c| c.chunk.heap_bytes()).sum();
        let extra = self.extra.as_ref().map_or(0, |e| {
            size_of::<Extra>()
                + e.starts.heap_bytes()
                + e.histograms.as_ref().map_or(0, |h| size_of::<HistogramEncoder>() + h.heap_bytes())
                + e.ooo.iter().map(OooBuffer::heap_bytes).sum::<usize>()
        });
        self.floats.heap_bytes() + spilled + sealed + extra
    }

    /// What the head holds at `t`, wherever it is. Cost: decoding the chunks whose span covers `t`.
    pub(super) fn held(&self, t: i64) -> Option<Held> {
        if let Some(buffer) = self.extra.as_ref().and_then(|e| e.ooo.iter().find_map(|b| b.held(t))) {
            return Some(buffer);
        }
        if t == self.floats.last_t() {
            if !self.floats.is_empty() {
                return Some(Held::Float(self.floats.last_v()));
            }
            if let Some(last) = self.histograms().and_then(HistogramEncoder::last) {
                return Some(Held::Histogram(Arc::clone(last)));
            }
        }
        let open_from = self.floats.first_t().filter(|_| !self.floats.is_empty());
        let open_from = open_from.or_else(|| self.histograms()?.first_t());
        let open = open_from.filter(|from| *from <= t).and_then(|_| self.open_chunk());
        let sealed = self.sealed.iter().map(|c| &c.chunk);
        let mut columns = Columns::default();
        open.iter().chain(sealed).filter(|chunk| chunk.range().contains(t)).find_map(|chunk| {
            columns.clear();
            // Chunks in memory were packed here or checked when restored.
            chunk.decode(&mut columns).ok()?;
            let i = columns.timestamps.binary_search(&t).ok()?;
            Some(match columns.histogram(i) {
                Some(h) => Held::Histogram(Arc::clone(h)),
                None => Held::Float(columns.values[i]),
            })
        })
    }
}
