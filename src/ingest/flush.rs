//! From closed windows to the table: closes what is due, writes blocks, commits them, lets the heads forget.
//!
//! *Invariants:* every step may be repeated: block names derive from (epoch, shard, window, sequence) and equal windows
//! give equal bytes; the commit is idempotent by (shard, sequence); a window leaves the head only after its commit is
//! decided by meta's group. Windows of a shard are flushed in order of their sequence. Only a shard's leader flushes, and
//! only what is durable on its own disk.
//!
//! *Not here:* what a block looks like (`block`), how versions reach the bucket (`meta::copier`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, Notify};

use super::IngestError;
use super::entry::{close_entry, flushed_entry, seal_entry};
use super::flush_block::{Built, build};
use super::ingester::Shard;
use super::metrics::Metrics;
use super::shard::ClosedWindow;
use super::shards::Shards;
use crate::env::{Clock, crash};
use crate::head::WindowState;
use crate::meta::{self, Answer, Command, Commit, Views, shard_of_group};
use crate::model::time::WINDOW_MS;
use crate::model::{BlockName, TenantId};
use crate::store::Bucket;
use crate::store::catalog::actions::TableSchema;
use crate::store::layout::app_of;

/// Least time between two closes for want of memory.
const PRESSURE_PAUSE: Duration = Duration::from_secs(30);

/// How often the log is asked whether it is on disk.
const FLUSHED_POLL: Duration = Duration::from_millis(1);

/// Files uploaded at a time.
const UPLOADS: usize = 4;

/// Settings of the flush.
#[derive(Debug, Clone)]
pub struct FlushOptions {
    /// How long after its end a window takes late samples into its first generation, milliseconds.
    pub out_of_order_ms: i64,
    /// Bytes of heads above which the oldest windows are closed before their time.
    pub pressure_bytes: u64,
}

/// Moves windows to the table.
pub struct Flusher {
    /// The shards of this node.
    pub shards: Shards,
    /// Meta, which decides commits.
    pub meta: meta::Client,
    /// What meta has decided.
    pub views: Views,
    /// Where blocks go.
    pub bucket: Bucket,
    /// Columns of the tables.
    pub schema: TableSchema,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub options: FlushOptions,
    /// Figures.
    pub metrics: Metrics,
    /// One pass at a time; when memory last made one close windows early.
    pub pass: Mutex<Option<Duration>>,
    /// Asks for a pass before the next check.
    pub wanted: Notify,
}

impl Flusher {
    /// Checks every `interval`, or when asked; ends when dropped.
    pub async fn run(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.wanted.notified() => {}
            }
            if let Err(e) = self.flush_due().await {
                tracing::debug!(error = %e, "flush will be repeated");
            }
        }
    }

    /// Closes and flushes what is due by time or for want of memory.
    pub async fn flush_due(&self) -> Result<(), IngestError> {
        let mut last_pressed = self.pass.lock().await;
        let now = self.clock.now_ms();
        let monotonic = self.clock.monotonic();
        let pressed = self.shards.all().iter().map(|s| s.state.read().head.bytes() as u64).sum::<u64>()
            > self.options.pressure_bytes;
        // What a close frees is seen only after its flush: closing again at once would only make small blocks.
        let pressed = pressed && last_pressed.is_none_or(|last| monotonic.saturating_sub(last) >= PRESSURE_PAUSE);
        if pressed {
            *last_pressed = Some(monotonic);
        }
        for shard in self.shards.all().iter().filter(|s| s.group.is_leader()) {
            let ended = self.has_ended(shard);
            let closed = async {
                if ended && !shard.state.read().ledger.sealed {
                    shard.group.propose(seal_entry()).await?;
                }
                let is_due = |start| ended || start + WINDOW_MS + self.options.out_of_order_ms <= now;
                self.close(shard, &shard.windows_to_close(is_due, pressed)).await
            };
            if let Err(e) = closed.await {
                // The others are not to wait for it.
                tracing::warn!(shard = %shard.id, error = %e, "windows are not closed yet");
            }
        }
        self.flush_closed().await?;
        self.report_empty().await
    }

    /// Whether the shard is of an epoch that takes no more writes.
    fn has_ended(&self, shard: &Shard) -> bool {
        let newest = self.views.current().shard_map.epoch;
        shard_of_group(shard.group.id()).is_some_and(|(epoch, _)| epoch < newest)
    }

    /// Tells meta which shards of ended epochs hold nothing anymore; with the last one their epoch retires.
    async fn report_empty(&self) -> Result<(), IngestError> {
        for shard in self.shards.all().iter().filter(|s| s.group.is_leader() && self.has_ended(s)) {
            let group = shard.group.id();
            if !shard.state.read().is_over() || self.views.current().emptied.contains(&group) {
                continue;
            }
            match self.meta.propose(Command::Emptied(group)).await.map_err(IngestError::Meta)? {
                Answer::Refused(refusal) => {
                    tracing::warn!(shard = %shard.id, %refusal, "an empty shard is not retired")
                }
                _ => tracing::info!(shard = %shard.id, group = group.0, "shard of an ended epoch is empty"),
            }
        }
        Ok(())
    }

    /// Closes every window and flushes it.
    pub async fn flush_all(&self) -> Result<(), IngestError> {
        let _one = self.pass.lock().await;
        for shard in self.shards.all().iter().filter(|s| s.group.is_leader()) {
            let due = shard.windows_to_close(|_| true, false);
            self.close(shard, &due).await?;
        }
        self.flush_closed().await
    }

    async fn close(&self, shard: &Shard, starts: &[i64]) -> Result<(), IngestError> {
        for start in starts {
            shard.group.propose(close_entry(*start)).await?;
            crash::point("flush-closed");
        }
        Ok(())
    }

    /// Flushes what is closed; a shard that fails does not hold up the others. Answers the first failure.
    async fn flush_closed(&self) -> Result<(), IngestError> {
        let mut outcome = Ok(());
        for shard in self.shards.all().iter().filter(|s| s.group.is_leader()) {
            if let Err(e) = self.flush_shard(shard).await {
                self.metrics.flush_failures.inc();
                let what = "flush failed, the windows stay in memory and in the log until it succeeds";
                tracing::warn!(shard = %shard.id, error = %e, "{what}");
                outcome = outcome.and(Err(e));
            }
        }
        outcome
    }

    async fn flush_shard(&self, shard: &Arc<Shard>) -> Result<(), IngestError> {
        let closed = shard.state.read().ledger.closed.clone();
        for window in closed {
            self.flush_window(shard, window).await?;
        }
        Ok(())
    }

    async fn flush_window(&self, shard: &Arc<Shard>, window: ClosedWindow) -> Result<(), IngestError> {
        // Files of a decided commit are live: they are never written again, not even with what should be equal bytes.
        if let Some(tables) = self.decided(shard, window.sequence).await? {
            return self.note(shard, window, &tables).await;
        }
        let began = self.clock.monotonic();
        // The applied entries of the window must be on this node's own disk before their block may exist elsewhere.
        let closed_by = shard.group.applied_index();
        while shard.group.flushed_index() < closed_by {
            tokio::time::sleep(FLUSHED_POLL).await;
        }
        let uploaded_ms = self.clock.now_ms();
        let name = BlockName::of_flush(shard.epoch, shard.id, window.start, window.sequence);
        let snapshot = shard.state.read().head.window_series(window.start, window.generation);
        let (shard_id, epoch) = (shard.id, shard.epoch);
        let work = move || build(snapshot, name, shard_id, epoch, window, uploaded_ms);
        let built = tokio::task::spawn_blocking(work).await.map_err(|_| IngestError::Stopping)??;
        self.upload(&built).await?;
        crash::point("flush-uploaded");
        let versions = self.commit(shard, window, uploaded_ms, &built).await?;
        crash::point("flush-committed");
        self.note(shard, window, &versions).await?;
        let samples: u64 = built.iter().map(|b| b.samples).sum();
        let bytes: u64 = built.iter().flat_map(|b| &b.files).map(|f| f.1.len() as u64).sum();
        self.metrics.flushed(samples, bytes, self.clock.monotonic().saturating_sub(began));
        tracing::info!(shard = %shard.id, window = window.start, sequence = window.sequence, samples, bytes, "window flushed");
        Ok(())
    }

    /// The versions that hold a flush which meta decided before, perhaps for a leader that died.
    async fn decided(&self, shard: &Shard, sequence: u64) -> Result<Option<BTreeMap<TenantId, u64>>, IngestError> {
        self.meta.barrier().await?;
        let state = self.views.current();
        let app = app_of(shard.epoch, shard.id);
        if state.applications.get(&app).is_none_or(|last| *last < sequence) {
            return Ok(None);
        }
        let version = |(tenant, table): (&TenantId, &Arc<meta::Table>)| {
            table.transactions.get(&app).map(|decided| (tenant.clone(), decided.version))
        };
        Ok(Some(state.tables.iter().filter_map(version).collect()))
    }

    /// Lets every replica drop a window that the tables hold.
    async fn note(
        &self,
        shard: &Shard,
        window: ClosedWindow,
        versions: &BTreeMap<TenantId, u64>,
    ) -> Result<(), IngestError> {
        let tables: Vec<(String, u64)> = versions.iter().map(|(t, v)| (t.as_str().to_owned(), *v)).collect();
        shard.group.propose(flushed_entry(window.sequence, &tables)).await?;
        crash::point("flush-noted");
        Ok(())
    }

    async fn upload(&self, built: &[Built]) -> Result<(), IngestError> {
        let files: Vec<(object_store::path::Path, Bytes)> = built
            .iter()
            .flat_map(|b| b.files.iter().map(|(add, bytes)| (add.file.key(&b.tenant), bytes.clone())))
            .collect();
        let puts = files.into_iter().map(|(key, bytes)| async move {
            self.bucket.put(&key, bytes).await?;
            crash::point("flush-upload");
            Ok::<(), IngestError>(())
        });
        stream::iter(puts).buffer_unordered(UPLOADS).try_collect().await
    }

    /// Lets meta decide the versions that hold the window.
    async fn commit(
        &self,
        shard: &Shard,
        window: ClosedWindow,
        uploaded_ms: i64,
        built: &[Built],
    ) -> Result<BTreeMap<TenantId, u64>, IngestError> {
        if built.is_empty() {
            return Ok(BTreeMap::new());
        }
        let app = app_of(shard.epoch, shard.id);
        let mut commit = Commit::new(app, window.sequence, self.clock.now_ms(), uploaded_ms, self.schema.clone());
        for block in built {
            let adds: Vec<_> = block.files.iter().map(|(add, _)| add.clone()).collect();
            commit.table(block.tenant.clone(), &adds, &[]);
        }
        match self.meta.propose(Command::Commit(commit)).await.map_err(IngestError::Meta)? {
            Answer::Committed(committed) => Ok(committed.versions.into_iter().collect()),
            Answer::Refused(refusal) => Err(IngestError::Commit { shard: shard.id, reason: refusal.to_string() }),
            Answer::Done | Answer::Joined { .. } => {
                Err(IngestError::Commit { shard: shard.id, reason: "answered without versions".into() })
            }
        }
    }
}

impl Shard {
    /// Starts of the open windows to be closed now; under memory pressure the largest one is, whatever its time.
    fn windows_to_close(&self, due: impl Fn(i64) -> bool, pressed: bool) -> Vec<i64> {
        let windows = self.state.read().head.windows();
        let open = || windows.iter().filter(|w| w.state == WindowState::Open);
        let largest = open().max_by_key(|w| w.bytes).map(|w| w.start).filter(|_| pressed);
        open().map(|w| w.start).filter(|start| due(*start) || Some(*start) == largest).collect()
    }
}
