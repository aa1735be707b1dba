//! A cluster from a bucket alone: finds the tables and where they stand.
//!
//! *Invariants:* the new cluster's epoch is above every epoch that ever flushed into the bucket, so its transaction ids
//! cannot be mistaken for repeats of old ones.
//!
//! *Not here:* samples that were only in the lost cluster's logs.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::command::RestoredTable;
use crate::model::{Epoch, TenantId};
use crate::store::catalog::{TableSnapshot, Tables};
use crate::store::{Error, layout};

/// Tables read at a time.
const TABLES_IN_FLIGHT: usize = 8;

/// What a bucket holds, for [`super::Init`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The first epoch free to use: 1 for an empty bucket.
    pub epoch: Epoch,
    /// Every table, by tenant.
    pub tables: Vec<RestoredTable>,
}

/// Reads the newest version of every table in the bucket. Any node that makes a new cluster over a bucket calls this first.
pub async fn restore(tables: &Tables) -> Result<Restored, Error> {
    let tenants = tables.tenants().await?;
    let read = |tenant: TenantId| async move { tables.latest(&tenant).await };
    let snapshots: Vec<Arc<TableSnapshot>> =
        stream::iter(tenants).map(read).buffered(TABLES_IN_FLIGHT).try_collect().await?;
    let tables: Vec<RestoredTable> = snapshots.iter().filter_map(|snapshot| restored(snapshot)).collect();
    let apps = tables.iter().flat_map(|table| &table.transactions);
    let newest = apps.filter_map(|(app, _)| layout::parse_app(app)).map(|(epoch, _)| epoch.0).max();
    Ok(Restored { epoch: Epoch(newest.map_or(1, |epoch| epoch + 1)), tables })
}

fn restored(snapshot: &TableSnapshot) -> Option<RestoredTable> {
    Some(RestoredTable {
        tenant: snapshot.tenant().clone(),
        table_id: snapshot.table_id().to_owned(),
        version: snapshot.version()?,
        schema_version: snapshot.schema_version(),
        transactions: snapshot.transactions().iter().map(|(app, sequence)| (app.clone(), *sequence)).collect(),
    })
}
