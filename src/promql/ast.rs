//! The tree of a query: nodes in one arena, so that a tree of any depth is built, walked and dropped without recursion.
//!
//! *Invariants:* every id an [`Ast`] holds is an index into its `nodes`; children stand before their parents (walking
//! `nodes` in order is a bottom-up walk) and no node has two parents. Nodes nobody refers to may exist.
//! [`Expr::Matrix`] holds a node of kind [`Expr::Vector`]. Duration expressions ([`Expr::Duration`], and the number
//! literals below them) are reached only through the `*_expr` fields.
//!
//! *Not here:* how it is made (`parser`), checked (`check`), printed (`printer`); duration arithmetic (`duration`).

use std::sync::Arc;

use smallvec::SmallVec;

use super::position::{LineCol, Span};
use super::signature::Function;
use super::value_type::ValueType;
use crate::model::Matcher;

pub use super::operator::{AggregateOp, BinaryOp};

/// A node of an [`Ast`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExprId(pub u32);

/// A parsed query.
#[derive(Debug, Clone)]
pub struct Ast {
    /// All nodes, children first.
    pub nodes: Vec<Node>,
    /// The whole expression.
    pub root: ExprId,
    /// The query as given: spans point into it.
    pub text: Arc<str>,
}

/// An expression and where it stands in the text.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub expr: Expr,
    /// Its bytes in the text.
    pub span: Span,
    /// Type of its value.
    pub value_type: ValueType,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `1`, `0x1f`, `5m`.
    Number {
        /// The value; of a duration its seconds.
        value: f64,
        /// Written as a duration (`5m`): printed so again.
        duration: bool,
    },
    /// `"text"`: bytes, not necessarily UTF-8.
    String(Box<[u8]>),
    /// `metric{…} offset … @ …`.
    Vector(Box<VectorSelector>),
    /// `metric[5m]`.
    Matrix(MatrixSelector),
    /// `expr[1h:5m]`.
    Subquery(Box<Subquery>),
    /// `-expr`, `+expr`.
    Unary {
        /// `-` rather than `+`.
        negative: bool,
        /// Operand.
        expr: ExprId,
    },
    /// `a + b`.
    Binary(Box<Binary>),
    /// `sum by (a) (expr)`.
    Aggregate(Box<Aggregate>),
    /// `rate(metric[5m])`.
    Call(Call),
    /// `(expr)`.
    Paren(ExprId),
    /// An operation of a duration expression (`[5m + step()]`).
    Duration(DurationExpr),
}

/// What `@` fixes the evaluation time to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    /// `start()`: first step of the query.
    Start,
    /// `end()`: last step of the query.
    End,
}

/// When a selector or subquery is evaluated, relative to the step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shift {
    /// Offset into the past, milliseconds (negative: into the future). Where `offset_expr` is set, folding fills it in.
    pub offset_ms: i64,
    /// The offset as a duration expression.
    pub offset_expr: Option<ExprId>,
    /// The `@` modifier.
    pub at: Option<At>,
}

/// An instant vector selector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The metric name if it was written in front of the braces (inside it is just a matcher).
    pub name: Option<Arc<str>>,
    /// All conditions, that of `name` included (as the last one).
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub shift: Shift,
    /// `anchored`.
    pub anchored: bool,
    /// `smoothed`.
    pub smoothed: bool,
}

/// A range vector selector; its shift, `anchored` and `smoothed` are kept at the vector selector.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// The selector: a node of kind [`Expr::Vector`].
    pub vector: ExprId,
    /// Range, milliseconds. Where `range_expr` is set, folding fills it in.
    pub range_ms: i64,
    /// The range as a duration expression.
    pub range_expr: Option<ExprId>,
}

/// A subquery.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated at each inner step.
    pub expr: ExprId,
    /// Range, milliseconds. Where `range_expr` is set, folding fills it in.
    pub range_ms: i64,
    /// The range as a duration expression.
    pub range_expr: Option<ExprId>,
    /// Distance of inner steps, milliseconds; 0 where none was written (then the engine's default holds). Where
    /// `step_expr` is set, folding fills it in.
    pub step_ms: i64,
    /// The step as a duration expression.
    pub step_expr: Option<ExprId>,
    /// `offset` and `@`.
    pub shift: Shift,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// Operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: ExprId,
    /// Right operand.
    pub rhs: ExprId,
    /// `bool`: a comparison that answers 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// How series of both sides are paired; `None` unless both sides are instant vectors.
    pub matching: Option<Matching>,
}

/// How many series of one side may pair with how many of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cardinality {
    /// Each at most once.
    #[default]
    OneToOne,
    /// `group_left`: many on the left.
    ManyToOne,
    /// `group_right`: many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    /// As Prometheus words it in JSON and error texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

/// How series of two vectors are paired.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matching {
    /// Cardinality.
    pub cardinality: Cardinality,
    /// `on` rather than `ignoring` (or nothing, which is `ignoring ()`).
    pub on: bool,
    /// Labels of `on` or `ignoring`, as written.
    pub labels: Vec<Arc<str>>,
    /// Labels of `group_left` or `group_right`, as written.
    pub include: Vec<Arc<str>>,
    /// `fill_left` or `fill`: value of a missing left side.
    pub fill_left: Option<f64>,
    /// `fill_right` or `fill`: value of a missing right side.
    pub fill_right: Option<f64>,
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: ExprId,
    /// First argument of `topk`, `quantile`, `count_values` and the like.
    pub param: Option<ExprId>,
    /// `without` rather than `by` (or nothing, which is `by ()`).
    pub without: bool,
    /// Labels of `by` or `without`, as written.
    pub grouping: Vec<Arc<str>>,
}

/// A function call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is called.
    pub function: &'static Function,
    /// Arguments.
    pub args: Vec<ExprId>,
}

/// Operation of a duration expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DurationOp {
    /// `a + b`, or `+b`.
    Add,
    /// `a - b`, or `-b`.
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `step()`: no operands.
    Step,
    /// `range()`: no operands.
    Range,
    /// `min_of(a, b)`
    Min,
    /// `max_of(a, b)`
    Max,
}

/// A node of a duration expression; its leaves are number literals, `step()` and `range()`.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationExpr {
    /// Operation.
    pub op: DurationOp,
    /// Left operand; none for a sign and for `step()`, `range()`.
    pub lhs: Option<ExprId>,
    /// Right operand; none for `step()` and `range()`.
    pub rhs: Option<ExprId>,
    /// In parentheses.
    pub wrapped: bool,
}

impl Expr {
    /// Heap bytes held by this node alone.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::String(bytes) => bytes.len(),
            Self::Vector(vs) => size_of_val(&**vs) + vs.matchers.iter().map(matcher_bytes).sum::<usize>(),
            Self::Binary(b) => size_of_val(&**b),
            Self::Aggregate(a) => size_of_val(&**a) + a.grouping.iter().map(|l| 32 + l.len()).sum::<usize>(),
            Self::Call(call) => size_of_val(&*call.args),
            Self::Subquery(sub) => size_of_val(sub),
            _ => 0,
        }
    }
}

/// A matcher with its name, value and pattern.
fn matcher_bytes(m: &Matcher) -> usize {
    size_of_val(m) + 4 * size_of::<usize>() + m.name.len() + m.value.len() + m.pattern_bytes()
}

/// The children of a node, in order of evaluation.
pub type Children = SmallVec<[ExprId; 3]>;

impl Ast {
    /// The expression of a node.
    pub fn expr(&self, id: ExprId) -> &Expr {
        &self.nodes[id.0 as usize].expr
    }

    /// The expression of a node, to change it.
    pub fn expr_mut(&mut self, id: ExprId) -> &mut Expr {
        &mut self.nodes[id.0 as usize].expr
    }

    /// Where a node stands in the text.
    pub fn span(&self, id: ExprId) -> Span {
        self.nodes[id.0 as usize].span
    }

    /// Line and column where a node begins.
    pub fn line_col(&self, id: ExprId) -> Option<LineCol> {
        LineCol::of(&self.text, self.span(id).start)
    }

    /// The expression below any parentheses around it.
    pub fn unwrap_parens(&self, mut id: ExprId) -> ExprId {
        while let Expr::Paren(inner) = self.expr(id) {
            id = *inner;
        }
        id
    }

    /// The vector selector of a matrix selector (or of a vector selector itself).
    pub fn selector(&self, id: ExprId) -> Option<&VectorSelector> {
        match self.expr(id) {
            Expr::Vector(vs) => Some(vs),
            Expr::Matrix(ms) => match self.expr(ms.vector) {
                Expr::Vector(vs) => Some(vs),
                _ => None,
            },
            _ => None,
        }
    }

    /// Type of a node's value.
    pub fn value_type(&self, id: ExprId) -> ValueType {
        self.nodes[id.0 as usize].value_type
    }

    /// Appends a node; its type follows from the nodes it holds, which must be there already.
    pub fn push(&mut self, expr: Expr, span: Span) -> ExprId {
        let value_type = self.type_of(&expr);
        let id = ExprId(self.nodes.len() as u32);
        self.nodes.push(Node { expr, span, value_type });
        id
    }

    /// Operand expressions of a node in the order they are written; duration expressions are not among them.
    pub fn children(&self, id: ExprId) -> Children {
        match self.expr(id) {
            Expr::Number { .. } | Expr::String(_) | Expr::Vector(_) | Expr::Duration(_) => Children::new(),
            Expr::Matrix(ms) => Children::from_slice(&[ms.vector]),
            Expr::Subquery(sub) => Children::from_slice(&[sub.expr]),
            Expr::Unary { expr, .. } | Expr::Paren(expr) => Children::from_slice(&[*expr]),
            Expr::Binary(b) => Children::from_slice(&[b.lhs, b.rhs]),
            Expr::Aggregate(a) => a.param.into_iter().chain([a.expr]).collect(),
            Expr::Call(call) => Children::from_slice(&call.args),
        }
    }

    /// Nesting of the deepest node below `root` (a sum of n terms nests n deep): what recurses over a tree asks first.
    pub fn depth(&self) -> usize {
        let mut depths = vec![0usize; self.nodes.len()];
        for at in 0..self.nodes.len() {
            let below = self.children(ExprId(at as u32)).iter().map(|child| depths[child.0 as usize]).max();
            depths[at] = below.unwrap_or(0) + 1;
        }
        depths.get(self.root.0 as usize).copied().unwrap_or(0)
    }

    /// Ids below `root` (inclusive), each after its children, left to right; duration expressions are not among them.
    pub fn post_order(&self, root: ExprId) -> Vec<ExprId> {
        let (mut stack, mut order) = (vec![root], Vec::new());
        while let Some(id) = stack.pop() {
            order.push(id);
            stack.extend(self.children(id));
        }
        order.reverse();
        order
    }

    /// Heap bytes held, compiled patterns included.
    pub fn heap_bytes(&self) -> usize {
        let own: usize = self.nodes.iter().map(|node| node.expr.heap_bytes()).sum();
        self.text.len() + size_of::<Node>() * self.nodes.capacity() + own
    }

    fn type_of(&self, expr: &Expr) -> ValueType {
        match expr {
            Expr::Number { .. } | Expr::Duration(_) => ValueType::Scalar,
            Expr::String(_) => ValueType::String,
            Expr::Vector(_) | Expr::Aggregate(_) => ValueType::Vector,
            Expr::Matrix(_) | Expr::Subquery(_) => ValueType::Matrix,
            Expr::Call(call) => call.function.returns,
            Expr::Unary { expr, .. } | Expr::Paren(expr) => self.value_type(*expr),
            Expr::Binary(b) => match (self.value_type(b.lhs), self.value_type(b.rhs)) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
        }
    }
}
