//! Operands, operators and what they nest in.
//!
//! *Invariants:* the stack holds, from the outside in, what waits for an operand. An operator first completes what binds
//! tighter: precedences rise from `or` over `and unless`, comparisons, `+ -`, `* / % atan2` (and signs) to `^`.
//!
//! *Not here:* selectors, ranges, modifiers (the files beside this one).

use super::{Context, Parser};
use crate::promql::ast::{Aggregate, Binary, Call, Expr, ExprId, Matching};
use crate::promql::error::Mistake;
use crate::promql::literal;
use crate::promql::operator::{AggregateOp, BinaryOp};
use crate::promql::position::Span;
use crate::promql::signature::Function;
use crate::promql::token::{Keyword, Kind, Token};

/// Precedence of a sign.
const SIGN: u8 = 5;

const AGGREGATION: Context = Context { place: "aggregation", expected: "" };
const NOWHERE: Context = Context { place: "", expected: "" };

/// Something that waits for an operand.
pub(super) enum Frame {
    Sign { negative: bool, start: u32 },
    Binary { op: BinaryOp, lhs: ExprId, return_bool: bool, matching: Box<Matching> },
    Paren { start: u32 },
    Call { name: Token, args: Vec<ExprId> },
    Aggregate { op: AggregateOp, start: u32, grouping: Option<Grouping>, args: Vec<ExprId> },
}

/// `by (…)` or `without (…)`.
pub(super) struct Grouping {
    without: bool,
    labels: Vec<std::sync::Arc<str>>,
}

/// What comes next.
enum Next {
    Operand,
    Operator(ExprId),
    Done(ExprId),
}

fn precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => SIGN,
        BinaryOp::Pow => 6,
        _ => 3,
    }
}

impl Parser<'_> {
    pub(super) fn whole_expression(&mut self) -> Result<ExprId, Mistake> {
        if self.peek()?.kind == Kind::Eof {
            return Err(Mistake::new(Span::default(), "no expression found in input"));
        }
        let mut next = Next::Operand;
        loop {
            next = match next {
                Next::Operand => self.operand()?,
                Next::Operator(value) => self.operator(value)?,
                Next::Done(root) => return Ok(root),
            };
        }
    }

    fn operand(&mut self) -> Result<Next, Mistake> {
        if let Some((value, duration, span)) = self.literal()? {
            return Ok(Next::Operator(self.push(Expr::Number { value, duration }, span)));
        }
        if let Some((negative, span)) = self.sign()? {
            self.stack.push(Frame::Sign { negative, start: span.start });
            return Ok(Next::Operand);
        }
        let token = self.peek()?;
        match token.kind {
            Kind::String => {
                self.take()?;
                let bytes = literal::unquote(token.text(self.text)).into_boxed_slice();
                Ok(Next::Operator(self.push(Expr::String(bytes), token.span)))
            }
            Kind::LeftParen => {
                self.take()?;
                self.stack.push(Frame::Paren { start: token.span.start });
                Ok(Next::Operand)
            }
            Kind::LeftBrace => Ok(Next::Operator(self.vector_selector(None)?)),
            Kind::Aggregate(op) => self.aggregate(op),
            kind if kind.is_metric_name() => self.call_or_selector(),
            _ => Err(self.unexpected_here(token)),
        }
    }

    /// A name: a function if a parenthesis follows, else a metric.
    fn call_or_selector(&mut self) -> Result<Next, Mistake> {
        let name = self.take()?;
        let callable = name.kind == Kind::Identifier || matches!(name.kind, Kind::Word(word) if word.is_function());
        if !callable || self.take_if(Kind::LeftParen)?.is_none() {
            return Ok(Next::Operator(self.vector_selector(Some(name))?));
        }
        if self.take_if(Kind::RightParen)?.is_some() {
            return self.close_call(name, Vec::new()).map(Next::Operator);
        }
        self.stack.push(Frame::Call { name, args: Vec::new() });
        Ok(Next::Operand)
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<Next, Mistake> {
        let name = self.take()?;
        let start = name.span.start;
        let next = self.peek()?.kind;
        if !matches!(next, Kind::LeftParen | Kind::Word(Keyword::By | Keyword::Without)) {
            return Ok(Next::Operator(self.vector_selector(Some(name))?));
        }
        let grouping = self.grouping()?;
        self.expect(Kind::LeftParen, AGGREGATION)?;
        if self.take_if(Kind::RightParen)?.is_some() {
            return self.close_aggregate(op, start, grouping, Vec::new()).map(Next::Operator);
        }
        self.stack.push(Frame::Aggregate { op, start, grouping, args: Vec::new() });
        Ok(Next::Operand)
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, Mistake> {
        let without = match self.peek()?.kind {
            Kind::Word(Keyword::By) => false,
            Kind::Word(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.take()?;
        Ok(Some(Grouping { without, labels: self.label_list()? }))
    }

    fn operator(&mut self, value: ExprId) -> Result<Next, Mistake> {
        let token = self.peek()?;
        match token.kind {
            Kind::LeftBracket => self.range(value).map(Next::Operator),
            Kind::At => self.at(value).map(Next::Operator),
            Kind::Word(Keyword::Offset) => self.offset(value).map(Next::Operator),
            Kind::Word(Keyword::Anchored) => self.extend_range(value, true).map(Next::Operator),
            Kind::Word(Keyword::Smoothed) => self.extend_range(value, false).map(Next::Operator),
            Kind::Op(op) => {
                let lhs = self.complete(value, Some(op))?;
                self.take()?;
                let (return_bool, matching) = self.binary_modifiers()?;
                self.stack.push(Frame::Binary { op, lhs, return_bool, matching: Box::new(matching) });
                Ok(Next::Operand)
            }
            _ => {
                let value = self.complete(value, None)?;
                self.close(value, token)
            }
        }
    }

    /// What may follow a complete expression: the end of what it stands in.
    fn close(&mut self, value: ExprId, token: Token) -> Result<Next, Mistake> {
        match (self.stack.pop(), token.kind) {
            (None, Kind::Eof) => Ok(Next::Done(value)),
            (Some(Frame::Paren { start }), Kind::RightParen) => {
                self.take()?;
                let span = Span { start, end: token.span.end };
                Ok(Next::Operator(self.push(Expr::Paren(value), span)))
            }
            (Some(Frame::Call { name, mut args }), Kind::RightParen) => {
                self.take()?;
                args.push(value);
                self.close_call(name, args).map(Next::Operator)
            }
            (Some(Frame::Aggregate { op, start, grouping, mut args }), Kind::RightParen) => {
                self.take()?;
                args.push(value);
                self.close_aggregate(op, start, grouping, args).map(Next::Operator)
            }
            (Some(mut frame @ (Frame::Call { .. } | Frame::Aggregate { .. })), Kind::Comma) => {
                self.take()?;
                if let Frame::Call { args, .. } | Frame::Aggregate { args, .. } = &mut frame {
                    args.push(value);
                }
                self.stack.push(frame);
                if !self.peek()?.kind.starts_expression() {
                    return Err(Mistake::new(token.span, "trailing commas not allowed in function call args"));
                }
                Ok(Next::Operand)
            }
            (frame, _) => {
                self.stack.extend(frame);
                Err(self.unexpected_here(token))
            }
        }
    }

    /// Applies what waits and binds tighter than `op` (everything up to the next parenthesis when there is none).
    fn complete(&mut self, mut value: ExprId, op: Option<BinaryOp>) -> Result<ExprId, Mistake> {
        loop {
            let waiting = match self.stack.last() {
                Some(Frame::Sign { .. }) => SIGN,
                Some(Frame::Binary { op, .. }) => precedence(*op),
                _ => return Ok(value),
            };
            // Operators of one precedence associate to the left, `^` to the right.
            if op.is_some_and(|op| precedence(op) > waiting || op == BinaryOp::Pow && waiting == precedence(op)) {
                return Ok(value);
            }
            value = match self.stack.pop() {
                Some(Frame::Sign { negative, start }) => self.apply_sign(negative, start, value),
                Some(Frame::Binary { op, lhs, return_bool, matching }) => {
                    self.apply_binary(op, lhs, value, return_bool, *matching)?
                }
                _ => return Ok(value),
            };
        }
    }

    fn apply_sign(&mut self, negative: bool, start: u32, operand: ExprId) -> ExprId {
        let node = &mut self.ast.nodes[operand.0 as usize];
        if let Expr::Number { value, .. } = &mut node.expr {
            if negative {
                *value = -*value;
            }
            node.span.start = start;
            return operand;
        }
        let span = Span { start, end: node.span.end };
        self.push(Expr::Unary { negative, expr: operand }, span)
    }

    fn apply_binary(
        &mut self,
        op: BinaryOp,
        lhs: ExprId,
        rhs: ExprId,
        return_bool: bool,
        matching: Matching,
    ) -> Result<ExprId, Mistake> {
        let span = self.ast.span(lhs).to(self.ast.span(rhs));
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if fills && !self.options.fill_modifiers {
            return Err(Mistake::new(span, "binop fill modifiers are experimental and not enabled"));
        }
        let binary = Binary { op, lhs, rhs, return_bool, matching: Some(matching) };
        Ok(self.push(Expr::Binary(Box::new(binary)), span))
    }

    fn close_call(&mut self, name: Token, args: Vec<ExprId>) -> Result<ExprId, Mistake> {
        let text = name.text(self.text);
        // The words that are tokens of their own may be written in any case.
        let function = match name.kind {
            Kind::Word(_) => Function::by_name(&text.to_ascii_lowercase()),
            _ => Function::by_name(text),
        };
        let Some(function) = function else {
            return Err(Mistake::new(name.span, format!("unknown function with name \"{text}\"")));
        };
        if function.experimental && !self.options.experimental_functions {
            return Err(Mistake::new(name.span, format!("function \"{text}\" is not enabled")));
        }
        let span = Span { start: name.span.start, end: self.last_closing };
        Ok(self.push(Expr::Call(Call { function, args }), span))
    }

    fn close_aggregate(
        &mut self,
        op: AggregateOp,
        start: u32,
        mut grouping: Option<Grouping>,
        args: Vec<ExprId>,
    ) -> Result<ExprId, Mistake> {
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let span = Span { start, end: self.last_closing };
        let (param, expr) = match (op.has_param(), &*args) {
            (_, []) => return Err(Mistake::new(span, "no arguments for aggregate expression provided")),
            _ if op.is_experimental() && !self.options.experimental_functions => {
                let flag = "must be enabled with --enable-feature=promql-experimental-functions";
                return Err(Mistake::new(span, format!("{op}() is experimental and {flag}")));
            }
            (false, [expr]) => (None, *expr),
            (true, [param, expr]) => (Some(*param), *expr),
            (has_param, _) => {
                let message = format!(
                    "wrong number of arguments for aggregate expression provided, expected {}, got {}",
                    1 + usize::from(has_param),
                    args.len()
                );
                return Err(Mistake::new(span, message));
            }
        };
        let Grouping { without, labels } = grouping.unwrap_or(Grouping { without: false, labels: Vec::new() });
        let aggregate = Aggregate { op, expr, param, without, grouping: labels };
        Ok(self.push(Expr::Aggregate(Box::new(aggregate)), span))
    }

    /// A token that fits nowhere; inside of an aggregation's parentheses that is said too.
    fn unexpected_here(&self, token: Token) -> Mistake {
        let inside = self.stack.iter().any(|frame| matches!(frame, Frame::Aggregate { .. }));
        self.unexpected(token, if inside { AGGREGATION } else { NOWHERE })
    }
}
