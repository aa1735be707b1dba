//! Pages: series in slots, id → slot, and the label lists of all series, without one allocation per series.
//!
//! *Invariants:* a page is filled to its capacity before the next is made, so at most one page per table is slack; a slot
//! is reused only after its series was removed.
//!
//! *Not here:* what a series is (`series`).

use super::series::Series;

/// Slots per page.
const SLOTS: usize = 512;
/// Ids per page.
const IDS: usize = 1024;
/// Label pairs per page.
const PAIRS: usize = 1 << 14;
/// No slot.
const NONE: u32 = u32::MAX;

/// Series by slot.
#[derive(Debug, Default)]
pub(super) struct Slab {
    pages: Vec<Vec<Option<Series>>>,
    free: Vec<u32>,
}

impl Slab {
    pub(super) fn insert(&mut self, series: Series) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.pages[slot as usize / SLOTS][slot as usize % SLOTS] = Some(series);
            return slot;
        }
        if self.pages.last().is_none_or(|page| page.len() == SLOTS) {
            self.pages.push(Vec::with_capacity(SLOTS));
        }
        let page = self.pages.len() - 1;
        self.pages[page].push(Some(series));
        (page * SLOTS + self.pages[page].len() - 1) as u32
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&Series> {
        self.pages.get(slot as usize / SLOTS)?.get(slot as usize % SLOTS)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Series> {
        self.pages.get_mut(slot as usize / SLOTS)?.get_mut(slot as usize % SLOTS)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Series> {
        let series = self.pages.get_mut(slot as usize / SLOTS)?.get_mut(slot as usize % SLOTS)?.take()?;
        self.free.push(slot);
        Some(series)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Series)> {
        let slots = self.pages.iter().flatten().enumerate();
        slots.filter_map(|(slot, series)| series.as_ref().map(|s| (slot as u32, s)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Series)> {
        let slots = self.pages.iter_mut().flatten().enumerate();
        slots.filter_map(|(slot, series)| series.as_mut().map(|s| (slot as u32, s)))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.pages.len() * (SLOTS * size_of::<Option<Series>>() + 24) + self.free.capacity() * 4
    }
}

#[derive(Debug)]
struct IdPage {
    live: u32,
    slots: [u32; IDS],
}

/// Slot by series id; pages whose series are all gone take no memory.
#[derive(Debug, Default)]
pub(super) struct IdMap {
    pages: Vec<Option<Box<IdPage>>>,
}

impl IdMap {
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<u32> {
        let page = self.pages.get(id as usize / IDS)?.as_ref()?;
        let slot = page.slots[id as usize % IDS];
        (slot != NONE).then_some(slot)
    }

    pub(super) fn insert(&mut self, id: u32, slot: u32) {
        let at = id as usize / IDS;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        let page = self.pages[at].get_or_insert_with(|| Box::new(IdPage { live: 0, slots: [NONE; IDS] }));
        page.slots[id as usize % IDS] = slot;
        page.live += 1;
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(page) = self.pages.get_mut(id as usize / IDS) else { return };
        if let Some(inner) = page {
            inner.slots[id as usize % IDS] = NONE;
            inner.live -= 1;
            if inner.live == 0 {
                *page = None;
            }
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.pages.capacity() * 8 + self.pages.iter().flatten().count() * size_of::<IdPage>()
    }
}

/// Label lists: ids of (name, value) pairs in order of name.
#[derive(Debug, Default)]
pub(super) struct LabelArena {
    pages: Vec<Vec<u32>>,
    /// Pairs of lists that are still used.
    live: usize,
}

impl LabelArena {
    /// Stores a list; where it is.
    pub(super) fn push(&mut self, pairs: &[u32]) -> u32 {
        debug_assert!(pairs.len() <= PAIRS, "BUG: a series has {} labels", pairs.len());
        if self.pages.last().is_none_or(|page| page.len() + pairs.len() > PAIRS) {
            self.pages.push(Vec::with_capacity(PAIRS));
        }
        let page = self.pages.len() - 1;
        let at = self.pages[page].len();
        self.pages[page].extend_from_slice(pairs);
        self.live += pairs.len();
        (page * PAIRS + at) as u32
    }

    #[inline]
    pub(super) fn get(&self, at: u32, len: u16) -> &[u32] {
        let from = at as usize % PAIRS;
        self.pages.get(at as usize / PAIRS).and_then(|page| page.get(from..from + usize::from(len))).unwrap_or_default()
    }

    pub(super) fn release(&mut self, len: u16) {
        self.live -= usize::from(len);
    }

    /// Whether more than half of a larger arena is of series that are gone: time to copy what is left.
    pub(super) fn wants_rebuild(&self) -> bool {
        self.pages.len() > 4 && self.live * 2 < self.pages.len() * PAIRS
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.pages.len() * (PAIRS * 4 + 24)
    }
}
