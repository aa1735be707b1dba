//! OpenMetrics text, as this process writes it, as a batch: how the node ingests its own metrics.
//!
//! *Invariants:* a line that cannot be read is an error naming it; nothing of the text is dropped silently.
//!
//! *Not here:* scraping others: that is the work of Prometheus and its kin.

use crate::model::labels::{is_legacy_metric_name, series_hash};
use crate::model::{
    Batch, Labels, LabelsBuilder, METRIC_NAME, MetadataRow, MetricType, SampleRow, SeriesRow, TenantId,
};

/// Appends to `batch` every sample of `text` at time `t`, with `target`'s labels (job, instance) added.
pub fn read(text: &str, t: i64, tenant: &TenantId, target: &Labels, batch: &mut Batch) -> Result<(), String> {
    for (number, line) in text.lines().enumerate() {
        if let Some(comment) = line.strip_prefix("# ") {
            read_comment(comment, batch);
        } else if !line.is_empty() && !line.starts_with('#') {
            let (labels, v) = read_sample(line, target).ok_or(format!("line {}: {line:?}", number + 1))?;
            push(batch, tenant, &labels, SampleRow { t, v, start: 0 });
        }
    }
    Ok(())
}

/// Appends one float sample of a series.
pub fn push(batch: &mut Batch, tenant: &TenantId, labels: &Labels, sample: SampleRow) {
    let at = batch.labels.len() as u32;
    batch.labels.push_str(labels.canonical());
    let first = batch.samples.len() as u32;
    batch.samples.push(sample);
    batch.series.push(SeriesRow {
        labels: at..batch.labels.len() as u32,
        hash: series_hash(tenant.as_str(), labels.canonical()),
        samples: first..first + 1,
        histograms: 0..0,
        exemplars: 0..0,
    });
}

fn read_comment(comment: &str, batch: &mut Batch) {
    let mut words = comment.splitn(3, ' ');
    let (Some(what), Some(metric), Some(rest)) = (words.next(), words.next(), words.next()) else { return };
    let known = batch.metadata.iter().position(|m| *m.metric == *metric);
    let at = known.unwrap_or_else(|| {
        let empty = || "".into();
        batch.metadata.push(MetadataRow {
            metric: metric.into(),
            kind: MetricType::Unknown,
            help: empty(),
            unit: empty(),
        });
        batch.metadata.len() - 1
    });
    let row = &mut batch.metadata[at];
    match what {
        "HELP" => row.help = rest.into(),
        "UNIT" => row.unit = rest.into(),
        "TYPE" => {
            row.kind = (0..8).map(MetricType::from_wire).find(|k| k.as_str() == rest).unwrap_or_default();
        }
        _ => {}
    }
}

/// `name{a="b"} 1`, an exemplar behind ` # ` ignored.
fn read_sample(line: &str, target: &Labels) -> Option<(Labels, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    if !is_legacy_metric_name(name) {
        return None;
    }
    let mut labels = target.to_builder();
    labels.set(METRIC_NAME, name);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let value = rest.trim_start().split(' ').next()?;
    Some((labels.build(), value.parse().ok()?))
}

fn read_labels<'a>(mut rest: &'a str, labels: &mut LabelsBuilder) -> Option<&'a str> {
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (at, '"') => break at + 1,
                (_, c) => value.push(c),
            }
        };
        labels.set(name, &value);
        rest = after[end..].strip_prefix(',').unwrap_or(&after[end..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_registry_writes() {
        let text = "# HELP a_total Things done.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\n\\\\\"} 3 # {id=\"1\"} 1\n\
                    a_seconds_bucket{le=\"+Inf\"} 4\nb +Inf\n# EOF\n";
        let target = Labels::from_pairs([("job", "metrolith")]);
        let mut batch = Batch::default();
        read(text, 7, &TenantId::anonymous(), &target, &mut batch).unwrap();
        let got: Vec<_> = batch
            .series
            .iter()
            .map(|s| (Labels::from_canonical(batch.labels_of(s)).unwrap().to_string(), batch.samples_of(s)[0].v))
            .collect();
        assert_eq!(
            got,
            [
                ("a_total{job=\"metrolith\", x=\"1\", y=\"q\\\"\\n\\\\\"}".to_owned(), 3.0),
                ("a_seconds_bucket{job=\"metrolith\", le=\"+Inf\"}".to_owned(), 4.0),
                ("b{job=\"metrolith\"}".to_owned(), f64::INFINITY),
            ]
        );
        assert_eq!((batch.metadata[0].kind, &*batch.metadata[0].help), (MetricType::Counter, "Things done."));
        for bad in ["a{", "a{b=\"c} 1", "a x", "1a 3", "a"] {
            assert!(read(bad, 0, &TenantId::anonymous(), &target, &mut batch).is_err(), "{bad}");
        }
    }
}
