//! All groups of a node: opens the log, starts groups on it, keeps it short.
//!
//! *Invariants:* the log never holds much more than [`HostOptions::snapshot_log_bytes`]: whoever pins the oldest segment is
//! snapshotted. A failure of the log is final for the node: [`Host::fatal`] resolves.
//!
//! *Not here:* which groups a node has (`meta`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::InitializeError;
use openraft::{Config, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::error::RaftError;
use super::group::{self, Group};
use super::index::GroupLog;
use super::log::{Log, Shared};
use super::machine::Machine;
use super::metrics::Metrics;
use super::snapshot::Snapshots;
use super::state_machine::StateMachine;
use super::store::LogStore;
use super::transport::{Links, Raft, Router};
use super::types::{GroupId, Peer, ReplicaId};
use super::wire::Candidacy;
use super::writer::WriterOptions;
use crate::env::disk::{self, Disk};
use crate::env::{Clock, Rng};
use crate::model::ids::NodeId;

/// How long a group of one may take to lead itself.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings of a node's Raft.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where the log (`log/`) and the snapshots (`snapshots/`) are.
    pub dir: PathBuf,
    /// This machine.
    pub node: NodeId,
    /// Bytes of a log segment. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes of log after which groups are snapshotted: bounds what a start must replay. Default 256 MiB.
    pub snapshot_log_bytes: u64,
    /// Bytes of recent entries kept in memory. Default 64 MiB.
    pub cache_bytes: u64,
    /// Bytes of proposals in flight on the node; more wait. Default 64 MiB.
    pub inflight_bytes: usize,
    /// Leader to followers, when nothing else is to be said. Default 250 ms.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a time in this range stands for election. Default 750 to 1000 ms.
    pub election_ms: (u64, u64),
}

impl HostOptions {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>, node: NodeId) -> Self {
        Self {
            dir: dir.into(),
            node,
            segment_bytes: 64 << 20,
            snapshot_log_bytes: 256 << 20,
            cache_bytes: 64 << 20,
            inflight_bytes: 64 << 20,
            heartbeat_ms: 250,
            election_ms: (750, 1000),
        }
    }
}

/// How a replica begins.
#[derive(Debug, Clone)]
pub enum Bootstrap {
    /// The only replica of a group: made if it is not in the log, resumed if it is.
    SingleVoter,
    /// One of the first replicas of a group, each of which is started with the same `members`.
    Members {
        /// This replica.
        replica: ReplicaId,
        /// All of them.
        members: BTreeMap<ReplicaId, Peer>,
    },
    /// A replica that is in the log.
    Resume,
    /// A replica that the group's leader adds, or added before: it waits to be told.
    Joining {
        /// This replica.
        replica: ReplicaId,
    },
}

/// All groups of a node; clones share it.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    options: HostOptions,
    config: Arc<Config>,
    disk: Arc<dyn Disk>,
    rng: Arc<dyn Rng>,
    router: Arc<Router>,
    log: Arc<Log>,
    shared: Arc<Shared>,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    inflight: Arc<Semaphore>,
    trimmer: Mutex<Option<JoinHandle<()>>>,
}

impl Host {
    /// Opens a node's log, with replicas of its groups on this node only.
    pub async fn open(
        options: HostOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        metrics: Metrics,
    ) -> Result<Self, RaftError> {
        Self::open_with_router(options, disk, clock, rng, metrics, Arc::default()).await
    }

    /// Opens a node's log, with the replicas that `router` knows as peers.
    pub async fn open_with_router(
        options: HostOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        metrics: Metrics,
        router: Arc<Router>,
    ) -> Result<Self, RaftError> {
        let config = Arc::new(raft_config(&options)?);
        let shared = Shared::new(clock, metrics);
        let writer =
            WriterOptions { segment_bytes: options.segment_bytes, cache_bytes: options.cache_bytes, recycle: true };
        let (opening, with, dir) = (disk.clone(), shared.clone(), options.dir.clone());
        let open = move || {
            let made = opening.create_dir(&dir.join("snapshots"));
            made.map_err(RaftError::disk(format!("create snapshot directory in {}", dir.display())))?;
            Log::open(opening, dir.join("log"), writer, with)
        };
        let log = disk::blocking(&*disk, open).await.map_err(RaftError::fatal)??;
        let inflight = Arc::new(Semaphore::new(options.inflight_bytes));
        let (groups, trimmer) = (Mutex::default(), Mutex::new(None));
        let host = Self {
            inner: Arc::new(Inner { options, config, disk, rng, router, log, shared, groups, inflight, trimmer }),
        };
        let weak = Arc::downgrade(&host.inner);
        *host.inner.trimmer.lock() = Some(tokio::spawn(async move {
            // Looks again after each new segment; ends with the host.
            while let Some(inner) = weak.upgrade() {
                let shared = inner.shared.clone();
                Self { inner }.trim().await;
                shared.grown.notified().await;
            }
        }));
        Ok(host)
    }

    /// The groups in the log, by id.
    pub fn stored_groups(&self) -> Vec<GroupId> {
        self.inner.log.groups().iter().map(|g| g.id).collect()
    }

    /// Starts a group. A group of one leads itself and has applied all its log when this returns.
    pub async fn start_group(
        &self,
        id: GroupId,
        machine: Box<dyn StateMachine>,
        bootstrap: Bootstrap,
    ) -> Result<Group, RaftError> {
        let inner = &*self.inner;
        if inner.groups.lock().contains_key(&id) {
            return Err(RaftError::NoSuchGroup { group: id, reason: "is started already".into() });
        }
        let (log, members) = self.join(id, bootstrap).await?;
        let snapshots = self.snapshots(id);
        let newest = {
            let snapshots = snapshots.clone();
            disk::blocking(&*inner.disk, move || snapshots.newest()).await.map_err(RaftError::fatal)??
        };
        let machine = Machine::new(machine, log.clone(), inner.shared.clone(), snapshots, newest);
        let applied = machine.applied();
        let links = Links { router: inner.router.clone(), group: id, from: log.replica };
        let store = LogStore { log: inner.log.clone(), group: log.clone() };
        let raft = Raft::new(log.replica, inner.config.clone(), links, store, machine).await;
        let raft = raft.map_err(|e| RaftError::fatal(format!("start group {id}: {e}")))?;
        inner.router.register(id, log.replica, raft.clone());
        let group = Group {
            inner: Arc::new(group::Inner {
                raft: raft.clone(),
                log,
                shared: inner.shared.clone(),
                applied,
                router: inner.router.clone(),
                inflight: inner.inflight.clone(),
                inflight_limit: inner.options.inflight_bytes,
                barrier: Mutex::default(),
            }),
        };
        inner.groups.lock().insert(id, group.clone());
        wake(&group, members).await?;
        tokio::spawn(tick_when_not_alone(raft, group.inner.log.replica));
        Ok(group)
    }

    /// The group's log and, if it has none yet, its first members.
    async fn join(
        &self,
        id: GroupId,
        bootstrap: Bootstrap,
    ) -> Result<(Arc<GroupLog>, Option<BTreeMap<u64, Peer>>), RaftError> {
        let inner = &*self.inner;
        let (replica, members) = match bootstrap {
            Bootstrap::Resume => {
                let none = || RaftError::NoSuchGroup { group: id, reason: "is not in the log of this node".into() };
                return Ok((inner.log.group(id).ok_or_else(none)?, None));
            }
            Bootstrap::Members { replica, members } => {
                (replica.0, members.into_iter().map(|(replica, peer)| (replica.0, peer)).collect())
            }
            Bootstrap::Joining { replica } => {
                return Ok((self.log_of(id, replica.0).await?, None));
            }
            Bootstrap::SingleVoter => {
                let known = inner.log.group(id).map(|log| log.replica);
                let replica = known.unwrap_or_else(|| inner.rng.next_u64().max(1));
                (replica, BTreeMap::from([(replica, Peer { node: inner.options.node })]))
            }
        };
        Ok((self.log_of(id, replica).await?, Some(members)))
    }

    /// The log of a replica, made if there is none.
    async fn log_of(&self, id: GroupId, replica: u64) -> Result<Arc<GroupLog>, RaftError> {
        match self.inner.log.group(id) {
            Some(log) if log.replica == replica => Ok(log),
            Some(log) => {
                let reason = format!("is in the log as replica {}, not {}", ReplicaId(log.replica), ReplicaId(replica));
                Err(RaftError::NoSuchGroup { group: id, reason })
            }
            None => self.inner.log.create_group(id, replica).await.map_err(RaftError::fatal),
        }
    }

    /// The replica of a group that is in the log of this node.
    pub fn stored_replica(&self, id: GroupId) -> Option<ReplicaId> {
        self.inner.log.group(id).map(|log| ReplicaId(log.replica))
    }

    /// Whom a replica in the log of this node has promised itself to.
    pub(crate) fn stored_vote(&self, id: GroupId) -> Option<Candidacy> {
        let vote = self.inner.log.group(id)?.state.lock().vote?;
        Some((vote.leader_id.term, vote.leader_id.node_id))
    }

    /// A started replica, by its id.
    pub(crate) fn replica(&self, group: GroupId, replica: u64) -> Result<Raft, RaftError> {
        let none = || {
            let reason = format!("replica {} is not on this node", ReplicaId(replica));
            RaftError::NoSuchGroup { group, reason }
        };
        self.inner.router.replica(group, replica).ok_or_else(none)
    }

    /// The snapshots of a group.
    pub(crate) fn snapshots(&self, id: GroupId) -> Snapshots {
        Snapshots::new(self.inner.disk.clone(), self.inner.options.dir.join("snapshots"), id)
    }

    /// All started groups.
    pub fn groups(&self) -> Vec<Group> {
        self.inner.groups.lock().values().cloned().collect()
    }

    /// A started group.
    pub fn group(&self, id: GroupId) -> Option<Group> {
        self.inner.groups.lock().get(&id).cloned()
    }

    /// Stops a group and removes all of it from this node. Its replica id must never be used again.
    pub async fn delete_group(&self, id: GroupId) -> Result<(), RaftError> {
        let inner = &*self.inner;
        let started = inner.groups.lock().remove(&id);
        if let Some(group) = started {
            group.shutdown().await;
        }
        if let Some(log) = inner.log.group(id) {
            inner.log.delete_group(&log).await.map_err(RaftError::fatal)?;
        }
        self.snapshots(id).remove_all().map_err(RaftError::disk(format!("remove snapshots of group {id}")))
    }

    /// Snapshots groups that pin the oldest segment until the log is short enough, one at a time.
    async fn trim(&self) {
        loop {
            let extent = self.inner.shared.extent();
            if extent.live_bytes <= self.inner.options.snapshot_log_bytes || extent.oldest == extent.newest {
                return;
            }
            let pins = |log: &Arc<GroupLog>| log.oldest_segment().is_some_and(|s| s <= extent.oldest);
            let pinning: Vec<GroupId> = self.inner.log.groups().iter().filter(|log| pins(log)).map(|l| l.id).collect();
            for id in pinning {
                let Some(group) = self.group(id) else {
                    tracing::warn!(group = id.0, "a group that is not started pins the log");
                    continue;
                };
                let pinned = |g: &Group| g.inner.log.oldest_segment().is_some_and(|s| s <= extent.oldest);
                let released = match group.snapshot_now().await {
                    Ok(_) if pinned(&group) => group.release_log().await,
                    done => done,
                };
                if let Err(e) = released {
                    tracing::warn!(group = id.0, error = %e, "could not shorten the log");
                }
            }
            if self.inner.shared.extent().oldest == extent.oldest {
                // Deleting happens with the next group commit; the next segment brings us back.
                return;
            }
        }
    }

    /// Bytes in all segments of the log.
    pub fn log_extent(&self) -> u64 {
        self.inner.shared.extent().live_bytes
    }

    /// Whether the log waits for disk space: reads work, proposals are refused.
    pub fn is_stalled(&self) -> bool {
        self.inner.shared.is_stalled()
    }

    /// Resolves, with the reason, when the node must stop: the log failed or a state machine did.
    pub async fn fatal(&self) -> RaftError {
        RaftError::fatal(self.inner.shared.failed().await)
    }

    /// Stops all groups and closes the log.
    pub async fn shutdown(&self) {
        if let Some(trimmer) = self.inner.trimmer.lock().take() {
            trimmer.abort();
        }
        self.inner.inflight.close();
        let groups: Vec<Group> = std::mem::take(&mut *self.inner.groups.lock()).into_values().collect();
        for group in groups {
            group.shutdown().await;
        }
        let log = self.inner.log.clone();
        if disk::blocking(&*self.inner.disk, move || log.close()).await.is_err() {
            self.inner.shared.fail("BUG: closing the log panicked".into());
        }
    }
}

/// openraft's settings.
fn raft_config(options: &HostOptions) -> Result<Config, RaftError> {
    let config = Config {
        cluster_name: "metrolith".into(),
        heartbeat_interval: options.heartbeat_ms,
        heartbeat_min_interval: Some(options.heartbeat_ms * 2 / 5),
        election_timeout_min: options.election_ms.0,
        election_timeout_max: options.election_ms.1,
        // Our own triggers count bytes; openraft's count entries.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        max_payload_entries: 4096,
        enable_pre_vote: Some(true),
        // A restarted leader that resumes in its old term answers reads from a state that may have gone back.
        enable_leader_restore: Some(false),
        // Groups of one need no ticks; `tick_when_not_alone` starts them.
        enable_tick: false,
        ..Config::default()
    };
    config.validate().map_err(|e| RaftError::fatal(format!("BUG: raft settings: {e}")))
}

/// Lets a group of one lead itself; others begin to tick.
async fn wake(group: &Group, members: Option<BTreeMap<u64, Peer>>) -> Result<(), RaftError> {
    let (id, raft) = (group.id(), &group.inner.raft);
    let failed = |e: &dyn std::fmt::Display| RaftError::fatal(format!("start group {id}: {e}"));
    let initialized = raft.is_initialized().await.map_err(|e| failed(&e))?;
    let alone = match members {
        Some(members) if !initialized => {
            let alone = members.len() == 1;
            // Begins an election by itself.
            match raft.initialize(members).await {
                // Another of the first replicas was quicker: its entries are here already.
                Ok(()) | Err(openraft::errors::RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(e) => return Err(failed(&e)),
            }
            alone
        }
        _ => {
            let alone = is_alone(raft, group.inner.log.replica);
            if alone {
                raft.trigger().elect(false).await.map_err(|e| failed(&e))?;
            }
            alone
        }
    };
    if !alone {
        raft.runtime_config().tick(true);
        return Ok(());
    }
    raft.wait(Some(LEAD_TIMEOUT)).state(ServerState::Leader, "lead itself").await.map_err(|e| failed(&e))?;
    group.read_index().await?;
    Ok(())
}

fn is_alone(raft: &Raft, replica: u64) -> bool {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.nodes().all(|(id, _)| *id == replica)
        && metrics.membership_config.voter_ids().any(|id| id == replica)
}

/// Ticks cost CPU and a group of one has nobody to hear from: they run only while there are others.
async fn tick_when_not_alone(raft: Raft, replica: u64) {
    let mut changes = raft.server_metrics();
    loop {
        let leads_alone = is_alone(&raft, replica) && raft.is_leader();
        raft.runtime_config().tick(!leads_alone);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
