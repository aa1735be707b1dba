//! Everything there is in a simulation: nodes, the network, the clients' history, what was broken.
//!
//! *Invariants:* everything random is drawn in the order of events, from the seed.
//!
//! *Not here:* what happens to it (`faults`), what must hold (`invariants`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::history::History;
use super::invariants::{EqualHeads, Leaders, Promises};
use super::network::{CALM, Network, Weather};
use super::node::{Node, Running};
use super::trace::Trace;
use super::{Options, Outcome, Planted};
use crate::env::{Rng, SeededRng};
use crate::ingest::ingester::Shard;
use crate::meta::{Placement, shard_group};
use crate::model::{Epoch, NodeId, ShardId};
use crate::raft::{Bootstrap, GroupId, Peer, ReplicaId};

/// Nodes, and how many of them have a replica of every group at first.
pub(super) const NODES: u64 = 5;
pub(super) const REPLICAS: u64 = 3;
/// Groups of shards.
pub(super) const GROUPS: u32 = 2;
/// Clients that write; each has a series.
pub(super) const CLIENTS: u64 = 6;

/// Longest time of a disk's operation, microseconds, unless it is slow.
pub(super) const DISK_US: u64 = 400;

/// The simulation.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) trace: Trace,
    pub(super) network: Network,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) history: Mutex<History>,
    pub(super) leaders: Mutex<Leaders>,
    pub(super) promises: Mutex<Promises>,
    pub(super) heads: Mutex<EqualHeads>,
    /// Where each group should be.
    pub(super) wanted: Mutex<BTreeMap<GroupId, Placement>>,
    /// Of a thousand moments that are worth a crash.
    pub(super) aim: u64,
    pub(super) calm: AtomicBool,
    stopped: AtomicBool,
    reads: AtomicU64,
    /// When each client was last answered.
    pub(super) answered: Mutex<BTreeMap<u64, Instant>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<(&'static str, String)>>,
    /// For whoever draws in the order of events.
    pub(super) rng: SeededRng,
}

/// The groups of shards.
pub(super) fn groups() -> impl Iterator<Item = GroupId> {
    (0..GROUPS).map(|shard| shard_group(Epoch(1), ShardId(shard)))
}

impl World {
    pub(super) fn new(options: Options) -> Arc<Self> {
        let rng = SeededRng::new(options.seed ^ 0x5EED);
        let network = Network::new(rng.next_u64());
        let slowness = if rng.below(3) == 0 { 20_000 } else { DISK_US };
        let nodes = (1..=NODES).map(|id| (id, Node::new(rng.next_u64(), slowness))).collect();
        let aim = [0, 2, 20][rng.below(3) as usize];
        let placement = |group: GroupId| {
            let replicas = (1..=REPLICAS).map(|node| (ReplicaId(group.0 << 32 | node), NodeId(node))).collect();
            (group, Placement { replicas, ..Placement::default() })
        };
        Arc::new(Self {
            options,
            trace: Trace::new(options.print),
            network,
            nodes,
            history: Mutex::default(),
            leaders: Mutex::default(),
            promises: Mutex::default(),
            heads: Mutex::default(),
            wanted: Mutex::new(groups().map(placement).collect()),
            aim,
            calm: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            answered: Mutex::default(),
            faults: Mutex::default(),
            violations: Mutex::default(),
            rng,
        })
    }

    /// Starts all nodes, with the first replicas of the groups.
    pub(super) async fn begin(self: &Arc<Self>) {
        let wanted = self.wanted.lock().clone();
        for id in 1..=NODES {
            let founded = wanted.iter().filter_map(|(group, placement)| {
                let replica = placement.replica_on(NodeId(id))?;
                let members = placement.replicas.iter().map(|(id, node)| (*id, Peer { node: *node })).collect();
                Some((*group, Bootstrap::Members { replica, members }))
            });
            self.start(id, founded.collect()).await;
        }
    }

    /// Ends all faults; what is down comes back by itself.
    pub(super) fn heal(&self) {
        self.trace.event(|| "all faults end".into());
        self.calm.store(true, Ordering::Relaxed);
        self.network.heal();
        self.network.set_weather(CALM);
        self.nodes.values().for_each(|node| node.slowness_us.store(DISK_US, Ordering::Relaxed));
    }

    pub(super) fn weather(&self, weather: Weather) {
        self.network.set_weather(weather);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn planted(&self, what: Planted) -> bool {
        self.options.planted == Some(what)
    }

    /// An invariant does not hold.
    pub(super) fn violated(&self, invariant: &'static str, how: String) {
        self.trace.event(|| format!("VIOLATION {invariant}: {how}"));
        self.violations.lock().push((invariant, how));
    }

    /// Something worth counting happened.
    pub(super) fn count(&self, what: &'static str) {
        *self.faults.lock().entry(what).or_default() += 1;
    }

    pub(super) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// What runs on a node.
    pub(super) fn running(&self, node: u64) -> Option<Running> {
        self.nodes.get(&node)?.running.lock().clone()
    }

    /// A node's replica of a group.
    pub(super) fn shard(&self, node: u64, group: GroupId) -> Option<(Arc<Shard>, Arc<AtomicBool>)> {
        let running = self.running(node)?;
        let shard = running.shards.lock().get(&group).cloned()?;
        Some((shard, running.alive))
    }

    /// A node whose replica believes it leads.
    pub(super) fn leader(&self, group: GroupId) -> Option<(u64, Arc<Shard>)> {
        (1..=NODES).find_map(|id| self.shard(id, group).filter(|(s, _)| s.group.is_leader()).map(|(s, _)| (id, s)))
    }

    /// A time up to `most`.
    pub(super) fn draw(&self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.below(most.as_micros() as u64 + 1))
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            violations: self.violations.lock().clone(),
            trace: self.trace.digest(),
            acked: self.history.lock().count(),
            reads: self.reads.load(Ordering::Relaxed),
            faults: self.faults.lock().iter().map(|(what, n)| (*what, *n)).collect(),
        }
    }
}
