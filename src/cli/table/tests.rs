//! The commands over a bucket with two tenants, written as a flush writes it.

use std::path::Path as FsPath;

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::block::{BlockWriter, SeriesInput, WriterOptions, order, schema};
use crate::model::labels::series_hash;
use crate::model::{BlockName, Columns, Epoch, Labels, ShardId, TimeRange};
use crate::store::catalog::actions::{TableSchema, commit_lines, table_lines};
use crate::store::catalog::{AddFile, BlockTags, FileStats, write_version};
use crate::store::layout::DataFile;

const START: i64 = 1_780_272_000_000;
const BLOCK: &str = "1-003-1780272000000-00000001";

/// Two metrics with five series in all, 40 samples each: one block for every tenant, under the same name.
async fn bucket(dir: &FsPath, tenants: &[&str]) -> String {
    let bucket = Bucket::open_dir(dir).unwrap();
    for tenant in tenants {
        write_table(&bucket, &TenantId::new(tenant).unwrap()).await;
    }
    bucket.url().to_owned()
}

async fn write_table(bucket: &Bucket, tenant: &TenantId) {
    let name = BlockName::of_flush(Epoch(1), ShardId(3), START, 1);
    let mut samples = Columns::default();
    for i in 0..40 {
        samples.push_float(START + i * 15_000, i as f64 / 4.0);
    }
    let mut series: Vec<Labels> =
        (0..3).map(|i| Labels::from_pairs([("__name__", "many"), ("n", &*i.to_string())])).collect();
    series.extend((0..2).map(|i| Labels::from_pairs([("__name__", "few"), ("job", &*i.to_string())])));
    series.sort_by(order::compare);
    let mut writer = BlockWriter::new(WriterOptions::flush(name.clone()).for_tenant(tenant)).unwrap();
    for labels in &series {
        let hash = series_hash(tenant.as_str(), labels.canonical());
        writer.push(SeriesInput { labels, hash, samples: &samples, exemplars: &[] }).unwrap();
    }
    let block = writer.finish().unwrap();
    let mut adds = Vec::new();
    for part in block.files {
        let file = DataFile::new("raw", part.kind.as_str(), START, name.clone());
        bucket.put(&file.key(tenant), part.bytes.clone()).await.unwrap();
        let stats = FileStats { rows: part.rows, ..FileStats::default() };
        let tags = BlockTags {
            range: TimeRange::new(block.min_ts, block.max_ts),
            shard: Some(ShardId(3)),
            epoch: Some(Epoch(1)),
            window_start: START,
            generation: 0,
            sequence: 1,
            samples: block.samples,
        };
        adds.push(AddFile { file, size: part.bytes.len() as u64, modified_ms: START, stats, tags });
    }
    let schema = TableSchema { version: 1, json: schema::delta_schema_json(&[]).into() };
    let metrics = store::Metrics::default();
    let lines = [table_lines("id", &schema, START, true), commit_lines("shard-1-3", 1, START, &adds, &[])];
    for (version, bytes) in (0..).zip(&lines) {
        write_version(bucket, &metrics, tenant, version, bytes).await.unwrap();
    }
}

async fn table(line: &[&str]) -> anyhow::Result<String> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    match Line::try_parse_from(std::iter::once(&"table").chain(line)).unwrap().args.command {
        Command::Ls(args) => ls::run(&args).await,
        Command::Inspect(args) => inspect::run(&args).await,
    }
}

async fn json(line: &[&str]) -> Value {
    serde_json::from_str(&table(&[line, &["--format", "json"]].concat()).await.unwrap()).unwrap()
}

async fn error(line: &[&str]) -> String {
    table(line).await.unwrap_err().to_string()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn ls_sums_up_every_table() {
    let dir = tempfile::tempdir().unwrap();
    let url = bucket(dir.path(), &["team-b", "team-a"]).await;
    let text = table(&["ls", "--bucket", &url]).await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("TENANT") && lines[1].starts_with("team-a") && lines[2].starts_with("team-b"),
        "{text}"
    );
    assert_eq!(words(lines[1])[1..6], ["1", "1", "3", "5", "200"], "{text}");
    assert!(lines[1].ends_with("2026-06-01 00:00:00  2026-06-01 00:09:45"), "{text}");

    let lines = json(&["ls", "--bucket", &url]).await;
    let one = &lines[0];
    assert_eq!((&one["tenant"], &one["samples"], &one["block_series"]), (&"team-a".into(), &200.into(), &5.into()));
    let on_disk: u64 = walk(dir.path()).filter(|(name, _)| name.ends_with(".parquet")).map(|(_, size)| size).sum();
    assert_eq!(one["bytes"].as_u64().unwrap() + lines[1]["bytes"].as_u64().unwrap(), on_disk);
}

fn walk(dir: &FsPath) -> Box<dyn Iterator<Item = (String, u64)>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    Box::new(entries.flat_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => walk(&entry.path()),
        false => {
            let name = entry.file_name().into_string().unwrap();
            Box::new(std::iter::once((name, entry.metadata().unwrap().len()))) as Box<dyn Iterator<Item = _>>
        }
    }))
}

#[tokio::test]
async fn ls_of_a_tenant_lists_its_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let url = bucket(dir.path(), &["team-a"]).await;
    let text = table(&["ls", "--bucket", &url, "--tenant", "team-a"]).await.unwrap();
    let line = words(text.lines().nth(1).unwrap());
    assert_eq!((line[0], line[1], &line[7..11]), (BLOCK, "2026-06-01", &["3", "0", "5", "200"][..]), "{text}");
    let lines = json(&["ls", "--bucket", &url, "--tenant", "team-a"]).await;
    assert_eq!(lines[0]["window_start_ms"], START);
}

#[tokio::test]
async fn inspect_accounts_for_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let url = bucket(dir.path(), &["team-a"]).await;
    let report = json(&["inspect", "--bucket", &url, BLOCK]).await;
    assert_eq!((&report["series"], &report["samples"]), (&5.into(), &200.into()));
    assert_eq!(report["metrics"], serde_json::json!([{"name": "many", "series": 3}, {"name": "few", "series": 2}]));
    let sum = |list: &Value| list.as_array().unwrap().iter().map(|e| e["bytes"].as_u64().unwrap()).sum::<u64>();
    let files = &report["files"];
    assert_eq!(sum(files), report["bytes"].as_u64().unwrap());
    let kinds: Vec<_> = files.as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["series", "timelines", "samples"]);
    for file in files.as_array().unwrap() {
        let bytes = file["bytes"].as_u64().unwrap();
        assert_eq!(sum(&file["columns"]) + file["footer_bytes"].as_u64().unwrap(), bytes, "{file}");
        assert!(sum(&file["columns"]) > 0 && file["rows"].as_u64().unwrap() > 0, "{file}");
    }
    let text = table(&["inspect", "--bucket", &url, "--tenant", "team-a", BLOCK]).await.unwrap();
    for part in [BLOCK, "series   5 of 2 metrics", "shard    3 of epoch 1", "\n  value_i ", "labels.key", "\nmany "] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_with_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let url = bucket(&dir.path().join("b"), &["team-a", "team-b"]).await;
    let missing = format!("file://{}/missing", dir.path().display());
    assert!(error(&["ls", "--bucket", &missing]).await.contains("there is no such directory"));
    assert!(!dir.path().join("missing").exists(), "a reader made a bucket");
    assert!(table(&["ls", "--bucket", "ftp://x"]).await.is_err());
    let empty = format!("file://{}", tempfile::tempdir_in(dir.path()).unwrap().keep().display());
    assert!(error(&["ls", "--bucket", &empty]).await.starts_with("no tables in bucket"));
    let said = error(&["ls", "--bucket", &url, "--tenant", "team-x"]).await;
    assert!(said.contains("no table of tenant \"team-x\"") && said.ends_with("there are team-a, team-b"), "{said}");
    let said = error(&["inspect", "--bucket", &url, "1-003-1780272000000-0000000"]).await;
    assert!(said.ends_with(&format!("near to it: {BLOCK}")), "{said}");
    let said = error(&["inspect", "--bucket", &url, BLOCK]).await;
    assert!(said.contains("tenants team-a, team-b: say whose with --tenant"), "{said}");
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let url = bucket(dir.path(), &["team-a"]).await;
    let report = json(&["inspect", "--bucket", &url, BLOCK]).await;
    let key = report["files"][2]["key"].as_str().unwrap();
    let size = report["files"][2]["bytes"].as_u64().unwrap() as usize;
    std::fs::write(dir.path().join(key), vec![7; size]).unwrap();
    let said = format!("{:#}", table(&["inspect", "--bucket", &url, BLOCK]).await.unwrap_err());
    assert!(said.contains("kind=samples") && said.contains(BLOCK), "{said}");
}
