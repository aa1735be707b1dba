//! A node from outside: its pages, its own metrics, and the program beside it.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use support::node::{Node, Setup};
use support::writer::{Ledger, encode, send};
use support::{now_ms, root, until};

fn metrolith(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metrolith")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A node that has been through writes, a flush and queries of both.
async fn busy_node(setup: &Setup) -> (Node, i64) {
    let node = setup.start().await;
    let base = now_ms() - 600_000;
    let mut ledger = Ledger::default();
    for i in 0..10 {
        assert!(ledger.write(&node.api, "busy", 0..5, base + i * 15_000).await);
    }
    node.api.flush().await;
    // An hour ahead of the clock: refused, and counted.
    let future = encode(&[(vec![("__name__", "busy".to_owned())], vec![(now_ms() + 3_600_000, 1.0)])]);
    assert_eq!(send(&node.api, future).await.unwrap().0, 400);
    for i in 10..20 {
        assert!(ledger.write(&node.api, "busy", 0..5, base + i * 15_000).await);
    }
    ledger.check(&node.api, "busy", base, base + 20 * 15_000).await.unwrap();
    (node, base)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_for_machines_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = busy_node(&Setup::new(dir.path())).await;
    for page in ["/-/ready", "/-/healthy", "/ready"] {
        assert_eq!(node.api.get(page).await.unwrap().0, 200, "{page}");
    }
    let (status, page) = node.api.get("/metrics").await.unwrap();
    assert_eq!(status, 200);
    let names: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &names {
        assert!(name.starts_with("metrolith_") || name.starts_with("process_"), "{name}");
    }
    for document in ["docs/operations.md", "README.md"] {
        for name in metrics_in(&std::fs::read_to_string(root().join(document)).unwrap()) {
            assert!(
                names.contains(&name.as_str()),
                "{document} names {name}, /metrics does not:\n{}",
                names.join("\n")
            );
        }
    }
    node.stop().await;
}

/// Names in a document that look like metrics.
fn metrics_in(document: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = document.split(|c| !word(c));
    words
        .filter(|w| !w.ends_with('_') && (w.starts_with("metrolith_") || w.starts_with("process_")))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_query_command_shows_answers_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let (node, base) = busy_node(&Setup::new(dir.path())).await;
    let url = node.api.url.clone();
    let at = format!("{}", (base + 19 * 15_000) / 1000 + 1);
    let ask = |more: &[&str]| metrolith(&[&["query", "--url", &url], more].concat());

    let table = ask(&["--time", &at, "count(busy)"]);
    assert_eq!(text(&table.stdout), "VALUE\n5\n", "{}", text(&table.stderr));
    let csv = ask(&["--time", &at, "--format", "csv", "sum(busy > bool 0)"]);
    assert!(
        text(&csv.stdout).starts_with("time,value\n") && text(&csv.stdout).ends_with(",5\n"),
        "{}",
        text(&csv.stdout)
    );
    let start = format!("{}", base / 1000);
    let plot = ask(&["--start", &start, "--end", &at, "--step", "15s", "--format", "plot", "busy"]);
    assert!(text(&plot.stdout).contains("busy{series=\"0\"}"), "{}{}", text(&plot.stdout), text(&plot.stderr));
    let json = ask(&["--time", &at, "--format", "json", "busy"]);
    let data: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(data["result"].as_array().unwrap().len(), 5);

    let wrong = ask(&["sum("]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("parse error"), "{}", text(&wrong.stderr));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_finds_the_nodes_own_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::watching_itself(dir.path());
    let node = setup.start().await;
    until("the node's own metrics", Duration::from_secs(60), || async {
        let found = node.api.instant("metrolith_build_info", now_ms()).await.ok()?;
        (found.as_array()?.len() == 1).then_some(())
    })
    .await;
    node.stop().await;
}

#[test]
fn a_wrong_configuration_ends_with_code_2_and_says_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrolith.yaml");
    std::fs::write(&file, "data_dir: x\nquery:\n  time_out: 5s\n").unwrap();
    for command in [&["serve", "--config"][..], &["config", "check"]] {
        let out = metrolith(&[command, &[file.to_str().unwrap()]].concat());
        assert_eq!(out.status.code(), Some(2), "{command:?}");
        let said = text(&out.stderr);
        assert!(said.contains("line 3") && said.contains("did you mean \"query.timeout\"?"), "{said}");
    }
}

#[test]
fn a_server_that_is_away_is_named() {
    let out = metrolith(&["query", "--url", "http://127.0.0.1:1", "up"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("asking http://127.0.0.1:1/api/v1/query"), "{}", text(&out.stderr));
}
