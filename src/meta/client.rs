//! Meta, from any node: proposes where it is led, reads what is applied here.
//!
//! *Invariants:* a proposal that is answered took effect and is applied at the leader; [`Views`] of this node may follow a
//! moment later, unless [`Client::barrier`] is waited for.
//!
//! *Not here:* what commands do (`state`), who leads (`raft`).

use bytes::Bytes;

use super::answer::Answer;
use super::command::Command;
use super::machine::Views;
use crate::error::{Error, HasKind, Kind};
use crate::peers::Peers;
use crate::raft::{Group, RaftError};

/// A way to meta; clones share it.
#[derive(Clone)]
pub struct Client {
    /// This node's replica.
    pub group: Group,
    /// What it has applied.
    pub views: Views,
    /// Ways to the others.
    pub peers: Peers,
}

impl Client {
    /// Proposes a command and gives meta's answer.
    pub async fn propose(&self, command: Command) -> Result<Answer, Error> {
        let reply = self.propose_entry(command.encode()).await.map_err(|e| Error::new(e.kind(), e.to_string()))?;
        Answer::decode(&reply).map_err(|e| Error::new(Kind::Internal, format!("read meta's answer: {e}")))
    }

    /// Proposes an encoded command and gives the encoded answer.
    pub async fn propose_entry(&self, entry: Bytes) -> Result<Bytes, RaftError> {
        self.group.propose(entry).await.map(|applied| applied.reply)
    }

    /// Waits until everything meta answered before now is in the views of this node.
    pub async fn barrier(&self) -> Result<u64, RaftError> {
        self.group.read_index().await
    }
}
