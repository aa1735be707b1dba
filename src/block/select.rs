//! Samples of wanted series: which rows, which pages, decoded into columns.
//!
//! *Invariants:* the samples of a series come in order of time; only what lies in the asked range is handed out.
//!
//! *Not here:* which series are wanted (`index`).
//!
//! All pages of an answer are fetched at once; they are a few bits per sample. They are decoded some series at a time
//! (`packed`).

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use parquet::file::statistics::Statistics;

use super::claims::MAX_VALUES;
use super::decimal::Decimal;
use super::directory::Hit;
use super::fetch::{OpenFile, Rows, Sparse};
use super::packed::{Decoded, Packed, PackedFile, PackedSeries};
use super::pages::{ListColumn, Lists, RowValues};
use super::reader::{BlockReader, BlockSeries, RowsFile, no_timelines};
use super::schema::Kind;
use super::{Result, histograms};
use crate::model::{Columns, Histogram, STALE_NAN_BITS, TimeRange};

/// Is told how many bytes are about to be held, and may refuse.
pub type Admit<'a> = dyn Fn(usize) -> Result<()> + Send + Sync + 'a;

pub(crate) type Timelines = HashMap<u32, Arc<Vec<i64>>>;

impl BlockReader {
    /// The samples in `range` of these series (ascending row numbers); series without any are left out.
    pub(crate) async fn read_series(&self, wanted: &[u32], range: TimeRange) -> Result<Vec<BlockSeries>> {
        let mut found = Vec::with_capacity(wanted.len());
        for series in self.pack_series(wanted, range, &|_| Ok(())).await? {
            let (labels, hash) = (series.labels.clone(), series.hash);
            let samples = series.samples()?;
            if !samples.is_empty() {
                found.push(BlockSeries { labels, hash, samples });
            }
        }
        Ok(found)
    }

    /// Fetches the samples in `range` of these series (ascending row numbers); `admit` is told of bytes before they are
    /// held.
    pub(crate) async fn pack_series(
        &self,
        wanted: &[u32],
        range: TimeRange,
        admit: &Admit<'_>,
    ) -> Result<Vec<PackedSeries>> {
        admit(wanted.iter().map(|row| size_of::<PackedSeries>() + self.index.label_bytes(*row)).sum())?;
        let pack = async |file: &Option<Arc<RowsFile>>, kind| match file {
            Some(file) => self.pack_file(file, kind, wanted, range, admit).await.map(Some),
            None => Ok(None),
        };
        let files = [pack(&self.samples, Kind::Samples).await?, pack(&self.histograms, Kind::Histograms).await?];
        let packed = Packed::new(files.into_iter().flatten().collect(), wanted.len(), range);
        Ok(PackedSeries::all(packed, |at| (self.index.labels(wanted[at]), self.index.hash(wanted[at]))))
    }

    async fn pack_file(
        &self,
        rows: &Arc<RowsFile>,
        kind: Kind,
        wanted: &[u32],
        range: TimeRange,
        admit: &Admit<'_>,
    ) -> Result<PackedFile> {
        let bounds = wanted.first().zip(wanted.last());
        let may_hold = |group: &usize| {
            bounds.is_some_and(|(first, last)| group_overlaps(&rows.file, *group, (*first, *last), range))
        };
        let groups: Vec<usize> = (0..rows.groups()).filter(may_hold).collect();
        rows.load(&groups).await?;
        let mut plans = Vec::new();
        let mut want = Vec::new();
        for group in groups {
            let hits = rows.directory(group).map(|d| d.hits(wanted, range)).unwrap_or_default();
            if !hits.is_empty() {
                let plan = Plan::new(&rows.file, group, kind, hits);
                plan.ranges(&rows.file, &mut want)?;
                plans.push(plan);
            }
        }
        let timelines = self.read_timelines(&rows.file, &plans).await?;
        admit(want.iter().map(|r| r.end.saturating_sub(r.start) as usize).sum())?;
        let bytes = rows.file.fetch(want).await?;
        Ok(PackedFile { rows: Arc::clone(rows), plans, bytes, timelines })
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
        let mut left = MAX_VALUES as usize;
        let read = |column: ListColumn| {
            column.read(&bytes, &ids, |i, mut row| {
                // Timestamps at equal distances take no room in a file.
                left = left.checked_sub(row.len).ok_or("more timestamps than are read at once")?;
                let timestamps = row.integers()?;
                if !timestamps.is_sorted_by(|a, b| a < b) {
                    return Err("timestamps of a timeline do not ascend".into());
                }
                out.insert(ids[i], Arc::new(timestamps));
                Ok(())
            })
        };
        ListColumn::new(file, 0, Lists::Timestamps).and_then(read).map_err(|what| file.corrupt(what))?;
        Ok(out)
    }
}

/// Whether a row group's statistics allow one of these series and this time; no statistics allow everything.
fn group_overlaps(file: &OpenFile, group: usize, (first, last): (u32, u32), range: TimeRange) -> bool {
    let bounds = |column: &str| {
        let metadata = file.footer().row_group(group);
        let found = metadata.columns().iter().find(|c| c.column_path().parts().first().is_some_and(|p| p == column))?;
        match found.statistics()? {
            Statistics::Int32(s) => Some((i64::from(*s.min_opt()?), i64::from(*s.max_opt()?))),
            Statistics::Int64(s) => Some((*s.min_opt()?, *s.max_opt()?)),
            _ => None,
        }
    };
    let series = bounds("series_id").is_none_or(|(lo, hi)| lo <= i64::from(last) && i64::from(first) <= hi);
    let from = bounds("min_ts").is_none_or(|(lo, _)| lo <= range.end);
    series && from && bounds("max_ts").is_none_or(|(_, hi)| range.start <= hi)
}

/// What is wanted of one row group.
pub(crate) struct Plan {
    group: usize,
    /// Ascending by row and by position among the wanted series.
    hits: Vec<Hit>,
    /// Columns to read, each with the hits that have something in it, ascending.
    columns: Vec<(&'static str, Vec<usize>)>,
}

/// Some of the wanted series, by position, while their samples are decoded.
pub(crate) struct Part<'a> {
    pub(crate) positions: Range<usize>,
    pub(crate) range: TimeRange,
    /// Samples so far, one for each position.
    pub(crate) found: &'a mut [Decoded],
}

impl Part<'_> {
    fn of(&mut self, hit: &Hit) -> &mut Decoded {
        &mut self.found[hit.at - self.positions.start]
    }
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

    pub(crate) fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// Number of the page of values that holds a hit, for each hit of the first column.
    pub(crate) fn pages<'a>(&'a self, file: &'a OpenFile) -> impl Iterator<Item = (&'a Hit, usize)> {
        let first = self.columns.first();
        let pages = first.map(|(name, _)| file.page_starts(self.group, name)).unwrap_or_default();
        let hits = first.into_iter().flat_map(|(_, hits)| hits).map(|i| &self.hits[*i]);
        hits.map(move |hit| (hit, pages.partition_point(|start| *start <= i64::from(hit.row))))
    }

    fn rows(&self, hits: &[usize]) -> Rows {
        Rows::Some(hits.iter().map(|i| self.hits[*i].row).collect())
    }

    fn ranges(&self, file: &OpenFile, want: &mut Vec<Range<u64>>) -> Result<()> {
        self.columns.iter().try_for_each(|(name, hits)| file.ranges(self.group, &[name], &self.rows(hits), want))
    }

    /// Decodes what is wanted of the series of `part`.
    pub(crate) fn decode(&self, file: &OpenFile, bytes: &Sparse, timelines: &Timelines, part: &mut Part) -> Result<()> {
        let from = self.hits.partition_point(|h| h.at < part.positions.start);
        let to = self.hits.partition_point(|h| h.at < part.positions.end);
        let lines: Option<Vec<&Arc<Vec<i64>>>> =
            self.hits[from..to].iter().map(|h| timelines.get(&h.timeline)).collect();
        let lines = lines.ok_or_else(|| file.corrupt("rows refer to timelines that are not there"))?;
        // Where each hit's samples begin among those of its series, for the start timestamps that come last.
        let begins: Vec<usize> = self.hits[from..to].iter().map(|h| part.of(h).len()).collect();
        for (name, hits) in &self.columns {
            let hits = &hits[hits.partition_point(|i| *i < from)..hits.partition_point(|i| *i < to)];
            if hits.is_empty() {
                continue;
            }
            if let Some(lists) = Lists::named(name) {
                self.decode_values(file, lists, hits, bytes, |hit| lines[hit - from], part)?;
                continue;
            }
            let mut next = hits.iter();
            file.decode(bytes, self.group, &[name], &self.rows(hits), |batch| {
                let rows: Vec<usize> = next.by_ref().take(batch.num_rows()).copied().collect();
                let rows = rows.iter().map(|i| (&self.hits[*i], lines[*i - from], begins[*i - from]));
                if *name == "histogram" {
                    for ((hit, line, _), row) in rows.zip(histograms::decode(batch)?) {
                        push_histograms(line, row, part.range, &mut part.of(hit).columns)?;
                    }
                } else {
                    for ((hit, line, begin), starts) in rows.zip(histograms::decode_created(batch)?) {
                        push_starts(line, &starts, part.range, begin, &mut part.of(hit).columns)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Decodes the rows of `hits` of a column of values.
    fn decode_values<'l>(
        &self,
        file: &OpenFile,
        lists: Lists,
        hits: &[usize],
        bytes: &Sparse,
        line: impl Fn(usize) -> &'l Arc<Vec<i64>>,
        part: &mut Part,
    ) -> Result<()> {
        let wanted: Vec<u32> = hits.iter().map(|i| self.hits[*i].row).collect();
        let read = |column: ListColumn| {
            column.read(bytes, &wanted, |i, row| {
                let hit = &self.hits[hits[i]];
                push_values(row, line(hits[i]), hit.decimal, part.range, part.of(hit))
            })
        };
        ListColumn::new(file, self.group, lists).and_then(read).map_err(|what| file.corrupt(what))
    }
}

/// Appends what a row has in `range`.
fn push_values(
    mut row: RowValues<'_, '_>,
    line: &Arc<Vec<i64>>,
    decimal: Option<Decimal>,
    range: TimeRange,
    decoded: &mut Decoded,
) -> std::result::Result<(), String> {
    if row.len != line.len() {
        return Err(format!("a row has {} values, its timeline {} timestamps", row.len, line.len()));
    }
    let inside = inside(line, range);
    if decoded.last().zip(line[inside.clone()].first()).is_some_and(|(last, first)| last >= *first) {
        return Err("rows of a series overlap in time".into());
    }
    decoded.lines.push((Arc::clone(line), inside.clone()));
    let out = &mut decoded.columns;
    out.values.reserve(inside.len());
    let mut at = 0;
    for null in row.nulls {
        take_values(&mut row, at..null.start, &inside, decimal, out)?;
        let stale = null.start.max(inside.start)..null.end.min(inside.end);
        out.values.resize(out.values.len() + stale.len(), f64::from_bits(STALE_NAN_BITS));
        at = null.end;
    }
    take_values(&mut row, at..line.len(), &inside, decimal, out)?;
    if !out.starts.is_empty() {
        out.starts.resize(out.values.len(), 0);
    }
    Ok(())
}

/// Takes what lies in `inside` of the values at some positions of a row, and passes over the others.
fn take_values(
    row: &mut RowValues<'_, '_>,
    at: Range<usize>,
    inside: &Range<usize>,
    decimal: Option<Decimal>,
    out: &mut Columns,
) -> std::result::Result<(), String> {
    let start = at.start.max(inside.start).min(at.end);
    let end = at.end.min(inside.end).max(start);
    row.skip(start - at.start)?;
    match decimal {
        Some(Decimal { scale: 0, mul: 1 }) => row.take(end - start, &mut out.values, |n| n as f64)?,
        Some(decimal) => row.take(end - start, &mut out.values, |n| decimal.value(n))?,
        None => row.take(end - start, &mut out.values, |n| n as f64)?,
    }
    row.skip(at.end - end)
}

/// Whether any row of the group has start timestamps: not when all its values are null.
fn has_created(file: &OpenFile, group: usize) -> bool {
    let chunks = file.footer().row_group(group).columns();
    let found = chunks.iter().find(|c| c.column_path().parts().first().is_some_and(|p| p == "created"));
    found.is_some_and(|c| {
        c.statistics().and_then(Statistics::null_count_opt).is_none_or(|nulls| nulls != c.num_values().max(0) as u64)
    })
}

/// Which timestamps lie in `range`.
pub(super) fn inside(line: &[i64], range: TimeRange) -> Range<usize> {
    let start = line.partition_point(|t| *t < range.start);
    start..line.partition_point(|t| *t <= range.end).max(start)
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
    if starts.len() != line.len() || out.values.len() != begin + inside.len() {
        return Err(format!("a row has {} start timestamps, its timeline {} timestamps", starts.len(), line.len()));
    }
    out.starts.resize(out.values.len(), 0);
    out.starts[begin..].copy_from_slice(&starts[inside]);
    Ok(())
}
