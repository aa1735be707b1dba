//! Crashes at each step from the upload to the note that a version was copied, and everything repeated afterwards.

use std::sync::atomic::{AtomicI64, Ordering};

use object_store::memory::InMemory;
use parking_lot::Mutex;

use super::*;
use crate::env::SystemClock;
use crate::meta::answer::Committed;
use crate::meta::cluster::Node;
use crate::meta::command::{Commit, Init};
use crate::meta::machine::Machine;
use crate::meta::rebuild;
use crate::meta::state::ClusterId;
use crate::model::{BlockName, Epoch, NodeId, ShardId, TimeRange};
use crate::raft::{ReplicaId, StateMachine};
use crate::store::catalog::{AddFile, BlockTags, FileStats, TableSchema};
use crate::store::faulty::{Fault, Faulty, Op};
use crate::store::layout::{self, DataFile};

const TENANTS: [&str; 2] = ["a", "b"];
const APP: &str = "shard-1-0";

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// What survives a crash: meta's log and the bucket.
#[derive(Clone, Default)]
struct Durable {
    log: Arc<Mutex<Vec<Bytes>>>,
    bucket: Arc<InMemory>,
}

/// One life of a node. Its `n`-th step (an operation on the bucket, or a proposal) is its last.
struct Life {
    durable: Durable,
    machine: Arc<Mutex<Machine>>,
    views: Views,
    bucket: Bucket,
    /// Steps left; the one that takes it to zero fails, as do all after it.
    steps: Arc<AtomicI64>,
    /// Whether the last step still happens.
    last_happens: bool,
}

fn next_step(steps: &AtomicI64, last_happens: bool) -> Fault {
    match steps.fetch_sub(1, Ordering::SeqCst) {
        2.. => Fault::None,
        1 if last_happens => Fault::LostAnswer,
        _ => Fault::Before,
    }
}

impl Life {
    fn begin(durable: &Durable, steps: i64, last_happens: bool) -> Self {
        let (mut machine, views) = Machine::new();
        for (i, entry) in durable.log.lock().iter().enumerate() {
            machine.apply(i as u64 + 1, entry);
        }
        let steps = Arc::new(AtomicI64::new(steps));
        let counted = steps.clone();
        let bucket = Faulty::over(durable.bucket.clone(), move |op, _| match (op, next_step(&counted, last_happens)) {
            (Op::Put | Op::Create, fault) => fault,
            (_, Fault::None) => Fault::None,
            _ => Fault::Before,
        });
        Self { durable: durable.clone(), machine: Arc::new(Mutex::new(machine)), views, bucket, steps, last_happens }
    }

    fn propose(&self) -> Propose {
        let (machine, log) = (self.machine.clone(), self.durable.log.clone());
        let (steps, last_happens) = (self.steps.clone(), self.last_happens);
        Arc::new(move |entry: Bytes| {
            let fault = next_step(&steps, last_happens);
            let mut answer = Err(Error::new(Kind::Unavailable, "dead"));
            if fault != Fault::Before {
                let mut log = log.lock();
                log.push(entry.clone());
                let applied = machine.lock().apply(log.len() as u64, &entry);
                if fault == Fault::None {
                    answer = Ok(applied);
                }
            }
            Box::pin(async move { answer })
        })
    }

    /// Upload, decide: as a shard's leader does it.
    async fn flush(&self, sequence: u64) -> Option<Committed> {
        let mut commit = Commit::new(APP.into(), sequence, 1000, 999, TableSchema { version: 1, json: "{}".into() });
        for name in TENANTS {
            let adds = [file(sequence)];
            self.bucket.put(&adds[0].file.key(&tenant(name)), Bytes::from(format!("{name} {sequence}"))).await.ok()?;
            commit.table(tenant(name), &adds, &[]);
        }
        let answer = (self.propose())(Command::Commit(commit).encode()).await.ok()?;
        match Answer::decode(&answer).unwrap() {
            Answer::Committed(committed) => Some(committed),
            other => panic!("{other:?}"),
        }
    }

    fn copier(&self) -> Copier {
        Copier {
            bucket: self.bucket.clone(),
            tables: Arc::new(Tables::new(self.bucket.clone(), store::Metrics::default())),
            views: self.views.clone(),
            propose: self.propose(),
            leads: Arc::new(|| true),
            waits: (Duration::from_millis(1), Duration::from_millis(2)),
            clock: Arc::new(SystemClock::new()),
            metrics: Metrics::default(),
            store_metrics: store::Metrics::default(),
        }
    }

    /// Upload, decide, copy, note; whether the node lived to see the end.
    async fn whole(&self, sequence: u64) -> bool {
        self.flush(sequence).await.is_some() && self.copier().round(&self.views.current()).await
    }
}

fn file(sequence: u64) -> AddFile {
    let block = BlockName::of_flush(Epoch(1), ShardId(0), 0, sequence);
    let range = TimeRange::new(0, 7_199_999);
    let tags = BlockTags { range, shard: None, epoch: None, window_start: 0, generation: 0, sequence, samples: 1 };
    AddFile {
        file: DataFile::new("raw", "samples", 0, block),
        size: 3,
        modified_ms: 5,
        stats: FileStats::default(),
        tags,
    }
}

fn init(durable: &Durable) {
    let init = Init {
        cluster: ClusterId(uuid::Uuid::from_u128(1)),
        node: Node {
            id: NodeId(1),
            name: "n".into(),
            zone: String::new(),
            meta_replica: Some(ReplicaId(7)),
            ..Node::default()
        },
        bucket: "memory://".into(),
        replication: 3,
        shards: 1,
        shard_replicas: (0..1).map(ReplicaId).collect(),
        epoch: Epoch(1),
        tables: Vec::new(),
    };
    durable.log.lock().push(Command::Init(init).encode());
}

/// The table of every tenant, from the bucket alone, holds exactly these flushes and nothing waits.
async fn check(durable: &Durable, flushes: &[u64], what: &str) {
    let life = Life::begin(durable, i64::MAX, true);
    let state = life.views.current();
    state.check_invariants();
    assert_eq!(state.backlog(), (0, 0), "{what}");
    for name in TENANTS {
        let table = Tables::new(life.bucket.clone(), store::Metrics::default()).latest(&tenant(name)).await.unwrap();
        let sequences: Vec<u64> = table.blocks().iter().map(|block| block.tags.sequence).collect();
        assert_eq!(sequences, flushes, "{what}: flushes in the table of {name}");
        assert_eq!(table.version(), Some(flushes.len() as u64 - 1), "{what}");
        assert_eq!(table.version(), state.tables[&tenant(name)].version, "{what}");
        for block in table.blocks() {
            let bytes = life.bucket.get(&block.files[0].key).await.unwrap();
            assert_eq!(bytes, format!("{name} {}", block.tags.sequence), "{what}");
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_step_neither_loses_nor_doubles_a_flush() {
    for last_happens in [false, true] {
        for steps in 1.. {
            let durable = Durable::default();
            init(&durable);
            assert!(Life::begin(&durable, i64::MAX, true).whole(1).await);
            let finished = Life::begin(&durable, steps, last_happens).whole(2).await;
            // The next leader repeats the flush from its beginning.
            assert!(Life::begin(&durable, i64::MAX, true).whole(2).await, "{steps} steps");
            check(&durable, &[1, 2], &format!("crash at step {steps}, which happened: {last_happens}")).await;
            if finished {
                assert!(steps > 8, "the loop must have seen every step");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_crash_in_every_life_still_ends_well() {
    let durable = Durable::default();
    init(&durable);
    // Each life gets one step further than it needs to repeat what the one before did.
    let mut done = false;
    for steps in 1..40 {
        done = Life::begin(&durable, steps, steps % 2 == 0).whole(1).await;
        if done {
            break;
        }
    }
    assert!(done);
    check(&durable, &[1], "after many crashes").await;
}

#[tokio::test]
async fn a_bucket_that_was_away_is_caught_up_in_order() {
    let durable = Durable::default();
    init(&durable);
    let life = Life::begin(&durable, i64::MAX, true);
    for sequence in 1..=60 {
        life.flush(sequence).await.unwrap();
    }
    let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let gone = away.clone();
    let mut copier = life.copier();
    copier.bucket =
        Faulty::over(
            durable.bucket.clone(),
            move |_, _| if gone.load(Ordering::SeqCst) { Fault::Before } else { Fault::None },
        );
    let (metrics, store_metrics) = (copier.metrics.clone(), copier.store_metrics.clone());
    let mut views = life.views.clone();
    let running = tokio::spawn(copier.run());
    while metrics.copy_failures.get() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((metrics.backlog_versions.get(), metrics.copied.get()), (120, 0));
    away.store(false, Ordering::SeqCst);
    while views.current().backlog().0 > 0 {
        views.changed().await.unwrap();
    }
    check(&durable, &(1..=60).collect::<Vec<_>>(), "after the outage").await;
    while store_metrics.checkpoints_written.get() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(metrics.copied.get(), 120);
    running.abort();
    let bucket = Bucket::over(durable.bucket.clone(), "memory://");
    assert!(bucket.get_if_exists(&layout::checkpoint(&tenant("a"), 50)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_table_someone_else_wrote_to_is_left_alone_and_the_others_go_on() {
    let durable = Durable::default();
    init(&durable);
    let life = Life::begin(&durable, i64::MAX, true);
    life.flush(1).await.unwrap();
    let foreign = layout::log_entry(&tenant("a"), 0);
    life.bucket.put(&foreign, Bytes::from_static(b"theirs")).await.unwrap();
    let copier = life.copier();
    assert!(!copier.round(&life.views.current()).await);
    assert_eq!(copier.metrics.conflicts.get(), 1);
    assert_eq!(life.bucket.get(&foreign).await.unwrap(), "theirs");
    let state = life.views.current();
    assert_eq!((state.tables[&tenant("a")].copied, state.tables[&tenant("b")].copied), (None, Some(0)));
}

#[tokio::test]
async fn the_bucket_alone_gives_the_cluster_back() {
    let durable = Durable::default();
    init(&durable);
    for sequence in 1..=3 {
        assert!(Life::begin(&durable, i64::MAX, true).whole(sequence).await);
    }
    let old = Life::begin(&durable, i64::MAX, true).views.current();
    let bucket = Bucket::over(durable.bucket.clone(), "memory://");
    let restored = rebuild::restore(&Tables::new(bucket, store::Metrics::default())).await.unwrap();
    assert_eq!(restored.epoch, Epoch(2), "no old transaction id can come again");
    assert_eq!(restored.tables.len(), 2);
    for table in &restored.tables {
        let known = &old.tables[&table.tenant];
        assert_eq!((Some(table.version), &table.table_id, table.schema_version), (known.version, &known.id, 1));
        assert_eq!(table.transactions, [(APP.to_owned(), 3)]);
    }
    let empty = Bucket::open("memory://").unwrap();
    let nothing = rebuild::restore(&Tables::new(empty, store::Metrics::default())).await.unwrap();
    assert_eq!((nothing.epoch, nothing.tables.len()), (Epoch(1), 0));
}
