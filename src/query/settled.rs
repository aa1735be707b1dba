//! Up to when a tenant's samples are final.
//!
//! *Invariants:* what a read that begins after [`Leaf::settled`] finds at or before `until` is all there will ever be, as
//! long as `history` stays the same. A history that is over does not come back, and within one `until` only grows.
//!
//! *Not here:* what is made of it (`query::results_cache`), refusing late samples (`head::append`).

use super::budget::QueryBudget;
use super::heads::Ask;
use super::leaf::Leaf;
use crate::error::Error;
use crate::head::{Head, Want};
use crate::model::{Matcher, TenantId};

/// What a tenant's settled samples stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Shards whose head knows the tenant; one that does not would still take any sample. They never forget one.
    pub shards: usize,
    /// The version of the tenant's table that last changed its past.
    pub table: Option<u64>,
}

/// How far the samples of a tenant are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Samples up to this time are final, milliseconds.
    pub until: i64,
    /// As long as this holds.
    pub history: History,
}

impl Leaf {
    /// How far the samples of a tenant are settled now.
    pub async fn settled(&self, tenant: &TenantId, budget: &QueryBudget) -> Result<Settled, Error> {
        // A shard whose first sample of the tenant was acknowledged before the query must not be overlooked.
        let (here, ask) = (self.barrier().await, Ask::all(tenant, Want::Tenant));
        let newest = |head: &Head, _: &[Matcher]| head.tenant_stats(tenant).map(|stats| stats.newest_t);
        let heads = self.read_heads(&here, ask, budget, newest).await?;
        let table = self.table(tenant, &heads).await?.and_then(|table| table.history());
        let known = || heads.iter().filter_map(|head| head.found);
        let late = self.config.limits_of(tenant).out_of_order_time_window.as_millis() as i64;
        // A head takes what is as late as the limit says, and nothing that is later.
        let until = known().min().map_or(i64::MIN, |newest| newest.saturating_sub(late).saturating_sub(1));
        Ok(Settled { until, history: History { shards: known().count(), table } })
    }
}
