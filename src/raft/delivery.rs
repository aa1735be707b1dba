//! Answers what replicas of other nodes ask of those here.
//!
//! *Invariants:* a message for a replica that is not here is refused, whatever it says: replica ids are never used twice.
//! A snapshot that comes in is complete and checked before it is shown to the replica, and its file is gone afterwards.
//!
//! *Not here:* the messages' bytes (`wire`), the server (`api::grpc`).

use std::io::Write;

use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;

use super::error::RaftError;
use super::host::Host;
use super::machine::Snapshot;
use super::transport::Raft;
use super::types::{GroupId, TypeConfig};
use super::wire::{self, Question, Reply};
use crate::proto::v1::RaftMessage;

type Failed = openraft::errors::RaftError<TypeConfig>;

/// What a replica of this process says to a question.
pub(crate) async fn answer(raft: &Raft, question: Question) -> Result<Reply, Failed> {
    Ok(match question {
        Question::Append(rpc) => Reply::Append(raft.append_entries(rpc).await?),
        Question::Vote(rpc) => Reply::Vote(raft.vote(rpc).await?),
        Question::PreVote(rpc) => Reply::Vote(raft.pre_vote(rpc).await?),
        Question::Transfer(rpc) => {
            let taken = raft.handle_transfer_leader(rpc).await.map_err(Failed::Fatal)?;
            Reply::Transfer(taken.map_err(|e| e.to_string()))
        }
    })
}

impl Host {
    /// Answers a message for a replica of this node.
    pub async fn deliver(&self, message: RaftMessage) -> Result<RaftMessage, RaftError> {
        let group = GroupId(message.group);
        let raft = self.replica(group, message.to)?;
        let question = Question::decode(&message.body).ok_or_else(|| unreadable(group))?;
        let reply = answer(&raft, question).await.map_err(|e| unavailable(group, &e))?;
        Ok(RaftMessage { body: reply.encode(), ..message })
    }

    /// Installs a snapshot for a replica of this node; `head` says whose and what it covers, `pieces` are its body.
    pub async fn install(
        &self,
        head: RaftMessage,
        mut pieces: mpsc::Receiver<Result<Bytes, String>>,
    ) -> Result<RaftMessage, RaftError> {
        let body = move |out: &mut dyn Write| {
            while let Some(piece) = pieces.blocking_recv() {
                out.write_all(&piece.map_err(std::io::Error::other)?)?;
            }
            Ok(())
        };
        self.install_body(head, body).await
    }

    /// Installs a snapshot whose body `body` writes; it may block.
    pub(crate) async fn install_body(
        &self,
        head: RaftMessage,
        body: impl FnOnce(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
    ) -> Result<RaftMessage, RaftError> {
        let group = GroupId(head.group);
        let raft = self.replica(group, head.to)?;
        let (vote, meta) = wire::snapshot_head(&head.body).ok_or_else(|| unreadable(group))?;
        let (snapshots, covers) = (self.snapshots(group), meta.clone());
        let received = self.snapshots(group).blocking(move || snapshots.receive(&covers, body)).await;
        let file =
            received.map_err(|e| RaftError::Unavailable { group, reason: format!("receive a snapshot: {e}") })?;
        let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await;
        self.snapshots(group).remove_received().map_err(RaftError::disk("remove a received snapshot"))?;
        let reply: SnapshotResponse<TypeConfig> = installed.map_err(|e| unavailable(group, &e))?;
        Ok(RaftMessage { body: Reply::Snapshot(reply).encode(), ..head })
    }
}

fn unreadable(group: GroupId) -> RaftError {
    RaftError::Unavailable { group, reason: "the message cannot be read: is the sender of another release?".into() }
}

fn unavailable(group: GroupId, e: &dyn std::fmt::Display) -> RaftError {
    RaftError::Unavailable { group, reason: e.to_string() }
}
