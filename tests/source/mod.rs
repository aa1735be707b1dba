//! Rust sources of the project, as the tests about the project's own shape read them.

#![allow(dead_code, clippy::unwrap_used, reason = "test code, of which each binary uses its own part")]

use std::path::{Path, PathBuf};

/// Root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One file below `src/`.
pub struct Source {
    /// Path below the repository, with `/`.
    pub path: String,
    /// The text.
    pub text: String,
    /// The text with comments and the insides of literals blanked; as many lines as `text`.
    pub code: String,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        let code = code_of(&text);
        Self { path, text, code }
    }

    /// Whether the file holds nothing but tests.
    pub fn is_test_file(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Number of lines before the inline tests (all of them where there are none, none in a test file).
    pub fn lines_before_tests(&self) -> usize {
        if self.is_test_file() {
            return 0;
        }
        let lines: Vec<&str> = self.code.lines().collect();
        let starts = |at: usize| {
            lines[at].trim() == "#[cfg(test)]"
                && lines[at + 1..].iter().find(|l| !l.trim_start().starts_with("#[")).is_some_and(|l| {
                    let l = l.trim_start();
                    (l.starts_with("mod ") || l.starts_with("pub mod ")) && l.trim_end().ends_with('{')
                })
        };
        (0..lines.len()).find(|at| starts(*at)).unwrap_or(lines.len())
    }

    /// Modules from the crate's root to this file: `src/raft/log.rs` is `["raft", "log"]`.
    pub fn module(&self) -> Vec<&str> {
        let inside = self.path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
        inside.split('/').filter(|part| *part != "mod").collect()
    }
}

/// All files below `src/`, sorted.
pub fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    walk(&root().join("src"), "rs", &mut paths);
    paths.sort();
    paths.iter().map(|path| Source::read(path)).collect()
}

/// Adds all files below `dir` whose name ends in `.ext`.
pub fn walk(dir: &Path, ext: &str, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, ext, out);
        } else if path.extension().is_some_and(|e| e == ext) {
            out.push(path);
        }
    }
}

/// Blanks comments and the insides of string and character literals, keeping every newline.
pub fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// End of the comment or literal that begins at `at`; `at` itself if none does.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == '/' => at + chars[at..].iter().take_while(|c| **c != '\n').count(),
        '/' if next(1) == '*' => {
            let (mut depth, mut i) = (0, at);
            while i < chars.len() {
                match (chars[i], chars.get(i + 1)) {
                    ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
                    ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            i
        }
        '"' => quoted(chars, at, '"'),
        'r' if !word_before && (next(1) == '"' || next(1) == '#') => raw(chars, at + 1).unwrap_or(at),
        'b' if !word_before && next(1) == 'r' => raw(chars, at + 2).unwrap_or(at),
        // A quote is a character if it closes after one (escaped or not), else a lifetime.
        '\'' if next(1) == '\\' => quoted(chars, at, '\''),
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// End of a raw string whose hashes begin at `at`.
fn raw(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let mut i = at + hashes + 1;
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').take(hashes).count() == hashes {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(chars.len())
}
