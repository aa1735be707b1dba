//! What a node answers that is of no cluster yet: it hears who else asks to be let in, and can do nothing else.
//!
//! *Not here:* what is made of those who ask (`node::founding`).

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::join::refuse;
use crate::proto::v1::failure::Kind;
use crate::proto::v1::peer_server::{self, PeerServer};
use crate::proto::v1::{
    AppendReply, AppendRequest, EvaluatePiece, EvaluateRequest, HeadPiece, JoinReply, JoinRequest, PingReply,
    PingRequest, ProposeReply, ProposeRequest, RaftMessage, ReadHeadRequest, ReadIndexReply, ReadIndexRequest,
    SnapshotPiece,
};

/// Answers those who ask to be let in; `F` is told of each and says why it has to ask again.
pub struct Waiting<F>(F);

impl<F: Fn(&JoinRequest) -> String + Send + Sync + 'static> Waiting<F> {
    /// Tells `heard` of every node that asks.
    pub fn new(heard: F) -> Self {
        Self(heard)
    }

    /// As a service of a server.
    pub fn server(self) -> PeerServer<Self> {
        PeerServer::new(self)
    }
}

fn not_yet<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("this node is of no cluster yet"))
}

#[tonic::async_trait]
impl<F: Fn(&JoinRequest) -> String + Send + Sync + 'static> peer_server::Peer for Waiting<F> {
    type ReadHeadStream = BoxStream<'static, Result<HeadPiece, Status>>;
    type EvaluateStream = BoxStream<'static, Result<EvaluatePiece, Status>>;

    async fn raft(&self, _: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        not_yet()
    }

    async fn install_snapshot(&self, _: Request<Streaming<SnapshotPiece>>) -> Result<Response<RaftMessage>, Status> {
        not_yet()
    }

    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        not_yet()
    }

    async fn read_index(&self, _: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        not_yet()
    }

    async fn append(&self, _: Request<AppendRequest>) -> Result<Response<AppendReply>, Status> {
        not_yet()
    }

    async fn read_head(&self, _: Request<ReadHeadRequest>) -> Result<Response<Self::ReadHeadStream>, Status> {
        not_yet()
    }

    async fn evaluate(&self, _: Request<EvaluateRequest>) -> Result<Response<Self::EvaluateStream>, Status> {
        not_yet()
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingReply>, Status> {
        not_yet()
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        Ok(Response::new(refuse(Kind::Unavailable, (self.0)(request.get_ref()))))
    }
}
