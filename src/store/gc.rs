//! Removes data files that no table version names: left behind by flushes that died between upload and commit, by repeats
//! that cut a block differently, and by compactions.
//!
//! *Invariants:* a file is removed only if all of this holds: it is named as one of ours; its last modification (by the
//! bucket's clock) and, if it was removed from the table, that removal are older than the grace; the commit it belongs to
//! is decided, so that nobody will upload it again or commit it; and a snapshot of the table at least as new as that
//! decision does not name it. Listing comes first and the snapshot after, so a file committed meanwhile is seen.
//!
//! *Not here:* which flushes are decided (`meta` passes its view), when to run.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectMeta;

use super::bucket::Bucket;
use super::catalog::TableSnapshot;
use super::error::Error;
use super::layout::{self, DataFile, Origin};
use super::metrics::Metrics;
use crate::model::{Epoch, TenantId};

/// How long a file without an entry is safe. Twice the longest time a commit may come after its upload.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// What was found below one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Files that were removed.
    pub removed: u64,
    /// Files without an entry that are still safe.
    pub waiting: u64,
    /// Files that are not ours; never touched.
    pub foreign: u64,
}

/// Candidates of one table, found before its snapshot is taken.
pub struct Candidates {
    tenant: TenantId,
    objects: Vec<(ObjectMeta, DataFile, Origin)>,
    foreign: u64,
    now_ms: i64,
    grace: Duration,
}

/// Step one: every data file of `tenant` older than `grace` at `now_ms`.
pub async fn candidates(bucket: &Bucket, tenant: &TenantId, now_ms: i64, grace: Duration) -> Result<Candidates, Error> {
    let mut found = Candidates { tenant: tenant.clone(), objects: Vec::new(), foreign: 0, now_ms, grace };
    let mut listed = bucket.list(&layout::table(tenant), None);
    let log = layout::log(tenant);
    while let Some(object) = listed.try_next().await? {
        if object.location.prefix_matches(&log) {
            continue;
        }
        let file = layout::relative_to_table(tenant, &object.location).and_then(|relative| DataFile::parse(&relative));
        let Some((file, origin)) = file.and_then(|f| Origin::parse(tenant, &f.block).map(|origin| (f, origin))) else {
            found.foreign += 1;
            continue;
        };
        if older(object.last_modified.timestamp_millis(), now_ms, grace) {
            found.objects.push((object, file, origin));
        }
    }
    Ok(found)
}

/// What can be said about flushes and compactions that no snapshot shows.
pub struct DecidedFlushes<'a> {
    /// Last sequence decided per application.
    pub applications: &'a BTreeMap<String, u64>,
    /// Shards of epochs below this one will never flush again.
    pub first_epoch: Epoch,
}

/// Step two: removes the candidates that `snapshot` does not name. `decided` is of a view of meta taken after step one, and
/// `snapshot` is at least as new as that view.
pub async fn sweep(
    bucket: &Bucket,
    metrics: &Metrics,
    candidates: Candidates,
    snapshot: &TableSnapshot,
    decided: DecidedFlushes<'_>,
) -> Result<Swept, Error> {
    let Candidates { now_ms, grace, .. } = candidates;
    assert!(snapshot.tenant() == &candidates.tenant, "BUG: swept with another tenant's snapshot");
    let mut swept = Swept { foreign: candidates.foreign, ..Swept::default() };
    for (object, file, origin) in candidates.objects {
        let relative = file.relative();
        if snapshot.has_file(&relative) {
            continue;
        }
        // What is not decided yet may be repeated under the same names: its files may become live any moment.
        let is_decided = decided.applications.get(&origin.app).is_some_and(|last| origin.sequence <= *last);
        let is_over = origin.epoch.is_some_and(|epoch| epoch < decided.first_epoch);
        let is_safe = snapshot.removed_at(&relative).is_some_and(|removed| !older(removed, now_ms, grace));
        if is_safe || !(is_decided || is_over) {
            swept.waiting += 1;
            continue;
        }
        bucket.delete(&object.location).await?;
        metrics.orphans_removed.inc();
        swept.removed += 1;
        tracing::info!(key = %object.location, "removed a file that no table version names");
    }
    Ok(swept)
}

fn older(then_ms: i64, now_ms: i64, grace: Duration) -> bool {
    now_ms.saturating_sub(then_ms) > grace.as_millis() as i64
}
