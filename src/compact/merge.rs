//! Several blocks as one stream of series.
//!
//! *Invariants:* series come in block order, each once, with its samples in order of time; of two samples at one time the
//! one committed first stays, as queries see it. Of each block some thousand series are packed in memory and some dozen
//! decoded, whatever its size.
//!
//! *Not here:* writing (`compactor`).

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use super::CompactError;
use crate::block::{BlockReader, PackedSeries, order};
use crate::model::{BlockName, Columns, Exemplar, Histogram, Labels, Matcher, ResetHint, TimeRange};

/// Series of a block fetched at a time: a row group's.
const SERIES_AT_ONCE: usize = 4096;

/// A block to be merged.
pub struct Input {
    /// Its name, for errors.
    pub name: BlockName,
    /// Epoch and sequence of its commit: the lowest wins a clash.
    pub rank: (u64, u64),
    /// The block.
    pub reader: BlockReader,
}

/// A series of all inputs together.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Its labels.
    pub labels: Labels,
    /// Hash of tenant and labels.
    pub hash: u64,
    /// Its samples.
    pub samples: Columns,
    /// Its exemplars, in order of time.
    pub exemplars: Vec<Exemplar>,
}

/// The series of several blocks.
pub struct Merge {
    inputs: Vec<Source>,
    /// The next series of each input that has one.
    next: BinaryHeap<Reverse<Next>>,
}

struct Source {
    input: Input,
    ready: std::vec::IntoIter<PackedSeries>,
    /// First series that is not fetched.
    at: usize,
    exemplars: HashMap<Labels, Vec<Exemplar>>,
}

struct Next {
    series: PackedSeries,
    input: usize,
}

impl Merge {
    /// The series of `inputs`.
    pub async fn new(inputs: Vec<Input>) -> Result<Self, CompactError> {
        let mut merge = Self { inputs: Vec::with_capacity(inputs.len()), next: BinaryHeap::new() };
        for (i, input) in inputs.into_iter().enumerate() {
            let exemplars = input.reader.exemplars(&[] as &[Matcher], TimeRange::all()).await;
            let exemplars = exemplars.map_err(|e| input.broken(e))?.into_iter().collect();
            merge.inputs.push(Source { input, ready: Vec::new().into_iter(), at: 0, exemplars });
            merge.advance(i).await?;
        }
        Ok(merge)
    }

    /// The next series that has samples.
    pub async fn next(&mut self) -> Result<Option<Merged>, CompactError> {
        while let Some(Reverse(first)) = self.next.pop() {
            let (labels, hash) = (first.series.labels.clone(), first.series.hash);
            let mut found = vec![first];
            while let Some(Reverse(next)) = self.next.peek()
                && next.series.labels == labels
            {
                found.extend(self.next.pop().map(|Reverse(next)| next));
            }
            let (mut pieces, mut exemplars) = (Vec::with_capacity(found.len()), Vec::new());
            for Next { series, input } in found {
                let source = &mut self.inputs[input];
                exemplars.extend(source.exemplars.remove(&labels).unwrap_or_default());
                let samples = series.samples().map_err(|e| source.input.broken(e))?;
                if !samples.is_empty() {
                    pieces.push((source.input.rank, samples));
                }
                self.advance(input).await?;
            }
            if pieces.is_empty() {
                continue;
            }
            exemplars.sort_by_key(|e| e.t);
            exemplars.dedup();
            return Ok(Some(Merged { labels, hash, samples: together(pieces), exemplars }));
        }
        Ok(None)
    }

    /// Puts the next series of an input among those that wait.
    async fn advance(&mut self, input: usize) -> Result<(), CompactError> {
        let source = &mut self.inputs[input];
        let all = source.input.reader.series_count();
        while source.ready.as_slice().is_empty() && source.at < all {
            let end = all.min(source.at + SERIES_AT_ONCE);
            let rows: Vec<u32> = (source.at as u32..end as u32).collect();
            let packed = source.input.reader.pack_series(&rows, TimeRange::all(), &|_| Ok(())).await;
            source.ready = packed.map_err(|e| source.input.broken(e))?.into_iter();
            source.at = end;
        }
        if let Some(series) = source.ready.next() {
            self.next.push(Reverse(Next { series, input }));
        }
        Ok(())
    }
}

impl Input {
    fn broken(&self, source: crate::block::Error) -> CompactError {
        CompactError::Block { block: self.name.clone(), source }
    }
}

/// The samples of one series from several blocks.
pub(super) fn together(mut pieces: Vec<((u64, u64), Columns)>) -> Columns {
    let bounds = |c: &Columns| (c.timestamps.first().copied(), c.timestamps.last().copied());
    pieces.sort_by_key(|(rank, c)| (bounds(c).0, *rank));
    if pieces.is_sorted_by(|a, b| bounds(&a.1).1 < bounds(&b.1).0) {
        let mut all = pieces.into_iter().map(|(_, c)| c);
        let mut out = all.next().unwrap_or_default();
        for piece in all {
            out.append(&piece);
        }
        return out;
    }
    let mut order: Vec<(i64, (u64, u64), usize, usize)> = Vec::new();
    for (p, (rank, columns)) in pieces.iter().enumerate() {
        order.extend(columns.timestamps.iter().enumerate().map(|(i, t)| (*t, *rank, p, i)));
    }
    order.sort_unstable();
    order.dedup_by_key(|(t, ..)| *t);
    let (mut out, mut last) = (Columns::default(), None);
    for (_, _, p, i) in order {
        push(&mut out, &pieces[p].1, i, last == Some((p, i.wrapping_sub(1))));
        last = Some((p, i));
    }
    out
}

/// Appends sample `i` of a piece; `follows` says whether the sample before it there is the one before it here, without
/// which "no reset since" means nothing.
fn push(out: &mut Columns, piece: &Columns, i: usize, follows: bool) {
    let t = piece.timestamps[i];
    match piece.histograms.binary_search_by_key(&(i as u32), |(at, _)| *at) {
        Ok(at) => {
            let h = &piece.histograms[at].1;
            if !follows && h.reset_hint == ResetHint::NotReset {
                let unknown = Histogram { reset_hint: ResetHint::Unknown, ..(**h).clone() };
                out.push_histogram(t, unknown.into());
            } else {
                out.push_histogram(t, h.clone());
            }
        }
        Err(_) => out.push_float(t, piece.values[i]),
    }
    out.set_last_start(piece.start(i));
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        order::compare(&self.series.labels, &other.series.labels).then(self.input.cmp(&other.input))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}
