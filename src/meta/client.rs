//! Meta, from any node: proposes where it is led, reads what is applied here.
//!
//! *Invariants:* a proposal that is answered took effect and is applied at the leader; [`Views`] of this node may follow a
//! moment later, unless [`Client::barrier`] is waited for.
//!
//! *Not here:* what commands do (`state`), who leads (`raft`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::answer::Answer;
use super::cluster::Placement;
use super::command::Command;
use super::machine::Views;
use crate::env::Clock;
use crate::error::{Error, HasKind, Kind};
use crate::model::NodeId;
use crate::peers::Peers;
use crate::proto::v1::{PingRequest, ProposeRequest, ReadIndexRequest};
use crate::raft::{Group, GroupId, Members, RaftError, ReplicaId};

/// How long a proposal waits for a leader, how often it asks again, and how long for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_secs(10);

/// How long a node may take to give a sign of life.
const SIGN: Duration = Duration::from_millis(500);

/// How long a leader may take to say who its members are.
const SAY: Duration = Duration::from_secs(2);

/// A way to meta; clones share it.
#[derive(Clone)]
pub struct Client {
    /// This node's replica.
    pub group: Group,
    /// What it has applied.
    pub views: Views,
    /// Ways to the others.
    pub peers: Peers,
    /// For how long to try.
    pub clock: Arc<dyn Clock>,
}

impl Client {
    /// Proposes a command and gives meta's answer.
    pub async fn propose(&self, command: Command) -> Result<Answer, Error> {
        let reply = self.propose_entry(command.encode()).await.map_err(|e| Error::new(e.kind(), e.to_string()))?;
        Answer::decode(&reply).map_err(|e| Error::new(Kind::Internal, format!("read meta's answer: {e}")))
    }

    /// Proposes an encoded command and gives the encoded answer. While meta has no leader that takes a moment.
    pub async fn propose_entry(&self, entry: Bytes) -> Result<Bytes, RaftError> {
        let deadline = self.clock.monotonic() + PATIENCE;
        loop {
            let refused = match self.propose_once(&entry).await {
                Err(e @ (RaftError::NotLeader { .. } | RaftError::Unavailable { .. })) => e,
                outcome => return outcome,
            };
            if self.clock.monotonic() >= deadline {
                return Err(refused);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn propose_once(&self, entry: &Bytes) -> Result<Bytes, RaftError> {
        let (group, leader) = match self.group.propose(entry.clone()).await {
            Err(RaftError::NotLeader { group, leader }) => (group, leader),
            outcome => return outcome.map(|applied| applied.reply),
        };
        let Some((replica, peer)) = leader.filter(|(replica, _)| *replica != self.group.replica()) else {
            return Err(RaftError::NotLeader { group, leader });
        };
        let unreachable = |e: &dyn std::fmt::Display| RaftError::Unavailable {
            group,
            reason: format!("ask its leader, replica {replica}: {e}"),
        };
        let mut client = self.peers.client(peer.node).map_err(|e| unreachable(&e))?;
        let asked = client.propose(ProposeRequest { group: group.0, entry: entry.clone() });
        // What was sent may take effect, whether or not an answer comes back.
        let answered = tokio::time::timeout(ANSWER, asked).await.map_err(|_| RaftError::Unknown { group })?;
        let reply = answered.map_err(|status| unreachable(&status.message()))?.into_inner();
        match reply.failure {
            Some(failure) => Err(RaftError::from_failure(group, failure)),
            None => Ok(reply.reply),
        }
    }

    /// Who is in a group, as its leader says; `None` while it has none that answers.
    pub async fn members_of(&self, group: GroupId, placement: &Placement) -> Option<Members> {
        let mut ask: Vec<NodeId> = placement.voting_nodes().into_iter().collect();
        let mut asked = BTreeSet::new();
        while let Some(node) = ask.pop() {
            let Some(mut client) = self.peers.client(node).ok().filter(|_| asked.insert(node)) else { continue };
            let answer = client.read_index(ReadIndexRequest { group: group.0, want_members: true, replica: 0 });
            let Ok(Ok(reply)) = tokio::time::timeout(SAY, answer).await else { continue };
            let reply = reply.into_inner();
            match reply.failure {
                // It may be led by a replica that is to go.
                Some(failure) if failure.leader_node != 0 => ask.push(NodeId(failure.leader_node)),
                Some(_) => {}
                None => {
                    let mut members = Members::default();
                    for m in reply.members {
                        let side = if m.votes { &mut members.voters } else { &mut members.learners };
                        side.insert(ReplicaId(m.replica), NodeId(m.node));
                    }
                    return Some(members);
                }
            }
        }
        None
    }

    /// The nodes that give a sign of life now, this one among them.
    pub async fn answering(&self) -> BTreeSet<NodeId> {
        let me = self.peers.me().map(|me| me.node);
        let nodes: Vec<NodeId> = self.views.current().nodes.keys().copied().collect();
        let asked = nodes.into_iter().map(|node| async move {
            if Some(node) == me {
                return Some(node);
            }
            let mut client = self.peers.client(node).ok()?;
            let answered = tokio::time::timeout(SIGN, client.ping(PingRequest {})).await;
            matches!(answered, Ok(Ok(_))).then_some(node)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Waits until everything meta answered before now is in the views of this node.
    pub async fn barrier(&self) -> Result<u64, RaftError> {
        self.group.read_index().await
    }
}
