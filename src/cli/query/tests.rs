//! The query command over canned answers.

use serde_json::json;

use super::*;

const NOW: i64 = 1_780_000_000_000;

fn args(line: &[&str]) -> Args {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    <Line as clap::Parser>::parse_from(std::iter::once(&"query").chain(line)).args
}

fn form(request: &Request, name: &str) -> Option<String> {
    request.form.iter().find(|(n, _)| *n == name).map(|(_, text)| text.clone())
}

fn answer(data: serde_json::Value) -> Answer {
    Answer::from_data(&data).unwrap()
}

fn vector() -> Answer {
    answer(json!({"resultType": "vector", "result": [
        {"metric": {"__name__": "up", "job": "node", "instance": "a:9100"}, "value": [1780000000, "1"]},
        {"metric": {"__name__": "up", "job": "say \"hi\", x"}, "value": [1780000000.5, "0.25"]},
    ]}))
}

fn matrix(series: usize) -> Answer {
    let rows: Vec<_> = (0..series)
        .map(|s| {
            let values: Vec<_> =
                (0..20).map(|i| json!([1_780_000_000 + i * 60, format!("{}", (i * (s + 1)) % 7)])).collect();
            json!({"metric": {"__name__": "m", "s": format!("{s}")}, "values": values})
        })
        .collect();
    answer(json!({"resultType": "matrix", "result": rows}))
}

#[test]
fn asks_at_an_instant_unless_a_range_is_given() {
    let request = Request::new(&args(&["up"]), NOW).unwrap();
    assert_eq!((request.path, form(&request, "time")), ("query", Some("1780000000.000".into())));
    let request = Request::new(&args(&["--time", "-1m", "up"]), NOW).unwrap();
    assert_eq!((request.path, form(&request, "time")), ("query", Some("1779999940.000".into())));
    for line in [&["--start", "-1h", "up"][..], &["--format", "plot", "up"], &["--step", "30s", "up"]] {
        let request = Request::new(&args(line), NOW).unwrap();
        assert_eq!(request.path, "query_range");
        assert_eq!(form(&request, "start"), Some("1779996400.000".into()), "{line:?}");
        assert_eq!(form(&request, "end"), Some("1780000000.000".into()));
        assert_eq!(form(&request, "step"), Some("30.000".into()));
    }
}

#[test]
fn refuses_what_cannot_be_asked() {
    for line in [&["--end", "-2h", "--start", "-1h", "up"][..], &["--step", "0", "up"], &["--start", "soon", "up"]] {
        assert!(Request::new(&args(line), NOW).is_err(), "{line:?}");
    }
}

#[test]
fn errors_and_warnings_of_the_server_are_readable() {
    let message =
        answer::parse(br#"{"status":"error","errorType":"bad_data","error":"1:3: parse error"}"#).unwrap_err();
    assert_eq!(message.to_string(), "the server refused (bad_data): 1:3: parse error");
    assert!(answer::parse(b"<html>").is_err());
    let reply = answer::parse(br#"{"status":"success","data":{},"warnings":["w"],"infos":["i"]}"#).unwrap();
    assert_eq!((reply.warnings, reply.infos), (vec!["w".to_owned()], vec!["i".to_owned()]));
    assert!(Answer::from_data(&json!({"resultType": "tensor"})).is_err());
}

#[test]
fn an_instant_table_has_a_column_per_label() {
    let lines = grid::table(&vector(), 80);
    let expected = "\
METRIC  instance  job          VALUE
up      a:9100    node             1
up                say \"hi\", x   0.25
";
    assert_eq!(lines, expected);
    let scalar = answer(json!({"resultType": "scalar", "result": [1780000000, "2"]}));
    assert_eq!(grid::table(&scalar, 80), "VALUE\n2\n");
    assert_eq!(grid::table(&answer(json!({"resultType": "vector", "result": []})), 80), "no series\n");
}

#[test]
fn a_range_table_breaks_into_blocks_that_fit() {
    let text = grid::table(&matrix(30), 60);
    assert!(text.lines().all(|l| l.chars().count() <= 60), "{text}");
    assert!(text.contains("#30") && text.contains("m{s=\"29\"}") && text.contains("2026-05-28 20:26:40"), "{text}");
    let mut gap = matrix(2);
    gap.series[1].points.remove(3);
    assert!(grid::table(&gap, 60).contains('–'));
}

#[test]
fn csv_quotes_and_keeps_values_as_written() {
    let text = grid::csv(&vector());
    let expected =
        "time,value,__name__,instance,job\n1780000000,1,up,a:9100,node\n1780000000.5,0.25,up,,\"say \"\"hi\"\", x\"\n";
    assert_eq!(text, expected);
    let histogram = answer(json!({"resultType": "vector", "result": [
        {"metric": {}, "histogram": [1, {"count": "3", "sum": "1e+21", "buckets": [[0, "1", "2", "3"]]}]}]}));
    assert!(grid::csv(&histogram).contains("count=3 sum=1e+21"));
}

#[test]
fn a_plot_has_axes_and_a_legend_and_fits() {
    let screen = Screen { width: 60, colour: false };
    let one = plot::draw(&matrix(1), screen).unwrap();
    assert!(one.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{one}");
    let text = plot::draw(&matrix(12), screen).unwrap();
    assert!(text.lines().all(|l| l.chars().count() <= 60), "{text}");
    for part in ["a  m{s=\"0\"}", "j  m{s=\"9\"}", "… and 2 more series", "2026-05-28 20:26:40", "┤", "└──"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let coloured = plot::draw(&matrix(2), Screen { width: 60, colour: true }).unwrap();
    assert!(coloured.contains("\x1b[36m") && coloured.contains("\x1b[33m"));
}

#[test]
fn plots_survive_flat_huge_and_missing_values() {
    let screen = Screen { width: 60, colour: false };
    for values in [&["5", "5"][..], &["0"], &["NaN", "+Inf"], &["1e308", "-1e308"], &[]] {
        let points: Vec<_> = values.iter().enumerate().map(|(i, v)| json!([i, v])).collect();
        let answer = answer(json!({"resultType": "matrix", "result": [{"metric": {}, "values": points}]}));
        assert!(!plot::draw(&answer, screen).unwrap().is_empty(), "{values:?}");
    }
    assert!(plot::draw(&vector(), screen).is_err());
}
