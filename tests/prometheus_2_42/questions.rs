//! The questions, read from text.
//!
//! *Invariants:* a line is empty, a comment (`#`), or a mark, blanks, and a query. A mark is one of the words of
//! [`Mark`], or the name of a difference, for both ways of asking or, after a slash, for one of them.

use std::collections::BTreeSet;

use crate::support::root;

/// How the answers to a query compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// `exact`: to the last digit.
    Exact,
    /// `ordered`: to the last digit, and the answer at an instant in the same order.
    Ordered,
    /// `near`: but for the rounding of sums, which Prometheus compensates since: 1e-9.
    Near,
    /// `error`: both refuse it, in the same words.
    Error,
    /// `other-words`: both refuse it with the same status and type, in other words.
    OtherWords,
    /// Differently, by the named difference; asked in the other way, if it names one, alike (1e-9).
    Differs(String, Ways),
}

/// The ways of asking in which a difference shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// Both.
    Both,
    /// Only at an instant.
    Instant,
    /// Only over a range.
    Range,
}

/// A query and its mark.
#[derive(Debug, Clone)]
pub struct Question {
    /// What is asked.
    pub query: String,
    /// How equal the answers are.
    pub mark: Mark,
}

/// The questions in `tests/prometheus_2_42/<file>`.
pub fn read(file: &str) -> Vec<Question> {
    let path = root().join("tests/prometheus_2_42").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
    let questions: Vec<_> = lines
        .map(|(at, line)| {
            question(line).unwrap_or_else(|| panic!("{file}:{}: a mark and a query, not {line:?}", at + 1))
        })
        .collect();
    let mut seen = BTreeSet::new();
    for question in &questions {
        assert!(seen.insert(&question.query), "{file} asks twice: {}", question.query);
    }
    questions
}

fn question(line: &str) -> Option<Question> {
    let (mark, query) = line.split_once(char::is_whitespace)?;
    let mark = match mark {
        "exact" => Mark::Exact,
        "ordered" => Mark::Ordered,
        "near" => Mark::Near,
        "error" => Mark::Error,
        "other-words" => Mark::OtherWords,
        name => match name.split_once('/') {
            None => Mark::Differs(name.to_owned(), Ways::Both),
            Some((name, "instant")) => Mark::Differs(name.to_owned(), Ways::Instant),
            Some((name, "range")) => Mark::Differs(name.to_owned(), Ways::Range),
            Some(_) => return None,
        },
    };
    Some(Question { query: query.trim().to_owned(), mark })
}

/// Names of the differences that `docs/prometheus.md` explains: its headings in backquotes.
pub fn explained() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/prometheus.md")).unwrap();
    let named = |line: &str| Some(line.strip_prefix("### `")?.split_once('`')?.0.to_owned());
    text.lines().filter_map(named).collect()
}
