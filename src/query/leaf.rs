//! All samples of a tenant: heads and blocks as one source.
//!
//! *Invariants:* a read begins with one read-index per shard, so it sees everything acknowledged before it began. Heads
//! and flush floor of a shard are read under one lock; the table view is at least as new as what any shard says it has
//! flushed, and blocks above a shard's floor are left out, because the head still holds them: each sample is seen once.
//!
//! *Not here:* heads of this and of other nodes (`query::heads`), look-ups without samples (`query::lookup`), putting series together (`query::gather`, `query::merge`),
//! evaluation (`promql`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use super::active::Active;
use super::blocks::Blocks;
use super::budget::{QueryBudget, Steps};
use super::distribute::AskEvaluate;
use super::gather::{Gathered, SERIES_BYTES};
use super::heads::{Ask, Here};
use super::lookup::giving_up;
use super::partitions::{Numbering, Partitions, only_map};
use super::remote::Remote;
use crate::block::{self, PackedSeries};
use crate::config::Config;
use crate::error::{Error, HasKind, Kind};
use crate::head::{Head, Want};
use crate::ingest::Shards;
use crate::meta::{Views, shard_group};
use crate::model::{Matcher, TenantId, TimeRange};
use crate::promql::source::{SelectRequest, SeriesSet, Source};
use crate::raft::GroupId;
use crate::store::catalog::snapshot::Block;
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
    /// The heads of other nodes.
    pub remote: Remote,
    /// Asks other nodes to evaluate; without it everything is evaluated here.
    pub evaluate: Option<AskEvaluate>,
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
        here: &Here,
        tenant: &TenantId,
        request: &SelectRequest,
        budget: &QueryBudget,
    ) -> Result<SeriesSet, Error> {
        let range = request.range;
        let matchers = giving_up(&request.matchers, budget);
        let mut steps = Steps::new(budget);
        let from_head = |head: &Head, matchers: &[Matcher]| {
            head.select_within(tenant, matchers, range, |one| steps.charge((one.bytes() + SERIES_BYTES) as u64))
        };
        let ask = Ask { tenant, want: Want::Samples, matchers: &matchers, range };
        let (heads, blocks) = self.read(here, ask, budget, from_head).await?;
        let mut gathered = Gathered::default();
        for found in heads {
            gathered.add_head(found?);
        }
        if !blocks.is_empty() {
            self.add_blocks(&mut gathered, blocks, (&matchers, range, &here.only), budget).await?;
        }
        // What patterns found is worth nothing once they gave up.
        budget.check()?;
        let map = here.only.as_ref().map(|only| only.map).or_else(|| only_map(&self.meta.current()));
        let numbering = Numbering::new(map, tenant);
        let series = gathered.into_series(|labels| numbering.of(labels));
        Ok(SeriesSet { series, warnings: Vec::new() })
    }

    async fn add_blocks(
        &self,
        gathered: &mut Gathered,
        blocks: Vec<Arc<Block>>,
        (matchers, range, only): (&[Matcher], TimeRange, &Option<Partitions>),
        budget: &QueryBudget,
    ) -> Result<(), Error> {
        let reads = blocks.into_iter().map(|block| async move {
            let reader = self.blocks.open(&block).await?;
            let before = AtomicU64::new(0);
            let admit = |bytes: usize| {
                before.fetch_add(bytes as u64, Ordering::Relaxed);
                budget.charge(bytes as u64).map_err(block::Error::Refused)
            };
            let wanted = |hash| only.as_ref().is_none_or(|only| only.has_hash(hash));
            let found = reader.select_hashes(matchers, range, wanted, &admit).await.map_err(storage)?;
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

    /// Reads all heads, and says which blocks hold the rest of the range.
    pub(super) async fn read<T>(
        &self,
        here: &Here,
        ask: Ask<'_>,
        budget: &QueryBudget,
        from_head: impl FnMut(&Head, &[Matcher]) -> T,
    ) -> Result<(Vec<T>, Vec<Arc<Block>>), Error> {
        let heads = self.read_heads(here, ask, budget, from_head).await?;
        let Some(table) = self.table(ask.tenant, &heads).await? else {
            return Ok((heads.into_iter().map(|h| h.found).collect(), Vec::new()));
        };
        let floors: HashMap<GroupId, u64> = heads.iter().map(|h| (h.group, h.flushed)).collect();
        let in_table = |block: &&Arc<Block>| match block.tags.epoch.zip(block.tags.shard) {
            // Series of the other shards are not wanted, and their floors not known.
            Some((epoch, shard)) if here.only.as_ref().is_some_and(|o| o.map.epoch == epoch && !o.has(shard)) => false,
            Some((epoch, shard)) => {
                floors.get(&shard_group(epoch, shard)).is_none_or(|floor| block.tags.sequence <= *floor)
            }
            None => true,
        };
        let blocks = table.blocks_in(RAW, ask.range).filter(in_table).cloned().collect();
        Ok((heads.into_iter().map(|h| h.found).collect(), blocks))
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
    pub(super) leaf: Arc<Leaf>,
    pub(super) tenant: TenantId,
    stats: Arc<FetchStats>,
    budget: Arc<QueryBudget>,
    barrier: OnceCell<Here>,
}

impl TenantSource {
    /// What is here, once per query: all its selectors see at least what was acknowledged when the first one began.
    pub(super) async fn here(&self) -> &Here {
        self.barrier.get_or_init(|| self.leaf.barrier()).await
    }
}

impl Source for TenantSource {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        Box::pin(counting(Arc::clone(&self.stats), async {
            self.leaf.select(self.here().await, &self.tenant, request, &self.budget).await
        }))
    }
}

/// The same samples, for some requests those of some partitions only.
pub(super) struct InParts<'a> {
    pub(super) source: &'a TenantSource,
    /// What is read for those requests.
    pub(super) here: Here,
    /// Those requests.
    pub(super) requests: Vec<&'a SelectRequest>,
}

impl Source for InParts<'_> {
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>> {
        let TenantSource { leaf, tenant, stats, budget, .. } = self.source;
        if !self.requests.iter().any(|r| std::ptr::eq(*r, request)) {
            return self.source.select(request);
        }
        if self.here.only.as_ref().is_some_and(Partitions::is_empty) {
            return Box::pin(async { Ok(SeriesSet::default()) });
        }
        Box::pin(counting(Arc::clone(stats), leaf.select(&self.here, tenant, request, budget)))
    }
}
