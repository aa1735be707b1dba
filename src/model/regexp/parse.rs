//! Text of a pattern to its syntax tree.
//!
//! *Invariants:* accepts and refuses what Go's `regexp/syntax` does with its `Perl` flags, and words errors the same way. No
//! recursion: open groups are on a stack of our own.
//!
//! *Not here:* brackets (`bracket`), escapes (`escape`), named classes (`class`).

use regex_syntax::hir::{Capture, Class, ClassUnicode, ClassUnicodeRange, Dot, Hir, Look, Repetition};

use super::SyntaxError;
use super::bracket::bracket;
use super::class;
use super::escape::{Rune, escape};

/// Most copies of one thing that counted repetitions may make, one inside of another.
const MAX_REPEAT: i64 = 1000;
/// Deepest nesting. Go allows 1000; what compiles the tree recurses, and has to get along with the stack of any thread.
const MAX_HEIGHT: u32 = 250;

/// How a part of a pattern is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    /// `i`
    pub fold_case: bool,
    /// `m`
    pub multi_line: bool,
    /// `s`
    pub dot_matches_newline: bool,
    /// `U`
    pub non_greedy: bool,
}

/// A pattern's tree.
pub(super) struct Parsed {
    pub hir: Hir,
    /// Name of each group, the whole match first.
    pub names: Vec<Option<Box<str>>>,
}

/// A tree and what has to be known about it.
struct Item {
    hir: Hir,
    height: u32,
    /// Most copies that counted repetitions make of something in it.
    copies: i64,
}

impl Item {
    fn leaf(hir: Hir) -> Self {
        Self { hir, height: 1, copies: 1 }
    }
}

/// A group that is not closed yet; the first one is the whole pattern.
#[derive(Default)]
struct Group {
    /// Flags outside of it.
    outside: Flags,
    capture: Option<u32>,
    /// Alternatives before the last `|`.
    alternatives: Vec<Item>,
    /// What was read since.
    items: Vec<Item>,
}

struct Parser<'p> {
    whole: &'p str,
    flags: Flags,
    captures: bool,
    names: Vec<Option<Box<str>>>,
    outer: Vec<Group>,
    group: Group,
}

/// Reads a pattern; without `captures` the tree has no groups.
pub(super) fn parse(whole: &str, flags: Flags, captures: bool) -> Result<Parsed, SyntaxError> {
    let mut parser = Parser { whole, flags, captures, names: vec![None], outer: Vec::new(), group: Group::default() };
    parser.run()?;
    if !parser.outer.is_empty() {
        return Err(SyntaxError::new("missing closing )", whole));
    }
    let item = parser.join_group()?;
    Ok(Parsed { hir: item.hir, names: parser.names })
}

impl<'p> Parser<'p> {
    fn run(&mut self) -> Result<(), SyntaxError> {
        let mut rest = self.whole;
        let mut last_repeat = None;
        while let Some(c) = rest.chars().next() {
            let (before, after) = (rest, &rest[c.len_utf8()..]);
            let mut repeat = None;
            let (anchor_start, anchor_end) = match self.flags.multi_line {
                true => (Look::StartLF, Look::EndLF),
                false => (Look::Start, Look::End),
            };
            rest = match c {
                '(' if after.starts_with('?') => self.special_group(before)?,
                '(' => {
                    self.open(true, None);
                    after
                }
                '|' => {
                    let items = std::mem::take(&mut self.group.items);
                    self.group.alternatives.push(self.join(items, Hir::concat)?);
                    after
                }
                ')' => {
                    self.close()?;
                    after
                }
                '^' => self.push(Hir::look(anchor_start), after),
                '$' => self.push(Hir::look(anchor_end), after),
                '.' if self.flags.dot_matches_newline => self.push(Hir::dot(Dot::AnyChar), after),
                '.' => self.push(Hir::dot(Dot::AnyCharExceptLF), after),
                '[' => {
                    let (class, after) = bracket(before, self.flags.fold_case)?;
                    self.push(Hir::class(Class::Unicode(class)), after)
                }
                '*' | '+' | '?' => {
                    repeat = Some(before);
                    let count = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(count, false, before, after, last_repeat)?
                }
                '{' => match counts(after) {
                    None => {
                        self.literal('{');
                        after
                    }
                    Some((min, max, after)) => {
                        let most = max.unwrap_or(0);
                        let counts = [min, most];
                        if !counts.iter().all(|n| (0..=MAX_REPEAT).contains(n)) || max.is_some_and(|max| min > max) {
                            return Err(SyntaxError::new("invalid repeat count", until(before, after)));
                        }
                        repeat = Some(before);
                        self.repeat((min, max), true, before, after, last_repeat)?
                    }
                },
                '\\' => self.backslash(before)?,
                c => {
                    self.literal(c);
                    after
                }
            };
            last_repeat = repeat;
        }
        Ok(())
    }

    /// Appends something that matches on its own; hands `rest` through.
    fn push<'r>(&mut self, hir: Hir, rest: &'r str) -> &'r str {
        self.group.items.push(Item::leaf(hir));
        rest
    }

    fn literal(&mut self, c: char) {
        let hir = if self.flags.fold_case {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            class.case_fold_simple();
            Hir::class(Class::Unicode(class))
        } else {
            Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes())
        };
        self.push(hir, "");
    }

    fn open(&mut self, captures: bool, name: Option<&str>) {
        let mut capture = None;
        if captures {
            capture = Some(self.names.len() as u32);
            self.names.push(name.map(Box::from));
        }
        let group = Group { outside: self.flags, capture, ..Group::default() };
        self.outer.push(std::mem::replace(&mut self.group, group));
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let mut item = self.join_group()?;
        let Some(outer) = self.outer.pop() else {
            return Err(SyntaxError::new("unexpected )", self.whole));
        };
        let group = std::mem::replace(&mut self.group, outer);
        self.flags = group.outside;
        if let (Some(index), true) = (group.capture, self.captures) {
            // Go allows two groups of the same name, so names are kept apart from the tree.
            let capture = Capture { index, name: None, sub: Box::new(item.hir) };
            item = Item { hir: Hir::capture(capture), height: item.height + 1, copies: item.copies };
            self.check_height(&item)?;
        }
        self.group.items.push(item);
        Ok(())
    }

    /// What the open group matches.
    fn join_group(&mut self) -> Result<Item, SyntaxError> {
        let items = std::mem::take(&mut self.group.items);
        let last = self.join(items, Hir::concat)?;
        let mut alternatives = std::mem::take(&mut self.group.alternatives);
        alternatives.push(last);
        self.join(alternatives, Hir::alternation)
    }

    fn join(&self, items: Vec<Item>, how: fn(Vec<Hir>) -> Hir) -> Result<Item, SyntaxError> {
        let inner = items.iter().map(|i| i.height).max().unwrap_or(0);
        let height = if items.len() > 1 { inner + 1 } else { inner.max(1) };
        let copies = items.iter().map(|i| i.copies).max().unwrap_or(1);
        let item = Item { hir: how(items.into_iter().map(|i| i.hir).collect()), height, copies };
        self.check_height(&item)?;
        Ok(item)
    }

    fn check_height(&self, item: &Item) -> Result<(), SyntaxError> {
        if item.height > MAX_HEIGHT {
            return Err(SyntaxError::new("expression nests too deeply", self.whole));
        }
        Ok(())
    }

    /// `(?P<name>`, `(?<name>`, `(?flags)`, `(?flags:`.
    fn special_group<'r>(&mut self, text: &'r str) -> Result<&'r str, SyntaxError> {
        let named = match &text[2..] {
            rest if rest.starts_with("P<") && text.len() > 4 => Some(4),
            rest if rest.starts_with('<') && text.len() > 3 => Some(3),
            _ => None,
        };
        if let Some(start) = named {
            let Some(end) = text.find('>') else {
                return Err(SyntaxError::new("invalid named capture", text));
            };
            let name = &text[start..end];
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return Err(SyntaxError::new("invalid named capture", &text[..=end]));
            }
            self.open(true, Some(name));
            return Ok(&text[end + 1..]);
        }
        let (mut flags, mut on, mut saw_flag) = (self.flags, true, false);
        let mut end = 2;
        for c in text[2..].chars() {
            end += c.len_utf8();
            match c {
                'i' => flags.fold_case = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_matches_newline = on,
                'U' => flags.non_greedy = on,
                '-' if on => {
                    (on, saw_flag) = (false, false);
                    continue;
                }
                ':' | ')' if on || saw_flag => {
                    if c == ':' {
                        self.open(false, None);
                    }
                    self.flags = flags;
                    return Ok(&text[end..]);
                }
                _ => break,
            }
            saw_flag = true;
        }
        Err(SyntaxError::new("invalid or unsupported Perl syntax", &text[..end]))
    }

    fn repeat<'r>(
        &mut self,
        (min, max): (i64, Option<i64>),
        counted: bool,
        before: &'r str,
        mut after: &'r str,
        last_repeat: Option<&str>,
    ) -> Result<&'r str, SyntaxError> {
        let mut greedy = !self.flags.non_greedy;
        if let Some(rest) = after.strip_prefix('?') {
            (after, greedy) = (rest, !greedy);
        }
        if let Some(last) = last_repeat {
            return Err(SyntaxError::new("invalid nested repetition operator", until(last, after)));
        }
        let Some(item) = self.group.items.pop() else {
            return Err(SyntaxError::new("missing argument to repetition operator", until(before, after)));
        };
        let copies = match max.unwrap_or(min) {
            _ if !counted => item.copies,
            _ if max == Some(0) => 1,
            0 => item.copies,
            times => times.saturating_mul(item.copies),
        };
        if copies > MAX_REPEAT {
            return Err(SyntaxError::new("invalid repeat count", until(before, after)));
        }
        let repetition = Repetition { min: min as u32, max: max.map(|m| m as u32), greedy, sub: Box::new(item.hir) };
        let item = Item { hir: Hir::repetition(repetition), height: item.height + 1, copies };
        self.check_height(&item)?;
        self.group.items.push(item);
        Ok(after)
    }

    fn backslash<'r>(&mut self, text: &'r str) -> Result<&'r str, SyntaxError> {
        let fold = self.flags.fold_case;
        let look = match text.as_bytes().get(1) {
            Some(b'A') => Some(Look::Start),
            Some(b'z') => Some(Look::End),
            Some(b'b') => Some(Look::WordAscii),
            Some(b'B') => Some(Look::WordAsciiNegate),
            Some(b'C') => return Err(SyntaxError::new("invalid escape sequence", &text[..2])),
            Some(b'Q') => {
                let (quoted, rest) = text[2..].split_once(r"\E").unwrap_or((&text[2..], ""));
                quoted.chars().for_each(|c| self.literal(c));
                return Ok(rest);
            }
            _ => None,
        };
        if let Some(look) = look {
            return Ok(self.push(Hir::look(look), &text[2..]));
        }
        if let Some((class, rest)) = class::escaped(text, fold)? {
            return Ok(self.push(Hir::class(Class::Unicode(class)), rest));
        }
        let (Rune(code), rest) = escape(text)?;
        match char::from_u32(code) {
            Some(c) => self.literal(c),
            // A surrogate is never part of a text.
            None => {
                self.push(Hir::fail(), "");
            }
        }
        Ok(rest)
    }
}

/// The part of `text` before its end `rest`.
pub(super) fn until<'r>(text: &'r str, rest: &str) -> &'r str {
    &text[..text.len().saturating_sub(rest.len())]
}

/// `min}`, `min,}` or `min,max}`; −1 stands for numbers that are far too large. `None` is no repetition.
fn counts(text: &str) -> Option<(i64, Option<i64>, &str)> {
    let (min, rest) = count(text)?;
    let Some(rest) = rest.strip_prefix(',') else {
        return Some((min, Some(min), rest.strip_prefix('}')?));
    };
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((min, None, rest));
    }
    let (max, rest) = count(rest)?;
    Some((if max < 0 { -1 } else { min }, Some(max), rest.strip_prefix('}')?))
}

fn count(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || (digits > 1 && text.starts_with('0')) {
        return None;
    }
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok().filter(|n| *n < 1_000_000_000).unwrap_or(-1), rest))
}
