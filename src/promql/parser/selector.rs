//! Vector selectors, and metrics given by their labels.
//!
//! *Invariants:* a name in front of the braces becomes the last matcher.
//!
//! *Not here:* whether a selector selects too much (`promql::check`).

use std::sync::Arc;

use super::PATTERN_BYTES;
use super::{Context, Parser};
use crate::model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};
use crate::promql::ast::{Expr, ExprId, Shift, VectorSelector};
use crate::promql::error::Mistake;
use crate::promql::operator::BinaryOp;
use crate::promql::token::{Kind, Token};

const MATCHING: &str = "label matching";
const MATCHER: Context = Context { place: MATCHING, expected: "identifier or \"}\"" };
const OPERATOR: Context = Context { place: MATCHING, expected: "label matching operator" };
const VALUE: Context = Context { place: MATCHING, expected: "string" };
const SEPARATOR: Context = Context { place: MATCHING, expected: "\",\" or \"}\"" };
const SET: &str = "label set";
const SET_ITEM: Context = Context { place: SET, expected: "identifier or \"}\"" };
const SET_OPERATOR: Context = Context { place: SET, expected: "\"=\"" };
const SET_VALUE: Context = Context { place: SET, expected: "string" };
const SET_SEPARATOR: Context = Context { place: SET, expected: "\",\" or \"}\"" };
const NOWHERE: Context = Context { place: "", expected: "" };

impl Parser<'_> {
    /// The selector that begins with `name` (already taken) or with a brace.
    pub(super) fn vector_selector(&mut self, name: Option<Token>) -> Result<ExprId, Mistake> {
        let start = name.map_or(self.peek()?.span, |token| token.span);
        let mut span = start;
        let mut matchers = Vec::new();
        if self.peek()?.kind == Kind::LeftBrace {
            matchers = self.matchers()?;
            span.end = self.last_closing;
        }
        let name = name.map(|token| token.text(self.text));
        matchers.reserve_exact(1);
        matchers.extend(name.map(|name| Matcher::equal(METRIC_NAME, name)));
        let selector = VectorSelector {
            name: name.map(Arc::from),
            matchers,
            shift: Shift::default(),
            anchored: false,
            smoothed: false,
        };
        Ok(self.push(Expr::Vector(Box::new(selector)), span))
    }

    /// A selector and nothing else.
    pub(super) fn whole_selector(&mut self) -> Result<Vec<Matcher>, Mistake> {
        let token = self.peek()?;
        let name = match token.kind {
            Kind::LeftBrace => None,
            kind if kind.is_metric_name() => Some(self.take()?),
            _ => return Err(self.unexpected(token, NOWHERE)),
        };
        let id = self.vector_selector(name)?;
        self.expect(Kind::Eof, NOWHERE)?;
        Ok(match self.ast.expr_mut(id) {
            Expr::Vector(selector) => std::mem::take(&mut selector.matchers),
            _ => Vec::new(),
        })
    }

    fn matchers(&mut self) -> Result<Vec<Matcher>, Mistake> {
        self.take()?;
        let mut matchers = Vec::new();
        while self.take_if(Kind::RightBrace)?.is_none() {
            matchers.push(self.matcher()?);
            if self.peek()?.kind != Kind::RightBrace {
                self.expect(Kind::Comma, SEPARATOR)?;
            }
        }
        Ok(matchers)
    }

    /// `label="value"`, `"label"=~"value"`, or the name of the metric as a string.
    fn matcher(&mut self) -> Result<Matcher, Mistake> {
        let label = self.peek()?;
        let name = match label.kind {
            Kind::Identifier => label.text(self.text).to_owned(),
            Kind::String => self.utf8_string(label)?,
            _ => return Err(self.unexpected(label, MATCHER)),
        };
        self.take()?;
        let operator = self.peek()?;
        let op = match operator.kind {
            Kind::Assign => MatchOp::Equal,
            Kind::Op(BinaryOp::Ne) => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotEqualRegex => MatchOp::NotRegex,
            _ if label.kind == Kind::String => return Ok(Matcher::equal(METRIC_NAME, &name)),
            _ => return Err(self.unexpected(operator, OPERATOR)),
        };
        self.take()?;
        let value = self.expect(Kind::String, VALUE)?;
        let pattern = self.utf8_string(value)?;
        let span = label.span.to(value.span);
        let matcher = Matcher::new(&name, op, &pattern).map_err(|message| Mistake::new(span, message))?;
        self.pattern_bytes += matcher.pattern_bytes();
        if self.pattern_bytes > PATTERN_BYTES {
            let limit = PATTERN_BYTES;
            return Err(Mistake::new(span, format!("regular expressions so far take more than {limit} bytes")));
        }
        Ok(matcher)
    }

    /// A metric given by its labels; returns where it ends.
    pub(super) fn metric(&mut self) -> Result<(Labels, usize), Mistake> {
        let mut labels = LabelsBuilder::new();
        let token = self.peek()?;
        let mut end = 0;
        if token.kind.is_metric_name() {
            self.take()?;
            end = token.span.end as usize;
            // Behind a name without braces values follow, which are not tokens of the language.
            if !self.text[end..].trim_start_matches([' ', '\t']).starts_with('{') {
                return Ok((labels.set(METRIC_NAME, token.text(self.text)).build(), end));
            }
        }
        if self.take_if(Kind::LeftBrace)?.is_some() {
            self.label_set(&mut labels)?;
            end = self.last_closing as usize;
        }
        if token.kind.is_metric_name() {
            labels.set(METRIC_NAME, token.text(self.text));
        }
        Ok((labels.build(), end))
    }

    fn label_set(&mut self, labels: &mut LabelsBuilder) -> Result<(), Mistake> {
        while self.take_if(Kind::RightBrace)?.is_none() {
            let label = self.peek()?;
            let name = match label.kind {
                Kind::Identifier => label.text(self.text).to_owned(),
                Kind::String => self.utf8_string(label)?,
                _ => return Err(self.unexpected(label, SET_ITEM)),
            };
            self.take()?;
            if self.peek()?.kind != Kind::Assign && label.kind == Kind::String {
                labels.set(METRIC_NAME, &name);
            } else {
                self.expect(Kind::Assign, SET_OPERATOR)?;
                let value = self.expect(Kind::String, SET_VALUE)?;
                labels.set(&name, &self.utf8_string(value)?);
            }
            if self.peek()?.kind != Kind::RightBrace {
                self.expect(Kind::Comma, SET_SEPARATOR)?;
            }
        }
        Ok(())
    }
}
