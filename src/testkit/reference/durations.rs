//! Durations that are computed: `[step() * 2]`, `offset min_of(1m, range())`.
//!
//! *Invariants:* every selector and subquery has plain milliseconds afterwards.
//!
//! *Not here:* how they are parsed.

use crate::model::StepGrid;
use crate::promql::ParseError;
use crate::promql::ast::{Ast, DurationOp, Expr, ExprId};
use crate::promql::exec::error::Error;
use crate::promql::position::LineCol;

/// Computes all durations of a query for its steps.
pub(super) fn fold(ast: &mut Ast, grid: StepGrid) -> Result<(), Error> {
    for i in 0..ast.nodes.len() {
        let id = ExprId(i as u32);
        let (offset, range, step) = match ast.expr(id) {
            Expr::Vector(vs) => (vs.shift.offset_expr, None, None),
            Expr::Matrix(ms) => (None, ms.range_expr, None),
            Expr::Subquery(sub) => (sub.shift.offset_expr, sub.range_expr, sub.step_expr),
            _ => continue,
        };
        // Prometheus computes offset, step and range in this order: the first mistake is the one reported.
        let offset = offset.map(|e| milliseconds(ast, grid, e, true)).transpose()?;
        let step = step.map(|e| milliseconds(ast, grid, e, false)).transpose()?;
        let range = range.map(|e| milliseconds(ast, grid, e, false)).transpose()?;
        match ast.expr_mut(id) {
            Expr::Vector(vs) => vs.shift.offset_ms = offset.unwrap_or(vs.shift.offset_ms),
            Expr::Matrix(ms) => ms.range_ms = range.unwrap_or(ms.range_ms),
            Expr::Subquery(sub) => {
                sub.shift.offset_ms = offset.unwrap_or(sub.shift.offset_ms);
                sub.step_ms = step.unwrap_or(sub.step_ms);
                sub.range_ms = range.unwrap_or(sub.range_ms);
            }
            _ => {}
        }
    }
    Ok(())
}

fn milliseconds(ast: &Ast, grid: StepGrid, id: ExprId, may_be_negative: bool) -> Result<i64, Error> {
    let seconds = seconds(ast, grid, id)?;
    if seconds <= 0.0 && !may_be_negative {
        return Err(mistake(ast, id, "duration must be greater than 0"));
    }
    // Prometheus keeps durations in 64 bits of nanoseconds and cuts them to milliseconds.
    if seconds.is_nan() || seconds.abs() * 1e9 > i64::MAX as f64 {
        return Err(mistake(ast, id, "duration is out of range"));
    }
    Ok((seconds * 1e9).round() as i64 / 1_000_000)
}

/// The value of a duration expression, seconds.
fn seconds(ast: &Ast, grid: StepGrid, id: ExprId) -> Result<f64, Error> {
    let duration = match ast.expr(id) {
        Expr::Number { value, .. } => return Ok(*value),
        Expr::Duration(duration) => duration,
        _ => return Err(mistake(ast, id, "unexpected duration expression")),
    };
    let operand = |id: Option<ExprId>| id.map_or(Ok(0.0), |id| seconds(ast, grid, id));
    let (a, b) = (operand(duration.lhs)?, operand(duration.rhs)?);
    let is_instant = grid.start == grid.end;
    Ok(match duration.op {
        DurationOp::Add => a + b,
        DurationOp::Sub => a - b,
        DurationOp::Mul => a * b,
        DurationOp::Div if b == 0.0 => return Err(mistake(ast, id, "division by zero")),
        DurationOp::Div => a / b,
        DurationOp::Mod if b == 0.0 => return Err(mistake(ast, id, "modulo by zero")),
        DurationOp::Mod => a % b,
        DurationOp::Pow => a.powf(b),
        DurationOp::Min => a.min(b),
        DurationOp::Max => a.max(b),
        DurationOp::Step if is_instant => 0.0,
        DurationOp::Step => grid.step as f64 / 1000.0,
        DurationOp::Range => (grid.end - grid.start) as f64 / 1000.0,
    })
}

fn mistake(ast: &Ast, id: ExprId, message: &str) -> Error {
    let span = ast.span(id);
    let message = format!("{}:{}: {message}", span.start, span.end);
    Error::Duration(ParseError { span, position: LineCol::of(&ast.text, span.start), message })
}
