//! Several real nodes that make a cluster.
//!
//! *Invariants:* the first node makes the cluster, every other one joins it; all share one bucket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::http::Api;
use super::node::{Node, Setup};
use super::until;

/// How long a cluster may take to come to rest; debug builds on a busy machine.
const SETTLE: Duration = Duration::from_secs(120);

/// A cluster and the nodes it has had, by number from 0.
pub struct Cluster {
    dir: PathBuf,
    flags: Vec<(String, String)>,
    setups: Vec<Setup>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    /// A cluster of `n` nodes, at rest.
    pub async fn start(dir: &Path, n: usize, flags: &[(&str, &str)]) -> Self {
        let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut this = Self { dir: dir.to_owned(), flags, setups: Vec::new(), nodes: Vec::new() };
        for _ in 0..n {
            this.add().await;
        }
        this.at_rest().await;
        this
    }

    /// Adds a node; its number.
    pub async fn add(&mut self) -> usize {
        let n = self.setups.len();
        let dir = self.dir.join(format!("n{n}"));
        std::fs::create_dir_all(&dir).unwrap();
        let bucket = format!("file://{}", self.dir.join("bucket").display());
        let mut setup = Setup::new(&dir).flag("node-name", &format!("n{n}")).flag("bucket", &bucket);
        for (name, value) in &self.flags {
            setup = setup.flag(name, value);
        }
        if n > 0 {
            let others: Vec<String> = self.setups.iter().map(Setup::grpc).collect();
            setup = setup.flag("join", &others.join(","));
        }
        self.nodes.push(Some(setup.start().await));
        self.setups.push(setup);
        n
    }

    /// A running node.
    pub fn node(&mut self, n: usize) -> &mut Node {
        self.nodes[n].as_mut().unwrap()
    }

    /// Numbers of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].is_some()).collect()
    }

    /// Where all nodes answer, whether they run or not.
    pub fn apis(&self) -> Vec<Api> {
        self.setups.iter().map(Setup::api).collect()
    }

    /// Ends a node at once.
    pub fn kill9(&mut self, n: usize) {
        self.nodes[n].take().unwrap().program.kill9();
    }

    /// Ends a node in order.
    pub async fn stop(&mut self, n: usize) {
        self.nodes[n].take().unwrap().stop().await;
    }

    /// Starts a node that ended, with what it has on its disk.
    pub async fn start_again(&mut self, n: usize) {
        self.nodes[n] = Some(self.setups[n].start().await);
    }

    /// Starts nodes that ended, at the same time.
    pub async fn start_all_again(&mut self, which: &[usize]) {
        let started = futures::future::join_all(which.iter().map(|n| self.setups[*n].start())).await;
        for (n, node) in which.iter().zip(started) {
            self.nodes[*n] = Some(node);
        }
    }

    /// Ends all nodes in order.
    pub async fn stop_all(mut self) {
        let ended = self.nodes.iter_mut().filter_map(Option::take).map(Node::stop);
        futures::future::join_all(ended).await;
    }

    /// What a running node says of the cluster.
    pub async fn status(&self) -> Option<Value> {
        let first = self.nodes.iter().flatten().next()?;
        let (status, text) = first.api.get("/api/v1/cluster").await.ok()?;
        (status == 200).then(|| serde_json::from_str::<Value>(&text).unwrap()["data"].take())
    }

    /// Waits until every group has the members it should have, and as many as there can be.
    pub async fn at_rest(&self) {
        let why = std::sync::Mutex::new(String::new());
        let rested = until_or("the cluster to come to rest", SETTLE, || async {
            let status = self.status().await?;
            match restless(&status, self.running().len()) {
                None => Some(()),
                Some(group) => {
                    *why.lock().unwrap() = group;
                    None
                }
            }
        });
        if rested.await.is_none() {
            panic!("the cluster does not come to rest: {}", why.lock().unwrap());
        }
    }
}

async fn until_or<F: Future<Output = Option<()>>>(
    what: &str,
    patience: Duration,
    ask: impl FnMut() -> F,
) -> Option<()> {
    tokio::time::timeout(patience, until(what, patience * 2, ask)).await.ok()
}

/// A group that is not as it should be.
fn restless(status: &Value, running: usize) -> Option<String> {
    let wanted = status["replication"].as_u64()?.min(running as u64);
    let wanted = if wanted % 2 == 0 { wanted - 1 } else { wanted };
    let groups = status["groups"].as_array()?;
    let nodes = |list: &Value| -> Vec<u64> {
        let mut nodes: Vec<u64> = list.as_array().into_iter().flatten().filter_map(|r| r["node"].as_u64()).collect();
        nodes.sort_unstable();
        nodes
    };
    let wrong = groups.iter().find(|group| {
        let replicas = nodes(&group["replicas"]);
        let known = !group["members"].is_null();
        let settled = nodes(&group["members"]) == replicas && !group["leader"].is_null();
        group["shard"].is_u64() && ((replicas.len() as u64) < wanted || (known && !settled))
    });
    wrong.map(ToString::to_string)
}
