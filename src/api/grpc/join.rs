//! Lets a node into the cluster, or hears where one is now.
//!
//! *Invariants:* a node is told its id only when meta has decided it; asking again with the same id gives the same answer.
//!
//! *Not here:* who is let in (`meta::state`), asking (`node::joining`).

use crate::error::{HasKind, Kind};
use crate::meta::{self, Answer, ClusterId, Command, Join, State};
use crate::model::NodeId;
use crate::proto::v1::failure::Kind as Wire;
use crate::proto::v1::{Address, Failure, JoinReply, JoinRequest};
use crate::raft::ReplicaId;

/// Proposes the node to meta.
pub async fn join(meta: &meta::Client, request: JoinRequest) -> JoinReply {
    let cluster = match request.cluster.as_str() {
        "" => None,
        id => match uuid::Uuid::parse_str(id) {
            Ok(id) => Some(ClusterId(id)),
            Err(_) => return refuse(Wire::Invalid, format!("cluster id {id:?} is none")),
        },
    };
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

fn refuse(kind: Wire, message: String) -> JoinReply {
    let failure = Failure { kind: kind.into(), message, leader_replica: 0, leader_node: 0 };
    JoinReply { failure: Some(failure), ..JoinReply::default() }
}
