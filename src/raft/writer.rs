//! The log's one writer: gathers what all groups want written, writes it once, syncs it once.
//!
//! *Invariants:* operations reach the log in the order they were queued; each is answered only after a successful sync of
//! everything up to it. The first failed write or sync is final: everything after it fails too. Every segment begins with
//! a checkpoint of all groups, so that only entries pin older segments; a segment goes when nothing points into it.
//!
//! *Not here:* reading back (`log`), recovery (`recover`), the bytes of a frame (`frame`).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{Notify, oneshot};

use super::codec::{self, Checkpoint};
use super::frame::{BatchBuf, Head, Kind, entry_size};
use super::index::{GroupLog, Place, Slot};
use super::log::Shared;
use super::segment::{HEADER, Segment, SegmentHeader, Segments};
use super::types::{Entry, GroupId, LogId, TypeConfig, Vote};

/// Most bytes of one group commit (a single larger entry is one by itself).
const BATCH_BYTES: usize = 8 << 20;

/// How long to wait before trying again to write to a full disk.
const FULL_DISK_RETRY: Duration = Duration::from_millis(200);

/// Whom to tell that an operation is durable.
pub(crate) enum Done {
    Raft(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
    Nobody,
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Raft(callback) => callback.io_completed(result),
            // A caller that went away does not need the answer.
            Done::Waiter(waiter) => drop(waiter.send(result)),
            Done::Nobody => {}
        }
    }
}

/// One operation of one group.
pub(crate) struct Op {
    pub(crate) group: Arc<GroupLog>,
    pub(crate) what: What,
    pub(crate) done: Done,
}

/// What is to be written.
pub(crate) enum What {
    Append(Vec<Entry>),
    Vote(Vote),
    /// The removed slots are dropped once the record is durable.
    TruncateAfter(Option<LogId>, VecDeque<Slot>),
    Purged(LogId, VecDeque<Slot>),
    Created,
    Deleted,
    /// Only the newest commit index, if it was not written yet.
    Flush,
}

impl Op {
    fn size(&self) -> usize {
        match &self.what {
            What::Append(entries) => entries.iter().map(entry_size).sum(),
            _ => 128,
        }
    }
}

/// What the log says about a group up to its end.
struct Known {
    group: Arc<GroupLog>,
    check: Checkpoint,
    /// One more than the last entry's index.
    next: u64,
}

/// Settings of the writer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriterOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) recycle: bool,
}

/// The writer's state; [`Writer::run`] is its thread.
pub(crate) struct Writer {
    segments: Segments,
    options: WriterOptions,
    shared: Arc<Shared>,
    known: HashMap<GroupId, Known>,
    /// Older segments, oldest first, with their lengths.
    old: VecDeque<(Arc<Segment>, u64)>,
    active: Arc<Segment>,
    end: u64,
    buf: BatchBuf,
    /// Entries in memory, oldest first.
    cached: VecDeque<(Arc<GroupLog>, u64, usize)>,
    cached_bytes: u64,
}

impl Writer {
    /// A writer that goes on in a new segment after `old`, durably begun when this returns.
    pub(crate) fn start(
        segments: Segments,
        options: WriterOptions,
        shared: Arc<Shared>,
        groups: &[Arc<GroupLog>],
        old: Vec<(Arc<Segment>, u64)>,
        last_batch: u64,
    ) -> io::Result<Self> {
        let (previous, previous_end) = old.last().map_or((0, HEADER as u64), |(s, end)| (s.number, *end));
        let header = SegmentHeader { number: previous + 1, previous_end, previous_batch: last_batch };
        let active = Arc::new(segments.create(header, &[], false)?);
        let buf = BatchBuf { bytes: Vec::new(), segment: active.number, batch: last_batch + 1 };
        let known = groups.iter().map(|group| (group.id, Known::of(group))).collect();
        let mut this = Self {
            segments,
            options,
            shared,
            known,
            old: old.into(),
            active,
            end: HEADER as u64,
            buf,
            cached: VecDeque::new(),
            cached_bytes: 0,
        };
        this.put_checkpoints();
        this.put()?;
        this.sync()?;
        this.collect()?;
        Ok(this)
    }

    /// Serves operations until all senders are gone.
    pub(crate) fn run(mut self, queue: &Receiver<Op>) {
        let mut ops = Vec::new();
        let mut next = None;
        while let Some(first) = next.take().or_else(|| queue.recv().ok()) {
            let bytes = gather(first, queue, &mut ops, &mut next);
            let written = self.write(&mut ops, bytes);
            let durable = written.and_then(|places| self.sync().map(|()| places));
            self.settle(&mut ops, durable);
        }
    }

    /// The same as [`Writer::run`] where the disk's time is simulated: other tasks run between a write and its sync.
    pub(crate) async fn run_as_task(mut self, queue: Receiver<Op>, wake: Arc<Notify>) {
        let mut ops = Vec::new();
        let mut next = None;
        loop {
            let first = match next.take().map_or_else(|| queue.try_recv(), Ok) {
                Ok(first) => first,
                Err(TryRecvError::Empty) => {
                    wake.notified().await;
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
            };
            let bytes = gather(first, &queue, &mut ops, &mut next);
            let written = self.write(&mut ops, bytes);
            tokio::time::sleep(self.segments.device_time().unwrap_or_default()).await;
            let durable = written.and_then(|places| self.sync().map(|()| places));
            self.settle(&mut ops, durable);
        }
    }

    /// Ends a group commit: tells everybody what became of it.
    fn settle(&mut self, ops: &mut Vec<Op>, durable: io::Result<VecDeque<(u64, u32)>>) {
        match durable {
            Ok(mut places) => {
                for op in ops.drain(..) {
                    self.finish(op, &mut places);
                }
                self.evict();
                if let Err(e) = self.collect() {
                    self.shared.fail(format!("delete a log segment in {}: {e}", self.segments.dir().display()));
                }
            }
            Err(e) => {
                let failed = || format!("write log in {}: {e}", self.segments.dir().display());
                let reason = self.shared.fatal().unwrap_or_else(failed);
                self.shared.fail(reason.clone());
                ops.drain(..).for_each(|op| op.done.tell(Err(io::Error::other(reason.clone()))));
            }
        }
    }

    /// Writes a group commit; where its entries are.
    fn write(&mut self, ops: &mut [Op], bytes: usize) -> io::Result<VecDeque<(u64, u32)>> {
        if let Some(reason) = self.shared.fatal() {
            return Err(io::Error::other(reason));
        }
        let mut places = VecDeque::new();
        self.wait_for_space(|this| {
            let full = this.end + bytes as u64 > this.options.segment_bytes && this.end > HEADER as u64;
            if full { this.rotate() } else { Ok(()) }
        })?;
        let mut entries = 0;
        for op in ops.iter_mut() {
            entries += self.encode(op, &mut places);
        }
        for op in ops.iter() {
            self.encode_committed(&op.group);
        }
        let metrics = &self.shared.metrics;
        metrics.log_entries.inc_by(entries);
        metrics.log_batch_entries.observe(entries as f64);
        metrics.log_batch_bytes.observe(self.buf.bytes.len() as f64);
        self.wait_for_space(Self::put)?;
        Ok(places)
    }

    /// Runs `attempt` until it does not fail for lack of space; the log only stands still meanwhile.
    fn wait_for_space(&mut self, mut attempt: impl FnMut(&mut Self) -> io::Result<()>) -> io::Result<()> {
        loop {
            match attempt(self) {
                Err(e) if e.kind() == io::ErrorKind::StorageFull && !self.shared.is_stopping() => {
                    self.shared.set_stalled(true);
                    std::thread::sleep(FULL_DISK_RETRY);
                }
                done => {
                    self.shared.set_stalled(false);
                    return done;
                }
            }
        }
    }

    /// Appends an operation's frames to the batch; the number of entries.
    fn encode(&mut self, op: &mut Op, places: &mut VecDeque<(u64, u32)>) -> u64 {
        let id = op.group.id;
        if matches!(op.what, What::Created) {
            self.known.insert(id, Known::of(&op.group));
        }
        // Operations that a deleted group had in the queue write nothing.
        let Some(known) = self.known.get_mut(&id) else {
            if let What::Append(entries) = &mut op.what {
                entries.clear();
            }
            return 0;
        };
        match &op.what {
            What::Append(entries) => {
                for entry in entries {
                    let (at, len) = self.buf.push_entry(id, entry);
                    places.push_back((self.end + at as u64, len as u32));
                    known.next = entry.log_id.index() + 1;
                }
                return entries.len() as u64;
            }
            What::Vote(vote) => {
                let leader = vote.leader_id;
                let head = Head::new(Kind::Vote, id).with_vote(leader.term, leader.node_id, vote.committed);
                self.buf.push(head, |_| {});
                known.check.vote = Some(*vote);
            }
            What::TruncateAfter(last, _) => {
                self.buf.push(Head::new(Kind::TruncateAfter, id).with_log_id(last.as_ref()), |_| {});
                known.next = known.next.min(last.map_or(0, |l| l.index() + 1));
            }
            What::Purged(upto, _) => {
                self.buf.push(Head::new(Kind::Purged, id).with_log_id(Some(upto)), |_| {});
                known.check.purged = known.check.purged.max(Some(*upto));
                known.next = known.next.max(upto.index() + 1);
            }
            What::Created => {
                self.buf.push(Head::new(Kind::GroupCreated, id).with_replica(op.group.replica), |_| {});
            }
            What::Deleted => {
                self.buf.push(Head::new(Kind::GroupDeleted, id), |_| {});
                self.known.remove(&id);
            }
            What::Flush => {}
        }
        0
    }

    /// The newest commit index rides along with what is synced anyway, once its entry is in the log.
    fn encode_committed(&mut self, group: &GroupLog) {
        let Some(known) = self.known.get_mut(&group.id) else { return };
        let mut state = group.state.lock();
        let Some(committed) = state.committed.filter(|c| state.committed_is_new && c.index() < known.next) else {
            return;
        };
        state.committed_is_new = false;
        known.check.committed = Some(committed);
        self.buf.push(Head::new(Kind::Committed, group.id).with_log_id(Some(&committed)), |_| {});
    }

    fn put_checkpoints(&mut self) {
        let mut all: Vec<&Known> = self.known.values().collect();
        all.sort_unstable_by_key(|known| known.group.id);
        for known in all {
            let head = Head::new(Kind::Checkpoint, known.group.id);
            self.buf.push(head, |out| codec::put_checkpoint(out, &known.check));
        }
    }

    /// Writes the batch. On `StorageFull` nothing has changed and it may be tried again.
    fn put(&mut self) -> io::Result<()> {
        if self.buf.bytes.is_empty() { Ok(()) } else { self.active.file.write_at(self.end, &self.buf.bytes) }
    }

    /// Syncs the batch, if it has any bytes.
    fn sync(&mut self) -> io::Result<()> {
        if self.buf.bytes.is_empty() {
            return Ok(());
        }
        let begun = self.shared.clock.monotonic();
        // Whatever the reason: after a failed sync nobody knows what is on the disk.
        self.active.file.sync().map_err(|e| io::Error::other(format!("sync: {e}")))?;
        let metrics = &self.shared.metrics;
        metrics.log_fsync.observe(self.shared.clock.monotonic().saturating_sub(begun).as_secs_f64());
        metrics.log_written.inc_by(self.buf.bytes.len() as u64);
        self.end += self.buf.bytes.len() as u64;
        self.buf.bytes.clear();
        if self.buf.bytes.capacity() > 2 * BATCH_BYTES {
            self.buf.bytes.shrink_to(BATCH_BYTES);
        }
        self.buf.batch += 1;
        Ok(())
    }

    /// Goes on in a new segment; the old one is complete and durable.
    fn rotate(&mut self) -> io::Result<()> {
        let number = self.active.number + 1;
        let header = SegmentHeader { number, previous_end: self.end, previous_batch: self.buf.batch - 1 };
        let new = Arc::new(self.segments.create(header, &[], self.options.recycle)?);
        let full = std::mem::replace(&mut self.active, new);
        self.old.push_back((full, self.end));
        self.end = HEADER as u64;
        self.buf.segment = number;
        self.put_checkpoints();
        Ok(())
    }

    /// Tells everybody that an operation is durable.
    fn finish(&mut self, op: Op, places: &mut VecDeque<(u64, u32)>) {
        match op.what {
            What::Append(entries) if entries.is_empty() => {
                op.done.tell(Err(io::Error::other(format!("group {} is deleted", op.group.id))));
                return;
            }
            What::Append(entries) => {
                for entry in &entries {
                    let Some((offset, len)) = places.pop_front() else { break };
                    op.group.written(&entry.log_id, Place { segment: self.active.clone(), offset, len });
                    self.cached.push_back((op.group.clone(), entry.log_id.index(), len as usize));
                    self.cached_bytes += u64::from(len);
                }
            }
            What::Created | What::Deleted | What::Flush => {}
            What::Vote(vote) => op.group.state.lock().vote = Some(vote),
            What::TruncateAfter(last, slots) => {
                op.group.truncated(last.as_ref());
                drop(slots);
            }
            What::Purged(upto, slots) => {
                op.group.purged(&upto);
                drop(slots);
            }
        }
        op.done.tell(Ok(()));
    }

    /// Keeps the newest entries in memory, up to the limit.
    fn evict(&mut self) {
        while self.cached_bytes > self.options.cache_bytes {
            let Some((group, index, len)) = self.cached.pop_front() else { break };
            group.evict(index);
            self.cached_bytes -= len as u64;
        }
        self.shared.metrics.log_cached.set(self.cached_bytes as i64);
    }

    /// Deletes the oldest segments that no entry needs.
    fn collect(&mut self) -> io::Result<()> {
        while let Some((oldest, len)) = self.old.pop_front() {
            match Arc::try_unwrap(oldest) {
                Ok(unused) => self.segments.remove(unused, self.options.recycle)?,
                Err(needed) => {
                    self.old.push_front((needed, len));
                    break;
                }
            }
        }
        let live = self.old.iter().map(|(_, len)| len).sum::<u64>() + self.end;
        let oldest = self.old.front().map_or(self.active.number, |(s, _)| s.number);
        self.shared.set_extent(oldest, self.active.number, live);
        Ok(())
    }
}

/// Takes what is queued, up to one group commit; its bytes. What does not fit is `next`.
fn gather(first: Op, queue: &Receiver<Op>, ops: &mut Vec<Op>, next: &mut Option<Op>) -> usize {
    let mut bytes = first.size();
    ops.push(first);
    while let Ok(op) = queue.try_recv() {
        bytes += op.size();
        if bytes > BATCH_BYTES {
            *next = Some(op);
            break;
        }
        ops.push(op);
    }
    bytes
}

impl Known {
    fn of(group: &Arc<GroupLog>) -> Self {
        let state = group.state.lock();
        let check =
            Checkpoint { replica: group.replica, vote: state.vote, purged: state.purged, committed: state.committed };
        Self { group: group.clone(), check, next: state.next() }
    }
}
