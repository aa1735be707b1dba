//! Raft: all groups of a node on one write-ahead log.
//!
//! A [`Host`] owns the log and the groups; a [`Group`] proposes entries and answers when they are durable on a majority
//! and applied; a [`StateMachine`] is what they are applied to.
//!
//! *Invariants:* only this module names openraft's types, and none of them is ever stored in an encoding of openraft's.
//!
//! *Not here:* what entries mean (`ingest::shard`, `meta::state`); which groups exist and where (`meta`).
#![doc = include_str!("format.md")]

mod activity;
mod codec;
mod delivery;
mod error;
mod failure;
mod frame;
mod group;
mod host;
mod index;
mod log;
mod machine;
mod members;
mod metrics;
mod recover;
mod runtime;
mod segment;
mod sending;
mod snapshot;
pub mod state_machine;
mod store;
mod summary;
mod transport;
mod types;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub use activity::Activity;
pub use error::RaftError;
pub use group::{Applied, Group};
pub use host::{Bootstrap, Host, HostOptions};
pub use members::Members;
pub use metrics::Metrics;
pub use state_machine::{SnapshotWriter, StateMachine};
pub use summary::{GroupSummary, read_log};
pub use transport::{Router, Ways};
pub use types::{GroupId, Peer, ReplicaId};
pub(crate) use wire::{Candidacy, leader_of, promise_of};
