//! Reads the chunks of one series in order of time, merging those that overlap.
//!
//! *Invariants:* what comes out ascends strictly; of samples with equal timestamps the one from the earlier chunk of the
//! list wins. A histogram keeps the hint `NotReset` only behind the very sample it was packed behind.
//!
//! *Not here:* decoding one chunk (`float`, `histogram`).

use std::sync::Arc;

use super::{Chunk, Error};
use crate::model::{Columns, ResetHint, TimeRange};

/// Hands out the samples of some chunks inside a range, one chunk (or group of overlapping chunks) at a time.
#[derive(Debug, Clone)]
pub struct ChunkCursor {
    /// By first timestamp, latest first, so that the next is popped off; the number is the rank in the given list.
    rest: Vec<(usize, Chunk)>,
    range: TimeRange,
}

impl ChunkCursor {
    /// A cursor over chunks given in order of commitment.
    pub fn new(chunks: impl IntoIterator<Item = Chunk>, range: TimeRange) -> Self {
        let mut rest: Vec<_> = chunks.into_iter().enumerate().filter(|(_, c)| c.range().overlaps(&range)).collect();
        rest.sort_by_key(|(rank, chunk)| std::cmp::Reverse((chunk.first_t(), *rank)));
        Self { rest, range }
    }

    /// Whether nothing is left for sure.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Upper bound of the samples left.
    pub fn samples_left(&self) -> usize {
        self.rest.iter().map(|(_, c)| c.len()).sum()
    }

    /// Clears `out` and fills it with the next samples; `false` when there are none left.
    pub fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        while let Some((rank, chunk)) = self.rest.pop() {
            out.clear();
            let mut end = chunk.last_t();
            let overlaps = |(_, next): &mut (usize, Chunk), end: i64| next.first_t() <= end;
            if self.rest.last_mut().is_some_and(|next| overlaps(next, end)) {
                let mut group = vec![(rank, chunk)];
                while let Some(next) = self.rest.pop_if(|next| overlaps(next, end)) {
                    end = end.max(next.1.last_t());
                    group.push(next);
                }
                group.sort_by_key(|(rank, _)| *rank);
                *out = merge_chunks(&group)?;
            } else {
                chunk.decode(out)?;
            }
            restrict(out, self.range);
            if !out.is_empty() {
                return Ok(true);
            }
        }
        out.clear();
        Ok(false)
    }
}

fn merge_chunks(group: &[(usize, Chunk)]) -> Result<Columns, Error> {
    let mut columns = Vec::with_capacity(group.len());
    for (_, chunk) in group {
        let mut out = Columns::default();
        chunk.decode(&mut out)?;
        columns.push(out);
    }
    Ok(merge(&columns))
}

/// Merges columns into one; of equal timestamps the first in the list wins.
pub fn merge(sources: &[Columns]) -> Columns {
    let mut out = Columns::default();
    let mut at = vec![0usize; sources.len()];
    let mut from = usize::MAX;
    loop {
        let heads = sources.iter().zip(&at).enumerate();
        let next = heads.filter_map(|(s, (c, i))| c.timestamps.get(*i).map(|t| (*t, s))).min();
        let Some((t, s)) = next else { return out };
        let (source, i) = (&sources[s], at[s]);
        // Whether the sample before, in its own chunk, is also the one before in the merged order.
        let follows = from == s;
        match source.histogram(i) {
            Some(h) if h.reset_hint == ResetHint::NotReset && !follows => {
                let mut unknown = (**h).clone();
                unknown.reset_hint = ResetHint::Unknown;
                out.push_histogram(t, Arc::new(unknown));
            }
            Some(h) => out.push_histogram(t, Arc::clone(h)),
            None => out.push_float(t, source.values[i]),
        }
        out.set_last_start(source.start(i));
        from = s;
        for (c, i) in sources.iter().zip(&mut at) {
            if c.timestamps.get(*i) == Some(&t) {
                *i += 1;
            }
        }
    }
}

/// Drops the samples outside of `range`.
fn restrict(out: &mut Columns, range: TimeRange) {
    let from = out.timestamps.partition_point(|t| *t < range.start);
    let to = out.timestamps.partition_point(|t| *t <= range.end);
    if to < out.len() {
        out.timestamps.truncate(to);
        out.values.truncate(to);
        out.starts.truncate(to);
        out.histograms.retain(|(i, _)| (*i as usize) < to);
    }
    if from > 0 {
        out.timestamps.drain(..from);
        out.values.drain(..from);
        if !out.starts.is_empty() {
            out.starts.drain(..from);
        }
        out.histograms.retain_mut(|(i, _)| {
            let keep = *i as usize >= from;
            *i = i.wrapping_sub(from as u32);
            keep
        });
    }
}
