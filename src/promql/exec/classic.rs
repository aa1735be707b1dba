//! Classic histograms: bucket series put together for `histogram_quantile`, `histogram_fraction`, `histogram_quantiles`.
//!
//! *Invariants:* buckets belong together when their labels without `le` are equal.
//!
//! *Not here:* the quantile of a list of buckets (`functions::quantile`).

use super::column::{Column, Series};
use super::labels::KeyIndex;
use crate::model::Labels;
use crate::promql::annotations::{Annotations, ForcedMonotonicity};
use crate::promql::functions::quantile::{Bucket, Repair, bucket_fraction, bucket_quantile};
use crate::promql::functions::window::{ABSENT, is_absent};
use crate::promql::position::Span;

/// The label with a bucket's upper bound.
const BUCKET_LABEL: &str = "le";

/// One classic histogram: its bucket series.
pub struct Classic {
    /// Labels without `le`.
    pub labels: Labels,
    /// Whether the name is to go.
    pub dropped: bool,
    members: Vec<(f64, usize)>,
}

/// The classic histograms of a vector, and its native ones.
pub struct Histograms {
    series: Vec<Series>,
    /// Classic histograms in order of their first bucket.
    pub classic: Vec<Classic>,
    /// Indexes of series with native histograms.
    pub native: Vec<usize>,
}

impl Histograms {
    /// Groups the buckets of a vector; `span` is its place in the text.
    pub fn of(series: Vec<Series>, span: Span, notes: &mut Annotations) -> Self {
        let keys = BucketKeys;
        let (mut index, mut buf) = (KeyIndex::default(), String::new());
        let mut classic: Vec<Classic> = Vec::new();
        let mut native = Vec::new();
        for (i, s) in series.iter().enumerate() {
            if !s.column.histograms.is_empty() {
                native.push(i);
            }
            if s.column.values.iter().all(|v| is_absent(*v)) {
                continue;
            }
            let bound = s.labels.get(BUCKET_LABEL);
            let Some(upper) = parse_bound(bound) else {
                let text = format!("bucket label \"le\" is missing or has a malformed value of {bound:?}");
                notes.warning(span, with_metric(text, s.labels.metric()));
                continue;
            };
            keys.write(&mut buf, &s.labels);
            let (n, new) = index.number(&buf);
            if new {
                let labels = Labels::from_canonical(&buf).unwrap_or_default();
                classic.push(Classic { labels, dropped: true, members: Vec::new() });
            }
            classic[n].members.push((upper, i));
        }
        Self { series, classic, native }
    }

    /// A series of the vector.
    pub fn series(&self, i: usize) -> &Series {
        &self.series[i]
    }

    /// The buckets of a classic histogram on one step; empty where a native histogram of the same name is there too.
    pub fn buckets(&self, classic: &Classic, step: usize, out: &mut Vec<Bucket>, span: Span, notes: &mut Annotations) {
        out.clear();
        for (upper, i) in &classic.members {
            let count = self.series[*i].column.values[step];
            if !is_absent(count) {
                out.push(Bucket { upper: *upper, count });
            }
        }
        let clash = |i: &&usize| {
            let s = &self.series[**i];
            s.labels == classic.labels && s.column.histogram(step).is_some()
        };
        if !out.is_empty() && self.native.iter().find(clash).is_some() {
            let text = "vector contains a mix of classic and native histograms".to_owned();
            notes.warning(span, with_metric(text, classic.labels.metric()));
            out.clear();
        }
    }

    /// The quantile of a classic histogram on each step.
    pub fn quantile(
        &self,
        classic: &Classic,
        q: impl Fn(usize) -> f64,
        times: impl Fn(usize) -> i64,
        (span, metric): (Span, &str),
        notes: &mut Annotations,
    ) -> Column {
        let mut buckets = Vec::new();
        self.map(classic, |step| {
            self.buckets(classic, step, &mut buckets, span, notes);
            if buckets.is_empty() {
                return ABSENT;
            }
            let (value, repair) = bucket_quantile(q(step), &mut buckets);
            if let Some(repair) = repair {
                note_repair(repair, times(step), span, metric, notes);
            }
            value
        })
    }

    /// The fraction of observations between two bounds on each step.
    pub fn fraction(
        &self,
        classic: &Classic,
        bounds: impl Fn(usize) -> (f64, f64),
        span: Span,
        notes: &mut Annotations,
    ) -> Column {
        let mut buckets = Vec::new();
        self.map(classic, |step| {
            self.buckets(classic, step, &mut buckets, span, notes);
            let (lower, upper) = bounds(step);
            if buckets.is_empty() { ABSENT } else { bucket_fraction(lower, upper, &mut buckets) }
        })
    }

    fn map(&self, classic: &Classic, f: impl FnMut(usize) -> f64) -> Column {
        let steps = classic.members.first().map_or(0, |(_, i)| self.series[*i].column.values.len());
        Column { values: (0..steps).map(f).collect(), histograms: Vec::new() }
    }
}

/// Go's `ParseFloat` as far as bounds need it.
fn parse_bound(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Appends the metric's name to an annotation, if there is one.
pub fn with_metric(text: String, metric: &str) -> String {
    if metric.is_empty() { text } else { format!("{text} for metric name {metric:?}") }
}

fn note_repair(repair: Repair, t: i64, span: Span, metric: &str, notes: &mut Annotations) {
    let link = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile";
    let text = format!("input to histogram_quantile needed to be fixed for monotonicity (see {link})");
    let found =
        ForcedMonotonicity { steps: (t, t), buckets: (repair.min, repair.max), max_diff: repair.diff, samples: 1 };
    notes.forced_monotonicity(span, with_metric(text, metric), found);
}

/// All labels but `le`, the name included.
struct BucketKeys;

impl BucketKeys {
    fn write(&self, buf: &mut String, labels: &Labels) {
        buf.clear();
        for (name, value) in labels.iter().filter(|(n, _)| *n != BUCKET_LABEL) {
            crate::model::labels::push_canonical(buf, name, value);
        }
    }
}
