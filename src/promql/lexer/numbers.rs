//! Where a number or a duration ends.
//!
//! *Invariants:* what is accepted need not have a value: `literal` decides that.
//!
//! *Not here:* values (`promql::literal`).

use super::{Lexed, Lexer, is_alphanumeric};
use crate::model::labels::Quoted;
use crate::promql::token::Kind;

impl Lexer<'_> {
    /// Cuts a number or duration whose first character is already read.
    pub(super) fn number_or_duration(&mut self) -> Lexed {
        self.pos = self.start;
        self.before_duration = false;
        self.got_duration = true;
        if self.scan_number() {
            return Ok(Kind::Number);
        }
        if self.scan_rest_of_duration() {
            return Ok(Kind::Duration);
        }
        let text = &self.text[self.start..self.pos];
        Err(self.mistake(format!("bad number or duration syntax: {}", Quoted(text))))
    }

    /// `[.]digits` followed by digits, dots, underscores and an exponent, in the order the language allows.
    fn scan_number(&mut self) -> bool {
        let mut digits = "0123456789";
        if self.accept('0') && self.accept_any("xX") {
            self.accept('_');
            digits = "0123456789abcdefABCDEF";
        }
        self.accept('.');
        self.accept_any(digits);
        let (mut dot, mut exponent) = (false, false);
        while let Some(c) = self.peek() {
            let ok = match c {
                '.' => {
                    self.pos += 1;
                    // One dot only, no fractions in base 16.
                    !std::mem::replace(&mut dot, true) && !self.accept_any("_.") && digits.len() == 10
                }
                'e' | 'E' => {
                    self.pos += 1;
                    if std::mem::replace(&mut exponent, true) {
                        return false;
                    }
                    self.accept_any("+-");
                    !self.accept_any("._eE") && self.peek().is_some()
                }
                '_' => {
                    self.pos += 1;
                    !self.accept_any("._eE") && self.peek().is_some()
                }
                _ if digits.contains(c) => {
                    while self.accept_any(digits) {}
                    true
                }
                _ => break,
            };
            if !ok {
                return false;
            }
        }
        self.pos > self.start && !self.peek().is_some_and(is_alphanumeric)
    }

    /// Behind the first digits of a duration: units and further digits. Units like `hs` are found out later.
    fn scan_rest_of_duration(&mut self) -> bool {
        if !self.accept_any("smhdwy") {
            return false;
        }
        self.accept('s');
        while self.accept_any("0123456789") {
            while self.accept_any("0123456789") {}
            if !self.accept_any("smhdw") {
                return false;
            }
            self.accept('s');
        }
        if self.peek().is_some_and(is_alphanumeric) {
            // Shown in the error message.
            self.pos += 1;
            return false;
        }
        true
    }
}
