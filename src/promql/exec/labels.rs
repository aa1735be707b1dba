//! Label sets of results: dropping of names, groups, join signatures, merging of series that became equal.
//!
//! *Invariants:* keys are canonical label sets, so equal keys mean equal labels and no hash can collide.
//!
//! *Not here:* values (`aggregate`, `join`).

use std::sync::Arc;

use hashbrown::HashMap;

use super::column::Series;
use super::control::Budget;
use super::error::Error;
use crate::model::Labels;
use crate::model::labels::{METRIC_NAME, push_canonical};

/// Name of the label with a metric's declared type.
pub const TYPE_LABEL: &str = "__type__";
/// Name of the label with a metric's unit.
pub const UNIT_LABEL: &str = "__unit__";

/// Labels that describe the metric and are lost when its meaning changes.
pub fn is_reserved(name: &str) -> bool {
    matches!(name, METRIC_NAME | TYPE_LABEL | UNIT_LABEL)
}

/// A label set from pairs in order of name.
fn rebuild<'a>(buf: &mut String, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    buf.clear();
    for (name, value) in pairs {
        push_canonical(buf, name, value);
    }
    Labels::from_canonical(buf).unwrap_or_default()
}

/// The label set without name, type and unit.
pub fn drop_reserved(labels: &Labels) -> Labels {
    if !labels.iter().any(|(n, _)| is_reserved(n)) {
        return labels.clone();
    }
    rebuild(&mut String::new(), labels.iter().filter(|(n, _)| !is_reserved(n)))
}

/// The label set without the name.
pub fn drop_name(labels: &Labels) -> Labels {
    if !labels.has(METRIC_NAME) {
        return labels.clone();
    }
    rebuild(&mut String::new(), labels.iter().filter(|(n, _)| *n != METRIC_NAME))
}

/// Which labels make up a group or a signature.
#[derive(Debug, Clone)]
pub struct KeyLabels {
    /// Sorted.
    names: Vec<Arc<str>>,
    /// The labels named, rather than all others.
    only: bool,
}

impl KeyLabels {
    /// The labels named (`by`, `on`).
    pub fn only(names: &[Arc<str>]) -> Self {
        let mut names = names.to_vec();
        names.sort();
        Self { names, only: true }
    }

    /// All labels but the name and those named (`without`, `ignoring`).
    pub fn all_but(names: &[Arc<str>]) -> Self {
        let mut names = names.to_vec();
        names.push(Arc::from(METRIC_NAME));
        names.sort();
        Self { names, only: false }
    }

    fn keeps(&self, name: &str) -> bool {
        self.names.binary_search_by(|n| (**n).cmp(name)).is_ok() == self.only
    }

    /// Writes the canonical form of the key of `labels`; `nameless` takes name, type and unit for absent.
    pub fn write(&self, buf: &mut String, labels: &Labels, nameless: bool) {
        buf.clear();
        if self.only && self.names.is_empty() {
            return;
        }
        for (name, value) in labels.iter() {
            if self.keeps(name) && !(nameless && is_reserved(name)) {
                push_canonical(buf, name, value);
            }
        }
    }

    /// The key of `labels` as a label set.
    pub fn of(&self, labels: &Labels) -> Labels {
        let mut buf = String::new();
        self.write(&mut buf, labels, false);
        Labels::from_canonical(&buf).unwrap_or_default()
    }
}

/// What a key takes in an index besides its text: its place in a table that is half full after it has grown.
const KEY_BYTES: usize = 2 * size_of::<(Box<str>, u32)>();

/// Numbers keys in order of their first appearance.
#[derive(Debug, Default)]
pub struct KeyIndex {
    numbers: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
}

impl KeyIndex {
    /// The number of a key and whether it is new; a new one is held.
    pub fn number(&mut self, key: &str, budget: &mut Budget) -> Result<(usize, bool), Error> {
        if let Some(n) = self.numbers.get(key) {
            return Ok((*n as usize, false));
        }
        budget.check()?;
        budget.hold(0, KEY_BYTES + key.len())?;
        let n = self.numbers.len();
        self.numbers.insert(Box::from(key), n as u32);
        Ok((n, true))
    }

    /// The number of a key that is there.
    pub fn find(&self, key: &str) -> Option<usize> {
        self.numbers.get(key).map(|n| *n as usize)
    }

    /// Number of keys.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }
}

/// Merges series of equal labels where they have no step in common, and fails where they have.
pub fn merge_equal(series: Vec<Series>, budget: &mut Budget) -> Result<Vec<Series>, Error> {
    if series.len() < 2 {
        return Ok(series);
    }
    let mut index = KeyIndex::default();
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    for s in series {
        budget.check()?;
        let (n, new) = index.number(s.labels.canonical(), budget)?;
        if new {
            out.push(s);
        } else if !out[n].column.merge(&s.column) {
            return Err(Error::same_labels());
        }
    }
    Ok(out)
}

/// As [`merge_equal`] for what was put together step by step: whether the name of a merged series is to go, its first
/// sample decides.
pub fn merge_steps(series: Vec<Series>, budget: &mut Budget) -> Result<Vec<Series>, Error> {
    let mut index = KeyIndex::default();
    let mut first: Vec<(usize, bool)> = Vec::new();
    for s in &series {
        budget.check()?;
        let steps = s.column.values.len();
        let found = ((0..steps).find(|step| s.column.has(*step)).unwrap_or(steps), s.dropped);
        match index.number(s.labels.canonical(), budget)? {
            (_, true) => first.push(found),
            (n, false) if found.0 < first[n].0 => first[n] = found,
            _ => {}
        }
    }
    let mut merged = merge_equal(series, budget)?;
    merged.iter_mut().zip(first).for_each(|(s, (_, dropped))| s.dropped = dropped);
    Ok(merged)
}

/// Whether two series have the same labels.
pub fn has_equal(series: &[Series], budget: &mut Budget) -> Result<bool, Error> {
    let mut index = KeyIndex::default();
    for s in series {
        if !index.number(s.labels.canonical(), budget)?.1 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::column::Column;
    use super::super::control::{CancelToken, Limits};
    use super::*;

    fn unbounded() -> Budget {
        Budget::new(Limits::default(), &CancelToken::default(), None)
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn keys_keep_or_leave_out_labels() {
        let all = labels(&[("__name__", "m"), ("a", "1"), ("b", "2")]);
        let names = [Arc::from("b")];
        assert_eq!(KeyLabels::only(&names).of(&all), labels(&[("b", "2")]));
        assert_eq!(KeyLabels::all_but(&names).of(&all), labels(&[("a", "1")]));
        assert_eq!(KeyLabels::only(&[]).of(&all), Labels::empty());
        assert_eq!(drop_reserved(&all), labels(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn the_first_sample_of_a_merged_series_decides_about_its_name() {
        let absent = Column::absent(1).values[0];
        let series = |values: [f64; 2], dropped| Series {
            labels: Labels::empty(),
            dropped,
            column: Column { values: values.to_vec(), histograms: Vec::new() },
        };
        let merged = |a, b| merge_steps(vec![a, b], &mut unbounded()).unwrap()[0].dropped;
        assert!(!merged(series([absent, 1.0], true), series([1.0, absent], false)));
        assert!(merged(series([1.0, absent], true), series([absent, 1.0], false)));
    }

    #[test]
    fn merges_what_does_not_overlap() {
        let series = |values: [f64; 2]| Series {
            labels: Labels::empty(),
            dropped: false,
            column: Column { values: values.to_vec(), histograms: Vec::new() },
        };
        let absent = Column::absent(1).values[0];
        let merged = merge_equal(vec![series([1.0, absent]), series([absent, 2.0])], &mut unbounded()).unwrap();
        assert_eq!(merged, [series([1.0, 2.0])]);
        assert!(merge_equal(vec![series([1.0, absent]), series([2.0, absent])], &mut unbounded()).is_err());
    }
}
