//! The shared log of a node: opened once, written by one thread, read by everybody.
//!
//! *Invariants:* entries are readable once [`Log::append`] returned, durable once its callback was called. The first failure
//! of the disk is kept and answers everything after it.
//!
//! *Not here:* what the entries mean; when to snapshot (`host`).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use super::error::RaftError;
use super::frame;
use super::index::{GroupLog, GroupState, Place, Slot};
use super::metrics::Metrics;
use super::recover;
use super::segment::Segments;
use super::types::{Entry, GroupId, LogId, Vote, next_index};
use super::writer::{Done, Op, What, Writer, WriterOptions};
use crate::env::{Clock, Disk};

/// What the writer shares with everybody.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    fatal: watch::Sender<Option<String>>,
    stalled: AtomicBool,
    stopping: AtomicBool,
    oldest: AtomicU64,
    newest: AtomicU64,
    live_bytes: AtomicU64,
    /// Told when a segment was begun.
    pub(crate) grown: Notify,
}

/// The segments there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) oldest: u64,
    pub(crate) newest: u64,
    pub(crate) live_bytes: u64,
}

impl Shared {
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            clock,
            metrics,
            fatal: watch::Sender::new(None),
            stalled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            oldest: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            grown: Notify::new(),
        })
    }

    /// Why everything fails, if it does.
    pub(crate) fn fatal(&self) -> Option<String> {
        self.fatal.borrow().clone()
    }

    /// The first failure is kept.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(reason, "raft failed, the node must stop");
        self.fatal.send_if_modified(|kept| {
            let first = kept.is_none();
            kept.get_or_insert(reason);
            first
        });
    }

    /// Resolves with the first failure.
    pub(crate) async fn failed(&self) -> String {
        let mut fatal = self.fatal.subscribe();
        loop {
            if let Some(reason) = self.fatal() {
                return reason;
            }
            if fatal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn set_stalled(&self, stalled: bool) {
        if self.stalled.swap(stalled, Ordering::Relaxed) != stalled {
            tracing::warn!(stalled, "log waits for disk space");
            self.metrics.log_stalled.set(i64::from(stalled));
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn set_extent(&self, oldest: u64, newest: u64, live_bytes: u64) {
        self.oldest.store(oldest, Ordering::Relaxed);
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
        self.metrics.log_segments.set((newest - oldest + 1) as i64);
        self.metrics.log_live.set(live_bytes as i64);
        if self.newest.swap(newest, Ordering::Relaxed) != newest {
            self.grown.notify_one();
        }
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent {
            oldest: self.oldest.load(Ordering::Relaxed),
            newest: self.newest.load(Ordering::Relaxed),
            live_bytes: self.live_bytes.load(Ordering::Relaxed),
        }
    }
}

/// The log of a node.
pub(crate) struct Log {
    groups: Mutex<HashMap<GroupId, Arc<GroupLog>>>,
    queue: Mutex<Option<mpsc::Sender<Op>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Where the writer is a task: tells it that something is queued.
    wake: Option<Arc<Notify>>,
    pub(crate) shared: Arc<Shared>,
}

impl Log {
    /// Opens the log in `dir`, which it makes if need be. Blocks while the segments are read.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: WriterOptions,
        shared: Arc<Shared>,
    ) -> Result<Arc<Self>, RaftError> {
        disk.create_dir(&dir).map_err(RaftError::disk(format!("create log directory {}", dir.display())))?;
        let wake = disk.device_time().map(|_| Arc::new(Notify::new()));
        let segments = Segments::new(disk, dir.clone());
        let recovered = recover::recover(&segments)?;
        shared.metrics.log_cut.inc_by(recovered.cut_bytes);
        if recovered.cut_bytes > 0 {
            tracing::info!(bytes = recovered.cut_bytes, "cut a torn group commit from the log");
        }
        let groups: Vec<Arc<GroupLog>> =
            recovered.groups.into_iter().map(|(id, g)| GroupLog::new(id, g.replica, g.state)).collect();
        let begun = Writer::start(segments, options, shared.clone(), &groups, recovered.segments, recovered.last_batch);
        let writer = begun.map_err(RaftError::disk(format!("begin a log segment in {}", dir.display())))?;
        let (queue, ops) = mpsc::channel();
        let thread = match wake.clone() {
            Some(wake) => {
                tokio::spawn(writer.run_as_task(ops, wake));
                None
            }
            None => {
                let thread = std::thread::Builder::new().name("raft-log".into()).spawn(move || writer.run(&ops));
                Some(thread.map_err(RaftError::disk("start the log's writer"))?)
            }
        };
        Ok(Arc::new(Self {
            groups: Mutex::new(groups.into_iter().map(|g| (g.id, g)).collect()),
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(thread),
            wake,
            shared,
        }))
    }

    /// A group that is in the log.
    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<GroupLog>> {
        self.groups.lock().get(&id).cloned()
    }

    /// All groups in the log, by id.
    pub(crate) fn groups(&self) -> Vec<Arc<GroupLog>> {
        let mut all: Vec<_> = self.groups.lock().values().cloned().collect();
        all.sort_unstable_by_key(|g| g.id);
        all
    }

    /// Creates a group; durable when it returns.
    pub(crate) async fn create_group(&self, id: GroupId, replica: u64) -> io::Result<Arc<GroupLog>> {
        let group = GroupLog::new(id, replica, GroupState::default());
        if self.groups.lock().contains_key(&id) {
            return Err(io::Error::other(format!("group {id} is there already")));
        }
        self.write(&group, What::Created).await?;
        self.groups.lock().insert(id, group.clone());
        Ok(group)
    }

    /// Deletes a group with all its entries; durable when it returns.
    pub(crate) async fn delete_group(&self, group: &Arc<GroupLog>) -> io::Result<()> {
        self.write(group, What::Deleted).await?;
        let slots = std::mem::take(&mut group.state.lock().slots);
        drop(slots);
        self.groups.lock().remove(&group.id);
        Ok(())
    }

    /// Saves a vote; durable when it returns.
    pub(crate) async fn save_vote(&self, group: &Arc<GroupLog>, vote: Vote) -> io::Result<()> {
        self.write(group, What::Vote(vote)).await
    }

    /// Appends entries: readable when it returns, durable when `done` is told.
    pub(crate) fn append(&self, group: &Arc<GroupLog>, entries: Vec<Entry>, done: Done) -> io::Result<()> {
        {
            let mut state = group.state.lock();
            for entry in &entries {
                let leader = *entry.log_id.committed_leader_id();
                let slot = Slot { leader, cached: Some(entry.clone()), place: None };
                state.push(entry.log_id.index(), slot).map_err(|want| {
                    io::Error::other(format!("BUG: append entry {} where {want} belongs", entry.log_id.index()))
                })?;
            }
            self.send(Op { group: group.clone(), what: What::Append(entries), done })
        }
    }

    /// Removes entries after `last`; ordered before later appends, durable with them.
    pub(crate) fn truncate_after(&self, group: &Arc<GroupLog>, last: Option<LogId>) -> io::Result<()> {
        let slots = group.state.lock().truncate_after(last.as_ref());
        self.send(Op { group: group.clone(), what: What::TruncateAfter(last, slots), done: Done::Nobody })
    }

    /// Forgets entries up to `upto`; their segments stay until that is durable.
    pub(crate) fn purge(&self, group: &Arc<GroupLog>, upto: LogId) -> io::Result<()> {
        let slots = group.state.lock().purge(upto);
        self.send(Op { group: group.clone(), what: What::Purged(upto, slots), done: Done::Nobody })
    }

    /// Notes what is committed; written with the next group commit.
    pub(crate) fn save_committed(group: &GroupLog, committed: Option<LogId>) {
        let mut state = group.state.lock();
        state.committed = committed;
        state.committed_is_new = true;
    }

    /// Reads entries `from..to` that are there, at most about `budget` bytes but at least one.
    pub(crate) fn read(&self, group: &GroupLog, from: u64, to: u64, budget: usize) -> io::Result<Vec<Entry>> {
        enum Found {
            Cached(Entry),
            Stored(LogId, Place),
        }
        let mut found = VecDeque::new();
        {
            let state = group.state.lock();
            let (from, to) = (from.max(state.first), to.min(state.next()));
            let mut bytes = 0;
            for index in from..to {
                let Some(slot) = state.slots.get((index - state.first) as usize) else { break };
                let (one, size) = match (&slot.cached, &slot.place) {
                    (Some(entry), _) => (Found::Cached(entry.clone()), frame::entry_size(entry)),
                    (None, Some(place)) => {
                        (Found::Stored(LogId::new(slot.leader, index), place.clone()), place.len as usize)
                    }
                    (None, None) => return Err(io::Error::other(format!("BUG: entry {index} is nowhere"))),
                };
                bytes += size;
                if bytes > budget && !found.is_empty() {
                    break;
                }
                found.push_back(one);
            }
        }
        let read = found.into_iter().map(|one| match one {
            Found::Cached(entry) => Ok(entry),
            Found::Stored(id, place) => self.read_stored(group.id, &id, &place),
        });
        read.collect()
    }

    fn read_stored(&self, group: GroupId, id: &LogId, place: &Place) -> io::Result<Entry> {
        self.shared.metrics.log_reads.inc();
        let mut bytes = vec![0; place.len as usize];
        place.segment.file.read_exact_at(place.offset, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        let frame = frame::parse(&bytes, place.segment.number);
        let entry = frame.filter(|f| f.head.group == group).and_then(|f| f.entry(|payload| bytes.slice_ref(payload)));
        entry.filter(|e| e.log_id == *id).ok_or_else(|| {
            let what = format!("log segment {:016x}", place.segment.number);
            RaftError::corrupt(what, format!("bad frame of group {group}, entry {id} at byte {}", place.offset)).into()
        })
    }

    async fn write(&self, group: &Arc<GroupLog>, what: What) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        self.send(Op { group: group.clone(), what, done: Done::Waiter(tell) })?;
        told.await.map_err(|_| self.closed())?
    }

    fn send(&self, op: Op) -> io::Result<()> {
        match &*self.queue.lock() {
            Some(queue) => queue.send(op).map_err(|_| self.closed())?,
            None => return Err(self.closed()),
        }
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
        Ok(())
    }

    fn closed(&self) -> io::Error {
        io::Error::other(self.shared.fatal().unwrap_or_else(|| "log is closed".into()))
    }

    /// Writes what is queued and stops the writer. Blocks until it has, if the writer is a thread.
    pub(crate) fn close(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for group in self.groups() {
            // An error here only loses commit indexes, which the next start finds again.
            drop(self.send(Op { group, what: What::Flush, done: Done::Nobody }));
        }
        drop(self.queue.lock().take());
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
        if let Some(thread) = self.writer.lock().take()
            && thread.join().is_err()
        {
            self.shared.fail("BUG: the log's writer panicked".into());
        }
    }

    /// The last log id and the purged one.
    pub(crate) fn bounds(group: &GroupLog) -> (Option<LogId>, Option<LogId>) {
        let state = group.state.lock();
        (state.last(), state.purged)
    }

    /// Entries of a group that are durable and not below `applied`.
    pub(crate) fn lag(group: &GroupLog, applied: Option<&LogId>) -> u64 {
        group.flushed().map_or(0, |last| last + 1).saturating_sub(next_index(applied))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}
