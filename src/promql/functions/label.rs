//! `label_replace`, `label_join`, and the order of `sort_by_label`.
//!
//! *Invariants:* a result label set is canonical; an empty value removes the label. No value is longer than [`MOST_BYTES`]: one
//! call inside of another can multiply the length by any number.
//!
//! *Not here:* merging of series that became equal (`exec::labels`).

use std::cmp::Ordering;

use crate::model::Labels;
use crate::model::regexp::{Replacer, Template};

/// Longest value that is made.
pub const MOST_BYTES: usize = 1 << 20;

fn too_long(bytes: usize, function: &str) -> String {
    format!("label value of {bytes} bytes in {function}(), at most {MOST_BYTES} are allowed")
}

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

    /// The new label set, or `None` where the pattern does not match; the error is the text a query fails with.
    pub fn apply(&self, labels: &Labels) -> Result<Option<Labels>, String> {
        let value = self.pattern.replace_within(labels.get(&self.source), &self.replacement, MOST_BYTES);
        let value = value.map_err(|bytes| too_long(bytes, "label_replace"))?;
        Ok(value.map(|value| labels.to_builder().set(&self.target, &value).build()))
    }
}

/// `label_join`: the values of `sources`, with `separator` between them, as label `target`.
pub fn join(labels: &Labels, target: &str, separator: &str, sources: &[String]) -> Result<Labels, String> {
    let values: Vec<&str> = sources.iter().map(|s| labels.get(s)).collect();
    let bytes = values.iter().map(|v| v.len()).sum::<usize>() + separator.len() * values.len().saturating_sub(1);
    if bytes > MOST_BYTES {
        return Err(too_long(bytes, "label_join"));
    }
    Ok(labels.to_builder().set(target, &values.join(separator)).build())
}

/// Orders two label sets by the values of `names`, numbers inside of values by their size; ties by all labels.
pub fn compare_by(a: &Labels, b: &Labels, names: &[String]) -> Ordering {
    let by_value = |name: &String| natural(a.get(name), b.get(name));
    names.iter().map(by_value).find(|order| order.is_ne()).unwrap_or_else(|| a.cmp(b))
}

/// Orders texts run by run, runs of digits as numbers and others byte by byte; the shorter one first. As
/// `facette/natsort` where that is an order at all: there `01` and `1` each come before the other, here by their bytes.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some((x, after_x)), Some((y, after_y))) = (run(left), run(right)) {
        let order = if x[0].is_ascii_digit() && y[0].is_ascii_digit() {
            let (x, y) = (without_zeros(x), without_zeros(y));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
        (left, right) = (after_x, after_y);
    }
    // Either text may go on; two that were told apart by nothing so far are by their bytes.
    right.is_empty().cmp(&left.is_empty()).then_with(|| a.cmp(b))
}

/// The first run of digits, or of other bytes, and what follows it.
fn run(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = text.first()?.is_ascii_digit();
    Some(text.split_at(text.iter().position(|b| b.is_ascii_digit() != digits).unwrap_or(text.len())))
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_only_where_the_whole_value_matches() {
        let labels = Labels::from_pairs([("src", "source-value-10"), ("dst", "x")]);
        let apply = |repl: &str, re: &str| Replace::new("dst", repl, "src", re).unwrap().apply(&labels).unwrap();
        assert_eq!(apply("v-$1", "source-value-(.*)").unwrap().get("dst"), "v-10");
        assert!(!apply("", "(.*)").unwrap().has("dst"));
        assert!(apply("$1", "value-(.*)").is_none());
        assert!(Replace::new("dst", "", "src", "(").is_err());
    }

    #[test]
    fn values_do_not_grow_without_bound() {
        let longest = Labels::from_pairs([("a", "x".repeat(MOST_BYTES / 2))]);
        let twice = ["a", "a"].map(str::to_owned);
        let replaced = |text: &str| Replace::new("a", text, "a", ".*").unwrap().apply(&longest);
        assert_eq!(join(&longest, "a", "", &twice).unwrap().get("a").len(), MOST_BYTES);
        assert_eq!(replaced("$0$0").unwrap().unwrap().get("a").len(), MOST_BYTES);
        let said = "label value of 1048577 bytes in";
        assert!(join(&longest, "a", "-", &twice).unwrap_err().starts_with(said));
        assert!(replaced("$0-$0").unwrap_err().starts_with(said));
    }

    #[test]
    fn numbers_inside_values_sort_by_size() {
        let of = |v: &str| Labels::from_pairs([("a", v)]);
        let mut all =
            ["x10", "x9", "x1y", "2", "10", "é1", "é", "02", "-1", "", "x9y1", "99999999999999999999"].map(of);
        all.sort_by(|a, b| compare_by(a, b, &["a".to_owned()]));
        let want = ["", "-1", "02", "2", "10", "99999999999999999999", "x1y", "x9", "x9y1", "x10", "é", "é1"];
        assert_eq!(all.each_ref().map(|l| l.get("a").to_owned()), want);
    }
}
