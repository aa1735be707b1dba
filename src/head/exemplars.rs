//! The newest exemplars of one tenant, in a ring.
//!
//! *Invariants:* bounded in number; of one series the timestamps do not go back.
//!
//! *Not here:* labels of the series (`index`).

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::append::Verdict;
use crate::model::{Exemplar, Labels};

/// Exemplars of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesExemplars {
    /// Labels of the series.
    pub labels: Labels,
    /// [`series_hash`](crate::model::labels::series_hash) of tenant and labels.
    pub hash: u64,
    /// In order of time.
    pub exemplars: Vec<Exemplar>,
}

/// One exemplar of the ring.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) series: u32,
    /// Generation of its window that it is flushed with.
    pub(super) generation: u32,
    pub(super) exemplar: Exemplar,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Exemplars {
    ring: VecDeque<Entry>,
    /// Number of the ring's first entry since the beginning.
    first: u64,
    /// Number of the newest entry of each series.
    newest: HashMap<u32, u64, FixedState>,
    bytes: usize,
}

fn entry_bytes(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.exemplar.labels.heap_bytes()
}

impl Exemplars {
    /// Adds an exemplar, the oldest giving way beyond `max`.
    pub(super) fn push(&mut self, entry: Entry, max: usize) -> Verdict {
        if let Some(last) = self.newest.get(&entry.series).and_then(|n| self.ring.get((n - self.first) as usize)) {
            let (old, new) = (&last.exemplar, &entry.exemplar);
            if new.t < old.t {
                return Verdict::TooOld;
            }
            if new.t == old.t && new.value.to_bits() == old.value.to_bits() && new.labels == old.labels {
                return Verdict::Duplicate;
            }
        }
        if max == 0 {
            return Verdict::TooOld;
        }
        while self.ring.len() >= max {
            self.pop();
        }
        self.newest.insert(entry.series, self.first + self.ring.len() as u64);
        self.bytes += entry_bytes(&entry);
        self.ring.push_back(entry);
        Verdict::Accepted
    }

    fn pop(&mut self) {
        let Some(entry) = self.ring.pop_front() else { return };
        if self.newest.get(&entry.series) == Some(&self.first) {
            self.newest.remove(&entry.series);
        }
        self.first += 1;
        self.bytes -= entry_bytes(&entry);
    }

    /// Keeps only those of series for which `keep` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        if self.ring.iter().all(|e| keep(e.series)) {
            return;
        }
        let ring = std::mem::take(&mut self.ring);
        *self = Self::default();
        for entry in ring.into_iter().filter(|e| keep(e.series)) {
            self.push(entry, usize::MAX);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.ring.iter()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.newest.capacity() * 24
    }
}
