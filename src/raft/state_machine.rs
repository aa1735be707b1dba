//! The seam between consensus and what it replicates.
//!
//! *Invariants:* [`StateMachine::apply`] depends on the entry and the state alone: no clock, no randomness, no
//! configuration. Equal entries in equal order give equal states and equal answers on every replica.
//!
//! *Not here:* what the entries mean (`ingest::shard`, `meta::state`).

use std::io::{self, Read, Write};

use bytes::Bytes;

/// Writes a snapshot of the moment it was taken; runs on a blocking thread, in parallel with further applies.
pub type SnapshotWriter = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// A replicated state.
pub trait StateMachine: Send + 'static {
    /// Applies one committed entry and answers its proposer (other replicas drop the answer).
    fn apply(&mut self, index: u64, entry: &Bytes) -> Bytes;

    /// Captures a consistent view quickly (it runs between applies); the writing happens later, elsewhere.
    fn snapshot(&mut self) -> io::Result<SnapshotWriter>;

    /// Replaces the state by a snapshot's. On an error the old state is unusable and the node stops.
    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()>;
}
