//! `label_replace`, `label_join`, and the order of `sort_by_label`.
//!
//! *Invariants:* a result label set is canonical; an empty value removes the label.
//!
//! *Not here:* merging of series that became equal (`exec::labels`).

use std::cmp::Ordering;

use crate::model::Labels;
use crate::model::regexp::{Replacer, Template};

/// A compiled `label_replace`.
pub struct Replace {
    target: String,
    replacement: Template,
    source: String,
    pattern: Replacer,
}

impl Replace {
    /// Compiles it; the error is the text a query fails with.
    pub fn new(target: &str, replacement: &str, source: &str, pattern: &str) -> Result<Self, String> {
        let compiled =
            Replacer::new(pattern).map_err(|_| format!("invalid regular expression in label_replace(): {pattern}"))?;
        if target.is_empty() {
            return Err(format!("invalid destination label name in label_replace(): {target}"));
        }
        Ok(Self {
            target: target.to_owned(),
            replacement: compiled.template(replacement),
            source: source.to_owned(),
            pattern: compiled,
        })
    }

    /// The label it writes.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The new label set, or `None` where the pattern does not match.
    pub fn apply(&self, labels: &Labels) -> Option<Labels> {
        let value = self.pattern.replace(labels.get(&self.source), &self.replacement)?;
        Some(labels.to_builder().set(&self.target, &value).build())
    }
}

/// `label_join`: the values of `sources`, with `separator` between them, as label `target`.
pub fn join(labels: &Labels, target: &str, separator: &str, sources: &[String]) -> Labels {
    let values: Vec<&str> = sources.iter().map(|s| labels.get(s)).collect();
    labels.to_builder().set(target, &values.join(separator)).build()
}

/// Orders two label sets by the values of `names`, numbers inside of values by their size; ties by all labels.
pub fn compare_by(a: &Labels, b: &Labels, names: &[String]) -> Ordering {
    for name in names {
        let (left, right) = (a.get(name), b.get(name));
        if left != right {
            return if natural_less(left, right) { Ordering::Less } else { Ordering::Greater };
        }
    }
    a.cmp(b)
}

/// Whether `a` comes before `b` when runs of digits count as numbers (`facette/natsort`).
fn natural_less(a: &str, b: &str) -> bool {
    let (left, right) = (chunks(a), chunks(b));
    for (i, chunk) in left.iter().enumerate() {
        let Some(other) = right.get(i) else { return false };
        let number = |s: &str| s.parse::<u64>().ok().filter(|_| s.starts_with(|c: char| c.is_ascii_digit()));
        match (number(chunk), number(other)) {
            // Digits before anything else.
            (Some(_), None) => return true,
            (None, Some(_)) => return false,
            (Some(x), Some(y)) => {
                let (x_len, y_len) = (chunk.len(), other.len());
                if x == y && x_len != y_len {
                    return x_len < y_len;
                }
                if x != y {
                    return x < y;
                }
            }
            (None, None) => {
                if chunk != other {
                    return chunk < other;
                }
            }
        }
    }
    true
}

/// Alternating runs of digits and of other bytes.
fn chunks(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let bytes = text.as_bytes();
    for i in 1..=bytes.len() {
        let ends = i == bytes.len() || bytes[i].is_ascii_digit() != bytes[start].is_ascii_digit();
        // Only ASCII digits begin or end a run next to other bytes, so runs end at character boundaries.
        if ends {
            out.push(&text[start..i]);
            start = i;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_only_where_the_whole_value_matches() {
        let labels = Labels::from_pairs([("src", "source-value-10"), ("dst", "x")]);
        let apply = |repl: &str, re: &str| Replace::new("dst", repl, "src", re).unwrap().apply(&labels);
        assert_eq!(apply("v-$1", "source-value-(.*)").unwrap().get("dst"), "v-10");
        assert!(!apply("", "(.*)").unwrap().has("dst"));
        assert!(apply("$1", "value-(.*)").is_none());
        assert!(Replace::new("dst", "", "src", "(").is_err());
    }

    #[test]
    fn numbers_inside_values_sort_by_size() {
        let of = |v: &str| Labels::from_pairs([("a", v)]);
        let mut all = ["x10", "x9", "x1y", "2", "10", "é1", "é"].map(of);
        all.sort_by(|a, b| compare_by(a, b, &["a".to_owned()]));
        assert_eq!(all.each_ref().map(|l| l.get("a").to_owned()), ["2", "10", "x1y", "x9", "x10", "é", "é1"]);
    }
}
