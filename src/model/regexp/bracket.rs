//! Classes written out: `[a-z_[:digit:]\pL]`.
//!
//! *Invariants:* brackets inside are literal, there are no set operators; `]` first and `-` anywhere stand for themselves.
//!
//! *Not here:* classes with names (`class`), single escapes (`escape`).

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::SyntaxError;
use super::class;
use super::escape::{Rune, escape};
use super::parse::until;

/// Reads the class at the beginning of `whole`; returns what follows it.
pub(super) fn bracket(whole: &str, fold: bool) -> Result<(ClassUnicode, &str), SyntaxError> {
    let mut class = ClassUnicode::empty();
    let inner = &whole[1..];
    let negated = inner.starts_with('^');
    let mut text = inner.strip_prefix('^').unwrap_or(inner);
    let mut first = true;
    // Characters are collected before they are folded, which is slow to do one by one.
    let mut single = Vec::new();
    while first || !text.starts_with(']') {
        first = false;
        let named = match text.starts_with("[:") && text.len() > 2 {
            true => class::posix(text, fold)?,
            false => class::escaped(text, fold)?,
        };
        if let Some((named, rest)) = named {
            class.union(&named);
            text = rest;
            continue;
        }
        let begin = text;
        let (lo, rest) = one(text, whole)?;
        let (mut hi, mut rest) = (lo, rest);
        // `[a-]` is `a` or `-`.
        if rest.len() >= 2 && rest.starts_with('-') && !rest.starts_with("-]") {
            (hi, rest) = one(&rest[1..], whole)?;
            if hi < lo {
                return Err(SyntaxError::new("invalid character class range", until(begin, rest)));
            }
        }
        single.extend(characters(lo, hi));
        text = rest;
    }
    let mut single = ClassUnicode::new(single);
    if fold {
        single.case_fold_simple();
    }
    class.union(&single);
    if negated {
        class.negate();
    }
    Ok((class, &text[1..]))
}

/// One character, escaped or not.
fn one<'t>(text: &'t str, whole: &str) -> Result<(Rune, &'t str), SyntaxError> {
    if text.starts_with('\\') {
        return escape(text);
    }
    let mut chars = text.chars();
    match chars.next() {
        Some(c) => Ok((Rune(c as u32), chars.as_str())),
        None => Err(SyntaxError::new("missing closing ]", whole)),
    }
}

/// A range without its surrogates, which no text has in it.
fn characters(Rune(lo): Rune, Rune(hi): Rune) -> Option<ClassUnicodeRange> {
    let lo = char::from_u32(lo).unwrap_or('\u{e000}');
    let hi = char::from_u32(hi).unwrap_or('\u{d7ff}');
    (lo <= hi).then(|| ClassUnicodeRange::new(lo, hi))
}
