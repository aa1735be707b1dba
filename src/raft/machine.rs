//! openraft's view of a state machine: applies entries in order, and keeps its snapshots on disk.
//!
//! *Invariants:* what was applied, and under which membership, moves together with the state. A snapshot's view is captured
//! between two entries; writing it happens on a blocking thread.
//!
//! *Not here:* what entries mean (`ingest`, `meta`), snapshot files (`snapshot`).

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use super::index::GroupLog;
use super::log::{Log, Shared};
use super::snapshot::{SnapshotFile, Snapshots};
use super::state_machine::{SnapshotWriter, StateMachine};
use super::types::{Command, LeaderId, LogId, Payload, Peer, SnapshotMeta, StoredMembership, TypeConfig, next_index};

pub(crate) type Snapshot = openraft::Snapshot<LeaderId, u64, Peer, SnapshotFile>;

/// How far a group's state machine is; shared with the group's handle.
#[derive(Default)]
pub(crate) struct Applied {
    /// One more than the last applied index.
    next: AtomicU64,
}

impl Applied {
    pub(crate) fn index(&self) -> Option<u64> {
        self.next.load(Ordering::Acquire).checked_sub(1)
    }
}

/// A state machine with its snapshots.
pub(crate) struct Machine {
    /// A mutex only to be `Sync`, as openraft asks; never contended.
    inner: Mutex<Box<dyn StateMachine>>,
    group: Arc<GroupLog>,
    shared: Arc<Shared>,
    lag: Gauge,
    snapshots: Snapshots,
    current: Arc<Mutex<Option<SnapshotFile>>>,
    last: Option<LogId>,
    membership: StoredMembership,
    applied: Arc<Applied>,
}

impl Machine {
    pub(crate) fn new(
        inner: Box<dyn StateMachine>,
        group: Arc<GroupLog>,
        shared: Arc<Shared>,
        snapshots: Snapshots,
        current: Option<SnapshotFile>,
    ) -> Self {
        let lag = shared.metrics.apply_lag.get_or_create(&[("group", group.id.0)]).clone();
        Self {
            inner: Mutex::new(inner),
            group,
            shared,
            lag,
            snapshots,
            current: Arc::new(Mutex::new(current)),
            last: None,
            membership: StoredMembership::default(),
            applied: Arc::default(),
        }
    }

    pub(crate) fn applied(&self) -> Arc<Applied> {
        self.applied.clone()
    }

    fn restore(&mut self, from: &SnapshotFile) -> io::Result<()> {
        let mut body = BufReader::with_capacity(64 << 10, from.reader());
        self.inner.get_mut().restore(&mut body)?;
        if body.read(&mut [0])? > 0 {
            return Err(io::Error::other("BUG: state machine left snapshot bytes unread"));
        }
        self.last = from.meta.last_log_id;
        self.membership = from.meta.last_membership.clone();
        self.progress();
        Ok(())
    }

    fn progress(&self) {
        self.applied.next.store(next_index(self.last.as_ref()), Ordering::Release);
        self.lag.set(Log::lag(&self.group, self.last.as_ref()) as i64);
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let reply = match entry.payload {
                Payload::Blank => Bytes::new(),
                Payload::Normal(Command(bytes)) => self.inner.get_mut().apply(entry.log_id.index(), &bytes),
                Payload::Membership(m) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), m);
                    Bytes::new()
                }
            };
            self.last = Some(entry.log_id);
            // Before the answer: who was answered finds the index applied.
            self.progress();
            self.shared.metrics.applied.inc();
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta = SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() };
        Builder {
            writer: Mutex::new(Some(self.inner.get_mut().snapshot())),
            meta,
            snapshots: self.snapshots.clone(),
            current: self.current.clone(),
            shared: self.shared.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let own = self.current.lock().as_ref().is_some_and(|current| current.is(&snapshot));
        let snapshot = if own {
            snapshot
        } else {
            let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
            let copy = move || snapshots.save(&meta, |out| io::copy(&mut snapshot.reader(), out).map(drop));
            self.snapshots.blocking(copy).await?
        };
        self.restore(&snapshot)?;
        *self.current.lock() = Some(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.current.lock().clone().map(|s| Snapshot { meta: s.meta.clone(), snapshot: s }))
    }
}

/// A view of a state on its way to disk.
pub(crate) struct Builder {
    /// A mutex only to be `Sync`, as openraft asks.
    writer: Mutex<Option<io::Result<SnapshotWriter>>>,
    meta: SnapshotMeta,
    snapshots: Snapshots,
    current: Arc<Mutex<Option<SnapshotFile>>>,
    shared: Arc<Shared>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let writer = self.writer.get_mut().take().ok_or_else(|| io::Error::other("BUG: snapshot built twice"))?;
        let (snapshots, meta) = (self.snapshots.clone(), self.meta.clone());
        let begun = self.shared.clock.monotonic();
        let save = move || snapshots.save(&meta, writer?);
        let saved = self.snapshots.blocking(save).await;
        let metrics = &self.shared.metrics;
        let file = saved.inspect_err(|_| {
            metrics.snapshots_failed.inc();
        })?;
        metrics.snapshots.inc();
        metrics.snapshot_bytes.inc_by(file.body_bytes);
        metrics.snapshot_seconds.observe(self.shared.clock.monotonic().saturating_sub(begun).as_secs_f64());
        *self.current.lock() = Some(file.clone());
        Ok(Snapshot { meta: file.meta.clone(), snapshot: file })
    }
}
