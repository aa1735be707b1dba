//! Which spans of time the head holds, and in which state: open → closed → flushed (gone).
//!
//! *Invariants:* a window has at most one open generation, the newest; generations of a window are numbered upwards from
//! 0 and a number is never used twice, even after its generation is gone.
//!
//! *Not here:* the samples (`series`), when to close (`ingest::shard`).

use std::collections::BTreeMap;

use crate::model::time::WINDOW_MS;

/// Most windows a head holds: 85 days of them. One request can name any time; each window costs a block, and a shard with
/// too many would do nothing else. Those that are due are flushed within seconds, and then there is room again.
const MAX_WINDOWS: usize = 1024;

/// Where a generation of a window stands; a flushed one is no longer listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WindowState {
    /// Takes samples.
    Open = 0,
    /// Frozen: to be written to a block.
    Closed = 1,
}

/// What the head holds of one generation of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowInfo {
    /// First timestamp of the window, milliseconds; a multiple of [`WINDOW_MS`].
    pub start: i64,
    /// 0 for the first, higher for samples that came after the one before was closed.
    pub generation: u32,
    /// Where it stands.
    pub state: WindowState,
    /// Oldest sample, milliseconds.
    pub min_t: i64,
    /// Newest sample, milliseconds.
    pub max_t: i64,
    /// Number of samples.
    pub samples: u64,
    /// Bytes of packed samples (samples that came out of order are counted raw).
    pub bytes: u64,
}

/// Number of the window that holds `t`; `None` for timestamps so far out that no head holds them.
#[inline]
pub(super) fn window_of(t: i64) -> Option<i32> {
    let number = t.div_euclid(WINDOW_MS);
    // One less than the whole range, so that start and end of a window never overflow.
    (-(1 << 30)..1 << 30).contains(&number).then_some(number as i32)
}

/// First timestamp of a window.
pub(super) fn start_of(number: i32) -> i64 {
    i64::from(number) * WINDOW_MS
}

/// All windows of a head.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows {
    /// By window and generation.
    list: Vec<WindowInfo>,
    /// Where the last sample went: nearly always where the next one goes.
    hot: usize,
    /// The generation that the next opening of a window gets, where that is not 0.
    next: BTreeMap<i32, u32>,
}

impl Windows {
    pub(super) fn list(&self) -> &[WindowInfo] {
        &self.list
    }

    pub(super) fn next_generations(&self) -> impl Iterator<Item = (i32, u32)> + '_ {
        self.next.iter().map(|(w, g)| (*w, *g))
    }

    pub(super) fn restored(mut list: Vec<WindowInfo>, next: BTreeMap<i32, u32>) -> Self {
        list.sort_by_key(|w| (w.start, w.generation));
        Self { list, hot: 0, next }
    }

    /// Whether the list keeps the invariants above.
    pub(super) fn is_ordered(&self) -> bool {
        let place = |w: &WindowInfo| (w.start, w.generation);
        let ascends = self.list.is_sorted_by(|a, b| place(a) < place(b));
        // Of two generations of a window the older one is closed.
        let closed = self.list.windows(2).all(|w| w[0].start != w[1].start || w[0].state == WindowState::Closed);
        let numbered = |w: &WindowInfo| window_of(w.start).is_some_and(|n| self.next.get(&n) > Some(&w.generation));
        ascends && closed && self.list.iter().all(numbered)
    }

    /// Whether a sample of this window may be taken: its window is open, or there is room to open it.
    pub(super) fn admits(&self, number: i32) -> bool {
        self.list.len() < MAX_WINDOWS || {
            let start = start_of(number);
            let at = self.list.partition_point(|w| w.start < start);
            self.list[at..].iter().take_while(|w| w.start == start).any(|w| w.state == WindowState::Open)
        }
    }

    /// The generation into which samples of a window go now.
    pub(super) fn generation(&self, number: i32) -> u32 {
        let start = start_of(number);
        let at = self.list.partition_point(|w| w.start < start);
        let mut same = self.list[at..].iter().take_while(|w| w.start == start);
        let open = same.find(|w| w.state == WindowState::Open);
        open.map_or_else(|| self.next.get(&number).copied().unwrap_or(0), |w| w.generation)
    }

    /// As [`Windows::generation`], opening it when there is none.
    pub(super) fn open(&mut self, number: i32) -> u32 {
        let start = start_of(number);
        let generation = self.generation(number);
        let at = self.list.partition_point(|w| (w.start, w.generation) < (start, generation));
        if self.list.get(at).is_none_or(|w| (w.start, w.generation) != (start, generation)) {
            let fresh = WindowInfo {
                start,
                generation,
                state: WindowState::Open,
                min_t: i64::MAX,
                max_t: i64::MIN,
                samples: 0,
                bytes: 0,
            };
            self.list.insert(at, fresh);
            self.next.insert(number, generation + 1);
        }
        self.hot = at;
        generation
    }

    /// Counts a sample into the open generation of its window.
    #[inline]
    pub(super) fn record(&mut self, number: i32, t: i64, bytes: usize) {
        let start = start_of(number);
        if self.list.get(self.hot).is_none_or(|w| w.start != start || w.state != WindowState::Open) {
            self.open(number);
        }
        let window = &mut self.list[self.hot];
        window.samples += 1;
        window.bytes += bytes as u64;
        window.min_t = window.min_t.min(t);
        window.max_t = window.max_t.max(t);
    }

    /// Closes the open generation of a window; its number.
    pub(super) fn close(&mut self, number: i32) -> Option<u32> {
        let open = |w: &&mut WindowInfo| w.start == start_of(number) && w.state == WindowState::Open;
        let window = self.list.iter_mut().find(open)?;
        window.state = WindowState::Closed;
        Some(window.generation)
    }

    /// Takes a closed generation off the list; `false` when there is none.
    pub(super) fn remove(&mut self, number: i32, generation: u32) -> bool {
        let found = |w: &WindowInfo| {
            w.start == start_of(number) && w.generation == generation && w.state == WindowState::Closed
        };
        let Some(at) = self.list.iter().position(found) else { return false };
        self.list.remove(at);
        self.hot = 0;
        true
    }
}
