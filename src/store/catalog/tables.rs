//! The newest known snapshot of every table, brought up to date version by version.
//!
//! *Invariants:* [`Tables::at`] never answers an older version than asked for. A refresh reads each version once, from the
//! commits still on their way if the caller has them, else from the bucket; concurrent callers share it.
//!
//! *Not here:* which version is the newest (`meta::state`; a reader without a cluster lists the bucket).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::actions::Line;
use super::checkpoint;
use super::log;
use super::snapshot::TableSnapshot;
use crate::model::TenantId;
use crate::store::bucket::Bucket;
use crate::store::error::Error;
use crate::store::layout::{self, LogFile};
use crate::store::metrics::Metrics;

/// Log entries fetched at a time.
const FETCHES: usize = 16;

/// The tables of a bucket, as far as they were asked for.
pub struct Tables {
    bucket: Bucket,
    metrics: Metrics,
    slots: Mutex<HashMap<TenantId, Arc<Slot>>>,
}

/// One table: the snapshot, and who may bring it up to date.
#[derive(Default)]
struct Slot {
    current: arc_swap::ArcSwapOption<TableSnapshot>,
    refresh: tokio::sync::Mutex<()>,
}

impl Tables {
    /// The tables of `bucket`; nothing is read yet.
    pub fn new(bucket: Bucket, metrics: Metrics) -> Self {
        Self { bucket, metrics, slots: Mutex::default() }
    }

    /// `tenant`'s table at `version` or newer. `pending` gives the bytes of versions that may not be in the bucket yet.
    /// No version means that nothing was ever committed: the empty table.
    pub async fn at(
        &self,
        tenant: &TenantId,
        version: Option<u64>,
        pending: impl Fn(u64) -> Option<Bytes> + Send + Sync,
    ) -> Result<Arc<TableSnapshot>, Error> {
        let slot = self.slot(tenant);
        let Some(version) = version else {
            return Ok(slot.current.load_full().unwrap_or_else(|| Arc::new(TableSnapshot::empty(tenant))));
        };
        let current = || slot.current.load_full().filter(|snapshot| snapshot.version() >= Some(version));
        if let Some(snapshot) = current() {
            return Ok(snapshot);
        }
        let _only_one = slot.refresh.lock().await;
        if let Some(snapshot) = current() {
            return Ok(snapshot);
        }
        let base = match slot.current.load_full() {
            Some(snapshot) => (*snapshot).clone(),
            None => self.base(tenant, version).await?,
        };
        let snapshot = Arc::new(self.advance(base, version, &pending).await?);
        slot.current.store(Some(snapshot.clone()));
        Ok(snapshot)
    }

    /// `tenant`'s table at the newest version in the bucket; for readers that know no cluster.
    pub async fn latest(&self, tenant: &TenantId) -> Result<Arc<TableSnapshot>, Error> {
        let version = newest_version(&self.bucket, tenant).await?;
        self.at(tenant, version, |_| None).await
    }

    /// `tenant`'s table at exactly `version`, from the bucket alone; not kept.
    pub async fn exactly(&self, tenant: &TenantId, version: u64) -> Result<Arc<TableSnapshot>, Error> {
        if let Some(snapshot) = self.slot(tenant).current.load_full().filter(|s| s.version() == Some(version)) {
            return Ok(snapshot);
        }
        let base = self.base(tenant, version).await?;
        Ok(Arc::new(self.advance(base, version, &|_| None).await?))
    }

    /// Every tenant with a table in the bucket, sorted; directories whose names are no tenants are reported and skipped.
    pub async fn tenants(&self) -> Result<Vec<TenantId>, Error> {
        let mut tenants = Vec::new();
        for directory in self.bucket.list_directories(&layout::tables()).await? {
            let encoded = directory.filename().unwrap_or_default();
            let name = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy();
            match TenantId::new(&name) {
                Ok(tenant) if layout::table(&tenant) == directory => tenants.push(tenant),
                _ => tracing::warn!(%directory, "not a tenant's table, skipped"),
            }
        }
        tenants.sort();
        Ok(tenants)
    }

    fn slot(&self, tenant: &TenantId) -> Arc<Slot> {
        self.slots.lock().entry(tenant.clone()).or_default().clone()
    }

    /// The newest checkpoint not newer than needed, or the empty table.
    async fn base(&self, tenant: &TenantId, version: u64) -> Result<TableSnapshot, Error> {
        match checkpoint::read_last(&self.bucket, tenant).await {
            Ok(Some(snapshot)) if snapshot.version() <= Some(version) => Ok(snapshot),
            Ok(_) => Ok(TableSnapshot::empty(tenant)),
            Err(e @ Error::Corrupt { .. }) => {
                // Checkpoints only save work: the entries below hold everything.
                tracing::warn!(%tenant, error = %e, "checkpoint ignored, reading the whole log");
                Ok(TableSnapshot::empty(tenant))
            }
            Err(e) => Err(e),
        }
    }

    async fn advance(
        &self,
        mut snapshot: TableSnapshot,
        to: u64,
        pending: &(impl Fn(u64) -> Option<Bytes> + Send + Sync),
    ) -> Result<TableSnapshot, Error> {
        let tenant = snapshot.tenant().clone();
        let first = snapshot.version().map_or(0, |v| v + 1);
        let read = |version: u64| {
            let tenant = &tenant;
            async move { self.lines(tenant, version, pending(version)).await.map(|lines| (version, lines)) }
        };
        let mut versions = stream::iter(first..=to).map(read).buffered(FETCHES);
        while let Some((version, lines)) = versions.try_next().await? {
            snapshot.apply(version, lines).map_err(|e| Error::corrupt(layout::log_entry(&tenant, version), e))?;
        }
        drop(versions);
        snapshot.index();
        Ok(snapshot)
    }

    async fn lines(&self, tenant: &TenantId, version: u64, pending: Option<Bytes>) -> Result<Vec<Line>, Error> {
        if let Some(bytes) = pending {
            return log::parse(&layout::log_entry(tenant, version), &bytes);
        }
        self.metrics.versions_read.inc();
        let lines = log::read_version(&self.bucket, tenant, version).await?;
        lines.ok_or_else(|| Error::NoVersion { tenant: tenant.clone(), version })
    }
}

/// The newest version whose entry is in the bucket, `None` if there is no table.
pub async fn newest_version(bucket: &Bucket, tenant: &TenantId) -> Result<Option<u64>, Error> {
    let hint = match checkpoint::last_version(bucket, tenant).await {
        Err(Error::Corrupt { .. }) => None, // only a hint: list everything
        hint => hint?,
    };
    let offset = hint.map(|version| layout::log_entry(tenant, version));
    let mut newest = hint;
    let mut listed = bucket.list(&layout::log(tenant), offset.as_ref());
    while let Some(object) = listed.try_next().await? {
        let name = object.location.filename().unwrap_or_default();
        if let Some(LogFile::Entry(version)) = layout::parse_log_name(name) {
            newest = newest.max(Some(version));
        }
    }
    Ok(newest)
}
