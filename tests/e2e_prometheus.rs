//! The same scrapes, asked of Prometheus and of Metrolith: the same answers.
//!
//! Debian's Prometheus scrapes itself and the node exporter each second and sends all of it by remote write. Then it is
//! stopped and started again without anything to scrape, so that both hold the same samples for good, and both are asked
//! at the same moments.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use support::http::{Api, sorted};
use support::node::Setup;
use support::prometheus::RemoteWrite;
use support::{now_ms, prometheus, until};

/// How equal two numbers must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Equal {
    /// To the last digit.
    Exactly,
    /// But for the order of additions, which today's Prometheus changed since Debian's.
    Nearly,
}

use Equal::{Exactly, Nearly};

const QUERIES: [(&str, Equal); 36] = [
    ("up", Exactly),
    ("{__name__=~\"node_network_.*_total\", device!=\"lo\"}", Exactly),
    ("count({__name__!=\"\"})", Exactly),
    ("count by (job) (up)", Exactly),
    ("count by (__name__) ({job=\"node\"})", Exactly),
    ("sum(prometheus_tsdb_head_series) by (instance)", Exactly),
    ("max by (job) (process_resident_memory_bytes)", Exactly),
    ("min without (cpu, mode) (node_cpu_seconds_total)", Exactly),
    ("topk(1, process_resident_memory_bytes)", Exactly),
    ("group by (mode) (node_cpu_seconds_total)", Exactly),
    ("avg(go_goroutines)", Nearly),
    ("stddev(node_cpu_seconds_total)", Nearly),
    ("quantile(0.5, go_goroutines)", Nearly),
    ("count_values(\"state\", up)", Exactly),
    ("rate(node_cpu_seconds_total[5s])", Nearly),
    ("irate(node_context_switches_total[5s])", Exactly),
    // Not of a counter near zero: since Debian's version, extrapolation towards zero was made later.
    ("increase(node_context_switches_total[6s])", Nearly),
    ("delta(go_goroutines[5s])", Nearly),
    ("deriv(process_resident_memory_bytes[6s])", Nearly),
    ("avg_over_time(node_load1[5s])", Nearly),
    ("max_over_time(go_goroutines[5s])", Exactly),
    ("count_over_time(up[5s])", Exactly),
    ("sum_over_time(up[4s:1s])", Exactly),
    ("changes(node_context_switches_total[5s])", Exactly),
    ("prometheus_tsdb_head_samples_appended_total offset 2s", Exactly),
    ("node_memory_MemTotal_bytes - node_memory_MemFree_bytes", Exactly),
    ("node_cpu_seconds_total / on (instance) group_left count by (instance) (up)", Exactly),
    ("process_open_fds / process_max_fds < bool 0.5", Exactly),
    ("up and on (instance) node_load1", Exactly),
    ("up unless on (instance) node_load1", Exactly),
    ("label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\")", Exactly),
    ("timestamp(up)", Exactly),
    ("absent(no_such_metric{job=\"node\"})", Exactly),
    ("clamp_max(go_goroutines, 5) ^ 2 % 7", Exactly),
    ("histogram_quantile(0.9, sum by (le) (prometheus_http_request_duration_seconds_bucket))", Nearly),
    ("scalar(sum(up)) * vector(3)", Exactly),
];

/// A range of all that was scraped and the last moment at which both servers hold everything.
struct Moment {
    start: i64,
    end: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_what_prometheus_answers() {
    answers_alike(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_what_prometheus_answers_when_sent_by_remote_write_2() {
    match prometheus::newest_remote_write() {
        Some(2) => answers_alike(2).await,
        Some(_) => println!("skipped, this Prometheus is too old to send remote write 2.0"),
        None => {}
    }
}

async fn answers_alike(version: u32) {
    let dir = tempfile::tempdir().unwrap();
    let Some((_exporter, target)) = prometheus::node_exporter(dir.path()).await else { return };
    let node = Setup::new(dir.path()).start().await;
    let write = RemoteWrite { url: format!("{}/api/v1/write", node.api.url), version };
    let Some(mut scraper) = prometheus::start(dir.path(), std::slice::from_ref(&target), Some(&write)).await else {
        return;
    };
    until("ten scrapes of both targets", Duration::from_secs(90), || async {
        let counts = node.api.instant("count_over_time(up[5m]) >= 10", now_ms()).await.ok()?;
        (counts.as_array()?.len() == 2).then_some(())
    })
    .await;
    scraper.program.terminate(Duration::from_secs(60)).await;
    let Some(reference) = prometheus::start(dir.path(), &[], None).await else { return };
    let moment = settle(&node.api).await;
    let mut wrong = Vec::new();
    for (query, equal) in QUERIES {
        let (ours, theirs) =
            (node.api.instant(query, moment.end).await, reference.api.instant(query, moment.end).await);
        compare(&format!("{query} at {}", moment.end), ours, theirs, equal, &mut wrong);
        let ours = node.api.range(query, moment.start, moment.end, 1000).await;
        let theirs = reference.api.range(query, moment.start, moment.end, 1000).await;
        compare(&format!("{query} from {} to {}", moment.start, moment.end), ours, theirs, equal, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    println!("{} queries, each at an instant and over a range, answered alike", QUERIES.len());
    node.stop().await;
}

/// The newest moment up to which Metrolith has every scrape. Prometheus writes `up` after all else of a scrape and sends
/// in order, so what is older than the newest `up` of both targets has arrived.
///
/// Sample times keep their milliseconds, and Debian's Prometheus includes the left end of a range where today's does
/// not: the moment is one at which no whole number of seconds leads back to a scrape.
async fn settle(api: &Api) -> Moment {
    let found = api.instant("timestamp(up)", now_ms()).await.unwrap();
    let newest: Vec<i64> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["value"][1].as_str().unwrap().parse::<f64>().unwrap() * 1000.0).round() as i64)
        .collect();
    let last = *newest.iter().min().unwrap();
    let off_beat = |t: &i64| newest.iter().all(|n| (t - n).rem_euclid(1000) > 20 && (n - t).rem_euclid(1000) > 20);
    let end = (last - 1000..last).rev().find(off_beat).unwrap();
    Moment { start: end - 6000, end }
}

fn compare(
    what: &str,
    ours: Result<Value, String>,
    theirs: Result<Value, String>,
    equal: Equal,
    wrong: &mut Vec<String>,
) {
    let theirs = theirs.unwrap_or_else(|e| panic!("Prometheus refused {what}: {e}"));
    let ours = match ours {
        Ok(ours) => ours,
        Err(error) => return wrong.push(format!("{what}: Metrolith refused: {error}")),
    };
    let (ours, theirs) = (flat(&ours), flat(&theirs));
    for (key, expected) in &theirs {
        match ours.get(key) {
            None => return wrong.push(format!("{what}: {key:?} is missing, Prometheus says {expected}")),
            Some(found) if !same(found, expected, equal) => {
                return wrong.push(format!("{what}: {key:?} is {found}, Prometheus says {expected}"));
            }
            Some(_) => {}
        }
    }
    if let Some((key, found)) = ours.iter().find(|(key, _)| !theirs.contains_key(*key)) {
        wrong.push(format!("{what}: {key:?} is {found}, Prometheus has none"));
    }
}

fn same(a: &str, b: &str, equal: Equal) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    a == b || (equal == Nearly && a.parse().ok().zip(b.parse().ok()).is_some_and(|(a, b)| near(a, b)))
}

/// Labels and time to value, whatever the type of the result.
fn flat(result: &Value) -> BTreeMap<(String, String), String> {
    let mut out = BTreeMap::new();
    for row in sorted(result) {
        let metric: BTreeMap<String, Value> = serde_json::from_value(row["metric"].clone()).unwrap_or_default();
        let labels = serde_json::to_string(&metric).unwrap();
        let values = row["values"].as_array().cloned().unwrap_or_else(|| vec![row["value"].clone()]);
        for point in values {
            out.insert((labels.clone(), point[0].to_string()), point[1].as_str().unwrap_or_default().to_owned());
        }
    }
    out
}

#[test]
fn the_comparison_notices_differences() {
    let row = |value: &str| serde_json::json!([{"metric": {"a": "b"}, "value": [1.5, value]}]);
    let count = |ours: Value, theirs: Value, equal| {
        let mut wrong = Vec::new();
        compare("q", Ok(ours), Ok(theirs), equal, &mut wrong);
        wrong.len()
    };
    assert_eq!(count(row("1"), row("1"), Exactly), 0);
    assert_eq!(count(row("NaN"), row("NaN"), Nearly), 0);
    assert_eq!(count(row("0.30000000000000004"), row("0.3"), Exactly), 1);
    assert_eq!(count(row("0.30000000000000004"), row("0.3"), Nearly), 0);
    assert_eq!(count(row("0.31"), row("0.3"), Nearly), 1);
    assert_eq!(count(Value::Array(vec![]), row("1"), Exactly), 1);
    assert_eq!(count(row("1"), Value::Array(vec![]), Exactly), 1);
}
