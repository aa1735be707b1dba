//! One evaluation: the nodes of a plan, in order.
//!
//! *Invariants:* a node's value is taken by the node that uses it last and freed with it; its bytes count until that node is
//! done, unless its columns become those of the node. Streamed nodes have no value of their own: their consumer pulls
//! their series one by one.
//!
//! *Not here:* what single operations compute (the modules next to this one), what is used twice (`exec::shared`).

use super::EngineOptions;
use super::binary::Elements;
use super::call::{self, Call};
use super::column::{Column, ScalarColumn, Series, Value, Vector};
use super::control::{Budget, CancelToken};
use super::error::Error;
use super::helpers::Helpers;
use super::info::info;
use super::join::Join;
use super::partial::Partials;
use super::range::{self, RangeFunction};
use super::reader::{RangeSamples, read_all};
use super::result::RangeSeries;
use super::set::set_operation;
use super::shared::{Fetched, Said, Values};
use super::stage::Stage;
use super::stream::{Context, Pipeline, Ranked, as_stored, as_they_come, in_label_order, in_reading_order, per_step};
use super::work::{Leaf, NameRemoval, Rules};
use crate::model::{Columns, Labels};
use crate::promql::annotations::Annotations;
use crate::promql::functions::window::ABSENT;
use crate::promql::functions::{math, time};
use crate::promql::histogram::variance;
use crate::promql::plan::{NodeId, Op, Pick, Plan, RangeInput, RangeVector};
use crate::promql::signature::FunctionName;
use crate::promql::source::SelectedSeries;

/// An evaluation under way.
pub struct Evaluation<'a> {
    pub(super) plan: &'a Plan,
    options: EngineOptions,
    values: Values,
    fetched: Fetched,
    pub(super) budget: Budget,
    /// Samples and bytes of `slots`.
    kept: (usize, usize),
    cancel: &'a CancelToken,
    helpers: &'a Helpers,
    pub(super) notes: Annotations,
    said: Said,
    pub(super) removal: NameRemoval,
    pub(super) entangled: bool,
    /// What others computed of aggregations.
    pub(super) partials: Partials,
}

impl<'a> Evaluation<'a> {
    /// An evaluation over fetched series, one set per request of the plan.
    pub fn new(
        plan: &'a Plan,
        options: EngineOptions,
        sets: Vec<Vec<SelectedSeries>>,
        budget: Budget,
        (cancel, helpers): (&'a CancelToken, &'a Helpers),
        notes: Annotations,
    ) -> Self {
        let removal = if options.delayed_name_removal { NameRemoval::Delayed } else { NameRemoval::AtOnce };
        let (values, fetched) = (Values::new(plan), Fetched::new(plan, sets));
        let kept = (0, plan.nodes.len() * size_of::<Option<Value>>());
        let (said, entangled, partials) = (Said::default(), false, Partials::default());
        Self {
            plan,
            options,
            values,
            fetched,
            budget,
            kept,
            cancel,
            helpers,
            notes,
            said,
            removal,
            entangled,
            partials,
        }
    }

    /// Evaluates all nodes and returns the value of the root.
    pub fn run(&mut self) -> Result<Value, Error> {
        for id in (0..self.plan.nodes.len() as u32).map(NodeId) {
            self.said.begin(self.plan, id, &mut self.notes);
            if !self.plan.node(id).streamed {
                self.step(id)?;
                self.said.end(id, &mut self.notes);
            }
        }
        self.take(self.plan.root)
    }

    /// Evaluates one node and keeps its value.
    pub(super) fn step(&mut self, id: NodeId) -> Result<(), Error> {
        self.cancel.check()?;
        let value = self.eval(id)?;
        let (samples, bytes) = value.size();
        self.kept = (self.kept.0 + samples, self.kept.1 + bytes);
        // What was used and what came up on the way is gone.
        self.budget.settle(self.kept.0, self.kept.1)?;
        self.values.keep(id, value);
        Ok(())
    }

    /// Annotations, costs, and whether steps are entangled ([`QueryStats::entangled`](super::result::QueryStats)).
    pub fn into_parts(self) -> (Annotations, Budget, bool) {
        (self.notes, self.budget, self.entangled)
    }

    fn eval(&mut self, id: NodeId) -> Result<Value, Error> {
        let plan = self.plan;
        let node = plan.node(id);
        let steps = node.grid.len();
        match &node.op {
            Op::Number(v) => Ok(Value::Scalar(ScalarColumn::Same(*v))),
            Op::String(bytes) => Ok(Value::Text(bytes.clone())),
            Op::Time => {
                self.budget.room(8 * steps)?;
                let seconds = node.grid.iter().map(|t| t as f64 / 1000.0);
                Ok(Value::Scalar(ScalarColumn::Steps(seconds.collect())))
            }
            Op::Matrix(range) => self.matrix(id, range),
            Op::Repeat(input) => self.repeat(*input, steps),
            Op::Same(of) => {
                self.said.repeat(*of, (plan.span(*of), node.span), &mut self.notes);
                self.take(*of)
            }
            Op::ScalarBinary { op, lhs, rhs } => {
                let (l, r) = (self.scalar(*lhs)?, self.scalar(*rhs)?);
                if let (ScalarColumn::Same(l), ScalarColumn::Same(r)) = (&l, &r) {
                    return Ok(Value::Scalar(ScalarColumn::Same(math::arithmetic(*op, *l, *r))));
                }
                self.budget.room(8 * steps)?;
                let values = (0..steps).map(|s| math::arithmetic(*op, l.at(s), r.at(s)));
                Ok(Value::Scalar(ScalarColumn::Steps(values.collect())))
            }
            Op::VectorBinary { op, lhs, rhs, return_bool, matching } => {
                let (lhs, rhs) = (self.vector(*lhs)?.series, self.vector(*rhs)?.series);
                if op.is_set() {
                    return Ok(Value::Vector(set_operation(*op, lhs, rhs, matching, steps, &mut self.budget)?.into()));
                }
                let elements = Elements { op: *op, return_bool: *return_bool, span: node.span };
                let join = Join { elements, matching, removal: self.removal, steps };
                Ok(Value::Vector(join.eval(lhs, rhs, &mut self.notes, &mut self.budget)?.into()))
            }
            Op::Aggregate { .. } => self.aggregate(id),
            Op::Absent { input, labels } => {
                let vector = self.vector(*input)?;
                Ok(call::absent(&vector.series, labels, steps))
            }
            Op::Info { input, info: series, matchers } => {
                let (base, series) = (self.vector(*input)?, self.vector(*series)?);
                Ok(Value::Vector(info(base.series, &series.series, matchers, steps, &mut self.budget)?.into()))
            }
            Op::RangeCall { function: FunctionName::AbsentOverTime, range, .. } => {
                let found = self.collect(id)?;
                Ok(call::absent(&found.series, &range.absent, steps))
            }
            Op::Call { function, args } if node.op.streams().is_none() => self.call(*function, args, id),
            _ => Ok(Value::Vector(self.collect(id)?)),
        }
    }

    /// The value of a node. Its bytes count until the node that takes it is done.
    pub(super) fn take(&mut self, id: NodeId) -> Result<Value, Error> {
        let taken = self.values.take(id);
        let taken = taken.ok_or_else(|| Error::query("BUG: a node was used before it was evaluated"))?;
        let (samples, bytes) = taken.value.size();
        if taken.last {
            self.kept = (self.kept.0 - samples, self.kept.1 - bytes);
            self.budget.release(samples, 0);
        } else {
            // A copy of its own.
            self.budget.hold(0, bytes)?;
        }
        Ok(taken.value)
    }

    /// As [`Evaluation::take`] for a node that makes its own columns of those it takes.
    fn take_over(&mut self, id: NodeId) -> Result<Value, Error> {
        let value = self.take(id)?;
        self.budget.release(0, value.size().1);
        Ok(value)
    }

    pub(super) fn vector(&mut self, id: NodeId) -> Result<Vector, Error> {
        match self.take(id)? {
            Value::Vector(v) => Ok(v),
            _ => Err(Error::query("BUG: operand is not an instant vector")),
        }
    }

    pub(super) fn scalar(&mut self, id: NodeId) -> Result<ScalarColumn, Error> {
        match self.take(id)? {
            Value::Scalar(v) => Ok(v),
            _ => Err(Error::query("BUG: operand is not a scalar")),
        }
    }

    fn scalars(&mut self, ids: &[NodeId]) -> Result<Vec<ScalarColumn>, Error> {
        ids.iter().map(|id| self.scalar(*id)).collect()
    }

    fn stored(&mut self, request: usize) -> Vec<Ranked> {
        as_stored(self.fetched.take(request))
    }

    fn call(&mut self, function: FunctionName, args: &[NodeId], id: NodeId) -> Result<Value, Error> {
        let plan = self.plan;
        let in_place = call::works_in_place(function);
        let take = |a: &NodeId| if in_place { self.take_over(*a) } else { self.take(*a) };
        let values = args.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        let spans = args.iter().map(|a| plan.span(*a)).collect();
        let node = plan.node(id);
        let (span, grid, removal) = (node.span, node.grid, self.removal);
        let call = Call { function, args: values, spans, span, grid, instant: grid.start == grid.end, removal };
        call.eval(&mut self.notes, &mut self.budget)
    }

    /// The pipeline that ends in a node.
    pub(super) fn pipeline(&mut self, id: NodeId) -> Result<Pipeline, Error> {
        let plan = self.plan;
        let (mut at, mut stages) = (id, Vec::new());
        let (leaf, series) = loop {
            let node = plan.node(at);
            // A value that is there already: only the node asked for itself may be there as a stage.
            if self.values.has(at) {
                break (Leaf::Ready, self.ready(at)?);
            }
            if let Some(input) = node.op.streams() {
                stages.push(self.stage(at)?);
                at = input;
                continue;
            }
            break match &node.op {
                // Nothing is known of start timestamps that are not used.
                Op::Select { pick: Pick::StartTimestamp, .. } if !self.options.use_start_timestamps => {
                    (Leaf::Ready, Vec::new())
                }
                Op::Select { request, windows, pick } => {
                    (Leaf::Select { windows: *windows, pick: *pick, span: node.span }, self.stored(*request))
                }
                Op::RangeCall { function, range, params } => self.range_leaf(*function, range, params)?,
                _ => (Leaf::Ready, self.ready(at)?),
            };
        };
        stages.reverse();
        let options = self.options;
        let (with_starts, type_labels) = (options.use_start_timestamps, options.type_and_unit_labels);
        let rules = Rules { removal: self.removal, with_starts, type_labels };
        Ok(Pipeline::new((leaf, series), at, stages, rules))
    }

    /// Series that are there: each is handed on as it is.
    fn ready(&mut self, id: NodeId) -> Result<Vec<Ranked>, Error> {
        match self.take_over(id)? {
            Value::Vector(v) => Ok(as_they_come(v.series)),
            _ => Err(Error::query("BUG: operand is not an instant vector")),
        }
    }

    fn range_leaf(
        &mut self,
        function: FunctionName,
        range: &RangeVector,
        params: &[NodeId],
    ) -> Result<(Leaf, Vec<Ranked>), Error> {
        // `quantile_over_time` names its first argument, which is the quantile.
        let first = params.first().filter(|_| function == FunctionName::QuantileOverTime);
        let span = first.map_or(range.span, |p| self.plan.span(*p));
        let (steps, count) = (range.windows.grid.len(), params.len());
        self.budget.hold(0, 8 * steps * count)?;
        let params = per_step(self.scalars(params)?, steps);
        let function = Box::new(RangeFunction::new(function, range, span, params, self.cancel)?);
        Ok(match range.input {
            RangeInput::Stored(request) => (Leaf::Range(function), self.stored(request)),
            RangeInput::Subquery(inner) => {
                let grid = self.plan.node(inner).grid;
                (Leaf::Subquery { grid, function }, as_they_come(self.vector_or_scalar(inner)?.series))
            }
        })
    }

    /// The value of a node as a vector; a scalar is a series without labels.
    fn vector_or_scalar(&mut self, id: NodeId) -> Result<Vector, Error> {
        let steps = self.plan.node(id).grid.len();
        match self.take(id)? {
            Value::Scalar(scalar) => {
                self.budget.hold(0, 8 * steps)?;
                let column = Column { values: scalar.to_vec(steps), histograms: Vec::new() };
                Ok(vec![Series { labels: Labels::empty(), dropped: false, column }].into())
            }
            Value::Vector(v) => Ok(v),
            _ => Err(Error::query("BUG: operand is neither vector nor scalar")),
        }
    }

    fn stage(&mut self, id: NodeId) -> Result<Stage, Error> {
        use FunctionName as F;
        let plan = self.plan;
        let node = plan.node(id);
        Ok(match &node.op {
            Op::VectorScalar { op, scalar, scalar_left, return_bool, .. } => Stage::Scalar {
                op: *op,
                scalar: self.scalar(*scalar)?,
                left: *scalar_left,
                return_bool: *return_bool,
                span: node.span,
            },
            Op::Call { function, args } => {
                let mut scalars = self.scalars(&args[1..])?.into_iter();
                let mut next = |default: f64| scalars.next().unwrap_or(ScalarColumn::Same(default));
                match function {
                    F::Round => Stage::Round(next(1.0)),
                    F::Clamp => Stage::Clamp(next(f64::NEG_INFINITY), next(f64::INFINITY)),
                    F::ClampMin => Stage::Clamp(next(f64::NEG_INFINITY), ScalarColumn::Same(f64::INFINITY)),
                    F::ClampMax => Stage::Clamp(ScalarColumn::Same(f64::NEG_INFINITY), next(f64::INFINITY)),
                    F::Timestamp => Stage::StepTime(node.grid),
                    F::StartTimestamp => Stage::Nothing,
                    F::HistogramCount => Stage::Histogram(|h| h.count),
                    F::HistogramSum => Stage::Histogram(|h| h.sum),
                    F::HistogramAvg => Stage::Histogram(|h| h.sum / h.count),
                    F::HistogramStddev => Stage::Histogram(|h| variance(h).sqrt()),
                    F::HistogramStdvar => Stage::Histogram(variance),
                    name => match math::unary(*name).or_else(|| time::calendar(*name)) {
                        Some(f) => Stage::Math(f),
                        None => return Err(Error::query(format!("BUG: {name:?} is no function of one sample"))),
                    },
                }
            }
            _ => Stage::Negate,
        })
    }

    /// Whether series become equal as their names go.
    pub(super) fn may_collide(&mut self, pipeline: &Pipeline) -> bool {
        let mixed = pipeline.drops_names() && pipeline.mixes_names();
        self.entangled |= mixed;
        mixed && pipeline.may_collide()
    }

    /// All series of a node that is computed series by series.
    fn collect(&mut self, id: NodeId) -> Result<Vector, Error> {
        let mut pipeline = self.pipeline(id)?;
        if self.removal == NameRemoval::AtOnce && self.may_collide(&pipeline) {
            return Ok(pipeline.collect_at_once(&mut self.context())?.into());
        }
        let (mut out, mut ranks) = (Vec::new(), Vec::new());
        pipeline.run(&mut self.context(), |series, rank, budget| {
            budget.hold(series.column.samples(), series.bytes())?;
            out.push(std::mem::take(series));
            ranks.push(rank);
            Ok(())
        })?;
        Ok(in_label_order(out, &ranks).into())
    }

    pub(super) fn context(&mut self) -> Context<'_> {
        let Self { notes, budget, cancel, helpers, options, .. } = self;
        Context { notes, budget, cancel, helpers, max_bytes: options.limits.max_bytes }
    }

    fn matrix(&mut self, id: NodeId, range: &RangeVector) -> Result<Value, Error> {
        let mut samples = RangeSamples::default();
        let mut out: Vec<RangeSeries> = Vec::new();
        match range.input {
            RangeInput::Stored(request) => {
                let (mut columns, mut piece) = (Columns::default(), Columns::default());
                for (_, mut series) in in_reading_order(self.fetched.take(request)) {
                    self.cancel.check()?;
                    read_all(series.cursor.as_mut(), &mut columns, &mut piece)?;
                    self.budget.samples_read += columns.len() as u64;
                    self.budget.room(columns.heap_bytes())?;
                    samples.take(&mut columns, false);
                    if let Some(counts) = &mut self.budget.counts {
                        counts.windowed(id, &range.windows, &samples, true);
                    }
                    let series = RangeSeries { labels: series.labels, ..range::matrix(&samples, range) };
                    self.budget.hold(series.samples(), series.bytes())?;
                    out.push(series);
                }
            }
            RangeInput::Subquery(inner) => {
                let grid = self.plan.node(inner).grid;
                for series in self.vector_or_scalar(inner)?.series {
                    self.cancel.check()?;
                    samples.take_steps(&series.column, grid);
                    let labels =
                        if series.dropped { super::labels::drop_reserved(&series.labels) } else { series.labels };
                    let series = RangeSeries { labels, ..range::matrix(&samples, range) };
                    self.budget.hold(series.samples(), series.bytes())?;
                    out.push(series);
                }
            }
        }
        out.retain(|s| !s.floats.is_empty() || !s.histograms.is_empty());
        Ok(Value::Matrix(out))
    }

    /// One step's value on all steps.
    fn repeat(&mut self, input: NodeId, steps: usize) -> Result<Value, Error> {
        Ok(match self.take_over(input)? {
            Value::Scalar(ScalarColumn::Steps(values)) => {
                Value::Scalar(ScalarColumn::Same(values.first().copied().unwrap_or(f64::NAN)))
            }
            Value::Vector(mut vector) => {
                for s in &mut vector.series {
                    self.budget.check()?;
                    self.budget.room(8 * steps)?;
                    let v = s.column.values.first().copied().unwrap_or(ABSENT);
                    s.column.values = vec![v; steps];
                    if let Some((_, h)) = s.column.histograms.pop() {
                        s.column.histograms = (0..steps as u32).map(|step| (step, h.clone())).collect();
                    }
                    self.budget.hold(0, s.bytes())?;
                }
                Value::Vector(vector)
            }
            other => other,
        })
    }
}
