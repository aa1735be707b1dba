//! One replica of one group: proposes, answers reads, takes snapshots.
//!
//! *Invariants:* a proposal is answered `Ok` only when its entry is durable on a majority and applied here. A read barrier
//! begun after such an answer covers it. Refusals for an expired leader lease are retried inside.
//!
//! *Not here:* batching of small writes into entries (the caller's); when to snapshot (`host`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use super::error::RaftError;
use super::frame::MAX_PAYLOAD;
use super::index::GroupLog;
use super::log::Shared;
use super::machine;
use super::transport::{Others, Raft, Router};
use super::types::{Command, GroupId, ReplicaId, TypeConfig};
use crate::model::NodeId;
use crate::proto::v1::ReadIndexRequest;

/// How often and how long a proposal waits for its leader's lease to be renewed.
const LEASE_RETRY: Duration = Duration::from_millis(20);
const LEASE_RETRIES: usize = 100;

/// How long a read waits for a group that has no leader, how often it asks again, and how long for one answer.
const READ_PATIENCE: Duration = Duration::from_secs(5);
const READ_RETRY: Duration = Duration::from_millis(25);
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for a snapshot or purge before asking again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Entries kept behind a snapshot for followers that are a little behind.
const KEEP_FOR_FOLLOWERS: u64 = 128;

/// A proposal that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The entry's index.
    pub index: u64,
    /// What the state machine answered.
    pub reply: Bytes,
}

/// A replica of a group; clones share it.
#[derive(Clone)]
pub struct Group {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<GroupLog>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) applied: Arc<machine::Applied>,
    pub(crate) router: Arc<Router>,
    /// Bytes that proposals of the whole node may have in flight.
    pub(crate) inflight: Arc<Semaphore>,
    pub(crate) inflight_limit: usize,
    pub(crate) barrier: Mutex<Barrier>,
}

type ReadAnswer = Result<u64, RaftError>;

/// Read barriers waiting for the next round, and whether a round is on its way.
#[derive(Default)]
pub(crate) struct Barrier {
    waiting: Vec<oneshot::Sender<ReadAnswer>>,
    running: bool,
}

impl Group {
    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.inner.log.id
    }

    /// This replica's id.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId(self.inner.log.replica)
    }

    /// Whether this replica believes it leads (a read barrier makes sure).
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// The last index applied to the state machine; 0, which never holds a proposal, before the first.
    pub fn applied_index(&self) -> u64 {
        self.inner.applied.index().unwrap_or(0)
    }

    /// The last index durable on this node. A follower may apply entries before that: nothing that leaves the node
    /// (a block) may hold entries above it.
    pub fn flushed_index(&self) -> u64 {
        self.inner.log.flushed().unwrap_or(0)
    }

    /// Replicates an entry and applies it. The caller gathers small writes into one entry; the payload is shared, never
    /// copied except into the log.
    pub async fn propose(&self, entry: Bytes) -> Result<Applied, RaftError> {
        let metrics = &self.inner.shared.metrics;
        metrics.proposals.inc();
        let result = self.try_propose(entry).await;
        if result.is_err() {
            metrics.proposals_failed.inc();
        }
        result
    }

    async fn try_propose(&self, entry: Bytes) -> Result<Applied, RaftError> {
        let (inner, group) = (&*self.inner, self.id());
        let bytes = entry.len();
        if bytes > MAX_PAYLOAD {
            return Err(RaftError::TooLarge { group, bytes, limit: MAX_PAYLOAD });
        }
        if inner.shared.is_stalled() {
            return Err(self.unavailable("the log waits for disk space"));
        }
        let permits = bytes.clamp(1, inner.inflight_limit) as u32;
        let _inflight = inner.inflight.acquire_many(permits).await.map_err(|_| self.unavailable("node is stopping"))?;
        for _ in 0..LEASE_RETRIES {
            let forward = match inner.raft.client_write(Command(entry.clone())).await {
                Ok(done) => return Ok(Applied { index: done.log_id.index(), reply: done.data }),
                Err(openraft::errors::RaftError::Fatal(e)) => return Err(self.fatal(&e)),
                Err(openraft::errors::RaftError::APIError(ClientWriteError::ForwardToLeader(f))) => f,
                Err(openraft::errors::RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                    return Err(RaftError::Unknown { group });
                }
                Err(other) => return Err(self.unavailable(&other.to_string())),
            };
            if forward.reason != ForwardReason::LeaseExpired {
                return Err(self.not_leader(forward));
            }
            // Asking for a read index makes the leader hear from its followers, which renews the lease.
            if self.lead_read_index().await.is_err() {
                tokio::time::sleep(LEASE_RETRY).await;
            }
        }
        Err(self.unavailable("the leader's lease is not renewed"))
    }

    /// A linearizable read barrier: returns once everything acknowledged before the call, anywhere, is applied here; the
    /// index it waited for. Concurrent callers share one round.
    pub async fn read_index(&self) -> Result<u64, RaftError> {
        self.inner.shared.metrics.read_indexes.inc();
        let (tell, told) = oneshot::channel();
        let start = {
            let mut barrier = self.inner.barrier.lock();
            barrier.waiting.push(tell);
            !std::mem::replace(&mut barrier.running, true)
        };
        if start {
            let group = self.clone();
            tokio::spawn(async move { group.rounds().await });
        }
        told.await.unwrap_or_else(|_| Err(self.unavailable("group is stopping")))
    }

    /// Answers waiting readers, round after round: only a round begun after a reader came may answer it.
    async fn rounds(&self) {
        loop {
            let waiting = {
                let mut barrier = self.inner.barrier.lock();
                if barrier.waiting.is_empty() {
                    barrier.running = false;
                    return;
                }
                std::mem::take(&mut barrier.waiting)
            };
            let answer = self.round().await;
            for reader in waiting {
                // A reader that went away does not need the answer.
                drop(reader.send(answer.clone()));
            }
        }
    }

    /// Asks for a read index until there is one; while a group changes its leader that takes a moment.
    async fn round(&self) -> ReadAnswer {
        let deadline = self.inner.shared.clock.monotonic() + READ_PATIENCE;
        loop {
            let refused = match self.ask_read_index().await {
                Err(e @ (RaftError::NotLeader { .. } | RaftError::Unavailable { .. })) => e,
                answer => return answer,
            };
            let alone = self.inner.router.others().is_none();
            // A replica that was stopped never knows better; another node may.
            let stopped = self.check_running().is_err();
            if alone || stopped || self.inner.shared.clock.monotonic() >= deadline {
                return Err(refused);
            }
            tokio::time::sleep(READ_RETRY).await;
        }
    }

    /// Asks this replica if it leads, else the leader, and waits until what it says is applied here.
    async fn ask_read_index(&self) -> ReadAnswer {
        let (group, refused) = match self.lead_read_index().await {
            Err(RaftError::NotLeader { group, leader }) => (group, leader),
            answer => return answer,
        };
        let elsewhere = refused.filter(|(replica, _)| *replica != self.replica()).zip(self.inner.router.others());
        let Some(((_, peer), others)) = elsewhere else {
            return Err(RaftError::NotLeader { group, leader: refused });
        };
        let unreachable = |e: &dyn std::fmt::Display| self.unavailable(&format!("ask its leader: {e}"));
        let asked = self.ask_leader(peer.node, others);
        let asked = tokio::time::timeout(READ_TIMEOUT, asked).await;
        let index = asked.map_err(|_| unreachable(&"no answer in time"))??;
        let wait = self.inner.raft.wait(Some(READ_PATIENCE));
        wait.applied_index_at_least(Some(index), "read index").await.map_err(|e| unreachable(&e))?;
        Ok(index)
    }

    async fn ask_leader(&self, node: NodeId, others: &Others) -> ReadAnswer {
        let group = self.id();
        let peers = match others {
            Others::Peers(peers) => peers,
            Others::Ways(ways) => return ways.read_index(node, group).await,
        };
        let unreachable = |e: &dyn std::fmt::Display| self.unavailable(&format!("ask its leader: {e}"));
        let mut client = peers.client(node).map_err(|e| unreachable(&e))?;
        let asked = client
            .read_index(ReadIndexRequest { group: group.0, want_members: false, replica: self.replica().0 })
            .await;
        let reply = asked.map_err(|status| unreachable(&status.message()))?.into_inner();
        match reply.failure {
            Some(failure) => Err(RaftError::from_failure(group, failure)),
            None => Ok(reply.index),
        }
    }

    /// A read index of this replica, which must lead: nothing of it is waited for elsewhere.
    pub async fn lead_read_index(&self) -> ReadAnswer {
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => Ok(read.index()),
            Err(openraft::errors::RaftError::Fatal(e)) => Err(self.fatal(&e)),
            Err(openraft::errors::RaftError::APIError(LinearizableReadError::ForwardToLeader(f))) => {
                Err(self.not_leader(f))
            }
            Err(openraft::errors::RaftError::APIError(LinearizableReadError::QuorumNotEnough(e))) => {
                Err(self.unavailable(&e.to_string()))
            }
        }
    }

    /// Writes a snapshot of at least the present state, and forgets the log before it; the index it covers.
    pub async fn snapshot_now(&self) -> Result<u64, RaftError> {
        let index = self.snapshot().await?;
        let voters = self.inner.raft.voter_ids().count();
        let keep = if voters > 1 { KEEP_FOR_FOLLOWERS } else { 0 };
        self.purge(index.saturating_sub(keep)).await?;
        Ok(index)
    }

    /// Like [`Group::snapshot_now`], and keeps nothing for slow followers: they will be sent the snapshot.
    pub(crate) async fn release_log(&self) -> Result<u64, RaftError> {
        let index = self.snapshot().await?;
        self.purge(index).await?;
        Ok(index)
    }

    async fn snapshot(&self) -> Result<u64, RaftError> {
        let raft = &self.inner.raft;
        let Some(target) = self.inner.applied.index() else { return Ok(0) };
        loop {
            raft.trigger().snapshot().await.map_err(|e| self.fatal(&e))?;
            let covered = |m: &openraft::RaftMetrics<TypeConfig>| m.snapshot.filter(|s| s.index() >= target);
            let waited = raft.wait(Some(ASK_AGAIN)).metrics(|m| covered(m).is_some(), "snapshot").await;
            if let Some(done) = waited.ok().and_then(|m| covered(&m)) {
                return Ok(done.index());
            }
            self.check_running()?;
        }
    }

    /// Purging waits for readers of the log, so it may take effect later than this returns.
    async fn purge(&self, upto: u64) -> Result<(), RaftError> {
        let raft = &self.inner.raft;
        raft.trigger().purge_log(upto).await.map_err(|e| self.fatal(&e))?;
        let purged = |m: &openraft::RaftMetrics<TypeConfig>| m.purged.is_some_and(|p| p.index() >= upto);
        if raft.wait(Some(ASK_AGAIN)).metrics(purged, "purge").await.is_err() {
            self.check_running()?;
        }
        Ok(())
    }

    fn check_running(&self) -> Result<(), RaftError> {
        if let Err(e) = &self.inner.raft.metrics().borrow_watched().running_state {
            return Err(self.fatal(e));
        }
        Ok(())
    }

    /// Stops this replica. Its log stays.
    pub async fn shutdown(&self) {
        self.inner.router.unregister(self.id(), self.inner.log.replica);
        let raft = self.inner.raft.clone();
        // In a task of its own: openraft panics for the next caller when this is dropped halfway.
        let ended = tokio::spawn(async move { raft.shutdown().await }).await;
        if !matches!(ended, Ok(Ok(()))) {
            self.inner.shared.fail(format!("BUG: group {} panicked", self.id()));
        }
    }

    pub(crate) fn unavailable(&self, reason: &str) -> RaftError {
        RaftError::Unavailable { group: self.id(), reason: reason.to_owned() }
    }

    pub(crate) fn not_leader(&self, forward: ForwardToLeader<TypeConfig>) -> RaftError {
        let leader = forward.leader_id.map(ReplicaId).zip(forward.leader_node);
        RaftError::NotLeader { group: self.id(), leader }
    }

    pub(crate) fn fatal(&self, e: &Fatal<TypeConfig>) -> RaftError {
        if matches!(e, Fatal::Stopped) {
            return self.unavailable("group is stopped");
        }
        let reason = self.inner.shared.fatal().unwrap_or_else(|| format!("group {}: {e}", self.id()));
        self.inner.shared.fail(reason.clone());
        RaftError::fatal(reason)
    }
}
