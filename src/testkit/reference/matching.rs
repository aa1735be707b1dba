//! Operators between two vectors: which elements are paired, and the labels of what comes out.
//!
//! *Invariants:* steps know nothing of each other. With `group_right` the sides change places: what is said of the
//! "many" side holds for the left vector except there.
//!
//! *Not here:* what becomes of a pair of samples (`elements`).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::elements::{Outcome, changes_metric};
use super::evaluator::Evaluator;
use super::value::{self, Element, Sample, Series, is_metadata};
use crate::model::labels::{Quoted, is_legacy_label_name};
use crate::model::{Labels, METRIC_NAME, StepGrid};
use crate::promql::ast::{Binary, BinaryOp, Cardinality, Matching};
use crate::promql::exec::error::Error;
use crate::promql::position::Span;

/// The labels by which elements of both sides find each other.
fn signature(matching: &Matching, labels: &Labels) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|l| **l == *name);
    let keep = |name: &str| if matching.on { named(name) } else { !named(name) && name != METRIC_NAME };
    labels.to_builder().retain(keep).build()
}

/// Pairs that were combined at a step: for each signature the labels that came out.
type Matched = HashMap<Labels, HashSet<Labels>>;

impl Evaluator<'_> {
    /// An operator between two vectors, step by step.
    pub fn vector_and_vector(
        &mut self,
        binary: &Binary,
        span: Span,
        lhs: &[Series],
        rhs: &[Series],
        grid: StepGrid,
    ) -> Result<Vec<Series>, Error> {
        let matching = binary.matching.clone().unwrap_or_default();
        let mut steps = Vec::new();
        for t in grid.iter() {
            let (l, r) = (value::at(lhs, t), value::at(rhs, t));
            let out = match binary.op {
                BinaryOp::And => with_counterpart(&matching, l, &r, true),
                BinaryOp::Unless => with_counterpart(&matching, l, &r, false),
                BinaryOp::Or => {
                    let mut others = with_counterpart(&matching, r, &l, false);
                    others.iter_mut().for_each(|e| e.from += lhs.len());
                    l.into_iter().chain(others).collect()
                }
                _ => self.join(binary, &matching, span, l, r)?,
            };
            steps.push((t, out));
        }
        self.collect(steps)
    }

    /// The vectors of one step joined: each element of the "many" side with the one of its signature on the other side.
    fn join(
        &mut self,
        binary: &Binary,
        matching: &Matching,
        span: Span,
        lhs: Vec<Element>,
        rhs: Vec<Element>,
    ) -> Result<Vec<Element>, Error> {
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if (lhs.is_empty() && rhs.is_empty()) || (!fills && (lhs.is_empty() || rhs.is_empty())) {
            return Ok(Vec::new());
        }
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let ones = by_signature(matching, &one)?;
        let present: HashSet<Labels> = many.iter().map(|e| signature(matching, &e.labels)).collect();
        let stand_in = |of: &Element, fill: f64| Element {
            labels: signature(matching, &of.labels),
            dropped: false,
            sample: Sample::Float(fill),
            // Behind all series of the "many" side.
            from: of.from + usize::MAX / 2,
        };
        let (mut out, mut matched) = (Vec::new(), Matched::new());
        let mut put = |this: &mut Self, many: &Element, one: &Element| -> Result<(), Error> {
            out.extend(this.joined(binary, matching, span, (many, one), &mut matched)?);
            Ok(())
        };
        for element in &many {
            match ones.get(&signature(matching, &element.labels)) {
                Some(one) => put(self, element, one)?,
                // The fill values keep their sides when `group_right` swaps the vectors: `fill_right` stands in on the
                // "one" side always.
                None => {
                    if let Some(fill) = matching.fill_right {
                        put(self, element, &stand_in(element, fill))?;
                    }
                }
            }
        }
        if let Some(fill) = matching.fill_left {
            for element in one.iter().filter(|e| !present.contains(&signature(matching, &e.labels))) {
                put(self, &stand_in(element, fill), element)?;
            }
        }
        Ok(out)
    }

    /// One pair combined; `None` where nothing is left of it.
    fn joined(
        &mut self,
        binary: &Binary,
        matching: &Matching,
        span: Span,
        (many, one): (&Element, &Element),
        matched: &mut Matched,
    ) -> Result<Option<Element>, Error> {
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (l, r) = if swapped { (one, many) } else { (many, one) };
        let outcome = self.pair(binary.op, span, &l.sample, &r.sample);
        if matches!(outcome, Outcome::Impossible) {
            return Ok(None);
        }
        let mut dropped = many.dropped;
        let mut labels = result_labels(binary.op, matching, &many.labels, &one.labels);
        if binary.return_bool {
            labels = self.drop_name(labels, &mut dropped);
        }
        let known = matched.entry(signature(matching, &many.labels)).or_default();
        let text = match matching.cardinality {
            Cardinality::OneToOne => "many-to-one matching must be explicit (group_left/group_right)",
            _ => "grouping labels must ensure unique matches",
        };
        let again =
            if matching.cardinality == Cardinality::OneToOne { !known.is_empty() } else { known.contains(&labels) };
        if again {
            return Err(Error::query(format!("multiple matches for labels: {text}")));
        }
        known.insert(labels.clone());
        Ok(outcome.sample(binary.return_bool).map(|sample| Element { labels, dropped, sample, from: many.from }))
    }
}

/// The elements whose signature is among those of `others`, or is not.
fn with_counterpart(matching: &Matching, elements: Vec<Element>, others: &[Element], wanted: bool) -> Vec<Element> {
    let present: HashSet<Labels> = others.iter().map(|e| signature(matching, &e.labels)).collect();
    elements.into_iter().filter(|e| present.contains(&signature(matching, &e.labels)) == wanted).collect()
}

/// The "one" side by signature; two elements of one signature are an error.
fn by_signature<'a>(matching: &Matching, one: &'a [Element]) -> Result<BTreeMap<Labels, &'a Element>, Error> {
    let mut out: BTreeMap<Labels, &Element> = BTreeMap::new();
    for element in one {
        let group = signature(matching, &element.labels);
        let Some(first) = out.insert(group.clone(), element) else { continue };
        let side = if matching.cardinality == Cardinality::OneToMany { "left" } else { "right" };
        let mut pair = [as_pairs(&first.labels), as_pairs(&element.labels)];
        pair.sort();
        return Err(Error::query(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}]\
             ;many-to-many matching not allowed: matching labels must be unique on one side",
            as_pairs(&group),
            pair[0],
            pair[1]
        )));
    }
    Ok(out)
}

/// The labels of a combined pair: those of the "many" side, as far as they still hold.
fn result_labels(op: BinaryOp, matching: &Matching, many: &Labels, one: &Labels) -> Labels {
    let mut builder = many.to_builder();
    if changes_metric(op) {
        builder.retain(|name| !is_metadata(name));
    }
    if matching.cardinality == Cardinality::OneToOne {
        let named = |name: &str| matching.labels.iter().any(|l| **l == *name);
        builder.retain(|name| named(name) == matching.on);
    }
    for name in &matching.include {
        builder.set(name, one.get(name));
    }
    builder.build()
}

/// A label set with its name as a label among others.
fn as_pairs(labels: &Labels) -> String {
    let pair = |(name, value): (&str, &str)| match is_legacy_label_name(name) {
        true => format!("{name}={}", Quoted(value)),
        false => format!("{}={}", Quoted(name), Quoted(value)),
    };
    format!("{{{}}}", labels.iter().map(pair).collect::<Vec<_>>().join(", "))
}
