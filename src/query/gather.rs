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

/// What a series of one piece takes here besides what its piece holds, at most: it stands in a list, then in another.
pub const SERIES_BYTES: usize =
    2 * (size_of::<(Labels, Vec<Piece>)>() + size_of::<SelectedSeries>()) + size_of::<Piece>();

/// Batches of one block have that many numbers, in bits.
const BLOCK_SHIFT: u32 = 20;

/// Series and their pieces so far.
#[derive(Default)]
pub struct Gathered {
    series: Vec<Found>,
    /// Where a label set stands in `series`; made when the first block comes.
    places: HashMap<Labels, usize>,
    /// Blocks added.
    blocks: u32,
}

/// One series.
struct Found {
    labels: Labels,
    pieces: Vec<Piece>,
    /// What it is decoded with, in the first of its blocks.
    batch: u32,
}

impl Gathered {
    /// Adds what a head holds, before any block: no series is in two heads.
    pub fn add_head(&mut self, found: Vec<HeadSeries>) {
        self.series.extend(found.into_iter().map(|one| {
            let labels = one.labels.clone();
            // What is in a head was committed after everything of its shard that is in a block.
            let piece = Piece { rank: IN_HEAD, range: one.bounds(), cursor: Box::new(FromHead(one.into_cursor())) };
            Found { labels, pieces: vec![piece], batch: 0 }
        }));
    }

    /// Adds what a block holds.
    pub fn add_block(&mut self, rank: Rank, found: Vec<PackedSeries>) {
        if self.blocks == 0 {
            self.places = self.series.iter().enumerate().map(|(i, found)| (found.labels.clone(), i)).collect();
        }
        self.blocks += 1;
        for one in found {
            let place = *self.places.entry(one.labels.clone()).or_insert_with(|| {
                self.series.push(Found { labels: one.labels.clone(), pieces: Vec::new(), batch: 0 });
                self.series.len() - 1
            });
            let found = &mut self.series[place];
            if found.batch == 0 {
                // Which one is all that matters; those of different blocks differ, as far as there are numbers.
                found.batch = (self.blocks << BLOCK_SHIFT).wrapping_add(one.batch() as u32).max(1);
            }
            let piece = Piece { rank, range: one.span, cursor: Box::new(FromBlock(Some(one))) };
            found.pieces.push(piece);
        }
    }

    /// All series, each with one cursor over its pieces, and of the partition that `partition` says.
    pub fn into_series(self, partition: impl Fn(&Labels) -> u32) -> Vec<SelectedSeries> {
        let merged = |found: Found| SelectedSeries {
            partition: partition(&found.labels),
            labels: found.labels,
            place: 0,
            batch: found.batch,
            cursor: merge(found.pieces),
        };
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

    fn fork(&self) -> Box<dyn SampleCursor> {
        Box::new(Self(self.0.clone()))
    }
}

/// Samples of a block, decoded all at once when they are asked for.
struct FromBlock(Option<PackedSeries>);

impl SampleCursor for FromBlock {
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error> {
        out.clear();
        if let Some(packed) = self.0.take() {
            packed.append_to(out).map_err(storage)?;
        }
        Ok(!out.is_empty())
    }

    fn read_into(&mut self, out: &mut Columns, _: &mut Columns) -> Result<(), Error> {
        self.0.take().map_or(Ok(()), |packed| packed.append_to(out).map_err(storage))
    }

    fn fork(&self) -> Box<dyn SampleCursor> {
        Box::new(Self(self.0.clone()))
    }
}
