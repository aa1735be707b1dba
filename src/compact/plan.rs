//! Which blocks become one: those of a third of a day once it is over, and then those of the day.
//!
//! *Invariants:* pure: the same snapshot, time and options give the same jobs. A block is in one job at most. A sample is
//! rewritten twice, plus once for each late block of its day.
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

/// A third of a day: what is asked most is recent, and should not wait for midnight in a hundred blocks.
pub const THIRD_MS: i64 = DAY_MS / 3;

/// When a period is ripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ripe {
    /// Periods that end after this are left alone, milliseconds.
    pub ended_by_ms: i64,
    /// Periods with a block written after this are left alone: more of the kind may follow. Milliseconds.
    pub quiet_since_ms: i64,
}

impl Ripe {
    /// Every period is.
    pub const ALWAYS: Self = Self { ended_by_ms: i64::MAX, quiet_since_ms: i64::MAX };
}

/// Blocks of one period that become one (or few, if they are large).
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Start of the period, milliseconds.
    pub start: i64,
    /// At least two, in the order of the snapshot.
    pub blocks: Vec<Arc<Block>>,
}

/// The jobs of a table, oldest first; blocks in `except` stay as they are.
pub fn jobs(table: &TableSnapshot, ripe: Ripe, except: &BTreeSet<BlockName>) -> Vec<Job> {
    let blocks: Vec<_> =
        table.blocks().iter().filter(|b| b.resolution == RAW && !except.contains(&b.name)).cloned().collect();
    let days = of_length(table, &blocks, DAY_MS, ripe);
    let covered: BTreeSet<i64> = days.iter().map(|job| job.start).collect();
    let thirds = of_length(table, &blocks, THIRD_MS, ripe).into_iter();
    let mut jobs: Vec<Job> = thirds.filter(|job| !covered.contains(&floor(job.start, DAY_MS))).chain(days).collect();
    jobs.sort_by_key(|job| job.start);
    jobs
}

/// The ripe periods of one length of which several blocks can become one.
fn of_length(table: &TableSnapshot, blocks: &[Arc<Block>], length: i64, ripe: Ripe) -> Vec<Job> {
    let mut periods: BTreeMap<i64, Vec<Arc<Block>>> = BTreeMap::new();
    for block in blocks {
        periods.entry(floor(block.tags.window_start, length)).or_default().push(Arc::clone(block));
    }
    let is_ripe = |(start, blocks): &(i64, Vec<Arc<Block>>)| {
        let written = blocks.iter().filter_map(|b| table.written_ms(b)).max().unwrap_or(i64::MIN);
        !is_done(blocks) && start.saturating_add(length) <= ripe.ended_by_ms && written <= ripe.quiet_since_ms
    };
    periods.into_iter().filter(is_ripe).map(|(start, blocks)| Job { start, blocks }).collect()
}

/// Whether blocks are one, or the parts of what one compaction made: nothing would come of merging them.
fn is_done(blocks: &[Arc<Block>]) -> bool {
    let compaction = |block: &Arc<Block>| block.tags.shard.is_none().then_some(block.tags.sequence);
    blocks.len() < 2
        || (compaction(&blocks[0]).is_some() && blocks.iter().all(|b| compaction(b) == compaction(&blocks[0])))
}

fn floor(t: i64, length: i64) -> i64 {
    t.div_euclid(length) * length
}
