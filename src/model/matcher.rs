//! Label matchers: `=`, `!=`, `=~`, `!~`; regular expressions are anchored at both ends.
//!
//! *Invariants:* an absent label is matched as `""`. Compiled patterns are bounded in size.
//!
//! *Not here:* postings (`head`), pruning (`block`).

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use super::labels::{LabelIter, Quoted, is_legacy_label_name};

/// Most bytes a compiled pattern may take.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// As written in a selector.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }

    /// `!=` and `!~`.
    pub fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotRegex)
    }
}

/// One condition on one label.
#[derive(Clone)]
pub struct Matcher {
    /// Label name.
    pub name: Arc<str>,
    /// Comparison.
    pub op: MatchOp,
    /// Value or pattern as written.
    pub value: Arc<str>,
    regex: Option<Arc<Regex>>,
    /// Alternatives of a pattern without any metacharacter (`a|b|c`): a set lookup, and postings need no scan.
    literals: Option<Arc<[Box<str>]>>,
}

impl Matcher {
    /// A matcher; fails only for a pattern that does not compile (the message is the compiler's).
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, String> {
        let mut regex = None;
        let mut literals = None;
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            literals = literal_alternatives(value);
            regex = Some(Arc::new(compile(value)?));
        }
        Ok(Self { name: Arc::from(name), op, value: Arc::from(value), regex, literals })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: Arc::from(name), op: MatchOp::Equal, value: Arc::from(value), regex: None, literals: None }
    }

    /// Whether a label value (`""` where absent) fulfils the condition.
    pub fn matches(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => *self.value == *value,
            MatchOp::NotEqual => *self.value != *value,
            MatchOp::Regex => self.pattern_matches(value),
            MatchOp::NotRegex => !self.pattern_matches(value),
        }
    }

    /// Whether a series without the label fulfils the condition.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// For a positive matcher that accepts only a known list of values: that list.
    pub fn literals(&self) -> Option<Vec<&str>> {
        match self.op {
            MatchOp::Equal => Some(vec![&self.value]),
            MatchOp::Regex => self.literals.as_ref().map(|l| l.iter().map(|s| &**s).collect()),
            _ => None,
        }
    }

    fn pattern_matches(&self, value: &str) -> bool {
        match (&self.literals, &self.regex) {
            (Some(set), _) => set.iter().any(|l| **l == *value),
            (None, Some(regex)) => regex.is_match(value),
            (None, None) => false,
        }
    }
}

/// Whether a label set in canonical form fulfils all matchers.
pub fn all_match(matchers: &[Matcher], canonical: &str) -> bool {
    matchers.iter().all(|m| {
        let value = LabelIter::over(canonical).find(|(n, _)| **n == *m.name).map_or("", |(_, v)| v);
        m.matches(value)
    })
}

fn compile(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(REGEX_SIZE_LIMIT)
        .build()
        .map_err(|e| e.to_string())
}

fn literal_alternatives(pattern: &str) -> Option<Arc<[Box<str>]>> {
    let plain = !pattern.contains(['.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$', '\\']);
    plain.then(|| pattern.split('|').map(Box::from).collect())
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op, &self.name, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}", Quoted(&self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), Quoted(&self.value))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_and_cross_lines() {
        let m = |op, v: &str| Matcher::new("a", op, v).unwrap();
        assert!(m(MatchOp::Regex, "b.*").matches("b\nc"));
        assert!(!m(MatchOp::Regex, "b").matches("abc"));
        assert!(!m(MatchOp::Regex, "a|b").matches("ab"));
        assert!(m(MatchOp::Regex, "a|bc").matches("bc"));
        assert!(m(MatchOp::NotRegex, "a|b").matches(""));
        assert!(m(MatchOp::Regex, "a||b").matches_empty());
        assert!(Matcher::new("a", MatchOp::Regex, "(").is_err());
        assert!(Matcher::new("a", MatchOp::Regex, "(a{1000}){1000}").is_err());
    }
}
