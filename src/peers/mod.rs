//! The other nodes of the cluster: where they are, and a connection to each.
//!
//! *Invariants:* one connection per node and address, opened when it is first used and shared by everything. Every request
//! says which cluster and which node it is meant for, so that a node that was made anew at an old address refuses it.
//!
//! *Not here:* what is said (`raft`, `ingest`, `query`, `node`), answering (`api::grpc`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::error::{HasKind, Kind};
use crate::model::NodeId;
use crate::proto::v1::peer_client::PeerClient;

/// Metadata that names the cluster a request belongs to.
pub const CLUSTER: &str = "metrolith-cluster";
/// Metadata that names the sender.
pub const FROM: &str = "metrolith-from";
/// Metadata that names the receiver.
pub const TO: &str = "metrolith-to";

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection on which nothing comes back for this long (asked, then waited) is closed: a machine that is gone does not
/// say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));
/// Largest message: an entry of the log at its largest, and what goes with it.
pub const MESSAGE_BYTES: usize = 80 << 20;

/// Speaks to one node.
pub type Client = PeerClient<InterceptedService<Channel, Stamp>>;

/// Why a node could not be spoken to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// Nobody said where it is.
    #[error("node {0} has no address here yet")]
    Unknown(NodeId),
    /// Its address is none.
    #[error("address {address:?}: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not answer, or refuses.
    #[error("{node}: {status}")]
    Failed {
        /// Its id or address.
        node: String,
        /// What came back.
        status: Box<Status>,
    },
}

impl HasKind for PeerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown(_) | Self::Failed { .. } => Kind::Unavailable,
            Self::Address { .. } => Kind::Invalid,
        }
    }
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
}

/// The other nodes; clones share what they know.
#[derive(Clone, Default)]
pub struct Peers(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    me: Option<Identity>,
    addresses: HashMap<NodeId, String>,
    clients: HashMap<NodeId, Client>,
}

impl Peers {
    /// Says who this node is; what is sent from now on carries it.
    pub fn identify(&self, me: Identity) {
        let mut known = self.0.write();
        known.clients.clear();
        known.me = Some(me);
    }

    /// Who this node is, once that is known.
    pub fn me(&self) -> Option<Identity> {
        self.0.read().me.clone()
    }

    /// Says where all nodes are; connections to a node that moved are opened anew.
    pub fn set_addresses(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        let addresses: HashMap<NodeId, String> = addresses.into_iter().collect();
        let mut known = self.0.write();
        let Known { addresses: before, clients, .. } = &mut *known;
        clients.retain(|node, _| addresses.get(node) == before.get(node));
        *before = addresses;
    }

    /// Where a node is.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.0.read().addresses.get(&node).cloned()
    }

    /// Speaks to a node.
    pub fn client(&self, node: NodeId) -> Result<Client, PeerError> {
        if let Some(client) = self.0.read().clients.get(&node) {
            return Ok(client.clone());
        }
        let mut known = self.0.write();
        let address = known.addresses.get(&node).ok_or(PeerError::Unknown(node))?;
        let client = connect(address, Stamp::of(known.me.as_ref(), Some(node)))?;
        known.clients.insert(node, client.clone());
        Ok(client)
    }

    /// Speaks to whoever is at an address, to be let in.
    pub fn at(&self, address: &str) -> Result<Client, PeerError> {
        connect(address, Stamp::of(self.0.read().me.as_ref(), None))
    }

    /// Whether a request is meant for this node; the answer to it if not.
    pub fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(me) = self.me() else { return Err(Status::unavailable("this node is still starting")) };
        let said = |key| metadata.get(key).and_then(|v: &MetadataValue<Ascii>| v.to_str().ok());
        if said(CLUSTER) != Some(&me.cluster) {
            let of = said(CLUSTER).unwrap_or("none");
            return Err(Status::failed_precondition(format!("this node is of cluster {}, not of {of}", me.cluster)));
        }
        match said(TO) {
            Some(to) if to == me.node.0.to_string() => Ok(()),
            to => {
                let to = to.unwrap_or("none");
                Err(Status::failed_precondition(format!("this is node {}, not node {to}", me.node)))
            }
        }
    }
}

/// A failure of `node`.
pub fn failed(node: NodeId) -> impl FnOnce(Status) -> PeerError {
    move |status| PeerError::Failed { node: format!("node {node}"), status: Box::new(status) }
}

fn connect(address: &str, stamp: Stamp) -> Result<Client, PeerError> {
    let wrong = |e: &dyn std::fmt::Display| PeerError::Address { address: address.to_owned(), reason: e.to_string() };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| wrong(&e))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .tcp_nodelay(true);
    let client = PeerClient::with_interceptor(endpoint.connect_lazy(), stamp);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
}

/// Writes on every request who sends it and whom it is for.
#[derive(Clone, Default)]
pub struct Stamp(Vec<(&'static str, MetadataValue<Ascii>)>);

impl Stamp {
    fn of(me: Option<&Identity>, to: Option<NodeId>) -> Self {
        let cluster = me.and_then(|me| Some((CLUSTER, me.cluster.parse().ok()?)));
        let from = me.map(|me| (FROM, me.node.0.into()));
        let to = to.map(|to| (TO, to.0.into()));
        Self([cluster, from, to].into_iter().flatten().collect())
    }
}

impl tonic::service::Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (key, value) in &self.0 {
            request.metadata_mut().insert(*key, value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_another_node_or_cluster_is_refused() {
        let peers = Peers::default();
        assert_eq!(peers.check(&MetadataMap::new()).unwrap_err().code(), tonic::Code::Unavailable);
        let me = Identity { cluster: "a".into(), node: NodeId(7) };
        peers.identify(me.clone());
        let stamped = |cluster: &str, to: u64| {
            let from = Identity { cluster: cluster.into(), node: NodeId(1) };
            let stamped =
                tonic::service::Interceptor::call(&mut Stamp::of(Some(&from), Some(NodeId(to))), Request::new(()));
            stamped.unwrap().metadata().clone()
        };
        assert!(peers.check(&stamped("a", 7)).is_ok());
        for (cluster, to) in [("b", 7), ("a", 8)] {
            let refused = peers.check(&stamped(cluster, to)).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
        }
    }
}
