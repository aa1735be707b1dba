//! A node: a disk that stays, and processes on it that come and go.
//!
//! *Invariants:* at most one process of a node is alive. A process that crashed is dead at once for everything outside of
//! it; only then are its tasks ended.
//!
//! *Not here:* when it crashes (`faults`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;

use super::clock::SimClock;
use super::disk::NodeDisk;
use super::network::Port;
use super::world::World;
use crate::env::{Rng, SeededRng, SimDisk};
use crate::head::{Head, HeadOptions};
use crate::ingest::ingester::Shard;
use crate::ingest::series_budget::SeriesBudgets;
use crate::ingest::shard::{ShardMachine, ShardState};
use crate::meta::shard_of_group;
use crate::model::NodeId;
use crate::raft::{Bootstrap, GroupId, Host, HostOptions, Metrics, RaftError, Router};

/// How long ending the tasks of a dead process may take.
const BURIAL: Duration = Duration::from_secs(60);

/// What stays when a process ends.
pub(super) struct Node {
    pub(super) disk: SimDisk,
    pub(super) clock: Arc<SimClock>,
    pub(super) slowness_us: Arc<AtomicU64>,
    pub(super) running: Mutex<Option<Running>>,
    rng: SeededRng,
    incarnations: AtomicU64,
}

/// A process.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) host: Host,
    pub(super) shards: Arc<Mutex<BTreeMap<GroupId, Arc<Shard>>>>,
    pub(super) alive: Arc<AtomicBool>,
    budgets: SeriesBudgets,
}

impl Node {
    pub(super) fn new(seed: u64, slowness_us: u64) -> Self {
        Self {
            disk: SimDisk::new(seed),
            clock: Arc::new(SimClock::new()),
            slowness_us: Arc::new(AtomicU64::new(slowness_us)),
            running: Mutex::default(),
            rng: SeededRng::new(!seed),
            incarnations: AtomicU64::new(0),
        }
    }
}

impl Running {
    /// Starts a replica on this node.
    pub(super) async fn replica(&self, group: GroupId, bootstrap: Bootstrap) -> Result<(), RaftError> {
        let Some((_, id)) = shard_of_group(group) else { return Ok(()) };
        let state = Arc::new(RwLock::new(ShardState::new(Head::new(HeadOptions::default(), 1))));
        let machine = ShardMachine::new(Arc::clone(&state), self.budgets.clone());
        let started = self.host.start_group(group, Box::new(machine), bootstrap).await?;
        self.shards.lock().insert(group, Arc::new(Shard::new(id, state, started)));
        Ok(())
    }
}

impl World {
    /// Starts a process on a node: its stored replicas and `founded` ones. Tries again while the power goes meanwhile.
    pub(super) async fn start(self: &Arc<Self>, id: u64, founded: Vec<(GroupId, Bootstrap)>) {
        let node = &self.nodes[&id];
        loop {
            let alive = Arc::new(AtomicBool::new(true));
            match self.open(id, alive.clone(), &founded).await {
                Ok(running) => {
                    self.network.plug_in(id, running.host.clone(), alive);
                    *node.running.lock() = Some(running.clone());
                    self.trace.event(|| format!("node {id} is up"));
                    tokio::spawn(watch(self.clone(), id, running));
                    return;
                }
                Err(e) => {
                    alive.store(false, Ordering::Relaxed);
                    if !node.disk.is_down() {
                        self.violated("nodes_stay_up", format!("node {id} cannot start: {e}"));
                        return;
                    }
                    self.trace.event(|| format!("node {id} lost power while it started"));
                    self.count("power lost while starting");
                    node.disk.crash();
                }
            }
        }
    }

    async fn open(
        self: &Arc<Self>,
        id: u64,
        alive: Arc<AtomicBool>,
        founded: &[(GroupId, Bootstrap)],
    ) -> Result<Running, RaftError> {
        let node = &self.nodes[&id];
        let incarnation = node.incarnations.fetch_add(1, Ordering::Relaxed);
        let port = Port { world: self.clone(), node: id, incarnation, alive: alive.clone() };
        let disk = NodeDisk {
            disk: node.disk.clone(),
            alive: alive.clone(),
            rng: Arc::new(SeededRng::new(node.rng.next_u64())),
            slowness_us: node.slowness_us.clone(),
            planted: self.options.planted,
            owed: Arc::default(),
        };
        let options = HostOptions {
            segment_bytes: 16 << 10,
            snapshot_log_bytes: 64 << 10,
            cache_bytes: 4 << 10,
            ..HostOptions::new(PathBuf::from("/data"), NodeId(id))
        };
        let rng = Arc::new(SeededRng::new(node.rng.next_u64()));
        let metrics = Metrics::register(&mut Registry::default());
        let router = Arc::new(Router::through(Arc::new(port)));
        let host = Host::open_with_router(options, Arc::new(disk), node.clock.clone(), rng, metrics, router).await?;
        let running = Running { host, shards: Arc::default(), alive, budgets: SeriesBudgets::default() };
        let stored = running.host.stored_groups();
        for group in &stored {
            let (replica, vote) = (running.host.stored_replica(*group), running.host.stored_vote(*group));
            self.promises.lock().found(self, *group, replica, vote);
        }
        let resumed = stored.iter().map(|group| (*group, Bootstrap::Resume));
        let new = founded.iter().filter(|(group, _)| !stored.contains(group)).cloned();
        for (group, bootstrap) in resumed.chain(new).collect::<Vec<_>>() {
            if let Err(e) = running.replica(group, bootstrap).await {
                running.alive.store(false, Ordering::Relaxed);
                running.host.shutdown().await;
                return Err(e);
            }
        }
        Ok(running)
    }

    /// A node's process dies now, with the machine's power or without, and another is started after `down`.
    pub(super) fn crash(self: &Arc<Self>, id: u64, power: bool, down: Duration, why: &str) {
        let node = &self.nodes[&id];
        let Some(running) = node.running.lock().take() else { return };
        self.trace.event(|| format!("node {id} {}: {why}", if power { "loses power" } else { "is killed" }));
        running.alive.store(false, Ordering::Relaxed);
        self.network.unplug(id);
        if power {
            node.disk.crash()
        } else {
            node.disk.restart()
        }
        let world = self.clone();
        tokio::spawn(async move {
            running.shards.lock().clear();
            if tokio::time::timeout(BURIAL, running.host.shutdown()).await.is_err() {
                world.violated("nodes_stay_up", format!("node {id} does not end when its disk is gone"));
            }
            drop(running);
            tokio::time::sleep(down).await;
            if !world.is_calm() && world.rng.below(4) == 0 {
                world.nodes[&id].disk.crash_at(1 + world.rng.below(30));
            }
            world.start(id, Vec::new()).await;
        });
    }
}

/// Ends a process whose log failed, as `node` does; it may fail only because its disk did.
async fn watch(world: Arc<World>, id: u64, running: Running) {
    let (host, alive) = (running.host.clone(), running.alive.clone());
    drop(running);
    let reason = host.fatal().await;
    drop(host);
    if alive.load(Ordering::Relaxed) {
        if !world.nodes[&id].disk.is_down() {
            world.violated("nodes_stay_up", format!("node {id} failed: {reason}"));
        }
        let down = world.draw(Duration::from_secs(2));
        world.crash(id, true, down, "its disk went");
    }
}
