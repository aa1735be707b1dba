//! The one trait of the engine towards storage.
//!
//! *Invariants:* series of a [`SeriesSet`] have distinct label sets and come sorted by them; samples of one series
//! ascend strictly in time and lie in the requested range.
//!
//! *Not here:* any storage. Implementations: `query::leaf` (heads and blocks), `testkit::memory_source`.

use futures::future::BoxFuture;

use crate::error::Error;
use crate::model::{Columns, Labels, Matcher, TimeRange};

/// What a selector needs.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectRequest {
    /// Conditions, all of which must hold.
    pub matchers: Vec<Matcher>,
    /// Samples outside are not wanted (lookback, range and offset are already part of it).
    pub range: TimeRange,
}

/// Samples of one series, handed out piece by piece so that a long range is never in memory at once.
pub trait SampleCursor: Send {
    /// Clears `out` and fills it with the next samples (a chunk's worth); `false` when there are none left.
    fn next(&mut self, out: &mut Columns) -> Result<bool, Error>;

    /// Appends all samples that are left to `out`; `piece` is room to work in.
    fn read_into(&mut self, out: &mut Columns, piece: &mut Columns) -> Result<(), Error> {
        while self.next(piece)? {
            out.append(piece);
        }
        Ok(())
    }

    /// The same samples for a second reader. Asked only of a cursor that was not read yet; what is packed is shared.
    fn fork(&self) -> Box<dyn SampleCursor>;
}

/// One selected series.
pub struct SelectedSeries {
    /// Its label set.
    pub labels: Labels,
    /// Where its samples stand in the storage: reading series by ascending places is cheapest. Which of two series comes
    /// first, their labels alone decide. Where labels order them just as well, all are 0.
    pub place: u32,
    /// Which part of the storage holds it; labels alone decide. Series of one partition are aggregated apart from others:
    /// whoever has a partition computes of it what anybody else would. 0 where there is one only.
    pub partition: u32,
    /// Neighbours (by place) of the same batch are decoded together, and best read by one thread; 0 where each series is
    /// decoded on its own.
    pub batch: u32,
    /// Its samples.
    pub cursor: Box<dyn SampleCursor>,
}

impl SelectedSeries {
    /// The same series for a second reader, as long as it was not read.
    pub fn fork(&self) -> Self {
        let Self { labels, place, partition, batch, cursor } = self;
        Self { labels: labels.clone(), place: *place, partition: *partition, batch: *batch, cursor: cursor.fork() }
    }
}

/// What a selector found.
#[derive(Default)]
pub struct SeriesSet {
    /// Sorted by labels.
    pub series: Vec<SelectedSeries>,
    /// What went wrong without failing the query (only where a partial answer was asked for).
    pub warnings: Vec<String>,
}

/// Storage as the engine sees it.
pub trait Source: Send + Sync {
    /// All series that match, with their samples inside the range; a series without any may be left out.
    fn select<'a>(&'a self, request: &'a SelectRequest) -> BoxFuture<'a, Result<SeriesSet, Error>>;
}
