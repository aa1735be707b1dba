//! Messages for the Raft groups of this node.
//!
//! *Invariants:* a group that is not here, or not led here, is a failure of the group in the answer; only what cannot be
//! read is a failure of the call.
//!
//! *Not here:* what the messages cause (`raft`).

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::error::{HasKind, Kind};
use crate::model::NodeId;
use crate::proto::v1::{
    Failure, Member, ProposeReply, ProposeRequest, RaftMessage, ReadIndexReply, ReadIndexRequest, SnapshotPiece,
};
use crate::raft::{Group, GroupId, Host, RaftError, ReplicaId};

/// Pieces of a snapshot received before they are written.
const AHEAD: usize = 4;

/// One message.
pub async fn raft(host: &Host, message: RaftMessage) -> Result<RaftMessage, Status> {
    host.deliver(message).await.map_err(|e| status(&e))
}

/// A snapshot, piece by piece; it is whole only with an empty piece at its end.
pub async fn install_snapshot(host: &Host, mut pieces: Streaming<SnapshotPiece>) -> Result<RaftMessage, Status> {
    let first = pieces.message().await?;
    let Some(head) = first.and_then(|piece| piece.head) else {
        return Err(Status::invalid_argument("the first piece of a snapshot must say whose it is"));
    };
    let (sender, receiver) = mpsc::channel::<Result<Bytes, String>>(AHEAD);
    let receiving = async move {
        loop {
            let piece = match pieces.next().await {
                Some(Ok(piece)) if piece.data.is_empty() => return,
                Some(Ok(piece)) => Ok(piece.data),
                Some(Err(status)) => Err(status.message().to_owned()),
                None => Err("the stream ended early".to_owned()),
            };
            let ends = piece.is_err();
            if sender.send(piece).await.is_err() || ends {
                return;
            }
        }
    };
    let ((), installed) = tokio::join!(receiving, host.install(head, receiver));
    installed.map_err(|e| status(&e))
}

/// An entry for a group that is led here.
pub async fn propose(host: &Host, request: ProposeRequest) -> ProposeReply {
    let proposed = async { group(host, request.group)?.propose(request.entry).await };
    match proposed.await {
        Ok(applied) => ProposeReply { index: applied.index, reply: applied.reply, failure: None },
        Err(e) => ProposeReply { failure: Some(Failure::from(&e)), ..ProposeReply::default() },
    }
}

/// A read index of a group that is led here.
pub async fn read_index(host: &Host, request: ReadIndexRequest) -> ReadIndexReply {
    let asked = async {
        let group = group(host, request.group)?;
        let index = group.lead_read_index().await?;
        if request.replica != 0 && !group.has_member(ReplicaId(request.replica)) {
            let reason = format!("replica {} is not in it", ReplicaId(request.replica));
            return Err(RaftError::NoSuchGroup { group: group.id(), reason });
        }
        let mut members = Vec::new();
        if request.want_members {
            let all = group.members();
            let member = |votes| {
                move |(replica, node): (&ReplicaId, &NodeId)| Member { replica: replica.0, node: node.0, votes }
            };
            members.extend(all.voters.iter().map(member(true)));
            members.extend(all.learners.iter().map(member(false)));
        }
        Ok(ReadIndexReply { index, failure: None, members })
    };
    asked.await.unwrap_or_else(|e: RaftError| ReadIndexReply { failure: Some(Failure::from(&e)), ..Default::default() })
}

fn group(host: &Host, id: u64) -> Result<Group, RaftError> {
    let none = || RaftError::NoSuchGroup { group: GroupId(id), reason: "is not on this node".into() };
    host.group(GroupId(id)).ok_or_else(none)
}

fn status(e: &RaftError) -> Status {
    match e.kind() {
        Kind::NotFound => Status::not_found(e.to_string()),
        Kind::Invalid => Status::invalid_argument(e.to_string()),
        _ => Status::unavailable(e.to_string()),
    }
}
