//! One pass over all tables that removes orphaned files.
//!
//! *Invariants:* per table the listing comes first, then the view of meta, then the snapshot of at least that view's
//! version; see [`gc`].
//!
//! *Not here:* the rule (`store::gc`), when to run (the node).

use std::time::Duration;

use super::machine::Views;
use crate::model::TenantId;
use crate::store::catalog::Tables;
use crate::store::gc::{self, DecidedFlushes, Swept};
use crate::store::{Bucket, Error, Metrics};

/// Sweeps the tables of every known tenant; one that fails is reported and does not stop the others.
pub async fn sweep(
    bucket: &Bucket,
    tables: &Tables,
    views: &Views,
    metrics: &Metrics,
    now_ms: i64,
    grace: Duration,
) -> Swept {
    let mut total = Swept::default();
    let tenants: Vec<TenantId> = views.current().tables.keys().cloned().collect();
    for tenant in tenants {
        match sweep_table(bucket, tables, views, metrics, &tenant, now_ms, grace).await {
            Ok(swept) => {
                total.removed += swept.removed;
                total.waiting += swept.waiting;
                total.foreign += swept.foreign;
            }
            Err(e) => tracing::warn!(%tenant, error = %e, "orphaned files not removed, next pass tries again"),
        }
    }
    total
}

async fn sweep_table(
    bucket: &Bucket,
    tables: &Tables,
    views: &Views,
    metrics: &Metrics,
    tenant: &TenantId,
    now_ms: i64,
    grace: Duration,
) -> Result<Swept, Error> {
    let candidates = gc::candidates(bucket, tenant, now_ms, grace).await?;
    let state = views.current();
    let Some(table) = state.tables.get(tenant) else { return Ok(Swept::default()) };
    let snapshot = tables.at(tenant, table.version, |version| table.pending_at(version)).await?;
    // The shards of older epochs are gone for good: retired when nothing was left in them, or lost with their cluster.
    let first_epoch = state.epochs.first().map_or(state.shard_map.epoch, |map| map.epoch);
    let decided = DecidedFlushes { applications: &state.applications, first_epoch };
    gc::sweep(bucket, metrics, candidates, &snapshot, decided).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::path::Path;

    use super::*;
    use crate::env::{Clock, SystemClock};
    use crate::meta::cluster::Node;
    use crate::meta::command::{Command, Commit, Init};
    use crate::meta::machine::Machine;
    use crate::meta::state::ClusterId;
    use crate::model::{BlockName, Epoch, NodeId, ShardId, TimeRange};
    use crate::raft::{ReplicaId, StateMachine};
    use crate::store::catalog::{AddFile, BlockTags, FileStats, RemoveFile, TableSchema};
    use crate::store::gc::GRACE;
    use crate::store::layout::{self, DataFile, app_of};

    const DAY: i64 = 86_400_000;

    fn tenant() -> TenantId {
        TenantId::new("a").unwrap()
    }

    fn file(epoch: u64, sequence: u64, kind: &str) -> DataFile {
        DataFile::new("raw", kind, 0, BlockName::of_flush(Epoch(epoch), ShardId(0), 0, sequence))
    }

    fn add(file: DataFile, sequence: u64) -> AddFile {
        let range = TimeRange::new(0, 1);
        let tags = BlockTags { range, shard: None, epoch: None, window_start: 0, generation: 0, sequence, samples: 1 };
        AddFile { file, size: 1, modified_ms: 1, stats: FileStats::default(), tags }
    }

    struct Setup {
        machine: Machine,
        views: Views,
        bucket: Bucket,
        now: i64,
    }

    impl Setup {
        fn new() -> Self {
            let (mut machine, views) = Machine::new();
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
                epoch: Epoch(2),
                tables: Vec::new(),
            };
            machine.apply(1, &Command::Init(init).encode());
            Self { machine, views, bucket: Bucket::open("memory://").unwrap(), now: SystemClock::new().now_ms() }
        }

        fn commit(&mut self, app: &str, sequence: u64, adds: &[AddFile], removes: &[RemoveFile]) {
            let schema = TableSchema { version: 1, json: "{}".into() };
            let mut commit = Commit::new(app.into(), sequence, self.now, self.now, schema);
            commit.table(tenant(), adds, removes);
            self.machine.apply(self.views.current().applied + 1, &Command::Commit(commit).encode());
        }

        async fn upload(&self, file: &DataFile) {
            self.bucket.put(&file.key(&tenant()), Bytes::from_static(b"x")).await.unwrap();
        }

        async fn sweep(&self, now_ms: i64) -> Swept {
            let tables = Tables::new(self.bucket.clone(), Metrics::default());
            sweep(&self.bucket, &tables, &self.views, &Metrics::default(), now_ms, GRACE).await
        }

        async fn exists(&self, key: &Path) -> bool {
            self.bucket.get_if_exists(key).await.unwrap().is_some()
        }
    }

    #[tokio::test]
    async fn removes_orphans_after_the_grace_and_nothing_else() {
        let mut s = Setup::new();
        let app = app_of(Epoch(2), ShardId(0));
        let live = file(2, 1, "samples");
        let orphan = file(2, 1, "exemplars"); // of a first attempt that cut the block differently
        let undecided = file(2, 2, "samples"); // its flush will be repeated
        let dead_epoch = file(1, 9, "samples"); // of the cluster before
        let foreign = layout::table_file(&tenant(), "resolution=raw/notes.txt");
        for file in [&live, &orphan, &undecided, &dead_epoch] {
            s.upload(file).await;
        }
        s.bucket.put(&foreign, Bytes::from_static(b"x")).await.unwrap();
        s.commit(&app, 1, &[add(live.clone(), 1)], &[]);
        assert_eq!(s.sweep(s.now + DAY / 2).await, Swept { removed: 0, waiting: 0, foreign: 1 });
        assert_eq!(s.sweep(s.now + 2 * DAY).await, Swept { removed: 2, waiting: 1, foreign: 1 });
        for (key, expected) in [
            (live.key(&tenant()), true),
            (orphan.key(&tenant()), false),
            (undecided.key(&tenant()), true),
            (dead_epoch.key(&tenant()), false),
            (foreign, true),
        ] {
            assert_eq!(s.exists(&key).await, expected, "{key}");
        }
        s.commit(&app, 2, &[add(undecided.clone(), 2)], &[]);
        assert_eq!(s.sweep(s.now + 3 * DAY).await, Swept { removed: 0, waiting: 0, foreign: 1 });
    }

    #[tokio::test]
    async fn a_removed_file_stays_for_the_grace_so_that_running_queries_find_it() {
        let mut s = Setup::new();
        let old = file(2, 1, "samples");
        s.upload(&old).await;
        s.commit(&app_of(Epoch(2), ShardId(0)), 1, &[add(old.clone(), 1)], &[]);
        s.now += 10 * DAY;
        s.commit("compactor", 1, &[], &[RemoveFile { file: old.clone(), size: 1, data_change: false }]);
        assert_eq!(s.sweep(s.now + DAY / 2).await, Swept { removed: 0, waiting: 1, foreign: 0 });
        assert!(s.exists(&old.key(&tenant())).await);
        assert_eq!(s.sweep(s.now + 2 * DAY).await, Swept { removed: 1, waiting: 0, foreign: 0 });
    }

    #[tokio::test]
    async fn a_file_committed_between_listing_and_snapshot_is_live() {
        let mut s = Setup::new();
        let late = file(2, 1, "samples");
        s.upload(&late).await;
        s.commit(&app_of(Epoch(2), ShardId(0)), 0, &[], &[]);
        let candidates = gc::candidates(&s.bucket, &tenant(), s.now + 2 * DAY, GRACE).await.unwrap();
        s.commit(&app_of(Epoch(2), ShardId(0)), 1, &[add(late.clone(), 1)], &[]);
        let state = s.views.current();
        let table = state.tables[&tenant()].clone();
        let tables = Tables::new(s.bucket.clone(), Metrics::default());
        let snapshot = tables.at(&tenant(), table.version, |v| table.pending_at(v)).await.unwrap();
        let decided = DecidedFlushes { applications: &state.applications, first_epoch: Epoch(2) };
        let swept = gc::sweep(&s.bucket, &Metrics::default(), candidates, &snapshot, decided).await.unwrap();
        assert_eq!((swept.removed, s.exists(&late.key(&tenant())).await), (0, true));
    }
}
