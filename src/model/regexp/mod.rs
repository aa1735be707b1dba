//! Regular expressions as Go's `regexp` reads them: RE2 syntax, its errors word for word, replacement templates.
//!
//! A parser of our own makes the syntax tree (`regex-syntax` reads another dialect: `\<`, `(?x)`, `&&` in classes, Unicode
//! `\d`), `regex-automata` runs it. Common shapes of label patterns need no engine at all.
//!
//! *Invariants:* matching takes time linear in the text. Compiled patterns are bounded in size, and patterns in the depth
//! of their nesting.
//!
//! *Not here:* which label is matched (`model::matcher`).

mod bracket;
mod class;
mod escape;
mod parse;
mod shape;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;

use regex_automata::meta;
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, Look};

use parse::{Flags, Parsed};
use shape::Shape;
pub use template::Template;

/// Most bytes of each of the two automata of a compiled pattern.
const SIZE_LIMIT: usize = 4 << 20;
/// Most bytes a pattern remembers of the states it was in, each way.
const CACHE_BYTES: usize = 128 << 10;

/// Why a pattern was refused, as Go says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    code: &'static str,
    /// The part of the pattern that is wrong.
    expr: String,
}

impl SyntaxError {
    fn new(code: &'static str, expr: &str) -> Self {
        Self { code, expr: expr.to_owned() }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error parsing regexp: {}: `{}`", self.code, self.expr)
    }
}

impl std::error::Error for SyntaxError {}

/// The pattern of a label matcher: it has to match a whole value, and `.` matches line breaks too.
pub struct Pattern {
    shape: Shape,
}

impl Pattern {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, SyntaxError> {
        let flags = Flags { dot_matches_newline: true, ..Flags::default() };
        let Parsed { hir, .. } = parse::parse(pattern, flags, false)?;
        let shape = match shape::of(&hir) {
            Some(shape) => shape,
            None => {
                let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
                Shape::Other(Box::new(compile(&anchored, pattern)?))
            }
        };
        Ok(Self { shape })
    }

    /// Whether a whole value matches.
    pub fn matches(&self, value: &str) -> bool {
        self.shape.matches(value)
    }

    /// Where only a known list of values matches: that list, sorted.
    pub fn literals(&self) -> Option<&[Box<str>]> {
        match &self.shape {
            Shape::Set(values) => Some(values),
            _ => None,
        }
    }

    /// Bytes held, those included that it may come to hold while it is used.
    pub fn heap_bytes(&self) -> usize {
        self.shape.heap_bytes()
    }

    /// Whether every value matches.
    pub fn matches_everything(&self) -> bool {
        self.shape.is_everything()
    }
}

/// The pattern of `label_replace`: whole values, with groups.
pub struct Replacer {
    regex: meta::Regex,
    /// Names of the groups; the first is that of the whole match, which has none.
    names: Vec<Option<Box<str>>>,
}

impl Replacer {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, SyntaxError> {
        // Like Prometheus by putting text around it: `a)|(b` is two alternatives, each anchored at one end only.
        let whole = format!("^(?s:{pattern})$");
        let Parsed { hir, names } = parse::parse(&whole, Flags::default(), true)?;
        Ok(Self { regex: compile(&hir, &whole)?, names })
    }

    /// A replacement for matches of this pattern.
    pub fn template(&self, text: &str) -> Template {
        Template::new(text, &self.names)
    }

    /// The replacement of a value, or `None` where the pattern does not match.
    pub fn replace(&self, value: &str, template: &Template) -> Option<String> {
        self.replace_within(value, template, usize::MAX).ok().flatten()
    }

    /// As [`Replacer::replace`]; fails with the length of the replacement where that is more than `most` bytes.
    pub fn replace_within(&self, value: &str, template: &Template, most: usize) -> Result<Option<String>, usize> {
        let mut found: Captures = self.regex.create_captures();
        self.regex.captures(value, &mut found);
        if !found.is_match() {
            return Ok(None);
        }
        template.expand(|group| found.get_group(group).map(|span| &value[span]), most).map(Some)
    }
}

fn compile(hir: &Hir, pattern: &str) -> Result<meta::Regex, SyntaxError> {
    let config = meta::Config::new().nfa_size_limit(Some(SIZE_LIMIT)).hybrid_cache_capacity(CACHE_BYTES);
    let mut builder = meta::Builder::new();
    builder.configure(config).syntax(syntax::Config::new().utf8(true));
    builder.build_from_hir(hir).map_err(|_| SyntaxError::new("expression too large", pattern))
}
