//! How a node becomes part of a cluster when it starts: makes one, joins one, or comes back.
//!
//! *Invariants:* the node's id is on its disk before any replica of it exists. A node that comes back needs nobody to begin:
//! what it knows is in its log.
//!
//! *Not here:* replicas of shards (`node::replicas`).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;

use super::founding::{self, Contacts};
use super::identity::Identity;
use super::joining;
use crate::config::Config;
use crate::env::{Clock, Rng, SystemRng};
use crate::meta::{self, Answer, ClusterId, Command, Init, Join, META, Views, rebuild};
use crate::model::NodeId;
use crate::peers::{self, Peers};
use crate::proto::v1::JoinRequest;
use crate::raft::{Bootstrap, Group, Host, ReplicaId};
use crate::store::Tables;

/// The node that makes a cluster.
const FIRST: NodeId = NodeId(1);
/// Directory of the log and the snapshots, in the data directory.
pub const LOG: &str = "raft";
/// How often a node that joins says that it is still waiting.
const STILL_WAITING: Duration = Duration::from_secs(5);

/// Where the other nodes reach this one, and its socket.
pub struct Door {
    /// The socket, bound.
    pub listener: TcpListener,
    /// What others are told.
    pub address: String,
}

impl Door {
    /// Binds the socket of gRPC.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.grpc).await;
        let listener = listener.with_context(|| format!("listen on {} (setting grpc)", config.grpc))?;
        let bound = listener.local_addr()?;
        let address = match config.grpc_advertise.as_str() {
            "" if bound.ip().is_unspecified() && !config.join.is_empty() => {
                return Err(anyhow!("setting grpc_advertise: other nodes cannot reach {bound}, say where they can"));
            }
            "" => bound.to_string(),
            told => told.to_owned(),
        };
        Ok(Self { listener, address })
    }

    /// The same socket once more, for a server that ends before this one is used.
    pub fn again(&self) -> std::io::Result<TcpListener> {
        TcpListener::from_std(self.listener.as_fd().try_clone_to_owned()?.into())
    }
}

/// Who this node is; asks the cluster it is told to join, if it is of none yet.
pub async fn identify(config: &Config, peers: &Peers, door: &Door) -> anyhow::Result<Option<Identity>> {
    let known = Identity::read(&config.data_dir)?;
    let contacts = Contacts::of(&config.join, &door.address);
    let asking = match known {
        Some(known) if known.is_member() => return Ok(Some(known)),
        Some(asking) => asking,
        None if contacts.is_empty() => return Ok(None),
        // A node that joins is told its id before it has a log: this one had begun to make its cluster.
        None if contacts.is_first() && config.data_dir.join(LOG).exists() => return Ok(None),
        None => {
            // Kept before it is said: should the answer be lost, the cluster recognises who asks again.
            let replica = ReplicaId(SystemRng.next_u64().max(1));
            let asking = Identity::new(String::new(), NodeId(0), replica, config.bucket.clone());
            asking.write(&config.data_dir)?;
            asking
        }
    };
    if contacts.is_empty() {
        return Err(anyhow!("this node has begun to join a cluster: say which (setting join)"));
    }
    let mut request = request(config, &door.address);
    request.meta_replica = asking.meta_replica()?.0;
    request.join.clone_from(&contacts.all);
    let joined = match contacts.is_first() {
        true => founding::join_or_found(peers, door, &contacts, &request).await?,
        false => Some(joining::join(peers, &contacts.others, &request).await?),
    };
    let Some(joined) = joined else {
        Identity::forget(&config.data_dir)?;
        return Ok(None);
    };
    joined.identity.write(&config.data_dir)?;
    peers.set_addresses(joined.nodes);
    tracing::info!(node = joined.identity.node, cluster = joined.identity.cluster, "joined a cluster");
    Ok(Some(joined.identity))
}

fn request(config: &Config, address: &str) -> JoinRequest {
    JoinRequest {
        name: config.node_name.clone(),
        zone: config.zone.clone(),
        grpc_address: address.to_owned(),
        http_address: config.http.to_string(),
        bucket: config.bucket.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..JoinRequest::default()
    }
}

/// The node's id before its log is opened.
pub fn node_of(identity: Option<&Identity>) -> NodeId {
    identity.map_or(FIRST, Identity::node)
}

/// Starts the replica of meta.
pub async fn start_meta(host: &Host, identity: Option<&Identity>) -> anyhow::Result<(Group, Views)> {
    let (machine, views) = meta::Machine::new();
    let bootstrap = match identity {
        None => Bootstrap::SingleVoter,
        Some(_) if host.stored_replica(META).is_some() => Bootstrap::Resume,
        Some(me) => Bootstrap::Joining { replica: me.meta_replica()? },
    };
    let group = host.start_group(META, Box::new(machine), bootstrap).await.context("start meta")?;
    Ok((group, views))
}

/// Makes a one-node cluster over whatever tables the bucket has, unless there is one.
pub async fn make_cluster(
    config: &Config,
    door: &Door,
    meta: &Group,
    views: &Views,
    tables: &Tables,
) -> anyhow::Result<()> {
    if views.current().cluster.is_some() {
        return Ok(());
    }
    let restored = rebuild::restore(tables).await.context("look for tables in the bucket")?;
    let found = restored.tables.len();
    let node = meta::Node {
        id: FIRST,
        name: config.node_name.clone(),
        zone: config.zone.clone(),
        grpc: door.address.clone(),
        http: config.http.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        meta_replica: Some(meta.replica()),
        ..meta::Node::default()
    };
    let init = Init {
        cluster: ClusterId(uuid::Uuid::new_v4()),
        node,
        bucket: config.bucket.clone(),
        replication: config.replication,
        shards: config.shards,
        shard_replicas: (0..config.shards).map(|_| ReplicaId(SystemRng.next_u64().max(1))).collect(),
        epoch: restored.epoch,
        tables: restored.tables,
    };
    let applied = meta.propose(Command::Init(init).encode()).await.context("make the cluster")?;
    match Answer::decode(&applied.reply)? {
        Answer::Refused(refusal) => Err(anyhow!("make the cluster: {refusal}")),
        _ => {
            tracing::info!(shards = config.shards, tables = found, "made a one-node cluster");
            Ok(())
        }
    }
}

/// What a node that made its cluster, or made it in an earlier release, keeps of itself.
pub fn remember(config: &Config, meta: &Group, views: &Views) -> anyhow::Result<Identity> {
    let state = views.current();
    let cluster = state.cluster.context("BUG: a cluster without an id")?.to_string();
    let bucket = if state.bucket.is_empty() { config.bucket.clone() } else { state.bucket.clone() };
    let me = Identity::new(cluster, FIRST, meta.replica(), bucket);
    me.write(&config.data_dir)?;
    Ok(me)
}

/// Says to peers who this node is.
pub fn introduce(peers: &Peers, me: &Identity) {
    peers.identify(peers::Identity { cluster: me.cluster.clone(), node: me.node() });
}

/// Waits until meta has told this node of itself.
pub async fn enter(meta: &meta::Client, me: &Identity, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
    let mut views = meta.views.clone();
    let mut said = clock.monotonic();
    while !views.current().nodes.contains_key(&me.node()) {
        if clock.monotonic().saturating_sub(said) >= STILL_WAITING {
            said = clock.monotonic();
            tracing::info!("waiting for the cluster's leader to send what it knows");
        }
        if let Ok(None) = tokio::time::timeout(STILL_WAITING, views.changed()).await {
            return Err(anyhow!("meta stopped"));
        }
    }
    Ok(())
}

/// Tells the cluster where this node is and which release it runs, until it has taken note.
pub async fn announce(config: Arc<Config>, address: String, meta: meta::Client, me: Identity) {
    let mut views = meta.views.clone();
    loop {
        let state = views.current();
        let version = env!("CARGO_PKG_VERSION");
        let http = config.http.to_string();
        let known = state.nodes.get(&me.node()).is_some_and(|node| {
            (node.grpc.as_str(), node.http.as_str(), node.version.as_str()) == (&address, &http, version)
                && (node.name.as_str(), node.zone.as_str()) == (&config.node_name, &config.zone)
        });
        if known {
            if views.changed().await.is_none() {
                return;
            }
            continue;
        }
        let join = Join {
            node: me.node(),
            cluster: state.cluster,
            name: config.node_name.clone(),
            zone: config.zone.clone(),
            grpc: address.clone(),
            http,
            version: version.to_owned(),
            meta_replica: me.meta_replica().ok(),
            bucket: String::new(),
        };
        match meta.propose(Command::Join(join)).await {
            Ok(Answer::Refused(refusal)) => {
                tracing::warn!(%refusal, "the cluster does not take note of this node's address")
            }
            Ok(_) => tracing::info!(address, "told the cluster where this node is"),
            Err(e) => tracing::debug!(error = %e, "could not tell the cluster where this node is"),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Keeps addresses of the other nodes as meta knows them.
pub async fn follow_addresses(peers: Peers, mut views: Views) {
    loop {
        let state = views.current();
        if !state.nodes.is_empty() {
            let known = state.nodes.values().filter(|node| !node.grpc.is_empty());
            peers.set_addresses(known.map(|node| (node.id, node.grpc.clone())));
        }
        if views.changed().await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_joins_says_where_it_can_be_reached() {
        let mut config = Config { grpc: "0.0.0.0:0".parse().unwrap(), ..Config::default() };
        assert!(Door::open(&config).await.unwrap().address.starts_with("0.0.0.0:"), "alone, nobody asks");
        config.join = "n0:9095".to_owned();
        let error = Door::open(&config).await.err().unwrap().to_string();
        assert!(error.starts_with("setting grpc_advertise: other nodes cannot reach 0.0.0.0:"), "{error}");
        config.grpc_advertise = "n1:9095".to_owned();
        assert_eq!(Door::open(&config).await.unwrap().address, "n1:9095");
    }
}
