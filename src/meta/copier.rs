//! Copies decided versions to the bucket, tenant by tenant, for as long as it takes.
//!
//! *Invariants:* every step may be repeated or interrupted: a copy is idempotent, and meta forgets a content only after the
//! bucket was seen to hold it. Versions of a table reach the bucket in order, so a reader from outside never sees a gap. A
//! table that cannot be copied does not hold up the others.
//!
//! *Not here:* what a version holds (`state`), the write itself (`store::catalog::log`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};

use super::answer::Answer;
use super::command::Command;
use super::machine::Views;
use super::metrics::Metrics;
use super::state::{State, Table};
use crate::env::Clock;
use crate::error::{Error, HasKind, Kind};
use crate::model::TenantId;
use crate::store::catalog::{Tables, Written, checkpoint, write_version};
use crate::store::{self, Bucket};

/// Tables copied at a time.
const TABLES_IN_FLIGHT: usize = 8;

/// How often a node that does not lead looks whether it does.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Waits after a failed round: the first, doubled up to the last.
pub const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Proposes an entry to meta's group and gives its answer.
pub type Propose = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<Bytes, Error>> + Send + Sync>;

/// The copier; runs on the leader of meta's group (elsewhere it would only repeat the work).
pub struct Copier {
    /// Where to.
    pub bucket: Bucket,
    /// For checkpoints.
    pub tables: Arc<Tables>,
    /// What was decided.
    pub views: Views,
    /// How meta learns what was copied.
    pub propose: Propose,
    /// Whether this node leads meta.
    pub leads: Arc<dyn Fn() -> bool + Send + Sync>,
    /// First and longest wait after a failed round, see [`WAITS`].
    pub waits: (Duration, Duration),
    /// For the age of the backlog.
    pub clock: Arc<dyn Clock>,
    /// Backlog.
    pub metrics: Metrics,
    /// Requests.
    pub store_metrics: store::Metrics,
}

impl Copier {
    /// Copies until the state machine is gone or the future is dropped, which is safe at any point.
    pub async fn run(mut self) {
        let mut wait = self.waits.0;
        let mut caught_up = self.clock.monotonic();
        loop {
            let state = self.views.current();
            if state.backlog().0 > 0 && !(self.leads)() {
                // Nobody says when this node comes to lead.
                tokio::time::sleep(LOOK_AGAIN).await;
                caught_up = self.clock.monotonic();
                continue;
            }
            if state.backlog().0 > 0 {
                match self.round(&state).await {
                    true => wait = self.waits.0,
                    false => {
                        self.note_backlog(caught_up);
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(self.waits.1);
                        continue;
                    }
                }
            }
            caught_up = self.clock.monotonic();
            self.note_backlog(caught_up);
            if self.views.changed().await.is_none() {
                return;
            }
        }
    }

    /// Copies everything pending in `state` once; whether all of it is in the bucket and meta knows.
    pub async fn round(&self, state: &State) -> bool {
        let behind = state.tables.iter().filter(|(_, table)| !table.pending.is_empty());
        let work: Vec<_> = behind.map(|(tenant, table)| (tenant.clone(), table.clone())).collect();
        let tables = work.len();
        let copies: Vec<(TenantId, Option<u64>, bool)> = stream::iter(work)
            .map(|(tenant, table)| async move {
                let reached = self.copy_table(&tenant, &table).await;
                (tenant, reached, reached == table.version)
            })
            .buffer_unordered(TABLES_IN_FLIGHT)
            .collect()
            .await;
        let complete = copies.iter().filter(|(_, _, complete)| *complete).count() == tables;
        let copied: Vec<_> = copies.into_iter().filter_map(|(tenant, reached, _)| Some((tenant, reached?))).collect();
        if copied.is_empty() {
            return complete;
        }
        let entry = Command::Copied(copied.clone()).encode();
        match (self.propose)(entry).await.map(|answer| Answer::decode(&answer)) {
            Ok(Ok(Answer::Done)) => {}
            Ok(answer) => {
                tracing::error!(?answer, "meta did not take note of copied table versions");
                return false;
            }
            Err(e) => {
                // Not the leader any more, or shutting down: the next leader finds the copies done.
                tracing::debug!(error = %e, "copied table versions could not be noted");
                return false;
            }
        }
        for (tenant, reached) in copied {
            let before = state.tables.get(&tenant).and_then(|table| table.copied);
            self.checkpoint_if_due(&tenant, before, reached).await;
        }
        complete
    }

    /// Copies a table's versions in order until one fails; the last one that is in the bucket, if any was copied.
    async fn copy_table(&self, tenant: &TenantId, table: &Table) -> Option<u64> {
        let mut reached = None;
        for (version, content) in table.pending() {
            match write_version(&self.bucket, &self.store_metrics, tenant, version, content).await {
                Ok(written) => {
                    reached = Some(version);
                    if written == Written::Now {
                        self.metrics.copied.inc();
                    }
                }
                Err(e) => {
                    self.metrics.copy_failures.inc();
                    if e.kind() == Kind::Corrupt {
                        self.metrics.conflicts.inc();
                        tracing::error!(%tenant, version, error = %e, "the bucket contradicts the cluster");
                    } else {
                        tracing::warn!(%tenant, version, error = %e, "table version not copied, will be repeated");
                    }
                    break;
                }
            }
        }
        reached
    }

    /// Writes a checkpoint when the versions copied passed a multiple of [`checkpoint::EVERY`].
    async fn checkpoint_if_due(&self, tenant: &TenantId, before: Option<u64>, reached: u64) {
        let at = reached / checkpoint::EVERY * checkpoint::EVERY;
        if at == 0 || before >= Some(at) {
            return;
        }
        let written = async { checkpoint::write(&self.bucket, &*self.tables.exactly(tenant, at).await?).await };
        match written.await {
            Ok(()) => {
                self.store_metrics.checkpoints_written.inc();
            }
            // It only saves readers work; the next multiple is another chance.
            Err(e) => tracing::warn!(%tenant, version = at, error = %e, "checkpoint not written"),
        }
    }

    fn note_backlog(&self, caught_up: Duration) {
        let (versions, bytes) = self.views.current().backlog();
        self.metrics.backlog_versions.set(versions as i64);
        self.metrics.backlog_bytes.set(bytes as i64);
        let age = if versions == 0 { Duration::ZERO } else { self.clock.monotonic().saturating_sub(caught_up) };
        self.metrics.backlog_age.set(age.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
