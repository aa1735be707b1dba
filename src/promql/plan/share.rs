//! Equal parts of a plan: found, and evaluated once.
//!
//! *Invariants:* two nodes are equal if operation, steps, inputs and the places of everything below relative to their own
//! are: then their values are the same bit for bit, and what they have to say differs in position only. A node is shared
//! only where all that stands below it is computed into a value anyway: series that are streamed into an aggregation are
//! not kept just to be used again. Linear in the size of the plan.
//!
//! *Not here:* requests to storage, which are never asked twice (`build`), values and annotations (`exec::shared`).
//!
//! Kept apart on purpose: plans whose samples are counted (`stats`), where Prometheus counts each place.

use std::collections::HashMap;

use super::{NodeId, Op, Pick, Plan, PlanNode, RangeInput, RangeVector, Shared};
use crate::model::{Matcher, StepGrid};
use crate::promql::ast::Matching;
use crate::promql::functions::window::Windows;
use crate::promql::position::Span;

/// Puts [`Op::Same`] in the place of every part that an earlier one is equal to.
pub(super) fn share(plan: &mut Plan) {
    let mut sharing = Sharing { nodes: Vec::with_capacity(plan.nodes.len()), ..Sharing::default() };
    // Where nodes went.
    let mut moved: Vec<NodeId> = Vec::with_capacity(plan.nodes.len());
    for mut node in std::mem::take(&mut plan.nodes) {
        node.op.inputs_mut(|input| *input = moved[input.0 as usize]);
        moved.push(sharing.push(node));
    }
    plan.root = moved[plan.root.0 as usize];
    plan.shared = sharing.shared();
    plan.nodes = sharing.nodes;
}

#[derive(Default)]
struct Sharing {
    nodes: Vec<PlanNode>,
    /// Of each node: where the part it is the root of begins, and what it is equal to.
    parts: Vec<Part>,
    classes: HashMap<Box<[u8]>, u32>,
    /// The first node of each class that has a value.
    first: Vec<Option<NodeId>>,
    key: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Part {
    begin: u32,
    class: u32,
}

impl Sharing {
    fn push(&mut self, node: PlanNode) -> NodeId {
        let at = self.nodes.len() as u32;
        let mut begin = at;
        node.op.inputs(|input, _| begin = begin.min(self.parts[input.0 as usize].begin));
        let class = self.class_of(&node);
        let has_value = !node.streamed && !matches!(node.op, Op::Number(_) | Op::String(_) | Op::Time);
        match &mut self.first[class as usize] {
            Some(of) if has_value => {
                let same = PlanNode { op: Op::Same(*of), streamed: false, ..node };
                // A part is a run of nodes that ends with its root, and all of this one is in the other, too.
                self.nodes.truncate(begin as usize);
                self.parts.truncate(begin as usize);
                self.nodes.push(same);
            }
            first => {
                if has_value {
                    *first = Some(NodeId(at));
                }
                self.nodes.push(node);
            }
        }
        self.parts.push(Part { begin, class });
        NodeId(self.nodes.len() as u32 - 1)
    }

    fn class_of(&mut self, node: &PlanNode) -> u32 {
        let mut key = Key { bytes: std::mem::take(&mut self.key), begin: node.span.start };
        key.bytes.clear();
        key.node(node, |input| (self.parts[input.0 as usize].class, self.nodes[input.0 as usize].span));
        self.key = key.bytes;
        if let Some(class) = self.classes.get(&*self.key) {
            return *class;
        }
        let class = self.first.len() as u32;
        self.classes.insert(self.key.as_slice().into(), class);
        self.first.push(None);
        class
    }

    /// Nodes that are used again, by where their parts begin.
    fn shared(&self) -> Vec<Shared> {
        let mut uses: HashMap<NodeId, u32> = HashMap::new();
        for node in &self.nodes {
            if let Op::Same(of) = node.op {
                *uses.entry(of).or_default() += 1;
            }
        }
        let of =
            |(root, again): (NodeId, u32)| Shared { begin: NodeId(self.parts[root.0 as usize].begin), root, again };
        let mut shared: Vec<Shared> = uses.into_iter().map(of).collect();
        shared.sort_by_key(|s| (s.begin, std::cmp::Reverse(s.root)));
        shared
    }
}

/// Everything that makes one operation differ from another, as bytes. All fields are named: whoever adds one is asked.
struct Key {
    bytes: Vec<u8>,
    /// Where the node stands: places are relative to that.
    begin: u32,
}

impl Key {
    fn node(&mut self, node: &PlanNode, class_of: impl Fn(NodeId) -> (u32, Span)) {
        let PlanNode { op, grid, span, streamed: _ } = node;
        self.span(*span);
        self.grid(grid);
        op.inputs(|input, _| {
            let (class, span) = class_of(input);
            self.number(i64::from(class));
            self.span(span);
        });
        self.op(op);
    }

    /// What an operation is apart from its inputs.
    fn op(&mut self, op: &Op) {
        match op {
            Op::Number(v) => self.tag(0).float(*v),
            Op::String(text) => self.tag(1).text(text),
            Op::Time => self.tag(2),
            Op::Select { request, windows, pick } => self.tag(3).request(*request).windows(windows).pick(*pick),
            Op::Matrix(range) => self.tag(4).range(range),
            Op::RangeCall { function, range, params } => {
                self.tag(5).number(*function as i64).number(params.len() as i64).range(range)
            }
            Op::Repeat(_) => self.tag(6),
            // It has the class of the node it stands for, and is no input of its own.
            Op::Same(of) => self.tag(7).number(i64::from(of.0)),
            Op::Negate(_) => self.tag(8),
            Op::ScalarBinary { op, lhs: _, rhs: _ } => self.tag(9).number(*op as i64),
            Op::VectorScalar { op, vector: _, scalar: _, scalar_left, return_bool } => {
                self.tag(10).number(*op as i64).flag(*scalar_left).flag(*return_bool)
            }
            Op::VectorBinary { op, lhs: _, rhs: _, return_bool, matching } => {
                self.tag(11).number(*op as i64).flag(*return_bool).matching(matching)
            }
            Op::Aggregate { op, input: _, param, grouping, without } => {
                let labels = grouping.iter().map(|name| &**name);
                self.tag(12).number(*op as i64).flag(param.is_some()).flag(*without).texts(labels)
            }
            Op::Absent { input: _, labels } => self.tag(13).text(labels.canonical().as_bytes()),
            Op::Info { input: _, info: _, matchers } => self.tag(14).matchers(matchers),
            Op::Call { function, args } => self.tag(15).number(*function as i64).number(args.len() as i64),
        };
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.bytes.push(tag);
        self
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.tag(u8::from(flag))
    }

    fn number(&mut self, n: i64) -> &mut Self {
        self.bytes.extend_from_slice(&n.to_le_bytes());
        self
    }

    fn request(&mut self, request: usize) -> &mut Self {
        self.number(request as i64)
    }

    /// By its bits: −0 is not 0, and one NaN equals itself.
    fn float(&mut self, v: f64) -> &mut Self {
        self.number(v.to_bits() as i64)
    }

    fn optional(&mut self, n: Option<i64>) -> &mut Self {
        self.flag(n.is_some()).number(n.unwrap_or_default())
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        self.number(text.len() as i64);
        self.bytes.extend_from_slice(text);
        self
    }

    fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) -> &mut Self {
        self.number(texts.len() as i64);
        texts.for_each(|text| {
            self.text(text.as_bytes());
        });
        self
    }

    fn span(&mut self, span: Span) -> &mut Self {
        let begin = i64::from(self.begin);
        self.number(i64::from(span.start) - begin).number(i64::from(span.end) - begin)
    }

    fn grid(&mut self, grid: &StepGrid) -> &mut Self {
        let StepGrid { start, end, step } = grid;
        self.number(*start).number(*end).number(*step)
    }

    fn windows(&mut self, windows: &Windows) -> &mut Self {
        let Windows { grid, offset, range, at, before, after } = windows;
        self.grid(grid).number(*offset).number(*range).optional(*at).number(*before).number(*after)
    }

    fn pick(&mut self, pick: Pick) -> &mut Self {
        self.tag(pick as u8)
    }

    fn range(&mut self, range: &RangeVector) -> &mut Self {
        let RangeVector { input, windows, anchored, smoothed, totals, span, absent } = range;
        match input {
            RangeInput::Stored(request) => self.tag(0).request(*request),
            // Its class is among those of the inputs.
            RangeInput::Subquery(_) => self.tag(1),
        };
        self.windows(windows).flag(*anchored).flag(*smoothed).flag(*totals).span(*span);
        self.text(absent.canonical().as_bytes())
    }

    fn matching(&mut self, matching: &Matching) -> &mut Self {
        let Matching { cardinality, on, labels, include, fill_left, fill_right } = matching;
        let bits = |v: &Option<f64>| v.map(|v| v.to_bits() as i64);
        self.tag(*cardinality as u8).flag(*on).optional(bits(fill_left)).optional(bits(fill_right));
        self.texts(labels.iter().map(|name| &**name)).texts(include.iter().map(|name| &**name))
    }

    fn matchers(&mut self, matchers: &[Matcher]) -> &mut Self {
        self.number(matchers.len() as i64);
        for m in matchers {
            self.text(m.name.as_bytes()).tag(m.op as u8).text(m.value.as_bytes());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PlanOptions, build};
    use super::*;
    use crate::promql::{ParseOptions, parse};

    fn plan(query: &str) -> Plan {
        let ast = parse(query, ParseOptions::all()).unwrap();
        let grid = StepGrid { start: 0, end: 600_000, step: 60_000 };
        build(&ast, grid, PlanOptions { lookback: 300_000, subquery_step: 60_000, share: true })
    }

    /// Requests, and nodes that are used again, with the number of their uses.
    fn shape(query: &str) -> (usize, Vec<u32>) {
        let plan = plan(query);
        for (i, node) in plan.nodes.iter().enumerate() {
            node.op.inputs(|input, _| assert!((input.0 as usize) < i, "{query}: {node:?}"));
        }
        (plan.requests.len(), plan.shared.iter().map(|s| s.again).collect())
    }

    #[test]
    fn the_largest_equal_parts_are_shared() {
        for (query, requests, again) in [
            ("a + a", 1, vec![1]),
            ("a + (a) + a", 1, vec![2]),
            ("sum(rate(a[5m])) / sum(rate(a[5m]))", 1, vec![1]),
            ("sum by (x) (a) / on () group_left () sum by (y) (a)", 1, vec![]),
            ("(a + b) * (a + b) - (a + b) * (a + b)", 2, vec![1, 1]),
            ("max_over_time((a - b)[10m:]) - min_over_time((a - b)[10m:])", 2, vec![1]),
            ("abs(a - b) < ceil(a - b)", 2, vec![1]),
            ("a * scalar(b) + c * scalar(b)", 3, vec![1]),
            ("topk(3, a) or bottomk(3, a)", 1, vec![1]),
            ("time() + time()", 0, vec![]),
        ] {
            assert_eq!(shape(query), (requests, again), "{query}");
        }
    }

    #[test]
    fn what_is_streamed_shares_its_request_only() {
        assert_eq!(shape("sum(rate(a[5m])) / count(rate(a[5m]))"), (1, vec![]));
        assert_eq!(shape("rate(a[5m]) / on () group_left () sum(rate(a[5m]))"), (1, vec![]));
    }

    #[test]
    fn what_looks_alike_is_not_confused() {
        for (query, requests) in [
            ("a + a offset 5m", 2),
            ("a @ 100 + a", 2),
            ("a @ 100 + a @ 200", 2),
            ("sum(a) + sum(a offset 5m)", 2),
            (r#"a{x="1"} + a{x!="1"}"#, 2),
            (r#"a{x="1"} + a{x=~"1"}"#, 2),
            ("rate(a[5m]) + rate(a[6m])", 2),
            ("rate(a[5m]) + increase(a[5m])", 1),
            ("a + fill(0) b - (a + fill(-0) b)", 2),
            ("clamp(a, 0, 1) + clamp(a, -0, 1)", 1),
            ("quantile(0.5, a) + quantile(0.6, a)", 1),
            ("histogram_count(a) + histogram_quantile(0.5, a)", 1),
            ("max_over_time(sum(a)[10m:1m]) + sum(a)", 2),
        ] {
            let plan = plan(query);
            let found = (plan.requests.len(), plan.shared.iter().filter(|s| !is_selector(&plan, s.root)).count());
            assert_eq!(found, (requests, 0), "{query}");
        }
    }

    fn is_selector(plan: &Plan, id: NodeId) -> bool {
        matches!(plan.node(id).op, Op::Select { .. })
    }

    #[test]
    fn a_hundred_thousand_equal_terms_are_one_request_and_one_node_more_each() {
        let plan = plan(&vec!["a"; 100_000].join(" + "));
        assert_eq!((plan.requests.len(), plan.shared[0].again), (1, 99_999));
        assert_eq!(plan.nodes.len(), 199_999);
        let deep = format!("{}a{}", "abs(".repeat(5_000), ")".repeat(5_000));
        assert_eq!(shape(&format!("{deep} + {deep}")), (1, vec![1]));
    }
}
