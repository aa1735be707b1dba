//! History is an open table: DuckDB and deltalake read what PromQL reads, from a directory and from S3.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::http::Api;
use support::node::Setup;
use support::s3::S3;
use support::writer::{encode, send};
use support::{now_ms, python};

const METRIC: &str = "room_temperature_celsius";
const HOUR: i64 = 3_600_000;

/// Two rooms, three full hours, every 15 s with a jitter; values with one decimal, and a third room that counts.
async fn write_history(api: &Api, first_hour: i64) {
    let hours = 3;
    for chunk in 0..hours * 4 {
        let times: Vec<i64> =
            (0..60).map(|i| first_hour + 1 + chunk * 900_000 + i * 15_000 + (i * 7919) % 97).collect();
        let room = |room: &str, value: &dyn Fn(i64) -> f64| {
            let labels = vec![("__name__", METRIC.to_owned()), ("job", "rooms".to_owned()), ("room", room.to_owned())];
            (labels, times.iter().map(|t| (*t, value(*t))).collect::<Vec<_>>())
        };
        let rows = [
            room("attic", &|t| (180 + (t / 60_000) % 90) as f64 / 10.0),
            room("cellar", &|t| ((t as f64) / 1e7).sin() * 5.0 + 12.0),
            room("hall", &|t| (t / 15_000 % 1000) as f64),
        ];
        let (status, text) = send(api, encode(&rows)).await.unwrap();
        assert_eq!(status, 204, "{text}");
    }
}

/// avg(value) per hour as PromQL has it: all samples of all series of the hour that ends at the step.
async fn by_promql(api: &Api, first_hour: i64) -> BTreeMap<String, f64> {
    let query = format!("sum(sum_over_time({METRIC}[1h])) / sum(count_over_time({METRIC}[1h]))");
    let found = api.range(&query, first_hour + HOUR, first_hour + 3 * HOUR, HOUR).await.unwrap();
    let values = found[0]["values"].as_array().unwrap_or_else(|| panic!("no answer: {found}"));
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    values.iter().map(|p| (p[0].to_string(), number(&p[1]))).collect()
}

fn assert_equal(who: &str, found: &Value, expected: &BTreeMap<String, f64>) {
    let found: BTreeMap<String, f64> = serde_json::from_value(found.clone()).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "hours of {who}");
    for (hour, avg) in expected {
        // The order of additions differs between readers, nothing else may.
        let difference = (found[hour] - avg).abs() / avg.abs();
        assert!(difference < 1e-12, "{who} says {} for {hour}, PromQL {avg}", found[hour]);
    }
}

async fn readers_agree(setup: Setup, table: &str, env: &[(&str, &str)]) {
    let Some(python) = python::find() else { return };
    let first_hour = (now_ms() / HOUR - 4) * HOUR;
    let node = setup.start().await;
    write_history(&node.api, first_hour).await;
    let before = by_promql(&node.api, first_hour).await;
    assert_eq!(before.len(), 3, "{before:?}");
    node.api.flush().await;
    let seen = python::run(&python, "sql/hourly.py", &[table, METRIC], env);
    assert_equal("DuckDB", &seen["duckdb"], &before);
    assert_equal("deltalake", &seen["deltalake"], &before);
    let after = by_promql(&node.api, first_hour).await;
    assert_eq!(after, before, "PromQL over blocks and over heads");
    assert!(node.api.compact().await > 1, "several windows of several shards are one day, or two");
    let seen = python::run(&python, "sql/hourly.py", &[table, METRIC], env);
    assert_equal("DuckDB, compacted,", &seen["duckdb"], &before);
    assert_equal("deltalake, compacted,", &seen["deltalake"], &before);
    assert_eq!(by_promql(&node.api, first_hour).await, before, "PromQL over what was compacted");
    assert_eq!(node.api.compact().await, 0, "nothing is left to compact");
    // And from the bucket alone, by a process that never saw the samples come.
    node.stop().await;
    let node = setup.start().await;
    assert_eq!(by_promql(&node.api, first_hour).await, before, "PromQL after a restart");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_and_deltalake_read_a_directory_as_promql_does() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).flag("limits-out-of-order-time-window", "6h");
    let table = dir.path().join("data/bucket/tables/anonymous");
    readers_agree(setup, table.to_str().unwrap(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_and_deltalake_read_an_s3_bucket_as_promql_does() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = S3::start(&dir.path().join("s3")).await;
    let bucket = format!("s3://{}/history", s3.bucket);
    let mut setup = Setup::new(dir.path()).flag("limits-out-of-order-time-window", "6h").flag("bucket", &bucket);
    let env = s3.env();
    for (name, value) in &env {
        setup = setup.env(name, value);
    }
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    readers_agree(setup, &format!("{bucket}/tables/anonymous"), &env).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_conditional_creations_the_test_server_lets_one_win() {
    use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
    let dir = tempfile::tempdir().unwrap();
    let s3 = S3::start(&dir.path().join("s3")).await;
    let env = s3.env();
    let builder =
        env.iter().fold(object_store::aws::AmazonS3Builder::new().with_bucket_name(s3.bucket), |b, (k, v)| {
            b.with_config(k.to_ascii_lowercase().parse().unwrap(), v)
        });
    let store = std::sync::Arc::new(builder.build().unwrap());
    let path = Path::from("a/race");
    let racers = (0..32u8).map(|i| {
        let (store, path) = (store.clone(), path.clone());
        tokio::spawn(async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            store.put_opts(&path, vec![i].into(), options).await.is_ok()
        })
    });
    let mut winners = 0;
    for racer in racers.collect::<Vec<_>>() {
        winners += usize::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap().len(), 1);
}
