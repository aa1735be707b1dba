//! `and`, `or`, `unless`.
//!
//! *Invariants:* whether a series has a counterpart is asked step by step.
//!
//! *Not here:* arithmetic and comparisons (`join`).

use super::column::{Column, Series};
use super::control::Budget;
use super::error::Error;
use super::labels::{KeyIndex, KeyLabels, merge_steps};
use crate::promql::ast::Matching;
use crate::promql::functions::window::ABSENT;
use crate::promql::operator::BinaryOp;

/// The key labels of a matching.
pub fn signature_labels(matching: &Matching) -> KeyLabels {
    if matching.on { KeyLabels::only(&matching.labels) } else { KeyLabels::all_but(&matching.labels) }
}

/// Evaluates a set operator.
pub fn set_operation(
    op: BinaryOp,
    lhs: Vec<Series>,
    rhs: Vec<Series>,
    matching: &Matching,
    steps: usize,
    budget: &mut Budget,
) -> Result<Vec<Series>, Error> {
    let keys = signature_labels(matching);
    let mut index = KeyIndex::default();
    let (left, right) = (numbers(&keys, &mut index, &lhs, budget)?, numbers(&keys, &mut index, &rhs, budget)?);
    let signatures = index.count();
    match op {
        BinaryOp::Or => {
            let present = presence(&lhs, &left, signatures, steps, budget)?;
            let mut out = lhs;
            out.extend(filter(rhs, &right, &present, false, budget)?);
            merge_steps(out, budget)
        }
        _ => {
            let present = presence(&rhs, &right, signatures, steps, budget)?;
            filter(lhs, &left, &present, op == BinaryOp::And, budget)
        }
    }
}

/// The number of each series' key.
pub fn numbers(
    keys: &KeyLabels,
    index: &mut KeyIndex,
    series: &[Series],
    budget: &mut Budget,
) -> Result<Vec<usize>, Error> {
    budget.hold(0, series.len() * size_of::<usize>())?;
    let mut buf = String::new();
    let number = |s: &Series| {
        budget.check()?;
        keys.write(&mut buf, &s.labels, false);
        Ok(index.number(&buf, budget)?.0)
    };
    series.iter().map(number).collect()
}

/// For each signature the steps on which one of its series has a sample; empty where there is no series.
fn presence(
    series: &[Series],
    numbers: &[usize],
    signatures: usize,
    steps: usize,
    budget: &mut Budget,
) -> Result<Vec<Vec<bool>>, Error> {
    budget.hold(0, signatures * size_of::<Vec<bool>>())?;
    let mut out = vec![Vec::new(); signatures];
    for (s, n) in series.iter().zip(numbers) {
        budget.check()?;
        let mask: &mut Vec<bool> = &mut out[*n];
        if mask.is_empty() {
            budget.hold(0, steps)?;
            mask.resize(steps, false);
        }
        mask.iter_mut().enumerate().for_each(|(step, m)| *m |= s.column.has(step));
    }
    Ok(out)
}

/// Keeps the samples whose signature is present (or absent) on their step.
fn filter(
    series: Vec<Series>,
    numbers: &[usize],
    present: &[Vec<bool>],
    want: bool,
    budget: &Budget,
) -> Result<Vec<Series>, Error> {
    let mut out = Vec::with_capacity(series.len());
    for (mut s, n) in series.into_iter().zip(numbers) {
        budget.check()?;
        if present[*n].is_empty() {
            if !want {
                out.push(s);
            }
            continue;
        }
        let keep = |step: usize| present[*n][step] == want;
        let Column { values, histograms } = &mut s.column;
        values.iter_mut().enumerate().filter(|(step, _)| !keep(*step)).for_each(|(_, v)| *v = ABSENT);
        histograms.retain(|(step, _)| keep(*step as usize));
        if !s.column.is_empty() {
            out.push(s);
        }
    }
    Ok(out)
}
