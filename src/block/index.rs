//! The series of a block in memory: labels as symbols, found by matchers.
//!
//! *Invariants:* rows are in block order, so each metric is one run of rows; pairs of a row ascend by label name.
//!
//! *Not here:* the file (`series`), samples.

use std::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::series::SeriesBatch;
use crate::model::labels::{push_canonical, series_hash};
use crate::model::{Labels, METRIC_NAME, Matcher, TimeRange};

/// Strings, each once.
#[derive(Default)]
struct Symbols {
    text: String,
    ends: Vec<u32>,
    table: HashTable<u32>,
}

impl Symbols {
    fn get(&self, symbol: u32) -> &str {
        let i = symbol as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.text[start..self.ends[i] as usize]
    }

    fn find(&self, text: &str) -> Option<u32> {
        self.table.find(hash(text), |s| self.get(*s) == text).copied()
    }

    fn intern(&mut self, text: &str) -> Result<u32, String> {
        if let Some(found) = self.find(text) {
            return Ok(found);
        }
        self.text.push_str(text);
        let end = u32::try_from(self.text.len()).map_err(|_| "more than 4 GiB of label values")?;
        let symbol = self.ends.len() as u32;
        self.ends.push(end);
        let Self { text: all, ends, table } = self;
        table.insert_unique(hash(text), symbol, |s| {
            let i = *s as usize;
            let start = if i == 0 { 0 } else { ends[i - 1] as usize };
            hash(&all[start..ends[i] as usize])
        });
        Ok(symbol)
    }

    fn heap_bytes(&self) -> usize {
        self.text.capacity() + 4 * self.ends.capacity() + 5 * self.table.capacity()
    }
}

fn hash(text: &str) -> u64 {
    FixedState::default().hash_one(text)
}

/// All series of a block.
#[derive(Default)]
pub(crate) struct SeriesIndex {
    symbols: Symbols,
    /// `(name, value)` of all rows, back to back.
    pairs: Vec<(u32, u32)>,
    /// End of each row in `pairs`.
    ends: Vec<u32>,
    hashes: Vec<u64>,
    times: Vec<(i64, i64)>,
    /// First row of each run of one metric, and the metric (`""`: none).
    runs: Vec<(u32, Option<u32>)>,
}

impl SeriesIndex {
    /// Adds the rows of a batch; the error says what is wrong with them. Hashes that are not stored follow from `tenant`.
    pub(crate) fn extend(&mut self, batch: &SeriesBatch<'_>, rows: usize, tenant: Option<&str>) -> Result<(), String> {
        for i in 0..rows {
            let (hash, min_ts, max_ts) = batch.scalars(i);
            let from = self.pairs.len();
            let (symbols, pairs, mut failed) = (&mut self.symbols, &mut self.pairs, None);
            batch.labels(i, |name, value| match (symbols.intern(name), symbols.intern(value)) {
                (Ok(name), Ok(value)) => pairs.push((name, value)),
                (Err(e), _) | (_, Err(e)) => failed = Some(e),
            })?;
            if let Some(failed) = failed {
                return Err(failed);
            }
            self.pairs[from..].sort_unstable_by(|a, b| self.symbols.get(a.0).cmp(self.symbols.get(b.0)));
            self.check_row(from)?;
            self.ends.push(u32::try_from(self.pairs.len()).map_err(|_| "more than 2^32 labels")?);
            let row = self.ends.len() as u32 - 1;
            let derived = || tenant.map(|tenant| series_hash(tenant, &self.canonical(row)));
            self.hashes.push(hash.or_else(derived).ok_or("neither series_hash nor a tenant to derive it from")?);
            self.times.push((min_ts, max_ts));
            self.extend_runs();
        }
        Ok(())
    }

    fn check_row(&self, from: usize) -> Result<(), String> {
        let row = &self.pairs[from..];
        let empty = row.iter().any(|(n, v)| self.symbols.get(*n).is_empty() || self.symbols.get(*v).is_empty());
        if empty || row.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err(format!("labels of series {} are empty or double", self.ends.len()));
        }
        Ok(())
    }

    fn extend_runs(&mut self) {
        let row = self.ends.len() as u32 - 1;
        let metric = self.value(row, self.symbols.find(METRIC_NAME));
        if self.runs.last().is_none_or(|(_, last)| *last != metric) {
            self.runs.push((row, metric));
        }
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Hash of a series.
    pub(crate) fn hash(&self, row: u32) -> u64 {
        self.hashes[row as usize]
    }

    /// The labels of a series.
    pub(crate) fn labels(&self, row: u32) -> Labels {
        Labels::from_canonical(&self.canonical(row)).unwrap_or_else(|| unreachable!("BUG: rows are checked when read"))
    }

    fn canonical(&self, row: u32) -> String {
        let mut text = String::new();
        for (name, value) in self.row(row) {
            push_canonical(&mut text, self.symbols.get(*name), self.symbols.get(*value));
        }
        text
    }

    /// The series that fulfil all matchers and may have a sample in `range`, ascending.
    pub(crate) fn matching(&self, matchers: &[Matcher], range: TimeRange) -> Vec<u32> {
        let mut out = Vec::new();
        self.for_matching(matchers, |row| {
            let (min_ts, max_ts) = self.times[row as usize];
            if range.overlaps(&TimeRange::new(min_ts, max_ts)) {
                out.push(row);
            }
        });
        out
    }

    /// Names of labels of the series that fulfil all matchers and may have a sample in `range`.
    pub(crate) fn label_names<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut seen = vec![false; self.symbols.ends.len()];
        for row in self.matching(matchers, range) {
            for (name, _) in self.row(row) {
                seen[*name as usize] = true;
            }
        }
        self.names_of(seen)
    }

    /// Values of label `name` of the series that fulfil all matchers and may have a sample in `range`.
    pub(crate) fn label_values<'a>(
        &'a self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut seen = Vec::new();
        if let Some(name) = self.symbols.find(name) {
            seen.resize(self.symbols.ends.len(), false);
            for row in self.matching(matchers, range) {
                if let Some(value) = self.value(row, Some(name)) {
                    seen[value as usize] = true;
                }
            }
        }
        self.names_of(seen)
    }

    /// The texts of the symbols that were seen, in no order.
    fn names_of(&self, seen: Vec<bool>) -> impl Iterator<Item = &str> {
        (0u32..).zip(seen).filter(|(_, seen)| *seen).map(|(symbol, _)| self.symbols.get(symbol))
    }

    /// Heap bytes of the label set of a row once it is made.
    pub(crate) fn label_bytes(&self, row: u32) -> usize {
        let text = |symbol: u32| self.symbols.get(symbol).len() + 2;
        16 + self.row(row).iter().map(|(name, value)| text(*name) + text(*value)).sum::<usize>()
    }

    fn for_matching(&self, matchers: &[Matcher], mut each: impl FnMut(u32)) {
        let (on_metric, others): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| &*m.name == METRIC_NAME);
        let mut tests = Vec::with_capacity(others.len());
        for matcher in others {
            match self.symbols.find(&matcher.name) {
                Some(name) => tests.push(Test::new(matcher, name, self.symbols.ends.len())),
                None if matcher.matches_empty() => {}
                None => return,
            }
        }
        for (i, (start, metric)) in self.runs.iter().enumerate() {
            let metric = metric.map_or("", |m| self.symbols.get(m));
            if !on_metric.iter().all(|m| m.matches(metric)) {
                continue;
            }
            let end = self.runs.get(i + 1).map_or(self.len() as u32, |(next, _)| *next);
            for row in *start..end {
                if tests.iter_mut().all(|t| t.passes(self.value(row, Some(t.name)), &self.symbols)) {
                    each(row);
                }
            }
        }
    }

    fn row_range(&self, row: u32) -> Range<usize> {
        let i = row as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        start..self.ends[i] as usize
    }

    fn row(&self, row: u32) -> &[(u32, u32)] {
        &self.pairs[self.row_range(row)]
    }

    fn value(&self, row: u32, name: Option<u32>) -> Option<u32> {
        self.row(row).iter().find(|(n, _)| Some(*n) == name).map(|(_, v)| *v)
    }

    /// Heap bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.symbols.heap_bytes()
            + 8 * (self.pairs.capacity() + self.hashes.capacity())
            + 4 * self.ends.capacity()
            + 16 * self.times.capacity()
            + 12 * self.runs.capacity()
    }
}

/// A matcher that looks at each distinct value once.
struct Test<'a> {
    matcher: &'a Matcher,
    name: u32,
    absent: bool,
    /// By symbol: not asked yet, no, yes.
    known: Vec<u8>,
}

impl<'a> Test<'a> {
    fn new(matcher: &'a Matcher, name: u32, symbols: usize) -> Self {
        Self { matcher, name, absent: matcher.matches_empty(), known: vec![0; symbols] }
    }

    fn passes(&mut self, value: Option<u32>, symbols: &Symbols) -> bool {
        let Some(value) = value else { return self.absent };
        let known = &mut self.known[value as usize];
        if *known == 0 {
            *known = 1 + u8::from(self.matcher.matches(symbols.get(value)));
        }
        *known == 2
    }
}
