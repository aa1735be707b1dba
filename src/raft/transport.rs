//! How replicas of a group reach each other: within one process.
//!
//! *Invariants:* a message to a replica that is cut off, stopped or unknown is answered `Unreachable`, never granted.
//!
//! *Not here:* gRPC between processes; it implements the same openraft trait over a wire format of our own.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use parking_lot::Mutex;

use super::machine::{Machine, Snapshot};
use super::snapshot::SnapshotFile;
use super::types::{GroupId, Peer, ReplicaId, TypeConfig, Vote};

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// Delivers messages between the replicas of one process, with switches to cut them off.
#[derive(Default)]
pub struct Router {
    state: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    replicas: HashMap<(GroupId, u64), Raft>,
    cut: HashSet<(u64, u64)>,
}

impl Router {
    pub(crate) fn register(&self, group: GroupId, replica: u64, raft: Raft) {
        self.state.lock().replicas.insert((group, replica), raft);
    }

    pub(crate) fn unregister(&self, group: GroupId, replica: u64) {
        self.state.lock().replicas.remove(&(group, replica));
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

    fn route(&self, link: &Link) -> Result<Raft, Unreachable<TypeConfig>> {
        let state = self.state.lock();
        let open = !state.cut.contains(&(link.from, link.to));
        let found = state.replicas.get(&(link.group, link.to)).filter(|_| open).cloned();
        found.ok_or_else(|| link.unreachable("no way to it"))
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
    group: GroupId,
    from: u64,
    to: u64,
}

impl Link {
    fn unreachable(&self, why: &str) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!("replica {} of group {}: {why}", ReplicaId(self.to), self.group))
    }

    /// Calls the other side; its answer is lost if the way was cut meanwhile.
    async fn call<T, E, Fut>(&self, ask: impl FnOnce(Raft) -> Fut) -> Result<T, Unreachable<TypeConfig>>
    where
        Fut: Future<Output = Result<T, E>>,
        E: std::fmt::Display,
    {
        let answer = ask(self.router.route(self)?).await;
        if self.router.is_cut(self.to, self.from) {
            return Err(self.unreachable("answer was lost"));
        }
        answer.map_err(|e| self.unreachable(&e.to_string()))
    }
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &Peer) -> Link {
        Link { router: self.router.clone(), group: self.group, from: self.from, to: target }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(async |raft| raft.append_entries(rpc).await).await?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(async |raft| raft.vote(rpc).await).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(async |raft| raft.pre_vote(rpc).await).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Ok(self.call(async |raft| raft.install_full_snapshot(vote, snapshot).await).await?)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(async |raft| raft.handle_transfer_leader(req).await).await?)
    }
}
