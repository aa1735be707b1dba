//! Has aggregations evaluated where the heads are, and merges what comes back.
//!
//! *Invariants:* an answer is the same bit for bit, annotations included, as if everything had been evaluated here: whatever
//! stands in the way of that, or fails, makes the query go on as if nobody had been asked, and that way decides about
//! errors. Each shard is evaluated by one node. Whoever is asked is asked to stop once nobody waits. What comes is charged
//! to the query before it is unpacked.
//!
//! *Not here:* evaluating for others (`query::evaluate`), which aggregations merge (`promql::plan`), merging them
//! (`promql::exec`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use futures::stream::BoxStream;

use super::budget::QueryBudget;
use super::frontend::Evaluator;
use super::heads::Here;
use super::leaf::{InParts, Leaf};
use super::metrics::Distribution;
use super::partitions::{Partitions, only_map};
use super::pieces::unsqueeze;
use super::remote::{Held, PATIENCE, Refused, next, nodes_of};
use crate::error::{Error, HasKind, Kind};
use crate::meta;
use crate::model::{NodeId, ShardId};
use crate::peers::PeerError;
use crate::promql::exec::Times;
use crate::promql::exec::partial::{self, Partial, Partials, Reader, Shape};
use crate::promql::exec::result::QueryResult;
use crate::promql::plan::{Fragment, Op, Plan};
use crate::proto::v1::failure::Kind as FailureKind;
use crate::proto::v1::{EvaluatePiece, EvaluateRequest, Failure};

/// Asks a node.
pub type AskEvaluate =
    Arc<dyn Fn(NodeId, EvaluateRequest) -> BoxStream<'static, Result<EvaluatePiece, PeerError>> + Send + Sync>;

/// What is asked of others.
struct Asked<'a> {
    ask: &'a AskEvaluate,
    /// Without the shards.
    request: EvaluateRequest,
    shapes: Vec<Shape>,
    map: meta::ShardMap,
    budget: &'a QueryBudget,
}

impl Evaluator<'_> {
    /// Evaluates a plan with the help of nodes that have shards which are not here; `None` where that is of no use.
    pub(super) fn in_parts(&mut self, plan: &Plan, times: Times) -> Option<QueryResult> {
        let ask = self.source.leaf.evaluate.clone()?;
        let fragments = if self.engine.options().count_samples { Vec::new() } else { plan.fragments() };
        if fragments.is_empty() {
            return None;
        }
        let here = self.runtime.block_on(self.source.here());
        let (map, missing) = self.source.leaf.missing(here)?;
        let here = here.restricted(Partitions::of(map, |shard| !missing.contains(&shard)))?;
        let budget = &self.active.budget;
        let held = budget.held();
        let requests = fragments.iter().map(|f| &plan.requests[f.request]).collect();
        let asked = Asked {
            ask: &ask,
            request: self.request(plan, &fragments, map),
            shapes: shapes(plan, &fragments),
            map,
            budget,
        };
        let source = InParts { source: &self.source, here, requests };
        let fetched = async {
            let fetched = self.engine.fetch(&source, plan, &self.active.cancel).await;
            fetched.map_err(|e| Error::new(e.kind(), e.to_string()))
        };
        let both = async { futures::try_join!(fetched, self.source.leaf.ask_others(&asked, missing)) };
        let result = self.runtime.block_on(both).and_then(|(fetched, answers)| {
            self.active.spend(|s| s.prepare += self.lap.next());
            let (cancel, meter) = (&self.active.cancel, Arc::clone(budget) as _);
            let parts = (fetched, by_node(&fragments, answers));
            let result = self.engine.evaluate_with(plan, parts, times, cancel, Some(meter));
            result.map_err(|e| Error::new(e.kind(), e.to_string()))
        });
        match result {
            Ok(result) => {
                self.metrics.distributed(Distribution::Merged);
                Some(result)
            }
            Err(e) => {
                tracing::debug!(error = %e, "evaluated as a whole");
                self.metrics.distributed(Distribution::Whole);
                budget.settle(held);
                None
            }
        }
    }

    fn request(&self, plan: &Plan, fragments: &[Fragment], map: meta::ShardMap) -> EvaluateRequest {
        let (options, language) = (self.engine.options(), self.language);
        EvaluateRequest {
            version: partial::VERSION,
            tenant: self.source.tenant.as_str().to_owned(),
            query: self.ast.text.to_string(),
            start: plan.grid.start,
            end: plan.grid.end,
            step: plan.grid.step,
            lookback: options.lookback,
            experimental_functions: language.experimental_functions,
            extended_range_selectors: language.extended_range_selectors,
            fill_modifiers: language.fill_modifiers,
            delayed_name_removal: options.delayed_name_removal,
            use_start_timestamps: options.use_start_timestamps,
            type_and_unit_labels: options.type_and_unit_labels,
            nodes: fragments.iter().map(|f| f.node.0).collect(),
            epoch: map.epoch.0,
            shards: map.shards,
            of: Vec::new(),
            max_samples: options.limits.max_samples as u64,
            max_bytes: options.limits.max_bytes as u64,
        }
    }
}

/// The shapes of fragments' cells.
pub(super) fn shapes(plan: &Plan, fragments: &[Fragment]) -> Vec<Shape> {
    let shape = |f: &Fragment| match &plan.node(f.node).op {
        Op::Aggregate { op, .. } => Shape { op: *op, steps: plan.node(f.node).grid.len() },
        _ => unreachable!("BUG: a fragment ends with an aggregation"),
    };
    fragments.iter().map(shape).collect()
}

/// Answers, each of which has all fragments in order, by fragment.
fn by_node(fragments: &[Fragment], answers: Vec<Vec<Partial>>) -> Partials {
    let mut all: Partials = fragments.iter().map(|f| (f.node, Vec::new())).collect();
    for answer in answers {
        for (fragment, partial) in fragments.iter().zip(answer) {
            all.entry(fragment.node).or_default().push(partial);
        }
    }
    all
}

impl Leaf {
    /// The map of shards and those that have no replica here; `None` where all have, or where shards are no partitions.
    fn missing(&self, here: &Here) -> Option<(meta::ShardMap, BTreeSet<ShardId>)> {
        let map = only_map(&self.meta.current())?;
        let missing: BTreeSet<ShardId> = map.ids().filter(|s| !here.has(meta::shard_group(map.epoch, *s))).collect();
        (!missing.is_empty()).then_some((map, missing))
    }

    /// What others make of the shards that are missing here.
    async fn ask_others(&self, asked: &Asked<'_>, mut missing: BTreeSet<ShardId>) -> Result<Vec<Vec<Partial>>, Error> {
        let (mut answers, mut failed) = (Vec::new(), BTreeSet::new());
        while !missing.is_empty() {
            let shared = share(&self.meta.current(), asked.map, &missing, &failed)?;
            let asking =
                shared.into_iter().map(|(node, shards)| async move { (asked.ask(node, &shards).await, node, shards) });
            for (answer, node, shards) in join_all(asking).await {
                match answer {
                    Ok(answer) => {
                        missing.retain(|shard| !shards.contains(shard));
                        answers.push(answer);
                    }
                    Err(Refused::Everywhere(e)) => return Err(e),
                    Err(Refused::Elsewhere(e)) => {
                        tracing::debug!(%node, error = %e, "no part of a query");
                        failed.insert(node);
                    }
                }
            }
        }
        Ok(answers)
    }
}

/// Which node is asked for which shards: few nodes, and of those that have as many the one that is asked first for heads.
fn share(
    state: &meta::State,
    map: meta::ShardMap,
    missing: &BTreeSet<ShardId>,
    failed: &BTreeSet<NodeId>,
) -> Result<BTreeMap<NodeId, Vec<ShardId>>, Error> {
    let mut left = missing.clone();
    let mut shared = BTreeMap::new();
    while let Some(first) = left.first().copied() {
        let nodes_of = |shard: ShardId| nodes_of(state, meta::shard_group(map.epoch, shard), false);
        let has = |node: NodeId| left.iter().copied().filter(move |shard| nodes_of(*shard).contains(&node));
        let candidates = nodes_of(first).into_iter().filter(|node| !failed.contains(node));
        // Reversed: of equal ones the last is taken.
        let candidates: Vec<NodeId> = candidates.collect();
        let Some(node) = candidates.into_iter().rev().max_by_key(|node| has(*node).count()) else {
            return Err(Error::new(Kind::Unavailable, format!("no node evaluates shard {}", first.0)));
        };
        let shards: Vec<ShardId> = has(node).collect();
        left.retain(|shard| !shards.contains(shard));
        shared.insert(node, shards);
    }
    Ok(shared)
}

impl Asked<'_> {
    /// What a node makes of some shards.
    async fn ask(&self, node: NodeId, shards: &[ShardId]) -> Result<Vec<Partial>, Refused> {
        let of = shards.iter().map(|shard| shard.0).collect();
        let mut pieces = (self.ask)(node, EvaluateRequest { of, ..self.request.clone() });
        let mut held = Held::new(self.budget);
        let mut reader = Reader::new(self.shapes.clone());
        while let Some(piece) = next(&mut pieces, self.budget, PATIENCE[0]).await? {
            let piece = piece.map_err(|e| Refused::Elsewhere(Error::new(e.kind(), e.to_string())))?;
            if let Some(failure) = piece.failure {
                return Err(refused(node, &failure));
            }
            let bytes = piece.data.len() as u64 + u64::from(piece.raw_bytes);
            held.charge(bytes).map_err(Refused::Everywhere)?;
            let data = unsqueeze(&piece.data, piece.raw_bytes).map_err(|e| unreadable(node, &e))?;
            reader.read(&data, &mut |bytes| held.charge(bytes as u64)).map_err(Refused::Everywhere)?;
            held.release(bytes);
        }
        let partials = reader.finish().map_err(|e| Refused::Elsewhere(Error::new(Kind::Unavailable, e.to_string())))?;
        self.check(&partials, shards).map_err(|e| unreadable(node, &e))?;
        held.keep();
        Ok(partials)
    }

    /// That all cells are of shards that were asked for.
    fn check(&self, partials: &[Partial], shards: &[ShardId]) -> Result<(), String> {
        for (partial, shape) in partials.iter().zip(&self.shapes) {
            let asked = |partition: u32| match shape.op.depends_on_order() {
                true => shards.contains(&ShardId(partition)),
                false => partition == 0,
            };
            if let Some(row) = partial.rows.iter().find(|row| !asked(row.partition)) {
                return Err(format!("shard {} was not asked for", row.partition));
            }
        }
        Ok(())
    }
}

fn unreadable(node: NodeId, e: &dyn std::fmt::Display) -> Refused {
    Refused::Everywhere(Error::new(
        Kind::Corrupt,
        format!("node {node} sent a part of a query that cannot be read: {e}"),
    ))
}

/// What a failure says about asking others.
fn refused(node: NodeId, failure: &Failure) -> Refused {
    let error = Error::new(Kind::Unavailable, format!("node {node}: {}", failure.message));
    match failure.kind() {
        FailureKind::Unavailable | FailureKind::NotFound => Refused::Elsewhere(error),
        _ => Refused::Everywhere(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Placement, ShardMap, shard_group};
    use crate::model::Epoch;
    use crate::raft::ReplicaId;

    /// Shards by the nodes that have them.
    fn state(placed: &[&[u64]]) -> (meta::State, ShardMap) {
        let map = ShardMap { epoch: Epoch(1), shards: placed.len() as u32 };
        let mut state = meta::State { epochs: vec![map], ..meta::State::default() };
        for (shard, nodes) in map.ids().zip(placed) {
            let replicas = nodes.iter().map(|n| (ReplicaId(u64::from(shard.0) * 10 + n), NodeId(*n))).collect();
            state.groups.insert(shard_group(map.epoch, shard), Placement { replicas, ..Placement::default() });
        }
        (state, map)
    }

    fn shared(placed: &[&[u64]], missing: &[u32], failed: &[u64]) -> Result<Vec<(u64, Vec<u32>)>, String> {
        let (state, map) = state(placed);
        let missing = missing.iter().copied().map(ShardId).collect();
        let failed = failed.iter().copied().map(NodeId).collect();
        let shared = share(&state, map, &missing, &failed).map_err(|e| e.message)?;
        Ok(shared.into_iter().map(|(node, shards)| (node.0, shards.iter().map(|s| s.0).collect())).collect())
    }

    #[test]
    fn as_few_nodes_are_asked_as_have_all_shards_and_each_shard_once() {
        let placed: [&[u64]; 4] = [&[1, 2], &[2, 3], &[3, 4], &[2, 4]];
        assert_eq!(shared(&placed, &[0, 1, 3], &[]).unwrap(), [(2, vec![0, 1, 3])]);
        let two = shared(&placed, &[0, 1, 2, 3], &[]).unwrap();
        assert_eq!(two.len(), 2);
        let mut all: Vec<u32> = two.into_iter().flat_map(|(_, shards)| shards).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }

    #[test]
    fn a_node_that_failed_is_not_asked_again_and_a_shard_without_another_one_is_an_error() {
        let placed: [&[u64]; 2] = [&[1, 2], &[2, 3]];
        assert_eq!(shared(&placed, &[0, 1], &[2]).unwrap(), [(1, vec![0]), (3, vec![1])]);
        assert_eq!(shared(&placed, &[0, 1], &[2, 3]).unwrap_err(), "no node evaluates shard 1");
        assert_eq!(shared(&[&[]], &[0], &[]).unwrap_err(), "no node evaluates shard 0");
    }
}
