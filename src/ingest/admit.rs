//! Judges a decoded request against what its tenant may send, before anything is logged.
//!
//! *Invariants:* what is left in the batch after [`admit`] fulfils every limit that a request shows by itself; each row
//! taken out is counted with its reason. Nothing is allocated while all is well.
//!
//! *Not here:* order, duplicates and age (the shard's head decides them equally on all replicas), the number of series
//! (`series_budget`), what guards memory while decoding (`decode`).

use std::ops::Range;

use super::outcome::{Reason, Rejections};
use crate::config::Limits;
use crate::model::labels::LabelIter;
use crate::model::{Batch, Labels, METRIC_NAME, SeriesRow};

/// Takes out of `batch` what `limits` forbid at the time `now_ms`, counting it in `rejected`.
pub fn admit(batch: &mut Batch, limits: &Limits, now_ms: i64, rejected: &mut Rejections) {
    let grace = i64::try_from(limits.creation_grace_period.as_millis()).unwrap_or(i64::MAX);
    let latest = now_ms.saturating_add(grace);
    let Batch { labels, series, samples, histograms, exemplars, .. } = batch;
    series.retain_mut(|row| {
        let canonical = &labels[row.labels.start as usize..row.labels.end as usize];
        if let Err(reason) = check_labels(canonical, limits) {
            let count = (row.samples.len() + row.histograms.len()).max(1);
            rejected.add(reason, count as u64, || explain(reason, canonical, limits));
            return false;
        }
        let mut late = |t: i64, n: usize| {
            rejected.add(Reason::TooFarInFuture, n as u64, || {
                format!("{} at {t} is more than {} s ahead of {now_ms}", describe(canonical), grace / 1000)
            });
        };
        row.samples = keep(samples, &row.samples, |s| s.t, latest, &mut late);
        row.histograms = keep(histograms, &row.histograms, |h| h.t, latest, &mut late);
        row.exemplars = keep(exemplars, &row.exemplars, |e| e.t, latest, &mut late);
        holds_anything(row)
    });
}

fn holds_anything(row: &SeriesRow) -> bool {
    !(row.samples.is_empty() && row.histograms.is_empty() && row.exemplars.is_empty())
}

/// Moves the rows of `range` that are not after `latest` to its front, in order, and returns their range.
fn keep<T>(
    rows: &mut [T],
    range: &Range<u32>,
    time: impl Fn(&T) -> i64,
    latest: i64,
    late: &mut impl FnMut(i64, usize),
) -> Range<u32> {
    let rows = &mut rows[range.start as usize..range.end as usize];
    let Some(first) = rows.iter().position(|row| time(row) > latest) else { return range.clone() };
    let example = time(&rows[first]);
    let mut kept = first;
    for at in first + 1..rows.len() {
        if time(&rows[at]) <= latest {
            rows.swap(kept, at);
            kept += 1;
        }
    }
    late(example, rows.len() - kept);
    range.start..range.start + kept as u32
}

/// Checks a label set in canonical form.
fn check_labels(canonical: &str, limits: &Limits) -> Result<(), Reason> {
    let (mut count, mut named) = (0, false);
    for (name, value) in LabelIter::over(canonical) {
        count += 1;
        named |= name == METRIC_NAME;
        if name.len() > limits.max_label_name_length {
            return Err(Reason::LabelNameTooLong);
        }
        if value.len() > limits.max_label_value_length {
            return Err(Reason::LabelValueTooLong);
        }
    }
    if !named {
        return Err(Reason::MissingMetricName);
    }
    if count > limits.max_label_names_per_series {
        return Err(Reason::MaxLabelNamesPerSeries);
    }
    Ok(())
}

#[cold]
fn explain(reason: Reason, canonical: &str, limits: &Limits) -> String {
    let series = describe(canonical);
    let longest = |of: fn((&str, &str)) -> usize| LabelIter::over(canonical).map(of).max().unwrap_or(0);
    match reason {
        Reason::LabelNameTooLong => {
            let (have, limit) = (longest(|(n, _)| n.len()), limits.max_label_name_length);
            format!("{series} has a label name of {have} bytes, the limit is {limit}")
        }
        Reason::LabelValueTooLong => {
            let (have, limit) = (longest(|(_, v)| v.len()), limits.max_label_value_length);
            format!("{series} has a label value of {have} bytes, the limit is {limit}")
        }
        Reason::MaxLabelNamesPerSeries => {
            let (have, limit) = (LabelIter::over(canonical).count(), limits.max_label_names_per_series);
            format!("{series} has {have} labels, the limit is {limit}")
        }
        _ => format!("{series} has no metric name"),
    }
}

/// A label set as text, cut to a readable length.
#[cold]
fn describe(canonical: &str) -> String {
    const LONGEST: usize = 300;
    let mut text = Labels::from_pairs(LabelIter::over(canonical)).to_string();
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::labels::series_hash;
    use crate::model::{ExemplarRow, Histogram, HistogramRow, SampleRow};

    const NOW: i64 = 1_700_000_000_000;

    /// Labels and timestamps of one series.
    type Series<'a> = (&'a [(&'a str, &'a str)], &'a [i64]);

    fn batch(series: &[Series<'_>]) -> Batch {
        let mut b = Batch::default();
        for (pairs, times) in series {
            let labels = Labels::from_pairs(pairs.iter().copied());
            let (from, samples) = (b.labels.len() as u32, b.samples.len() as u32);
            b.labels.push_str(labels.canonical());
            b.samples.extend(times.iter().map(|&t| SampleRow { t, v: t as f64, start: 0 }));
            b.series.push(SeriesRow {
                labels: from..b.labels.len() as u32,
                hash: series_hash("anonymous", labels.canonical()),
                samples: samples..b.samples.len() as u32,
                histograms: 0..0,
                exemplars: 0..0,
            });
        }
        b
    }

    fn limits() -> Limits {
        Limits {
            creation_grace_period: Duration::from_secs(600),
            max_label_names_per_series: 3,
            max_label_name_length: 8,
            max_label_value_length: 6,
            ..Limits::default()
        }
    }

    fn judge(b: &mut Batch) -> Rejections {
        let mut rejected = Rejections::default();
        admit(b, &limits(), NOW, &mut rejected);
        rejected
    }

    #[test]
    fn rejects_samples_beyond_the_grace_period_and_keeps_the_rest_in_order() {
        let late = NOW + 600_001;
        let mut b =
            batch(&[(&[("__name__", "a")], &[1, late, 2, late + 5, NOW + 600_000]), (&[("__name__", "b")], &[late])]);
        let rejected = judge(&mut b);
        assert_eq!(rejected.count(Reason::TooFarInFuture), 3);
        assert_eq!(b.series.len(), 1);
        assert_eq!(b.samples_of(&b.series[0]).iter().map(|s| s.t).collect::<Vec<_>>(), [1, 2, NOW + 600_000]);
        assert!(rejected.to_string().contains("first: a at 1700000600001 is more than 600 s ahead"), "{rejected}");
    }

    #[test]
    fn rejects_histograms_and_exemplars_of_the_future_too() {
        let mut b = batch(&[(&[("__name__", "a")], &[1])]);
        b.histograms = [1, i64::MAX].map(|t| HistogramRow { t, h: Arc::new(Histogram::default()), start: 0 }).to_vec();
        b.exemplars = [i64::MAX, 1].map(|t| ExemplarRow { t, v: 0.0, labels: Labels::empty() }).to_vec();
        (b.series[0].histograms, b.series[0].exemplars) = (0..2, 0..2);
        assert_eq!(judge(&mut b).count(Reason::TooFarInFuture), 2);
        let row = &b.series[0];
        assert_eq!((b.histograms_of(row).len(), b.exemplars_of(row)[0].t, row.exemplars.len()), (1, 1, 1));
    }

    #[test]
    fn rejects_label_sets_over_a_limit_by_name() {
        let four = [("__name__", "a"), ("b", "1"), ("c", "1"), ("d", "1")];
        let mut b = batch(&[
            (&four, &[1, 2]),
            (&[("__name__", "a"), ("too_long_", "1")], &[1]),
            (&[("__name__", "1234567")], &[1]),
            (&[("b", "1")], &[1]),
            (&four[..3], &[1]),
        ]);
        let rejected = judge(&mut b);
        assert_eq!(b.series.len(), 1);
        let counts: Vec<_> = rejected.iter().collect();
        let want = [
            (Reason::MissingMetricName, 1),
            (Reason::MaxLabelNamesPerSeries, 2),
            (Reason::LabelNameTooLong, 1),
            (Reason::LabelValueTooLong, 1),
        ];
        assert_eq!(counts, want);
        let first =
            "first: a{b=\"1\", c=\"1\", d=\"1\"} has 4 labels, the limit is 3 (err-mimir-max-label-names-per-series)";
        assert!(rejected.to_string().ends_with(first), "{rejected}");
    }
}
