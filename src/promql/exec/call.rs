//! Functions of whole vectors.
//!
//! *Invariants:* arguments come in the order of the call; types were checked before.
//!
//! *Not here:* functions of single series (`stage`, `range`), `info` (`info`).

use super::classic::{Histograms, with_metric};
use super::column::{Column, ScalarColumn, Series, Value, Vector};
use super::error::Error;
use super::labels::{drop_reserved, merge_equal};
use super::work::NameRemoval;
use crate::model::number::format_g;
use crate::model::{Labels, StepGrid};
use crate::promql::annotations::Annotations;
use crate::promql::functions::quantile::nan_first;
use crate::promql::functions::window::{ABSENT, is_absent};
use crate::promql::functions::{label, math, time};
use crate::promql::histogram::{NanObservations, fraction, quantile};
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

/// A call with its arguments' values.
pub struct Call {
    /// Which function.
    pub function: FunctionName,
    /// Values of the arguments.
    pub args: Vec<Value>,
    /// Places of the arguments in the text.
    pub spans: Vec<Span>,
    /// Place of the call in the text.
    pub span: Span,
    /// Steps.
    pub grid: StepGrid,
    /// There is one step, and it is no step among others: order may mean something.
    pub instant: bool,
    /// How names are removed.
    pub removal: NameRemoval,
}

impl Call {
    /// Evaluates the call.
    pub fn eval(mut self, notes: &mut Annotations) -> Result<Value, Error> {
        use FunctionName as F;
        match self.function {
            F::Scalar => Ok(Value::Scalar(scalar(&self.vector(0)?, self.grid.len()))),
            F::Vector => {
                let values = self.scalar(0)?.to_vec(self.grid.len());
                Ok(one_series(values))
            }
            F::MinOf | F::MaxOf => {
                let (a, b) = (self.scalar(0)?, self.scalar(1)?);
                let f = if self.function == F::MaxOf { math::go_max } else { math::go_min };
                let steps = (0..self.grid.len()).map(|s| f(a.at(s), b.at(s)));
                Ok(Value::Scalar(ScalarColumn::Steps(steps.collect())))
            }
            F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc => self.sort(notes),
            F::LabelReplace => self.label_replace(),
            F::LabelJoin => self.label_join(),
            F::HistogramQuantile => self.histogram_quantile(notes),
            F::HistogramQuantiles => self.histogram_quantiles(notes),
            F::HistogramFraction => self.histogram_fraction(notes),
            name => match time::calendar(name) {
                Some(f) => Ok(one_series(self.grid.iter().map(|t| f(t.div_euclid(1000) as f64)).collect())),
                None => Err(Error::query(format!("function {name:?} is not there yet"))),
            },
        }
    }

    fn take(&mut self, i: usize) -> Value {
        std::mem::replace(&mut self.args[i], Value::Text(Box::default()))
    }

    fn vector(&mut self, i: usize) -> Result<Vector, Error> {
        match self.take(i) {
            Value::Vector(v) => Ok(v),
            _ => Err(Error::query("BUG: argument is not an instant vector")),
        }
    }

    fn scalar(&mut self, i: usize) -> Result<ScalarColumn, Error> {
        match self.take(i) {
            Value::Scalar(v) => Ok(v),
            _ => Err(Error::query("BUG: argument is not a scalar")),
        }
    }

    /// A string argument as text; label names and values are UTF-8.
    fn text(&mut self, i: usize, what: &str) -> Result<String, Error> {
        match self.take(i) {
            Value::Text(bytes) => match String::from_utf8(bytes.into_vec()) {
                Ok(text) => Ok(text),
                Err(e) => Err(Error::query(format!("{what}: {}", String::from_utf8_lossy(e.as_bytes())))),
            },
            _ => Err(Error::query("BUG: argument is not a string")),
        }
    }

    fn sort(&mut self, notes: &mut Annotations) -> Result<Value, Error> {
        let Vector { mut series, .. } = self.vector(0)?;
        if !self.instant {
            let text = "sort is ineffective for range queries since results are always ordered by labels";
            notes.warning(self.span, text);
        }
        let descending = matches!(self.function, FunctionName::SortDesc | FunctionName::SortByLabelDesc);
        if matches!(self.function, FunctionName::Sort | FunctionName::SortDesc) {
            for s in &mut series {
                s.column.histograms.clear();
            }
            series.retain(|s| !s.column.is_empty());
            if self.instant {
                // NaN last either way.
                let key = |s: &Series| if descending { s.column.values[0] } else { -s.column.values[0] };
                series.sort_by(|a, b| nan_first(&key(b), &key(a)));
            }
            return Ok(Value::Vector(Vector { series, ordered: true }));
        }
        let mut names = Vec::new();
        for i in 1..self.args.len() {
            names.push(self.text(i, "invalid label name in sort_by_label()")?);
        }
        series.sort_by(|a, b| {
            let order = label::compare_by(&a.labels, &b.labels, &names);
            if descending { order.reverse() } else { order }
        });
        Ok(Value::Vector(Vector { series, ordered: true }))
    }

    fn label_replace(&mut self) -> Result<Value, Error> {
        let Vector { mut series, ordered } = self.vector(0)?;
        let target = self.text(1, "invalid destination label name in label_replace()")?;
        let replacement = self.text(2, "invalid replacement in label_replace()")?;
        let source = self.text(3, "invalid source label name in label_replace()")?;
        let pattern = self.text(4, "invalid regular expression in label_replace()")?;
        let replace = label::Replace::new(&target, &replacement, &source, &pattern).map_err(Error::Query)?;
        for s in &mut series {
            if let Some(labels) = replace.apply(&s.labels) {
                s.labels = labels;
                s.dropped &= replace.target() != crate::model::METRIC_NAME;
            }
        }
        Ok(Value::Vector(Vector { series: merge_equal(series)?, ordered }))
    }

    fn label_join(&mut self) -> Result<Value, Error> {
        let Vector { mut series, ordered } = self.vector(0)?;
        let target = self.text(1, "invalid destination label name in label_join()")?;
        let separator = self.text(2, "invalid separator in label_join()")?;
        let mut sources = Vec::new();
        for i in 3..self.args.len() {
            let name = self.text(i, "invalid source label name in label_join()")?;
            if name.is_empty() {
                return Err(Error::query(format!("invalid source label name in label_join(): {name}")));
            }
            sources.push(name);
        }
        if target.is_empty() {
            return Err(Error::query(format!("invalid destination label name in label_join(): {target}")));
        }
        for s in &mut series {
            s.labels = label::join(&s.labels, &target, &separator, &sources);
            s.dropped &= target != crate::model::METRIC_NAME;
        }
        Ok(Value::Vector(Vector { series: merge_equal(series)?, ordered }))
    }

    fn histograms(&mut self, i: usize, notes: &mut Annotations) -> Result<Histograms, Error> {
        let vector = self.vector(i)?;
        let named = self.removal == NameRemoval::Delayed;
        Ok(Histograms::of(vector.series, self.spans[i], named, notes))
    }

    /// The metric name as annotations show it.
    fn metric<'a>(&self, labels: &'a Labels) -> &'a str {
        if self.removal == NameRemoval::Delayed { labels.metric() } else { "" }
    }

    fn check_quantiles(&self, q: &ScalarColumn, i: usize, notes: &mut Annotations) {
        for step in 0..self.grid.len() {
            let q = q.at(step);
            if !(0.0..=1.0).contains(&q) {
                let text = format!("quantile value should be between 0 and 1, got {}", format_g(q));
                notes.warning(self.spans[i], text);
            }
        }
    }

    fn histogram_quantile(mut self, notes: &mut Annotations) -> Result<Value, Error> {
        let q = self.scalar(0)?;
        self.check_quantiles(&q, 0, notes);
        let histograms = self.histograms(1, notes)?;
        let series = self.quantiles(&histograms, &q, self.spans[1], notes);
        self.finish(series)
    }

    fn quantiles(&self, of: &Histograms, q: &ScalarColumn, span: Span, notes: &mut Annotations) -> Vec<Series> {
        let mut out = Vec::new();
        for native in &of.native {
            let labels = of.labels(native);
            let (mut nan, mut skewed) = (false, false);
            let column = of.map_native(native, |step, h| {
                let (value, why) = quantile(q.at(step), h);
                nan |= why == Some(NanObservations::Result);
                skewed |= why == Some(NanObservations::Skew);
                value
            });
            let text = "input to histogram_quantile has NaN observations, result is";
            for (_, result) in [(nan, "NaN"), (skewed, "skewed higher")].iter().filter(|(found, _)| *found) {
                notes.info(span, with_metric(format!("{text} {result}"), self.metric(labels)));
            }
            out.push(Series { labels: labels.clone(), dropped: true, column });
        }
        for classic in &of.classic {
            let metric = self.metric(&classic.labels);
            let at = |step: usize| self.grid.at(step);
            let column = of.quantile(classic, |step| q.at(step), at, (span, metric), notes);
            out.push(Series { labels: classic.labels.clone(), dropped: true, column });
        }
        out
    }

    fn histogram_quantiles(mut self, notes: &mut Annotations) -> Result<Value, Error> {
        let label = self.text(1, "invalid label name in histogram_quantiles()")?;
        let mut qs = Vec::new();
        for i in 2..self.args.len() {
            let q = self.scalar(i)?;
            self.check_quantiles(&q, i, notes);
            qs.push(q);
        }
        let histograms = self.histograms(0, notes)?;
        let mut out = Vec::new();
        for q in &qs {
            for s in self.quantiles(&histograms, q, self.spans[0], notes) {
                // The quantile may differ from step to step, and with it the label.
                for (step, v) in s.column.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                    let value = open_metrics_float(q.at(step));
                    let labels = s.labels.to_builder().set(&label, &value).build();
                    let at = match out.iter().position(|o: &Series| o.labels == labels) {
                        Some(at) => at,
                        None => {
                            let column = Column::absent(self.grid.len());
                            out.push(Series { labels, dropped: true, column });
                            out.len() - 1
                        }
                    };
                    if !is_absent(out[at].column.values[step]) {
                        return Err(Error::same_labels());
                    }
                    out[at].column.values[step] = *v;
                }
            }
        }
        self.finish(out)
    }

    fn histogram_fraction(mut self, notes: &mut Annotations) -> Result<Value, Error> {
        let (lower, upper) = (self.scalar(0)?, self.scalar(1)?);
        let histograms = self.histograms(2, notes)?;
        let mut out = Vec::new();
        for native in &histograms.native {
            let (labels, mut nan) = (histograms.labels(native), false);
            let column = histograms.map_native(native, |step, h| {
                let (value, has_nan) = fraction(lower.at(step), upper.at(step), h);
                nan |= has_nan;
                value
            });
            if nan {
                let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
                notes.info(self.spans[2], with_metric(text.to_owned(), self.metric(labels)));
            }
            out.push(Series { labels: labels.clone(), dropped: true, column });
        }
        for classic in &histograms.classic {
            let bounds = |step: usize| (lower.at(step), upper.at(step));
            let column = histograms.fraction(classic, bounds, self.spans[2], notes);
            out.push(Series { labels: classic.labels.clone(), dropped: true, column });
        }
        self.finish(out)
    }

    /// Removes names, at once if that is how it is done.
    fn finish(&self, mut series: Vec<Series>) -> Result<Value, Error> {
        series.retain(|s| !s.column.is_empty());
        if self.removal == NameRemoval::AtOnce {
            for s in &mut series {
                s.labels = drop_reserved(&s.labels);
            }
            series = merge_equal(series)?;
        }
        Ok(Value::Vector(series.into()))
    }
}

/// A vector of one series without labels.
fn one_series(values: Vec<f64>) -> Value {
    let column = Column { values, histograms: Vec::new() };
    Value::Vector(vec![Series { labels: Labels::empty(), dropped: false, column }].into())
}

/// `scalar(v)`: the only float of each step, or NaN.
fn scalar(vector: &Vector, steps: usize) -> ScalarColumn {
    let mut out = vec![ABSENT; steps];
    for s in &vector.series {
        for (slot, v) in out.iter_mut().zip(&s.column.values).filter(|(_, v)| !is_absent(**v)) {
            *slot = if is_absent(*slot) { *v } else { f64::NAN };
        }
    }
    out.iter_mut().filter(|v| is_absent(**v)).for_each(|v| *v = f64::NAN);
    ScalarColumn::Steps(out)
}

/// `absent(v)`: 1 on the steps without any sample.
pub fn absent(series: &[Series], labels: &Labels, steps: usize) -> Value {
    let mut values = vec![1.0; steps];
    for s in series {
        for (step, v) in values.iter_mut().enumerate() {
            if s.column.has(step) {
                *v = ABSENT;
            }
        }
    }
    if values.iter().all(|v| is_absent(*v)) {
        return Value::Vector(Vector::default());
    }
    let column = Column { values, histograms: Vec::new() };
    Value::Vector(vec![Series { labels: labels.clone(), dropped: false, column }].into())
}

/// A float as OpenMetrics writes label values: always with a point or an exponent.
fn open_metrics_float(v: f64) -> String {
    let text = format_g(v);
    let plain = !text.contains(['.', 'e', 'N', 'I']);
    if plain { format!("{text}.0") } else { text }
}
