//! openraft's view of one group's log.
//!
//! *Invariants:* votes are durable before `save_vote` returns; reads are bounded in bytes; a commit index never exceeds the
//! log it is read with.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::index::GroupLog;
use super::log::Log;
use super::types::{Entry, LogId, TypeConfig, Vote};
use super::writer::Done;

/// Most bytes of entries read for one replication request or one step of applying.
const READ_BYTES: usize = 1 << 20;

/// One group's log; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) log: Arc<Log>,
    pub(crate) group: Arc<GroupLog>,
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(n) => *n,
        Bound::Excluded(n) => n.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(n) => n.saturating_add(1),
        Bound::Excluded(n) => *n,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(&range);
        self.log.read(&self.group, from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.log.read(&self.group, start, end, READ_BYTES)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let state = (self.clone(), from, Vec::new().into_iter());
        // Boxed, because callers need it to be Unpin.
        Box::pin(futures::stream::try_unfold(state, move |(store, mut from, mut ready)| async move {
            if ready.len() == 0 && from < to {
                ready = store.log.read(&store.group, from, to, READ_BYTES)?.into_iter();
                from += ready.len() as u64;
            }
            Ok(ready.next().map(|entry: Entry| (entry, (store, from, ready))))
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.group.state.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let (last_log_id, last_purged_log_id) = Log::bounds(&self.group);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(&self.group, *vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        Log::save_committed(&self.group, committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.group.state.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.log.append(&self.group, entries.into_iter().collect(), Done::Raft(callback))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(&self.group, last_log_id)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.log.purge(&self.group, log_id)
    }
}
