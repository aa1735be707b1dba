//! Aggregations over all series of a group at once: `topk bottomk limitk limit_ratio quantile count_values`.
//!
//! *Invariants:* ties are decided as Prometheus' heap decides them, given the same order of series.
//!
//! *Not here:* sums and the like (`aggregate`).

use std::sync::Arc;

use hashbrown::HashMap;
use xxhash_rust::xxh64::xxh64;

use super::column::{Column, Sample, ScalarColumn, Series, Vector};
use super::control::Budget;
use super::error::Error;
use super::labels::{KeyIndex, KeyLabels};
use crate::model::number::{format_f, format_g};
use crate::model::{Histogram, Labels};
use crate::promql::annotations::Annotations;
use crate::promql::functions::quantile::quantile;
use crate::promql::functions::window::is_absent;
use crate::promql::histogram::text;
use crate::promql::operator::AggregateOp;
use crate::promql::position::Span;

/// An aggregation of all series of a vector.
pub struct SelectK<'a> {
    /// Operator.
    pub op: AggregateOp,
    /// Group labels.
    pub keys: &'a KeyLabels,
    /// `k`, ratio or quantile.
    pub param: &'a ScalarColumn,
    /// Place of the parameter in the text.
    pub param_span: Span,
    /// Place of the aggregated expression in the text.
    pub input_span: Span,
    /// Place of the whole aggregation in the text.
    pub span: Span,
    /// Steps of the grid.
    pub steps: usize,
    /// One step only: the order of the outcome is kept.
    pub instant: bool,
}

impl SelectK<'_> {
    /// Evaluates it, and says whether it took the order of the series to decide between equal values.
    pub fn eval(
        &self,
        input: Vec<Series>,
        notes: &mut Annotations,
        budget: &mut Budget,
    ) -> Result<(Vector, bool), Error> {
        let params = || (0..self.steps).map(|s| self.param.at(s));
        let any_nan = params().any(f64::is_nan);
        let (max, min) = (params().fold(f64::MIN, f64::max), params().fold(f64::MAX, f64::min));
        match self.op {
            AggregateOp::Quantile => {
                let bad = [(any_nan, f64::NAN), (!any_nan && max > 1.0, max), (!any_nan && min < 0.0, min)];
                for (_, q) in bad.iter().filter(|(bad, _)| *bad) {
                    let text = format!("quantile value should be between 0 and 1, got {}", format_g(*q));
                    notes.warning(self.param_span, text);
                }
                return Ok((self.quantiles(&input, notes, budget)?.into(), false));
            }
            AggregateOp::LimitRatio => {
                if any_nan {
                    return Err(Error::query("Ratio value is NaN"));
                }
                for (q, to) in [(max, 1.0), (min, -1.0)].into_iter().filter(|(q, to)| q.abs() > 1.0 && q * to > 0.0) {
                    let text = "ratio value should be between -1 and 1, got";
                    notes.warning(self.param_span, format!("{text} {}, capping to {to}", format_g(q)));
                }
            }
            _ => {
                if any_nan {
                    return Err(Error::query("Parameter value is NaN"));
                }
                if max < 1.0 {
                    return Ok((Vector::default(), false));
                }
                if min <= i64::MIN as f64 {
                    return Err(Error::query(format!("Scalar value {} underflows int64", format_g(min))));
                }
                if max >= i64::MAX as f64 {
                    return Err(Error::query(format!("Scalar value {} overflows int64", format_g(max))));
                }
            }
        }
        self.choose(input, notes, budget)
    }

    /// The group of each series, and the labels of the groups.
    fn groups(&self, input: &[Series], budget: &mut Budget) -> Result<(Vec<usize>, Vec<Labels>), Error> {
        let (mut index, mut buf, mut labels) = (KeyIndex::default(), String::new(), Vec::new());
        budget.hold(0, size_of::<usize>() * input.len())?;
        let mut groups = Vec::with_capacity(input.len());
        for s in input {
            budget.check()?;
            self.keys.write(&mut buf, &s.labels, false);
            let (n, new) = index.number(&buf, budget)?;
            if new {
                let made = Labels::from_canonical(&buf).unwrap_or_default();
                budget.hold(0, size_of::<Labels>() + made.heap_bytes())?;
                labels.push(made);
            }
            groups.push(n);
        }
        Ok((groups, labels))
    }

    fn quantiles(&self, input: &[Series], notes: &mut Annotations, budget: &mut Budget) -> Result<Vec<Series>, Error> {
        let (groups, labels) = self.groups(input, budget)?;
        // A column and a list of values for each group, and every sample of a step in one of these.
        budget.hold(0, labels.len() * (size_of::<Series>() + size_of::<Vec<f64>>() + 8 * self.steps))?;
        budget.hold(0, 2 * size_of::<f64>() * input.len())?;
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); labels.len()];
        let mut columns = vec![Column::absent(self.steps); labels.len()];
        for step in 0..self.steps {
            budget.check()?;
            values.iter_mut().for_each(Vec::clear);
            for (s, group) in input.iter().zip(&groups) {
                let v = s.column.values[step];
                if !is_absent(v) {
                    values[*group].push(v);
                } else if s.column.histogram(step).is_some() {
                    notes.info(self.input_span, "ignored histogram in quantile aggregation");
                }
            }
            for (column, values) in columns.iter_mut().zip(&mut values).filter(|(_, v)| !v.is_empty()) {
                column.values[step] = quantile(self.param.at(step), values);
            }
        }
        let mut dropped = vec![false; labels.len()];
        input.iter().zip(&groups).for_each(|(s, g)| dropped[*g] |= s.dropped);
        let rows = labels.into_iter().zip(columns).zip(dropped);
        let made = rows.map(|((labels, column), dropped)| Series { labels, dropped, column });
        Ok(made.filter(|s| !s.column.is_empty()).collect())
    }

    fn choose(
        &self,
        input: Vec<Series>,
        notes: &mut Annotations,
        budget: &mut Budget,
    ) -> Result<(Vector, bool), Error> {
        let (groups, labels) = self.groups(&input, budget)?;
        // Lists of series: what is chosen on a step, in which order, and of which a column is made.
        let lists = size_of::<(f64, usize)>() + size_of::<usize>() + 2 * size_of::<Option<Series>>();
        budget.hold(0, lists * input.len() + size_of::<Chosen>() * labels.len())?;
        let mut chosen: Vec<Chosen> = (0..labels.len()).map(|_| Chosen::default()).collect();
        let mut columns: Vec<Option<Column>> = vec![None; input.len()];
        let mut order = Vec::new();
        let offsets: Vec<f64> = match self.op {
            AggregateOp::LimitRatio => input.iter().map(|s| ratio_offset(&s.labels)).collect(),
            _ => Vec::new(),
        };
        for step in 0..self.steps {
            budget.check()?;
            chosen.iter_mut().for_each(Chosen::clear);
            for (i, s) in input.iter().enumerate() {
                let Some(sample) = s.column.sample(step) else { continue };
                let offset = offsets.get(i).copied().unwrap_or(0.0);
                self.offer(&mut chosen[groups[i]], i, &sample, offset, step, input.len(), notes);
            }
            for group in &mut chosen {
                group.sort(self.op);
                for (_, i) in &group.heap {
                    if columns[*i].is_none() {
                        budget.hold(0, 8 * self.steps)?;
                    }
                    let column = columns[*i].get_or_insert_with(|| Column::absent(self.steps));
                    if let Some(sample) = input[*i].column.sample(step) {
                        column.put(step, sample);
                    }
                    if self.instant {
                        order.push(*i);
                    }
                }
            }
        }
        if !self.instant {
            order = (0..input.len()).collect();
        }
        let mut input: Vec<Option<Series>> = input.into_iter().map(Some).collect();
        let mut series = Vec::new();
        for i in order {
            if let (Some(column), Some(s)) = (columns[i].take(), input[i].take()) {
                series.push(Series { column, ..s });
            }
        }
        let tied = chosen.iter().any(|group| group.tied);
        Ok((Vector { series, ordered: matches!(self.op, AggregateOp::Topk | AggregateOp::Bottomk) }, tied))
    }

    #[allow(clippy::too_many_arguments, reason = "one sample and everything that decides about it")]
    fn offer(
        &self,
        group: &mut Chosen,
        i: usize,
        sample: &Sample,
        offset: f64,
        step: usize,
        inputs: usize,
        notes: &mut Annotations,
    ) {
        let param = self.param.at(step);
        let k = (param as i64).min(inputs as i64).max(0) as usize;
        match (self.op, sample) {
            (AggregateOp::LimitRatio, _) => {
                let r = param.clamp(-1.0, 1.0);
                if (r >= 0.0 && offset < r) || (r < 0.0 && offset >= 1.0 + r) {
                    group.heap.push((0.0, i));
                }
            }
            (AggregateOp::Limitk, _) => {
                if group.heap.len() < k {
                    group.heap.push((0.0, i));
                }
            }
            _ if k == 0 => {}
            (op, Sample::Histogram(_)) => notes.info(self.span, format!("ignored histogram in {op} aggregation")),
            (op, Sample::Float(v)) => group.offer(if op == AggregateOp::Topk { *v } else { -*v }, i, k),
        }
    }
}

/// The best series of a group so far: a heap with the worst in front.
#[derive(Default)]
struct Chosen {
    heap: Vec<(f64, usize)>,
    /// On some step a series had to go although another one as bad stayed.
    tied: bool,
}

impl Chosen {
    fn clear(&mut self) {
        self.heap.clear();
    }

    fn less(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.heap[a].0, self.heap[b].0);
        a.is_nan() || a < b
    }

    fn offer(&mut self, v: f64, i: usize, k: usize) {
        if self.heap.len() < k {
            self.heap.push((v, i));
            self.up(self.heap.len() - 1);
            return;
        }
        let worst = self.heap[0].0;
        if worst < v || (worst.is_nan() && !v.is_nan()) {
            self.heap[0] = (v, i);
            self.down();
            self.tied |= is_equal(worst, self.heap[0].0);
        } else {
            self.tied |= is_equal(worst, v);
        }
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.less(at, parent) {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn down(&mut self) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let child = if right < self.heap.len() && self.less(right, left) { right } else { left };
            if !self.less(child, at) {
                return;
            }
            self.heap.swap(at, child);
            at = child;
        }
    }

    /// Best first, NaN last; ties stay in heap order.
    fn sort(&mut self, op: AggregateOp) {
        if matches!(op, AggregateOp::Topk | AggregateOp::Bottomk) {
            self.heap.sort_by(|a, b| crate::promql::functions::quantile::nan_first(&b.0, &a.0));
        }
    }
}

fn is_equal(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// Where a label set lies between 0 and 1, for `limit_ratio`: the hash of Prometheus' encoding of it.
fn ratio_offset(labels: &Labels) -> f64 {
    let mut bytes = Vec::new();
    for part in labels.iter().flat_map(|(n, v)| [n, v]) {
        match u8::try_from(part.len()) {
            Ok(len) if len < 0xff => bytes.push(len),
            _ => {
                bytes.push(0xff);
                bytes.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh64(&bytes, 0) as f64 / u64::MAX as f64
}

/// `count_values`: one series per group and value.
pub fn count_values(
    input: &[Series],
    label: &str,
    keys: &KeyLabels,
    steps: usize,
    budget: &mut Budget,
) -> Result<Vec<Series>, Error> {
    let mut index = KeyIndex::default();
    let mut out: Vec<Series> = Vec::new();
    let mut number = |s: &Series, value: &str, out: &mut Vec<Series>| -> Result<usize, Error> {
        let labels = keys.of(&s.labels.to_builder().set(label, value).build());
        let (n, new) = index.number(labels.canonical(), budget)?;
        if new {
            budget.room(8 * steps)?;
            let series = Series { labels, dropped: false, column: Column::absent(steps) };
            budget.hold(0, series.bytes())?;
            out.push(series);
        }
        budget.check()?;
        Ok(n)
    };
    let count = |series: &mut Series, step: usize| {
        let count = &mut series.column.values[step];
        *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
    };
    // Bits of a value to the number of its outcome: formatting is slow and values repeat.
    let mut known: HashMap<u64, usize> = HashMap::new();
    for s in input {
        known.clear();
        for (step, v) in s.column.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
            let n = match known.get(&v.to_bits()) {
                Some(n) => *n,
                None => {
                    let n = number(s, &format_f(*v), &mut out)?;
                    known.insert(v.to_bits(), n);
                    n
                }
            };
            count(&mut out[n], step);
        }
        let mut last: Option<(&Arc<Histogram>, usize)> = None;
        for (step, h) in &s.column.histograms {
            let n = match last {
                Some((before, n)) if Arc::ptr_eq(before, h) => n,
                _ => number(s, &text(h), &mut out)?,
            };
            last = Some((h, n));
            count(&mut out[n], *step as usize);
        }
    }
    Ok(out)
}
