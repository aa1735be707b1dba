//! Which rows a row group of samples or histograms has: its scalar columns, decoded and kept.
//!
//! *Invariants:* `series` ascends strictly; all columns have one entry per row.
//!
//! *Not here:* the lists (`reader`).

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};

use super::decimal::Decimal;
use crate::model::TimeRange;

/// Columns of a file of samples that make its directory.
pub(crate) const SAMPLE_COLUMNS: [&str; 6] = ["series_id", "min_ts", "max_ts", "timeline_id", "scale", "mul"];

/// Columns of a file of histograms that make its directory.
pub(crate) const HISTOGRAM_COLUMNS: [&str; 4] = ["series_id", "min_ts", "max_ts", "timeline_id"];

/// The scalars of a row group.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    series: Vec<u32>,
    timeline: Vec<u32>,
    min_ts: Vec<i64>,
    max_ts: Vec<i64>,
    /// How decimals become values; `None` where the row holds doubles. Empty for histograms.
    decimal: Vec<Option<Decimal>>,
}

/// A wanted row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    /// Row within the row group.
    pub(crate) row: u32,
    /// Position of its series in the list of wanted series.
    pub(crate) at: usize,
    pub(crate) timeline: u32,
    /// Bounds of its timestamps.
    pub(crate) span: TimeRange,
    pub(crate) decimal: Option<Decimal>,
}

impl Directory {
    /// Adds the rows of a batch; the error says what is wrong with them.
    pub(crate) fn extend(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let from = self.series.len();
        let ids = |name: &str| {
            let values = required(batch, name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| wrong(name))?.values();
            values.iter().map(|n| u32::try_from(*n).map_err(|_| wrong(name))).collect::<Result<Vec<_>, _>>()
        };
        let times = |name: &str| {
            let values = required(batch, name)?.as_primitive_opt::<TimestampMillisecondType>();
            Ok::<_, String>(values.ok_or_else(|| wrong(name))?.values().to_vec())
        };
        self.series.extend(ids("series_id")?);
        self.timeline.extend(ids("timeline_id")?);
        self.min_ts.extend(times("min_ts")?);
        self.max_ts.extend(times("max_ts")?);
        if !self.series[from.saturating_sub(1)..].is_sorted_by(|a, b| a < b) {
            return Err("series_id does not ascend".into());
        }
        let Some(scale) = batch.column_by_name("scale") else { return Ok(()) };
        let scale = scale.as_primitive_opt::<Int8Type>().ok_or_else(|| wrong("scale"))?;
        let mul = column(batch, "mul")?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("mul"))?;
        for i in 0..scale.len() {
            self.decimal.push(match (scale.is_valid(i), mul.is_valid(i)) {
                (false, false) => None,
                (true, true) => {
                    let found = Decimal::from_stored(scale.value(i).into(), mul.value(i));
                    Some(found.ok_or_else(|| format!("scale {} or mul {}", scale.value(i), mul.value(i)))?)
                }
                _ => return Err("one of scale and mul is null, the other not".into()),
            });
        }
        Ok(())
    }

    /// The rows of the wanted series (ascending) that may have a sample in `range`.
    pub(crate) fn hits(&self, wanted: &[u32], range: TimeRange) -> Vec<Hit> {
        let mut hits = Vec::new();
        let (Some(first), Some(last)) = (self.series.first(), self.series.last()) else { return hits };
        let from = wanted.partition_point(|id| id < first);
        let mut row = 0;
        for (at, id) in wanted.iter().enumerate().skip(from).take_while(|(_, id)| *id <= last) {
            row += self.series[row..].partition_point(|s| s < id);
            let span = TimeRange::new(self.min_ts[row], self.max_ts[row]);
            if self.series[row] == *id && range.overlaps(&span) {
                let decimal = self.decimal.get(row).copied().flatten();
                hits.push(Hit { row: row as u32, at, timeline: self.timeline[row], span, decimal });
            }
        }
        hits
    }

    /// Heap bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        4 * (self.series.capacity() + self.timeline.capacity())
            + 8 * (self.min_ts.capacity() + self.max_ts.capacity())
            + size_of::<Option<Decimal>>() * self.decimal.capacity()
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))
}

fn required<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    column(batch, name).and_then(|c| if c.null_count() > 0 { Err(wrong(name)) } else { Ok(c) })
}

fn wrong(name: &str) -> String {
    format!("column {name} has another type, nulls or negative numbers")
}
