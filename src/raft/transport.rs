//! How replicas of a group reach each other: within the process where the other is here too, over gRPC where it is not.
//!
//! *Invariants:* a message to a replica that is cut off, stopped or unknown is answered `Unreachable`, never granted.
//!
//! *Not here:* the messages' bytes (`wire`), connections (`peers`), answering other nodes (`delivery`).

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use parking_lot::Mutex;

use super::delivery::answer;
use super::error::RaftError;
use super::machine::{Machine, Snapshot};
use super::sending::send_snapshot;
use super::snapshot::SnapshotFile;
use super::types::{GroupId, Peer, ReplicaId, TypeConfig, Vote};
use super::wire::{Question, Reply};
use crate::model::NodeId;
use crate::peers::Peers;
use crate::proto::v1::RaftMessage;

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// How long to leave a replica alone that was not reached.
const BACKOFF: Duration = Duration::from_millis(200);

/// What carries messages to other nodes where it is not gRPC: the network of a simulation. Whoever implements it delivers
/// to the other node's [`Host`](super::Host), as the server does. A message that is lost is never answered.
pub trait Ways: Send + Sync + 'static {
    /// A message for a replica, and its answer or why there is none.
    fn message(&self, to: NodeId, message: RaftMessage) -> BoxFuture<'static, Result<RaftMessage, String>>;
    /// A snapshot for a replica.
    fn snapshot(&self, to: NodeId, head: RaftMessage, body: Bytes) -> BoxFuture<'static, Result<RaftMessage, String>>;
    /// The question for a read index of a leader.
    fn read_index(&self, to: NodeId, group: GroupId) -> BoxFuture<'static, Result<u64, RaftError>>;
}

/// How other nodes are reached.
#[derive(Clone)]
pub(crate) enum Others {
    Peers(Peers),
    Ways(Arc<dyn Ways>),
}

/// Delivers messages between replicas, with switches to cut off those of this process.
#[derive(Default)]
pub struct Router {
    others: Option<Others>,
    state: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    replicas: HashMap<(GroupId, u64), Raft>,
    cut: HashSet<(u64, u64)>,
}

/// Where a replica is.
enum Place {
    Here(Raft),
    There(NodeId, Others),
}

impl Router {
    /// A router that reaches the replicas of other nodes through `peers`.
    pub fn over(peers: Peers) -> Self {
        Self { others: Some(Others::Peers(peers)), ..Self::default() }
    }

    /// A router that reaches the replicas of other nodes through `ways`.
    pub fn through(ways: Arc<dyn Ways>) -> Self {
        Self { others: Some(Others::Ways(ways)), ..Self::default() }
    }

    /// The other nodes, if there can be any.
    pub(crate) fn others(&self) -> Option<&Others> {
        self.others.as_ref()
    }

    pub(crate) fn register(&self, group: GroupId, replica: u64, raft: Raft) {
        self.state.lock().replicas.insert((group, replica), raft);
    }

    pub(crate) fn unregister(&self, group: GroupId, replica: u64) {
        self.state.lock().replicas.remove(&(group, replica));
    }

    /// A replica of this process.
    pub(crate) fn replica(&self, group: GroupId, replica: u64) -> Option<Raft> {
        self.state.lock().replicas.get(&(group, replica)).cloned()
    }

    /// Drops every message between `a` and `b` until [`Router::heal`].
    pub fn cut(&self, a: ReplicaId, b: ReplicaId) {
        let mut state = self.state.lock();
        state.cut.insert((a.0, b.0));
        state.cut.insert((b.0, a.0));
    }

    /// Delivers everything again.
    pub fn heal(&self) {
        self.state.lock().cut.clear();
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.state.lock().cut.contains(&(from, to))
    }

    fn place(&self, link: &Link) -> Result<Place, Unreachable<TypeConfig>> {
        let state = self.state.lock();
        if state.cut.contains(&(link.from, link.to)) {
            return Err(link.unreachable("no way to it"));
        }
        if let Some(raft) = state.replicas.get(&(link.group, link.to)) {
            return Ok(Place::Here(raft.clone()));
        }
        match &self.others {
            Some(others) if others.may_have(link.node) => Ok(Place::There(link.node, others.clone())),
            _ => Err(link.unreachable("it is not started")),
        }
    }
}

impl Others {
    fn may_have(&self, node: NodeId) -> bool {
        match self {
            Self::Peers(peers) => peers.me().is_none_or(|me| me.node != node),
            Self::Ways(_) => true,
        }
    }
}

/// Makes links from one replica to others.
pub(crate) struct Links {
    pub(crate) router: Arc<Router>,
    pub(crate) group: GroupId,
    pub(crate) from: u64,
}

/// The way from one replica to another.
pub(crate) struct Link {
    router: Arc<Router>,
    pub(crate) group: GroupId,
    from: u64,
    pub(crate) to: u64,
    node: NodeId,
}

impl Link {
    pub(crate) fn unreachable(&self, why: &str) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!("replica {} of group {}: {why}", ReplicaId(self.to), self.group))
    }

    /// Asks the other side; its answer is lost if the way was cut meanwhile.
    async fn ask(&self, question: Question, option: &RPCOption) -> Result<Reply, Unreachable<TypeConfig>> {
        let answered = async {
            match self.router.place(self)? {
                Place::Here(raft) => answer(&raft, question).await.map_err(|e| self.unreachable(&e.to_string())),
                Place::There(node, others) => self.send(node, &others, question).await,
            }
        };
        // Nobody waits for an answer that comes later than this.
        let answered = tokio::time::timeout(option.hard_ttl(), answered).await;
        let reply = answered.map_err(|_| self.unreachable("no answer in time"))??;
        if self.router.is_cut(self.to, self.from) {
            return Err(self.unreachable("answer was lost"));
        }
        Ok(reply)
    }

    async fn send(&self, node: NodeId, others: &Others, question: Question) -> Result<Reply, Unreachable<TypeConfig>> {
        let message = RaftMessage { group: self.group.0, to: self.to, body: question.encode() };
        let reply = match others {
            Others::Peers(peers) => {
                let mut client = peers.client(node).map_err(|e| self.unreachable(&e.to_string()))?;
                client.raft(message).await.map_err(|status| self.unreachable(status.message()))?.into_inner()
            }
            Others::Ways(ways) => ways.message(node, message).await.map_err(|why| self.unreachable(&why))?,
        };
        Reply::decode(&reply.body).ok_or_else(|| self.unreachable("its answer cannot be read"))
    }

    fn wrong(&self) -> Unreachable<TypeConfig> {
        self.unreachable("it answered something else")
    }

    async fn ask_vote(
        &self,
        question: Question,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(question, option).await? {
            Reply::Vote(reply) => Ok(reply),
            _ => Err(self.wrong().into()),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Link {
        Link { router: self.router.clone(), group: self.group, from: self.from, to: target, node: peer.node }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Question::Append(rpc), &option).await? {
            Reply::Append(reply) => Ok(reply),
            _ => Err(self.wrong().into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Question::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Question::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sent = async {
            match self.router.place(self)? {
                Place::Here(raft) => {
                    raft.install_full_snapshot(vote, snapshot).await.map_err(|e| self.unreachable(&e.to_string()))
                }
                Place::There(node, others) => send_snapshot(self, node, &others, vote, snapshot).await,
            }
        };
        tokio::select! {
            biased;
            sent = sent => Ok(sent?),
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Question::Transfer(req), &option).await? {
            Reply::Transfer(Ok(())) => Ok(Ok(())),
            Reply::Transfer(Err(why)) => Err(self.unreachable(&why).into()),
            _ => Err(self.wrong().into()),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}
