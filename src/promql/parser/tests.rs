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
