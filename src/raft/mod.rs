//! Raft: all groups of a node on one write-ahead log.

pub mod state_machine;

pub use state_machine::{SnapshotWriter, StateMachine};
