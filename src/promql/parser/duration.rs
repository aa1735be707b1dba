//! Duration expressions: arithmetic over numbers, durations, `step()`, `range()`, `min_of` and `max_of`.
//!
//! *Invariants:* a lone literal stays a literal; nesting and length are limited by [`super::DURATION_LIMIT`], so that
//! what recurses over the tree (here, `promql::duration`, `promql::printer`) is bounded.
//!
//! *Not here:* values (`promql::duration`).

use super::{Context, DURATION_LIMIT, Parser};
use crate::promql::ast::{DurationExpr, DurationOp, Expr, ExprId};
use crate::promql::error::Mistake;
use crate::promql::operator::BinaryOp;
use crate::promql::position::Span;
use crate::promql::token::{Keyword, Kind};

/// Most seconds a duration of 64 bits of nanoseconds can hold.
const MAX_SECONDS: f64 = 9_223_372_036.854_775;
/// Precedence of a sign: that of `*`.
const SIGN: u8 = 2;

fn operator(kind: Kind) -> Option<(DurationOp, u8)> {
    let Kind::Op(op) = kind else { return None };
    Some(match op {
        BinaryOp::Add => (DurationOp::Add, 1),
        BinaryOp::Sub => (DurationOp::Sub, 1),
        BinaryOp::Mul => (DurationOp::Mul, 2),
        BinaryOp::Div => (DurationOp::Div, 2),
        BinaryOp::Mod => (DurationOp::Mod, 2),
        BinaryOp::Pow => (DurationOp::Pow, 3),
        _ => return None,
    })
}

impl Parser<'_> {
    /// A duration expression in brackets.
    pub(super) fn duration(&mut self, context: Context) -> Result<ExprId, Mistake> {
        self.duration_budget = DURATION_LIMIT;
        self.duration_operation(1, context)
    }

    /// What may follow `offset`: arithmetic only behind a parenthesis without a sign.
    pub(super) fn duration_of_offset(&mut self, context: Context) -> Result<ExprId, Mistake> {
        self.duration_budget = DURATION_LIMIT;
        let sign = self.sign()?;
        let parenthesised = self.peek()?.kind == Kind::LeftParen;
        match sign {
            None if parenthesised => self.duration_operation(1, context),
            None => self.duration_primary(context),
            Some((negative, span)) => {
                let token = self.peek()?;
                if matches!(token.kind, Kind::Op(_)) {
                    return Err(self.unexpected(token, context));
                }
                let operand = self.duration_primary(context)?;
                self.signed_duration(negative, span, operand)
            }
        }
    }

    fn duration_operation(&mut self, min_precedence: u8, context: Context) -> Result<ExprId, Mistake> {
        let mut lhs = match self.sign()? {
            Some((negative, span)) => {
                self.spend(span)?;
                let operand = self.duration_operation(SIGN + 1, context)?;
                self.signed_duration(negative, span, operand)?
            }
            None => self.duration_primary(context)?,
        };
        loop {
            let token = self.peek()?;
            let Some((op, precedence)) = operator(token.kind).filter(|(_, p)| *p >= min_precedence) else {
                return Ok(lhs);
            };
            self.take()?;
            let right_associative = op == DurationOp::Pow;
            let rhs = self.duration_operation(precedence + u8::from(!right_associative), context)?;
            if matches!(self.ast.expr(rhs), Expr::Number { value: 0., .. }) {
                match op {
                    DurationOp::Div => return Err(Mistake::new(token.span, "division by zero")),
                    DurationOp::Mod => return Err(Mistake::new(token.span, "modulo by zero")),
                    _ => {}
                }
            }
            let span = self.ast.span(lhs).to(self.ast.span(rhs));
            lhs = self.push_duration(op, Some(lhs), Some(rhs), span);
        }
    }

    fn duration_primary(&mut self, context: Context) -> Result<ExprId, Mistake> {
        let token = self.peek()?;
        self.spend(token.span)?;
        if let Some((value, duration, span)) = self.literal()? {
            let id = self.push(Expr::Number { value, duration }, span);
            return self.within_range(id, span);
        }
        match token.kind {
            Kind::Word(Keyword::Step) => self.duration_variable(DurationOp::Step, context),
            Kind::Word(Keyword::Range) => self.duration_variable(DurationOp::Range, context),
            Kind::Word(Keyword::MinOf) => self.duration_function(DurationOp::Min, context),
            Kind::Word(Keyword::MaxOf) => self.duration_function(DurationOp::Max, context),
            Kind::LeftParen => self.duration_in_parens(context),
            _ => Err(self.unexpected(token, context)),
        }
    }

    fn duration_variable(&mut self, op: DurationOp, context: Context) -> Result<ExprId, Mistake> {
        let name = self.take()?;
        self.expect(Kind::LeftParen, context)?;
        let close = self.expect(Kind::RightParen, context)?;
        Ok(self.push_duration(op, None, None, name.span.to(close.span)))
    }

    fn duration_function(&mut self, op: DurationOp, context: Context) -> Result<ExprId, Mistake> {
        let name = self.take()?;
        self.expect(Kind::LeftParen, context)?;
        let lhs = self.duration_operation(1, context)?;
        self.expect(Kind::Comma, context)?;
        let rhs = self.duration_operation(1, context)?;
        let close = self.expect(Kind::RightParen, context)?;
        Ok(self.push_duration(op, Some(lhs), Some(rhs), name.span.to(close.span)))
    }

    fn duration_in_parens(&mut self, context: Context) -> Result<ExprId, Mistake> {
        let open = self.take()?;
        let inner = self.duration_operation(1, context)?;
        let close = self.expect(Kind::RightParen, context)?;
        if let Expr::Duration(expr) = self.ast.expr_mut(inner) {
            expr.wrapped = true;
            return Ok(inner);
        }
        // A literal cannot say that it stands in parentheses: an operation that does nothing says it.
        let id = self.push_duration(DurationOp::Add, None, Some(inner), open.span.to(close.span));
        if let Expr::Duration(expr) = self.ast.expr_mut(id) {
            expr.wrapped = true;
        }
        Ok(id)
    }

    fn signed_duration(&mut self, negative: bool, sign: Span, operand: ExprId) -> Result<ExprId, Mistake> {
        let span = sign.to(self.ast.span(operand));
        let node = &mut self.ast.nodes[operand.0 as usize];
        if let Expr::Number { value, .. } = &mut node.expr {
            if negative {
                *value = -*value;
            }
            node.span = span;
            return self.within_range(operand, sign);
        }
        Ok(if negative { self.push_duration(DurationOp::Sub, None, Some(operand), span) } else { operand })
    }

    fn within_range(&self, id: ExprId, blamed: Span) -> Result<ExprId, Mistake> {
        match self.ast.expr(id) {
            Expr::Number { value, .. } if value.abs() > MAX_SECONDS || value.is_nan() => {
                Err(Mistake::new(blamed, "duration out of range"))
            }
            _ => Ok(id),
        }
    }

    fn push_duration(&mut self, op: DurationOp, lhs: Option<ExprId>, rhs: Option<ExprId>, span: Span) -> ExprId {
        self.push(Expr::Duration(DurationExpr { op, lhs, rhs, wrapped: false }), span)
    }

    fn spend(&mut self, span: Span) -> Result<(), Mistake> {
        match self.duration_budget.checked_sub(1) {
            Some(left) => self.duration_budget = left,
            None => {
                let message = format!("duration expression has more than {DURATION_LIMIT} parts");
                return Err(Mistake::new(span, message));
            }
        }
        Ok(())
    }
}
