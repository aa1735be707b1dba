//! `and`, `or`, `unless`.
//!
//! *Invariants:* whether a series has a counterpart is asked step by step.
//!
//! *Not here:* arithmetic and comparisons (`join`).

use super::column::{Column, Series};
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
) -> Result<Vec<Series>, Error> {
    let keys = signature_labels(matching);
    let mut index = KeyIndex::default();
    let mut numbers = |series: &[Series]| -> Vec<usize> {
        let mut buf = String::new();
        let number = |s: &Series| {
            keys.write(&mut buf, &s.labels, false);
            index.number(&buf).0
        };
        series.iter().map(number).collect()
    };
    let (left, right) = (numbers(&lhs), numbers(&rhs));
    let signatures = index.count();
    match op {
        BinaryOp::Or => {
            let present = presence(&lhs, &left, signatures, steps);
            let mut out = lhs;
            out.extend(filter(rhs, &right, &present, false));
            merge_steps(out)
        }
        _ => {
            let present = presence(&rhs, &right, signatures, steps);
            Ok(filter(lhs, &left, &present, op == BinaryOp::And))
        }
    }
}

/// For each signature the steps on which one of its series has a sample; empty where there is no series.
fn presence(series: &[Series], numbers: &[usize], signatures: usize, steps: usize) -> Vec<Vec<bool>> {
    let mut out = vec![Vec::new(); signatures];
    for (s, n) in series.iter().zip(numbers) {
        let mask: &mut Vec<bool> = &mut out[*n];
        mask.resize(steps, false);
        mask.iter_mut().enumerate().for_each(|(step, m)| *m |= s.column.has(step));
    }
    out
}

/// Keeps the samples whose signature is present (or absent) on their step.
fn filter(series: Vec<Series>, numbers: &[usize], present: &[Vec<bool>], want: bool) -> Vec<Series> {
    let mut out = Vec::with_capacity(series.len());
    for (mut s, n) in series.into_iter().zip(numbers) {
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
    out
}
