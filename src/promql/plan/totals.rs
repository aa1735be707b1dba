//! Which selectors' histograms are needed with their buckets, and which with count and sum alone.
//!
//! *Invariants:* buckets are left out only below `histogram_count`, `histogram_sum` or `histogram_avg`, and never where
//! anything on the way up to the root looks at buckets or evaluates the selector at steps of its own (a subquery: resets
//! between its steps can be seen in the buckets only).
//!
//! *Not here:* leaving them out (`exec::reader`).

use super::{Op, Pick, Plan, RangeInput};
use crate::promql::operator::BinaryOp;
use crate::promql::signature::FunctionName;

/// What is wanted of the histograms of a node.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// Count or sum.
    totals: bool,
    /// Buckets.
    buckets: bool,
}

/// Marks the selectors of which count and sum are enough.
pub(super) fn mark(plan: &mut Plan) {
    let mut wanted = vec![Wanted::default(); plan.nodes.len()];
    // Users stand after their inputs: from the root down.
    for i in (0..plan.nodes.len()).rev() {
        let of_this = wanted[i];
        let op = &mut plan.nodes[i].op;
        let enough = of_this.totals && !of_this.buckets;
        match op {
            Op::Select { pick, .. } if enough && *pick == Pick::Value => *pick = Pick::Totals,
            Op::RangeCall { range, .. } if enough => range.totals = matches!(range.input, RangeInput::Stored(_)),
            _ => {}
        }
        let of_inputs =
            Wanted { totals: of_this.totals || wants_totals(op), buckets: of_this.buckets || wants_buckets(op) };
        op.inputs(|input, _| wanted[input.0 as usize] = of_inputs);
    }
}

fn wants_totals(op: &Op) -> bool {
    use FunctionName as F;
    matches!(op, Op::Call { function: F::HistogramCount | F::HistogramSum | F::HistogramAvg, .. })
}

fn wants_buckets(op: &Op) -> bool {
    use FunctionName as F;
    match op {
        Op::Call { function, .. } => matches!(
            function,
            F::HistogramQuantile
                | F::HistogramQuantiles
                | F::HistogramFraction
                | F::HistogramStddev
                | F::HistogramStdvar
        ),
        Op::VectorBinary { op, .. } | Op::VectorScalar { op, .. } => {
            matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::Eq | BinaryOp::Ne)
        }
        Op::RangeCall { range, .. } => matches!(range.input, RangeInput::Subquery(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PlanOptions, build};
    use super::*;
    use crate::model::StepGrid;
    use crate::promql::{ParseOptions, parse};

    /// Whether each selector of a query does without buckets, in the order of the plan.
    fn without_buckets(query: &str) -> Vec<bool> {
        let ast = parse(query, ParseOptions::all()).unwrap();
        let plan =
            build(&ast, StepGrid::instant(0), PlanOptions { lookback: 300_000, subquery_step: 60_000, share: false });
        let of = |op: &Op| match op {
            Op::Select { pick, .. } => Some(*pick == Pick::Totals),
            Op::RangeCall { range, .. } if matches!(range.input, RangeInput::Stored(_)) => Some(range.totals),
            _ => None,
        };
        plan.nodes.iter().filter_map(|n| of(&n.op)).collect()
    }

    #[test]
    fn buckets_are_left_out_only_where_nobody_looks_at_them() {
        for (query, want) in [
            ("h", vec![false]),
            ("histogram_count(h)", vec![true]),
            ("histogram_avg(sum by (a) (rate(h[5m])))", vec![true]),
            ("histogram_sum(h + g) / histogram_count(rate(h[5m]))", vec![true, true, true]),
            ("histogram_count(h unless histogram_quantile(0.5, h) < 3)", vec![true, false]),
            ("histogram_quantile(0.5, h unless histogram_count(h) == 0)", vec![false, false]),
            ("histogram_count(increase(h[40m:9m]))", vec![false]),
            ("max_over_time(histogram_count(h)[10m:1m])", vec![false]),
            ("histogram_count(h </ 3)", vec![false]),
            ("histogram_count(h == g)", vec![false, false]),
            ("histogram_count(histogram_stddev(h))", vec![false]),
        ] {
            assert_eq!(without_buckets(query), want, "{query}");
        }
    }
}
