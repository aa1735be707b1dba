//! What one group has in the log: where each entry lies, the newest ones in memory.
//!
//! *Invariants:* entries are contiguous from `first`. An entry is in memory, or has a place in a segment, or both. Slots
//! removed by a truncation or purge travel to the writer and are dropped there once the record of it is durable: until
//! then they pin their segments.
//!
//! *Not here:* the bytes of entries on disk (`segment`, `frame`), writing them (`writer`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::segment::Segment;
use super::types::{Entry, GroupId, LeaderId, LogId, Vote, next_index};

/// Where a frame lies.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    /// Header and payload, without padding.
    pub(crate) len: u32,
}

/// One entry.
pub(crate) struct Slot {
    pub(crate) leader: LeaderId,
    pub(crate) cached: Option<Entry>,
    pub(crate) place: Option<Place>,
}

/// One group's part of the log.
pub(crate) struct GroupLog {
    pub(crate) id: GroupId,
    /// This node's replica of the group.
    pub(crate) replica: u64,
    pub(crate) state: Mutex<GroupState>,
    /// One more than the last index durable here.
    flushed: AtomicU64,
}

/// The part of a group's log that changes.
#[derive(Default)]
pub(crate) struct GroupState {
    /// Durable.
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    /// `committed` has moved since it was last written.
    pub(crate) committed_is_new: bool,
    pub(crate) purged: Option<LogId>,
    pub(crate) first: u64,
    pub(crate) slots: VecDeque<Slot>,
}

impl GroupLog {
    pub(crate) fn new(id: GroupId, replica: u64, state: GroupState) -> Arc<Self> {
        let flushed = AtomicU64::new(next_index(state.last().as_ref()));
        Arc::new(Self { id, replica, state: Mutex::new(state), flushed })
    }

    /// The last index durable here.
    pub(crate) fn flushed(&self) -> Option<u64> {
        self.flushed.load(Ordering::Acquire).checked_sub(1)
    }

    /// The number of the oldest segment this group needs.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.state.lock().slots.front()?.place.as_ref().map(|p| p.segment.number)
    }

    /// Notes where an entry was written, durably.
    pub(crate) fn written(&self, id: &LogId, place: Place) {
        let mut state = self.state.lock();
        if let Some(slot) = state.slot_mut(id.index())
            && slot.leader == *id.committed_leader_id()
        {
            slot.place = Some(place);
        }
        self.flushed.store(id.index() + 1, Ordering::Release);
    }

    /// Notes that everything after `last` is gone.
    pub(crate) fn truncated(&self, last: Option<&LogId>) {
        self.flushed.fetch_min(next_index(last), Ordering::AcqRel);
    }

    /// Notes that everything up to `upto` is gone: it is durable elsewhere.
    pub(crate) fn purged(&self, upto: &LogId) {
        self.flushed.fetch_max(upto.index() + 1, Ordering::AcqRel);
    }

    /// Drops an entry's bytes from memory if they can be read back.
    pub(crate) fn evict(&self, index: u64) {
        let mut state = self.state.lock();
        if let Some(slot) = state.slot_mut(index)
            && slot.place.is_some()
        {
            slot.cached = None;
        }
    }
}

impl GroupState {
    /// The last entry's id, or the purged one's.
    pub(crate) fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(LogId::new(slot.leader, self.first + self.slots.len() as u64 - 1)),
            None => self.purged,
        }
    }

    pub(crate) fn next(&self) -> u64 {
        next_index(self.last().as_ref())
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = index.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// Appends an entry; `Err` with the index wanted instead if that would leave a hole or overwrite.
    pub(crate) fn push(&mut self, index: u64, slot: Slot) -> Result<(), u64> {
        if self.slots.is_empty() {
            self.first = index;
        } else if index != self.next() {
            return Err(self.next());
        }
        self.slots.push_back(slot);
        Ok(())
    }

    /// Removes everything after `last`.
    pub(crate) fn truncate_after(&mut self, last: Option<&LogId>) -> VecDeque<Slot> {
        let keep = next_index(last).saturating_sub(self.first).min(self.slots.len() as u64);
        self.slots.split_off(keep as usize)
    }

    /// Removes everything up to `upto`, which may lie beyond the end.
    pub(crate) fn purge(&mut self, upto: LogId) -> VecDeque<Slot> {
        if self.purged >= Some(upto) {
            return VecDeque::new();
        }
        let gone = (upto.index() + 1).saturating_sub(self.first).min(self.slots.len() as u64);
        let rest = self.slots.split_off(gone as usize);
        // Where the log is read back, the entries between may have gone with their segments: a later purge is on its way.
        self.first = self.first.max(upto.index() + 1);
        self.purged = Some(upto);
        std::mem::replace(&mut self.slots, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::codec::log_id;

    #[test]
    fn entries_stay_where_they_are_when_a_purge_ends_before_them() {
        let slot = || Slot { leader: *log_id(2, 1, 0).committed_leader_id(), cached: None, place: None };
        let mut state = GroupState::default();
        // The segments of 125 to 252 are gone: after the purge up to 124, and after entry 254, the log purges up to 252.
        state.push(253, slot()).unwrap();
        assert!(state.purge(log_id(2, 1, 124)).is_empty());
        state.push(254, slot()).unwrap();
        assert!(state.purge(log_id(2, 1, 252)).is_empty());
        assert_eq!((state.first, state.slots.len(), state.next()), (253, 2, 255));
    }
}
