//! Patterns that need no engine: lists of values, and texts with anything before, behind or between them.
//!
//! *Invariants:* a shape matches exactly what its pattern does.
//!
//! *Not here:* the engine (`regex-automata`).

use regex_automata::meta;
use regex_syntax::hir::{Class, Dot, Hir, HirKind, Look, Repetition};

/// Most values that alternatives next to each other (`(a|b)(c|d)`, `[a-z]x`) may be multiplied out to.
const MULTIPLIED: usize = 1024;

/// What a pattern comes down to.
pub(super) enum Shape {
    /// One of these values, sorted.
    Set(Box<[Box<str>]>),
    /// `prefix.*suffix` or `prefix.+suffix`, either text possibly empty.
    Around {
        prefix: Box<str>,
        suffix: Box<str>,
        /// Something has to be in between.
        some: bool,
    },
    /// `.*text.*`
    Contains(Box<str>),
    /// Anything else.
    Other(Box<meta::Regex>),
}

impl Shape {
    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Set(values) => match &values[..] {
                [one] => **one == *value,
                values => values.binary_search_by(|v| (**v).cmp(value)).is_ok(),
            },
            Self::Around { prefix, suffix, some } => {
                value.len() >= prefix.len() + suffix.len() + usize::from(*some)
                    && value.starts_with(&**prefix)
                    && value.ends_with(&**suffix)
            }
            Self::Contains(text) => value.contains(&**text),
            Self::Other(regex) => regex.is_match(value),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Set(values) => values.iter().map(|v| size_of_val(v) + v.len()).sum(),
            Self::Around { prefix, suffix, .. } => prefix.len() + suffix.len(),
            Self::Contains(text) => text.len(),
            Self::Other(regex) => regex.memory_usage() + super::CACHE_BYTES,
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        matches!(self, Self::Around { prefix, suffix, some: false } if prefix.is_empty() && suffix.is_empty())
    }
}

/// The shape of a pattern that has to match whole values, if it has a simple one.
pub(super) fn of(hir: &Hir) -> Option<Shape> {
    let parts = parts(hir);
    let mut values = vec![String::new()];
    let mut spare = MULTIPLIED;
    if parts.iter().all(|part| follow(&mut values, part, &mut spare).is_some()) {
        values.sort_unstable();
        values.dedup();
        return Some(Shape::Set(values.into_iter().map(String::into_boxed_str).collect()));
    }
    let text = |hir: &Hir| match hir.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok().map(Box::<str>::from),
        _ => None,
    };
    let around = |prefix, some, suffix| Some(Shape::Around { prefix, suffix, some });
    match parts {
        [any] => around(Box::default(), anything(any)?, Box::default()),
        [a, b] => match (anything(a), anything(b)) {
            (None, Some(some)) => around(text(a)?, some, Box::default()),
            (Some(some), None) => around(Box::default(), some, text(b)?),
            _ => None,
        },
        [a, b, c] => match (anything(a), anything(b), anything(c)) {
            (None, Some(some), None) => around(text(a)?, some, text(c)?),
            (Some(false), None, Some(false)) => Some(Shape::Contains(text(b)?)),
            _ => None,
        },
        _ => None,
    }
}

/// What stands one behind the other, without the anchors that whole values have anyway.
fn parts(hir: &Hir) -> &[Hir] {
    let mut parts: &[Hir] = match hir.kind() {
        HirKind::Concat(parts) => parts,
        HirKind::Empty => &[],
        _ => std::slice::from_ref(hir),
    };
    while let [first, rest @ ..] = parts
        && *first.kind() == HirKind::Look(Look::Start)
    {
        parts = rest;
    }
    while let [rest @ .., last] = parts
        && *last.kind() == HirKind::Look(Look::End)
    {
        parts = rest;
    }
    parts
}

/// For `.*` and `.+`: whether there has to be something.
fn anything(hir: &Hir) -> Option<bool> {
    let HirKind::Repetition(Repetition { min: min @ 0..=1, max: None, sub, .. }) = hir.kind() else { return None };
    (*sub.kind() == *Hir::dot(Dot::AnyChar).kind()).then_some(*min == 1)
}

/// Appends everything `next` can match to each of `values`; `None` where that is too much.
fn follow(values: &mut Vec<String>, next: &Hir, spare: &mut usize) -> Option<()> {
    let mut endings = alternatives(next, spare)?;
    if let [ending] = &endings[..] {
        values.iter_mut().for_each(|v| v.push_str(ending));
        return Some(());
    }
    if let [beginning] = &values[..] {
        endings.iter_mut().for_each(|e| e.insert_str(0, beginning));
        *values = endings;
        return Some(());
    }
    *spare = spare.checked_sub(values.len() * endings.len())?;
    *values = values.iter().flat_map(|v| endings.iter().map(move |e| format!("{v}{e}"))).collect();
    Some(())
}

/// All texts a part matches, if they are few.
fn alternatives(hir: &Hir, spare: &mut usize) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => Some(vec![std::str::from_utf8(&literal.0).ok()?.to_owned()]),
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.ranges().iter().map(|r| r.len()).sum();
            *spare = spare.checked_sub(count)?;
            Some(class.ranges().iter().flat_map(|r| r.start()..=r.end()).map(String::from).collect())
        }
        HirKind::Alternation(subs) => {
            let mut all = Vec::with_capacity(subs.len());
            for sub in subs {
                all.append(&mut alternatives(sub, spare)?);
            }
            Some(all)
        }
        HirKind::Concat(subs) => {
            let mut values = vec![String::new()];
            subs.iter().try_for_each(|sub| follow(&mut values, sub, spare))?;
            Some(values)
        }
        HirKind::Repetition(Repetition { min: 0, max: Some(1), sub, .. }) => {
            let mut values = alternatives(sub, spare)?;
            values.push(String::new());
            Some(values)
        }
        _ => None,
    }
}
