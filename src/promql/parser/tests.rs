//! Upstream cases, depth, and trees that print back.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::testkit::shared;

fn cases(file: &str) -> Vec<Value> {
    let Some(dir) = shared() else { return Vec::new() };
    let text = std::fs::read_to_string(dir.join("promql/testdata").join(file)).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 50, "{file} is cut short");
    cases
}

fn message(text: &str) -> String {
    parse(text, ParseOptions::all()).expect_err(text).to_string()
}

#[test]
fn answers_every_case_of_prometheus() {
    let mut wrong = Vec::new();
    for case in cases("parse_cases.json") {
        let input = case["input"].as_str().unwrap();
        let got = parse(input, ParseOptions::all());
        let wanted = case["errors"][0].as_array();
        let right = match (&got, wanted, case["fail"].as_bool().unwrap()) {
            (Ok(_), _, false) => true,
            (Err(_), None, true) => true,
            (Err(e), Some(wanted), true) => {
                // The corpus keeps a format directive where the number would be.
                let text = wanted[2].as_str().unwrap();
                e.span.start == wanted[0]
                    && e.span.end == wanted[1]
                    && text.strip_suffix("%f").map_or(e.message == text, |head| e.message.starts_with(head))
            }
            _ => false,
        };
        if !right {
            let input: String = input.chars().take(200).collect();
            wrong.push(format!("{input:?}: {:?}, wanted {:?}", got.map(|_| ()), wanted));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_query_of_the_corpus_parses_and_prints_back() {
    let Some(dir) = shared() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.join("promql/testdata")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "test") {
            continue;
        }
        let script = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = script.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(query) = query_of(line) else { continue };
            seen += 1;
            let place = format!("{}:{}", path.display(), at + 1);
            match parse(query, ParseOptions::all()) {
                Ok(ast) => prints_back(&ast, &place),
                // Some queries are wrong on purpose.
                Err(e) => {
                    let fails = line.starts_with("eval_fail")
                        || lines[at + 1..]
                            .iter()
                            .take_while(|l| !l.trim().is_empty())
                            .any(|l| l.contains("expect fail"));
                    assert!(fails, "{place}: {query}: {e}");
                }
            }
        }
    }
    assert!(seen > 2000, "{seen} queries");
}

/// The query of an `eval` line of a test script.
fn query_of(line: &str) -> Option<&str> {
    let (command, rest) = line.split_once(" instant at ").or_else(|| line.split_once(" range from "))?;
    if !command.starts_with("eval") {
        return None;
    }
    let words = if line.contains(" instant at ") { 1 } else { 5 };
    let mut rest = rest.trim_start();
    for _ in 0..words {
        rest = rest.split_once(char::is_whitespace)?.1.trim_start();
    }
    Some(rest)
}

fn prints_back(ast: &Ast, place: &str) {
    // Matchers are printed in order of their text.
    let mut ast = ast.clone();
    for node in &mut ast.nodes {
        if let Expr::Vector(selector) = &mut node.expr {
            let named = selector.name.is_some() as usize;
            let unnamed = selector.matchers.len() - named;
            selector.matchers[..unnamed].sort_by_key(|m| m.to_string());
        }
    }
    let printed = ast.to_string();
    let again = parse(&printed, ParseOptions::all()).unwrap_or_else(|e| panic!("{place}: {printed}: {e}"));
    assert_eq!(again.to_string(), printed, "{place}");
    assert_eq!(again.to_json(), ast.to_json(), "{place}: {printed}");
    let pretty = parse(&ast.pretty(), ParseOptions::all()).unwrap_or_else(|e| panic!("{place}: {}: {e}", ast.pretty()));
    assert_eq!(pretty.to_json(), ast.to_json(), "{place}: {}", ast.pretty());
}

/// Found by fuzzing.
#[test]
fn odd_queries_print_back() {
    let query = "1 / -0h";
    prints_back(&parse(query, ParseOptions::all()).unwrap(), query);
}

#[test]
fn errors_name_line_and_column() {
    assert_eq!(message("a +\n  b c"), "2:5: parse error: unexpected identifier \"c\"");
    assert_eq!(message("sum(a b)"), "1:7: parse error: unexpected identifier \"b\" in aggregation");
    assert_eq!(message("a</b>"), "1:6: parse error: unexpected end of input");
    let open = |what: &str| format!("parse error: unexpected {what} in grouping opts, expected \"(\"");
    assert_eq!(message("a + on (b) group_left"), format!("1:22: {}", open("end of input")));
    assert_eq!(message("(a + on (b) group_right)"), format!("1:24: {}", open("\")\"")));
    assert!(
        ["c", "-c", "(c) d", "{d=\"e\"}", "sum(c)", "fill(1) c"]
            .iter()
            .all(|operand| { parse(&format!("a + on (b) group_left {operand}"), ParseOptions::all()).is_ok() })
    );
    let flags_off = |text| parse(text, ParseOptions::default()).expect_err(text).message;
    assert_eq!(flags_off("info(a)"), "function \"info\" is not enabled");
    assert_eq!(flags_off("a anchored"), "anchored modifier is experimental and not enabled");
    assert_eq!(flags_off("a + fill(1) b"), "binop fill modifiers are experimental and not enabled");
    assert!(flags_off("limitk(1, a)").starts_with("limitk() is experimental and must be enabled with"));
    assert!(parse("a offset (5m) * 2", ParseOptions::default()).is_ok());
}

#[test]
fn postfix_and_signs_bind_as_documented() {
    let shape = |text| {
        let ast = parse(text, ParseOptions::all()).unwrap();
        match ast.expr(ast.root) {
            Expr::Binary(binary) => binary.op.as_str(),
            Expr::Unary { .. } => "sign",
            Expr::Vector(_) => "selector",
            _ => "other",
        }
    };
    assert_eq!(shape("-a^2"), "sign");
    assert_eq!(shape("-a*2"), "*");
    assert_eq!(shape("a offset -2^2"), "^");
    assert_eq!(shape("a offset (5m) * 2"), "selector");
    assert_eq!(shape("a offset -(5m) * 2"), "*");
    assert_eq!(shape("a offset step() * 2"), "*");
    assert_eq!(shape("a or b and c == d + e * f ^ g"), "or");
    assert_eq!(shape("fill + fill"), "+");
}

#[test]
fn nesting_of_any_depth_is_answered() {
    let n = 20_000;
    for text in [
        format!("{}1{}", "(".repeat(n), ")".repeat(n)),
        format!("{}a", "-".repeat(n)),
        format!("a{}", " + a".repeat(n / 2)),
        format!("a{}", " ^ a".repeat(n / 2)),
        format!("{}a{}", "abs(".repeat(n / 4), ")".repeat(n / 4)),
        format!("{}a{}", "sum by (x) (".repeat(n / 4), ")".repeat(n / 4)),
    ] {
        let ast = parse(&text, ParseOptions::all()).unwrap();
        let printed = ast.to_string();
        let again = parse(&printed, ParseOptions::all()).unwrap();
        assert_eq!((again.depth(), again.to_string() == printed), (ast.depth(), true));
        assert!(ast.to_json().len() > text.len() / 8);
        assert!(!ast.pretty().is_empty());
        assert!(!ast.post_order(ast.root).is_empty());
    }
    for text in [
        "(".repeat(40 * n),
        "sum(".repeat(n),
        format!("a[{}", "(".repeat(n)),
        format!("a[1{}]", "+1".repeat(n)),
        format!("a offset {}1", "-".repeat(n)),
        format!("a[{}1]", "-".repeat(n)),
        format!("a{}", "[1m:]".repeat(n / 4)),
    ] {
        assert!(parse(&text, ParseOptions::all()).is_err());
    }
}

#[test]
fn selectors_and_metrics_stand_alone() {
    let matchers = parse_selector(r#"m{a=~"b|c", "d.e"!="f"}"#).unwrap();
    assert_eq!(format!("{matchers:?}"), r#"[a=~"b|c", "d.e"!="f", __name__="m"]"#);
    assert_eq!(parse_selector("{}").unwrap(), []);
    for bad in ["m[5m]", "", "sum(m)", "m offset 5m", "{a=~\"[\"}", "m n"] {
        assert!(parse_selector(bad).is_err(), "{bad}");
    }
    let metric = |text| parse_metric(text).map(|(labels, end)| (labels.to_string(), end)).map_err(|e| e.message);
    assert_eq!(metric(r#"m{a="b", "c d"='e',} 1 2x3"#), Ok((r#"m{a="b", "c d"="e"}"#.to_owned(), 20)));
    assert_eq!(metric("m 1+1x5 {{schema:1}}"), Ok(("m".to_owned(), 1)));
    assert_eq!(metric(r#"{"m.n"} _ 1"#), Ok((r#"{"m.n"}"#.to_owned(), 7)));
    assert_eq!(metric("{} 1"), Ok(("{}".to_owned(), 2)));
    assert_eq!(metric("m{a}").unwrap_err(), "unexpected \"}\" in label set, expected \"=\"");
}

/// Expressions that are right by construction, types included.
fn vectors() -> impl Strategy<Value = String> {
    let selector = prop::sample::select(vec![
        "up",
        "a:b{c=\"d\"}",
        "{__name__=\"x\"}",
        "m{a!~\"b\"} offset 5m",
        "sum @ 1.5",
        "m{\"a.b\"=\"\\n\"} @ end() offset -1h",
        "m smoothed",
        "last_over_time(m[1s1ms])",
        "(m offset (step() - 5s))",
        "avg_over_time(m[5m:1m] offset 2h)",
        "rate(m[5m] anchored)",
        "rate(m[-5m + max_of(range(), 1h)] @ start())",
    ]);
    selector.prop_map(str::to_owned).prop_recursive(5, 40, 3, |inner| {
        let scalar = prop::sample::select(vec!["1", "-0x1f", "5m", "Inf", "pi()", "(1 + 2 ^ -3)", "1e-9", "1y1s1ms"]);
        let operator = prop::sample::select(vec![
            "+",
            "- on (a, \"b c\")",
            "*  ignoring(x) group_left()",
            "/",
            "%",
            "^",
            "atan2",
            "== bool",
            ">",
            "</",
            ">/",
            "and",
            "or on()",
            "unless ignoring (y)",
            "* on(a) group_right(b) fill(NaN)",
            "+ fill_left(-1) fill_right(2)",
        ]);
        let arithmetic = prop::sample::select(vec!["+", "-", "*", "^", "<", ">= bool"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), arithmetic, scalar.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("sum without (x, \"y z\") ({a})")),
            (scalar, inner.clone()).prop_map(|(s, a)| format!("topk({s}, {a}) by (j)")),
            inner.clone().prop_map(|a| format!("count_values(\"l\\xff\", {a})")),
            inner.prop_map(|a| format!("label_replace({a}, 'a', `b`, \"c\", '')")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printed_queries_parse_to_the_same_tree(query in vectors()) {
        prints_back(&parse(&query, ParseOptions::all()).unwrap(), &query);
    }

    #[test]
    fn no_text_panics(text in r#"([a-z_:]|sum|by|\(|\)|\[|\]|\{|\}|"|'|`|,|=|!|~|[0-9]|\.|e|@|offset|[+*/%^<>-]| |\\|#|\n|é|step|bool|on|fill){0,40}"#) {
        let _ = parse(&text, ParseOptions::all());
        let _ = parse_selector(&text);
        let _ = parse_metric(&text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = parse(&text, ParseOptions::all());
        let _ = parse_metric(&text);
    }
}
