//! This node's samples: heads and blocks as one source.
//!
//! *Invariants:* a read begins with one read-index per shard, so it sees everything acknowledged before it began. Heads
//! and flush floor of a shard are read under one lock; the table view is at least as new as what any shard says it has
//! flushed, and blocks above a shard's floor are left out, because the head still holds them: each sample is seen once.
//!
//! *Not here:* look-ups without samples (`query::lookup`), putting series together (`query::gather`, `query::merge`),
//! evaluation (`promql`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{BoxFuture, try_join_all};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use super::active::Active;
use super::blocks::Blocks;
use super::budget::{QueryBudget, Steps};
use super::gather::{Gathered, SERIES_BYTES};
use super::lookup::giving_up;
use crate::block::{self, PackedSeries};
use crate::config::Config;
use crate::error::{Error, HasKind, Kind};
use crate::head::Head;
use crate::ingest::Shards;
use crate::ingest::ingester::Shard;
use crate::meta::{self, Views};
use crate::model::{Matcher, ShardId, TenantId, TimeRange};
use crate::promql::source::{SelectRequest, SeriesSet, Source};
use crate::store::catalog::snapshot::{Block, TableSnapshot};
use crate::store::counted::counting;
use crate::store::{FetchStats, Tables};

/// Blocks read at a time by one select.
const BLOCKS_IN_FLIGHT: usize = 8;

/// Resolution that queries read.
const RAW: &str = "raw";

/// What this node can answer from.
pub struct Leaf {
    /// Shards with a replica here.
    pub shards: Shards,
    /// Catalogs.
    pub tables: Arc<Tables>,
    /// Which table versions are decided.
    pub meta: Views,
    /// Open blocks.
    pub blocks: Blocks,
    /// Settings, for how late samples may come.
    pub config: Arc<Config>,
}

/// A shard's part of a read.
pub(super) struct HeadRead<T> {
    shard: ShardId,
    flushed: u64,
    table_version: Option<u64>,
    pub(super) found: T,
}

impl Leaf {
    /// The source of one query: what is fetched and held for it is counted there.
    pub fn source(self: &Arc<Self>, active: &Active) -> TenantSource {
        TenantSource {
            leaf: Arc::clone(self),
            tenant: active.job.tenant.clone(),
            stats: Arc::clone(&active.fetched),
            budget: Arc::clone(&active.budget),
            barrier: OnceCell::new(),
        }
    }

    async fn select(
        &self,
        tenant: &TenantId,
        request: &SelectRequest,
        budget: &QueryBudget,
    ) -> Result<SeriesSet, Error> {
        let range = request.range;
        let matchers = giving_up(&request.matchers, budget);
        let mut steps = Steps::new(budget);
        let from_head = |head: &Head| {
            head.select_within(tenant, &matchers, range, |one| steps.charge((one.bytes() + SERIES_BYTES) as u64))
        };
        let (heads, blocks) = self.read(tenant, range, from_head).await?;
        let mut gathered = Gathered::default();
        for found in heads {
            gathered.add_head(found?);
        }
        if !blocks.is_empty() {
            self.add_blocks(&mut gathered, blocks, (&matchers, range), budget).await?;
        }
        // What patterns found is worth nothing once they gave up.
        budget.check()?;
        Ok(SeriesSet { series: gathered.into_series(), warnings: Vec::new() })
    }

    async fn add_blocks(
        &self,
        gathered: &mut Gathered,
        blocks: Vec<Arc<Block>>,
        (matchers, range): (&[Matcher], TimeRange),
        budget: &QueryBudget,
    ) -> Result<(), Error> {
        let reads = blocks.into_iter().map(|block| async move {
            let reader = self.blocks.open(&block).await?;
            let before = AtomicU64::new(0);
            let admit = |bytes: usize| {
                before.fetch_add(bytes as u64, Ordering::Relaxed);
                budget.charge(bytes as u64).map_err(block::Error::Refused)
            };
            let found = reader.select_within(matchers, range, &admit).await.map_err(storage)?;
            // What comes to be held while it is decoded is known only now.
            let shared = found.first().map_or(0, PackedSeries::shared_bytes);
            let each = |s: &PackedSeries| size_of_val(s) + s.labels.heap_bytes() + SERIES_BYTES;
            let bytes = (shared + found.iter().map(each).sum::<usize>()) as u64;
            budget.charge(bytes.saturating_sub(before.into_inner()))?;
            Ok::<_, Error>((block, found))
        });
        let read: Vec<_> = stream::iter(reads).buffered(BLOCKS_IN_FLIGHT).try_collect().await?;
        for (block, found) in read {
            gathered.add_block((block.tags.epoch.map_or(0, |e| e.0), block.tags.sequence), found);
        }
        Ok(())
    }

    /// Reads all heads, and says which blocks hold the rest of `range`.
    pub(super) async fn read<T>(
        &self,
        tenant: &TenantId,
        range: TimeRange,
        from_head: impl FnMut(&Head) -> T,
    ) -> Result<(Vec<T>, Vec<Arc<Block>>), Error> {
        let heads = self.read_heads(tenant, from_head);
        let state = self.meta.current();
        let Some(table) = self.table(tenant, &heads, &state).await? else {
            return Ok((heads.into_iter().map(|h| h.found).collect(), Vec::new()));
        };
        let epoch = state.shard_map.epoch;
        let floors: HashMap<ShardId, u64> = heads.iter().map(|h| (h.shard, h.flushed)).collect();
        let in_table = |block: &&Arc<Block>| match block.tags.shard {
            Some(shard) if block.tags.epoch == Some(epoch) => {
                floors.get(&shard).is_none_or(|floor| block.tags.sequence <= *floor)
            }
            _ => true,
        };
        let blocks = table.blocks_in(RAW, range).filter(in_table).cloned().collect();
        Ok((heads.into_iter().map(|h| h.found).collect(), blocks))
    }

    /// The tenant's table, at least as new as what any head says it has flushed; `None` if there is none.
    pub(super) async fn table<T>(
        &self,
        tenant: &TenantId,
        heads: &[HeadRead<T>],
        state: &meta::State,
    ) -> Result<Option<Arc<TableSnapshot>>, Error> {
        let pending = state.tables.get(tenant).cloned();
        let decided = pending.as_ref().and_then(|t| t.version);
        let flushed = heads.iter().filter_map(|h| h.table_version).max();
        let Some(version) = decided.max(flushed) else {
            // Nothing of this tenant was ever flushed: its name, which anybody may make up, is not remembered.
            return Ok(None);
        };
        let pending = move |v| pending.as_ref().and_then(|t| t.pending_at(v));
        self.tables.at(tenant, Some(version), pending).await.map(Some).map_err(storage)
    }

    pub(super) fn read_heads<T>(&self, tenant: &TenantId, mut from_head: impl FnMut(&Head) -> T) -> Vec<HeadRead<T>> {
        let read = |shard: &Arc<Shard>| {
            let state = shard.state.read();
            HeadRead {
                shard: shard.id,
                flushed: state.ledger.flushed,
                table_version: state.ledger.tables.get(tenant.as_str()).copied(),
                found: from_head(&state.head),
            }
        };
        self.shards.all().iter().map(read).collect()
    }

    /// Waits until this node has applied everything acknowledged before now.
    pub(super) async fn barrier(&self) -> Result<(), Error> {
        try_join_all(self.shards.all().iter().map(|shard| shard.group.read_index())).await.map_err(storage)?;
        Ok(())
    }
}

/// Storage that cannot be read now, in the words of a query: whoever asks did nothing wrong.
pub(super) fn storage(e: impl HasKind + std::fmt::Display) -> Error {
    let kind = match e.kind() {
        Kind::NotFound | Kind::Invalid => Kind::Internal,
        kind => kind,
    };
    Error::new(kind, e.to_string())
}

/// One tenant's samples, for one query.
pub struct TenantSource {
    leaf: Arc<Leaf>,
    tenant: TenantId,
    stats: Arc<FetchStats>,
    budget: Arc<QueryBudget>,
    barrier: OnceCell<()>,
}

impl Source for TenantSource {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        Box::pin(counting(Arc::clone(&self.stats), async {
            // Once per query: all its selectors see at least what was acknowledged when the first one began.
            self.barrier.get_or_try_init(|| self.leaf.barrier()).await?;
            self.leaf.select(&self.tenant, request, &self.budget).await
        }))
    }
}
