//! The order of the modules is a promise: a module imports only from modules above its own.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod source;

use std::collections::BTreeSet;

use source::Source;

/// Modules from the bottom of the dependencies to the top; the same order as in `src/lib.rs`.
const ORDER: [&str; 21] = [
    "error",
    "model",
    "config",
    "telemetry",
    "env",
    "proto",
    "peers",
    "chunk",
    "promql",
    "raft",
    "head",
    "block",
    "store",
    "meta",
    "ingest",
    "compact",
    "query",
    "api",
    "node",
    "cli",
    "testkit",
];

/// Modules that may see less than what stands above them.
const NARROW: [(&str, &[&str]); 2] = [("config", &["error", "model"]), ("promql", &["error", "model"])];

/// Modules of which none sees another: they meet in `ingest`.
const STRANGERS: [&str; 3] = ["raft", "head", "block"];

/// Only tests, benches and fuzz targets may use it.
const FOR_TESTS: &str = "testkit";

/// An import: the line (from 1) and the top-level module it reaches into.
type Import = (usize, String);

/// Every path of `code` that begins at the crate's root.
fn imports(code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.trim_start().strip_prefix('{') {
            found.extend(heads_of_group(group).into_iter().map(|head| (line, head)));
        } else {
            found.push((line, ident(rest)));
        }
    }
    found
}

/// First words of the members of `a::b, c::{d, e}, f}`.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut expecting) = (Vec::new(), 0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            c if expecting && (c.is_alphanumeric() || c == '_') => {
                heads.push(ident(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
    }
    heads
}

fn ident(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Lines where `super::super::…` climbs to the crate's root, which would hide an import from this test.
fn climbs(source: &Source) -> Vec<usize> {
    let depth = source.module().len();
    let climb = "super::".repeat(depth);
    let shown = source.lines_before_tests();
    let lines = source.code.lines().take(shown).enumerate();
    lines.filter(|(_, line)| line.replace(' ', "").contains(&climb)).map(|(at, _)| at + 1).collect()
}

/// What is wrong with one import of `module`, if anything.
fn complaint(module: &str, target: &str, in_test: bool) -> Option<String> {
    let place = |name: &str| ORDER.iter().position(|m| *m == name);
    let (Some(own), Some(other)) = (place(module), place(target)) else {
        // Not a module: an item of the crate's root, of which there is none.
        return Some(format!("{target} is not a module of the table"));
    };
    if own == other {
        return None;
    }
    if target == FOR_TESTS {
        return (!in_test).then(|| format!("{FOR_TESTS} is for tests"));
    }
    if other > own {
        return Some(format!("{target} stands after {module}"));
    }
    if in_test {
        return None;
    }
    if let Some((_, allowed)) = NARROW.iter().find(|(name, _)| *name == module)
        && !allowed.contains(&target)
    {
        return Some(format!("{module} sees only {}", allowed.join(", ")));
    }
    (STRANGERS.contains(&module) && STRANGERS.contains(&target)).then(|| format!("{module} must not see {target}"))
}

#[test]
fn a_module_imports_only_from_modules_above_its_own() {
    let mut wrong = Vec::new();
    for source in source::all() {
        let module = source.module()[0].to_owned();
        if module == "lib" {
            continue;
        }
        let test_from = source.lines_before_tests();
        for (line, target) in imports(&source.code) {
            let said = match module.as_str() {
                "main" => (target != "cli").then(|| "main.rs uses only cli".to_owned()),
                _ => complaint(&module, &target, line > test_from),
            };
            wrong.extend(said.map(|said| format!("{}:{line}: imports crate::{target}: {said}", source.path)));
        }
        wrong.extend(climbs(&source).iter().map(|line| format!("{}:{line}: write crate::, not super::", source.path)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_lists_exactly_the_modules_of_the_crate_in_their_order() {
    let sources = source::all();
    let lib = &sources.iter().find(|s| s.path == "src/lib.rs").unwrap().code;
    let declared: Vec<&str> =
        lib.lines().filter_map(|l| l.strip_prefix("pub mod ").or(l.strip_prefix("mod "))?.strip_suffix(';')).collect();
    assert_eq!(declared, ORDER, "src/lib.rs and the table of this test");
    let on_disk: BTreeSet<&str> =
        sources.iter().map(|s| s.module()[0]).filter(|m| !["lib", "main"].contains(m)).collect();
    assert_eq!(on_disk, ORDER.into_iter().collect(), "directories of src/ and the table of this test");
}

#[test]
fn finds_imports_however_they_are_written() {
    let code = source::code_of(
        "use crate::error::Kind;\nuse crate::{\n    head::{self, Head},\n    model,\n};\n// crate::api\n\
         fn f() { let x = \"crate::api\"; crate::raft::go(r#\"crate::api\"#, 'c', \"\\\"crate::api\"); }\n\
         macro_rules! m { () => { $crate::store::get() } }\nlet mycrate::x = 'a; crate::node::run();",
    );
    let found: Vec<(usize, String)> = imports(&code);
    let expected = [(1, "error"), (2, "head"), (2, "model"), (7, "raft"), (8, "store"), (9, "node")];
    assert_eq!(found.iter().map(|(line, name)| (*line, name.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn complains_about_every_kind_of_wrong_import() {
    assert_eq!(complaint("ingest", "head", false), None);
    assert_eq!(complaint("head", "head", false), None);
    assert_eq!(complaint("head", "testkit", true), None);
    for (module, target, in_test) in [
        ("model", "head", false),
        ("model", "head", true),
        ("head", "raft", false),
        ("block", "head", false),
        ("promql", "chunk", false),
        ("config", "telemetry", false),
        ("head", "testkit", false),
        ("head", "nowhere", false),
    ] {
        assert!(complaint(module, target, in_test).is_some(), "{module} imports {target}");
    }
}
