//! Parts of a plan that can be computed from some of the series, and merged.
//!
//! *Invariants:* nothing of the storage but the series of one request goes into a fragment, each series on its own, and none
//! of its nodes is used by anything else but the aggregation at its end.
//!
//! *Not here:* who computes them (`query::distribute`), what they come to (`exec::partial`).

use std::collections::HashSet;

use super::{NodeId, Op, Plan, RangeInput};

/// An aggregation of what is done to the series of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// First of the nodes below the aggregation.
    pub begin: NodeId,
    /// The aggregation.
    pub node: NodeId,
    /// Index into [`Plan::requests`]: nobody else reads it.
    pub request: usize,
}

impl Plan {
    /// All fragments, in the order of their aggregations. Linear in the size of the plan.
    pub fn fragments(&self) -> Vec<Fragment> {
        let shared: HashSet<NodeId> = self.shared.iter().map(|s| s.root).collect();
        let mut begins: Vec<u32> = Vec::with_capacity(self.nodes.len());
        let mut found = Vec::new();
        for (at, node) in (0u32..).zip(&self.nodes) {
            let mut begin = at;
            node.op.inputs(|input, _| begin = begin.min(begins[input.0 as usize]));
            // What it stands for is elsewhere.
            begins.push(if matches!(node.op, Op::Same(_)) { at } else { begin });
            if let Op::Aggregate { op, input, param: None, .. } = &node.op
                && op.merges()
                && let Some((leaf, request)) = self.leaf(*input)
                && (begin..at).map(NodeId).all(|id| !shared.contains(&id) && self.is_own(id, leaf))
            {
                found.push(Fragment { begin: NodeId(begin), node: NodeId(at), request });
            }
        }
        // What somebody else reads, too, has to be here as a whole anyway.
        let mut uses = vec![0; self.requests.len()];
        self.nodes.iter().filter_map(|node| node.op.request()).for_each(|request| uses[request] += 1);
        found.iter().for_each(|fragment| uses[fragment.request] -= 1);
        found.retain(|fragment| uses[fragment.request] == 0);
        found
    }

    /// The leaf of the pipeline that ends in a node, and its request, if series of the storage are streamed through it.
    fn leaf(&self, input: NodeId) -> Option<(NodeId, usize)> {
        let mut at = input;
        while self.node(at).streamed {
            match &self.node(at).op {
                Op::Select { request, .. } => return Some((at, *request)),
                Op::RangeCall { range, .. } => {
                    let RangeInput::Stored(request) = range.input else { return None };
                    return Some((at, request));
                }
                op => at = op.streams()?,
            }
        }
        None
    }

    /// Whether a node below an aggregation is part of its pipeline, which begins with `leaf`, or a scalar that needs no
    /// storage.
    fn is_own(&self, id: NodeId, leaf: NodeId) -> bool {
        let node = self.node(id);
        match &node.op {
            _ if id == leaf => true,
            op if node.streamed => op.streams().is_some(),
            Op::Number(_) | Op::String(_) | Op::Time | Op::Repeat(_) | Op::ScalarBinary { .. } | Op::Call { .. } => {
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::exec::{Engine, EngineOptions, Times};
    use super::*;
    use crate::model::StepGrid;
    use crate::promql::{ParseOptions, parse};

    /// Texts of the fragments of a query.
    fn fragments(query: &str) -> Vec<&str> {
        let ast = parse(query, ParseOptions::all()).unwrap();
        let times = Times::Range(StepGrid { start: 0, end: 600_000, step: 60_000 });
        let plan = Engine::new(EngineOptions::default()).plan(&ast, times).unwrap();
        let of = |f: &Fragment| {
            let span = plan.span(f.node);
            &query[span.start as usize..span.end as usize]
        };
        plan.fragments().iter().map(of).collect()
    }

    #[test]
    fn a_fragment_ends_with_the_innermost_aggregation_of_stored_series() {
        for (query, found) in [
            ("sum(a)", &["sum(a)"][..]),
            ("topk(3, sum by (x) (rate(a[5m])))", &["sum by (x) (rate(a[5m]))"]),
            ("sum(sum by (x) (a))", &["sum by (x) (a)"]),
            ("sum(a * 2 + time()) / sum(rate(b[1m]))", &["sum(a * 2 + time())", "sum(rate(b[1m]))"]),
            ("avg(clamp(-a, 1, pi()))", &["avg(clamp(-a, 1, pi()))"]),
            ("max without (x) (quantile_over_time(0.5, a[5m]))", &["max without (x) (quantile_over_time(0.5, a[5m]))"]),
            ("sum(a @ 100)", &["sum(a @ 100)"]),
            ("max_over_time(sum(a)[5m:1m])", &["sum(a)"]),
            ("sum(rate(a[5m])) / count(rate(a[5m]))", &["sum(rate(a[5m]))", "count(rate(a[5m]))"]),
            ("sum(a) / sum(a)", &["sum(a)"]),
        ] {
            assert_eq!(fragments(query), found, "{query}");
        }
    }

    #[test]
    fn what_needs_other_series_is_none() {
        for query in [
            "a",
            "topk(1, a)",
            "stddev(a)",
            "quantile(0.5, a)",
            "sum(a + b)",
            "sum(a * scalar(b))",
            "sum(a * scalar(sum(b)))",
            "sum(max_over_time(a[5m:1m]))",
            "sum(absent(a))",
            "sum(label_replace(a, \"x\", \"\", \"\", \"\"))",
            "sum(a) + a",
        ] {
            let expected: &[&str] = if query == "sum(a * scalar(sum(b)))" { &["sum(b)"] } else { &[] };
            assert_eq!(fragments(query), expected, "{query}");
        }
    }
}
