//! What stands between an operator and its right operand, and lists of labels.
//!
//! *Invariants:* the order is `bool`, `on`/`ignoring`, `group_left`/`group_right`, `fill…`; `group_…` needs `on` or
//! `ignoring`.
//!
//! *Not here:* which modifiers fit which operands (`promql::check`).

use std::sync::Arc;

use super::{Context, Parser};
use crate::promql::ast::{Cardinality, Matching};
use crate::promql::error::Mistake;
use crate::promql::token::{Keyword, Kind};

const LABEL: Context = Context { place: "grouping opts", expected: "label" };
const OPEN: Context = Context { place: "grouping opts", expected: "\"(\"" };
const SEPARATOR: Context = Context { place: "grouping opts", expected: "\",\" or \")\"" };
const NOWHERE: Context = Context { place: "", expected: "" };

impl Parser<'_> {
    /// Everything between the operator and the right operand; whether `bool` is there.
    pub(super) fn binary_modifiers(&mut self) -> Result<(bool, Matching), Mistake> {
        let mut matching = Matching::default();
        let return_bool = self.take_if(Kind::Word(Keyword::Bool))?.is_some();
        let kind = self.peek()?.kind;
        if matches!(kind, Kind::Word(Keyword::On | Keyword::Ignoring)) {
            self.take()?;
            matching.on = kind == Kind::Word(Keyword::On);
            matching.labels = self.label_list()?;
            self.group_modifier(&mut matching)?;
        }
        self.fill_modifiers(&mut matching)?;
        Ok((return_bool, matching))
    }

    fn group_modifier(&mut self, matching: &mut Matching) -> Result<(), Mistake> {
        matching.cardinality = match self.peek()?.kind {
            Kind::Word(Keyword::GroupLeft) => Cardinality::ManyToOne,
            Kind::Word(Keyword::GroupRight) => Cardinality::OneToMany,
            _ => return Ok(()),
        };
        self.take()?;
        let next = self.peek()?;
        let fill = matches!(next.kind, Kind::Word(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight));
        if next.kind == Kind::LeftParen {
            matching.include = self.label_list()?;
        } else if !fill && !next.kind.starts_expression() {
            return Err(self.unexpected(next, OPEN));
        }
        Ok(())
    }

    fn fill_modifiers(&mut self, matching: &mut Matching) -> Result<(), Mistake> {
        if self.take_if(Kind::Word(Keyword::Fill))?.is_some() {
            let value = self.fill_value()?;
            (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            return Ok(());
        }
        loop {
            match self.peek()?.kind {
                Kind::Word(Keyword::FillLeft) if matching.fill_left.is_none() => {
                    self.take()?;
                    matching.fill_left = Some(self.fill_value()?);
                }
                Kind::Word(Keyword::FillRight) if matching.fill_right.is_none() => {
                    self.take()?;
                    matching.fill_right = Some(self.fill_value()?);
                }
                _ => return Ok(()),
            }
        }
    }

    fn fill_value(&mut self) -> Result<f64, Mistake> {
        self.expect(Kind::LeftParen, NOWHERE)?;
        let negative = self.sign()?.is_some_and(|(negative, _)| negative);
        let Some((value, ..)) = self.literal()? else {
            let token = self.peek()?;
            return Err(self.unexpected(token, NOWHERE));
        };
        self.expect(Kind::RightParen, NOWHERE)?;
        Ok(if negative { -value } else { value })
    }

    /// `(a, b, "c.d")`; a trailing comma is allowed.
    pub(super) fn label_list(&mut self) -> Result<Vec<Arc<str>>, Mistake> {
        self.expect(Kind::LeftParen, OPEN)?;
        let mut labels: Vec<Arc<str>> = Vec::new();
        while self.take_if(Kind::RightParen)?.is_none() {
            let token = self.peek()?;
            match token.kind {
                Kind::String => {
                    self.take()?;
                    let name = self.utf8_string(token).ok().filter(|name| !name.is_empty());
                    labels.push(Arc::from(name.ok_or_else(|| self.unexpected(token, LABEL))?));
                }
                kind if kind.is_label() => {
                    self.take()?;
                    labels.push(Arc::from(token.text(self.text)));
                }
                _ => return Err(self.unexpected(token, LABEL)),
            }
            if self.peek()?.kind != Kind::RightParen {
                self.expect(Kind::Comma, SEPARATOR)?;
            }
        }
        Ok(labels)
    }
}
