//! Several real nodes: what one of them acknowledged, all of them answer, whoever dies.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use metrolith::env::{Clock, SystemClock};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::cluster::Cluster;
use support::http::Api;
use support::now_ms;
use support::writer::Ledger;

const METRIC: &str = "cluster_test";
/// Writers at the same time, each with its own series.
const WRITERS: usize = 4;
/// Series of one writer, all in one request.
const SERIES: usize = 25;
/// Milliseconds between a writer's requests, in timestamps.
const STEP_MS: i64 = 100;
/// Few shards, so that a debug build moves them quickly.
const SHARDS: &[(&str, &str)] = &[("shards", "4")];

/// Writers that send to every node in turn until they are told to end.
struct Load {
    end: Arc<AtomicBool>,
    /// Longest time without an acknowledgement, milliseconds.
    longest_gap: Arc<AtomicU64>,
    next: Arc<AtomicI64>,
    writers: Vec<tokio::task::JoinHandle<Ledger>>,
}

impl Load {
    fn start(apis: &[Api], base: i64) -> Self {
        let (end, longest_gap) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let next = Arc::new(AtomicI64::new(base));
        let last = Arc::new((SystemClock::new(), AtomicU64::new(0)));
        let start = |writer: usize| {
            let (apis, end, next) = (apis.to_vec(), Arc::clone(&end), Arc::clone(&next));
            let (gap, last) = (Arc::clone(&longest_gap), Arc::clone(&last));
            tokio::spawn(async move {
                let mut ledger = Ledger::default();
                let series = writer * SERIES..(writer + 1) * SERIES;
                let mut turn = writer;
                while !end.load(Ordering::SeqCst) {
                    let t = next.fetch_add(STEP_MS, Ordering::SeqCst);
                    let before = ledger.acknowledged();
                    turn += 1;
                    ledger.write(&apis[turn % apis.len()], METRIC, series.clone(), t).await;
                    if ledger.acknowledged() > before {
                        let now = last.0.monotonic().as_millis() as u64;
                        let then = last.1.swap(now, Ordering::SeqCst);
                        gap.fetch_max(now.saturating_sub(then), Ordering::SeqCst);
                    } else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                ledger
            })
        };
        let writers = (0..WRITERS).map(start).collect();
        Self { end, longest_gap, next, writers }
    }

    /// Ends the writers; what they sent, and up to when.
    async fn end(self) -> (Ledger, i64) {
        self.end.store(true, Ordering::SeqCst);
        let mut all = Ledger::default();
        for writer in self.writers {
            all.merge(writer.await.unwrap());
        }
        println!("{} acknowledged, longest gap {} ms", all.acknowledged(), self.longest_gap.load(Ordering::SeqCst));
        (all, self.next.load(Ordering::SeqCst))
    }
}

/// Every running node holds all of it, and all of them the same.
async fn check(cluster: &Cluster, ledger: &Ledger, base: i64, to: i64) {
    let apis = cluster.apis();
    let query = format!("{METRIC}[{}ms]", to - base + 1);
    let mut first: Option<String> = None;
    for n in cluster.running() {
        let found = apis[n].instant(&query, to).await.unwrap();
        ledger.compare(&found).unwrap_or_else(|wrong| panic!("node {n}: {wrong}"));
        let text = found.to_string();
        match &first {
            None => first = Some(text),
            Some(first) => assert!(*first == text, "node {n} answers something else than the first"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_by_one_node_is_answered_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 3, SHARDS).await;
    let base = now_ms() - 60_000;
    let apis = cluster.apis();
    for round in 0..30 {
        let mut ledger = Ledger::default();
        let t = base + round * STEP_MS;
        let (writer, reader) = (&apis[round as usize % 3], &apis[(round as usize + 1) % 3]);
        assert!(ledger.write(writer, METRIC, 0..100, t).await);
        assert_eq!(ledger.acknowledged(), 100);
        // A read that begins after the acknowledgement sees it, on another node too.
        ledger.check(reader, METRIC, t, t).await.unwrap();
    }
    cluster.stop_all().await;
}

/// How often a node merged what others had aggregated.
async fn merged(api: &Api) -> u64 {
    let (_, text) = api.get("/metrics").await.unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("metrolith_query_distributed_total{outcome=\"Merged\"} "));
    line.map_or(0, |n| n.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_have_a_part_of_the_shards_aggregate_for_each_other_and_answer_alike() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [("shards", "4"), ("replication", "1"), ("query-features", "promql-per-step-stats")];
    let cluster = Cluster::start(dir.path(), 3, &flags).await;
    let (base, apis) = (now_ms() - 40 * 60 * 1000, cluster.apis());
    let mut ledger = Ledger::default();
    for round in 0..40 {
        if round == 20 {
            // From here on it is a block of several shards, blocks of one each, and heads.
            for api in &apis {
                api.flush().await;
            }
            assert!(apis[0].compact().await > 0);
        }
        if round == 30 {
            apis[1].flush().await;
        }
        assert!(ledger.write(&apis[round as usize % 3], METRIC, 0..200, base + round * 15_000).await);
    }
    let range = format!("start={}&end={}&step=30", base / 1000, base / 1000 + 600);
    for query in [
        format!("sum({METRIC} / 7)"),
        format!("avg by (series) (rate({METRIC}[2m]))"),
        format!("avg(sqrt({METRIC}))"),
        format!("topk(3, sum without (x) ({METRIC} / 3))"),
        format!("sum(rate({METRIC}[1m])) / count(rate({METRIC}[1m]))"),
    ] {
        let path = format!("/api/v1/query_range?query={query}&{range}");
        // Where samples are counted everything is evaluated by the node that was asked.
        let (status, whole) = apis[0].get(&format!("{path}&stats=all")).await.unwrap();
        let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(status, 200, "{whole}");
        assert!(!whole["data"]["result"].as_array().unwrap().is_empty(), "{whole}");
        for (n, api) in apis.iter().enumerate() {
            let before = merged(api).await;
            let (_, found) = api.get(&path).await.unwrap();
            let found: serde_json::Value = serde_json::from_str(&found).unwrap();
            for field in ["result", "infos", "warnings"] {
                assert_eq!(found["data"][field], whole["data"][field], "node {n}: {query}: {field}");
                assert_eq!(found[field], whole[field], "node {n}: {query}: {field}");
            }
            assert!(merged(api).await > before, "node {n}: {query}");
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_nodes_are_killed_one_after_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3, SHARDS).await;
    let base = now_ms() - 40 * 60 * 1000;
    let load = Load::start(&cluster.apis(), base);
    let mut rng = StdRng::seed_from_u64(3);
    for kill in 0..4 {
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..1500))).await;
        let victim = kill % 3;
        cluster.kill9(victim);
        tokio::time::sleep(Duration::from_millis(rng.random_range(1500..3000))).await;
        let told = cluster.status().await.unwrap();
        let silent = told["nodes"].as_array().unwrap().iter().filter(|node| node["answers"] == false).count();
        assert_eq!(silent, 1, "{}", told["nodes"]);
        cluster.start_again(victim).await;
    }
    let (ledger, to) = load.end().await;
    assert!(ledger.acknowledged() > 0);
    check(&cluster, &ledger, base, to).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 3, SHARDS).await;
    let mut base = now_ms() - 50 * 60 * 1000;
    for _ in 0..2 {
        let load = Load::start(&cluster.apis(), base);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let all = cluster.running();
        all.iter().for_each(|n| cluster.kill9(*n));
        let (ledger, to) = load.end().await;
        assert!(ledger.acknowledged() > 0);
        cluster.start_all_again(&all).await;
        check(&cluster, &ledger, base, to).await;
        base = to + 1;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_shards_takes_over_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [("shards", "3"), ("flush-check-interval", "500ms")];
    let cluster = Cluster::start(dir.path(), 3, &flags).await;
    let base = now_ms() - 40 * 60 * 1000;
    let apis = cluster.apis();
    let load = Load::start(&apis, base);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (status, said) = apis[1].post("/api/v1/admin/cluster/reshard?shards=5", &[], Vec::new()).await.unwrap();
    assert_eq!(status, 204, "{said}");
    // The old shards take nothing anymore, bring what they hold into the table, and are forgotten.
    support::until("the old epoch to retire", Duration::from_secs(120), || async {
        let status = cluster.status().await?;
        (status["epochs"].as_array()?.len() == 1 && status["shards"] == 5).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (ledger, to) = load.end().await;
    check(&cluster, &ledger, base, to).await;
    cluster.stop_all().await;
}

/// Waits until nothing ticks on any running node.
async fn all_silent(cluster: &Cluster, groups: u64) {
    let apis = cluster.apis();
    let want = format!("metrolith_raft_quiet_groups {groups}\n");
    for n in cluster.running() {
        support::until("groups to fall silent", Duration::from_secs(60), || async {
            let (_, text) = apis[n].get("/metrics").await.ok()?;
            text.contains(&want).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_fell_silent_take_writes_again_also_when_their_leader_has_died() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [("shards", "4"), ("raft-quiesce-after", "1s")];
    let mut cluster = Cluster::start(dir.path(), 3, &flags).await;
    let apis = cluster.apis();
    let base = now_ms() - 60_000;
    let mut ledger = Ledger::default();
    all_silent(&cluster, 4).await;
    ledger.write(&apis[1], METRIC, 0..100, base).await;
    assert_eq!(ledger.acknowledged(), 100, "silent groups take a write at once");
    ledger.check(&apis[2], METRIC, base, base).await.unwrap();
    all_silent(&cluster, 4).await;
    // Leads are spread, so this one leads something; nobody hears it go.
    cluster.kill9(2);
    ledger.write(&apis[0], METRIC, 0..100, base + STEP_MS).await;
    assert_eq!(ledger.acknowledged(), 200, "the others have found another leader");
    check(&cluster, &ledger, base, base + STEP_MS).await;
    cluster.start_again(2).await;
    check(&cluster, &ledger, base, base + STEP_MS).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_and_shrinks_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 1, SHARDS).await;
    let base = now_ms() - 50 * 60 * 1000;
    // Writers keep to the first three nodes: it is others that leave.
    let first = cluster.apis();
    let load = Load::start(&first, base);
    for _ in 0..4 {
        cluster.add().await;
    }
    cluster.at_rest().await;
    for leaves in [4, 3, 2, 1] {
        let (status, said) =
            first[0].post(&format!("/api/v1/admin/cluster/drain?node=n{leaves}"), &[], Vec::new()).await.unwrap();
        assert_eq!(status, 204, "{said}");
        let remove = format!("/api/v1/admin/cluster/remove?node=n{leaves}");
        support::until("a drained node to be empty", Duration::from_secs(120), || async {
            let (status, _) = first[0].post(&remove, &[], Vec::new()).await.ok()?;
            (status == 204).then_some(())
        })
        .await;
        cluster.stop(leaves).await;
    }
    let (ledger, to) = load.end().await;
    check(&cluster, &ledger, base, to).await;
    cluster.stop_all().await;
}
