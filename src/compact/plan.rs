//! Which blocks become one.
//!
//! *Invariants:* pure: the same snapshot, time and options give the same jobs. A block is in one job at most.
//!
//! *Not here:* doing it (`compactor`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::BlockName;
use crate::store::catalog::TableSnapshot;
use crate::store::catalog::snapshot::Block;

/// Milliseconds of a UTC day.
pub const DAY_MS: i64 = 86_400_000;

/// Resolution that is compacted.
pub const RAW: &str = "raw";

/// When a day is ripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ripe {
    /// Days that end after this are left alone, milliseconds.
    pub ended_by_ms: i64,
    /// Days with a block written after this are left alone: more of the kind may follow. Milliseconds.
    pub quiet_since_ms: i64,
}

impl Ripe {
    /// Every day is.
    pub const ALWAYS: Self = Self { ended_by_ms: i64::MAX, quiet_since_ms: i64::MAX };
}

/// Blocks of one day that become one (or few, if they are large).
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Start of the UTC day, milliseconds.
    pub day: i64,
    /// At least two, in the order of the snapshot.
    pub blocks: Vec<Arc<Block>>,
}

/// The jobs of a table, oldest day first; blocks in `except` stay as they are.
pub fn jobs(table: &TableSnapshot, ripe: Ripe, except: &BTreeSet<BlockName>) -> Vec<Job> {
    let mut days: BTreeMap<i64, Vec<Arc<Block>>> = BTreeMap::new();
    for block in table.blocks().iter().filter(|b| b.resolution == RAW && !except.contains(&b.name)) {
        days.entry(block.tags.window_start.div_euclid(DAY_MS) * DAY_MS).or_default().push(Arc::clone(block));
    }
    let is_ripe = |(day, blocks): &(i64, Vec<Arc<Block>>)| {
        let written = blocks.iter().filter_map(|b| table.written_ms(b)).max().unwrap_or(i64::MIN);
        blocks.len() > 1 && day.saturating_add(DAY_MS) <= ripe.ended_by_ms && written <= ripe.quiet_since_ms
    };
    days.into_iter().filter(is_ripe).map(|(day, blocks)| Job { day, blocks }).collect()
}
