//! What sources say about metric families.
//!
//! *Invariants:* at most [`HeadOptions::metadata_metrics`](super::HeadOptions) metrics, each with a few distinct rows,
//! the oldest giving way.
//!
//! *Not here:* where it comes from (`ingest`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::MetadataRow;

/// Distinct rows kept per metric.
const ROWS: usize = 4;

#[derive(Debug, Clone, Default)]
pub(super) struct Metadata {
    rows: BTreeMap<Arc<str>, Vec<MetadataRow>>,
    bytes: usize,
}

fn row_bytes(row: &MetadataRow) -> usize {
    size_of::<MetadataRow>() + row.help.len() + row.unit.len() + 32
}

impl Metadata {
    /// Notes a row; `false` when it is refused because there are `max` metrics already.
    pub(super) fn put(&mut self, row: MetadataRow, max: usize) -> bool {
        if !self.rows.contains_key(&row.metric) {
            if self.rows.len() >= max {
                return false;
            }
            self.bytes += row.metric.len() + 96;
        }
        let rows = self.rows.entry(Arc::clone(&row.metric)).or_default();
        if rows.contains(&row) {
            return true;
        }
        if rows.len() == ROWS {
            self.bytes -= row_bytes(&rows.remove(0));
        }
        self.bytes += row_bytes(&row);
        rows.push(row);
        true
    }

    pub(super) fn of(&self, metric: &str) -> &[MetadataRow] {
        self.rows.get(metric).map_or(&[], Vec::as_slice)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MetadataRow> {
        self.rows.values().flatten()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes
    }
}
