//! Functions of range vectors: one series, one window at a time.
//!
//! *Invariants:* an empty window yields nothing. All functions but `first_over_time` and `last_over_time` change the
//! meaning of a series.
//!
//! *Not here:* what single functions compute (`over_time`, `rate`, `extended`, `trend`).

use super::data::Window;
use super::evaluator::{Evaluator, RangeSource};
use super::notes;
use super::value::{self, Sample, Samples, Series};
use crate::model::{Labels, METRIC_NAME, MatchOp, Matcher, StepGrid};
use crate::promql::ast::{Call, Expr, ExprId, Shift};
use crate::promql::exec::error::Error;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

/// A function called for one window of one series.
pub(super) struct WindowCall<'a> {
    pub function: FunctionName,
    pub window: &'a Window,
    /// Values of the scalar arguments at the step.
    pub params: Vec<f64>,
    /// Length of the window, milliseconds.
    pub range: i64,
    /// The step.
    pub t: i64,
    /// Name of the series, for annotations.
    pub metric: &'a str,
    /// Place of the first argument in the query.
    pub span: Span,
    pub anchored: bool,
    pub smoothed: bool,
}

/// The range vector of a call.
struct RangeArgument {
    sources: Vec<RangeSource>,
    shift: Shift,
    range: i64,
    reach: (i64, i64),
    anchored: bool,
    smoothed: bool,
    /// Labels of `absent_over_time`.
    absent: Labels,
}

impl Evaluator<'_> {
    /// A call of a function of a range vector.
    pub fn range_call(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let (ast, function) = (self.ast, call.function.id);
        let is_range = |id: &ExprId| matches!(ast.expr(ast.unwrap_parens(*id)), Expr::Matrix(_) | Expr::Subquery(_));
        let at = call.args.iter().position(is_range).ok_or_else(|| Error::query("BUG: no range vector"))?;
        let argument = self.range_argument(ast.unwrap_parens(call.args[at]), grid)?;
        let mut params = Vec::new();
        for id in call.args.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, id)| *id) {
            params.push(self.scalar(id, grid)?);
        }
        check_modifiers(function, call.function.name, &argument)?;
        let span = ast.span(ast.unwrap_parens(call.args[0]));
        let mut out = Vec::new();
        for source in &argument.sources {
            let mut samples = Samples::new();
            for t in grid.iter() {
                let end = self.seen_at(&argument.shift, t);
                let window = Window::of(&source.points, end - argument.range, end, argument.reach);
                if window.is_empty() {
                    continue;
                }
                let found = self.window_call(WindowCall {
                    function,
                    window: &window,
                    params: params.iter().map(|p| p.get(&t).copied().unwrap_or(f64::NAN)).collect(),
                    range: argument.range,
                    t,
                    metric: source.labels.metric(),
                    span,
                    anchored: argument.anchored,
                    smoothed: argument.smoothed,
                })?;
                samples.extend(found.map(|sample| (t, sample)));
            }
            if !samples.is_empty() {
                self.note_maybe_no_counter(function, &source.labels, &samples, span);
                out.push(self.range_result(function, source, samples));
            }
        }
        if function == FunctionName::AbsentOverTime {
            return Ok(absent(&out, argument.absent, grid));
        }
        if !self.options.delayed_name_removal {
            value::check_distinct(&out)?;
        }
        Ok(out)
    }

    fn range_argument(&mut self, id: ExprId, grid: StepGrid) -> Result<RangeArgument, Error> {
        let ast = self.ast;
        match ast.expr(id) {
            Expr::Matrix(ms) => {
                let vs = ast.selector(id).ok_or_else(|| Error::query("BUG: a range selector without a selector"))?;
                Ok(RangeArgument {
                    sources: self.stored(vs, ast.span(ms.vector)),
                    shift: vs.shift,
                    range: ms.range_ms,
                    reach: self.reach(vs),
                    anchored: vs.anchored,
                    smoothed: vs.smoothed,
                    absent: absent_labels(&vs.matchers),
                })
            }
            Expr::Subquery(sub) => Ok(RangeArgument {
                sources: self.subquery(sub, grid)?,
                shift: sub.shift,
                range: sub.range_ms,
                reach: (0, 0),
                anchored: false,
                smoothed: false,
                absent: Labels::empty(),
            }),
            _ => Err(Error::query("BUG: not a range vector")),
        }
    }

    fn range_result(&self, function: FunctionName, source: &RangeSource, samples: Samples) -> Series {
        let (mut labels, mut dropped) = (source.labels.clone(), source.dropped);
        if dropped || !matches!(function, FunctionName::FirstOverTime | FunctionName::LastOverTime) {
            labels = self.drop_name(labels, &mut dropped);
        }
        Series { labels, dropped, samples }
    }

    /// Metrics whose rate makes sense are named (or declared) as counters.
    fn note_maybe_no_counter(&mut self, function: FunctionName, labels: &Labels, samples: &Samples, span: Span) {
        let metric = labels.metric();
        let is_rate = matches!(function, FunctionName::Rate | FunctionName::Increase);
        let has_float = samples.values().any(|s| matches!(s, Sample::Float(_)));
        if !is_rate || metric.is_empty() || !has_float {
            return;
        }
        if self.options.type_and_unit_labels {
            let declared = labels.get("__type__");
            if !["counter", "histogram"].contains(&declared) {
                self.notes.info(span, notes::maybe_no_counter_by_label(declared, metric));
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix)) {
            self.notes.info(span, notes::maybe_no_counter_by_name(metric));
        }
    }

    fn window_call(&mut self, call: WindowCall<'_>) -> Result<Option<Sample>, Error> {
        use FunctionName as F;
        match call.function {
            F::Rate | F::Increase | F::Delta if call.anchored || call.smoothed => Ok(self.extended_rate(&call)),
            F::Rate | F::Increase | F::Delta => Ok(self.extrapolated_rate(&call)),
            F::Irate | F::Idelta => Ok(self.instant_rate(&call)),
            F::Resets | F::Changes => Ok(self.transitions(&call)),
            F::Deriv | F::PredictLinear | F::DoubleExponentialSmoothing => self.trend(&call),
            _ => Ok(self.over_time(&call)),
        }
    }
}

/// `anchored` and `smoothed` make sense for some functions only.
fn check_modifiers(function: FunctionName, name: &str, argument: &RangeArgument) -> Result<(), Error> {
    use FunctionName as F;
    let is_rate = matches!(function, F::Rate | F::Increase | F::Delta);
    if argument.anchored && !is_rate && !matches!(function, F::Changes | F::Resets) {
        let text = "anchored modifier can only be used with: changes, delta, increase, rate, resets - not with";
        return Err(Error::query(format!("{text} {name}")));
    }
    if argument.smoothed && !is_rate {
        let text = "smoothed modifier can only be used with: delta, increase, rate - not with";
        return Err(Error::query(format!("{text} {name}")));
    }
    Ok(())
}

/// One series with 1 at the steps at which none of the others has a sample.
pub(super) fn absent(series: &[Series], labels: Labels, grid: StepGrid) -> Vec<Series> {
    let missing = |t: &i64| !series.iter().any(|s| s.samples.contains_key(t));
    let samples: Samples = grid.iter().filter(missing).map(|t| (t, Sample::Float(1.0))).collect();
    if samples.is_empty() { Vec::new() } else { vec![Series { labels, dropped: false, samples }] }
}

/// The labels for which a selector allows one value only; a second condition on a label removes it again.
pub(super) fn absent_labels(matchers: &[Matcher]) -> Labels {
    let mut builder = Labels::empty().to_builder();
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
