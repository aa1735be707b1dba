//! What a row of samples and a row of histograms have in common: one series over one slice of time.
//!
//! *Invariants:* within a row group `series_id` ascends strictly, all rows are of one slice.
//!
//! *Not here:* the values (`samples`, `histograms`).

use std::ops::Range;

use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::Result;

use super::encoding::{self, RowGroup};

/// Start of the slice that holds `t`.
pub(crate) fn slice_start(t: i64, slice_ms: i64) -> i64 {
    t.div_euclid(slice_ms).saturating_mul(slice_ms)
}

/// Cuts ascending timestamps into slices: `(start of the slice, index range)`.
pub(crate) fn cut(timestamps: &[i64], slice_ms: i64) -> impl Iterator<Item = (i64, Range<usize>)> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = slice_start(*timestamps.get(from)?, slice_ms);
        let end = start.saturating_add(slice_ms - 1);
        let len = timestamps[from..].partition_point(|t| *t <= end);
        let range = from..from + len;
        from = range.end;
        Some((start, range))
    })
}

/// The scalar columns of a row group's rows.
#[derive(Default)]
pub(crate) struct SliceRows {
    pub(crate) series_id: Vec<i32>,
    pub(crate) min_ts: Vec<i64>,
    pub(crate) max_ts: Vec<i64>,
    pub(crate) timeline_id: Vec<i32>,
    pub(crate) metric: Vec<ByteArray>,
    /// Number of samples of each row.
    pub(crate) len: Vec<u32>,
}

impl SliceRows {
    /// Adds the row of a series with these (never empty) timestamps.
    pub(crate) fn push(&mut self, series_id: u32, timestamps: &[i64], timeline_id: u32, metric: &ByteArray) {
        self.series_id.push(series_id as i32);
        self.min_ts.push(timestamps[0]);
        self.max_ts.push(timestamps[timestamps.len() - 1]);
        self.timeline_id.push(timeline_id as i32);
        self.metric.push(metric.clone());
        self.len.push(timestamps.len() as u32);
    }

    pub(crate) fn len(&self) -> usize {
        self.series_id.len()
    }

    /// Whether a page ends before row `i`: the metric changes there and the page holds enough, or it is full.
    pub(crate) fn ends_page(&self, i: usize, rows_in_page: usize, page_rows: usize) -> bool {
        rows_in_page >= page_rows || (rows_in_page >= page_rows.div_ceil(4) && self.metric[i] != self.metric[i - 1])
    }

    /// Writes `block` and the scalars as the first six columns.
    pub(crate) fn write(&self, group: &mut RowGroup<'_>, block: &ByteArray) -> Result<()> {
        encoding::write_scalar::<ByteArrayType>(group, &vec![block.clone(); self.len()], None)?;
        encoding::write_scalar::<Int32Type>(group, &self.series_id, None)?;
        encoding::write_scalar::<Int64Type>(group, &self.min_ts, None)?;
        encoding::write_scalar::<Int64Type>(group, &self.max_ts, None)?;
        encoding::write_scalar::<Int32Type>(group, &self.timeline_id, None)?;
        encoding::write_scalar::<ByteArrayType>(group, &self.metric, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_multiples_of_the_slice() {
        let of = |t: &[i64]| cut(t, 10).collect::<Vec<_>>();
        assert_eq!(of(&[-1, 0, 9, 10, 35]), [(-10, 0..1), (0, 1..3), (10, 3..4), (30, 4..5)]);
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[i64::MAX]).len(), 1);
        assert_eq!(of(&[i64::MIN]).len(), 1);
    }
}
