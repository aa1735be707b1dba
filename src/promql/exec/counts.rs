//! Samples as Prometheus counts them (`stats=all`): per step of the query.
//!
//! *Invariants:* what a selector sees is counted on each step that sees it (`queryable`), and on the first of them only as
//! `read`. A histogram counts for as many floats as fit into its memory in Prometheus. What a subquery's inner expression
//! sees is read, but it is the function over the subquery that is said to use it. A selector counts at each place where it
//! stands in the query: plans of counted queries are not shared.
//!
//! *Not here:* what bounds a query (`exec::control`): nothing is refused by these figures.
//!
//! Source: Prometheus `util/stats/query_stats.go` and the places in `promql/engine.go` that feed it.

use super::column::Column;
use super::reader::RangeSamples;
use crate::model::{Histogram, StepGrid};
use crate::promql::functions::window::{Edges, Windows, is_absent};
use crate::promql::plan::{NodeId, Op, Plan};

/// Bytes of Prometheus' `FloatHistogram` without what its slices hold, and of a timestamp.
const HISTOGRAM_BYTES: usize = 168 + 8;
/// Bytes of a float sample in Prometheus.
const FLOAT_BYTES: usize = 16;

/// Whose steps a node's steps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// Those of the query.
    Steps,
    /// Its only one stands for all of the query's.
    Once,
    /// Those of a subquery.
    Inside,
}

/// Samples per step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleCounts {
    /// Steps of the query.
    pub grid: StepGrid,
    /// Samples used on each step.
    pub queryable: Vec<u64>,
    /// Samples that no step before had used.
    pub read: Vec<u64>,
    /// By node of the plan.
    shares: Vec<Share>,
}

impl SampleCounts {
    /// Nothing counted yet.
    pub fn new(plan: &Plan) -> Self {
        let steps = plan.grid.len();
        Self { grid: plan.grid, queryable: vec![0; steps], read: vec![0; steps], shares: shares(plan) }
    }

    /// Counts what an instant vector selector saw of one series.
    pub fn selected(&mut self, node: NodeId, grid: StepGrid, column: &Column) {
        for (step, v) in column.values.iter().enumerate() {
            if !is_absent(*v) {
                self.add(node, grid, step, 1, 1);
            }
        }
        for (step, h) in &column.histograms {
            let floats = floats_of(h);
            self.add(node, grid, *step as usize, floats, floats);
        }
    }

    /// Counts what the windows of a range vector saw of one series; `stored` tells storage from a subquery's result.
    pub fn windowed(&mut self, node: NodeId, windows: &Windows, samples: &RangeSamples, stored: bool) {
        let (mut floats, mut histograms) = (Edges::default(), Edges::default());
        for step in 0..windows.grid.len() {
            let window = windows.window(step);
            let (start, end) = (window.start - windows.before, window.end + windows.after);
            let (floats_before, histograms_before) = (floats.hi, histograms.hi);
            floats.advance(&samples.ts, start, end);
            histograms.advance(&samples.histogram_ts, start, end);
            let sum = |lo: usize, hi: usize| samples.histograms[lo..hi].iter().map(|h| floats_of(h)).sum::<u64>();
            let seen = (floats.hi - floats.lo) as u64 + sum(histograms.lo, histograms.hi);
            // Edges never go back: what lies before the last right edge was seen by the step before.
            let new_floats = (floats.hi - floats.lo.max(floats_before)) as u64;
            let new_histograms = sum(histograms.lo.max(histograms_before), histograms.hi);
            let new = if stored { new_floats + new_histograms } else { 0 };
            self.add(node, windows.grid, step, seen, new);
        }
    }

    fn add(&mut self, node: NodeId, grid: StepGrid, step: usize, seen: u64, new: u64) {
        match self.shares[node.0 as usize] {
            Share::Steps => {
                self.queryable[step] += seen;
                self.read[step] += new;
            }
            Share::Once => {
                self.queryable.iter_mut().for_each(|n| *n += seen);
                self.read[0] += new;
            }
            Share::Inside => {
                let since = grid.at(step).saturating_sub(self.grid.start).max(0);
                let first = (since as u64).div_ceil(self.grid.step.max(1) as u64) as usize;
                self.read[first.min(self.grid.len() - 1)] += new;
            }
        }
    }
}

/// How many floats a histogram counts for.
fn floats_of(h: &Histogram) -> u64 {
    let elements =
        h.positive_spans.len() + h.negative_spans.len() + h.positive.len() + h.negative.len() + h.custom_values.len();
    ((HISTOGRAM_BYTES + 8 * elements) / FLOAT_BYTES) as u64
}

/// Walks the plan from its root: inputs stand before what uses them.
fn shares(plan: &Plan) -> Vec<Share> {
    let mut shares = vec![Share::Steps; plan.nodes.len()];
    for at in (0..plan.nodes.len()).rev() {
        let own = shares[at];
        let op = &plan.nodes[at].op;
        let within = match (op, own) {
            (Op::Repeat(_), Share::Steps) => Share::Once,
            _ => own,
        };
        op.inputs(|input, subquery| shares[input.0 as usize] = if subquery { Share::Inside } else { within });
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    #[test]
    fn a_histogram_counts_for_the_floats_it_takes_the_place_of() {
        let h = Histogram {
            positive_spans: vec![Span { offset: 0, length: 4 }],
            positive: vec![1.0; 4],
            ..Histogram::default()
        };
        assert_eq!(floats_of(&Histogram::default()), 11);
        assert_eq!(floats_of(&h), 13);
    }
}
