//! What heads and blocks hold of the series of one selection, series by series.
//!
//! *Invariants:* a label set appears once, with all its pieces; series are handed out sorted by labels.
//!
//! *Not here:* which heads and blocks are read (`query::leaf`), which sample wins a clash (`query::merge`).

use std::collections::HashMap;

use super::leaf::storage;
use super::merge::{IN_HEAD, Piece, Rank, merge};
use crate::block::{PackedSeries, order};
use crate::chunk::ChunkCursor;
use crate::error::{Error, HasKind};
use crate::head::HeadSeries;
use crate::model::{Columns, Labels};
use crate::promql::source::{SampleCursor, SelectedSeries};

/// Series and their pieces so far.
#[derive(Default)]
pub struct Gathered {
    series: Vec<(Labels, Vec<Piece>)>,
    /// Where a label set stands in `series`; made when the first block comes.
    places: HashMap<Labels, usize>,
    in_blocks: bool,
}

impl Gathered {
    /// Adds what a head holds, before any block: no series is in two heads.
    pub fn add_head(&mut self, found: Vec<HeadSeries>) {
        self.series.extend(found.into_iter().map(|one| {
            let labels = one.labels.clone();
            // What is in a head was committed after everything of its shard that is in a block.
            let piece = Piece { rank: IN_HEAD, range: one.bounds(), cursor: Box::new(FromHead(one.into_cursor())) };
            (labels, vec![piece])
        }));
    }

    /// Adds what a block holds.
    pub fn add_block(&mut self, rank: Rank, found: Vec<PackedSeries>) {
        if !self.in_blocks {
            self.in_blocks = true;
            self.places = self.series.iter().enumerate().map(|(i, (labels, _))| (labels.clone(), i)).collect();
        }
        for one in found {
            let place = *self.places.entry(one.labels.clone()).or_insert_with(|| {
                self.series.push((one.labels.clone(), Vec::new()));
                self.series.len() - 1
            });
            let piece = Piece { rank, range: one.span, cursor: Box::new(FromBlock(Some(one))) };
            self.series[place].1.push(piece);
        }
    }

    /// All series, each with one cursor over its pieces.
    pub fn into_series(self) -> Vec<SelectedSeries> {
        let merged = |(labels, pieces)| SelectedSeries { labels, place: 0, cursor: merge(pieces) };
        let mut series: Vec<SelectedSeries> = self.series.into_iter().map(merged).collect();
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        number_places(&mut series);
        series
    }
}

/// Numbers series as blocks order them, also where no block takes part: sums must not change their last bit with a flush
/// or with the length of the range.
fn number_places(series: &mut [SelectedSeries]) {
    let keys: Vec<order::Key<'_>> = series.iter().map(|s| order::Key::new(&s.labels)).collect();
    let mut by_place: Vec<u32> = (0..series.len() as u32).collect();
    // In order of labels they come in long runs that a merging sort finds: half the time, 0.5 µs a series.
    by_place.sort_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
    for (place, at) in (0u32..).zip(by_place) {
        series[at as usize].place = place;
    }
}

/// A head's cursor, with its errors in the engine's words.
struct FromHead(ChunkCursor);

impl SampleCursor for FromHead {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        self.0.next(out).map_err(|e| Error::new(e.kind(), e.to_string()))
    }
}

/// Samples of a block, decoded all at once when they are asked for.
struct FromBlock(Option<PackedSeries>);

impl SampleCursor for FromBlock {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        match self.0.take() {
            Some(packed) => {
                *out = packed.samples().map_err(storage)?;
                Ok(!out.is_empty())
            }
            None => {
                out.clear();
                Ok(false)
            }
        }
    }
}
