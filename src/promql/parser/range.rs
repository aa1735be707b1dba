//! What follows a selector or subquery: ranges, `offset`, `@`, `anchored`, `smoothed`.
//!
//! *Invariants:* `offset` and `@` come after the range, each at most once.
//!
//! *Not here:* duration expressions (`duration`).

use super::{Context, Parser};
use crate::promql::ast::{At, Expr, ExprId, MatrixSelector, Shift, Subquery, VectorSelector};
use crate::promql::error::Mistake;
use crate::promql::literal::seconds_to_ms;
use crate::promql::position::Span;
use crate::promql::token::{Keyword, Kind, Token};

const RANGE: Context =
    Context { place: "subquery or range selector", expected: "number, duration, step(), or range()" };
const COLON: Context = Context { place: "subquery or range", expected: "\":\" or \"]\"" };
const STEP: Context = Context { place: "subquery selector", expected: "number, duration, step(), range(), or \"]\"" };
const CLOSE: Context = Context { place: "subquery selector", expected: "\"]\"" };
const OFFSET: Context = Context { place: "offset", expected: "number, duration, step(), or range()" };
const AT: Context = Context { place: "@", expected: "timestamp" };

impl Parser<'_> {
    /// `[range]`, `[range:]` or `[range:step]` behind `operand`.
    pub(super) fn range(&mut self, operand: ExprId) -> Result<ExprId, Mistake> {
        let open = self.take()?;
        let (range_ms, range_expr) = self.positive_duration(RANGE)?;
        if let Some(close) = self.take_if(Kind::RightBracket)? {
            self.check_range(operand, open.span.to(close.span))?;
            let matrix = MatrixSelector { vector: operand, range_ms, range_expr };
            let span = self.ast.span(operand).to(close.span);
            return Ok(self.push(Expr::Matrix(matrix), span));
        }
        self.expect(Kind::Colon, COLON)?;
        let (mut step_ms, mut step_expr) = (0, None);
        if self.peek()?.kind != Kind::RightBracket {
            (step_ms, step_expr) = self.positive_duration(STEP)?;
        }
        let close = self.expect(Kind::RightBracket, CLOSE)?;
        let shift = Shift::default();
        let subquery = Subquery { expr: operand, range_ms, range_expr, step_ms, step_expr, shift };
        let span = self.ast.span(operand).to(close.span);
        Ok(self.push(Expr::Subquery(Box::new(subquery)), span))
    }

    fn check_range(&self, operand: ExprId, brackets: Span) -> Result<(), Mistake> {
        let message = match self.ast.expr(operand) {
            Expr::Vector(vs) if has_offset(&vs.shift) => "no offset modifiers allowed before range",
            Expr::Vector(vs) if vs.shift.at.is_some() => "no @ modifiers allowed before range",
            Expr::Vector(_) => return Ok(()),
            _ => "ranges only allowed for vector selectors",
        };
        Err(Mistake::new(brackets, message))
    }

    pub(super) fn offset(&mut self, operand: ExprId) -> Result<ExprId, Mistake> {
        self.take()?;
        let (offset_ms, offset_expr) = self.offset_duration(OFFSET)?;
        let span = self.ast.span(operand);
        let Some(shift) = self.shift_mut(operand) else {
            return Err(not_shiftable("offset", span));
        };
        if has_offset(shift) {
            return Err(Mistake::new(span, "offset may not be set multiple times"));
        }
        (shift.offset_ms, shift.offset_expr) = (offset_ms, offset_expr);
        self.extend_to_last_closing(operand);
        Ok(operand)
    }

    pub(super) fn at(&mut self, operand: ExprId) -> Result<ExprId, Mistake> {
        self.take()?;
        let token = self.peek()?;
        let span = self.ast.span(operand);
        let at = match token.kind {
            Kind::Word(Keyword::Start) => self.at_word(At::Start)?,
            Kind::Word(Keyword::End) => self.at_word(At::End)?,
            _ => self.at_timestamp(token, span)?,
        };
        let Some(shift) = self.shift_mut(operand) else {
            return Err(not_shiftable("@", span));
        };
        if shift.at.is_some() {
            return Err(Mistake::new(span, "@ <timestamp> may not be set multiple times"));
        }
        shift.at = Some(at);
        self.extend_to_last_closing(operand);
        Ok(operand)
    }

    fn at_word(&mut self, at: At) -> Result<At, Mistake> {
        self.take()?;
        self.expect(Kind::LeftParen, AT)?;
        self.expect(Kind::RightParen, AT)?;
        Ok(at)
    }

    fn at_timestamp(&mut self, first: Token, operand: Span) -> Result<At, Mistake> {
        let negative = self.sign()?.is_some_and(|(negative, _)| negative);
        let Some((value, ..)) = self.literal()? else {
            let token = if negative { self.peek()? } else { first };
            return Err(self.unexpected(token, AT));
        };
        let seconds = if negative { -value } else { value };
        if !seconds.is_finite() || seconds >= i64::MAX as f64 || seconds <= i64::MIN as f64 {
            let shown =
                if seconds.is_finite() { format!("{seconds:.6}") } else { crate::model::number::format_f(seconds) };
            return Err(Mistake::new(operand, format!("timestamp out of bounds for @ modifier: {shown}")));
        }
        Ok(At::Time((seconds * 1000.).round() as i64))
    }

    pub(super) fn extend_range(&mut self, operand: ExprId, anchored: bool) -> Result<ExprId, Mistake> {
        self.take()?;
        let word = if anchored { "anchored" } else { "smoothed" };
        let span = self.ast.span(operand);
        if !self.options.extended_range_selectors {
            return Err(Mistake::new(span, format!("{word} modifier is experimental and not enabled")));
        }
        if matches!(self.ast.expr(operand), Expr::Subquery(_)) {
            return Err(Mistake::new(span, format!("{word} modifier is not supported for subqueries")));
        }
        let Some(selector) = self.selector_mut(operand) else {
            return Err(Mistake::new(span, format!("{word} modifier not implemented")));
        };
        selector.anchored |= anchored;
        selector.smoothed |= !anchored;
        if selector.anchored && selector.smoothed {
            return Err(Mistake::new(span, "anchored and smoothed modifiers cannot be used together"));
        }
        Ok(operand)
    }

    fn selector_mut(&mut self, id: ExprId) -> Option<&mut VectorSelector> {
        let vector = match self.ast.expr(id) {
            Expr::Matrix(matrix) => matrix.vector,
            _ => id,
        };
        match self.ast.expr_mut(vector) {
            Expr::Vector(selector) => Some(selector),
            _ => None,
        }
    }

    fn shift_mut(&mut self, id: ExprId) -> Option<&mut Shift> {
        if let Expr::Subquery(_) = self.ast.expr(id) {
            return match self.ast.expr_mut(id) {
                Expr::Subquery(subquery) => Some(&mut subquery.shift),
                _ => None,
            };
        }
        self.selector_mut(id).map(|selector| &mut selector.shift)
    }

    fn extend_to_last_closing(&mut self, id: ExprId) {
        self.ast.nodes[id.0 as usize].span.end = self.last_closing;
    }

    /// A duration that must be positive where that can be seen: milliseconds, or an expression to fold later.
    fn positive_duration(&mut self, context: Context) -> Result<(i64, Option<ExprId>), Mistake> {
        let id = self.duration(context)?;
        match self.ast.expr(id) {
            Expr::Number { value, .. } if *value <= 0. => {
                Err(Mistake::new(self.ast.span(id), "duration must be greater than 0"))
            }
            Expr::Number { value, .. } => Ok((seconds_to_ms(*value), None)),
            _ => Ok((0, Some(id))),
        }
    }

    fn offset_duration(&mut self, context: Context) -> Result<(i64, Option<ExprId>), Mistake> {
        let id = self.duration_of_offset(context)?;
        match self.ast.expr(id) {
            Expr::Number { value, .. } => Ok((seconds_to_ms(*value), None)),
            _ => Ok((0, Some(id))),
        }
    }
}

fn has_offset(shift: &Shift) -> bool {
    shift.offset_ms != 0 || shift.offset_expr.is_some()
}

fn not_shiftable(modifier: &str, span: Span) -> Mistake {
    let wanted = "an instant vector selector or range vector selector or a subquery";
    Mistake::new(span, format!("{modifier} modifier must be preceded by {wanted}"))
}
