//! Label matchers: `=`, `!=`, `=~`, `!~`; regular expressions are anchored at both ends.
//!
//! *Invariants:* an absent label is matched as `""`.
//!
//! *Not here:* the language of patterns (`model::regexp`), postings (`head`), pruning (`block`).

use std::fmt;
use std::sync::Arc;

use super::labels::{LabelIter, Quoted, is_legacy_label_name};
use super::regexp::Pattern;

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

/// Whether whoever asked wants no answer any more.
pub type Stopped = Arc<dyn Fn() -> bool + Send + Sync>;

/// One condition on one label.
#[derive(Clone)]
pub struct Matcher {
    /// Label name.
    pub name: Arc<str>,
    /// Comparison.
    pub op: MatchOp,
    /// Value or pattern as written.
    pub value: Arc<str>,
    pattern: Option<Arc<Pattern>>,
    stopped: Option<Stopped>,
}

impl Matcher {
    /// A matcher; fails only for a pattern that is none (the message is Go's).
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, String> {
        let pattern = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(Pattern::new(value).map_err(|e| e.to_string())?)),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name: Arc::from(name), op, value: Arc::from(value), pattern, stopped: None })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: Arc::from(name), op: MatchOp::Equal, value: Arc::from(value), pattern: None, stopped: None }
    }

    /// A copy that gives up: a pattern may take its time with each of a million values. Once `stopped` says so its pattern
    /// matches anything or nothing, and whoever asked has to look there too before what was found is used.
    pub fn until(&self, stopped: &Stopped) -> Self {
        Self { stopped: Some(Arc::clone(stopped)), ..self.clone() }
    }

    /// Bytes its compiled pattern takes, and may come to take while it is used.
    pub fn pattern_bytes(&self) -> usize {
        self.pattern.as_ref().map_or(0, |p| p.heap_bytes())
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
            MatchOp::Regex => self.pattern.as_ref()?.literals().map(|l| l.iter().map(|s| &**s).collect()),
            _ => None,
        }
    }

    /// Whether every series fulfils the condition (`=~".*"`).
    pub fn matches_everything(&self) -> bool {
        self.op == MatchOp::Regex && self.pattern.as_ref().is_some_and(|p| p.matches_everything())
    }

    fn pattern_matches(&self, value: &str) -> bool {
        if self.stopped.as_ref().is_some_and(|stopped| stopped()) {
            return false;
        }
        self.pattern.as_ref().is_some_and(|pattern| pattern.matches(value))
    }
}

/// Whether a label set in canonical form fulfils all matchers.
pub fn all_match(matchers: &[Matcher], canonical: &str) -> bool {
    matchers.iter().all(|m| {
        let value = LabelIter::over(canonical).find(|(n, _)| **n == *m.name).map_or("", |(_, v)| v);
        m.matches(value)
    })
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
    use std::sync::atomic::{AtomicBool, Ordering};

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
        let refused = Matcher::new("a", MatchOp::Regex, "(").unwrap_err();
        assert_eq!(refused, "error parsing regexp: missing closing ): `(`");
    }

    #[test]
    fn a_pattern_gives_up_when_it_is_told_to() {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let stopped: Stopped = Arc::new(move || seen.load(Ordering::Relaxed));
        let m = Matcher::new("a", MatchOp::Regex, "(b.)*c").unwrap().until(&stopped);
        assert!(m.matches("bxc"));
        stop.store(true, Ordering::Relaxed);
        assert!(!m.matches("bxc"));
        assert!(m.pattern_bytes() > Matcher::new("a", MatchOp::Regex, "b|c").unwrap().pattern_bytes());
    }

    #[test]
    fn lists_of_values_are_known_without_a_scan() {
        let m = |op, v: &str| Matcher::new("a", op, v).unwrap();
        assert_eq!(m(MatchOp::Regex, "(b|a)c?").literals(), Some(vec!["a", "ac", "b", "bc"]));
        assert_eq!(m(MatchOp::NotRegex, "a|b").literals(), None);
        assert!(m(MatchOp::Regex, ".*").matches_everything() && !m(MatchOp::NotRegex, ".*").matches_everything());
    }
}
