//! Timelines: lists of timestamps, each stored once and shared by all series of a scrape.
//!
//! *Invariants:* equal lists get equal ids, ids count up from 0 in order of first use and are the row numbers of the file.
//!
//! *Not here:* which series uses which (`samples`, `histograms`).

use std::ops::Range;

use hashbrown::HashTable;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::Result;

use super::encoding::{self, Levels};
use super::schema::{Kind, file_schema};

/// Rows of a page of timestamps: a target's timeline is wanted alone, but eight neighbours compress better than one.
const PAGE_ROWS: usize = 8;

/// All timelines of a block.
#[derive(Default)]
pub(crate) struct Timelines {
    timestamps: Vec<i64>,
    /// End of each timeline in `timestamps`.
    ends: Vec<usize>,
    by_hash: HashTable<(u64, u32)>,
}

impl Timelines {
    /// The id of this list of timestamps, a new one if it was never seen.
    pub(crate) fn intern(&mut self, timestamps: &[i64]) -> u32 {
        let hash = hash(timestamps);
        let found = self.by_hash.find(hash, |(h, id)| *h == hash && self.get(*id) == timestamps);
        if let Some((_, id)) = found {
            return *id;
        }
        let id = self.ends.len() as u32;
        self.timestamps.extend_from_slice(timestamps);
        self.ends.push(self.timestamps.len());
        self.by_hash.insert_unique(hash, (hash, id), |(h, _)| *h);
        id
    }

    /// The timestamps of timeline `id`.
    pub(crate) fn get(&self, id: u32) -> &[i64] {
        &self.timestamps[self.range(id as usize)]
    }

    /// Number of timelines.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// First and last timestamp of all.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        self.timestamps.iter().fold((i64::MAX, i64::MIN), |(lo, hi), t| (lo.min(*t), hi.max(*t)))
    }

    fn range(&self, i: usize) -> Range<usize> {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        start..self.ends[i]
    }

    /// The file of all timelines.
    pub(crate) fn encode(&self, block: &ByteArray, level: i32) -> Result<Vec<u8>> {
        let schema = file_schema(Kind::Timelines, &[]);
        let mut file = encoding::new_file(&schema, encoding::properties(Kind::Timelines, level)?)?;
        let mut group = file.next_row_group()?;
        encoding::write_scalar::<ByteArrayType>(&mut group, &vec![block.clone(); self.len()], None)?;
        let ids: Vec<i32> = (0..self.len() as i32).collect();
        encoding::write_scalar::<Int32Type>(&mut group, &ids, None)?;
        let mut column = encoding::next_column(&mut group)?;
        let mut levels = Levels::default();
        for from in (0..self.len()).step_by(PAGE_ROWS) {
            let to = self.len().min(from + PAGE_ROWS);
            levels.clear();
            for i in from..to {
                levels.push_list(self.range(i).len(), 1);
            }
            let values = &self.timestamps[self.range(from).start..self.range(to - 1).end];
            column.typed::<Int64Type>().write_batch(values, Some(&levels.def), Some(&levels.rep))?;
        }
        column.close()?;
        group.close()?;
        file.into_inner()
    }
}

/// Multiply and fold: only this process ever sees the hash.
fn hash(timestamps: &[i64]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let folded =
        timestamps.iter().fold(timestamps.len() as u64, |h, t| (h ^ *t as u64).wrapping_mul(K).rotate_left(29));
    (folded ^ (folded >> 32)).wrapping_mul(K)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_share_an_id() {
        let mut t = Timelines::default();
        assert_eq!([t.intern(&[1, 2]), t.intern(&[1, 3]), t.intern(&[1, 2]), t.intern(&[1, 2, 3])], [0, 1, 0, 2]);
        assert_eq!((t.get(0), t.get(1), t.get(2), t.len()), (&[1, 2][..], &[1, 3][..], &[1, 2, 3][..], 3));
    }
}
