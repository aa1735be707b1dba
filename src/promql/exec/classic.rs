//! The histograms of a vector, for `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`: native ones, and
//! classic ones put together from bucket series.
//!
//! *Invariants:* buckets belong together when their labels without `le` are equal. Where a classic and a native histogram
//! have the same labels, both are ignored on the steps on which both are there.
//!
//! *Not here:* quantiles of a list of buckets (`functions::quantile`) and of a native histogram (`promql::histogram`).

use super::column::{Column, Series};
use super::control::Budget;
use super::error::Error;
use super::labels::KeyIndex;
use crate::model::labels::Quoted;
use crate::model::{Histogram, Labels};
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
    members: Vec<(f64, usize)>,
    /// The series with native histograms of the same labels.
    twin: Option<usize>,
}

/// The native histograms of a series.
pub struct Native {
    series: usize,
    /// The classic histogram of the same labels.
    twin: Option<usize>,
}

/// The classic histograms of a vector, and its native ones.
pub struct Histograms {
    series: Vec<Series>,
    /// Classic histograms in order of their first bucket.
    pub classic: Vec<Classic>,
    /// Native histograms in order of their series.
    pub native: Vec<Native>,
    /// Annotations name the metric: not where names are removed at once, of which nothing is known any more then.
    named: bool,
}

impl Histograms {
    /// Groups the buckets of a vector; `span` is its place in the text, `named` says whether annotations name metrics.
    pub fn of(
        series: Vec<Series>,
        span: Span,
        named: bool,
        notes: &mut Annotations,
        budget: &mut Budget,
    ) -> Result<Self, Error> {
        let keys = BucketKeys;
        let (mut index, mut buf) = (KeyIndex::default(), String::new());
        let mut classic: Vec<Classic> = Vec::new();
        let mut native = Vec::new();
        for (i, s) in series.iter().enumerate() {
            budget.check()?;
            budget.hold(0, size_of::<Native>() + 2 * size_of::<(f64, usize)>())?;
            if !s.column.histograms.is_empty() {
                native.push(Native { series: i, twin: None });
            }
            if s.column.values.iter().all(|v| is_absent(*v)) {
                continue;
            }
            let bound = s.labels.get(BUCKET_LABEL);
            let Some(upper) = parse_bound(bound) else {
                let text = format!("bucket label \"le\" is missing or has a malformed value of {}", Quoted(bound));
                notes.warning(span, with_metric(text, if named { s.labels.metric() } else { "" }));
                continue;
            };
            keys.write(&mut buf, &s.labels);
            let (n, new) = index.number(&buf, budget)?;
            if new {
                let labels = Labels::from_canonical(&buf).unwrap_or_default();
                budget.hold(0, size_of::<Classic>() + labels.heap_bytes())?;
                classic.push(Classic { labels, members: Vec::new(), twin: None });
            }
            classic[n].members.push((upper, i));
        }
        for Classic { members, .. } in &mut classic {
            // Of bounds that are equal as numbers the counts are added: in an order that labels decide.
            members.sort_by(|(a, i), (b, j)| a.total_cmp(b).then_with(|| series[*i].labels.cmp(&series[*j].labels)));
        }
        for native in &mut native {
            native.twin = index.find(series[native.series].labels.canonical());
            if let Some(twin) = native.twin {
                classic[twin].twin = Some(native.series);
            }
        }
        Ok(Self { series, classic, native, named })
    }

    /// The labels of a series with native histograms.
    pub fn labels(&self, native: &Native) -> &Labels {
        &self.series[native.series].labels
    }

    /// A function of each native histogram, on its step.
    pub fn map_native(&self, native: &Native, mut f: impl FnMut(usize, &Histogram) -> f64) -> Column {
        let column = &self.series[native.series].column;
        let mut out = Column::absent(column.values.len());
        for (step, h) in &column.histograms {
            let step = *step as usize;
            // The annotation about both being there comes from the classic one.
            if !native.twin.is_some_and(|twin| self.is_there(&self.classic[twin], step)) {
                out.values[step] = f(step, h);
            }
        }
        out
    }

    fn is_there(&self, classic: &Classic, step: usize) -> bool {
        classic.members.iter().any(|(_, i)| !is_absent(self.series[*i].column.values[step]))
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
        let twin = classic.twin.and_then(|i| self.series[i].column.histogram(step));
        if !out.is_empty() && twin.is_some() {
            let text = "vector contains a mix of classic and native histograms".to_owned();
            let metric = if self.named { classic.labels.metric() } else { "" };
            notes.warning(span, with_metric(text, metric));
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
    if metric.is_empty() { text } else { format!("{text} for metric name {}", Quoted(metric)) }
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
