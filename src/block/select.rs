//! Samples of wanted series: which rows, which pages, decoded into columns.
//!
//! *Invariants:* the samples of a series come in order of time; only what lies in the asked range is handed out.
//!
//! *Not here:* which series are wanted (`index`).
//!
//! A file's row groups are taken a few at a time, so that a large answer does not hold the compressed bytes of all.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ListArray, RecordBatch};
use hashbrown::HashMap;
use parquet::file::statistics::Statistics;

use super::directory::Hit;
use super::fetch::{OpenFile, Rows, Sparse};
use super::reader::{BlockReader, BlockSeries, RowsFile, no_timelines};
use super::schema::Kind;
use super::{Result, histograms, timelines};
use crate::model::{Columns, Histogram, STALE_NAN_BITS, TimeRange};

/// Row groups whose pages are held at once.
const GROUPS_AT_ONCE: usize = 16;

/// Timelines decoded at once; few, so that even timelines of several hundred samples a second stay within a batch.
const TIMELINES_AT_ONCE: usize = 64;

type Timelines = HashMap<u32, Arc<Vec<i64>>>;

impl BlockReader {
    /// The samples in `range` of these series (ascending row numbers); series without any are left out.
    pub(crate) async fn read_series(&self, wanted: &[u32], range: TimeRange) -> Result<Vec<BlockSeries>> {
        let mut found = vec![Columns::default(); wanted.len()];
        if let Some(file) = &self.samples {
            self.read_file(file, Kind::Samples, wanted, range, &mut found).await?;
        }
        if let Some(file) = &self.histograms {
            let mut others = vec![Columns::default(); wanted.len()];
            self.read_file(file, Kind::Histograms, wanted, range, &mut others).await?;
            for (floats, others) in found.iter_mut().zip(others) {
                if !others.is_empty() {
                    *floats = merge(std::mem::take(floats), others);
                }
            }
        }
        let with_samples = wanted.iter().zip(found).filter(|(_, samples)| !samples.is_empty());
        let series = |(row, samples): (&u32, Columns)| BlockSeries {
            labels: self.index.labels(*row),
            hash: self.index.hash(*row),
            samples,
        };
        Ok(with_samples.map(series).collect())
    }

    async fn read_file(
        &self,
        file: &RowsFile,
        kind: Kind,
        wanted: &[u32],
        range: TimeRange,
        found: &mut [Columns],
    ) -> Result<()> {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let may_hold = |group: &usize| group_overlaps(&file.file, *group, i64::from(*first), i64::from(*last), range);
        let groups: Vec<usize> = (0..file.groups()).filter(may_hold).collect();
        for groups in groups.chunks(GROUPS_AT_ONCE) {
            file.load(groups).await?;
            let mut plans = Vec::new();
            for group in groups {
                let hits = file.directory(*group).map(|d| d.hits(wanted, range)).unwrap_or_default();
                if !hits.is_empty() {
                    plans.push(Plan::new(&file.file, *group, kind, hits));
                }
            }
            let timelines = self.read_timelines(&file.file, &plans).await?;
            let mut want = Vec::new();
            for plan in &plans {
                plan.ranges(&file.file, &mut want)?;
            }
            let bytes = file.file.fetch(want).await?;
            for plan in &plans {
                plan.decode(&file.file, &bytes, &timelines, range, found)?;
            }
        }
        Ok(())
    }

    async fn read_timelines(&self, of: &OpenFile, plans: &[Plan]) -> Result<Timelines> {
        let mut ids: Vec<u32> = plans.iter().flat_map(|p| p.hits.iter().map(|h| h.timeline)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut out = Timelines::with_capacity(ids.len());
        let Some(last) = ids.last().copied() else { return Ok(out) };
        let file = self.timelines.as_ref().ok_or_else(|| no_timelines(of))?;
        if file.footer().num_row_groups() == 0 || last as usize >= file.rows(0) {
            return Err(of.corrupt(format!("a row refers to timeline {last}, which is not there")));
        }
        let mut want = Vec::new();
        file.ranges(0, &["ts"], &Rows::Some(ids.clone()), &mut want)?;
        let bytes = file.fetch(want).await?;
        for ids in ids.chunks(TIMELINES_AT_ONCE) {
            let mut next = ids.iter();
            file.decode(&bytes, 0, &["ts"], &Rows::Some(ids.to_vec()), |batch| {
                for list in timelines::decode(batch)? {
                    out.insert(*next.next().ok_or("more timelines than asked for")?, Arc::new(list));
                }
                Ok(())
            })?;
        }
        Ok(out)
    }
}

/// Whether a row group's statistics allow one of these series and this time; no statistics allow everything.
fn group_overlaps(file: &OpenFile, group: usize, first: i64, last: i64, range: TimeRange) -> bool {
    let bounds = |column: &str| {
        let metadata = file.footer().row_group(group);
        let found = metadata.columns().iter().find(|c| c.column_path().parts().first().is_some_and(|p| p == column))?;
        match found.statistics()? {
            Statistics::Int32(s) => Some((i64::from(*s.min_opt()?), i64::from(*s.max_opt()?))),
            Statistics::Int64(s) => Some((*s.min_opt()?, *s.max_opt()?)),
            _ => None,
        }
    };
    let series = bounds("series_id").is_none_or(|(lo, hi)| lo <= last && first <= hi);
    let from = bounds("min_ts").is_none_or(|(lo, _)| lo <= range.end);
    series && from && bounds("max_ts").is_none_or(|(_, hi)| range.start <= hi)
}

/// What is wanted of one row group.
struct Plan {
    group: usize,
    hits: Vec<Hit>,
    /// Columns to read, each with the hits that have something in it.
    columns: Vec<(&'static str, Vec<usize>)>,
}

impl Plan {
    fn new(file: &OpenFile, group: usize, kind: Kind, hits: Vec<Hit>) -> Self {
        let which = |keep: &dyn Fn(&Hit) -> bool| -> Vec<usize> {
            hits.iter().enumerate().filter(|(_, h)| keep(h)).map(|(i, _)| i).collect()
        };
        let mut columns = match kind {
            Kind::Histograms => vec![("histogram", which(&|_| true))],
            _ => vec![("value_i", which(&|h| h.decimal.is_some())), ("value_f", which(&|h| h.decimal.is_none()))],
        };
        if has_created(file, group) {
            columns.push(("created", which(&|_| true)));
        }
        columns.retain(|(_, hits)| !hits.is_empty());
        Self { group, hits, columns }
    }

    fn rows(&self, hits: &[usize]) -> Rows {
        Rows::Some(hits.iter().map(|i| self.hits[*i].row).collect())
    }

    fn ranges(&self, file: &OpenFile, want: &mut Vec<Range<u64>>) -> Result<()> {
        self.columns.iter().try_for_each(|(name, hits)| file.ranges(self.group, &[name], &self.rows(hits), want))
    }

    fn decode(
        &self,
        file: &OpenFile,
        bytes: &Sparse,
        timelines: &Timelines,
        range: TimeRange,
        found: &mut [Columns],
    ) -> Result<()> {
        let lines: Vec<Arc<Vec<i64>>> = self.hits.iter().filter_map(|h| timelines.get(&h.timeline).cloned()).collect();
        if lines.len() != self.hits.len() {
            return Err(file.corrupt("rows refer to timelines that are not there"));
        }
        // Where each hit's samples begin among those of its series, for the start timestamps that come last.
        let begins: Vec<usize> = self.hits.iter().map(|h| found[h.at].len()).collect();
        for (name, hits) in &self.columns {
            let mut next = hits.iter();
            file.decode(bytes, self.group, &[name], &self.rows(hits), |batch| {
                let rows: Vec<usize> = next.by_ref().take(batch.num_rows()).copied().collect();
                match *name {
                    "histogram" => {
                        for (i, row) in rows.iter().zip(histograms::decode(batch)?) {
                            push_histograms(&lines[*i], row, range, &mut found[self.hits[*i].at])?;
                        }
                    }
                    "created" => {
                        for (i, starts) in rows.iter().zip(histograms::decode_created(batch)?) {
                            push_starts(&lines[*i], &starts, range, begins[*i], &mut found[self.hits[*i].at])?;
                        }
                    }
                    _ => self.push_values(name, batch, &rows, &lines, range, found)?,
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn push_values(
        &self,
        name: &str,
        batch: &RecordBatch,
        rows: &[usize],
        lines: &[Arc<Vec<i64>>],
        range: TimeRange,
        found: &mut [Columns],
    ) -> std::result::Result<(), String> {
        let lists = batch.column_by_name(name).and_then(|c| c.as_list_opt::<i32>()).ok_or("values are no list")?;
        for (n, i) in rows.iter().enumerate() {
            let hit = &self.hits[*i];
            let (from, inside) = clip(&lines[*i], lists, n, range)?;
            let out = &mut found[hit.at];
            push_times(out, &lines[*i][inside.clone()])?;
            let at = out.values.len();
            let wanted = from + inside.start..from + inside.end;
            match hit.decimal {
                Some(decimal) => {
                    let values = lists.values().as_primitive_opt::<Int64Type>().ok_or("value_i has another type")?;
                    out.values.extend(values.values()[wanted.clone()].iter().map(|n| decimal.value(*n)));
                }
                None => {
                    let values = lists.values().as_primitive_opt::<Float64Type>().ok_or("value_f has another type")?;
                    out.values.extend_from_slice(&values.values()[wanted.clone()]);
                }
            }
            if let Some(nulls) = lists.values().nulls() {
                for (value, i) in out.values[at..].iter_mut().zip(wanted) {
                    if nulls.is_null(i) {
                        *value = f64::from_bits(STALE_NAN_BITS);
                    }
                }
            }
            if !out.starts.is_empty() {
                out.starts.resize(out.timestamps.len(), 0);
            }
        }
        Ok(())
    }
}

/// Whether any row of the group has start timestamps: not when all its values are null.
fn has_created(file: &OpenFile, group: usize) -> bool {
    let chunks = file.footer().row_group(group).columns();
    let found = chunks.iter().find(|c| c.column_path().parts().first().is_some_and(|p| p == "created"));
    found.is_some_and(|c| {
        c.statistics().and_then(Statistics::null_count_opt).is_none_or(|nulls| nulls != c.num_values().max(0) as u64)
    })
}

/// Where list `n` begins among the values, and which of its elements lie in `range`.
fn clip(
    line: &[i64],
    lists: &ListArray,
    n: usize,
    range: TimeRange,
) -> std::result::Result<(usize, Range<usize>), String> {
    let offsets = lists.value_offsets();
    let (from, len) = (offsets[n] as usize, (offsets[n + 1] - offsets[n]) as usize);
    if len != line.len() {
        return Err(format!("a row has {len} values, its timeline {} timestamps", line.len()));
    }
    Ok((from, inside(line, range)))
}

fn inside(line: &[i64], range: TimeRange) -> Range<usize> {
    let start = line.partition_point(|t| *t < range.start);
    start..line.partition_point(|t| *t <= range.end).max(start)
}

fn push_times(out: &mut Columns, times: &[i64]) -> std::result::Result<(), String> {
    if let (Some(last), Some(first)) = (out.timestamps.last(), times.first())
        && last >= first
    {
        return Err("rows of a series overlap in time".into());
    }
    out.timestamps.extend_from_slice(times);
    Ok(())
}

fn push_histograms(
    line: &[i64],
    row: Vec<Arc<Histogram>>,
    range: TimeRange,
    out: &mut Columns,
) -> std::result::Result<(), String> {
    if row.len() != line.len() {
        return Err(format!("a row has {} histograms, its timeline {} timestamps", row.len(), line.len()));
    }
    let inside = inside(line, range);
    if let (Some(last), Some(first)) = (out.timestamps.last(), line.get(inside.start))
        && last >= first
    {
        return Err("rows of a series overlap in time".into());
    }
    for (t, h) in line[inside.clone()].iter().zip(&row[inside]) {
        out.push_histogram(*t, Arc::clone(h));
    }
    Ok(())
}

fn push_starts(
    line: &[i64],
    starts: &[i64],
    range: TimeRange,
    begin: usize,
    out: &mut Columns,
) -> std::result::Result<(), String> {
    let inside = inside(line, range);
    if starts.is_empty() || inside.is_empty() {
        return Ok(());
    }
    if starts.len() != line.len() || out.timestamps.len() != begin + inside.len() {
        return Err(format!("a row has {} start timestamps, its timeline {} timestamps", starts.len(), line.len()));
    }
    out.starts.resize(out.timestamps.len(), 0);
    out.starts[begin..].copy_from_slice(&starts[inside]);
    Ok(())
}

/// Floats and histograms of one series, together in order of time.
fn merge(floats: Columns, histograms: Columns) -> Columns {
    if floats.is_empty() {
        return histograms;
    }
    let mut out = Columns::default();
    let (mut f, mut h) = (0, 0);
    while f < floats.len() || h < histograms.len() {
        let float_next = match (floats.timestamps.get(f), histograms.timestamps.get(h)) {
            (Some(a), Some(b)) => a < b,
            (a, _) => a.is_some(),
        };
        if float_next {
            out.push_float(floats.timestamps[f], floats.values[f]);
            out.set_last_start(floats.start(f));
            f += 1;
        } else {
            out.push_histogram(histograms.timestamps[h], Arc::clone(&histograms.histograms[h].1));
            out.set_last_start(histograms.start(h));
            h += 1;
        }
    }
    out
}
