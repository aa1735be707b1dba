//! The heads of all shards: those of this node, and parts of those that no replica here has.
//!
//! *Invariants:* a part is a head, and answers what it was asked for as the whole one would: where a shard is cannot
//! change a result. Heads are looked at in order of their groups, whichever comes first. Every head is at least as new as
//! what was acknowledged when the query began: those here waited for a read index then, the others before they were cut.
//!
//! *Not here:* the blocks that hold the rest (`query::leaf`), getting parts (`query::remote`).

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::budget::QueryBudget;
use super::leaf::{Leaf, storage};
use super::partitions::Partitions;
use super::remote::Part;
use crate::error::{Error, Kind};
use crate::head::{Head, Want};
use crate::ingest::ingester::Shard;
use crate::meta::{self, shard_group, shard_of_group};
use crate::model::{Matcher, TenantId, TimeRange};
use crate::raft::GroupId;
use crate::store::catalog::snapshot::TableSnapshot;

/// How long meta may be behind what a shard says of it.
const META_PATIENCE: Duration = Duration::from_secs(5);

/// What heads are asked for.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) want: Want<'a>,
    pub(super) matchers: &'a [Matcher],
    pub(super) range: TimeRange,
}

impl<'a> Ask<'a> {
    /// For something that has neither matchers nor a range.
    pub(super) fn all(tenant: &'a TenantId, want: Want<'a>) -> Self {
        Self { tenant, want, matchers: &[], range: TimeRange::all() }
    }
}

/// A shard's part of a read.
pub(super) struct HeadRead<T> {
    pub(super) group: GroupId,
    pub(super) flushed: u64,
    pub(super) table_version: Option<u64>,
    pub(super) found: T,
}

/// Replicas of this node that have applied everything acknowledged before the query began.
pub(super) struct Here {
    /// By group.
    shards: Vec<Arc<Shard>>,
    /// Where not all series are wanted.
    pub(super) only: Option<Partitions>,
}

impl Here {
    /// Whether a replica of a group is here.
    pub(super) fn has(&self, group: GroupId) -> bool {
        self.shards.binary_search_by_key(&group, |shard| shard.group.id()).is_ok()
    }

    /// For series of some partitions; `None` where not all of them are here.
    pub(super) fn restricted(&self, only: Partitions) -> Option<Self> {
        let all_here = only.shards().all(|shard| self.has(only.group(shard)));
        let is_wanted = |(epoch, shard)| epoch == only.map.epoch && only.has(shard);
        let wanted = |shard: &&Arc<Shard>| shard_of_group(shard.group.id()).is_some_and(is_wanted);
        let shards = self.shards.iter().filter(wanted).cloned().collect();
        all_here.then_some(Self { shards, only: Some(only) })
    }
}

impl Leaf {
    /// Waits until this node has applied everything acknowledged before now. A replica that does not get to know what that
    /// is counts as absent: another node may have a better one.
    pub(super) async fn barrier(&self) -> Here {
        // One that still catches up would be waited for.
        let shards: Vec<Arc<Shard>> = self.shards.all().iter().filter(|shard| shard.group.votes()).cloned().collect();
        let indexes = join_all(shards.iter().map(|shard| shard.group.read_index())).await;
        let ready = shards.into_iter().zip(indexes).filter_map(|(shard, index)| match index {
            Ok(_) => Some(shard),
            Err(e) => {
                tracing::debug!(group = %shard.group.id(), error = %e, "no read index, asking other replicas");
                None
            }
        });
        Here { shards: ready.collect(), only: None }
    }

    /// Looks at all heads with `from_head`, which gets the matchers that are still to be fulfilled.
    pub(super) async fn read_heads<T>(
        &self,
        here: &Here,
        ask: Ask<'_>,
        budget: &QueryBudget,
        mut from_head: impl FnMut(&Head, &[Matcher]) -> T,
    ) -> Result<Vec<HeadRead<T>>, Error> {
        let elsewhere = match here.only {
            Some(_) => Vec::new(),
            None => live_groups(&self.meta.current()).filter(|group| !here.has(*group)).collect(),
        };
        let mut parts = self.remote.parts(elsewhere, ask, budget, &self.meta).await?.into_iter().peekable();
        // A part's memory comes back as soon as it was looked at.
        let of_part = |part: Part<'_>, from_head: &mut dyn FnMut(&Head, &[Matcher]) -> T| HeadRead {
            group: part.group,
            flushed: part.flushed,
            table_version: part.table_version,
            found: from_head(&part.head, &[]),
        };
        let mut found = Vec::with_capacity(here.shards.len() + parts.len());
        for shard in &here.shards {
            let group = shard.group.id();
            while let Some(part) = parts.next_if(|part| part.group < group) {
                found.push(of_part(part, &mut from_head));
            }
            let state = shard.state.read();
            found.push(HeadRead {
                group,
                flushed: state.ledger.flushed,
                table_version: state.ledger.tables.get(ask.tenant.as_str()).copied(),
                found: from_head(&state.head, ask.matchers),
            });
        }
        found.extend(parts.map(|part| of_part(part, &mut from_head)));
        Ok(found)
    }

    /// The tenant's table, at least as new as what any head says it has flushed; `None` if there is none.
    pub(super) async fn table<T>(
        &self,
        tenant: &TenantId,
        heads: &[HeadRead<T>],
    ) -> Result<Option<Arc<TableSnapshot>>, Error> {
        let flushed = heads.iter().filter_map(|h| h.table_version).max();
        let state = match flushed {
            Some(version) => self.meta_with(tenant, version).await?,
            None => self.meta.current(),
        };
        let pending = state.tables.get(tenant).cloned();
        let decided = pending.as_ref().and_then(|t| t.version);
        let Some(version) = decided.max(flushed) else {
            // Nothing of this tenant was ever flushed: its name, which anybody may make up, is not remembered.
            return Ok(None);
        };
        let pending = move |v| pending.as_ref().and_then(|t| t.pending_at(v));
        self.tables.at(tenant, Some(version), pending).await.map(Some).map_err(storage)
    }

    /// Meta's state once it knows this version, whose content may be nowhere else yet.
    async fn meta_with(&self, tenant: &TenantId, version: u64) -> Result<Arc<meta::State>, Error> {
        let mut views = self.meta.clone();
        let waited = tokio::time::timeout(META_PATIENCE, views.table_at(tenant, version)).await;
        waited.ok().flatten().ok_or_else(|| {
            let what = format!("version {version} of the table of tenant {tenant} is not known to this node yet");
            Error::new(Kind::Unavailable, what)
        })
    }
}

/// The shards that may hold samples, ascending.
fn live_groups(state: &meta::State) -> impl Iterator<Item = GroupId> + '_ {
    state.epochs.iter().flat_map(|map| map.ids().map(|shard| shard_group(map.epoch, shard)))
}
