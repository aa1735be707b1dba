//! The newest sample of each series, for federation.
//!
//! *Invariants:* a series that ended with a stale marker has none. Series are sorted by metric, then by labels.
//!
//! *Not here:* how they are written (`api::http::federate`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::active::Job;
use super::budget::Steps;
use super::frontend::Queries;
use super::job::Done;
use crate::error::Error;
use crate::model::{Columns, Histogram, Labels, Matcher, TimeRange, is_stale};
use crate::promql::exec::column::Sample;
use crate::promql::source::{SampleCursor, SelectRequest, Source};

/// The newest sample of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Newest {
    /// Labels.
    pub labels: Labels,
    /// Timestamp, milliseconds.
    pub t: i64,
    /// Float or histogram.
    pub sample: Sample,
}

impl Queries {
    /// The newest sample within the lookback before `now` of the series that fulfil any of the selectors.
    pub async fn newest(&self, job: Job, selectors: Vec<Vec<Matcher>>, now: i64) -> Result<Done<Vec<Newest>>, Error> {
        let range = TimeRange::new(now.saturating_sub(self.options.lookback_ms).saturating_add(1), now);
        self.job(job, None, move |leaf, active, runtime| {
            let source = leaf.source(active);
            let mut found: BTreeMap<(String, Labels), Newest> = BTreeMap::new();
            let mut columns = Columns::default();
            let mut steps = Steps::new(&active.budget);
            for matchers in selectors {
                let set = runtime.block_on(source.select(&SelectRequest { matchers, range }))?;
                active.spend(|s| s.series += set.series.len() as u64);
                for mut series in set.series {
                    let Some((t, sample)) = last_of(series.cursor.as_mut(), &mut columns)? else { continue };
                    let labels = series.labels;
                    steps.charge((2 * size_of::<Newest>() + 2 * labels.heap_bytes()) as u64)?;
                    active.spend(|s| s.samples += 1);
                    found.insert((labels.metric().to_owned(), labels.clone()), Newest { labels, t, sample });
                }
            }
            drop(steps);
            let found: Vec<Newest> = found.into_values().collect();
            active.budget.settle(found.iter().map(|n| (size_of::<Newest>() + n.labels.heap_bytes()) as u64).sum());
            Ok(found)
        })
        .await
    }
}

fn last_of(cursor: &mut dyn SampleCursor, columns: &mut Columns) -> Result<Option<(i64, Sample)>, Error> {
    let mut last = None;
    while cursor.next(columns)? {
        let Some(i) = columns.len().checked_sub(1) else { continue };
        let histogram: Option<&Arc<Histogram>> = columns.histogram(i);
        let sample = histogram.map_or(Sample::Float(columns.values[i]), |h| Sample::Histogram(Arc::clone(h)));
        last = Some((columns.timestamps[i], sample, is_stale(columns.values[i])));
    }
    Ok(last.filter(|(_, _, stale)| !stale).map(|(t, sample, _)| (t, sample)))
}
