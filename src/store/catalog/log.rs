//! One version of a table in the bucket: written as an idempotent copy, read back with checks.
//!
//! *Invariants:* a version's key never holds other bytes than those decided. Whatever the store answered to a write, the
//! truth is what it gives back afterwards: an answer may be lost after the object landed, and a conflict may be reported
//! though nothing landed.
//!
//! *Not here:* the order of versions and the repeats over hours (`meta::copier`).

use bytes::Bytes;

use super::actions::{self, Line};
use crate::model::TenantId;
use crate::store::bucket::Bucket;
use crate::store::error::Error;
use crate::store::layout;
use crate::store::metrics::Metrics;

/// Longest log entry that is read: a version holds the files of one flush or compaction, a few kilobytes each.
const ENTRY_MAX_BYTES: usize = 64 << 20;

/// How a version came to be in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// By this call.
    Now,
    /// By an earlier one; the bytes are the same.
    Before,
}

/// Makes sure that `version` of `tenant`'s table is in the bucket with exactly these bytes.
///
/// Safe to repeat and to race with itself. Other bytes under the key are [`Error::Corrupt`]: two clusters write to one
/// bucket, or someone edited the log. Looks before it writes, because some stores ignore "create only if absent" and
/// would overwrite; the condition on the put is the second belt.
pub async fn write_version(
    bucket: &Bucket,
    metrics: &Metrics,
    tenant: &TenantId,
    version: u64,
    bytes: &Bytes,
) -> Result<Written, Error> {
    let key = layout::log_entry(tenant, version);
    let compare = |found: Bytes| match found == *bytes {
        true => Ok(Written::Before),
        false => Err(Error::corrupt(
            &key,
            "holds another content than the one decided; does another cluster write to this bucket?",
        )),
    };
    if let Some(found) = bucket.get_if_exists(&key).await? {
        metrics.versions_repeated.inc();
        return compare(found);
    }
    let answer = match bucket.create(&key, bytes.clone()).await {
        Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
            bucket.put(&key, bytes.clone()).await
        }
        answer => answer.map_err(|e| Error::bucket("create", &key, e)),
    };
    match answer {
        Ok(()) => {
            metrics.versions_written.inc();
            Ok(Written::Now)
        }
        Err(refused) => match bucket.get_if_exists(&key).await? {
            Some(found) => {
                metrics.versions_repeated.inc();
                compare(found)
            }
            None => Err(refused),
        },
    }
}

/// The lines of `version`, or `None` if the bucket does not have it.
pub(crate) async fn read_version(bucket: &Bucket, tenant: &TenantId, version: u64) -> Result<Option<Vec<Line>>, Error> {
    let key = layout::log_entry(tenant, version);
    match bucket.get_if_exists(&key).await? {
        Some(bytes) => parse(&key, &bytes).map(Some),
        None => Ok(None),
    }
}

/// Reads the lines stored under `key`.
pub(crate) fn parse(key: &object_store::path::Path, bytes: &[u8]) -> Result<Vec<Line>, Error> {
    if bytes.len() > ENTRY_MAX_BYTES {
        return Err(Error::corrupt(key, format_args!("a log entry of {} bytes", bytes.len())));
    }
    actions::parse_lines(bytes).map_err(|e| Error::corrupt(key, e))
}
