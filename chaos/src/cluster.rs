//! The nodes of a run, and what they say of themselves.
//!
//! *Invariants:* `targets` are the nodes of the cluster, whether they answer or not; clients send to them.
//!
//! *Not here:* one process (`node`), what is done to them (`faults`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::Api;
use crate::broken;
use crate::node::{Node, Setup, signal};

/// How long a node may take to be ready, and a cluster to come to rest.
pub const SETTLE: Duration = Duration::from_secs(120);
/// How long a node may take to end in order.
const STOP: Duration = Duration::from_secs(40);

/// Where clients send to.
pub type Targets = Arc<Mutex<Vec<String>>>;

/// The nodes of a run.
pub struct Cluster {
    /// What all are started with.
    pub setup: Setup,
    /// By address.
    pub nodes: BTreeMap<usize, Node>,
    /// Where clients send to.
    pub targets: Targets,
    api: Api,
    generation: usize,
}

impl Cluster {
    /// Without nodes.
    pub fn new(setup: Setup, api: Api) -> Self {
        Self { setup, nodes: BTreeMap::new(), targets: Targets::default(), api, generation: 0 }
    }

    /// Adds a node at a free address, starts it and waits until it is ready.
    pub async fn add(&mut self, slot: usize) -> Result<()> {
        let node = self.make(slot);
        self.nodes.insert(slot, node);
        self.start(&[slot]).await?;
        self.publish();
        Ok(())
    }

    /// A node at an address, new to the cluster.
    pub fn make(&mut self, slot: usize) -> Node {
        let join = self.nodes.values().filter(|node| node.slot != slot).map(|node| node.grpc.clone()).collect();
        let generation = if self.setup.dir.join(format!("n{slot}.log")).exists() {
            self.generation += 1;
            self.generation
        } else {
            0
        };
        Node::new(&self.setup, slot, generation, join)
    }

    /// Tells clients of the nodes there are.
    pub fn publish(&self) {
        let urls = self.nodes.values().map(|node| node.url.clone()).collect();
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = urls;
    }

    /// Starts nodes that do not run, all at once, and waits until they are ready.
    pub async fn start(&mut self, slots: &[usize]) -> Result<()> {
        for slot in slots {
            let setup = self.setup.clone();
            self.node(*slot)?.start(&setup)?;
        }
        for slot in slots {
            self.ready(*slot).await?;
        }
        Ok(())
    }

    /// Waits until a node takes requests.
    pub async fn ready(&mut self, slot: usize) -> Result<()> {
        let patience = Instant::now() + SETTLE;
        let api = self.api.clone();
        let node = self.node(slot)?;
        while !api.ready(&node.url).await {
            if let Some(status) = node.ended() {
                return Err(broken!("{} ended at its start: {status}", node.name));
            }
            if Instant::now() > patience {
                return Err(broken!("{} is not ready after {SETTLE:?}", node.name));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Ends nodes at once and takes their processes away.
    pub async fn kill(&mut self, slots: &[usize]) -> Result<()> {
        self.signal(slots, "KILL").await?;
        for slot in slots {
            self.node(*slot)?.wait(STOP).await?;
        }
        Ok(())
    }

    /// Ends a node in order.
    pub async fn stop(&mut self, slot: usize) -> Result<()> {
        self.signal(&[slot], "TERM").await?;
        let node = self.node(slot)?;
        let status = node.wait(STOP).await?;
        if status != "exit status: 0" {
            return Err(broken!("{} ended with {status} after SIGTERM", node.name));
        }
        Ok(())
    }

    /// Sends a signal to nodes, all in one moment.
    pub async fn signal(&mut self, slots: &[usize], name: &str) -> Result<()> {
        let mut nodes: Vec<&mut Node> =
            self.nodes.iter_mut().filter(|(slot, _)| slots.contains(slot)).map(|(_, node)| node).collect();
        signal(&mut nodes, name).await
    }

    /// A node.
    pub fn node(&mut self, slot: usize) -> Result<&mut Node> {
        self.nodes.get_mut(&slot).with_context(|| format!("there is no node at address {slot}"))
    }

    /// What time a node has, Unix seconds.
    pub async fn time(&self, slot: usize) -> Result<f64> {
        let node = self.nodes.get(&slot).with_context(|| format!("there is no node at address {slot}"))?;
        self.api.time(&node.url).await
    }

    /// Addresses in use.
    pub fn slots(&self) -> Vec<usize> {
        self.nodes.keys().copied().collect()
    }

    /// How many groups each node leads, by address, as the nodes that answer say.
    pub async fn leads(&self) -> BTreeMap<usize, usize> {
        let mut leaders: BTreeMap<String, u64> = BTreeMap::new();
        let mut ids: BTreeMap<u64, usize> = BTreeMap::new();
        for node in self.nodes.values() {
            let Ok(status) = self.api.status(&node.url).await else { continue };
            for of in list(&status, "nodes") {
                let slot = self.nodes.values().find(|n| of["name"] == n.name.as_str());
                if let (Some(id), Some(slot)) = (of["id"].as_u64(), slot) {
                    ids.insert(id, slot.slot);
                }
            }
            for group in list(&status, "groups") {
                if let (Some(name), Some(leader)) = (group["group"].as_str(), group["leader"].as_u64()) {
                    leaders.insert(name.to_owned(), leader);
                }
            }
        }
        let mut leads = BTreeMap::new();
        for slot in leaders.values().filter_map(|id| ids.get(id)) {
            *leads.entry(*slot).or_default() += 1;
        }
        leads
    }

    /// Waits until every group has the members it should have, as every node says that has a replica of it.
    pub async fn at_rest(&mut self) -> Result<()> {
        let patience = Instant::now() + SETTLE;
        loop {
            let mut restless = None;
            for node in self.nodes.values_mut() {
                if let Some(status) = node.ended() {
                    return Err(broken!("{} ended although it was not told to: {status}", node.name));
                }
            }
            for node in self.nodes.values() {
                restless = match self.api.status(&node.url).await {
                    Ok(status) => unsettled(&status, self.nodes.len()).map(|text| format!("{}: {text}", node.name)),
                    Err(e) => Some(format!("{}: {e:#}", node.name)),
                };
                if restless.is_some() {
                    break;
                }
            }
            let Some(restless) = restless else { return Ok(()) };
            if Instant::now() > patience {
                return Err(broken!("the cluster does not come to rest within {SETTLE:?}: {restless}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Asks any node that answers for a change of the cluster.
    pub async fn change(&self, path: &str, form: &[(&str, &str)]) -> Result<()> {
        let patience = Instant::now() + SETTLE;
        loop {
            let mut error = anyhow::anyhow!("no node runs");
            for node in self.nodes.values().filter(|node| node.runs() && !node.paused) {
                match self.api.admin(&node.url, &format!("cluster/{path}"), form, Duration::from_secs(20)).await {
                    Ok(()) => return Ok(()),
                    Err(e) => error = e,
                }
            }
            if Instant::now() > patience {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Has every node write what it holds to the bucket.
    pub async fn flush(&self) -> Result<()> {
        for node in self.nodes.values() {
            let flushed = self.api.admin(&node.url, "flush", &[], SETTLE).await;
            flushed.with_context(|| format!("flush of {}", node.name))?;
        }
        Ok(())
    }

    /// Waits until no group has a replica on a node any more.
    pub async fn drained(&self, name: &str) -> Result<()> {
        let patience = Instant::now() + SETTLE;
        loop {
            let mut holds = BTreeSet::new();
            for node in self.nodes.values() {
                let Ok(status) = self.api.status(&node.url).await else { continue };
                let id = list(&status, "nodes").find(|n| n["name"] == name).map(|n| n["id"].clone());
                let on = |of: &Value| of.as_array().into_iter().flatten().any(|r| Some(&r["node"]) == id.as_ref());
                // Every node watches meta, this one until it is removed.
                let shards = list(&status, "groups").filter(|group| group["shard"].is_u64());
                let held = shards.filter(|group| on(&group["replicas"]) || on(&group["members"]));
                holds.extend(held.map(|group| group["group"].to_string()));
            }
            if holds.is_empty() {
                return Ok(());
            }
            if Instant::now() > patience {
                return Err(broken!("{name} still holds {holds:?} {SETTLE:?} after it was drained"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn list<'a>(status: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    status[name].as_array().into_iter().flatten()
}

/// A group that is not as it should be among so many nodes.
fn unsettled(status: &Value, nodes: usize) -> Option<String> {
    let known = list(status, "nodes").count();
    if known != nodes {
        return Some(format!("{known} nodes are listed, {nodes} there are"));
    }
    let active = list(status, "nodes").filter(|node| node["status"] == "active").count() as u64;
    let wanted = status["replication"].as_u64().unwrap_or(3).min(active);
    let wanted = if wanted.is_multiple_of(2) { wanted.saturating_sub(1) } else { wanted };
    let ids = |replicas: &Value| -> BTreeSet<String> {
        replicas.as_array().into_iter().flatten().map(|r| r["replica"].to_string()).collect()
    };
    let wrong = list(status, "groups").filter(|group| group["shard"].is_u64()).find(|group| {
        let replicas = ids(&group["replicas"]);
        let here = !group["members"].is_null();
        let settled = ids(&group["members"]) == replicas && !group["leader"].is_null();
        (replicas.len() as u64) < wanted || (here && !settled)
    });
    wrong.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_without_its_members_is_not_at_rest() {
        let of = |members: &[u64]| {
            let replicas = |ids: &[u64]| ids.iter().map(|id| json!({"replica": id, "node": id})).collect::<Vec<_>>();
            json!({"replication": 3, "nodes": [{"status": "active"}, {"status": "active"}, {"status": "active"}],
                "groups": [{"shard": 0, "replicas": replicas(&[1, 2, 3]), "members": replicas(members), "leader": 1}]})
        };
        assert_eq!(unsettled(&of(&[1, 2, 3]), 3), None);
        assert!(unsettled(&of(&[1, 2]), 3).is_some());
        assert!(unsettled(&of(&[1, 2, 3]), 2).is_some());
    }
}
