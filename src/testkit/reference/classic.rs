//! `histogram_quantile(s)` and `histogram_fraction`: over native histograms and over classic ones, whose buckets are
//! series of their own.
//!
//! *Invariants:* buckets belong together when their labels other than `le` are equal. Where a native histogram has the
//! same labels as buckets have, neither counts.
//!
//! *Not here:* native histograms on their own (`native`).

use super::evaluator::Evaluator;
use super::value::{self, Element, Sample, Series};
use super::{native, notes};
use crate::model::{Histogram, Labels, StepGrid};
use crate::promql::annotations::ForcedMonotonicity;
use crate::promql::ast::Call;
use crate::promql::exec::error::Error;
use crate::promql::position::Span;
use crate::promql::signature::FunctionName;

/// A classic bucket: upper bound and observations up to it.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    upper: f64,
    count: f64,
}

/// The histograms of a vector at one step.
#[derive(Default)]
struct Histograms {
    native: Vec<(Labels, std::sync::Arc<Histogram>)>,
    classic: Vec<(Labels, Vec<Bucket>)>,
}

impl Evaluator<'_> {
    /// `histogram_quantile(q, v)` and `histogram_quantiles(v, label, q, …)`.
    pub(super) fn histogram_quantiles(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let several = call.function.id == FunctionName::HistogramQuantiles;
        let (vector, first) = if several { (call.args[0], 2) } else { (call.args[1], 0) };
        let last = if several { call.args.len() } else { 1 };
        let label = match several {
            true => Some(String::from_utf8_lossy(&self.text(call.args[1], grid)?).into_owned()),
            false => None,
        };
        let mut quantiles = Vec::new();
        let mut input = None;
        if several {
            input = Some(self.vector(vector, grid)?);
        }
        for id in &call.args[first..last] {
            let span = self.ast.span(self.ast.unwrap_parens(*id));
            quantiles.push((self.scalar(*id, grid)?, span));
        }
        let input = match input {
            Some(input) => input,
            None => self.vector(vector, grid)?,
        };
        let span = self.ast.span(self.ast.unwrap_parens(vector));
        let mut steps = Vec::new();
        for t in grid.iter() {
            let qs: Vec<(f64, Span)> = quantiles.iter().filter_map(|(q, span)| Some((*q.get(&t)?, *span))).collect();
            for (q, span) in qs.iter().filter(|(q, _)| !(0.0..=1.0).contains(q)) {
                self.notes.warning(*span, notes::bad_quantile(*q));
            }
            let histograms = self.histograms(value::at(&input, t), span);
            let mut out = Vec::new();
            for (q, _) in qs {
                for (from, (labels, v)) in self.quantiles_of(&histograms, q, t, span).into_iter().enumerate() {
                    let mut dropped = false;
                    let labels = self.drop_name(labels, &mut dropped);
                    let labels = match &label {
                        Some(label) => labels.to_builder().set(label, &open_metrics(q)).build(),
                        None => labels,
                    };
                    out.push(Element { labels, dropped, sample: Sample::Float(v), from });
                }
            }
            steps.push((t, out));
        }
        self.collect(steps)
    }

    fn quantiles_of(&mut self, of: &Histograms, q: f64, t: i64, span: Span) -> Vec<(Labels, f64)> {
        let mut out = Vec::new();
        for (labels, h) in &of.native {
            let (v, note) = native::quantile(q, h, self.noted_metric(labels));
            note.into_iter().for_each(|text| self.notes.info(span, text));
            out.push((labels.clone(), v));
        }
        for (labels, buckets) in &of.classic {
            let (v, forced) = classic_quantile(q, buckets.clone());
            if let Some((bounds, max_diff)) = forced {
                let found = ForcedMonotonicity { steps: (t, t), buckets: bounds, max_diff, samples: 1 };
                let text = notes::forced_monotonicity(self.noted_metric(labels));
                self.notes.forced_monotonicity(span, text, found);
            }
            out.push((labels.clone(), v));
        }
        out
    }

    /// `histogram_fraction(lower, upper, v)`.
    pub(super) fn histogram_fraction(&mut self, call: &Call, grid: StepGrid) -> Result<Vec<Series>, Error> {
        let (lower, upper) = (self.scalar(call.args[0], grid)?, self.scalar(call.args[1], grid)?);
        let input = self.vector(call.args[2], grid)?;
        let span = self.ast.span(self.ast.unwrap_parens(call.args[2]));
        let mut steps = Vec::new();
        for ((t, lower), upper) in lower.into_iter().zip(upper.into_values()) {
            let histograms = self.histograms(value::at(&input, t), span);
            let mut found = Vec::new();
            for (labels, h) in histograms.native {
                let (v, note) = native::fraction(lower, upper, &h, self.noted_metric(&labels));
                note.into_iter().for_each(|text| self.notes.info(span, text));
                found.push((labels, v));
            }
            for (labels, buckets) in histograms.classic {
                found.push((labels, classic_fraction(lower, upper, buckets)));
            }
            let element = |(from, (labels, v)): (usize, (Labels, f64))| {
                let mut dropped = false;
                let labels = self.drop_name(labels, &mut dropped);
                Element { labels, dropped, sample: Sample::Float(v), from }
            };
            let out = found.into_iter().enumerate().map(element).collect();
            steps.push((t, out));
        }
        self.collect(steps)
    }

    /// The name annotations give: none where names are removed at once.
    fn noted_metric<'l>(&self, labels: &'l Labels) -> &'l str {
        if self.options.delayed_name_removal { labels.metric() } else { "" }
    }

    fn histograms(&mut self, elements: Vec<Element>, span: Span) -> Histograms {
        let mut out = Histograms::default();
        for Element { labels, sample, .. } in elements {
            let count = match sample {
                Sample::Histogram(h) => {
                    out.native.push((labels, h));
                    continue;
                }
                Sample::Float(count) => count,
            };
            let le = labels.get("le");
            let Ok(upper) = le.parse::<f64>() else {
                self.notes.warning(span, notes::bad_bucket_label(le, self.noted_metric(&labels)));
                continue;
            };
            let bucket = Bucket { upper, count };
            let labels = labels.to_builder().remove("le").build();
            match out.classic.iter_mut().find(|(known, _)| *known == labels) {
                Some((_, buckets)) => buckets.push(bucket),
                None => out.classic.push((labels, vec![bucket])),
            }
        }
        let both: Vec<Labels> =
            out.native.iter().map(|(l, _)| l).filter(|l| out.classic.iter().any(|(c, _)| c == *l)).cloned().collect();
        for labels in both {
            self.notes.warning(span, notes::classic_and_native(self.noted_metric(&labels)));
            out.native.retain(|(l, _)| *l != labels);
            out.classic.retain(|(l, _)| *l != labels);
        }
        out
    }
}

/// Buckets in ascending order, those of one bound added up; `None` without one that is endless.
fn complete(mut buckets: Vec<Bucket>) -> Option<Vec<Bucket>> {
    buckets.sort_by(|a, b| a.upper.partial_cmp(&b.upper).unwrap_or(std::cmp::Ordering::Equal));
    let mut out: Vec<Bucket> = Vec::new();
    for b in buckets {
        match out.last_mut() {
            Some(last) if last.upper == b.upper => last.count += b.count,
            _ => out.push(b),
        }
    }
    out.last().is_some_and(|b| b.upper == f64::INFINITY).then_some(out)
}

/// Whether two counts differ by rounding only.
fn nearly_equal(a: f64, b: f64) -> bool {
    let (difference, sum) = ((a - b).abs(), a.abs() + b.abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < 1e-12 * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < 1e-12
}

/// Lowest and highest bound that was corrected, and by how much at most.
type Forced = ((f64, f64), f64);

/// Makes counts ascend: a count below the one before it is raised to it. Differences by rounding do not count.
fn force_monotonicity(buckets: &mut [Bucket]) -> Option<Forced> {
    let mut before = buckets[0].count;
    let mut forced: Option<Forced> = None;
    for b in &mut buckets[1..] {
        if b.count == before {
            continue;
        }
        if nearly_equal(before, b.count) {
            b.count = before;
        } else if b.count < before {
            let ((lowest, _), most) = forced.unwrap_or(((b.upper, b.upper), 0.0));
            forced = Some(((lowest, b.upper), most.max(before - b.count)));
            b.count = before;
        } else {
            before = b.count;
        }
    }
    forced
}

fn classic_quantile(q: f64, buckets: Vec<Bucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if !(0.0..=1.0).contains(&q) {
        return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, None);
    }
    let Some(mut buckets) = complete(buckets) else { return (f64::NAN, None) };
    let forced = force_monotonicity(&mut buckets);
    let observations = buckets[buckets.len() - 1].count;
    if buckets.len() < 2 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let rank = q * observations;
    let finite = &buckets[..buckets.len() - 1];
    let Some(at) = finite.iter().position(|b| b.count >= rank) else {
        // In the endless bucket: its lower bound is the best answer there is.
        return (finite[finite.len() - 1].upper, forced);
    };
    let end = finite[at].upper;
    let v = match at.checked_sub(1).map(|before| finite[before]) {
        Some(before) => {
            before.upper + (end - before.upper) * ((rank - before.count) / (finite[at].count - before.count))
        }
        // The lowest bucket begins at zero, if it can.
        None if end <= 0.0 => end,
        None => 0.0 + (end - 0.0) * (rank / finite[at].count),
    };
    (v, forced)
}

fn classic_fraction(lower: f64, upper: f64, buckets: Vec<Bucket>) -> f64 {
    let Some(buckets) = complete(buckets) else { return f64::NAN };
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank = |v: f64| classic_rank(v, &buckets).filter(|rank| *rank <= count || rank.is_nan()).unwrap_or(count);
    (rank(upper) - rank(lower)) / count
}

/// How many observations lie below a value; `None` where it is above all buckets.
fn classic_rank(v: f64, buckets: &[Bucket]) -> Option<f64> {
    let mut rank = 0.0;
    let mut from = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for b in buckets {
        if from >= v {
            return Some(rank);
        }
        if b.upper > v {
            // Of an endless lowest bucket nothing is known: it counts as a whole. Of an endless highest one nothing
            // does, which is what the division comes to.
            let known = from != f64::NEG_INFINITY;
            return Some(if known { rank + (b.count - rank) * (v - from) / (b.upper - from) } else { b.count });
        }
        rank = b.count;
        from = b.upper;
    }
    None
}

/// A float as OpenMetrics writes it in labels.
fn open_metrics(v: f64) -> String {
    let text = crate::model::number::format_g(v);
    let is_whole = text.chars().all(|c| c.is_ascii_digit() || c == '-');
    if is_whole { format!("{text}.0") } else { text }
}
