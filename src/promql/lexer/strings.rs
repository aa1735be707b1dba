//! Where a string ends, and whether its escapes are right.
//!
//! *Invariants:* a string that is cut can be unquoted.
//!
//! *Not here:* the bytes of the string (`promql::literal`).

use super::{Lexed, Lexer};
use crate::promql::error::Mistake;
use crate::promql::token::Kind;

impl Lexer<'_> {
    /// Cuts a string whose opening quote is already read.
    pub(super) fn string(&mut self, quote: char) -> Lexed {
        let raw = quote == '`';
        loop {
            match self.bump() {
                Some(c) if c == quote => return Ok(Kind::String),
                Some(char::REPLACEMENT_CHARACTER) => return Err(self.mistake("invalid UTF-8 rune")),
                None if raw => return Err(self.mistake("unterminated raw string")),
                None => return Err(self.mistake("unterminated quoted string")),
                Some('\n') if !raw => return Err(self.mistake("unterminated quoted string")),
                Some('\\') if !raw => self.escape(quote)?,
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self, quote: char) -> Result<(), Mistake> {
        let unterminated = "escape sequence not terminated";
        let Some(first) = self.bump() else { return Err(self.mistake(unterminated)) };
        let (digits, base, max) = match first {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            _ if first == quote => return Ok(()),
            '0'..='7' => {
                self.pos -= 1;
                (3, 8, 255)
            }
            'x' => (2, 16, 255),
            'u' => (4, 16, char::MAX as u32),
            'U' => (8, 16, char::MAX as u32),
            other => return Err(self.mistake(format!("unknown escape sequence {}", code_point(other)))),
        };
        let mut code = 0u32;
        for _ in 0..digits {
            let Some(c) = self.bump() else { return Err(self.mistake(unterminated)) };
            let Some(digit) = c.to_digit(base) else {
                return Err(self.mistake(format!("illegal character {} in escape sequence", code_point(c))));
            };
            code = code.wrapping_mul(base).wrapping_add(digit);
        }
        if code > max || (0xd800..0xe000).contains(&code) {
            return Err(self.mistake("escape sequence is an invalid Unicode code point"));
        }
        Ok(())
    }
}

/// `U+0063 'c'`; without the character where it cannot be printed.
fn code_point(c: char) -> String {
    let number = format!("U+{:04X}", c as u32);
    if c.is_control() { number } else { format!("{number} '{c}'") }
}
