//! Messages for the Raft groups of this node.

use tonic::{Status, Streaming};

use crate::proto::v1::{ProposeReply, ProposeRequest, RaftMessage, ReadIndexReply, ReadIndexRequest, SnapshotPiece};
use crate::raft::Host;

pub async fn raft(_host: &Host, _message: RaftMessage) -> Result<RaftMessage, Status> {
    Err(Status::unimplemented("raft"))
}

pub async fn install_snapshot(_host: &Host, _pieces: Streaming<SnapshotPiece>) -> Result<RaftMessage, Status> {
    Err(Status::unimplemented("raft"))
}

pub async fn propose(_host: &Host, _request: ProposeRequest) -> ProposeReply {
    ProposeReply::default()
}

pub async fn read_index(_host: &Host, _request: ReadIndexRequest) -> ReadIndexReply {
    ReadIndexReply::default()
}
