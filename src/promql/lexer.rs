//! Cuts a query into tokens.
//!
//! *Invariants:* a token is cut when the parser asks for it, so that the first mistake reported is the first in the text.
//! What a character means depends on the open bracket: inside of braces all words are identifiers, inside of square
//! brackets only durations and their arithmetic are known.
//!
//! *Not here:* values of literals (`literal`), grammar (`parser`).

use super::error::Mistake;
use super::operator::BinaryOp;
use super::position::Span;
use super::token::{Keyword, Kind, Token};
use crate::model::labels::Quoted;

/// Characters of a query and where we are in them.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Where the token being cut begins.
    start: usize,
    /// The next character.
    pos: usize,
    paren_depth: usize,
    in_braces: bool,
    in_brackets: bool,
    /// In brackets, before the first number of a duration.
    before_duration: bool,
    got_duration: bool,
    got_colon: bool,
}

type Lexed = Result<Kind, Mistake>;

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            start: 0,
            pos: 0,
            paren_depth: 0,
            in_braces: false,
            in_brackets: false,
            before_duration: false,
            got_duration: false,
            got_colon: false,
        }
    }

    /// The next token; at the end [`Kind::Eof`], again and again.
    pub fn next(&mut self) -> Result<Token, Mistake> {
        self.skip_space();
        self.start = self.pos;
        let kind = if self.in_braces {
            self.inside_braces()?
        } else if self.before_duration {
            self.duration_expression()?
        } else {
            self.statement()?
        };
        Ok(Token { kind, span: Span::new(self.start, self.pos) })
    }

    fn skip_space(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n' | '\r') => self.pos += 1,
                Some('#') if self.in_braces || !self.before_duration => {
                    let rest = &self.text[self.pos..];
                    self.pos += rest.find(['\n', '\r']).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn peek(&self) -> Option<char> {
        // Nearly everything is ASCII.
        match self.text.as_bytes().get(self.pos)? {
            b if b.is_ascii() => Some(*b as char),
            _ => self.text[self.pos..].chars().next(),
        }
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.pos += if found { c.len_utf8() } else { 0 };
        found
    }

    fn accept_any(&mut self, set: &str) -> bool {
        let found = self.peek().is_some_and(|c| set.contains(c));
        self.pos += usize::from(found);
        found
    }

    /// A mistake that, like those of Prometheus, spans from the token to the end of the text.
    fn mistake(&self, message: impl Into<String>) -> Mistake {
        Mistake::new(Span::new(self.start, self.text.len()), message)
    }

    /// A mistake just behind the token that was cut.
    fn mistake_behind(&mut self, message: String) -> Mistake {
        self.start = self.pos;
        self.mistake(message)
    }

    fn statement(&mut self) -> Lexed {
        let Some(c) = self.bump() else { return self.end_of_input() };
        Ok(match c {
            ',' => Kind::Comma,
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '^' => Kind::Op(BinaryOp::Pow),
            '@' => Kind::At,
            '=' if self.accept('=') => Kind::Op(BinaryOp::Eq),
            '=' if self.peek() == Some('~') => return Err(self.mistake("unexpected character after '=': '~'")),
            '=' => Kind::Assign,
            '!' if self.accept('=') => Kind::Op(BinaryOp::Ne),
            '!' => return Err(self.mistake(format!("unexpected character after '!': {}", quoted_char(self.peek())))),
            '<' if self.accept('=') => Kind::Op(BinaryOp::Le),
            '<' if self.accept('/') => Kind::Op(BinaryOp::TrimUpper),
            '<' => Kind::Op(BinaryOp::Lt),
            '>' if self.accept('=') => Kind::Op(BinaryOp::Ge),
            '>' if self.accept('/') => Kind::Op(BinaryOp::TrimLower),
            '>' => Kind::Op(BinaryOp::Gt),
            '0'..='9' => return self.number_or_duration(),
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => return self.number_or_duration(),
            '"' | '\'' | '`' => return self.string(c),
            '(' => self.left_paren(),
            ')' => return self.right_paren(),
            '{' => {
                self.in_braces = true;
                Kind::LeftBrace
            }
            '[' => return self.left_bracket(),
            ']' => return self.right_bracket(),
            _ if is_alpha(c) || c == ':' => {
                return if self.in_brackets { self.in_bracket_word(c) } else { self.word() };
            }
            _ => return Err(self.mistake(format!("unexpected character: {}", quoted_char(Some(c))))),
        })
    }

    fn end_of_input(&self) -> Lexed {
        match (self.paren_depth, self.in_brackets) {
            (0, false) => Ok(Kind::Eof),
            (0, true) => Err(self.mistake("unclosed left bracket")),
            _ => Err(self.mistake("unclosed left parenthesis")),
        }
    }

    fn left_paren(&mut self) -> Kind {
        self.paren_depth += 1;
        Kind::LeftParen
    }

    fn right_paren(&mut self) -> Lexed {
        let Some(depth) = self.paren_depth.checked_sub(1) else {
            return Err(self.mistake_behind("unexpected right parenthesis ')'".to_owned()));
        };
        self.paren_depth = depth;
        Ok(Kind::RightParen)
    }

    fn left_bracket(&mut self) -> Lexed {
        if self.in_brackets {
            return Err(self.mistake("unexpected left bracket '['"));
        }
        self.in_brackets = true;
        self.before_duration = true;
        self.got_duration = false;
        self.got_colon = false;
        Ok(Kind::LeftBracket)
    }

    fn right_bracket(&mut self) -> Lexed {
        if !self.in_brackets {
            return Err(self.mistake("unexpected right bracket ']'"));
        }
        self.in_brackets = false;
        self.before_duration = false;
        Ok(Kind::RightBracket)
    }

    /// Behind the first number in brackets: a colon or a duration function.
    fn in_bracket_word(&mut self, first: char) -> Lexed {
        if first == ':' {
            if self.got_colon {
                return Err(self.mistake("unexpected colon ':'"));
            }
            self.got_colon = true;
            return Ok(Kind::Colon);
        }
        self.duration_function()
            .ok_or_else(|| self.mistake(format!("unexpected character: {}, expected ':'", quoted_char(Some(first)))))
    }

    fn duration_expression(&mut self) -> Lexed {
        let Some(c) = self.bump() else {
            return Err(self.mistake("unexpected end of input in duration expression"));
        };
        Ok(match c {
            ']' => return self.right_bracket(),
            ':' => return self.colon_before_number(),
            '(' => self.left_paren(),
            ')' => return self.right_paren(),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '^' => Kind::Op(BinaryOp::Pow),
            ',' => Kind::Comma,
            '0'..='9' => return self.number_or_duration(),
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => return self.number_or_duration(),
            _ => {
                let function = if is_alpha(c) { self.duration_function() } else { None };
                let wrong = || format!("unexpected character in duration expression: {}", quoted_char(Some(c)));
                return function.ok_or_else(|| self.mistake(wrong()));
            }
        })
    }

    fn colon_before_number(&mut self) -> Lexed {
        if !self.got_duration {
            return Err(self.mistake_behind("unexpected colon before duration in duration expression".to_owned()));
        }
        if self.got_colon {
            return Err(self.mistake_behind("unexpected repeated colon in duration expression".to_owned()));
        }
        self.got_colon = true;
        Ok(Kind::Colon)
    }

    /// The rest of `step`, `range`, `min_of` or `max_of`.
    fn duration_function(&mut self) -> Option<Kind> {
        while self.peek().is_some_and(is_alpha) {
            self.pos += 1;
        }
        let word = match self.text[self.start..self.pos].to_ascii_lowercase().as_str() {
            "step" => Keyword::Step,
            "range" => Keyword::Range,
            "min_of" => Keyword::MinOf,
            "max_of" => Keyword::MaxOf,
            _ => return None,
        };
        self.got_duration = true;
        Some(Kind::Word(word))
    }

    fn inside_braces(&mut self) -> Lexed {
        let Some(c) = self.bump() else { return Err(self.mistake("unexpected end of input inside braces")) };
        Ok(match c {
            ',' => Kind::Comma,
            '"' | '\'' | '`' => return self.string(c),
            '=' if self.accept('~') => Kind::EqualRegex,
            '=' => Kind::Assign,
            '!' if self.accept('~') => Kind::NotEqualRegex,
            '!' if self.accept('=') => Kind::Op(BinaryOp::Ne),
            '!' => {
                let next = quoted_char(self.peek());
                return Err(self.mistake(format!("unexpected character after '!' inside braces: {next}")));
            }
            '{' => return Err(self.mistake("unexpected left brace '{'")),
            '}' => {
                self.in_braces = false;
                Kind::RightBrace
            }
            _ if is_alpha(c) => {
                while self.peek().is_some_and(is_alphanumeric) {
                    self.pos += 1;
                }
                Kind::Identifier
            }
            _ => return Err(self.mistake(format!("unexpected character inside braces: {}", quoted_char(Some(c))))),
        })
    }

    fn word(&mut self) -> Lexed {
        while self.peek().is_some_and(|c| is_alphanumeric(c) || c == ':') {
            self.pos += 1;
        }
        let word = &self.text[self.start..self.pos];
        Ok(match Kind::of_word(&word.to_ascii_lowercase()) {
            // Young words, which are in use as metric names.
            Some(Kind::Word(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) if !self.paren_follows() => {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        })
    }

    fn paren_follows(&self) -> bool {
        self.text[self.pos..].trim_start_matches([' ', '\t', '\n', '\r']).starts_with('(')
    }
}

mod numbers;
mod strings;

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// A character as Go's `%q` writes it; the end of the text as the replacement character.
fn quoted_char(c: Option<char>) -> String {
    let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
    match c {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        _ => {
            let quoted = Quoted(c.encode_utf8(&mut [0; 4])).to_string();
            format!("'{}'", quoted.get(1..quoted.len() - 1).unwrap_or_default())
        }
    }
}
