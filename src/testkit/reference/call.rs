//! Function calls.
//!
//! *Invariants:* functions of floats leave native histograms out, functions of native histograms floats.
//!
//! *Not here:* functions of range vectors (`range_call`), what single functions compute.

use std::collections::BTreeMap;

use super::data;
use super::evaluator::Evaluator;
use super::range_call::{absent, absent_labels};
use super::value::{self, Element, Sample, Samples, Series, Value};
use super::{float_math, native, notes};
use crate::model::{Histogram, Labels, METRIC_NAME, StepGrid};
use crate::promql::ast::{Call, Expr, ExprId, VectorSelector};
use crate::promql::exec::error::Error;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;
use crate::promql::value_type::ValueType;

impl Evaluator<'_> {
    /// The value of a call.
    pub(super) fn call(&mut self, id: ExprId, grid: StepGrid) -> Result<Value, Error> {
        use FunctionName as F;
        let ast = self.ast;
        let Expr::Call(call) = ast.expr(id) else { return Err(Error::query("BUG: not a call")) };
        let function = call.function.id;
        if call.args.iter().any(|arg| ast.value_type(*arg) == ValueType::Matrix) {
            return Ok(Value::Vector(self.range_call(call, grid)?));
        }
        if let Some(number) = self.of_query(function, grid) {
            return Ok(Value::Scalar(number));
        }
        let series = match function {
            F::Scalar => return Ok(Value::Scalar(only_float(&self.vector(call.args[0], grid)?, grid))),
            F::MinOf | F::MaxOf => return self.extreme_of(call, grid),
            F::Vector => {
                let steps = self.scalar(call.args[0], grid)?;
                unlabelled(steps.into_iter().map(|(t, v)| (t, Sample::Float(v))).collect())
            }
            F::Absent => {
                let input = self.vector(call.args[0], grid)?;
                let selector = ast.selector(ast.unwrap_parens(call.args[0]));
                absent(&input, selector.map_or_else(Labels::empty, |vs| absent_labels(&vs.matchers)), grid)
            }
            F::Timestamp | F::StartTimestamp => self.timestamps(call, grid)?,
            F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc => self.sort(call, ast.span(id), grid)?,
            F::LabelReplace => self.label_replace(call, grid)?,
            F::LabelJoin => self.label_join(call, grid)?,
            F::Info => self.info(call, grid)?,
            F::HistogramQuantile | F::HistogramQuantiles => self.histogram_quantiles(call, grid)?,
            F::HistogramFraction => self.histogram_fraction(call, grid)?,
            F::HistogramCount | F::HistogramSum | F::HistogramAvg | F::HistogramStddev | F::HistogramStdvar => {
                self.of_histograms(call, grid)?
            }
            _ if call.args.is_empty() => match float_math::function(function) {
                Some(f) => {
                    let step = |t: i64| (t, Sample::Float(f(t.div_euclid(1000) as f64)));
                    unlabelled(grid.iter().map(step).collect())
                }
                None => return Err(Error::query(format!("BUG: unknown function {}", call.function.name))),
            },
            _ => self.of_floats(call, grid)?,
        };
        Ok(Value::Vector(series))
    }

    /// Functions of the step or the whole query.
    fn of_query(&self, function: FunctionName, grid: StepGrid) -> Option<BTreeMap<i64, f64>> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let range = self.query.end - self.query.start;
        let same = |v: f64| Some(grid.iter().map(|t| (t, v)).collect());
        match function {
            FunctionName::Time => Some(grid.iter().map(|t| (t, seconds(t))).collect()),
            FunctionName::Pi => same(std::f64::consts::PI),
            FunctionName::Start => same(seconds(self.query.start)),
            FunctionName::End => same(seconds(self.query.end)),
            FunctionName::Range => same(seconds(range)),
            FunctionName::Step => same(if range == 0 { 0.0 } else { seconds(self.query.step) }),
            _ => None,
        }
    }

    fn extreme_of(&mut self, call: &Call, grid: StepGrid) -> Result<Value, Error> {
        let (a, b) = (self.scalar(call.args[0], grid)?, self.scalar(call.args[1], grid)?);
        let f = if call.function.id == FunctionName::MaxOf { float_math::max } else { float_math::min };
        Ok(Value::Scalar(a.into_iter().zip(b.into_values()).map(|((t, a), b)| (t, f(a, b))).collect()))
    }

    /// Each element of a vector on its own: what `f` makes of its sample, under labels without the name.
    pub(super) fn each(
        &self,
        input: &[Series],
        grid: StepGrid,
        f: impl Fn(i64, &Sample) -> Option<f64>,
    ) -> Result<Vec<Series>, Error> {
        let mut steps = Vec::new();
        for t in grid.iter() {
            let mut out = Vec::new();
            for Element { labels, mut dropped, sample, from } in value::at(input, t) {
                let Some(v) = f(t, &sample) else { continue };
                let labels = self.drop_name(labels, &mut dropped);
                out.push(Element { labels, dropped, sample: Sample::Float(v), from });
            }
            steps.push((t, out));
        }
        self.collect(steps)
    }

    fn of_floats(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let input = self.vector(call.args[0], grid)?;
        let mut params = Vec::new();
        for id in &call.args[1..] {
            params.push(self.scalar(*id, grid)?);
        }
        let function = call.function.id;
        let param = |i: usize, t: i64| params.get(i).and_then(|p| p.get(&t)).copied();
        self.each(&input, grid, |t, sample| {
            let Sample::Float(v) = sample else { return None };
            let (first, second) = (param(0, t), param(1, t));
            match function {
                FunctionName::Round => Some(float_math::round(*v, first.unwrap_or(1.0))),
                FunctionName::Clamp => clamped(*v, first?, second?),
                FunctionName::ClampMin => clamped(*v, first?, f64::INFINITY),
                FunctionName::ClampMax => clamped(*v, f64::NEG_INFINITY, first?),
                name => float_math::function(name).map(|f| f(*v)),
            }
        })
    }

    /// A number of each native histogram. Where names are removed at once, type and unit stay.
    fn of_histograms(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let f: fn(&Histogram) -> f64 = match call.function.id {
            FunctionName::HistogramCount => |h| h.count,
            FunctionName::HistogramSum => |h| h.sum,
            FunctionName::HistogramAvg => |h| h.sum / h.count,
            FunctionName::HistogramStdvar => native::variance,
            _ => |h| native::variance(h).sqrt(),
        };
        let input = self.vector(call.args[0], grid)?;
        let mut steps = Vec::new();
        for t in grid.iter() {
            let mut out = Vec::new();
            for mut element in value::at(&input, t) {
                let Sample::Histogram(h) = &element.sample else { continue };
                element.sample = Sample::Float(f(h));
                element.dropped = self.options.delayed_name_removal;
                if !element.dropped {
                    element.labels = element.labels.to_builder().remove(METRIC_NAME).build();
                }
                out.push(element);
            }
            steps.push((t, out));
        }
        self.collect(steps)
    }

    /// `timestamp` of a selector is the time of the sample it sees, of anything else the step; computed samples have no
    /// start timestamp.
    fn timestamps(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let is_start = call.function.id == FunctionName::StartTimestamp;
        let ast = self.ast;
        if let Expr::Vector(vs) = ast.expr(ast.unwrap_parens(call.args[0]))
            && !vs.smoothed
        {
            return self.stored_timestamps(vs, is_start, grid);
        }
        let input = self.vector(call.args[0], grid)?;
        self.each(&input, grid, |t, _| (!is_start).then_some(t as f64 / 1000.0))
    }

    fn stored_timestamps(&self, vs: &VectorSelector, is_start: bool, grid: StepGrid) -> Result<Vec<Series>, Error> {
        if is_start && !self.options.use_start_timestamps {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        for t in grid.iter() {
            let mut out = Vec::new();
            for (from, (labels, points)) in data::select(self.data, &vs.matchers).into_iter().enumerate() {
                let seen = self.seen_at(&vs.shift, t);
                let Some(point) = data::newest(&points, seen, self.options.lookback) else { continue };
                let mut dropped = false;
                let labels = self.drop_name(labels, &mut dropped);
                let ms = if is_start { point.start } else { point.t };
                out.push(Element { labels, dropped, sample: Sample::Float(ms as f64 / 1000.0), from });
            }
            steps.push((t, out));
        }
        self.collect(steps)
    }

    /// Warns of an order that means nothing, since the series of a range query are sorted by labels.
    pub(super) fn note_sorting(&mut self, span: Span, grid: StepGrid) {
        if grid.start != grid.end {
            self.notes.warning(span, notes::SORT_IN_RANGE_QUERY);
        }
    }
}

fn clamped(v: f64, min: f64, max: f64) -> Option<f64> {
    // Written so that NaN as a bound is no reason to leave the sample out.
    if max < min { None } else { Some(float_math::max(min, float_math::min(max, v))) }
}

/// `scalar(v)`: the only float, or NaN.
fn only_float(series: &[Series], grid: StepGrid) -> BTreeMap<i64, f64> {
    let at = |t: i64| {
        let floats = series.iter().filter_map(|s| match s.samples.get(&t) {
            Some(Sample::Float(v)) => Some(*v),
            _ => None,
        });
        match floats.collect::<Vec<f64>>().as_slice() {
            [only] => *only,
            _ => f64::NAN,
        }
    };
    grid.iter().map(|t| (t, at(t))).collect()
}

/// A vector of one series without labels.
fn unlabelled(samples: Samples) -> Vec<Series> {
    vec![Series { labels: Labels::empty(), dropped: false, samples }]
}
