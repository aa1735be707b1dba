//! A label set: one immutable string of length-prefixed names and values, sorted by name.
//!
//! *Invariants:* names are unique, sorted by bytes, not empty; values are not empty (an empty value is an absent label).
//! Two equal label sets have equal bytes, so equality, hashing and the stable series hash work on the bytes alone.
//!
//! *Not here:* which label sets are admitted (`ingest::admit`), interning (`head`).
//!
//! The *canonical form* is, for each label in order, `len(name) name len(value) value`. A length below 127 is one byte;
//! a longer one is the byte 127 and five base-128 digits, highest first. All length bytes are ASCII, so the whole is
//! valid UTF-8 and lives in an `Arc<str>` without unsafe code.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

const LONG: u8 = 127;

/// A label set in canonical form; cheap to clone and compare.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl Labels {
    /// The label set `{}`.
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// A label set of the given pairs, in any order; of equal names the last wins, empty values are left out.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Takes bytes already in canonical form, checking that they are.
    ///
    /// Returns `None` when lengths do not add up, names are not strictly ascending or a part is empty.
    pub fn from_canonical(bytes: &str) -> Option<Self> {
        is_canonical(bytes).then(|| Self(Arc::from(bytes)))
    }

    /// The canonical form.
    pub fn canonical(&self) -> &str {
        &self.0
    }

    /// Name and value pairs in order of name.
    pub fn iter(&self) -> LabelIter<'_> {
        LabelIter { rest: &self.0 }
    }

    /// The value of `name`, or `""` when the label is absent, as PromQL reads it.
    pub fn get(&self, name: &str) -> &str {
        self.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    }

    /// Whether the label `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|(n, _)| n == name)
    }

    /// The metric name, or `""`.
    pub fn metric(&self) -> &str {
        self.get(METRIC_NAME)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether this is `{}`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A builder that starts from this label set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// Heap bytes held by this label set (shared by its clones).
    pub fn heap_bytes(&self) -> usize {
        self.0.len() + 2 * size_of::<usize>()
    }
}

/// The stable series hash: XXH3-64 of the canonical form, seeded with XXH3-64 of the tenant's name.
///
/// It decides the shard and is stored in blocks, so it never changes.
pub fn series_hash(tenant: &str, canonical: &str) -> u64 {
    series_hash_seeded(tenant_seed(tenant), canonical)
}

/// The seed of a tenant's series hashes.
pub fn tenant_seed(tenant: &str) -> u64 {
    xxh3::xxh3_64(tenant.as_bytes())
}

/// [`series_hash`] for many series of one tenant, whose [`tenant_seed`] is passed.
pub fn series_hash_seeded(seed: u64, canonical: &str) -> u64 {
    xxh3::xxh3_64_with_seed(canonical.as_bytes(), seed)
}

/// Appends one label to a buffer in canonical form; the caller keeps the order of names.
pub fn push_canonical(buf: &mut String, name: &str, value: &str) {
    push_part(buf, name);
    push_part(buf, value);
}

fn push_part(buf: &mut String, part: &str) {
    if part.len() < LONG as usize {
        buf.push(part.len() as u8 as char);
    } else {
        long_length(part.len()).into_iter().for_each(|b| buf.push(b as char));
    }
    buf.push_str(part);
}

/// The length in front of a part in canonical form that has 127 bytes or more (a shorter one has its length as one byte).
pub fn long_length(len: usize) -> [u8; 6] {
    let digit = |shift: u32| ((len >> shift) & 0x7f) as u8;
    [LONG, digit(28), digit(21), digit(14), digit(7), digit(0)]
}

/// Splits one part off; `None` at the end or on malformed input (a long length for a short part is malformed: there is
/// one form per label set).
fn split_part(rest: &str) -> Option<(&str, &str)> {
    let bytes = rest.as_bytes();
    let first = *bytes.first()?;
    let (len, at) = if first < LONG {
        (first as usize, 1)
    } else {
        let digits = bytes.get(1..6)?;
        if first > LONG || digits.iter().any(|d| *d > 0x7f) {
            return None;
        }
        let len = digits.iter().fold(0usize, |n, d| (n << 7) | *d as usize);
        if len < LONG as usize {
            return None;
        }
        (len, 6)
    };
    let end = at + len;
    Some((rest.get(at..end)?, rest.get(end..)?))
}

/// Whether a text is a label set in canonical form.
pub fn is_canonical(mut rest: &str) -> bool {
    let mut last = "";
    while !rest.is_empty() {
        let Some((name, after)) = split_part(rest) else { return false };
        let Some((value, after)) = split_part(after) else { return false };
        if name <= last || value.is_empty() {
            return false;
        }
        last = name;
        rest = after;
    }
    true
}

/// Iterator over `(name, value)`.
#[derive(Clone)]
pub struct LabelIter<'a> {
    rest: &'a str,
}

impl<'a> LabelIter<'a> {
    /// Iterates over a canonical form that is not (yet) a [`Labels`].
    pub fn over(canonical: &'a str) -> Self {
        Self { rest: canonical }
    }
}

impl<'a> Iterator for LabelIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_part(self.rest)?;
        let (value, rest) = split_part(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl Ord for Labels {
    /// Label by label: first the name, then the value; a prefix sorts before the longer set.
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Labels {
    /// As Prometheus prints it: `name{a="b"}`, `{a="b"}`, `{}`; unusual names quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = self.metric();
        let bare = is_legacy_metric_name(metric);
        if bare {
            f.write_str(metric)?;
            if self.len() == 1 {
                return Ok(());
            }
        }
        f.write_str("{")?;
        let mut first = true;
        if !metric.is_empty() && !bare {
            write!(f, "{}", Quoted(metric))?;
            first = false;
        }
        for (name, value) in self.iter().filter(|(n, _)| *n != METRIC_NAME) {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                write!(f, "{}", Quoted(name))?;
            }
            write!(f, "={}", Quoted(value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A string in double quotes, escaped as Go's `strconv.Quote` does.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0c' => f.write_str("\\f")?,
                '\x0b' => f.write_str("\\v")?,
                c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(f, "\\x{:02x}", c as u32)?,
                c if c.is_ascii() || is_printable(c) => f.write_char(c)?,
                c if c <= '\u{ffff}' => write!(f, "\\u{:04x}", c as u32)?,
                c => write!(f, "\\U{:08x}", c as u32)?,
            }
        }
        f.write_char('"')
    }
}

/// Whether a character is a letter, mark, number, punctuation or symbol rather than a control, a format or a space.
fn is_printable(c: char) -> bool {
    // Behind another character `escape_debug` escapes just those that are not.
    let text: String = ['a', c].iter().collect();
    text.escape_debug().nth(1) == Some(c)
}

/// Whether `name` is a label name of the classic form `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` is a metric name of the classic form `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Builds a [`Labels`] label by label.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name`; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() {
            return self.remove(name);
        }
        match self.pairs.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => value.clone_into(v),
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// Keeps only the labels for which `keep(name)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) -> &mut Self {
        self.pairs.retain(|(n, _)| keep(n));
        self
    }

    /// The label set built so far.
    pub fn build(&mut self) -> Labels {
        self.pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut buf = String::with_capacity(self.pairs.iter().map(|(n, v)| n.len() + v.len() + 2).sum());
        for (name, value) in &self.pairs {
            push_canonical(&mut buf, name, value);
        }
        Labels(Arc::from(buf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_and_drops_empty_values() {
        let l = Labels::from_pairs([("b", "2"), ("__name__", "up"), ("c", ""), ("b", "3")]);
        assert_eq!(l.to_string(), "up{b=\"3\"}");
        assert_eq!((l.len(), l.get("b"), l.get("c"), l.metric()), (2, "3", "", "up"));
    }

    #[test]
    fn round_trips_long_values_and_refuses_what_is_not_canonical() {
        let long = "x".repeat(70_000);
        let l = Labels::from_pairs([("a", long.as_str()), ("b", "é")]);
        assert_eq!(Labels::from_canonical(l.canonical()), Some(l.clone()));
        assert_eq!(l.get("a").len(), 70_000);
        for bad in [
            "\u{1}b\u{1}2\u{1}a\u{1}1",
            "\u{1}a",
            "\u{1}a\u{0}",
            "\u{2}a",
            "\u{1}a\u{1}1\u{1}a\u{1}2",
            "\u{1}a\u{7f}\0\0\0\0\u{1}1",
        ] {
            assert_eq!(Labels::from_canonical(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn quotes_as_go_does() {
        let text =
            "a\"\\\n\r\t\u{7}\u{8}\u{b}\u{c}\0\u{1f}\u{7f}é日\u{301}\u{a0}\u{200b}\u{2028}\u{e000}\u{fffd}😀\u{e0001}";
        let want = r#""a\"\\\n\r\t\a\b\v\f\x00\x1f\x7fé日"#.to_owned()
            + "\u{301}"
            + r#"\u00a0\u200b\u2028\ue000"#
            + "\u{fffd}😀"
            + r#"\U000e0001""#;
        assert_eq!(Quoted(text).to_string(), want);
    }

    #[test]
    fn orders_label_by_label() {
        let of = |p: &[(&str, &str)]| Labels::from_pairs(p.iter().copied());
        assert!(of(&[("a", "1")]) < of(&[("a", "1"), ("b", "1")]));
        assert!(of(&[("a", "10")]) < of(&[("a", "9")]));
        assert!(of(&[("a", "zzzz")]) < of(&[("b", "")].map(|_| ("b", "1"))));
    }

    #[test]
    fn series_hash_is_pinned() {
        let l = Labels::from_pairs([("__name__", "up"), ("job", "node")]);
        assert_eq!(series_hash("anonymous", l.canonical()), 0x3b70_265c_fc22_c5ab, "stored in blocks: never changes");
    }
}
