//! What a query's author should know although the query did not fail: warnings and infos.
//!
//! *Invariants:* of annotations with the same text only one is kept, wherever in the query they arose: the one added
//! last gives the position. What they take is bounded ([`MOST_BYTES`]), also where each of a million series has its own.
//!
//! *Not here:* the texts (each evaluating module words its own), where they go in an answer (`api`).

use std::collections::BTreeMap;

use super::position::{LineCol, Span};
use crate::model::number::{format_g, format_g_precision};

/// Most annotations of each severity in an API answer.
pub const API_LIMIT: usize = 10;

/// Most bytes of texts that are kept; of those left out only the number is known.
const MOST_BYTES: usize = 4 << 20;

/// What an annotation takes besides its text, about.
const ENTRY_BYTES: usize = 128;

/// How serious an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The answer is probably not what was meant.
    Warning,
    /// The answer may be worth a second look.
    Info,
}

impl Severity {
    fn prefix(self) -> &'static str {
        match self {
            Self::Warning => "PromQL warning: ",
            Self::Info => "PromQL info: ",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Collected annotations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Annotations {
    /// By severity and text without prefix and position. Annotations of storage have no position and no prefix.
    entries: BTreeMap<(Severity, Box<str>), Origin>,
    /// Bytes of them.
    bytes: usize,
    /// Warnings and infos that had no room.
    left_out: [usize; 2],
}

#[derive(Debug, Clone, PartialEq)]
enum Origin {
    Storage,
    Expression(Span, Option<ForcedMonotonicity>),
}

/// How much the buckets of a classic histogram had to be corrected; the same finding of several steps is merged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForcedMonotonicity {
    /// First and last step concerned, milliseconds.
    pub steps: (i64, i64),
    /// Lowest and highest upper bound of a corrected bucket.
    pub buckets: (f64, f64),
    /// Largest correction.
    pub max_diff: f64,
    /// Number of samples concerned.
    pub samples: u64,
}

impl ForcedMonotonicity {
    fn merge(&mut self, other: &Self) {
        self.steps = (self.steps.0.min(other.steps.0), self.steps.1.max(other.steps.1));
        self.buckets = (self.buckets.0.min(other.buckets.0), self.buckets.1.max(other.buckets.1));
        self.max_diff = self.max_diff.max(other.max_diff);
        self.samples += other.samples;
    }
}

impl Annotations {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether what both say, both say about the same place: otherwise the place to name depends on who spoke last.
    pub fn agrees(&self, other: &Annotations) -> bool {
        let place = |origin: &Origin| match origin {
            Origin::Storage => None,
            Origin::Expression(span, _) => Some(*span),
        };
        let (few, many) = if self.len() < other.len() { (self, other) } else { (other, self) };
        few.entries.iter().all(|(key, origin)| many.entries.get(key).is_none_or(|o| place(o) == place(origin)))
    }

    /// Whether none was left out.
    pub fn is_whole(&self) -> bool {
        self.left_out == [0; 2]
    }

    /// All of them with their places, if that is all that is to be known of them.
    pub fn plain(&self) -> Option<Vec<(Severity, &str, Span)>> {
        let each = self.entries.iter().map(|((severity, text), origin)| match origin {
            Origin::Expression(span, None) => Some((*severity, &**text, *span)),
            _ => None,
        });
        each.collect::<Option<_>>().filter(|_| self.is_whole())
    }

    /// Adds a warning about the expression at `span`; `text` is without prefix and position.
    pub fn warning(&mut self, span: Span, text: impl Into<Box<str>>) {
        self.insert((Severity::Warning, text.into()), Origin::Expression(span, None));
    }

    /// Adds an info about the expression at `span`.
    pub fn info(&mut self, span: Span, text: impl Into<Box<str>>) {
        self.insert((Severity::Info, text.into()), Origin::Expression(span, None));
    }

    /// Adds an info about corrected buckets, merged with an earlier one of the same text.
    pub fn forced_monotonicity(&mut self, span: Span, text: impl Into<Box<str>>, mut found: ForcedMonotonicity) {
        let key = (Severity::Info, text.into());
        if let Some(Origin::Expression(_, Some(earlier))) = self.entries.get(&key) {
            found.merge(earlier);
        }
        self.insert(key, Origin::Expression(span, Some(found)));
    }

    /// Adds a warning of storage: it is shown as it is.
    pub fn storage_warning(&mut self, text: impl Into<Box<str>>) {
        self.insert((Severity::Warning, text.into()), Origin::Storage);
    }

    /// Takes over what another collector has.
    pub fn merge(&mut self, other: Annotations) {
        for ((severity, text), origin) in other.entries {
            match origin {
                Origin::Expression(span, Some(found)) => self.forced_monotonicity(span, text, found),
                origin => self.insert((severity, text), origin),
            }
        }
        self.left_out.iter_mut().zip(other.left_out).for_each(|(n, more)| *n += more);
    }

    fn insert(&mut self, key: (Severity, Box<str>), origin: Origin) {
        let bytes = ENTRY_BYTES + key.1.len();
        if self.bytes + bytes > MOST_BYTES && !self.entries.contains_key(&key) {
            self.left_out[key.0 as usize] += 1;
        } else if self.entries.insert(key, origin).is_none() {
            self.bytes += bytes;
        }
    }

    /// The same about a place `by` bytes further on in the query.
    pub fn moved(&self, by: i64) -> Self {
        let mut moved = self.clone();
        for origin in moved.entries.values_mut() {
            if let Origin::Expression(span, _) = origin {
                *span = span.moved(by);
            }
        }
        moved
    }

    /// The texts of one severity with their positions in `query`, sorted, at most `limit` of them (0: all) and then a
    /// line that says how many were left out.
    pub fn render(&self, severity: Severity, query: &str, limit: usize) -> Vec<String> {
        let mut out = Vec::new();
        let mut omitted = self.left_out[severity as usize];
        for ((_, text), origin) in self.entries.iter().filter(|((s, _), _)| *s == severity) {
            if limit > 0 && out.len() == limit {
                omitted += 1;
            } else {
                out.push(render_one(severity, text, origin, query));
            }
        }
        if omitted > 0 {
            out.push(format!("{omitted} more {} annotations omitted", severity.word()));
        }
        out
    }
}

fn render_one(severity: Severity, text: &str, origin: &Origin, query: &str) -> String {
    let prefix = severity.prefix();
    match origin {
        Origin::Storage => text.to_owned(),
        Origin::Expression(span, None) => format!("{prefix}{text} ({})", position(query, *span)),
        Origin::Expression(span, Some(found)) => {
            format!("{prefix}{text}, {} ({})", render_monotonicity(found), position(query, *span))
        }
    }
}

fn position(query: &str, span: Span) -> String {
    LineCol::of(query, span.start).map_or_else(|| "invalid position".to_owned(), |at| at.to_string())
}

fn render_monotonicity(found: &ForcedMonotonicity) -> String {
    format!(
        "from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
        format_g(found.buckets.0),
        format_g(found.buckets.1),
        format_g_precision(found.max_diff, 2),
        found.samples,
        utc(found.steps.0),
        utc(found.steps.1)
    )
}

/// The second of a timestamp as RFC 3339; outside of the calendar the plain number.
fn utc(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_text_is_kept_once_with_the_last_position() {
        let mut a = Annotations::default();
        a.warning(Span::new(0, 1), "x");
        a.warning(Span::new(2, 3), "x");
        a.info(Span::new(0, 1), "x");
        let mut b = Annotations::default();
        b.storage_warning("node 3 did not answer");
        a.merge(b);
        assert_eq!(a.render(Severity::Warning, "a+b", 10), ["node 3 did not answer", "PromQL warning: x (1:3)"]);
        assert_eq!(a.render(Severity::Info, "a+b", 10), ["PromQL info: x (1:1)"]);
    }

    #[test]
    fn more_than_the_limit_are_counted() {
        let mut a = Annotations::default();
        (0..13).for_each(|i| a.info(Span::default(), format!("{i:02}")));
        let shown = a.render(Severity::Info, "a", API_LIMIT);
        assert_eq!(shown.len(), 11);
        assert_eq!(shown[10], "3 more info annotations omitted");
        assert_eq!(a.render(Severity::Info, "a", 0).len(), 13);
    }

    #[test]
    fn texts_without_end_are_counted_and_not_kept() {
        let mut a = Annotations::default();
        (0..100_000).for_each(|i| a.warning(Span::default(), format!("{i:06}")));
        assert!(a.bytes <= MOST_BYTES && a.entries.len() > 10_000);
        assert_eq!(a.render(Severity::Warning, "a", 10)[10], "99990 more warning annotations omitted");
        assert!(a.render(Severity::Info, "a", 10).is_empty());
    }

    #[test]
    fn corrected_buckets_are_merged_across_steps() {
        let mut a = Annotations::default();
        for (t, low, high, diff) in [(1_735_084_800_000, 5., 50., 5.5), (1_703_462_400_000, 10., 100., 10.)] {
            let found = ForcedMonotonicity { steps: (t, t), buckets: (low, high), max_diff: diff, samples: 1 };
            let mut other = Annotations::default();
            other.forced_monotonicity(Span::new(3, 5), "fixed", found);
            a.merge(other);
        }
        assert_eq!(
            a.render(Severity::Info, "lorem ipsum", 10),
            ["PromQL info: fixed, from buckets 5 to 100, with a max diff of 10, over 2 samples from \
              2023-12-25T00:00:00Z to 2024-12-25T00:00:00Z (1:4)"]
        );
    }
}
