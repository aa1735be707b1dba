//! Look-ups in heads and blocks that need no samples: series, label names and values, metadata, exemplars.
//!
//! *Invariants:* everything found is charged to the query's budget before more is looked for. Lists are sorted and have
//! no duplicates.
//!
//! *Not here:* samples (`query::leaf`), limits of answers (`api`).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::budget::{QueryBudget, Steps};
use super::heads::Ask;
use super::leaf::{Leaf, storage};
use crate::block::BlockReader;
use crate::error::Error;
use crate::head::{Head, Want};
use crate::model::{Exemplar, Labels, Matcher, MetadataRow, TenantId, TimeRange};

/// What an entry of a sorted set or map takes besides its own bytes, about.
const NODE_BYTES: usize = 32;

/// Something that is found and takes memory.
trait Weighs {
    /// Heap bytes, those of its place in a list included.
    fn bytes(&self) -> usize;
}

impl Weighs for Labels {
    fn bytes(&self) -> usize {
        NODE_BYTES + self.heap_bytes()
    }
}

impl Weighs for String {
    fn bytes(&self) -> usize {
        NODE_BYTES + self.capacity()
    }
}

/// What was found so far.
struct Found<'a, T> {
    all: BTreeSet<T>,
    steps: Steps<'a>,
}

impl<T: Ord + Weighs> Found<'_, T> {
    fn extend(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), Error> {
        items.into_iter().try_for_each(|item| {
            let bytes = item.bytes();
            // What is there already costs nothing, and is looked at all the same: the query may be to stop.
            let new = self.all.insert(item);
            self.steps.charge(if new { bytes as u64 } else { 0 })
        })
    }
}

impl Found<'_, String> {
    fn extend_texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Result<(), Error> {
        texts.map(str::to_owned).try_for_each(|text| self.extend([text]))
    }
}

impl Leaf {
    /// Label sets that fulfil any of the selectors and have a sample in `range`.
    pub async fn series(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &QueryBudget,
    ) -> Result<BTreeSet<Labels>, Error> {
        let from_head = |head: &Head, matchers: &[Matcher], found: &mut Found<'_, Labels>| {
            found.extend(head.series_labels(tenant, matchers, range))
        };
        let from_block = |block: &BlockReader, matchers: &[Matcher], found: &mut Found<'_, Labels>| {
            found.extend(block.series(matchers, range).map(|(labels, _)| labels))
        };
        self.look_up(tenant, selectors, (range, Want::Labels), budget, from_head, from_block).await
    }

    /// Label names of those series (of all, without selectors).
    pub async fn label_names(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &QueryBudget,
    ) -> Result<BTreeSet<String>, Error> {
        let from_head = |head: &Head, matchers: &[Matcher], found: &mut Found<'_, String>| {
            found.extend(head.label_names(tenant, matchers, range))
        };
        let from_block = |block: &BlockReader, matchers: &[Matcher], found: &mut Found<'_, String>| {
            found.extend_texts(block.label_names(matchers, range))
        };
        self.look_up(tenant, selectors, (range, Want::Names), budget, from_head, from_block).await
    }

    /// Values of one label of those series.
    pub async fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &QueryBudget,
    ) -> Result<BTreeSet<String>, Error> {
        let from_head = |head: &Head, matchers: &[Matcher], found: &mut Found<'_, String>| {
            found.extend_texts(head.label_values(tenant, name, matchers, range))
        };
        let from_block = |block: &BlockReader, matchers: &[Matcher], found: &mut Found<'_, String>| {
            found.extend_texts(block.label_values(name, matchers, range))
        };
        self.look_up(tenant, selectors, (range, Want::Values(name)), budget, from_head, from_block).await
    }

    /// What heads and blocks say to each selector (to no condition, without selectors), together.
    async fn look_up<T: Ord + Weighs>(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        (range, want): (TimeRange, Want<'_>),
        budget: &QueryBudget,
        from_head: impl Fn(&Head, &[Matcher], &mut Found<'_, T>) -> Result<(), Error>,
        from_block: impl Fn(&BlockReader, &[Matcher], &mut Found<'_, T>) -> Result<(), Error>,
    ) -> Result<BTreeSet<T>, Error> {
        let here = self.barrier().await;
        let mut found = Found { all: BTreeSet::new(), steps: Steps::new(budget) };
        for matchers in &any_of(selectors, budget) {
            let ask = Ask { tenant, want, matchers, range };
            let in_heads = |head: &Head, matchers: &[Matcher]| from_head(head, matchers, &mut found);
            let (heads, blocks) = self.read(&here, ask, budget, in_heads).await?;
            heads.into_iter().collect::<Result<(), Error>>()?;
            for block in blocks {
                from_block(&*self.blocks.open(&block).await?, matchers, &mut found)?;
            }
        }
        // What patterns found is worth nothing once they gave up.
        budget.check()?;
        Ok(found.all)
    }

    /// What is known of a metric, or of all.
    pub async fn metadata(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        budget: &QueryBudget,
    ) -> Result<Vec<MetadataRow>, Error> {
        let (here, ask) = (self.barrier().await, Ask::all(tenant, Want::Metadata(metric)));
        let in_head = |head: &Head, _: &[Matcher]| {
            let rows = head.metadata(tenant, metric);
            // Texts are shared with the head.
            budget.charge((rows.len() * size_of::<MetadataRow>()) as u64).map(|()| rows)
        };
        let heads = self.read_heads(&here, ask, budget, in_head).await?;
        let rows = heads.into_iter().map(|h| h.found).collect::<Result<Vec<_>, Error>>()?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Exemplars in `range` of the series that fulfil any of the selectors, each once, by series and then by time.
    pub async fn exemplars(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &QueryBudget,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, Error> {
        let here = self.barrier().await;
        let mut all: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for matchers in selectors {
            budget.check()?;
            let matchers = &giving_up(matchers, budget);
            let ask = Ask { tenant, want: Want::Exemplars, matchers, range };
            let in_head = |head: &Head, matchers: &[Matcher]| head.exemplars(tenant, matchers, range);
            let (heads, blocks) = self.read(&here, ask, budget, in_head).await?;
            for one in heads.into_iter().flatten() {
                add_exemplars(&mut all, one.labels, one.exemplars, budget)?;
            }
            for block in blocks {
                let reader = self.blocks.open(&block).await?;
                for (labels, exemplars) in reader.exemplars(matchers, range).await.map_err(storage)? {
                    add_exemplars(&mut all, labels, exemplars, budget)?;
                }
            }
        }
        for exemplars in all.values_mut() {
            // A head keeps exemplars that were flushed, and selectors may meet in a series.
            exemplars.sort_by(|a, b| (a.t, &a.labels).cmp(&(b.t, &b.labels)).then(a.value.total_cmp(&b.value)));
            exemplars.dedup_by(|a, b| a.t == b.t && a.value.to_bits() == b.value.to_bits() && a.labels == b.labels);
        }
        Ok(all.into_iter().collect())
    }
}

fn add_exemplars(
    all: &mut BTreeMap<Labels, Vec<Exemplar>>,
    labels: Labels,
    exemplars: Vec<Exemplar>,
    budget: &QueryBudget,
) -> Result<(), Error> {
    let own: usize = exemplars.iter().map(|e| size_of::<Exemplar>() + e.labels.heap_bytes()).sum();
    budget.charge((labels.bytes() + own) as u64)?;
    all.entry(labels).or_default().extend(exemplars);
    Ok(())
}

/// Without selectors everything matches.
#[allow(clippy::mutable_key_type, reason = "matchers are told apart by name, comparison and value alone")]
fn any_of(selectors: &[Vec<Matcher>], budget: &QueryBudget) -> Vec<Vec<Matcher>> {
    if selectors.is_empty() {
        return vec![Vec::new()];
    }
    // Of the same ones one is enough.
    let mut known = HashSet::new();
    selectors.iter().filter(|m| known.insert(*m)).map(|m| giving_up(m, budget)).collect()
}

/// Matchers whose patterns give up when the query is to stop.
pub(super) fn giving_up(matchers: &[Matcher], budget: &QueryBudget) -> Vec<Matcher> {
    let stopped = budget.stopped();
    matchers.iter().map(|m| m.until(&stopped)).collect()
}
