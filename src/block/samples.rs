//! Float samples: a row per series and slice, values as exact decimals where they are, as doubles where not.
//!
//! *Invariants:* exactly one of `value_i` and `value_f` is non-null in a row; a null element is the stale marker;
//! `scale` and `mul` are null exactly where `value_f` is not, so that a reader knows from the scalars which list to fetch.
//!
//! *Not here:* timestamps (`timelines`), histograms.

use parquet::data_type::{ByteArray, DoubleType, Int32Type, Int64Type};
use parquet::errors::Result;

use super::decimal::{self, Decimal};
use super::encoding::{self, File, Levels, RowGroup};
use super::slices::SliceRows;
use crate::model::is_stale;

/// Definition level of a null element and of a value in an optional list of optional elements.
const NULL_ELEMENT: i16 = 2;
const VALUE: i16 = 3;

/// Rows of one row group, collected.
#[derive(Default)]
pub(crate) struct SampleRows {
    pub(crate) rows: SliceRows,
    /// Where a row's values are decimals: how.
    decimal: Vec<Option<Decimal>>,
    /// Values of the decimal rows, back to back, without stale markers.
    integers: Vec<i64>,
    /// Values of the other rows, back to back, without stale markers.
    doubles: Vec<f64>,
    /// Positions of stale markers within their rows, back to back, and how many each row has.
    stale: Vec<u32>,
    stale_in: Vec<u32>,
    /// Start timestamps of rows that have any (0: none), back to back.
    created: Vec<i64>,
    has_created: Vec<bool>,
    live: Vec<f64>,
}

impl SampleRows {
    /// Adds the samples of a series in this slice. `starts` is empty or as long as `values`.
    pub(crate) fn push(
        &mut self,
        series_id: u32,
        timestamps: &[i64],
        timeline_id: u32,
        metric: &ByteArray,
        values: &[f64],
        starts: &[i64],
    ) {
        self.rows.push(series_id, timestamps, timeline_id, metric);
        let stale_before = self.stale.len();
        self.stale.extend((0u32..).zip(values).filter(|(_, v)| is_stale(**v)).map(|(i, _)| i));
        self.stale_in.push((self.stale.len() - stale_before) as u32);
        let live = if self.stale.len() == stale_before {
            values
        } else {
            self.live.clear();
            self.live.extend(values.iter().filter(|v| !is_stale(**v)));
            &self.live
        };
        let decimal = decimal::split(live, &mut self.integers);
        if decimal.is_none() {
            self.doubles.extend_from_slice(live);
        }
        self.decimal.push(decimal);
        let any_start = starts.iter().any(|s| *s != 0);
        self.has_created.push(any_start);
        if any_start {
            self.created.extend_from_slice(starts);
        }
    }

    /// Writes the rows as one row group.
    pub(crate) fn write(&self, file: &mut File, block: &ByteArray, page_rows: usize) -> Result<()> {
        let mut group = file.next_row_group()?;
        self.rows.write(&mut group, block)?;
        let present: Vec<i16> = self.decimal.iter().map(|d| i16::from(d.is_some())).collect();
        let scale: Vec<i32> = self.decimal.iter().flatten().map(|d| i32::from(d.scale)).collect();
        encoding::write_scalar::<Int32Type>(&mut group, &scale, Some(&present))?;
        let mul: Vec<i64> = self.decimal.iter().flatten().map(|d| d.mul).collect();
        encoding::write_scalar::<Int64Type>(&mut group, &mul, Some(&present))?;
        self.write_values::<Int64Type>(&mut group, &self.integers, true, page_rows)?;
        self.write_values::<DoubleType>(&mut group, &self.doubles, false, page_rows)?;
        write_created(&mut group, &self.rows, &self.has_created, &self.created, page_rows)?;
        group.close()?;
        Ok(())
    }

    /// One of the two value columns. Rows of the other kind are null here and do not count towards the page's size.
    fn write_values<T: parquet::data_type::DataType>(
        &self,
        group: &mut RowGroup<'_>,
        values: &[T::T],
        decimals: bool,
        page_rows: usize,
    ) -> Result<()> {
        let mut column = encoding::next_column(group)?;
        let mut levels = Levels::default();
        let (mut rows_in_page, mut from, mut to, mut stale_at) = (0, 0, 0, 0);
        for i in 0..self.rows.len() {
            let stale = &self.stale[stale_at..stale_at + self.stale_in[i] as usize];
            stale_at += stale.len();
            if self.decimal[i].is_some() != decimals {
                levels.push_null();
                continue;
            }
            if rows_in_page > 0 && self.rows.ends_page(i, rows_in_page, page_rows) {
                column.typed::<T>().write_batch(&values[from..to], Some(&levels.def), Some(&levels.rep))?;
                levels.clear();
                (rows_in_page, from) = (0, to);
            }
            let len = self.rows.len[i] as usize;
            let at = levels.push_list(len, VALUE);
            for s in stale {
                levels.def[at + *s as usize] = NULL_ELEMENT;
            }
            to += len - stale.len();
            rows_in_page += 1;
        }
        column.typed::<T>().write_batch(&values[from..to], Some(&levels.def), Some(&levels.rep))?;
        column.close()
    }
}

/// The column of start timestamps: null lists where a row has none, null elements where a sample has none.
fn write_created(
    group: &mut RowGroup<'_>,
    rows: &SliceRows,
    has: &[bool],
    created: &[i64],
    page_rows: usize,
) -> Result<()> {
    let mut column = encoding::next_column(group)?;
    let mut levels = Levels::default();
    let mut values = Vec::new();
    let (mut rows_in_page, mut from) = (0, 0);
    for i in 0..rows.len() {
        if !has[i] {
            levels.push_null();
            continue;
        }
        if rows_in_page > 0 && rows.ends_page(i, rows_in_page, page_rows) {
            column.typed::<Int64Type>().write_batch(&values, Some(&levels.def), Some(&levels.rep))?;
            levels.clear();
            values.clear();
            rows_in_page = 0;
        }
        let starts = &created[from..from + rows.len[i] as usize];
        from += starts.len();
        let at = levels.push_list(starts.len(), VALUE);
        for (level, start) in levels.def[at..].iter_mut().zip(starts) {
            if *start == 0 {
                *level = NULL_ELEMENT;
            } else {
                values.push(*start);
            }
        }
        rows_in_page += 1;
    }
    column.typed::<Int64Type>().write_batch(&values, Some(&levels.def), Some(&levels.rep))?;
    column.close()
}
