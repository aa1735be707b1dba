//! The tree of a query, evaluated node by node.
//!
//! *Invariants:* a node's operands are evaluated on the node's own steps, from left to right; a subquery evaluates its
//! operand on steps of its own. Every rule that asks for "the vector at a step" gets just that vector.
//!
//! *Not here:* what operators and functions compute (the modules next to this one).

use std::collections::{BTreeMap, HashSet};

use super::data::{self, Point, Window};
use super::elements::float_operator;
use super::float_math;
use super::value::{self, Element, Sample, Samples, Series, Value};
use crate::model::{Labels, StepGrid};
use crate::promql::annotations::Annotations;
use crate::promql::ast::{Ast, At, Binary, BinaryOp, Expr, ExprId, MatrixSelector, Shift, Subquery, VectorSelector};
use crate::promql::exec::EngineOptions;
use crate::promql::exec::error::Error;
use crate::promql::histogram::scaled;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;
use crate::testkit::memory_source::MemorySource;

/// An evaluation under way.
pub(super) struct Evaluator<'a> {
    pub ast: &'a Ast,
    pub data: &'a MemorySource,
    pub options: EngineOptions,
    /// Steps of the whole query.
    pub query: StepGrid,
    /// Places of the selectors of which only counts and sums are wanted.
    pub without_buckets: HashSet<Span>,
    pub notes: Annotations,
}

/// The selectors below `id` of whose histograms only counts and sums are wanted: those below a function of just these,
/// unless there is a subquery, an operator or a function that looks at buckets in between or around. Prometheus reads these in a way of
/// its own, which shows in the resets that are known of.
pub(super) fn without_buckets(ast: &Ast, id: ExprId, wanted: Option<bool>, out: &mut HashSet<Span>) {
    use FunctionName as F;
    let buckets = match ast.expr(id) {
        Expr::Vector(_) if wanted == Some(false) => {
            out.insert(ast.span(id));
            return;
        }
        Expr::Subquery(_) => Some(true),
        Expr::Binary(b) if looks_at_buckets(b.op) => Some(true),
        Expr::Call(call) => match call.function.id {
            F::HistogramCount | F::HistogramSum | F::HistogramAvg => Some(false),
            F::HistogramQuantile | F::HistogramQuantiles | F::HistogramFraction => Some(true),
            F::HistogramStddev | F::HistogramStdvar => Some(true),
            _ => None,
        },
        _ => None,
    };
    // Buckets that are wanted anywhere are wanted.
    let wanted = if wanted == Some(true) { wanted } else { buckets.or(wanted) };
    ast.children(id).into_iter().for_each(|child| without_buckets(ast, child, wanted, out));
}

/// A series of a range vector before windows are cut out of it.
pub(super) struct RangeSource {
    pub labels: Labels,
    pub dropped: bool,
    pub points: Vec<Point>,
}

/// Whether an expression has the same value on every step because all it selects is pinned by `@`.
fn is_pinned(ast: &Ast, id: ExprId) -> bool {
    use FunctionName as F;
    let of_step = |name| float_math::is_calendar(name) || matches!(name, F::Time | F::Timestamp | F::PredictLinear);
    match ast.expr(id) {
        Expr::Vector(vs) => vs.shift.at.is_some(),
        Expr::Subquery(sub) => sub.shift.at.is_some(),
        Expr::Call(call) if of_step(call.function.id) => false,
        _ => ast.children(id).into_iter().all(|child| is_pinned(ast, child)),
    }
}

fn looks_at_buckets(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::Eq | BinaryOp::Ne)
}

impl Evaluator<'_> {
    /// The value of an expression on each step of `grid`. What `@` pins to one time is evaluated once and repeated.
    pub fn eval(&mut self, id: ExprId, grid: StepGrid) -> Result<Value, Error> {
        if grid.start < grid.end && is_pinned(self.ast, id) {
            let once = self.eval_steps(id, StepGrid { end: grid.start, ..grid })?;
            return Ok(value::repeated(once, grid));
        }
        self.eval_steps(id, grid)
    }

    fn eval_steps(&mut self, id: ExprId, grid: StepGrid) -> Result<Value, Error> {
        let ast = self.ast;
        match ast.expr(id) {
            Expr::Number { value, .. } => Ok(Value::Scalar(grid.iter().map(|t| (t, *value)).collect())),
            Expr::String(bytes) => Ok(Value::Text(bytes.clone())),
            Expr::Paren(inner) => self.eval(*inner, grid),
            Expr::Unary { negative, expr } => {
                let value = self.eval(*expr, grid)?;
                if *negative { self.negate(value) } else { Ok(value) }
            }
            Expr::Vector(vs) => Ok(Value::Vector(self.instant_vector(vs, ast.span(id), grid)?)),
            Expr::Matrix(_) | Expr::Subquery(_) => Ok(Value::Matrix(self.range_vector_answer(id, grid)?)),
            Expr::Binary(binary) => self.binary(binary, ast.span(id), grid),
            Expr::Aggregate(_) => Ok(Value::Vector(self.aggregate(id, grid)?)),
            Expr::Call(_) => self.call(id, grid),
            Expr::Duration(_) => Err(Error::query("BUG: a duration is no operand")),
        }
    }

    /// The value of an operand that is an instant vector.
    pub fn vector(&mut self, id: ExprId, grid: StepGrid) -> Result<Vec<Series>, Error> {
        match self.eval(id, grid)? {
            Value::Vector(series) => Ok(series),
            _ => Err(Error::query("BUG: an operand is not an instant vector")),
        }
    }

    /// The value of an operand that is a scalar.
    pub fn scalar(&mut self, id: ExprId, grid: StepGrid) -> Result<BTreeMap<i64, f64>, Error> {
        match self.eval(id, grid)? {
            Value::Scalar(steps) => Ok(steps),
            _ => Err(Error::query("BUG: an operand is not a scalar")),
        }
    }

    /// The value of an operand that is a string.
    pub fn text(&mut self, id: ExprId, grid: StepGrid) -> Result<Box<[u8]>, Error> {
        match self.eval(id, grid)? {
            Value::Text(bytes) => Ok(bytes),
            _ => Err(Error::query("BUG: an operand is not a string")),
        }
    }

    /// What becomes of the name of a series whose meaning changed: it is marked, or removed at once.
    pub fn drop_name(&self, labels: Labels, dropped: &mut bool) -> Labels {
        if self.options.delayed_name_removal {
            *dropped = true;
            return labels;
        }
        value::without_metadata(&labels)
    }

    /// Puts the vectors of all steps together as the result of an operation.
    pub fn collect(&self, steps: Vec<(i64, Vec<Element>)>) -> Result<Vec<Series>, Error> {
        value::collect(steps, !self.options.delayed_name_removal)
    }

    fn negate(&self, value: Value) -> Result<Value, Error> {
        match value {
            Value::Scalar(steps) => Ok(Value::Scalar(steps.into_iter().map(|(t, v)| (t, -v)).collect())),
            Value::Vector(mut series) => {
                for s in &mut series {
                    s.labels = self.drop_name(std::mem::take(&mut s.labels), &mut s.dropped);
                    for sample in s.samples.values_mut() {
                        *sample = match sample {
                            Sample::Float(v) => Sample::Float(-*v),
                            Sample::Histogram(h) => Sample::Histogram(scaled(h, -1.0).into()),
                        };
                    }
                }
                if !self.options.delayed_name_removal {
                    series = value::merge(series)?;
                }
                Ok(Value::Vector(series))
            }
            _ => Err(Error::query("BUG: neither scalar nor instant vector is negated")),
        }
    }

    fn binary(&mut self, binary: &Binary, span: Span, grid: StepGrid) -> Result<Value, Error> {
        let (lhs, rhs) = (self.eval(binary.lhs, grid)?, self.eval(binary.rhs, grid)?);
        let series = match (lhs, rhs) {
            (Value::Scalar(a), Value::Scalar(b)) => {
                let both = a.into_iter().zip(b.into_values());
                return Ok(Value::Scalar(both.map(|((t, a), b)| (t, float_operator(binary.op, a, b))).collect()));
            }
            (Value::Vector(v), Value::Scalar(s)) => self.vector_and_scalar(binary, span, &v, &s, false)?,
            (Value::Scalar(s), Value::Vector(v)) => self.vector_and_scalar(binary, span, &v, &s, true)?,
            (Value::Vector(l), Value::Vector(r)) => self.vector_and_vector(binary, span, &l, &r, grid)?,
            _ => return Err(Error::query("BUG: operands of a binary operator are neither scalar nor instant vector")),
        };
        Ok(Value::Vector(series))
    }

    /// The time a selector looks at when the step is `t`.
    pub fn seen_at(&self, shift: &Shift, t: i64) -> i64 {
        let t = match shift.at {
            None => t,
            Some(At::Time(at)) => at,
            Some(At::Start) => self.query.start,
            Some(At::End) => self.query.end,
        };
        t - shift.offset_ms
    }

    fn instant_vector(&mut self, vs: &VectorSelector, span: Span, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let mut out = Vec::new();
        for (labels, mut points) in data::select(self.data, &vs.matchers) {
            if self.without_buckets.contains(&span) {
                points = data::without_buckets(&points);
            }
            let mut samples = Samples::new();
            for t in grid.iter() {
                let seen = self.seen_at(&vs.shift, t);
                let sample = if vs.smoothed {
                    self.smoothed_sample(labels.metric(), &points, seen, span)?
                } else {
                    data::newest(&points, seen, self.options.lookback).map(|p| p.sample.clone())
                };
                samples.extend(sample.map(|s| (t, s)));
            }
            if !samples.is_empty() {
                out.push(Series { labels, dropped: false, samples });
            }
        }
        Ok(out)
    }

    /// The steps of a subquery's operand: absolute multiples of its step inside of the windows of all outer steps.
    pub fn subquery_grid(&self, sub: &Subquery, grid: StepGrid) -> StepGrid {
        let step = if sub.step_ms > 0 { sub.step_ms } else { self.options.subquery_step };
        let last = grid.iter().last().unwrap_or(grid.end);
        let outside = self.seen_at(&sub.shift, grid.start) - sub.range_ms;
        let first = (outside.div_euclid(step) + 1) * step;
        StepGrid { start: first, end: self.seen_at(&sub.shift, last), step }
    }

    /// The series a subquery yields on its steps. Reset hints are lost: steps may skip samples or repeat them.
    pub fn subquery(&mut self, sub: &Subquery, grid: StepGrid) -> Result<Vec<RangeSource>, Error> {
        let series = self.vector(sub.expr, self.subquery_grid(sub, grid))?;
        let point =
            |(t, sample): (i64, Sample)| Point { t, start: 0, sample: super::native::without_reset_hint(sample) };
        let source = |s: Series| RangeSource {
            labels: s.labels,
            dropped: s.dropped,
            points: s.samples.into_iter().map(point).collect(),
        };
        Ok(series.into_iter().map(source).collect())
    }

    /// The stored series of a range selector, with start timestamps if they are to be used.
    pub fn stored(&self, vs: &VectorSelector, span: Span) -> Vec<RangeSource> {
        let mut found = data::select(self.data, &vs.matchers);
        if self.without_buckets.contains(&span) {
            found.iter_mut().for_each(|(_, points)| *points = data::without_buckets(points));
        }
        if !self.options.use_start_timestamps {
            found.iter_mut().flat_map(|(_, points)| points).for_each(|p| p.start = 0);
        }
        found.into_iter().map(|(labels, points)| RangeSource { labels, dropped: false, points }).collect()
    }

    /// How far before and after its window a range selector looks.
    pub fn reach(&self, vs: &VectorSelector) -> (i64, i64) {
        let lookback = self.options.lookback;
        match (vs.anchored, vs.smoothed) {
            (true, _) => (lookback, 0),
            (_, true) => (lookback, lookback),
            _ => (0, 0),
        }
    }

    /// A range vector as the answer of an instant query.
    fn range_vector_answer(&mut self, id: ExprId, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let ast = self.ast;
        match ast.expr(id) {
            Expr::Subquery(sub) => self.vector(sub.expr, self.subquery_grid(sub, grid)),
            Expr::Matrix(ms) => {
                let Some(vs) = ast.selector(id) else { return Ok(Vec::new()) };
                self.stored(vs, ast.span(ms.vector))
                    .into_iter()
                    .map(|source| self.matrix_series(ms, vs, source, grid.start))
                    .collect()
            }
            _ => Err(Error::query("BUG: not a range vector")),
        }
    }

    fn matrix_series(
        &self,
        ms: &MatrixSelector,
        vs: &VectorSelector,
        source: RangeSource,
        t: i64,
    ) -> Result<Series, Error> {
        let end = self.seen_at(&vs.shift, t);
        let mut window = Window::of(&source.points, end - ms.range_ms, end, self.reach(vs));
        if vs.anchored || vs.smoothed {
            if !window.histograms.is_empty() {
                return Err(Error::query("smoothed and anchored modifiers do not work with native histograms"));
            }
            window.floats = super::extended::with_edges(&window, vs.smoothed);
        }
        let samples = window.points().into_iter().map(|p| (p.t, p.sample)).collect();
        Ok(Series { labels: source.labels, dropped: false, samples })
    }
}
