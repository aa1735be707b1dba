//! Meta's state machine: applies entries and publishes the state.
//!
//! *Invariants:* what is published is immutable; readers hold it as long as they like and never block an apply. An entry
//! that cannot be read is refused by every replica alike, never skipped silently.
//!
//! *Not here:* what commands do (`state`), bytes of snapshots (`snapshot`), consensus (`raft`).

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::answer::{Answer, Refusal};
use super::command::Command;
use super::snapshot;
use super::state::State;
use crate::model::TenantId;
use crate::raft::{SnapshotWriter, StateMachine};

/// Largest snapshot that is read: 64 MiB of contents and a million tenants stay below.
const SNAPSHOT_MAX_BYTES: u64 = 1 << 30;

/// The replicated state behind [`StateMachine`].
pub struct Machine {
    state: Arc<State>,
    publish: watch::Sender<Arc<State>>,
}

/// A handle to the newest state this node has applied.
#[derive(Clone, Debug)]
pub struct Views(watch::Receiver<Arc<State>>);

impl Machine {
    /// An empty state and where it is published.
    pub fn new() -> (Self, Views) {
        let state = Arc::new(State::default());
        let (publish, views) = watch::channel(state.clone());
        (Self { state, publish }, Views(views))
    }
}

impl Views {
    /// The newest state.
    pub fn current(&self) -> Arc<State> {
        self.0.borrow().clone()
    }

    /// Waits for a state newer than the last one this handle waited for; `None` if the machine is gone.
    pub async fn changed(&mut self) -> Option<Arc<State>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }

    /// Waits until the entry at `index` is applied here; `None` if the machine is gone.
    pub async fn applied(&mut self, index: u64) -> Option<Arc<State>> {
        self.0.wait_for(|state| state.applied >= index).await.ok().map(|state| state.clone())
    }

    /// Waits until this version of a tenant's table is known here; `None` if the machine is gone.
    pub async fn table_at(&mut self, tenant: &TenantId, version: u64) -> Option<Arc<State>> {
        let known = |state: &Arc<State>| state.tables.get(tenant).is_some_and(|table| table.version >= Some(version));
        self.0.wait_for(known).await.ok().map(|state| state.clone())
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, index: u64, entry: &Bytes) -> Bytes {
        // The published state shares this one, so this copies: a map of shared tables, by the minute, not per sample.
        let state = Arc::make_mut(&mut self.state);
        state.applied = index;
        let answer = match Command::decode(entry) {
            Ok(command) => state.apply(command),
            Err(e) => Answer::Refused(Refusal::Invalid(e.to_string())),
        };
        self.publish.send_replace(self.state.clone());
        answer.encode()
    }

    fn snapshot(&mut self) -> io::Result<SnapshotWriter> {
        let state = self.state.clone();
        Ok(Box::new(move |out| out.write_all(&snapshot::encode(&state))))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.take(SNAPSHOT_MAX_BYTES).read_to_end(&mut bytes)?;
        let state = snapshot::decode(bytes.into())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("restore meta from a snapshot: {e}")))?;
        self.state = Arc::new(state);
        self.publish.send_replace(self.state.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
