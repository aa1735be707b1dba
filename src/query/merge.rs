//! Pieces of one series (from the head and from blocks) as one ascending run of samples.
//!
//! *Invariants:* of samples at the same timestamp the one of the piece committed first is kept: pieces carry that
//! order in `rank`. Pieces that do not overlap in time are passed through without being copied.
//!
//! *Not here:* finding the pieces (`query::leaf`).

use std::sync::Arc;

use crate::error::Error;
use crate::model::{Columns, Histogram, ResetHint, TimeRange};
use crate::promql::source::SampleCursor;

/// Epoch and flush sequence: sequences begin anew with each epoch.
pub type Rank = (u64, u64);

/// Of what is still in a head: committed after everything of its shard that is in a block.
pub const IN_HEAD: Rank = (u64::MAX, u64::MAX);

/// Some samples of a series.
pub struct Piece {
    /// Order of commitment: on a clash the lower rank wins.
    pub rank: Rank,
    /// Bounds of the timestamps inside.
    pub range: TimeRange,
    /// The samples.
    pub cursor: Box<dyn SampleCursor>,
}

/// One cursor over all pieces.
pub fn merge(mut pieces: Vec<Piece>) -> Box<dyn SampleCursor> {
    if pieces.len() == 1
        && let Some(only) = pieces.pop()
    {
        return only.cursor;
    }
    pieces.sort_by_key(|p| (p.range.start, p.rank));
    let mut groups: Vec<(TimeRange, Vec<Piece>)> = Vec::new();
    for piece in pieces {
        match groups.last_mut() {
            Some((range, group)) if range.overlaps(&piece.range) => {
                range.end = range.end.max(piece.range.end);
                group.push(piece);
            }
            _ => groups.push((piece.range, vec![piece])),
        }
    }
    let mut runs: Vec<Box<dyn SampleCursor>> = groups.into_iter().map(|(_, group)| run_of(group)).collect();
    if runs.len() == 1
        && let Some(only) = runs.pop()
    {
        return only;
    }
    runs.reverse();
    Box::new(Chain { rest: runs })
}

fn run_of(mut group: Vec<Piece>) -> Box<dyn SampleCursor> {
    if group.len() == 1
        && let Some(only) = group.pop()
    {
        return only.cursor;
    }
    group.sort_by_key(|p| p.rank);
    Box::new(Overlap { last: None, inputs: group.into_iter().map(|p| Input::new(p.cursor)).collect() })
}

/// Pieces one after another; the next one is at the end of `rest`.
struct Chain {
    rest: Vec<Box<dyn SampleCursor>>,
}

impl SampleCursor for Chain {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        while let Some(current) = self.rest.last_mut() {
            if current.next(out)? {
                return Ok(true);
            }
            self.rest.pop();
        }
        out.clear();
        Ok(false)
    }

    fn read_into(&mut self, out: &mut Columns, piece: &mut Columns) -> Result<(), Error> {
        while let Some(mut current) = self.rest.pop() {
            current.read_into(out, piece)?;
        }
        Ok(())
    }

    fn fork(&self) -> Box<dyn SampleCursor> {
        Box::new(Self { rest: self.rest.iter().map(|piece| piece.fork()).collect() })
    }
}

struct Input {
    cursor: Box<dyn SampleCursor>,
    columns: Columns,
    at: usize,
    histogram_at: usize,
}

impl Input {
    fn new(cursor: Box<dyn SampleCursor>) -> Self {
        Self { cursor, columns: Columns::default(), at: 0, histogram_at: 0 }
    }

    /// Timestamp of the next sample, reading on when the columns are used up.
    fn peek(&mut self) -> Result<Option<i64>, Error> {
        while self.at == self.columns.len() {
            (self.at, self.histogram_at) = (0, 0);
            if !self.cursor.next(&mut self.columns)? {
                self.columns.clear();
                return Ok(None);
            }
        }
        Ok(Some(self.columns.timestamps[self.at]))
    }

    /// Moves past the next sample, which goes to `out` if there is one; `follows` says whether the sample before it there
    /// is the one before it here, without which "no reset since" means nothing.
    fn advance(&mut self, out: Option<&mut Columns>, follows: bool) {
        let i = self.at;
        let histogram = self.columns.histograms.get(self.histogram_at).filter(|(n, _)| *n as usize == i);
        if let Some(out) = out {
            match histogram {
                Some((_, h)) if !follows && h.reset_hint == ResetHint::NotReset => {
                    let unknown = Histogram { reset_hint: ResetHint::Unknown, ..(**h).clone() };
                    out.push_histogram(self.columns.timestamps[i], Arc::new(unknown));
                }
                Some((_, h)) => out.push_histogram(self.columns.timestamps[i], Arc::clone(h)),
                None => out.push_float(self.columns.timestamps[i], self.columns.values[i]),
            }
            out.set_last_start(self.columns.start(i));
        }
        self.histogram_at += usize::from(histogram.is_some());
        self.at += 1;
    }
}

/// Pieces that overlap in time, lowest rank first.
struct Overlap {
    inputs: Vec<Input>,
    /// Where the sample before came from.
    last: Option<usize>,
}

/// Samples handed out at a time.
const BATCH: usize = 512;

impl SampleCursor for Overlap {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        out.clear();
        while out.len() < BATCH {
            let mut first: Option<(i64, usize)> = None;
            for i in 0..self.inputs.len() {
                if let Some(t) = self.inputs[i].peek()?
                    && first.is_none_or(|(earliest, _)| t < earliest)
                {
                    first = Some((t, i));
                }
            }
            let Some((t, winner)) = first else { break };
            for (i, input) in self.inputs.iter_mut().enumerate() {
                if i == winner {
                    input.advance(Some(out), self.last == Some(winner));
                } else if input.peek()? == Some(t) {
                    input.advance(None, false);
                }
            }
            self.last = Some(winner);
        }
        Ok(!out.is_empty())
    }

    fn fork(&self) -> Box<dyn SampleCursor> {
        let inputs = self.inputs.iter().map(|input| Input::new(input.cursor.fork())).collect();
        Box::new(Self { inputs, last: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Given(Vec<Columns>);

    impl SampleCursor for Given {
        fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
            if self.0.is_empty() {
                return Ok(false);
            }
            *out = self.0.remove(0);
            Ok(true)
        }

        fn fork(&self) -> Box<dyn SampleCursor> {
            Box::new(self.clone())
        }
    }

    fn piece(rank: u64, samples: &[(i64, f64)]) -> Piece {
        let chunk = |s: &[(i64, f64)]| {
            let mut c = Columns::default();
            s.iter().for_each(|(t, v)| c.push_float(*t, *v));
            c
        };
        let chunks = samples.chunks(2).map(chunk).collect();
        let range = TimeRange::new(samples[0].0, samples[samples.len() - 1].0);
        Piece { rank: (1, rank), range, cursor: Box::new(Given(chunks)) }
    }

    fn samples(mut cursor: Box<dyn SampleCursor>) -> Vec<(i64, f64)> {
        let (mut out, mut all) = (Columns::default(), Vec::new());
        while cursor.next(&mut out).unwrap() {
            all.extend(out.timestamps.iter().copied().zip(out.values.iter().copied()));
        }
        all
    }

    fn read(pieces: Vec<Piece>) -> Vec<(i64, f64)> {
        let cursor = merge(pieces);
        let fork = cursor.fork();
        let first = samples(cursor);
        assert_eq!(samples(fork), first, "a second reader sees the same");
        first
    }

    #[test]
    fn chains_what_does_not_overlap() {
        let got = read(vec![piece(2, &[(30, 3.0), (40, 4.0)]), piece(1, &[(10, 1.0), (20, 2.0), (25, 2.5)])]);
        assert_eq!(got, [(10, 1.0), (20, 2.0), (25, 2.5), (30, 3.0), (40, 4.0)]);
    }

    #[test]
    fn first_committed_wins_a_clash() {
        let late = piece(9, &[(5, 0.5), (10, -1.0), (15, 1.5), (40, -4.0)]);
        let got = read(vec![late, piece(1, &[(10, 1.0), (20, 2.0)]), piece(2, &[(40, 4.0), (50, 5.0)])]);
        assert_eq!(got, [(5, 0.5), (10, 1.0), (15, 1.5), (20, 2.0), (40, 4.0), (50, 5.0)]);
    }

    #[test]
    fn no_reset_is_not_claimed_across_pieces() {
        let histograms = |samples: &[(i64, ResetHint)]| {
            let mut c = Columns::default();
            for (t, reset_hint) in samples {
                c.push_histogram(*t, Arc::new(Histogram { reset_hint: *reset_hint, ..Histogram::default() }));
            }
            let range = TimeRange::new(samples[0].0, samples[samples.len() - 1].0);
            (range, Box::new(Given(vec![c])))
        };
        use ResetHint::{NotReset, Unknown};
        let (range, cursor) = histograms(&[(1, Unknown), (3, NotReset), (4, NotReset)]);
        let (late, late_cursor) = histograms(&[(2, Unknown)]);
        let mut merged = merge(vec![
            Piece { rank: (1, 1), range, cursor },
            Piece { rank: (1, 2), range: late, cursor: late_cursor },
        ]);
        let mut out = Columns::default();
        assert!(merged.next(&mut out).unwrap());
        let hints: Vec<_> = out.histograms.iter().map(|(_, h)| h.reset_hint).collect();
        assert_eq!(hints, [Unknown, Unknown, Unknown, NotReset]);
    }

    #[test]
    fn histograms_and_starts_survive_an_overlap() {
        let mut c = Columns::default();
        c.push_float(1, 1.0);
        c.push_histogram(3, Arc::new(crate::model::Histogram { sum: 7.0, ..Default::default() }));
        c.set_last_start(2);
        let with = Piece { rank: (1, 1), range: TimeRange::new(1, 3), cursor: Box::new(Given(vec![c])) };
        let mut cursor = merge(vec![with, piece(2, &[(2, 2.0), (3, 9.0)])]);
        let mut out = Columns::default();
        assert!(cursor.next(&mut out).unwrap());
        assert_eq!(
            (out.timestamps.as_slice(), out.histograms.len(), out.histograms[0].0),
            ([1, 2, 3].as_slice(), 1, 2)
        );
        assert_eq!((out.start(0), out.start(1), out.start(2)), (0, 0, 2));
    }
}
