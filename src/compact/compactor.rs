//! The compactor: finds ripe periods, merges their blocks, commits the outcome.
//!
//! *Invariants:* one compaction of a table at a time, in the whole cluster: its commits are numbered, the number is taken
//! before the plan is made, and meta decides each number once. Inputs and options alone make the bytes, and the inputs'
//! names are part of the output's, so a repeat writes the same files again. Files are committed only when all are uploaded.
//!
//! *Not here:* what is ripe (`plan`), how series are merged (`merge`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use parking_lot::Mutex;

use super::merge::{Input, Merge};
use super::plan::{Job, RAW, Ripe, THIRD_MS, jobs};
use super::{CompactError, Metrics};
use crate::block::{BlockReader, BlockWriter, SeriesInput, WriterOptions};
use crate::env::{Clock, crash};
use crate::error::{HasKind, Kind};
use crate::meta::{self, Answer, Command, Commit, Views};
use crate::model::{BlockName, TenantId, TimeRange};
use crate::store::catalog::actions::{BlockTags, TableSchema};
use crate::store::catalog::{AddFile, RemoveFile, TableSnapshot, Tables};
use crate::store::layout::{self, DataFile};
use crate::store::{Bucket, catalog};

/// Length of a slice of a compacted block (`docs/decisions/0002-block-layout.md`).
const SLICE_MS: i64 = THIRD_MS;

/// Rows per page of values: four times as long as in a flush, so a quarter as many.
const PAGE_ROWS: usize = 8;

/// Samples from which on a block ends and another begins: about 200 MB.
const MAX_BLOCK_SAMPLES: u64 = 1 << 29;

/// Blocks opened at a time.
const IN_FLIGHT: usize = 8;

/// Settings of compaction.
#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// How often tables are looked at.
    pub interval: Duration,
    /// How long no block of a day must have been written before it is compacted.
    pub quiet: Duration,
    /// How late samples may come, milliseconds.
    pub out_of_order_ms: i64,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Compacted {
    /// Periods of tenants.
    pub periods: u64,
    /// Blocks that were merged.
    pub blocks: u64,
    /// Compactions that failed; the log has the reasons.
    pub failed: u64,
}

/// Merges the blocks of finished periods.
pub struct Compactor {
    /// Meta's group, which decides commits.
    pub meta: meta::Client,
    /// What meta has decided.
    pub views: Views,
    /// Catalogs.
    pub tables: Arc<Tables>,
    /// Where blocks are.
    pub bucket: Bucket,
    /// Columns of the tables.
    pub schema: TableSchema,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub options: CompactOptions,
    /// Figures.
    pub metrics: Metrics,
    /// One pass at a time.
    pub pass: tokio::sync::Mutex<()>,
    /// Blocks that could not be read; left alone until the node starts again.
    pub quarantined: Mutex<BTreeSet<BlockName>>,
}

impl Compactor {
    /// Looks every interval; ends when dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.options.interval).await;
            // One node of a cluster is enough.
            if !self.meta.group.is_leader() {
                continue;
            }
            let (now, quiet) = (self.clock.now_ms(), self.options.quiet.as_millis() as i64);
            let ripe = Ripe {
                // A window takes late samples for a while, is flushed then, and its block was just written.
                ended_by_ms: now - self.options.out_of_order_ms - quiet,
                quiet_since_ms: now - quiet,
            };
            self.compact(ripe).await;
        }
    }

    /// Compacts every ripe period of every tenant; what fails is reported, and tried again by the next pass.
    pub async fn compact(&self, ripe: Ripe) -> Compacted {
        let _one = self.pass.lock().await;
        let mut done = Compacted::default();
        let tenants: Vec<TenantId> = self.views.current().tables.keys().cloned().collect();
        for tenant in tenants {
            loop {
                match self.compact_period(&tenant, ripe).await {
                    Ok(Some(blocks)) => {
                        done.periods += 1;
                        done.blocks += blocks as u64;
                    }
                    Ok(None) => break,
                    Err(CompactError::Block { block, source }) if source.kind() == Kind::Corrupt => {
                        let what = "block cannot be read and is left as it is: compare it with a backup";
                        tracing::error!(%tenant, %block, error = %source, "{what}");
                        let mut quarantined = self.quarantined.lock();
                        quarantined.insert(block);
                        self.metrics.quarantined.set(quarantined.len() as i64);
                    }
                    Err(e) => {
                        done.failed += 1;
                        self.metrics.failures.inc();
                        tracing::warn!(%tenant, error = %e, "compaction failed, the next pass tries again");
                        break;
                    }
                }
            }
        }
        done
    }

    /// Compacts the oldest ripe period of a tenant; how many blocks it had.
    async fn compact_period(&self, tenant: &TenantId, ripe: Ripe) -> Result<Option<usize>, CompactError> {
        self.meta.barrier().await?;
        let state = self.views.current();
        let Some(table) = state.tables.get(tenant) else { return Ok(None) };
        let app = layout::compaction_of(tenant);
        let sequence = state.applications.get(&app).map_or(1, |last| last + 1);
        let snapshot = self.tables.at(tenant, table.version, |version| table.pending_at(version)).await?;
        let quarantined = self.quarantined.lock().clone();
        let Some(job) = jobs(&snapshot, ripe, &quarantined).into_iter().next() else { return Ok(None) };
        let began = self.clock.monotonic();
        let uploaded_ms = self.clock.now_ms();
        let inputs = self.open(&job).await?;
        let (owner, naming) = (tenant.clone(), Naming { start: job.start, sequence, inputs: names_hash(&job) });
        let runtime = tokio::runtime::Handle::current();
        let rewrite = Rewrite { tenant: owner, naming, bucket: self.bucket.clone(), modified_ms: uploaded_ms };
        let work = move || runtime.block_on(rewrite.run(inputs));
        let adds = tokio::task::spawn_blocking(work).await.map_err(|_| CompactError::Stopping)??;
        let bytes_out: u64 = adds.iter().map(|add| add.size).sum();
        crash::point("compact-uploaded");
        self.commit(tenant, app, sequence, uploaded_ms, &adds, &removes(&snapshot, &job)).await?;
        crash::point("compact-committed");
        let took = self.clock.monotonic().saturating_sub(began);
        let samples = job.blocks.iter().map(|b| b.tags.samples).sum();
        let bytes_in = job.blocks.iter().map(|b| b.bytes()).sum();
        self.metrics.compacted(job.blocks.len(), samples, bytes_in, bytes_out, took);
        let (start, blocks) = (job.start, job.blocks.len());
        tracing::info!(%tenant, start, blocks, samples, bytes_in, bytes_out, "compacted");
        Ok(Some(blocks))
    }

    async fn open(&self, job: &Job) -> Result<Vec<Input>, CompactError> {
        let opened = job.blocks.clone().into_iter().map(|block| async move {
            let broken = |source| CompactError::Block { block: block.name.clone(), source };
            let store: Arc<dyn ObjectStore> = Arc::clone(self.bucket.store());
            let reader = BlockReader::open(store, block.file_refs().map_err(broken)?).await.map_err(broken)?;
            let rank = (block.tags.epoch.map_or(0, |e| e.0), block.tags.sequence);
            Ok::<_, CompactError>(Input { name: block.name.clone(), rank, reader })
        });
        stream::iter(opened).buffered(IN_FLIGHT).try_collect().await
    }

    async fn commit(
        &self,
        tenant: &TenantId,
        app: String,
        sequence: u64,
        uploaded_ms: i64,
        adds: &[AddFile],
        removes: &[RemoveFile],
    ) -> Result<(), CompactError> {
        let mut commit = Commit::new(app, sequence, self.clock.now_ms(), uploaded_ms, self.schema.clone());
        commit.table(tenant.clone(), adds, removes);
        let reply = self.meta.propose_entry(Command::Commit(commit).encode()).await?;
        match Answer::decode(&reply) {
            Ok(Answer::Committed(committed)) if committed.repeat => Err(CompactError::Overtaken),
            Ok(Answer::Committed(_)) => Ok(()),
            Ok(Answer::Refused(refusal)) => Err(refusal.into()),
            Ok(Answer::Done | Answer::Joined { .. }) => Err(CompactError::Refused("answered without versions".into())),
            Err(e) => Err(CompactError::Refused(e.to_string())),
        }
    }
}

/// What the names of the new blocks are made of.
#[derive(Debug, Clone, Copy)]
struct Naming {
    start: i64,
    sequence: u64,
    inputs: u64,
}

/// A hash of the names of the blocks that are merged.
fn names_hash(job: &Job) -> u64 {
    let names: Vec<String> = job.blocks.iter().map(|b| b.name.to_string()).collect();
    xxhash_rust::xxh3::xxh3_64(names.join("\n").as_bytes())
}

/// Merges, and uploads what it makes.
struct Rewrite {
    tenant: TenantId,
    naming: Naming,
    bucket: Bucket,
    modified_ms: i64,
}

impl Rewrite {
    /// A period with very many samples becomes several blocks; each leaves the memory before the next one begins.
    async fn run(&self, inputs: Vec<Input>) -> Result<Vec<AddFile>, CompactError> {
        let mut merge = Merge::new(inputs).await?;
        let (mut adds, mut open, mut samples, mut parts) = (Vec::new(), None, 0, 0);
        while let Some(series) = merge.next().await? {
            let writer = match &mut open {
                Some(writer) => writer,
                none => none.insert(BlockWriter::new(self.options(parts)).map_err(CompactError::Write)?),
            };
            let input = SeriesInput {
                labels: &series.labels,
                hash: series.hash,
                samples: &series.samples,
                exemplars: &series.exemplars,
            };
            writer.push(input).map_err(CompactError::Write)?;
            samples += series.samples.len() as u64;
            if samples >= MAX_BLOCK_SAMPLES {
                self.finish(&mut open, &mut adds).await?;
                (samples, parts) = (0, parts + 1);
            }
        }
        self.finish(&mut open, &mut adds).await?;
        Ok(adds)
    }

    fn options(&self, part: usize) -> WriterOptions {
        let Naming { start, sequence, inputs } = self.naming;
        let name = BlockName::of_compaction(start, sequence, inputs, part);
        WriterOptions {
            slice_ms: SLICE_MS,
            page_rows: PAGE_ROWS,
            ..WriterOptions::flush(name).for_tenant(&self.tenant)
        }
    }

    /// Uploads the block being written, if there is one.
    async fn finish(&self, open: &mut Option<BlockWriter>, adds: &mut Vec<AddFile>) -> Result<(), CompactError> {
        let Some(writer) = open.take() else { return Ok(()) };
        let block = writer.finish().map_err(CompactError::Write)?;
        let tags = BlockTags {
            range: TimeRange::new(block.min_ts, block.max_ts),
            shard: None,
            epoch: None,
            window_start: self.naming.start,
            generation: 0,
            sequence: self.naming.sequence,
            samples: block.samples,
        };
        for file in block.files {
            let add = AddFile {
                file: DataFile::new(RAW, file.kind.as_str(), self.naming.start, block.name.clone()),
                size: file.bytes.len() as u64,
                modified_ms: self.modified_ms,
                stats: catalog::FileStats::of(&file),
                tags: tags.clone(),
            };
            self.bucket.put(&add.file.key(&self.tenant), file.bytes).await?;
            adds.push(add);
        }
        Ok(())
    }
}

/// What the compacted blocks were made of: it lives on in them.
fn removes(snapshot: &TableSnapshot, job: &Job) -> Vec<RemoveFile> {
    let files = job.blocks.iter().flat_map(|block| {
        block.files.iter().map(|file| RemoveFile {
            file: DataFile::new(RAW, &file.kind, block.tags.window_start, block.name.clone()),
            size: file.size,
            data_change: false,
        })
    });
    let removes: Vec<RemoveFile> = files.collect();
    assert!(removes.iter().all(|r| snapshot.has_file(&r.file.relative())), "BUG: a block's file has another name");
    removes
}
