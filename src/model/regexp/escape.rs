//! Escapes of single characters: `\n`, `\x41`, `\x{1F600}`, `\101`, `\.`.
//!
//! *Invariants:* a backslash in front of a letter or digit that means nothing is an error.
//!
//! *Not here:* escapes that are no single character (`class`, `parse`).

use super::SyntaxError;
use super::parse::until;

/// A code point, which may be a surrogate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rune(pub u32);

/// Reads the escape at the beginning of `text`; returns what follows it.
pub(super) fn escape(text: &str) -> Result<(Rune, &str), SyntaxError> {
    let mut chars = text[1..].chars();
    let Some(c) = chars.next() else {
        return Err(SyntaxError::new("trailing backslash at end of expression", ""));
    };
    let rest = chars.as_str();
    let octal = |text: &str| text.starts_with(|c| ('0'..='7').contains(&c));
    match c {
        '0' => Ok(octal_number(c, rest)),
        // One digit alone would be a backreference.
        '1'..='7' if octal(rest) => Ok(octal_number(c, rest)),
        'x' => hexadecimal(text, rest),
        'a' => Ok((Rune(7), rest)),
        'f' => Ok((Rune(12), rest)),
        'n' => Ok((Rune(10), rest)),
        'r' => Ok((Rune(13), rest)),
        't' => Ok((Rune(9), rest)),
        'v' => Ok((Rune(11), rest)),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok((Rune(c as u32), rest)),
        _ => Err(invalid(text, rest)),
    }
}

fn invalid(text: &str, rest: &str) -> SyntaxError {
    SyntaxError::new("invalid escape sequence", until(text, rest))
}

/// Up to three octal digits, of which `first` was read.
fn octal_number(first: char, rest: &str) -> (Rune, &str) {
    let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
    let (digits, rest) = rest.split_at(more);
    let number = digits.bytes().fold(first as u32 - '0' as u32, |n, b| n * 8 + u32::from(b - b'0'));
    (Rune(number), rest)
}

/// `xAB` or `x{ABCDEF}`; `rest` begins behind the `x`.
fn hexadecimal<'r>(text: &str, rest: &'r str) -> Result<(Rune, &'r str), SyntaxError> {
    let mut chars = rest.chars();
    let mut code = 0;
    if let Some(braced) = rest.strip_prefix('{') {
        chars = braced.chars();
        let mut digits = 0;
        while let Some(c) = chars.next() {
            match c.to_digit(16) {
                Some(digit) if code * 16 + digit <= char::MAX as u32 => {
                    (code, digits) = (code * 16 + digit, digits + 1)
                }
                None if c == '}' && digits > 0 => return Ok((Rune(code), chars.as_str())),
                _ => break,
            }
        }
        return Err(invalid(text, chars.as_str()));
    }
    if rest.is_empty() {
        return Err(invalid(text, rest));
    }
    let mut wrong = false;
    for _ in 0..2 {
        match chars.next().map(|c| c.to_digit(16)) {
            Some(Some(digit)) => code = code * 16 + digit,
            _ => wrong = true,
        }
    }
    if wrong { Err(invalid(text, chars.as_str())) } else { Ok((Rune(code), chars.as_str())) }
}
