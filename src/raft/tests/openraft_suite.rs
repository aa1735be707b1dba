//! openraft's own tests of a log and state machine, on ours.

use std::sync::atomic::{AtomicU64, Ordering};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::*;
use crate::raft::log::{Log, Shared};
use crate::raft::machine::Machine;
use crate::raft::snapshot::Snapshots;
use crate::raft::store::LogStore;
use crate::raft::types::TypeConfig;
use crate::raft::writer::WriterOptions;

struct Builder {
    disk: SimDisk,
    next: AtomicU64,
}

impl StoreBuilder<TypeConfig, LogStore, Machine> for Builder {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let shared = Shared::new(clock(), metrics());
        // So small that every test rotates segments and reads entries back from them.
        let writer = WriterOptions { segment_bytes: 512, cache_bytes: 100, recycle: true };
        let log = Log::open(disk.clone(), format!("/{n}/log").into(), writer, shared.clone()).unwrap();
        let group = log.create_group(G, 0).await.unwrap();
        let snapshots = Snapshots::new(disk, format!("/{n}/snapshots").into(), G);
        let machine = Machine::new(Box::new(Journal::default()), group.clone(), shared, snapshots, None);
        Ok(((), LogStore { log, group }, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_openrafts_own_storage_suite() {
    let builder = Builder { disk: SimDisk::new(1), next: AtomicU64::new(0) };
    Suite::test_all(builder).await.unwrap();
}
