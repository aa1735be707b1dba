//! The log under a group of one: `raft_log/<operation>/<payload or groups>`.
//!
//! `append` proposes entries of 64 KiB from 1 or 16 writers and waits for the fsync and the apply; `read_index` is a
//! linearizable read barrier; `start` replays a log. CPU per entry and idle CPU are printed beside the times.

#![allow(clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrolith::env::{Clock, SystemClock, SystemDisk, SystemRng};
use metrolith::model::ids::NodeId;
use metrolith::raft::{Bootstrap, Group, GroupId, Host, HostOptions, Metrics, SnapshotWriter, StateMachine};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;

/// Counts what it is given.
#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _index: u64, entry: &Bytes) -> Bytes {
        self.0 += entry.len() as u64;
        Bytes::new()
    }

    fn snapshot(&mut self) -> io::Result<SnapshotWriter> {
        let count = self.0;
        Ok(Box::new(move |out| out.write_all(&count.to_le_bytes())))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut count = [0; 8];
        from.read_exact(&mut count)?;
        self.0 = u64::from_le_bytes(count);
        Ok(())
    }
}

async fn open(dir: &std::path::Path, groups: u64) -> (Host, Vec<Group>) {
    let metrics = Metrics::register(&mut Registry::default());
    let options = HostOptions::new(dir, NodeId(1));
    let (disk, clock, rng) = (Arc::new(SystemDisk), Arc::new(SystemClock::new()), Arc::new(SystemRng));
    let host = Host::open(options, disk, clock, rng, metrics).await.unwrap();
    let mut started = Vec::new();
    for id in 0..groups {
        started
            .push(host.start_group(GroupId(id), Box::new(Counter::default()), Bootstrap::SingleVoter).await.unwrap());
    }
    (host, started)
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn propose_all(runtime: &Runtime, group: &Group, writers: u64, entries: u64, payload: &Bytes) {
    runtime.block_on(async {
        let writers = (0..writers).map(|w| {
            let (group, payload) = (group.clone(), payload.clone());
            let share = entries / writers + u64::from(w < entries % writers);
            tokio::spawn(async move {
                for _ in 0..share {
                    group.propose(payload.clone()).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

fn append(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let payload = Bytes::from((0..64 << 10).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>());
    let mut bench = c.benchmark_group("raft_log/append");
    bench.throughput(Throughput::Bytes(payload.len() as u64)).sample_size(20);
    for writers in [1, 16] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (host, groups) = runtime.block_on(open(dir.path(), 1));
        let (before, mut entries) = (cpu(), 0);
        bench.bench_function(BenchmarkId::new("64KiB", format!("{writers}w")), |b| {
            b.iter_custom(|n| {
                let clock = SystemClock::new();
                propose_all(&runtime, &groups[0], writers, n, &payload);
                entries += n;
                clock.monotonic()
            });
        });
        if entries > 0 {
            println!("{writers} writers: {} entries, {:?} CPU each", entries, (cpu() - before) / entries as u32);
        }
        runtime.block_on(host.shutdown());
    }
    bench.finish();
}

fn read_index(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (host, groups) = runtime.block_on(open(dir.path(), 1));
    c.bench_function("raft_log/read_index/1", |b| {
        b.iter(|| runtime.block_on(groups[0].read_index()).unwrap());
    });
    runtime.block_on(host.shutdown());
}

fn start(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (host, groups) = runtime.block_on(open(dir.path(), 13));
    let payload = Bytes::from(vec![7; 64 << 10]);
    for group in &groups {
        propose_all(&runtime, group, 4, 100, &payload);
    }
    let before = cpu();
    std::thread::sleep(Duration::from_secs(3));
    println!("13 idle groups: {:?} CPU in 3 s", cpu() - before);
    runtime.block_on(host.shutdown());
    let mut bench = c.benchmark_group("raft_log/start");
    bench.sample_size(10).measurement_time(Duration::from_secs(5));
    bench.bench_function("13x100x64KiB", |b| {
        b.iter(|| {
            let (host, groups) = runtime.block_on(open(dir.path(), 13));
            assert!(groups.iter().all(|g| g.applied_index() >= 100));
            runtime.block_on(host.shutdown());
        });
    });
    bench.finish();
}

criterion_group!(benches, append, read_index, start);
criterion_main!(benches);
