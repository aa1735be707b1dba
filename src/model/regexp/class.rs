//! Character classes with names: `\d`, `\pL`, `\p{Greek}`, `[:alpha:]`.
//!
//! *Invariants:* `\d \s \w` and the POSIX classes are ASCII. Folding comes before negation.
//!
//! *Not here:* classes written out in brackets (`bracket`).

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::SyntaxError;

const INVALID: &str = "invalid character class range";
/// Scripts whose whole name is as short as the abbreviations of others, which Go does not know.
const SHORT_SCRIPTS: [&str; 14] =
    ["ahom", "cham", "han", "kawi", "lao", "lisu", "miao", "modi", "mro", "newa", "nko", "thai", "toto", "vai"];

fn ranges(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(lo, hi)| ClassUnicodeRange::new(*lo, *hi)))
}

fn finished(mut class: ClassUnicode, negated: bool, fold: bool) -> ClassUnicode {
    if fold {
        class.case_fold_simple();
    }
    if negated {
        class.negate();
    }
    class
}

/// `\d` and the like, or `\p`, at the beginning of `text`; returns what follows.
pub(super) fn escaped(text: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, SyntaxError> {
    let Some(rest) = text.strip_prefix('\\') else { return Ok(None) };
    let class = match rest.as_bytes().first() {
        Some(b'd' | b'D') => ranges(&[('0', '9')]),
        Some(b's' | b'S') => ranges(&[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
        Some(b'w' | b'W') => ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        Some(b'p' | b'P') => return property(text, fold).map(Some),
        _ => return Ok(None),
    };
    Ok(Some((finished(class, rest.starts_with(|c: char| c.is_ascii_uppercase()), fold), &rest[1..])))
}

/// `\pL`, `\p{Name}`, `\P{^Name}`.
fn property(text: &str, fold: bool) -> Result<(ClassUnicode, &str), SyntaxError> {
    let mut negated = text.starts_with(r"\P");
    let (name, end) = if text[2..].starts_with('{') {
        let Some(end) = text.find('}') else { return Err(SyntaxError::new(INVALID, text)) };
        (&text[3..end], end + 1)
    } else {
        let end = 2 + text[2..].chars().next().map_or(0, char::len_utf8);
        (&text[2..end], end)
    };
    let bare = name.strip_prefix('^').unwrap_or(name);
    negated ^= bare.len() < name.len();
    let class = named(bare).ok_or_else(|| SyntaxError::new(INVALID, &text[..end]))?;
    Ok((finished(class, negated, fold), &text[end..]))
}

/// The characters of a general category or script, whose names are told apart by letters and digits only.
pub(super) fn named(name: &str) -> Option<ClassUnicode> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' ')) {
        return None;
    }
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    match &*plain {
        // No text has surrogates in it.
        "cs" | "surrogate" => return Some(ClassUnicode::empty()),
        "any" | "assigned" | "ascii" => return lookup(&plain),
        // `regex-syntax` would take it off.
        plain if plain.starts_with("is") => return None,
        _ => {}
    }
    lookup(&format!("gc={plain}")).or_else(|| {
        let whole_name = plain.len() > 4 || plain == "yi" || SHORT_SCRIPTS.contains(&&*plain);
        whole_name.then(|| lookup(&format!("sc={plain}"))).flatten()
    })
}

fn lookup(property: &str) -> Option<ClassUnicode> {
    let hir = regex_syntax::Parser::new().parse(&format!(r"\p{{{property}}}")).ok()?;
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        // A class of one character.
        HirKind::Literal(literal) => {
            let c = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
            Some(ranges(&[(c, c)]))
        }
        _ => None,
    }
}

/// `[:alpha:]` at the beginning of `text`; `None` where it is not closed.
pub(super) fn posix(text: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, SyntaxError> {
    let Some(end) = text[2..].find(":]").map(|at| at + 4) else { return Ok(None) };
    let name = &text[2..end - 2];
    let bare = name.strip_prefix('^').unwrap_or(name);
    let class: &[(char, char)] = match bare {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Err(SyntaxError::new(INVALID, &text[..end])),
    };
    Ok(Some((finished(ranges(class), bare.len() < name.len(), fold), &text[end..])))
}
