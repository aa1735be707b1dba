//! `info`: labels of info metrics (`target_info`) put onto the series of a vector.
//!
//! *Invariants:* series are paired by `instance` and `job`; of several info series of one metric the one with the newest
//! sample counts, step by step.
//!
//! *Not here:* which info series are selected (`plan::build`).

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::column::{Column, Series};
use super::control::Budget;
use super::error::Error;
use super::labels::{KeyIndex, KeyLabels};
use crate::model::{Labels, LabelsBuilder, METRIC_NAME, Matcher};
use crate::promql::functions::window::is_absent;

/// Labels that identify a target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric used where none is named.
const TARGET_INFO: &str = "target_info";

/// What a group of info series takes besides its labels, about.
const GROUP_BYTES: usize = 128;

/// Puts labels of info series onto `base`; the values of `info` are the timestamps (seconds) of their samples.
pub fn info(
    base: Vec<Series>,
    info: &[Series],
    matchers: &[Matcher],
    steps: usize,
    budget: &mut Budget,
) -> Result<Vec<Series>, Error> {
    let (names, data): (Vec<&Matcher>, Vec<&Matcher>) = matchers.iter().partition(|m| *m.name == *METRIC_NAME);
    let target_info = Matcher::equal(METRIC_NAME, TARGET_INFO);
    let names = if names.is_empty() && data.is_empty() { vec![&target_info] } else { names };
    // A series that is an info metric itself stays as it is. Only a positive condition can tell.
    let tells = names.iter().any(|m| !m.op.is_negative());
    let is_info = |l: &Labels| tells && names.iter().all(|m| m.matches(l.metric()));
    if info.iter().any(|s| !s.column.histograms.is_empty()) {
        return Err(Error::query("info sample should be float"));
    }
    check_newest(&base, &is_info, info, steps, budget)?;
    let pairing = Pairing::new(info, &data, budget)?;
    let mut out = Out { index: KeyIndex::default(), series: Vec::new(), steps, budget };
    for s in base {
        out.budget.check()?;
        if is_info(&s.labels) {
            let n = out.number(&s.labels, s.dropped)?;
            for step in 0..steps {
                out.put(n, &s, step)?;
            }
            continue;
        }
        pairing.enrich(&s, steps, &mut out)?;
    }
    Ok(out.series)
}

/// Of the info series of one metric and target one sample is the newest, at every step with anything to put labels on.
/// Only info series count whose identifying labels have values that occur there.
fn check_newest(
    base: &[Series],
    is_info: &impl Fn(&Labels) -> bool,
    info: &[Series],
    steps: usize,
    budget: &mut Budget,
) -> Result<(), Error> {
    // The values that occur there, and the steps with anything at all.
    let mut occurring = IDENTIFYING.map(|_| HashSet::<&str>::new());
    let mut live = vec![false; steps];
    for s in base {
        budget.check()?;
        live.iter_mut().enumerate().for_each(|(step, l)| *l |= s.column.has(step));
        if is_info(&s.labels) {
            continue;
        }
        for (values, name) in occurring.iter_mut().zip(IDENTIFYING) {
            let value = s.labels.get(name);
            if !value.is_empty() && values.insert(value) {
                budget.hold(0, 2 * size_of::<&str>())?;
            }
        }
    }
    if occurring.iter().all(|values| values.is_empty()) {
        return Ok(());
    }
    let occurs =
        |(values, name): (&HashSet<&str>, &str), s: &Series| values.is_empty() || values.contains(s.labels.get(name));
    let keys = KeyLabels::only(&IDENTIFYING.map(std::sync::Arc::from));
    let mut groups: BTreeMap<(Labels, &str), Vec<&Series>> = BTreeMap::new();
    for s in info.iter().filter(|s| occurring.iter().zip(IDENTIFYING).all(|of| occurs(of, s))) {
        budget.check()?;
        let key = (keys.of(&s.labels), s.labels.metric());
        budget.hold(0, GROUP_BYTES + key.0.heap_bytes())?;
        groups.entry(key).or_default().push(s);
    }
    for members in groups.values().filter(|m| m.len() > 1) {
        for step in (0..steps).filter(|step| live[*step]) {
            budget.check()?;
            newest(members.iter().map(|s| (*s, s.column.values[step])))?;
        }
    }
    Ok(())
}

/// The one of several series with the greatest value (a time, seconds); two with the same are an error.
fn newest<'s>(times: impl Iterator<Item = (&'s Series, f64)>) -> Result<Option<&'s Series>, Error> {
    let mut best: Option<(&Series, f64)> = None;
    for (series, t) in times.filter(|(_, t)| !is_absent(*t)) {
        match best {
            Some((known, newest)) if newest == t => {
                let ms = (t * 1000.0).round() as i64;
                let (a, b) = (&known.labels, &series.labels);
                return Err(Error::query(format!(
                    "found duplicate series for info metric: existing {a} @ {ms}, new {b} @ {ms}"
                )));
            }
            Some((_, newest)) if newest > t => {}
            _ => best = Some((series, t)),
        }
    }
    Ok(best.map(|(series, _)| series))
}

struct Out<'b> {
    index: KeyIndex,
    series: Vec<Series>,
    steps: usize,
    budget: &'b mut Budget,
}

impl Out<'_> {
    fn number(&mut self, labels: &Labels, dropped: bool) -> Result<usize, Error> {
        let (n, new) = self.index.number(labels.canonical(), self.budget)?;
        if new {
            let series = Series { labels: labels.clone(), dropped, column: Column::absent(self.steps) };
            self.budget.hold(0, series.bytes())?;
            self.series.push(series);
        }
        Ok(n)
    }

    fn put(&mut self, n: usize, from: &Series, step: usize) -> Result<(), Error> {
        let Some(sample) = from.column.sample(step) else { return Ok(()) };
        if self.series[n].column.has(step) {
            return Err(Error::same_labels());
        }
        self.series[n].column.put(step, sample);
        Ok(())
    }
}

struct Pairing<'a> {
    info: &'a [Series],
    data: &'a [&'a Matcher],
    keys: KeyLabels,
    /// By identifying labels: info series by metric name, names in order.
    by_target: HashMap<Labels, Vec<(&'a str, Vec<usize>)>>,
}

impl<'a> Pairing<'a> {
    fn new(info: &'a [Series], data: &'a [&'a Matcher], budget: &mut Budget) -> Result<Self, Error> {
        let keys = KeyLabels::only(&IDENTIFYING.map(std::sync::Arc::from));
        let mut by_target: HashMap<Labels, Vec<(&str, Vec<usize>)>> = HashMap::new();
        for (i, s) in info.iter().enumerate() {
            budget.check()?;
            let key = keys.of(&s.labels);
            budget.hold(0, GROUP_BYTES + key.heap_bytes())?;
            let metrics = by_target.entry(key).or_default();
            match metrics.iter_mut().find(|(name, _)| *name == s.labels.metric()) {
                Some((_, members)) => members.push(i),
                None => metrics.push((s.labels.metric(), vec![i])),
            }
        }
        Ok(Self { info, data, keys, by_target })
    }

    fn enrich(&self, base: &Series, steps: usize, out: &mut Out<'_>) -> Result<(), Error> {
        let target = self.keys.of(&base.labels);
        let none = Vec::new();
        let metrics = if target.is_empty() { &none } else { self.by_target.get(&target).unwrap_or(&none) };
        let mut known: HashMap<Vec<usize>, Option<usize>> = HashMap::new();
        for step in (0..steps).filter(|step| base.column.has(*step)) {
            let mut chosen = Vec::new();
            for (_, members) in metrics {
                chosen.extend(self.newest(members, step)?);
            }
            let number = match known.get(&chosen) {
                Some(n) => *n,
                None => {
                    let n = match self.combined(&base.labels, &chosen)? {
                        Some(labels) => Some(out.number(&labels, base.dropped)?),
                        None => None,
                    };
                    known.insert(chosen, n);
                    n
                }
            };
            if let Some(n) = number {
                out.put(n, base, step)?;
            }
        }
        Ok(())
    }

    fn newest(&self, members: &[usize], step: usize) -> Result<Option<usize>, Error> {
        let times = members.iter().map(|i| (&self.info[*i], self.info[*i].column.values[step]));
        let found = newest(times)?;
        Ok(found.and_then(|series| members.iter().copied().find(|i| std::ptr::eq(&self.info[*i], series))))
    }

    /// The base labels with those of the info series; `None` where the series is filtered out.
    fn combined(&self, base: &Labels, chosen: &[usize]) -> Result<Option<Labels>, Error> {
        if chosen.is_empty() {
            let all_optional = self.data.iter().all(|m| m.matches_empty());
            return Ok(all_optional.then(|| base.clone()));
        }
        let mut added = LabelsBuilder::new();
        let mut values: HashMap<&str, &str> = HashMap::new();
        for i in chosen {
            for (name, value) in self.info[*i].labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
                if !self.data.is_empty() && !self.data.iter().any(|m| *m.name == *name) {
                    continue;
                }
                if values.get(name).is_some_and(|v| *v != value) {
                    return Err(Error::query(format!("conflicting label: {name}")));
                }
                if !base.has(name) {
                    values.insert(name, value);
                    added.set(name, value);
                }
            }
        }
        let mut builder = base.to_builder();
        for (name, value) in added.build().iter() {
            builder.set(name, value);
        }
        Ok(Some(builder.build()))
    }
}
