//! Values of duration expressions, once the query's start, end and step are known.
//!
//! *Invariants:* recursion is bounded, since the parser limits the parts of a duration expression. Where the fold
//! succeeds every range and step of the tree is positive.
//!
//! *Not here:* syntax (`parser`).

use super::ast::{Ast, DurationOp, Expr, ExprId};
use super::error::ParseError;
use super::literal::seconds_to_ms;
use super::position::LineCol;
use crate::model::StepGrid;

/// Computes all duration expressions of the tree: fills in the milliseconds beside each `*_expr` and keeps the
/// expressions for printing. `step()` is 0 for an instant query (a grid whose start is its end), as `range()` is.
pub fn fold_durations(ast: &mut Ast, grid: &StepGrid) -> Result<(), ParseError> {
    for at in 0..ast.nodes.len() {
        let id = ExprId(at as u32);
        let (offset, range, step) = match ast.expr(id) {
            Expr::Vector(selector) => (selector.shift.offset_expr, None, None),
            Expr::Matrix(matrix) => (None, matrix.range_expr, None),
            Expr::Subquery(subquery) => (subquery.shift.offset_expr, subquery.range_expr, subquery.step_expr),
            _ => continue,
        };
        let offset = offset.map(|expr| milliseconds(ast, grid, expr, true)).transpose()?;
        let step = step.map(|expr| milliseconds(ast, grid, expr, false)).transpose()?;
        let range = range.map(|expr| milliseconds(ast, grid, expr, false)).transpose()?;
        match ast.expr_mut(id) {
            Expr::Vector(selector) => selector.shift.offset_ms = offset.unwrap_or(selector.shift.offset_ms),
            Expr::Matrix(matrix) => matrix.range_ms = range.unwrap_or(matrix.range_ms),
            Expr::Subquery(subquery) => {
                subquery.shift.offset_ms = offset.unwrap_or(subquery.shift.offset_ms);
                subquery.range_ms = range.unwrap_or(subquery.range_ms);
                subquery.step_ms = step.unwrap_or(subquery.step_ms);
            }
            _ => {}
        }
    }
    Ok(())
}

fn milliseconds(ast: &Ast, grid: &StepGrid, expr: ExprId, negative_allowed: bool) -> Result<i64, ParseError> {
    let seconds = evaluate(ast, grid, expr).map_err(|(at, message)| mistake(ast, at, message))?;
    if seconds <= 0. && !negative_allowed {
        return Err(mistake(ast, expr, "duration must be greater than 0"));
    }
    // Nanoseconds in 64 bits, as in Prometheus.
    if seconds.is_nan() || seconds.abs() > i64::MAX as f64 / 1e9 {
        return Err(mistake(ast, expr, "duration is out of range"));
    }
    Ok(seconds_to_ms(seconds))
}

type Evaluated = Result<f64, (ExprId, &'static str)>;

fn evaluate(ast: &Ast, grid: &StepGrid, id: ExprId) -> Evaluated {
    let expr = match ast.expr(id) {
        Expr::Number { value, .. } => return Ok(*value),
        Expr::Duration(expr) => expr,
        _ => return Err((id, "unexpected duration expression")),
    };
    let side = |side: Option<ExprId>| side.map_or(Ok(0.), |operand| evaluate(ast, grid, operand));
    let (lhs, rhs) = (side(expr.lhs)?, side(expr.rhs)?);
    Ok(match expr.op {
        DurationOp::Step if grid.start == grid.end => 0.,
        DurationOp::Step => grid.step as f64 / 1000.,
        DurationOp::Range => (grid.end - grid.start) as f64 / 1000.,
        // A sign has no left side, which counts as 0.
        DurationOp::Add => lhs + rhs,
        DurationOp::Sub => lhs - rhs,
        DurationOp::Mul => lhs * rhs,
        DurationOp::Div if rhs == 0. => return Err((id, "division by zero")),
        DurationOp::Div => lhs / rhs,
        DurationOp::Mod if rhs == 0. => return Err((id, "modulo by zero")),
        DurationOp::Mod => lhs % rhs,
        DurationOp::Pow => lhs.powf(rhs),
        DurationOp::Min => lhs.min(rhs),
        DurationOp::Max => lhs.max(rhs),
    })
}

fn mistake(ast: &Ast, at: ExprId, message: &str) -> ParseError {
    let span = ast.span(at);
    // Prometheus puts the bytes into the text, having no place for a position here.
    let message = format!("{}:{}: {message}", span.start, span.end);
    ParseError { span, position: LineCol::of(&ast.text, span.start), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::{ParseOptions, parse};

    fn range_ms(text: &str, grid: StepGrid) -> Result<i64, String> {
        let mut ast = parse(text, ParseOptions::all()).unwrap();
        fold_durations(&mut ast, &grid).map_err(|e| e.message)?;
        match ast.expr(ast.root) {
            Expr::Matrix(matrix) => Ok(matrix.range_ms),
            Expr::Vector(selector) => Ok(selector.shift.offset_ms),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn durations_are_computed_from_the_grid() {
        let grid = StepGrid { start: 0, end: 60_000, step: 15_000 };
        for (text, ms) in [
            ("foo[step()]", 15_000),
            ("foo[range() / 2]", 30_000),
            ("foo[11s+10s-5*2^2]", 1000),
            ("foo[-(10s-5s)+20s]", 15_000),
            ("foo[0--2^2]", 4000),
            ("foo[max_of(step(), 1h) % 7m]", 240_000),
            ("foo offset -min_of(step(), 1500ms)", -1500),
            ("foo offset (5s - 8)", -3000),
            ("foo[4.018]", 4018),
        ] {
            assert_eq!(range_ms(text, grid), Ok(ms), "{text}");
        }
    }

    #[test]
    fn refuses_durations_that_are_no_durations() {
        let grid = StepGrid::instant(0);
        let fails = |text| range_ms(text, grid).unwrap_err();
        assert_eq!(fails("foo[step()]"), "4:10: duration must be greater than 0");
        assert_eq!(fails("foo[5s / step()]"), "4:15: division by zero");
        assert_eq!(fails("foo[10 ^ 300]"), "4:12: duration is out of range");
        assert_eq!(fails("foo[0/1 % (1 - 1)]"), "4:16: modulo by zero");
    }
}
