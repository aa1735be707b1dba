//! Classic histograms of a load as native ones with custom buckets.
//!
//! *Invariants:* buckets must ascend and end in the count; anything else fails the load.
//!
//! *Not here:* storing (`run`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::parse::{Load, LoadSeries};
use crate::model::histogram::CUSTOM_BUCKETS_SCHEMA;
use crate::model::{Histogram, Labels, METRIC_NAME, Span};
use crate::testkit::memory_source::Point;

#[derive(Default)]
struct Classic {
    /// Upper bound and cumulative count, ascending, without +Inf.
    buckets: Vec<(f64, f64)>,
    infinite: Option<f64>,
    count: Option<f64>,
    sum: f64,
}

/// Labels, timestamps and histograms of everything that ends in `_bucket`, `_count` or `_sum`.
pub fn convert(load: &Load) -> Result<Vec<(Labels, i64, Point)>, String> {
    let mut found: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for series in &load.series {
        collect(series, load.step, &mut found);
    }
    let mut out = Vec::new();
    for (labels, steps) in found {
        for (t, classic) in steps {
            out.push((
                labels.clone(),
                t,
                Point::Histogram(Arc::new(build(classic).map_err(|e| format!("{labels}: {e}"))?)),
            ));
        }
    }
    Ok(out)
}

fn collect(series: &LoadSeries, step: i64, found: &mut BTreeMap<Labels, BTreeMap<i64, Classic>>) {
    let name = series.labels.metric();
    let Some((base, part)) = name.rsplit_once('_').filter(|(_, p)| matches!(*p, "bucket" | "count" | "sum")) else {
        return;
    };
    let bound = series.labels.get("le").parse::<f64>().ok().filter(|b| !b.is_nan());
    if part == "bucket" && bound.is_none() {
        return;
    }
    let labels = series.labels.to_builder().set(METRIC_NAME, base).remove("le").build();
    for (i, point) in series.points.iter().enumerate() {
        let Some(Point::Float(v)) = point.as_ref().map(|w| &w.point) else { continue };
        let classic = found.entry(labels.clone()).or_default().entry(i as i64 * step).or_default();
        match (part, bound) {
            ("bucket", Some(f64::INFINITY)) => classic.infinite = Some(*v),
            ("bucket", Some(bound)) => classic.buckets.push((bound, *v)),
            ("count", _) => classic.count = Some(*v),
            _ => classic.sum = *v,
        }
    }
}

fn build(mut classic: Classic) -> Result<Histogram, String> {
    classic.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    classic.buckets.dedup_by(|a, b| a.0 == b.0);
    let top = classic.buckets.last().map_or(0.0, |b| b.1);
    let count = classic.count.or(classic.infinite).unwrap_or(top);
    let infinite = classic.infinite.unwrap_or(count);
    if infinite != count {
        return Err(format!("count {count} is not that of the +Inf bucket, {infinite}"));
    }
    let (mut before, mut counts) = (0.0, Vec::new());
    for v in classic.buckets.iter().map(|b| b.1).chain([infinite]) {
        if v < before {
            return Err(format!("buckets are not cumulative: {v} after {before}"));
        }
        counts.push(v - before);
        before = v;
    }
    let h = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum: classic.sum,
        positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
        positive: counts,
        custom_values: classic.buckets.iter().map(|b| b.0).collect(),
        ..Histogram::default()
    };
    Ok(crate::promql::histogram::compacted(h))
}
