//! Programs that others wrote ask a node: promtool, a Python client, a Prometheus that reads from it, Grafana's calls.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::process::Command;
use std::time::Duration;

use metrolith::proto::prometheus::{BucketSpan, Histogram, Label, TimeSeries, WriteRequest, histogram};
use prost::Message;
use serde_json::{Value, json};
use support::http::sorted;
use support::node::{Node, Setup};
use support::writer::{Row, encode, send};
use support::{now_ms, prometheus, python, tool, until};

/// A node with `m{series="0"|"1"}`, a value each ten seconds for five minutes; the last of them was just now.
async fn node_with_data(setup: &Setup) -> (Node, i64) {
    let node = setup.start().await;
    let end = now_ms() / 10_000 * 10_000;
    let row = |s: i64| -> Row<'_> {
        let labels = vec![("__name__", "m".to_owned()), ("series", s.to_string())];
        (labels, (0..=30).map(|i| (end - (30 - i) * 10_000, (s * 1000 + i * i) as f64)).collect())
    };
    let (status, said) = send(&node.api, encode(&[row(0), row(1)])).await.unwrap();
    assert_eq!(status, 204, "{said}");
    (node, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_queries() {
    let Some(promtool) = tool("promtool") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (node, end) = node_with_data(&Setup::new(dir.path())).await;
    let url = node.api.url.as_str();
    let run = |args: &[&str]| {
        let out = Command::new(&promtool).arg("query").args(args).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "promtool query {args:?}: {said}");
        String::from_utf8(out.stdout).unwrap()
    };
    let time = format!("--time={}", end / 1000);
    let instant = run(&["instant", &time, url, "m{series=\"1\"}"]);
    assert_eq!(instant.trim(), format!("m{{series=\"1\"}} => 1900 @[{}]", end / 1000));
    let (start, stop) = (format!("--start={}", end / 1000 - 20), format!("--end={}", end / 1000));
    let range = run(&["range", &start, &stop, "--step=10s", url, "sum(m)"]);
    let at = |ago: i64| end / 1000 - ago;
    assert_eq!(range.trim(), format!("{{}} =>\n2568 @[{}]\n2682 @[{}]\n2800 @[{}]", at(20), at(10), at(0)));
    let series = run(&["series", "--match=m", url]);
    assert_eq!(series.trim(), "{__name__=\"m\", series=\"0\"}\n{__name__=\"m\", series=\"1\"}");
    assert_eq!(run(&["labels", url, "series"]).trim(), "0\n1");
    let wrong = Command::new(&promtool).args(["query", "instant", url, "sum("]).output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("unclosed left parenthesis"), "{said}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_api_client_for_python_asks() {
    let Some(python) = python::find_with("prometheus_api_client") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (node, end) = node_with_data(&Setup::new(dir.path())).await;
    let (start, stop) = ((end / 1000 - 60).to_string(), (end / 1000).to_string());
    let said = python::run(&python, "clients/api_client.py", &[&node.api.url, "m", &start, &stop], &[]);
    assert_eq!(said["connection"], true);
    assert_eq!(said["all_metrics"], json!(["m"]));
    assert_eq!(said["label_names"], json!(["__name__", "series"]));
    assert_eq!(said["label_values"], json!(["0", "1"]));
    let labels = |series: &str| json!({"__name__": "m", "series": series});
    assert_eq!(said["series"], json!([labels("0"), labels("1")]));
    assert_eq!(said["current"], json!([{"metric": labels("1"), "value": [end / 1000, "1900"]}]));
    let range = said["range_data"][0]["values"].as_array().unwrap();
    assert_eq!((range.len(), &range[0]), (6, &json!([end / 1000 - 50, "1625"])));
    assert_eq!(said["query"][0]["value"][1], "2");
    assert_eq!(said["query_range"][0]["values"].as_array().unwrap().len(), 7);
    assert_eq!((&said["scrape_pools"], &said["targets"]["activeTargets"]), (&json!([]), &json!([])));
    assert_eq!(said["metadata"], json!([]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_reads_from_a_node_what_the_node_answers_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (node, end) = node_with_data(&Setup::new(dir.path())).await;
    let config = format!("remote_read:\n- url: {}/api/v1/read\n  read_recent: true\n", node.api.url);
    let Some(other) = prometheus::start_with(dir.path(), &config, &[]).await else { return };
    for flushed in [false, true] {
        if flushed {
            node.api.flush().await;
        }
        // Windows whose left edge no sample lies on: it belongs to them in Debian's version and not in today's.
        for query in ["m", "m{series!~\"0|x\"}[115s]", "sum_over_time(m[175s])", "sum(m offset 1m)", "none"] {
            let own = node.api.instant(query, end).await.unwrap();
            let read = other.api.instant(query, end).await.unwrap();
            assert_eq!(sorted(&read), sorted(&own), "{query}, flushed {flushed}");
        }
        let own = node.api.range("m", end - 120_000, end, 10_000).await.unwrap();
        assert_eq!(sorted(&other.api.range("m", end - 120_000, end, 10_000).await.unwrap()), sorted(&own));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_federates_from_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let (node, end) = node_with_data(&Setup::new(dir.path())).await;
    let target = node.api.url.strip_prefix("http://").unwrap();
    let config = format!(
        "scrape_configs:\n- job_name: federate\n  honor_labels: true\n  metrics_path: /federate\n  \
         scrape_interval: 1s\n  scrape_timeout: 1s\n  params:\n    'match[]': ['m{{series=\"1\"}}']\n  \
         static_configs:\n  - targets: ['{target}']\n"
    );
    let Some(other) = prometheus::start_with(dir.path(), &config, &[]).await else { return };
    let found = until("federated samples", Duration::from_secs(30), || async {
        let found = other.api.instant("m", end).await.ok()?;
        found.get(0).cloned()
    })
    .await;
    assert_eq!((&found["metric"]["series"], &found["value"][1]), (&json!("1"), &json!("1900")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_federates_native_histograms_from_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().await;
    let t = now_ms() / 1000 * 1000;
    let histogram = Histogram {
        count: Some(histogram::Count::CountInt(21)),
        sum: 61.25,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: Some(histogram::ZeroCount::ZeroCountInt(2)),
        negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
        negative_deltas: vec![4],
        positive_spans: vec![BucketSpan { offset: -1, length: 2 }, BucketSpan { offset: 3, length: 1 }],
        positive_deltas: vec![5, 2, -4],
        timestamp: t,
        ..Histogram::default()
    };
    let labels = [("__name__", "lat"), ("job", "x")].map(|(n, v)| Label { name: n.to_owned(), value: v.to_owned() });
    let series = TimeSeries { labels: labels.to_vec(), histograms: vec![histogram], ..TimeSeries::default() };
    let request = WriteRequest { timeseries: vec![series], ..WriteRequest::default() };
    let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
    let (status, said) = send(&node.api, body).await.unwrap();
    assert_eq!(status, 204, "{said}");

    let target = node.api.url.strip_prefix("http://").unwrap();
    let config = format!(
        "scrape_configs:\n- job_name: federate\n  honor_labels: true\n  metrics_path: /federate\n  \
         scrape_interval: 1s\n  scrape_timeout: 1s\n  params:\n    'match[]': ['lat']\n  \
         static_configs:\n  - targets: ['{target}']\n"
    );
    let flags = ["--enable-feature=native-histograms"];
    let Some(other) = prometheus::start_with(dir.path(), &config, &flags).await else { return };
    let found = until("a federated histogram", Duration::from_secs(30), || async {
        let found = other.api.instant("lat{job=\"x\"}", t).await.ok()?;
        found.get(0).cloned()
    })
    .await;
    let own = node.api.instant("lat", t).await.unwrap();
    assert_eq!((found["histogram"][1]["count"].as_str(), &found["histogram"]), (Some("21"), &own[0]["histogram"]));
    let query = "histogram_quantile(0.8, lat{job=\"x\"}) + histogram_sum(lat{job=\"x\"})";
    let values = (node.api.instant(query, t).await.unwrap(), other.api.instant(query, t).await.unwrap());
    assert!(values.0[0]["value"].is_array() && values.1[0]["value"].is_array(), "{values:?}");
    node.stop().await;
}

/// What Grafana's Prometheus data source asks when it is saved, when its explorer opens, and on a panel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_grafana_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (node, end) = node_with_data(&Setup::new(dir.path())).await;
    let (start, stop) = ((end / 1000 - 300).to_string(), (end / 1000).to_string());
    let time = format!("start={start}&end={stop}");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let post = async |path: &str, body: String| {
        let (status, text) = node.api.post(path, &form, body.into_bytes()).await.unwrap();
        (status, serde_json::from_str::<Value>(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))["data"].clone())
    };
    let (status, health) = post("/api/v1/query", "query=1%2B1&time=1".into()).await;
    assert_eq!((status, &health["result"]), (200, &json!([1, "2"])));
    let panel = format!("query=rate(m%5B1m%5D)&{time}&step=15&stats=all");
    let (status, panel) = post("/api/v1/query_range", panel).await;
    assert_eq!((status, panel["result"].as_array().unwrap().len()), (200, 2));
    assert_eq!(post("/api/v1/labels", format!("match%5B%5D=m&{time}")).await.1, json!(["__name__", "series"]));
    assert_eq!(post("/api/v1/series", format!("match%5B%5D=m&{time}&limit=1")).await.1.as_array().unwrap().len(), 1);
    assert_eq!(post("/api/v1/query_exemplars", format!("query=m&{time}")).await, (200, json!([])));
    for (path, data) in [
        (format!("/api/v1/label/__name__/values?{time}&limit=40000"), json!(["m"])),
        (format!("/api/v1/label/series/values?match%5B%5D=m&{time}"), json!(["0", "1"])),
        ("/api/v1/metadata?limit=40000".into(), json!({})),
        ("/api/v1/rules".into(), json!({"groups": []})),
        ("/api/v1/alerts".into(), json!({"alerts": []})),
        ("/api/v1/query_exemplars?query=test&start=1&end=2".into(), json!([])),
    ] {
        let (status, text) = node.api.get(&path).await.unwrap();
        assert_eq!((status, &serde_json::from_str::<Value>(&text).unwrap()["data"]), (200, &data), "{path}");
    }
    let (_, build) = node.api.get("/api/v1/status/buildinfo").await.unwrap();
    let build: Value = serde_json::from_str(&build).unwrap();
    assert!(build["data"]["features"]["ruler_config_api"].is_string() && build["data"]["version"].is_string());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_queries_are_logged_with_what_they_cost() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).flag("query-slow-log-threshold", "1ms");
    let (node, end) = node_with_data(&setup).await;
    // 11 000 steps take longer than a millisecond on any machine; two windows are in it.
    let start = end - 10_999_000;
    node.api.range("sum by (series) (rate(m[1m]))\n", start, end, 1000).await.unwrap();
    node.api.instant("sum(", end).await.unwrap_err();
    let log = std::fs::read_to_string(dir.path().join("metrolith.log")).unwrap();
    let line =
        log.lines().find(|l| l.contains("slow query") && l.contains("kind=range")).unwrap_or_else(|| panic!("{log}"));
    let seconds = |name: &str, ms: i64| format!(" {name}={ms}");
    for part in [
        "tenant=anonymous",
        r#"query="sum by (series) (rate(m[1m]))\n""#,
        &seconds("start_ms", start),
        &seconds("end_ms", end),
        " step_ms=1000",
        "outcome=answered",
        " series=2 samples=62 ",
        " bucket_bytes=0 ",
        " cache_hits=0 ",
        " peak_bytes=",
        " took_ms=",
        " cpu_ms=",
        "level=warn target=metrolith::query::slow",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!log.contains("query=sum("), "what is no PromQL is not slow");
    node.stop().await;
}
