//! `label_replace`, `label_join`, and the sorts.
//!
//! *Invariants:* writing a label merges series that became equal, or fails where they have samples at the same time.
//!
//! *Not here:* labels of info metrics (`info`).

use std::cmp::Ordering;

use super::evaluator::Evaluator;
use super::ranking::best_first;
use super::value::{self, Sample, Series};
use crate::model::regexp::Replacer;
use crate::model::{Labels, METRIC_NAME, StepGrid};
use crate::promql::ast::{Call, ExprId};
use crate::promql::exec::error::Error;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

impl Evaluator<'_> {
    /// A string argument; as a label name it must not be empty.
    fn label_text(&mut self, id: ExprId, what: &str, is_name: bool) -> Result<String, Error> {
        let bytes = self.text(id, StepGrid::instant(0))?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if !(is_name && text.is_empty()) => Ok(text.to_owned()),
            _ => Err(Error::query(format!("{what}: {}", String::from_utf8_lossy(&bytes)))),
        }
    }

    pub(super) fn label_replace(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let args = &call.args;
        let pattern = self.label_text(args[4], "invalid regular expression in label_replace()", false)?;
        let pattern = Replacer::new(&pattern)
            .map_err(|_| Error::query(format!("invalid regular expression in label_replace(): {pattern}")))?;
        let target = self.label_text(args[1], "invalid destination label name in label_replace()", true)?;
        let replacement = self.label_text(args[2], "invalid replacement in label_replace()", false)?;
        let source = self.label_text(args[3], "invalid source label name in label_replace()", false)?;
        let template = pattern.template(&replacement);
        let written = |labels: &Labels| pattern.replace(labels.get(&source), &template);
        let input = self.vector(args[0], grid)?;
        write_label(input, &target, written)
    }

    pub(super) fn label_join(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let mut sources = Vec::new();
        for id in &call.args[3..] {
            sources.push(self.label_text(*id, "invalid source label name in label_join()", true)?);
        }
        let target = self.label_text(call.args[1], "invalid destination label name in label_join()", true)?;
        let separator = self.label_text(call.args[2], "invalid separator in label_join()", false)?;
        let written = |labels: &Labels| {
            let values: Vec<&str> = sources.iter().map(|name| labels.get(name)).collect();
            Some(values.join(&separator))
        };
        let input = self.vector(call.args[0], grid)?;
        write_label(input, &target, written)
    }

    pub(super) fn sort(&mut self, call: &Call, span: Span, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let mut names = Vec::new();
        for id in &call.args[1..] {
            names.push(self.label_text(*id, "invalid label name in sort_by_label()", false)?);
        }
        let mut series = self.vector(call.args[0], grid)?;
        self.note_sorting(span, grid);
        let descending = matches!(call.function.id, FunctionName::SortDesc | FunctionName::SortByLabelDesc);
        if matches!(call.function.id, FunctionName::SortByLabel | FunctionName::SortByLabelDesc) {
            series.sort_by(|a, b| {
                let order = by_labels(&a.labels, &b.labels, &names);
                if descending { order.reverse() } else { order }
            });
            return Ok(series);
        }
        for s in &mut series {
            s.samples.retain(|_, sample| matches!(sample, Sample::Float(_)));
        }
        series.retain(|s| !s.samples.is_empty());
        if grid.start == grid.end {
            series.sort_by(|a, b| best_first(only(a), only(b), descending));
        }
        Ok(series)
    }
}

/// Puts a value into a label of every series that has one to put; a name written so is there to stay.
fn write_label(
    mut series: Vec<Series>,
    target: &str,
    written: impl Fn(&Labels) -> Option<String>,
) -> Result<Vec<Series>, Error> {
    for s in &mut series {
        if let Some(text) = written(&s.labels) {
            s.labels = s.labels.to_builder().set(target, &text).build();
            s.dropped &= target != METRIC_NAME;
        }
    }
    value::merge(series)
}

/// The value of a series of an instant query.
fn only(series: &Series) -> f64 {
    match series.samples.values().next() {
        Some(Sample::Float(v)) => *v,
        _ => f64::NAN,
    }
}

/// The order by the values of some labels, then by all of them.
fn by_labels(a: &Labels, b: &Labels, names: &[String]) -> Ordering {
    let differing = names.iter().map(|name| (a.get(name), b.get(name))).find(|(x, y)| x != y);
    match differing {
        Some((x, y)) => natural(x, y),
        None => a.cmp(b),
    }
}

/// The order of different texts in which runs of digits count as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (runs(a).into_iter(), runs(b).into_iter());
    loop {
        let (x, y) = match (x.next(), y.next()) {
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) => (x, y),
        };
        let order = match (x.parse::<u64>().ok(), y.parse::<u64>().ok()) {
            (Some(n), Some(m)) => n.cmp(&m).then(x.len().cmp(&y.len())),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Runs of digits and of anything else.
fn runs(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        out.push(run);
        rest = after;
    }
    out
}
