//! Lets a node into the cluster, or hears where one is now.
//!
//! *Invariants:* a node is told its id only when meta has decided it; asking again with the same id gives the same answer.
//! Nobody takes the place of a node that answers.
//!
//! *Not here:* who is let in (`meta::state`), asking (`node::joining`).

use std::time::Duration;

use crate::error::{HasKind, Kind};
use crate::meta::{self, Answer, ClusterId, Command, Join, State};
use crate::model::NodeId;
use crate::proto::v1::failure::Kind as Wire;
use crate::proto::v1::{Address, Failure, JoinReply, JoinRequest, PingRequest};
use crate::raft::ReplicaId;

/// How long a node may take to say that it is there.
const THERE: Duration = Duration::from_secs(2);

/// Proposes the node to meta.
pub async fn join(meta: &meta::Client, request: JoinRequest) -> JoinReply {
    let cluster = match request.cluster.as_str() {
        "" => None,
        id => match uuid::Uuid::parse_str(id) {
            Ok(id) => Some(ClusterId(id)),
            Err(_) => return refuse(Wire::Invalid, format!("cluster id {id:?} is none")),
        },
    };
    if let Some(node) = still_there(meta, &request).await {
        let (name, at) = (&request.name, &request.grpc_address);
        let text = format!("node {node} named {name:?} runs at {at}: two nodes were given one name and address");
        return refuse(Wire::Invalid, text);
    }
    let join = Join {
        node: NodeId(request.node),
        cluster,
        name: request.name,
        zone: request.zone,
        grpc: request.grpc_address,
        http: request.http_address,
        version: request.version,
        meta_replica: (request.meta_replica != 0).then_some(ReplicaId(request.meta_replica)),
        bucket: request.bucket,
    };
    match meta.propose(Command::Join(join)).await {
        Ok(Answer::Joined { node, meta_replica }) => {
            // What was decided is in the views of the leader, not yet in those of whoever asked it.
            let state = match meta.barrier().await {
                Ok(_) => meta.views.current(),
                Err(e) => return refuse(Wire::Unavailable, e.to_string()),
            };
            admitted(&state, node, meta_replica)
        }
        Ok(Answer::Refused(refusal)) if refusal.kind() == Kind::Invalid => refuse(Wire::Invalid, refusal.to_string()),
        Ok(Answer::Refused(refusal)) => refuse(Wire::Unavailable, refusal.to_string()),
        Ok(_) => refuse(Wire::Internal, "meta answered something else".to_owned()),
        Err(e) => refuse(Wire::Unavailable, e.to_string()),
    }
}

/// The node whose name and address a new one has, if it answers: then it has not lost its disk.
async fn still_there(meta: &meta::Client, request: &JoinRequest) -> Option<NodeId> {
    let state = meta.views.current();
    let replica = Some(ReplicaId(request.meta_replica));
    let mut known = state.nodes.values();
    let same = known.find(|node| node.name == request.name && node.grpc == request.grpc_address)?;
    if request.node != 0 || same.meta_replica == replica {
        return None;
    }
    let mut client = meta.peers.client(same.id).ok()?;
    let answer = tokio::time::timeout(THERE, client.ping(PingRequest {})).await;
    // One that was made anew at the address refuses what is meant for another node.
    matches!(answer, Ok(Ok(_))).then_some(same.id)
}

fn admitted(state: &State, node: NodeId, meta_replica: ReplicaId) -> JoinReply {
    let others = state.nodes.values().filter(|other| other.id != node && !other.grpc.is_empty());
    JoinReply {
        cluster: state.cluster.map(|id| id.to_string()).unwrap_or_default(),
        node: node.0,
        meta_replica: meta_replica.0,
        bucket: state.bucket.clone(),
        nodes: others.map(|other| Address { node: other.id.0, grpc: other.grpc.clone() }).collect(),
        failure: None,
    }
}

pub(super) fn refuse(kind: Wire, message: String) -> JoinReply {
    let failure = Failure { kind: kind.into(), message, leader_replica: 0, leader_node: 0 };
    JoinReply { failure: Some(failure), ..JoinReply::default() }
}
