//! Replacement texts: `$1`, `$name`, `${name}`, `$$`.
//!
//! *Invariants:* a name is as long as it can be (`$1x` is the group `1x`); a group that does not exist or did not match is
//! empty; a `$` that begins no name stands for itself.
//!
//! *Not here:* matching (`regexp`).

use super::class;

/// A replacement text, resolved against the groups of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
    /// The first of several groups of one name that matched something.
    Named(Vec<usize>),
}

impl Template {
    pub(super) fn new(mut text: &str, names: &[Option<Box<str>>]) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        while let Some((before, after)) = text.split_once('$') {
            plain.push_str(before);
            text = after;
            if let Some(rest) = text.strip_prefix('$') {
                plain.push('$');
                text = rest;
                continue;
            }
            let Some((name, rest)) = reference(text) else {
                plain.push('$');
                continue;
            };
            text = rest;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(match number(name) {
                Some(group) => Part::Group(group),
                None => {
                    let of_name = |(_, n): &(usize, &Option<Box<str>>)| n.as_deref() == Some(name);
                    Part::Named(names.iter().enumerate().filter(of_name).map(|(i, _)| i).collect())
                }
            });
        }
        plain.push_str(text);
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Self { parts }
    }

    /// The text for a match whose groups `group` hands out; how long it would be where that is more than `most` bytes.
    pub(super) fn expand<'v>(&'v self, group: impl Fn(usize) -> Option<&'v str>, most: usize) -> Result<String, usize> {
        let length = self.parts.iter().map(|part| part.text(&group).len()).sum();
        if length > most {
            return Err(length);
        }
        let mut out = String::with_capacity(length);
        self.parts.iter().for_each(|part| out.push_str(part.text(&group)));
        Ok(out)
    }
}

impl Part {
    fn text<'v>(&'v self, group: &impl Fn(usize) -> Option<&'v str>) -> &'v str {
        let found = match self {
            Self::Text(text) => Some(&**text),
            Self::Group(n) => group(*n),
            Self::Named(groups) => groups.iter().find_map(|n| group(*n)),
        };
        found.unwrap_or("")
    }
}

/// The name behind a `$`, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{').unwrap_or(text);
    let end = inner.find(|c| !is_word(c)).unwrap_or(inner.len());
    if end == 0 {
        return None;
    }
    let (name, rest) = inner.split_at(end);
    let rest = if inner.len() < text.len() { rest.strip_prefix('}')? } else { rest };
    Some((name, rest))
}

/// Whether a character can be part of a name: letters and decimal digits of any script.
fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c == '_' || c.is_ascii_alphanumeric();
    }
    let inside = |name| class::named(name).is_some_and(|class| class.iter().any(|r| r.start() <= c && c <= r.end()));
    inside("L") || inside("Nd")
}

/// The group a name of digits refers to.
fn number(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|b| b.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
    digits.then(|| name.parse().ok()).flatten()
}
