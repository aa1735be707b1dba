//! The order of series in a block: what is asked together lies together.
//!
//! *Invariants:* a total order in which only equal label sets are equal: metric, cluster, namespace, job, pod, instance,
//! the remaining labels by name, and `le` last and by number, so that the buckets of one histogram are neighbours.
//!
//! *Not here:* sorting (`ingest::flush`).

use std::cmp::Ordering;

use crate::model::{Labels, METRIC_NAME};

/// Labels compared before all others, most significant first.
const LEADING: [&str; 6] = [METRIC_NAME, "cluster", "namespace", "job", "pod", "instance"];

/// A label set prepared for comparing; for sorting many series make one key per series.
#[derive(Debug, Clone)]
pub struct Key<'a> {
    leading: [&'a str; LEADING.len()],
    labels: &'a Labels,
    le: &'a str,
    /// `le` as a number; infinite also where it is none, the text then decides.
    bound: f64,
}

impl<'a> Key<'a> {
    /// The key of a label set.
    pub fn new(labels: &'a Labels) -> Self {
        let mut key = Self { leading: [""; LEADING.len()], labels, le: "", bound: f64::NEG_INFINITY };
        for (name, value) in labels.iter() {
            if let Some(at) = LEADING.iter().position(|l| *l == name) {
                key.leading[at] = value;
            } else if name == "le" {
                key.le = value;
                key.bound = value.parse().ok().filter(|b: &f64| !b.is_nan()).unwrap_or(f64::INFINITY);
            }
        }
        key
    }

    fn others(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.labels.iter().filter(|(name, _)| *name != "le" && !LEADING.contains(name))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.leading
            .cmp(&other.leading)
            .then_with(|| self.others().cmp(other.others()))
            .then_with(|| self.bound.total_cmp(&other.bound))
            .then_with(|| self.le.cmp(other.le))
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels
    }
}

impl Eq for Key<'_> {}

/// Compares two label sets in block order. To sort many, prepare a [`Key`] for each.
pub fn compare(a: &Labels, b: &Labels) -> Ordering {
    Key::new(a).cmp(&Key::new(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Labels {
        Labels::from_pairs(text.split(' ').filter_map(|p| p.split_once('=')))
    }

    #[test]
    fn buckets_of_one_histogram_are_neighbours_by_number() {
        let sorted = [
            "__name__=a job=x le=0.5 path=/a",
            "__name__=a job=x le=2 path=/a",
            "__name__=a job=x le=10 path=/a",
            "__name__=a job=x le=+Inf path=/a",
            "__name__=a job=x le=1 path=/b",
            "__name__=a cluster=c job=a",
            "__name__=b",
        ]
        .map(of);
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn only_equal_label_sets_are_equal() {
        for (a, b) in [("le=1", "le=1.0"), ("le=NaN", "le=+Inf"), ("le=x", "le=y"), ("le=-0", "le=0"), ("", "le=1")] {
            assert_ne!(compare(&of(a), &of(b)), Ordering::Equal, "{a} {b}");
            assert_eq!(compare(&of(a), &of(b)), compare(&of(b), &of(a)).reverse(), "{a} {b}");
        }
    }
}
