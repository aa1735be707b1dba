//! What must hold for any text taken for PromQL.
#![allow(clippy::expect_used)]

use metrolith::promql::ast::{Ast, Expr};
use metrolith::promql::{ParseOptions, parse, parse_metric, parse_selector};

/// No panic; what parses is printed in one line and in many, and both parse to the same tree.
pub fn promql_parser(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse_selector(&text);
    if let Ok((_, end)) = parse_metric(&text) {
        assert!(text.is_char_boundary(end), "a metric ends inside of a character");
    }
    let default = parse(&text, ParseOptions::default());
    let ast = match parse(&text, ParseOptions::all()) {
        Ok(ast) => ast,
        Err(error) => {
            assert!(default.is_err(), "only the whole language refuses it: {error}");
            assert!(error.span.start <= error.span.end && error.span.end as usize <= text.len(), "{error}");
            return;
        }
    };
    let sorted = with_sorted_matchers(&ast);
    let (tree, printed, pretty) = (sorted.to_json(), ast.to_string(), ast.pretty());
    for text in [&printed, &pretty] {
        let again = parse(text, ParseOptions::all()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(with_sorted_matchers(&again).to_json(), tree, "{text}");
        assert_eq!(again.to_string(), printed, "{text}");
    }
    assert!(ast.depth() <= ast.nodes.len() && ast.post_order(ast.root).len() <= ast.nodes.len());
}

/// Matchers are printed in order of their text; that of the name comes last in the tree.
fn with_sorted_matchers(ast: &Ast) -> Ast {
    let mut ast = ast.clone();
    for node in &mut ast.nodes {
        if let Expr::Vector(selector) = &mut node.expr {
            let unnamed = selector.matchers.len() - usize::from(selector.name.is_some());
            selector.matchers[..unnamed].sort_by_key(ToString::to_string);
        }
    }
    ast
}
