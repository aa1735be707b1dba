//! Which parts of a query have the same value on every step.
//!
//! *Invariants:* the rules are those of Prometheus' `PreprocessExpr`: a part wrapped there is repeated here. An exception
//! are aggregations: the parameter may differ from step to step where the aggregated vector does not, which Prometheus
//! overlooks.
//!
//! *Not here:* what is done with it (`build`).

use crate::promql::ast::{Ast, Expr, ExprId};
use crate::promql::signature::FunctionName;

/// What is known of one expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Invariance {
    /// The same value on every step.
    pub invariant: bool,
    /// Worth evaluating once (not so literals, and range vectors, which are evaluated by their function).
    pub hoist: bool,
}

/// The invariance of every node of a tree.
pub(super) fn analyse(ast: &Ast) -> Vec<Invariance> {
    let mut out = vec![Invariance::default(); ast.nodes.len()];
    for (i, node) in ast.nodes.iter().enumerate() {
        let of = |id: ExprId| out[id.0 as usize];
        let both = |v: bool| Invariance { invariant: v, hoist: v };
        let found = match &node.expr {
            Expr::Number { .. } | Expr::String(_) | Expr::Duration(_) => Invariance { invariant: true, hoist: false },
            Expr::Vector(vs) => both(vs.shift.at.is_some()),
            Expr::Matrix(ms) => Invariance { invariant: of(ms.vector).invariant, hoist: false },
            Expr::Subquery(sub) => both(sub.shift.at.is_some()),
            Expr::Unary { expr, .. } | Expr::Paren(expr) => of(*expr),
            Expr::Aggregate(a) => {
                let param = a.param.is_none_or(|param| of(param).invariant);
                Invariance { invariant: of(a.expr).invariant && param, hoist: of(a.expr).hoist && param }
            }
            Expr::Binary(b) => both(of(b.lhs).invariant && of(b.rhs).invariant),
            Expr::Call(call) => both(!depends_on_step(call.function.id) && call.args.iter().all(|a| of(*a).invariant)),
        };
        out[i] = found;
    }
    out
}

/// Whether a function's value may differ from step to step although its arguments do not.
fn depends_on_step(name: FunctionName) -> bool {
    use FunctionName as F;
    matches!(
        name,
        F::DaysInMonth | F::DayOfMonth | F::DayOfWeek | F::DayOfYear | F::Hour | F::Minute | F::Month | F::Year
    ) || matches!(name, F::PredictLinear | F::Time | F::Timestamp)
}
