//! The shape of the sources: heads that explain, files and functions of a size one can read, documents that exist.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod source;

use std::path::Path;

use source::Source;

/// Most lines of a file before its inline tests.
const FILE_LINES: usize = 500;
/// Most lines of a function.
const FUNCTION_LINES: usize = 70;
/// From this size on a file says what always holds in it and what is not its business.
const EXPLAINED_LINES: usize = 150;

/// Files and functions above the ceiling, with their present size. It only shrinks: a smaller size must be written
/// here, a larger one fails.
const RATCHET: [(&str, usize); 0] = [];

/// Modules that write bytes others must be able to read: each has a `format.md`, included in its documentation.
const FORMATS: [&str; 5] = ["chunk", "raft", "head", "block", "store"];

#[test]
fn every_module_begins_by_saying_what_it_is() {
    let mut wrong = Vec::new();
    for source in source::all().iter().filter(|s| !s.is_test_file()) {
        // A format's text may stand first.
        if !source.text.starts_with("//! ") && !source.text.starts_with("#![doc = include_str!") {
            wrong.push(format!("{}: the first line says what the module is: `//! …`", source.path));
            continue;
        }
        let head: String = source
            .text
            .lines()
            .take_while(|l| l.starts_with("//!") || l.starts_with("#!["))
            .collect::<Vec<_>>()
            .join("\n");
        if source.lines_before_tests() > EXPLAINED_LINES {
            for word in ["*Invariants:*", "*Not here:*"] {
                if !head.contains(word) {
                    wrong.push(format!("{}: the head of a file this long has {word}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_stay_readable() {
    let sources = source::all();
    let mut files: Vec<(String, usize)> =
        sources.iter().filter(|s| !s.is_test_file()).map(|s| (s.path.clone(), s.lines_before_tests())).collect();
    let mut functions: Vec<(String, usize)> = sources.iter().flat_map(functions).collect();
    files.sort_by_key(|(_, lines)| *lines);
    functions.sort_by_key(|(_, lines)| *lines);
    report("files", &files);
    report("functions", &functions);

    let mut wrong = Vec::new();
    let over = |sizes: &[(String, usize)], most: usize| {
        sizes.iter().filter(|(_, lines)| *lines > most).cloned().collect::<Vec<_>>()
    };
    let large: Vec<_> = [over(&files, FILE_LINES), over(&functions, FUNCTION_LINES)].concat();
    for (name, lines) in &large {
        match RATCHET.iter().find(|(known, _)| known == name) {
            None => wrong.push(format!("{name} has {lines} lines: split it by noun")),
            Some((_, most)) if lines > most => wrong.push(format!("{name} has grown from {most} to {lines} lines")),
            Some((_, most)) if lines < most => wrong.push(format!("{name} has shrunk to {lines} lines: write it down")),
            Some(_) => {}
        }
    }
    for (name, _) in RATCHET.iter().filter(|(known, _)| !large.iter().any(|(name, _)| name == known)) {
        wrong.push(format!("{name} is small enough now: take it out of the ratchet"));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn report(what: &str, sizes: &[(String, usize)]) {
    let quantile = |of: usize| sizes.get(sizes.len() * of / 100).map_or(0, |(_, lines)| *lines);
    println!("{} {what}: median {} lines, p90 {}, largest:", sizes.len(), quantile(50), quantile(90));
    for (name, lines) in sizes.iter().rev().take(5) {
        println!("  {lines:>4} {name}");
    }
}

/// Every function outside tests with its number of lines, named `path:function`.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let shown = source.lines_before_tests();
    let lines: Vec<&str> = source.code.lines().take(shown).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let mut depth = 0;
        for (end, body) in lines.iter().enumerate().skip(at) {
            depth += body.matches('{').count();
            let opened = depth > 0;
            depth -= body.matches('}').count().min(depth);
            // A declaration without a body ends at its semicolon.
            if (opened && depth == 0) || (!opened && body.trim_end().ends_with(';')) {
                found.push((format!("{}:{name}", source.path), end - at + 1));
                break;
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let word = words.find(|w| {
        !(w.starts_with("pub") || ["const", "async", "unsafe", "extern", "crate)", "super)", "in"].contains(w))
    })?;
    let name = (word == "fn").then(|| words.next())??;
    Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[test]
fn measures_functions() {
    let text = "pub(crate) async fn long(\n    a: u8,\n) -> u8 {\n    if a { \"}}}\" }\n    1\n}\ntrait T {\n    fn none(&self);\n}\n\
                #[cfg(test)]\nmod tests {\n    fn hidden() {}\n}\n";
    let source = Source { path: "src/x.rs".into(), text: text.into(), code: source::code_of(text) };
    assert_eq!(functions(&source), [("src/x.rs:long".to_owned(), 6), ("src/x.rs:none".to_owned(), 1)]);
    assert_eq!(source.lines_before_tests(), 9);
}

#[test]
fn formats_are_described_beside_their_code() {
    for module in FORMATS {
        let path = source::root().join("src").join(module).join("format.md");
        assert!(path.exists(), "src/{module}/format.md describes the bytes src/{module} writes");
        let included = source::all()
            .iter()
            .any(|s| s.module()[0] == module && s.text.contains("include_str!") && s.text.contains("format.md"));
        assert!(included, "src/{module}/format.md is part of the module's documentation (include_str!)");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = source::root();
    let mut documents = Vec::new();
    for dir in ["docs", "src"] {
        source::walk(&root.join(dir), "md", &mut documents);
    }
    let top = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path());
    documents.extend(top.filter(|p| p.extension().is_some_and(|e| e == "md")));
    let mut wrong = Vec::new();
    for document in &documents {
        let text = std::fs::read_to_string(document).unwrap();
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            if !document.parent().unwrap_or(Path::new("")).join(target).exists() {
                wrong.push(format!("{}: {link}", document.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

/// Targets of `[text](target)` outside code blocks.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Odd pieces between backquotes are code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, _) in prose.match_indices("](") {
            let rest = &prose[at + 2..];
            found.extend(rest.find(')').map(|end| rest[..end].to_owned()));
        }
    }
    found
}
