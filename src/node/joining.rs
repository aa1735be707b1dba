//! Asks a cluster to be let in, or tells it where this node is now.
//!
//! *Invariants:* asking may be repeated: a node that has an id keeps it. A refusal is final; silence is waited for.
//!
//! *Not here:* letting others in (`api::grpc::join`), what meta makes of it (`meta::state`).

use std::time::Duration;

use anyhow::{anyhow, bail};
use tonic::Code;

use super::identity::Identity;
use crate::model::NodeId;
use crate::peers::Peers;
use crate::proto::v1::failure::Kind;
use crate::proto::v1::{JoinReply, JoinRequest};
use crate::raft::ReplicaId;

/// Waits between rounds over the given addresses: the first, doubled up to the last.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How long one answer may take: the cluster may be looking for a leader.
const ANSWER: Duration = Duration::from_secs(10);

/// What a cluster said to a node that joined.
pub struct Joined {
    /// Who the node is from now on.
    pub identity: Identity,
    /// Where the others are.
    pub nodes: Vec<(NodeId, String)>,
}

/// Asks one address after another, until one answers.
pub async fn join(peers: &Peers, addresses: &[String], request: &JoinRequest) -> anyhow::Result<Joined> {
    let mut wait = WAITS.0;
    loop {
        for address in addresses {
            match ask(peers, address, request).await? {
                Ok(reply) => return joined(reply),
                Err(silence) => tracing::info!(address, reason = silence, "cannot join yet"),
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAITS.1);
    }
}

/// Asks one address; the inner error is worth another try.
async fn ask(peers: &Peers, address: &str, request: &JoinRequest) -> anyhow::Result<Result<JoinReply, String>> {
    let mut client = peers.at(address).map_err(|e| anyhow!("setting join: {e}"))?;
    let answer = match tokio::time::timeout(ANSWER, client.join(request.clone())).await {
        Err(_) => return Ok(Err("no answer in time".to_owned())),
        Ok(Err(status)) if status.code() == Code::Unimplemented => bail!("join {address}: {}", status.message()),
        Ok(Err(status)) => return Ok(Err(status.message().to_owned())),
        Ok(Ok(reply)) => reply.into_inner(),
    };
    match &answer.failure {
        Some(failure) if failure.kind() == Kind::Invalid => bail!("join {address}: {}", failure.message),
        Some(failure) => Ok(Err(failure.message.clone())),
        None => Ok(Ok(answer)),
    }
}

fn joined(reply: JoinReply) -> anyhow::Result<Joined> {
    if reply.node == 0 || reply.cluster.is_empty() || reply.meta_replica == 0 {
        bail!("the cluster's answer lacks the node's id: is it of another release?");
    }
    let (node, replica) = (NodeId(reply.node), ReplicaId(reply.meta_replica));
    let nodes = reply.nodes.into_iter().map(|at| (NodeId(at.node), at.grpc)).collect();
    Ok(Joined { identity: Identity::new(reply.cluster, node, replica, reply.bucket), nodes })
}
