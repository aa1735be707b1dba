//! The end of a window: closing it, handing its samples out, dropping them.
//!
//! *Invariants:* a closed generation never changes; dropping it leaves readers with what they hold. A series goes when
//! nothing of it is left.
//!
//! *Not here:* blocks (`block`), the order of these steps in the log (`ingest::shard`).

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::arena::LabelArena;
use super::core::Head;
use super::exemplars::SeriesExemplars;
use super::series::Series;
use super::window::{start_of, window_of};
use crate::chunk::{Chunk, ChunkCursor, Error};
use crate::model::{Columns, Labels, TenantId, TimeRange, time};

/// Everything one generation of a window holds; owns its memory, so it is read outside of the lock.
#[derive(Debug, Clone)]
pub struct WindowSnapshot {
    /// First timestamp of the window.
    pub start: i64,
    /// Generation.
    pub generation: u32,
    /// Tenants that have something in it.
    pub tenants: Vec<TenantWindow>,
}

/// One tenant's part.
#[derive(Debug, Clone)]
pub struct TenantWindow {
    /// The tenant.
    pub tenant: TenantId,
    /// Its series with samples, in order of id.
    pub series: Vec<WindowSeries>,
    /// Its exemplars, by series in order of id.
    pub exemplars: Vec<SeriesExemplars>,
}

/// One series' samples of one generation.
#[derive(Debug, Clone)]
pub struct WindowSeries {
    /// Labels.
    pub labels: Labels,
    /// [`series_hash`](crate::model::labels::series_hash) of tenant and labels.
    pub hash: u64,
    chunks: SmallVec<[Chunk; 2]>,
}

impl WindowSeries {
    /// Clears `out` and fills it with all samples, merged and ascending.
    pub fn decode(&self, out: &mut Columns) -> Result<(), Error> {
        out.clear();
        if let [chunk] = &self.chunks[..] {
            return chunk.decode(out);
        }
        let mut cursor = ChunkCursor::new(self.chunks.iter().cloned(), TimeRange::all());
        let mut part = Columns::default();
        while cursor.next(&mut part)? {
            append(out, &mut part);
        }
        Ok(())
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.chunks.iter().map(Chunk::len).sum()
    }

    /// Bytes of its chunks.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Chunk::heap_bytes).sum()
    }
}

fn append(out: &mut Columns, part: &mut Columns) {
    let base = out.len() as u32;
    if !out.starts.is_empty() || !part.starts.is_empty() {
        out.starts.resize(out.timestamps.len(), 0);
        out.starts.append(&mut part.starts);
    }
    out.timestamps.append(&mut part.timestamps);
    out.values.append(&mut part.values);
    if !out.starts.is_empty() {
        out.starts.resize(out.timestamps.len(), 0);
    }
    out.histograms.extend(part.histograms.drain(..).map(|(i, h)| (base + i, h)));
}

impl Series {
    /// Chunks of one generation, packing what is open; O(chunks).
    fn chunks_of(&self, window: i32, generation: u32) -> SmallVec<[Chunk; 2]> {
        let mut out = SmallVec::new();
        let mine = |c: &Chunk| window_of(c.first_t()) == Some(window);
        out.extend(
            self.sealed.iter().filter(|c| c.generation == generation && mine(&c.chunk)).map(|c| c.chunk.clone()),
        );
        if self.window == window && self.generation == generation {
            out.extend(self.open_chunk());
        }
        for buffer in self.extra.iter().flat_map(|e| &e.ooo) {
            if buffer.window == window && buffer.generation == generation {
                out.extend(buffer.pack());
            }
        }
        out
    }

    /// Packs whatever is open of one generation.
    fn seal_generation(&mut self, window: i32, generation: u32) {
        if self.is_open() && self.window == window && self.generation == generation {
            self.seal();
        }
        if let Some(extra) = &mut self.extra {
            let is_mine = |b: &super::ooo::OooBuffer| b.window == window && b.generation == generation;
            if let Some(at) = extra.ooo.iter().position(is_mine) {
                let buffer = extra.ooo.swap_remove(at);
                for chunk in buffer.pack() {
                    self.push_sealed(chunk, generation);
                }
                self.drop_idle_extra();
            }
        }
    }

    /// Tells window, generation and number of samples of each part it holds. For checks.
    pub(super) fn count_samples(&self, mut tell: impl FnMut(i32, u32, u64)) {
        for c in &self.sealed {
            tell(window_of(c.chunk.first_t()).unwrap_or(i32::MIN), c.generation, c.chunk.len() as u64);
        }
        if let Some(chunk) = self.open_chunk() {
            tell(self.window, self.generation, chunk.len() as u64);
        }
        for buffer in self.extra.iter().flat_map(|e| &e.ooo) {
            tell(buffer.window, buffer.generation, buffer.pack().iter().map(|c| c.len() as u64).sum());
        }
    }
}

impl Head {
    /// Freezes the open generation of the window that begins at `window_start`; its number, or `None` when there is no
    /// open one. O(series). Later samples of the window open the next generation.
    pub fn close(&mut self, window_start: i64) -> Option<u32> {
        let window = window_of(window_start)?;
        let generation = self.windows.close(window)?;
        for (_, series) in self.slab.iter_mut() {
            let before = series.heap_bytes();
            series.seal_generation(window, generation);
            self.series_bytes = self.series_bytes + series.heap_bytes() - before;
        }
        Some(generation)
    }

    /// What a generation holds, by tenant; cheap for a closed one (chunks are shared, labels copied).
    pub fn window_series(&self, window_start: i64, generation: u32) -> WindowSnapshot {
        let mut out = WindowSnapshot { start: window_start, generation, tenants: Vec::new() };
        let Some(window) = window_of(window_start) else { return out };
        for tenant in &self.tenants {
            let mut part = TenantWindow { tenant: tenant.id.clone(), series: Vec::new(), exemplars: Vec::new() };
            for series in tenant.index.all.iter().filter_map(|id| self.series_by_id(id)) {
                let chunks = series.chunks_of(window, generation);
                if !chunks.is_empty() {
                    let labels = self.labels_of(series);
                    part.series.push(WindowSeries { labels, hash: series.hash, chunks });
                }
            }
            let range = TimeRange::new(start_of(window), start_of(window) + time::WINDOW_MS - 1);
            part.exemplars = self.exemplars_where(tenant, range, |e| e.generation == generation);
            if !part.series.is_empty() || !part.exemplars.is_empty() {
                out.tenants.push(part);
            }
        }
        out
    }

    /// Drops a closed generation, and every series of which nothing is left; `false` when there is no such closed
    /// generation. O(series).
    pub fn mark_flushed(&mut self, window_start: i64, generation: u32) -> bool {
        let Some(window) = window_of(window_start) else { return false };
        if !self.windows.remove(window, generation) {
            return false;
        }
        let mut gone = Vec::new();
        for (slot, series) in self.slab.iter_mut() {
            let before = series.heap_bytes();
            series.sealed.retain(|c| c.generation != generation || window_of(c.chunk.first_t()) != Some(window));
            if series.sealed.len() <= 1 {
                series.sealed.shrink_to_fit();
            }
            self.series_bytes = self.series_bytes + series.heap_bytes() - before;
            if series.is_empty() {
                gone.push(slot);
            }
        }
        self.retire(&gone);
        true
    }

    fn retire(&mut self, slots: &[u32]) {
        let mut per_tenant = vec![(RoaringBitmap::new(), RoaringBitmap::new()); self.tenants.len()];
        for slot in slots {
            let Some(series) = self.slab.remove(*slot) else { continue };
            self.series_bytes -= series.heap_bytes();
            self.ids.remove(series.id);
            self.by_labels.remove(series.hash, series.id);
            let (ids, pairs) = &mut per_tenant[series.tenant as usize];
            ids.insert(series.id);
            pairs.extend(self.labels.get(series.labels_at, series.label_count).iter().copied());
            self.labels.release(series.label_count);
            self.series -= 1;
        }
        for (tenant, (ids, pairs)) in self.tenants.iter_mut().zip(&per_tenant).filter(|(_, (ids, _))| !ids.is_empty()) {
            tenant.index.remove_series(ids, pairs);
            tenant.exemplars.retain(|series| !ids.contains(series));
        }
        if self.labels.wants_rebuild() {
            let mut fresh = LabelArena::default();
            for (_, series) in self.slab.iter_mut() {
                series.labels_at = fresh.push(self.labels.get(series.labels_at, series.label_count));
            }
            self.labels = fresh;
        }
    }
}
