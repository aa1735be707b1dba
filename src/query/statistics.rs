//! What a tenant's recent series are made of: which metrics and labels there are most of.
//!
//! *Invariants:* a series is in one shard only, so numbers of series add up; values of a label are counted once however
//! many shards know them.
//!
//! *Not here:* series of blocks alone: they cost no memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

use super::budget::{QueryBudget, Steps};
use super::heads::Ask;
use super::leaf::Leaf;
use super::lookup::giving_up;
use crate::error::Error;
use crate::head::{Head, Want};
use crate::model::{METRIC_NAME, Matcher, TenantId, TimeRange};
use crate::store::catalog::snapshot::Block;

/// A name and its number.
pub type Ranked = (String, u64);

/// Figures of the heads of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Series.
    pub series: u64,
    /// Distinct pairs of label name and value.
    pub label_pairs: u64,
    /// Chunks.
    pub chunks: u64,
    /// From the oldest sample of the heads to the newest of the tenant, milliseconds.
    pub range: Option<TimeRange>,
    /// Metrics with the most series.
    pub series_by_metric: Vec<Ranked>,
    /// Label names with the most values.
    pub values_by_label: Vec<Ranked>,
    /// Label names with the most bytes of values, counted for each series.
    pub bytes_by_label: Vec<Ranked>,
    /// Label pairs (`name=value`) with the most series.
    pub series_by_pair: Vec<Ranked>,
}

/// Values of one label name, with the number of series of each.
pub type Values = HashMap<String, u64, FixedState>;

/// Series by label name and value.
#[derive(Debug, Default)]
pub struct LabelCounts {
    /// Series of the selection.
    pub series: u64,
    /// By name and value.
    pub names: HashMap<String, Values, FixedState>,
}

impl LabelCounts {
    /// Adds what a head knows; its series are in no other.
    fn add(&mut self, head: &Head, tenant: &TenantId, matchers: &[Matcher], budget: &QueryBudget) -> Result<(), Error> {
        let matchers = &giving_up(matchers, budget);
        self.series += head.count(tenant, matchers);
        let mut steps = Steps::new(budget);
        head.label_pairs(tenant, matchers).try_for_each(|(name, value, series)| {
            match self.names.entry_ref(name).or_default().entry_ref(value) {
                EntryRef::Occupied(known) => {
                    *known.into_mut() += series;
                    steps.charge(0)
                }
                EntryRef::Vacant(new) => {
                    new.insert(series);
                    steps.charge((size_of::<(String, u64)>() * 2 + value.len()) as u64)
                }
            }
        })
    }
}

impl Leaf {
    /// The figures of a tenant, with the `top` first of each list.
    pub async fn statistics(&self, tenant: &TenantId, top: usize, budget: &QueryBudget) -> Result<Statistics, Error> {
        let (here, ask) = (self.barrier().await, Ask::all(tenant, Want::Counts));
        let mut out = Statistics::default();
        let mut labels = LabelCounts::default();
        let in_head = |head: &Head, _: &[Matcher]| {
            let Some(stats) = head.tenant_stats(tenant).filter(|s| s.series > 0) else { return Ok(()) };
            out.series += stats.series as u64;
            out.chunks += head.chunks(tenant);
            if let Some(oldest) = head.windows().iter().map(|w| w.min_t).min() {
                let before = out.range.unwrap_or(TimeRange::new(oldest, stats.newest_t));
                out.range = Some(TimeRange::new(before.start.min(oldest), before.end.max(stats.newest_t)));
            }
            labels.add(head, tenant, &[], budget)
        };
        let heads = self.read_heads(&here, ask, budget, in_head).await?;
        heads.into_iter().try_for_each(|h| h.found)?;
        rank(&labels.names, top, &mut out);
        Ok(out)
    }

    /// Series of the heads that fulfil all matchers, by label name and value.
    pub async fn label_counts(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        budget: &QueryBudget,
    ) -> Result<LabelCounts, Error> {
        let here = self.barrier().await;
        let ask = Ask { matchers, ..Ask::all(tenant, Want::Counts) };
        let mut counts = LabelCounts::default();
        let in_head = |head: &Head, matchers: &[Matcher]| counts.add(head, tenant, matchers, budget);
        let heads = self.read_heads(&here, ask, budget, in_head).await?;
        heads.into_iter().try_for_each(|h| h.found)?;
        Ok(counts)
    }

    /// The blocks of a tenant's table, by first timestamp.
    pub async fn blocks_of(&self, tenant: &TenantId, budget: &QueryBudget) -> Result<Vec<Arc<Block>>, Error> {
        let (here, ask) = (self.barrier().await, Ask::all(tenant, Want::Tenant));
        Ok(self.read(&here, ask, budget, |_, _| ()).await?.1)
    }
}

fn rank(labels: &HashMap<String, Values, FixedState>, top: usize, out: &mut Statistics) {
    let each = |of: &dyn Fn(&str, &Values) -> u64| {
        highest(labels.iter().map(|(name, values)| (name.clone(), of(name, values))), top)
    };
    out.label_pairs = labels.values().map(|v| v.len() as u64).sum();
    out.values_by_label = each(&|_, values| values.len() as u64);
    out.bytes_by_label = each(&|_, values| values.iter().map(|(value, n)| value.len() as u64 * n).sum());
    let metrics = labels.get(METRIC_NAME).into_iter().flatten();
    // Texts are made for those that are shown only.
    let metrics = highest(metrics.map(|(value, n)| (value, *n)), top).into_iter();
    out.series_by_metric = metrics.map(|(value, n)| (value.clone(), n)).collect();
    let pairs = labels.iter().flat_map(|(name, values)| values.iter().map(move |(value, n)| ((name, value), *n)));
    let pairs = highest(pairs, top).into_iter();
    out.series_by_pair = pairs.map(|((name, value), n)| (format!("{name}={value}"), n)).collect();
}

/// The `top` with the highest numbers, highest first, then by name.
pub fn highest<K: Ord>(all: impl Iterator<Item = (K, u64)>, top: usize) -> Vec<(K, u64)> {
    let mut heap = BinaryHeap::with_capacity(top + 1);
    for (key, n) in all {
        // The lowest comes off first.
        heap.push((Reverse(n), key));
        if heap.len() > top {
            heap.pop();
        }
    }
    heap.into_sorted_vec().into_iter().map(|(n, key)| (key, n.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_come_first_and_equal_ones_by_name() {
        let all = [("a", 1), ("d", 3), ("c", 2), ("b", 2), ("e", 0)];
        assert_eq!(highest(all.into_iter(), 3), [("d", 3), ("b", 2), ("c", 2)]);
        assert_eq!(highest(all.into_iter(), 0), []);
    }
}
