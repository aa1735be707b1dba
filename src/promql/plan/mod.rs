//! The logical plan of a query: what is computed on which steps, with everything about time resolved.
//!
//! *Invariants:* a node stands after its inputs, so that evaluating `nodes` in order needs no recursion, and is the input
//! of at most one other that is no [`Op::Same`]. The nodes below a node are those right before it. No request is asked
//! twice, and of equal parts only the first is evaluated. `start()`, `end()`, `range()`, `step()`, `@` and offsets are gone: windows say absolute times.
//! What does not depend on the step is evaluated on one step and repeated by [`Op::Repeat`].
//! No label set of stored data is part of a plan.
//!
//! *Not here:* how a node is computed (`exec`), what runs on which node (`query::distribute`).

mod build;
mod fragment;
mod inputs;
mod invariant;
mod share;
mod totals;

use std::sync::Arc;

use super::ast::Matching;
use super::functions::window::Windows;
use super::operator::{AggregateOp, BinaryOp};
use super::position::Span;
use super::signature::FunctionName;
use super::source::SelectRequest;
use super::value_type::ValueType;
use crate::model::{Labels, Matcher, StepGrid};

pub use build::build;
pub use fragment::Fragment;

/// A node of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// What has to be known to plan a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanOptions {
    /// How old the newest sample of a series may be to count as present, milliseconds.
    pub lookback: i64,
    /// Step of subqueries that name none, milliseconds.
    pub subquery_step: i64,
    /// Equal parts are evaluated once.
    pub share: bool,
}

/// A planned query.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Inputs before what uses them.
    pub nodes: Vec<PlanNode>,
    /// The node whose value is the answer.
    pub root: NodeId,
    /// Type of the answer.
    pub value_type: ValueType,
    /// Steps of the query.
    pub grid: StepGrid,
    /// What is asked of storage, each thing once; nodes refer to it by index.
    pub requests: Vec<SelectRequest>,
    /// Nodes that [`Op::Same`] refers to, by `begin`, the larger part first.
    pub shared: Vec<Shared>,
    /// The query's text: spans point into it.
    pub text: Arc<str>,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct PlanNode {
    /// What is done.
    pub op: Op,
    /// The steps it is done on.
    pub grid: StepGrid,
    /// Its place in the text.
    pub span: Span,
    /// Computed series by series inside of the node that uses it, never held as a whole.
    pub streamed: bool,
}

/// A node whose value is used more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// First of the nodes below it.
    pub begin: NodeId,
    /// The node.
    pub root: NodeId,
    /// How often its value is used again.
    pub again: u32,
}

/// What a selector yields for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The newest sample within the lookback.
    Value,
    /// The timestamp of that sample, seconds (`timestamp(selector)`).
    Timestamp,
    /// The start timestamp of that sample, seconds (`start_timestamp(selector)`).
    StartTimestamp,
    /// As `Timestamp`, but a histogram stays one: info metrics must not have any.
    InfoTimestamp,
    /// A value on the line between the neighbours (`smoothed`).
    Smoothed,
    /// As `Value`, but of a histogram only count and sum are wanted.
    Totals,
}

/// Where the samples of a range function come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RangeInput {
    /// Stored series: an index into [`Plan::requests`].
    Stored(usize),
    /// The steps of a subquery.
    Subquery(NodeId),
}

/// A range vector: samples and the windows over them.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeVector {
    /// Samples.
    pub input: RangeInput,
    /// Windows.
    pub windows: Windows,
    /// `anchored`.
    pub anchored: bool,
    /// `smoothed`.
    pub smoothed: bool,
    /// Of histograms only count and sum are wanted.
    pub totals: bool,
    /// Its place in the text.
    pub span: Span,
    /// Labels of `absent_over_time`: those the selector pins to one value.
    pub absent: Labels,
}

/// An operation on the values of other nodes.
#[derive(Debug, Clone)]
pub enum Op {
    /// A scalar.
    Number(f64),
    /// A string.
    String(Box<[u8]>),
    /// `time()`: the step, seconds.
    Time,
    /// Instant vector selector; `windows.range` is the lookback.
    Select {
        /// Index into [`Plan::requests`].
        request: usize,
        /// Steps and lookback.
        windows: Windows,
        /// What is taken of the sample.
        pick: Pick,
    },
    /// A range vector as the answer of an instant query.
    Matrix(RangeVector),
    /// A function of a range vector.
    RangeCall {
        /// Which.
        function: FunctionName,
        /// Its range vector.
        range: RangeVector,
        /// Its scalars in order.
        params: Vec<NodeId>,
    },
    /// The value of a node with one step, on every step.
    Repeat(NodeId),
    /// The value of an earlier node that stands for the same expression at another place of the text; what that node and
    /// those below it had to say is said again about this place.
    Same(NodeId),
    /// `-v`.
    Negate(NodeId),
    /// An operator on two scalars.
    ScalarBinary {
        /// Operator.
        op: BinaryOp,
        /// Left operand.
        lhs: NodeId,
        /// Right operand.
        rhs: NodeId,
    },
    /// An operator on a vector and a scalar.
    VectorScalar {
        /// Operator.
        op: BinaryOp,
        /// The vector.
        vector: NodeId,
        /// The scalar.
        scalar: NodeId,
        /// The scalar is the left operand.
        scalar_left: bool,
        /// `bool`.
        return_bool: bool,
    },
    /// An operator on two vectors, set operators included.
    VectorBinary {
        /// Operator.
        op: BinaryOp,
        /// Left operand.
        lhs: NodeId,
        /// Right operand.
        rhs: NodeId,
        /// `bool`.
        return_bool: bool,
        /// How series are paired.
        matching: Matching,
    },
    /// An aggregation.
    Aggregate {
        /// Operator.
        op: AggregateOp,
        /// What is aggregated.
        input: NodeId,
        /// Parameter (a string for `count_values`).
        param: Option<NodeId>,
        /// Grouping labels, sorted.
        grouping: Vec<Arc<str>>,
        /// `without` rather than `by`.
        without: bool,
    },
    /// `absent(v)`.
    Absent {
        /// The vector.
        input: NodeId,
        /// Labels the selector pins to one value.
        labels: Labels,
    },
    /// `info(v, selector)`.
    Info {
        /// The vector.
        input: NodeId,
        /// Info series: the timestamps of their samples.
        info: NodeId,
        /// The selector's conditions.
        matchers: Vec<Matcher>,
    },
    /// Any other function.
    Call {
        /// Which.
        function: FunctionName,
        /// Arguments in order.
        args: Vec<NodeId>,
    },
}

impl Plan {
    /// A node.
    pub fn node(&self, id: NodeId) -> &PlanNode {
        &self.nodes[id.0 as usize]
    }

    /// Place of a node in the text.
    pub fn span(&self, id: NodeId) -> Span {
        self.node(id).span
    }

    /// Heap bytes held, besides what it shares with the tree.
    pub fn heap_bytes(&self) -> usize {
        let matchers: usize = self.requests.iter().map(|r| size_of_val(&*r.matchers)).sum();
        size_of::<PlanNode>() * self.nodes.capacity() + size_of::<SelectRequest>() * self.requests.capacity() + matchers
    }

    /// Whether the query has one step only.
    pub fn is_instant(&self) -> bool {
        self.grid.start == self.grid.end
    }
}

impl Op {
    /// The vector this operation turns series by series into another, if it does nothing else.
    pub fn streams(&self) -> Option<NodeId> {
        match self {
            Self::Negate(input) | Self::VectorScalar { vector: input, .. } => Some(*input),
            Self::Call { function, args } if is_series_wise(*function) => args.first().copied(),
            _ => None,
        }
    }
}

/// Whether a function turns each series of its first argument into one, each sample on its own.
fn is_series_wise(function: FunctionName) -> bool {
    use super::functions::{math, time};
    use FunctionName as F;
    math::unary(function).is_some()
        || time::calendar(function).is_some()
        || matches!(function, F::Round | F::Clamp | F::ClampMin | F::ClampMax | F::Timestamp | F::StartTimestamp)
        || matches!(function, F::HistogramCount | F::HistogramSum | F::HistogramAvg)
        || matches!(function, F::HistogramStddev | F::HistogramStdvar)
}
