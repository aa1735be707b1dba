//! Tree to plan.
//!
//! *Invariants:* an explicit stack takes the place of recursion: a query of any depth is planned.
//!
//! *Not here:* duration arithmetic (`duration`), type checks (`check`): both are done before.

use std::collections::HashMap;
use std::sync::Arc;

use super::invariant::{self, Invariance};
use super::{NodeId, Op, Pick, Plan, PlanNode, PlanOptions, RangeInput, RangeVector, share, totals};
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, LabelsBuilder, MatchOp, Matcher, StepGrid, TimeRange};
use crate::promql::ast::{Ast, At, Binary, Expr, ExprId, Shift, Subquery, VectorSelector};
use crate::promql::functions::window::Windows;
use crate::promql::operator::AggregateOp;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;
use crate::promql::source::SelectRequest;
use crate::promql::value_type::ValueType;

/// The info metric used where none is named.
const TARGET_INFO: &str = "target_info";
/// What names of info metrics look like.
const INFO_METRICS: &str = ".+_info";

/// Plans a checked tree whose duration expressions are folded, for the steps of `grid`.
pub fn build(ast: &Ast, grid: StepGrid, options: PlanOptions) -> Plan {
    let mut builder = Builder {
        ast,
        query: grid,
        options,
        invariance: invariant::analyse(ast),
        nodes: Vec::new(),
        requests: Vec::new(),
        asked: HashMap::new(),
        tasks: Vec::new(),
        built: Vec::new(),
    };
    builder.visit_maybe_once(ast.root, grid, builder.of(ast.root).hoist);
    while let Some(task) = builder.tasks.pop() {
        match task {
            Task::Visit(id, grid) => builder.visit(id, grid),
            Task::Build(id, grid) => builder.assemble(id, grid),
            Task::Repeat(grid) => {
                let input = builder.pop();
                let span = builder.nodes[input.0 as usize].span;
                builder.push(Op::Repeat(input), grid, span);
            }
        }
    }
    let root = builder.pop();
    let mut plan = Plan {
        nodes: builder.nodes,
        root,
        value_type: ast.value_type(ast.root),
        grid,
        requests: builder.requests,
        shared: Vec::new(),
        text: Arc::clone(&ast.text),
    };
    mark_streamed(&mut plan);
    totals::mark(&mut plan);
    if options.share {
        share::share(&mut plan);
    }
    plan
}

/// A request as what makes it differ from others: conditions (a pattern is its text) and range.
type Asked = (Vec<(Arc<str>, MatchOp, Arc<str>)>, TimeRange);

enum Task {
    /// Plan a node and what is below it.
    Visit(ExprId, StepGrid),
    /// All inputs are planned: make the node.
    Build(ExprId, StepGrid),
    /// Repeat the node planned last.
    Repeat(StepGrid),
}

struct Builder<'a> {
    ast: &'a Ast,
    query: StepGrid,
    options: PlanOptions,
    invariance: Vec<Invariance>,
    nodes: Vec<PlanNode>,
    requests: Vec<SelectRequest>,
    /// Where each request stands in `requests`.
    asked: HashMap<Asked, usize>,
    tasks: Vec<Task>,
    built: Vec<NodeId>,
}

impl Builder<'_> {
    fn of(&self, id: ExprId) -> Invariance {
        self.invariance[id.0 as usize]
    }

    fn push(&mut self, op: Op, grid: StepGrid, span: Span) {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(PlanNode { op, grid, span, streamed: false });
        self.built.push(id);
    }

    fn pop(&mut self) -> NodeId {
        let id = self.built.pop();
        assert!(id.is_some(), "BUG: an operator was planned before its operands");
        id.unwrap_or(NodeId(0))
    }

    /// Schedules a node; `once` makes it be evaluated on the first step only.
    fn visit_maybe_once(&mut self, id: ExprId, grid: StepGrid, once: bool) {
        if once && grid.start < grid.end {
            self.tasks.push(Task::Repeat(grid));
            self.tasks.push(Task::Visit(id, StepGrid { end: grid.start, ..grid }));
        } else {
            self.tasks.push(Task::Visit(id, grid));
        }
    }

    fn visit(&mut self, id: ExprId, grid: StepGrid) {
        let span = self.ast.span(id);
        match self.ast.expr(id) {
            Expr::Number { value, .. } => self.push(Op::Number(*value), grid, span),
            Expr::String(bytes) => self.push(Op::String(bytes.clone()), grid, span),
            Expr::Duration(_) => self.push(Op::Number(f64::NAN), grid, span),
            Expr::Paren(inner) => self.tasks.push(Task::Visit(*inner, grid)),
            Expr::Unary { negative: false, expr } => self.tasks.push(Task::Visit(*expr, grid)),
            Expr::Vector(vs) => {
                let pick = if vs.smoothed { Pick::Smoothed } else { Pick::Value };
                self.select(vs, grid, span, pick);
            }
            Expr::Unary { expr, .. } => {
                self.tasks.push(Task::Build(id, grid));
                self.tasks.push(Task::Visit(*expr, grid));
            }
            Expr::Binary(b) => self.visit_binary(id, b, grid),
            Expr::Aggregate(a) => {
                self.tasks.push(Task::Build(id, grid));
                self.tasks.push(Task::Visit(self.ast.unwrap_parens(a.expr), grid));
                if let Some(param) = a.param {
                    self.tasks.push(Task::Visit(self.ast.unwrap_parens(param), grid));
                }
            }
            Expr::Call(_) => self.visit_call(id, grid),
            Expr::Matrix(_) => self.tasks.push(Task::Build(id, grid)),
            Expr::Subquery(sub) => {
                self.tasks.push(Task::Build(id, grid));
                self.visit_subquery(sub, grid);
            }
        }
    }

    fn visit_binary(&mut self, id: ExprId, b: &Binary, grid: StepGrid) {
        let whole = self.of(id).invariant;
        self.tasks.push(Task::Build(id, grid));
        for side in [b.rhs, b.lhs] {
            self.visit_maybe_once(side, grid, !whole && self.of(side).hoist);
        }
    }

    fn visit_call(&mut self, id: ExprId, grid: StepGrid) {
        let (ast, span) = (self.ast, self.ast.span(id));
        let Expr::Call(call) = ast.expr(id) else { return };
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let range = self.query.end - self.query.start;
        let folded = match call.function.id {
            FunctionName::Start => Some(seconds(self.query.start)),
            FunctionName::End => Some(seconds(self.query.end)),
            FunctionName::Range => Some(seconds(range)),
            FunctionName::Step => Some(if range == 0 { 0.0 } else { seconds(self.query.step) }),
            _ => None,
        };
        if let Some(value) = folded {
            return self.push(Op::Number(value), grid, span);
        }
        let pick = match call.function.id {
            FunctionName::Timestamp => Some(Pick::Timestamp),
            FunctionName::StartTimestamp => Some(Pick::StartTimestamp),
            _ => None,
        };
        if let (Some(pick), Some(arg)) = (pick, call.args.first())
            && let Expr::Vector(vs) = ast.expr(ast.unwrap_parens(*arg))
            && !vs.smoothed
        {
            return self.select(vs, grid, span, pick);
        }
        let whole = self.of(id).invariant;
        self.tasks.push(Task::Build(id, grid));
        // The second argument of `info` is not evaluated: it says which info series are wanted.
        let args = if call.function.id == FunctionName::Info { &call.args[..1] } else { &call.args[..] };
        for arg in args.iter().rev() {
            let arg = ast.unwrap_parens(*arg);
            match ast.expr(arg) {
                Expr::Matrix(_) => {}
                Expr::Subquery(sub) => self.visit_subquery(sub, grid),
                _ => self.visit_maybe_once(arg, grid, !whole && self.of(arg).hoist),
            }
        }
    }

    fn visit_subquery(&mut self, sub: &Subquery, grid: StepGrid) {
        let inner = self.subquery_grid(sub, grid);
        self.visit_maybe_once(sub.expr, inner, self.of(sub.expr).invariant);
    }

    /// Inner steps: the multiples of the step inside of the windows of all outer ones.
    fn subquery_grid(&self, sub: &Subquery, grid: StepGrid) -> StepGrid {
        let step = if sub.step_ms > 0 { sub.step_ms } else { self.options.subquery_step.max(1) };
        let (first, last) = self.ends(&sub.shift, grid);
        let before = first.saturating_sub(sub.range_ms);
        StepGrid { start: before.div_euclid(step).saturating_add(1).saturating_mul(step), end: last, step }
    }

    /// The times of the first and last step as a selector sees them.
    fn ends(&self, shift: &Shift, grid: StepGrid) -> (i64, i64) {
        let last = if grid.is_empty() { grid.end } else { grid.at(grid.len() - 1) };
        let seen = |t: i64| self.at(shift).unwrap_or(t).saturating_sub(shift.offset_ms);
        (seen(grid.start), seen(last))
    }

    fn at(&self, shift: &Shift) -> Option<i64> {
        shift.at.map(|at| match at {
            At::Time(t) => t,
            At::Start => self.query.start,
            At::End => self.query.end,
        })
    }

    fn windows(&self, shift: &Shift, grid: StepGrid, range: i64) -> Windows {
        Windows { grid, offset: shift.offset_ms, range, at: self.at(shift), before: 0, after: 0 }
    }

    /// Asks storage for what `windows` cover.
    fn request(&mut self, matchers: &[Matcher], shift: &Shift, windows: &Windows) -> usize {
        let (first, last) = self.ends(shift, windows.grid);
        let start = first.saturating_sub(windows.range).saturating_sub(windows.before).saturating_add(1);
        let mut range = TimeRange::new(start, last.saturating_add(windows.after));
        if windows.grid.is_empty() {
            range = TimeRange::new(0, -1);
        }
        let conditions = matchers.iter().map(|m| (Arc::clone(&m.name), m.op, Arc::clone(&m.value))).collect();
        let requests = &mut self.requests;
        *self.asked.entry((conditions, range)).or_insert_with(|| {
            requests.push(SelectRequest { matchers: matchers.to_vec(), range });
            requests.len() - 1
        })
    }

    fn select(&mut self, vs: &VectorSelector, grid: StepGrid, span: Span, pick: Pick) {
        let mut windows = self.windows(&vs.shift, grid, self.options.lookback);
        if pick == Pick::Smoothed {
            windows.after = self.options.lookback;
        }
        let request = self.request(&vs.matchers, &vs.shift, &windows);
        self.push(Op::Select { request, windows, pick }, grid, span);
    }

    /// The range vector of a matrix selector, or of a subquery whose inner node was planned last.
    fn range_vector(&mut self, id: ExprId, grid: StepGrid) -> Option<RangeVector> {
        let (ast, span) = (self.ast, self.ast.span(id));
        match ast.expr(id) {
            Expr::Matrix(ms) => {
                let vs = ast.selector(id)?;
                let mut windows = self.windows(&vs.shift, grid, ms.range_ms);
                windows.before = if vs.anchored || vs.smoothed { self.options.lookback } else { 0 };
                windows.after = if vs.smoothed { self.options.lookback } else { 0 };
                let input = RangeInput::Stored(self.request(&vs.matchers, &vs.shift, &windows));
                let (anchored, smoothed) = (vs.anchored, vs.smoothed);
                let absent = pinned_labels(&vs.matchers);
                Some(RangeVector { input, windows, anchored, smoothed, totals: false, span, absent })
            }
            Expr::Subquery(sub) => {
                let windows = self.windows(&sub.shift, grid, sub.range_ms);
                let input = RangeInput::Subquery(self.pop());
                let absent = Labels::empty();
                Some(RangeVector { input, windows, anchored: false, smoothed: false, totals: false, span, absent })
            }
            _ => None,
        }
    }

    fn assemble(&mut self, id: ExprId, grid: StepGrid) {
        let (ast, span) = (self.ast, self.ast.span(id));
        let op = match ast.expr(id) {
            Expr::Unary { expr, .. } => {
                let input = self.pop();
                if ast.value_type(*expr) == ValueType::Scalar {
                    // −0 is not 0 − 0: negation is multiplication by −1 on scalars.
                    self.push(Op::Number(-1.0), grid, span);
                    let rhs = self.pop();
                    Op::ScalarBinary { op: crate::promql::operator::BinaryOp::Mul, lhs: input, rhs }
                } else {
                    Op::Negate(input)
                }
            }
            Expr::Binary(b) => {
                let (rhs, lhs) = (self.pop(), self.pop());
                binary_op(ast, b, lhs, rhs)
            }
            Expr::Aggregate(a) => {
                let input = self.pop();
                let param = a.param.map(|_| self.pop());
                let mut grouping = a.grouping.clone();
                grouping.sort();
                grouping.dedup();
                Op::Aggregate { op: a.op, input, param, grouping, without: a.without }
            }
            Expr::Matrix(_) | Expr::Subquery(_) => match self.range_vector(id, grid) {
                Some(range) => Op::Matrix(range),
                None => Op::Number(f64::NAN),
            },
            _ => self.assemble_call(id, grid),
        };
        self.push(op, grid, span);
    }

    /// Info series are looked up when and where the first selector of the vector looks.
    fn assemble_info(&mut self, args: &[ExprId], grid: StepGrid) -> Op {
        let (ast, input) = (self.ast, self.pop());
        let shift = first_shift(ast, args[0]);
        let matchers = args.get(1).and_then(|a| ast.selector(ast.unwrap_parens(*a))).map(|vs| vs.matchers.clone());
        let matchers = matchers.unwrap_or_default();
        let mut wanted = matchers.clone();
        let mut names = matchers.iter().filter(|m| *m.name == *METRIC_NAME).peekable();
        if names.peek().is_none() {
            wanted.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
        } else if names.all(|m| m.op.is_negative()) {
            // Conditions that only exclude leave the other info metrics, not all metrics there are.
            wanted.extend(Matcher::new(METRIC_NAME, MatchOp::Regex, INFO_METRICS));
        }
        let windows = self.windows(&shift, grid, self.options.lookback);
        let request = self.request(&wanted, &shift, &windows);
        self.push(Op::Select { request, windows, pick: Pick::InfoTimestamp }, grid, ast.span(args[0]));
        Op::Info { input, info: self.pop(), matchers }
    }

    fn assemble_call(&mut self, id: ExprId, grid: StepGrid) -> Op {
        let ast = self.ast;
        let Expr::Call(call) = ast.expr(id) else { return Op::Number(f64::NAN) };
        if call.function.id == FunctionName::Info {
            return self.assemble_info(&call.args, grid);
        }
        let (mut range, mut args) = (None, Vec::new());
        // Inputs were planned left to right, so they come off the stack from right to left.
        for arg in call.args.iter().rev() {
            let arg = ast.unwrap_parens(*arg);
            match ast.expr(arg) {
                Expr::Matrix(_) | Expr::Subquery(_) => range = self.range_vector(arg, grid),
                _ => args.push(self.pop()),
            }
        }
        args.reverse();
        let function = call.function.id;
        if let Some(range) = range {
            return Op::RangeCall { function, range, params: args };
        }
        match function {
            FunctionName::Time => Op::Time,
            FunctionName::Pi => Op::Number(std::f64::consts::PI),
            FunctionName::Absent => {
                let arg = ast.unwrap_parens(call.args[0]);
                let labels = ast.selector(arg).map_or_else(Labels::empty, |vs| pinned_labels(&vs.matchers));
                Op::Absent { input: args[0], labels }
            }
            _ => Op::Call { function, args },
        }
    }
}

/// What the first selector below a node sees of a step: its own shift on top of those of the subqueries around it.
fn first_shift(ast: &Ast, id: ExprId) -> Shift {
    let within = |outer: Shift, inner: &Shift| match inner.at {
        Some(_) => *inner,
        None => Shift { offset_ms: outer.offset_ms.saturating_add(inner.offset_ms), ..outer },
    };
    let mut stack = vec![(id, Shift::default())];
    while let Some((id, shift)) = stack.pop() {
        let inner = match ast.expr(id) {
            Expr::Vector(vs) => return within(shift, &vs.shift),
            Expr::Subquery(sub) => within(shift, &sub.shift),
            _ => shift,
        };
        stack.extend(ast.children(id).into_iter().rev().map(|child| (child, inner)));
    }
    Shift::default()
}

fn binary_op(ast: &Ast, b: &Binary, lhs: NodeId, rhs: NodeId) -> Op {
    let scalar = |id| ast.value_type(id) == ValueType::Scalar;
    let (op, return_bool) = (b.op, b.return_bool);
    match (scalar(b.lhs), scalar(b.rhs)) {
        (true, true) => Op::ScalarBinary { op, lhs, rhs },
        (true, false) => Op::VectorScalar { op, vector: rhs, scalar: lhs, scalar_left: true, return_bool },
        (false, true) => Op::VectorScalar { op, vector: lhs, scalar: rhs, scalar_left: false, return_bool },
        (false, false) => {
            let matching = b.matching.clone().unwrap_or_default();
            Op::VectorBinary { op, lhs, rhs, return_bool, matching }
        }
    }
}

/// The labels a selector allows one value only; a label with two conditions is left out, as Prometheus always did.
fn pinned_labels(matchers: &[Matcher]) -> Labels {
    let mut builder = LabelsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for m in matchers.iter().filter(|m| *m.name != *METRIC_NAME) {
        if m.op == MatchOp::Equal && !seen.contains(&&*m.name) {
            builder.set(&m.name, &m.value);
            seen.push(&m.name);
        } else {
            builder.remove(&m.name);
        }
    }
    builder.build()
}

/// Marks the vectors that are used series by series.
fn mark_streamed(plan: &mut Plan) {
    for i in 0..plan.nodes.len() {
        let input = match &plan.nodes[i].op {
            Op::Aggregate { op, input, .. } if is_streaming(*op) => Some(*input),
            op => op.streams(),
        };
        let Some(input) = input else { continue };
        let node = &mut plan.nodes[input.0 as usize];
        let per_series = match &node.op {
            Op::Select { .. } => true,
            Op::RangeCall { function, .. } => *function != FunctionName::AbsentOverTime,
            op => op.streams().is_some(),
        };
        node.streamed = per_series;
    }
}

/// Whether an aggregation takes series one by one and keeps none.
fn is_streaming(op: AggregateOp) -> bool {
    use AggregateOp as A;
    matches!(op, A::Sum | A::Avg | A::Min | A::Max | A::Count | A::Group | A::Stddev | A::Stdvar)
}
