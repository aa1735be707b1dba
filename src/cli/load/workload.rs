//! The series of a load run and their values: pure functions of (seed, series, time), so that a reader can verify them.
//!
//! *Invariants:* series `i` has the same labels and values in every run with the same seed, whatever the number of
//! series. Counters never fall between two whole seconds, but for the restart of their process every seven days.
//!
//! *Not here:* sending (`sender`).

use std::fmt::Write;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::slots::{FIELDS, Field, Shape, Slot, Text, machine, service};
use crate::model::Labels;

/// Pods per machine.
const PODS: usize = 4;
/// How long a process lives, seconds.
const LIFETIME: i64 = 7 * 86_400;

/// All series of a run.
pub struct Workload {
    seed: u64,
    /// A machine and its pods, series by series: the target's place in the block, and the slot.
    block: Vec<(u32, Slot)>,
}

/// The label values of one target.
#[derive(Default)]
pub(super) struct Target {
    number: Option<u64>,
    fields: [String; FIELDS],
}

impl Target {
    pub(super) fn text<'a>(&'a self, text: &'a Text) -> &'a str {
        match text {
            Text::Fixed(text) => text,
            Text::Of(field) => self.field(*field),
        }
    }

    pub(super) fn field(&self, field: Field) -> &str {
        &self.fields[field as usize]
    }
}

impl Workload {
    /// The workload of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut block: Vec<_> = machine().into_iter().map(|slot| (0, slot)).collect();
        for pod in 1..=PODS as u32 {
            block.extend(service().into_iter().map(|slot| (pod, slot)));
        }
        Self { seed, block }
    }

    /// Labels of series `i`.
    pub fn labels(&self, i: u64) -> Labels {
        let (slot, number) = self.slot(i);
        let mut target = Target::default();
        self.describe(number, &mut target);
        Labels::from_pairs(slot.labels.iter().map(|(name, text)| (*name, target.text(text))))
    }

    /// Value of series `i` at `t` (milliseconds).
    pub fn value(&self, i: u64, t: i64) -> f64 {
        let (slot, number) = self.slot(i);
        // Series of one histogram draw the same numbers, so that its buckets are cumulative.
        let own = self.draw(number, slot.group.into(), 0);
        let noise = unit(self.draw(number, slot.group.into(), t as u64));
        let age = (t.div_euclid(1000) + (own % LIFETIME as u64) as i64).rem_euclid(LIFETIME) as f64;
        // What happened up to now: an even rate of the series' own, and within a second by chance.
        let events = |rate: f64| ((age + noise) * rate * (0.1 + 0.9 * unit(own.rotate_left(20)))).floor();
        // Slow waves of a period of the series' own, and noise on top.
        let wave = || (age / (600.0 + 3000.0 * unit(own.rotate_left(40)))).sin() * 0.3 + 0.6 + 0.1 * noise;
        match slot.shape {
            Shape::Count(rate) => events(rate),
            Shape::Seconds(rate) => events(100.0 * rate) / 100.0,
            Shape::Bytes(scale) => (scale * wave() / 4096.0).floor() * 4096.0,
            Shape::Level(scale) => (scale * wave() * 1e3).round() / 1e3,
            Shape::Constant(value) => value,
            Shape::Bucket { rate, share } => (events(rate) * share).floor(),
            Shape::Sum { rate, mean } => (events(rate) * mean * 1e3).round() / 1e3,
        }
    }

    /// Calls `each` for the series of `range` in order, with their targets.
    pub(super) fn visit(&self, range: Range<u64>, mut each: impl FnMut(u64, &Slot, &Target)) {
        let mut target = Target::default();
        for i in range {
            let (slot, number) = self.slot(i);
            self.describe(number, &mut target);
            each(i, slot, &target);
        }
    }

    /// All slots of a block, for tables made once.
    pub(super) fn block(&self) -> impl Iterator<Item = &Slot> {
        self.block.iter().map(|(_, slot)| slot)
    }

    fn slot(&self, i: u64) -> (&Slot, u64) {
        let (block, at) = (i / self.block.len() as u64, (i % self.block.len() as u64) as usize);
        let (place, slot) = &self.block[at];
        (slot, block * (PODS as u64 + 1) + u64::from(*place))
    }

    fn draw(&self, target: u64, group: u64, t: u64) -> u64 {
        let mut bytes = [0; 24];
        for (into, n) in bytes.chunks_exact_mut(8).zip([target, group, t]) {
            into.copy_from_slice(&n.to_le_bytes());
        }
        xxh3_64_with_seed(&bytes, self.seed)
    }

    /// Writes the label values of a target, unless they are those of the last one.
    fn describe(&self, number: u64, target: &mut Target) {
        if target.number.replace(number) == Some(number) {
            return;
        }
        const SERVICES: [&str; 8] =
            ["checkout", "payments", "inventory-api", "search", "recommendations", "user-profile", "gateway", "mailer"];
        let hash = self.draw(number, u64::MAX, 0);
        let machine = number / (PODS as u64 + 1);
        let service = SERVICES[(hash % 8) as usize];
        let [a, b, c] = [(machine >> 16) as u8, (machine >> 8) as u8, machine as u8];
        let place = number % (PODS as u64 + 1);
        let mut set = |field: Field, text: std::fmt::Arguments<'_>| {
            let into = &mut target.fields[field as usize];
            into.clear();
            // Writing into a string does not fail.
            let _ = into.write_fmt(text);
        };
        set(Field::Cluster, format_args!("prod-{}", machine % 3));
        set(Field::Instance, format_args!("10.{a}.{b}.{c}:{}", 9100 + place));
        set(Field::Namespace, format_args!("team-{}", hash % 8));
        set(Field::Node, format_args!("ip-10-{a}-{b}-{c}.eu-central-1.compute.internal"));
        set(Field::Pod, format_args!("{service}-{:08x}-{:05x}", (hash >> 32) as u32, number & 0xf_ffff));
        set(Field::Region, format_args!("eu-central-{}", machine % 3));
        set(Field::Service, format_args!("{service}"));
    }
}

/// A number from 0 to 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn series_are_distinct_and_look_like_kubernetes() {
        let w = Workload::new(1);
        let all: HashSet<Labels> = (0..5000).map(|i| w.labels(i)).collect();
        assert_eq!(all.len(), 5000);
        let labels = all.iter().map(Labels::len).sum::<usize>() as f64 / 5000.0;
        assert!((8.0..12.0).contains(&labels), "{labels} labels per series");
    }

    #[test]
    fn values_depend_on_seed_series_and_time_alone() {
        let (a, b, other) = (Workload::new(1), Workload::new(1), Workload::new(2));
        let draw = |w: &Workload| (0..2000).map(|i| w.value(i, 1_760_000_000_000 + i as i64)).collect::<Vec<_>>();
        assert_eq!(draw(&a), draw(&b));
        assert_ne!(draw(&a), draw(&other));
    }

    #[test]
    fn counters_never_fall_and_buckets_are_cumulative() {
        let w = Workload::new(3);
        for i in 0..1000 {
            let labels = w.labels(i);
            let name = labels.metric();
            if !(name.ends_with("_total") || name.ends_with("_bucket")) {
                continue;
            }
            let times = (0..100).map(|k| 1_760_000_000_000 + k * 1000);
            let values: Vec<f64> = times.map(|t| w.value(i, t)).collect();
            let falls = values.windows(2).filter(|v| v[1] < v[0]).count();
            assert!(falls <= 1, "{labels} fell {falls} times");
            let bound: f64 = labels.get("le").parse().unwrap_or(f64::INFINITY);
            if name.ends_with("_bucket") && bound.is_finite() {
                let next = w.value(i + 1, 1_760_000_000_000);
                assert!(values[0] <= next, "{labels}");
            }
        }
    }
}
