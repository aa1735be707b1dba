//! What other nodes ask of this one.
//!
//! *Invariants:* a request that is meant for another node or cluster is refused before it is looked at. What the node
//! cannot do yet, because it is still starting, is refused as unavailable.
//!
//! *Not here:* asking (`raft`, `ingest`, `query`), connections (`peers`).

mod append;
mod group;
mod head;
mod join;
mod waiting;

use std::sync::{Arc, OnceLock};

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::ingest::Ingest;
use crate::meta;
use crate::peers::Peers;
use crate::proto::v1::peer_server::{self, PeerServer};
use crate::proto::v1::{
    AppendReply, AppendRequest, EvaluatePiece, EvaluateRequest, HeadPiece, JoinReply, JoinRequest, PingReply,
    PingRequest, ProposeReply, ProposeRequest, RaftMessage, ReadHeadRequest, ReadIndexReply, ReadIndexRequest,
    SnapshotPiece,
};
use crate::query::{HeadServer, Queries};
use crate::raft::Host;
pub use waiting::Waiting;

/// What can be asked once the node has it.
pub struct Roles {
    /// The write path.
    pub ingest: Arc<Ingest>,
    /// What the heads of this node hold.
    pub heads: HeadServer,
    /// The read path.
    pub queries: Arc<Queries>,
}

/// Answers other nodes.
pub struct Service {
    /// Who this node is.
    pub peers: Peers,
    /// Its groups.
    pub host: Host,
    /// The way to meta.
    pub meta: meta::Client,
    /// Its roles, once they are built.
    pub roles: Arc<OnceLock<Roles>>,
}

impl Service {
    /// As a service of a server.
    pub fn server(self) -> PeerServer<Self> {
        let bytes = crate::peers::MESSAGE_BYTES;
        PeerServer::new(self).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
    }

    fn roles(&self) -> Result<&Roles, Status> {
        self.roles.get().ok_or_else(|| Status::unavailable("this node is still starting"))
    }
}

#[tonic::async_trait]
impl peer_server::Peer for Service {
    type ReadHeadStream = BoxStream<'static, Result<HeadPiece, Status>>;
    type EvaluateStream = BoxStream<'static, Result<EvaluatePiece, Status>>;

    async fn raft(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.peers.check(request.metadata())?;
        group::raft(&self.host, request.into_inner()).await.map(Response::new)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.peers.check(request.metadata())?;
        group::install_snapshot(&self.host, request.into_inner()).await.map(Response::new)
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        self.peers.check(request.metadata())?;
        Ok(Response::new(group::propose(&self.host, request.into_inner()).await))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        self.peers.check(request.metadata())?;
        Ok(Response::new(group::read_index(&self.host, request.into_inner()).await))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendReply>, Status> {
        self.peers.check(request.metadata())?;
        Ok(Response::new(append::append(&self.roles()?.ingest, request.into_inner()).await))
    }

    async fn read_head(&self, request: Request<ReadHeadRequest>) -> Result<Response<Self::ReadHeadStream>, Status> {
        self.peers.check(request.metadata())?;
        Ok(Response::new(head::read(&self.roles()?.heads, request.into_inner())))
    }

    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Result<Response<Self::EvaluateStream>, Status> {
        self.peers.check(request.metadata())?;
        Ok(Response::new(head::evaluate(&self.roles()?.queries, request.into_inner())))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingReply>, Status> {
        self.peers.check(request.metadata())?;
        Ok(Response::new(PingReply {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        Ok(Response::new(join::join(&self.meta, request.into_inner()).await))
    }
}
