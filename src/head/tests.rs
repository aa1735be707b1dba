//! The head against a map that keeps everything, and the corners one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::labels::series_hash;
use crate::model::time::{WINDOW_MS, window_start};
use crate::model::{
    Columns, ExemplarRow, Histogram, Labels, MatchOp, Matcher, MetadataRow, MetricType, SeriesId, Span, TenantId,
    TimeRange, stale_nan,
};
use crate::testkit::golden::golden;

const LIMIT: i64 = 3_600_000;

fn tenant() -> TenantId {
    TenantId::anonymous()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn create(head: &mut Head, tenant: &TenantId, labels: &Labels) -> SeriesId {
    head.get_or_create(tenant, series_hash(tenant.as_str(), labels.canonical()), labels.canonical())
}

fn equal(name: &str, value: &str) -> Matcher {
    Matcher::equal(name, value)
}

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher::new(name, op, value).unwrap()
}

fn read(series: HeadSeries) -> Columns {
    let (mut all, mut part) = (Columns::default(), Columns::default());
    let mut cursor = series.into_cursor();
    while cursor.next(&mut part).unwrap() {
        for i in 0..part.len() {
            match part.histogram(i) {
                Some(h) => all.push_histogram(part.timestamps[i], Arc::clone(h)),
                None => all.push_float(part.timestamps[i], part.values[i]),
            }
            all.set_last_start(part.start(i));
        }
    }
    all
}

fn restored(head: &Head) -> Head {
    let mut bytes = Vec::new();
    head.snapshot().write(&mut bytes).unwrap();
    let back = Head::restore(&mut &bytes[..], 0).unwrap();
    back.check_invariants();
    let mut again = Vec::new();
    back.snapshot().write(&mut again).unwrap();
    assert_eq!(bytes, again, "a restored head writes the same snapshot");
    back
}

fn simple_histogram(n: u32) -> Histogram {
    Histogram {
        integer: true,
        count: f64::from(n),
        sum: f64::from(n) * 2.0,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive: vec![f64::from(n)],
        ..Histogram::default()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Append { series: usize, dt: i64, v: u8, start: bool },
    Histogram { series: usize, dt: i64, n: u32 },
    Close { back: i64 },
    Flush { nth: usize },
    Restore,
}

fn op() -> impl Strategy<Value = Op> {
    let dt = prop_oneof![8 => 1i64..60_000, 4 => -90_000i64..=0, 2 => -LIMIT * 2..=0, 1 => 1i64..WINDOW_MS];
    let dt = dt.prop_map(|dt| dt / 1000 * 1000);
    prop_oneof![
        30 => (0usize..4, dt.clone(), 0u8..3, prop::bool::weighted(0.1))
            .prop_map(|(series, dt, v, start)| Op::Append { series, dt, v, start }),
        8 => (0usize..4, dt, 1u32..5).prop_map(|(series, dt, n)| Op::Histogram { series, dt, n }),
        2 => (0i64..3).prop_map(|back| Op::Close { back }),
        2 => (0usize..3).prop_map(|nth| Op::Flush { nth }),
        1 => Just(Op::Restore),
    ]
}

/// A sample of the model: value bits (of the sum for a histogram), whether a histogram, start, generation.
type Kept = (u64, bool, i64, u32);

#[derive(Default)]
struct Model {
    samples: BTreeMap<(usize, i64), Kept>,
    newest: Option<i64>,
    /// Closed generations, and the next one of each window.
    closed: Vec<(i64, u32)>,
    next: BTreeMap<i64, u32>,
}

impl Model {
    fn append(&mut self, series: usize, t: i64, bits: u64, histogram: bool, start: i64) -> Verdict {
        if self.newest.is_some_and(|newest| t < newest - LIMIT) {
            return Verdict::TooOld;
        }
        if let Some((held, kind, ..)) = self.samples.get(&(series, t)) {
            return if (*held, *kind) == (bits, histogram) { Verdict::Duplicate } else { Verdict::Conflict };
        }
        self.newest = self.newest.max(Some(t));
        let generation = self.next.get(&window_start(t)).copied().unwrap_or(0);
        self.samples.insert((series, t), (bits, histogram, start, generation));
        Verdict::Accepted
    }

    fn close(&mut self, start: i64) -> Option<u32> {
        let generation = self.next.get(&start).copied().unwrap_or(0);
        let any = self.samples.iter().any(|((_, t), kept)| window_start(*t) == start && kept.3 == generation);
        any.then(|| {
            self.closed.push((start, generation));
            self.next.insert(start, generation + 1);
            generation
        })
    }

    fn flush(&mut self, (start, generation): (i64, u32)) {
        self.closed.retain(|c| *c != (start, generation));
        self.samples.retain(|(_, t), kept| window_start(*t) != start || kept.3 != generation);
    }

    fn of(&self, series: usize, generation: Option<(i64, u32)>) -> Vec<(i64, u64, bool, i64)> {
        let mine = self.samples.range((series, i64::MIN)..=(series, i64::MAX));
        mine.filter(|((_, t), k)| generation.is_none_or(|g| g == (window_start(*t), k.3)))
            .map(|((_, t), k)| (*t, k.0, k.1, k.2))
            .collect()
    }
}

fn rows(c: &Columns) -> Vec<(i64, u64, bool, i64)> {
    (0..c.len()).map(|i| (c.timestamps[i], c.values[i].to_bits(), c.histogram(i).is_some(), c.start(i))).collect()
}

fn series_label(n: usize) -> Labels {
    labels(&[("__name__", "m"), ("n", &n.to_string())])
}

fn compare(head: &Head, model: &Model) {
    for n in 0..4 {
        let found = head.select(&tenant(), &[equal("n", &n.to_string())], TimeRange::all());
        let got = found.into_iter().next().map(read).unwrap_or_default();
        assert_eq!(rows(&got), model.of(n, None), "series {n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_map_through_closes_flushes_and_restores(ops in prop::collection::vec(op(), 1..250)) {
        let mut head = Head::new(HeadOptions::default(), 0);
        let mut model = Model::default();
        let mut now = 1_700_000_000_000i64;
        for op in ops {
            match op {
                Op::Append { series, dt, v, start } => {
                    let (t, start) = (now + dt, if start { now - 5000 } else { 0 });
                    let id = create(&mut head, &tenant(), &series_label(series));
                    let v = if v == 2 { stale_nan() } else { f64::from(v) };
                    let got = head.append_float(id, t, v, start, LIMIT);
                    prop_assert_eq!(got, model.append(series, t, v.to_bits(), false, start));
                    now = now.max(t);
                }
                Op::Histogram { series, dt, n } => {
                    let (t, h) = (now + dt, simple_histogram(n));
                    let bits = h.sum.to_bits();
                    let id = create(&mut head, &tenant(), &series_label(series));
                    let got = head.append_histogram(id, t, Arc::new(h), 0, LIMIT);
                    prop_assert_eq!(got, model.append(series, t, bits, true, 0));
                    now = now.max(t);
                }
                Op::Close { back } => {
                    let start = window_start(now) - back * WINDOW_MS;
                    prop_assert_eq!(head.close(start), model.close(start));
                }
                Op::Flush { nth } => {
                    if let Some((start, generation)) = model.closed.get(nth).copied() {
                        let snapshot = head.window_series(start, generation);
                        let series: Vec<_> = snapshot.tenants.iter().flat_map(|t| &t.series).collect();
                        let mut count = 0;
                        for n in 0..4 {
                            let want = model.of(n, Some((start, generation)));
                            let Some(found) = series.iter().find(|s| s.labels == series_label(n)) else {
                                prop_assert!(want.is_empty());
                                continue;
                            };
                            let mut out = Columns::default();
                            found.decode(&mut out).unwrap();
                            prop_assert_eq!(rows(&out), want);
                            count += out.len() as u64;
                        }
                        let windows = head.windows();
                        let info = windows.iter().find(|w| (w.start, w.generation) == (start, generation)).unwrap();
                        prop_assert_eq!((info.state, info.samples), (WindowState::Closed, count));
                        prop_assert!(head.mark_flushed(start, generation));
                        prop_assert!(!head.mark_flushed(start, generation));
                        model.flush((start, generation));
                    }
                }
                Op::Restore => head = restored(&head),
            }
        }
        head.check_invariants();
        compare(&head, &model);
        compare(&restored(&head), &model);
    }

    #[test]
    fn selects_exactly_what_the_matchers_say(
        sets in prop::collection::btree_set((0u8..5, 0u8..3, 0u8..12), 1..60),
        picked in prop::collection::vec((0usize..4, 0usize..4, 0usize..8), 0..4),
    ) {
        let mut head = Head::new(HeadOptions::default(), 0);
        let mut all = Vec::new();
        for (a, b, c) in sets {
            let text = |n: u8| if n == 0 { String::new() } else { n.to_string() };
            let l = Labels::from_pairs([("__name__", "m".into()), ("a", text(a)), ("b", text(b)), ("c", text(c))]);
            let id = create(&mut head, &tenant(), &l);
            head.append_float(id, 1000, 1.0, 0, LIMIT);
            all.push(l);
        }
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let values = ["", "1", "2", "1|2", "1|", ".*", ".+", "1.?"];
        let matchers: Vec<_> =
            picked.iter().map(|(n, op, v)| matcher(["a", "b", "c", "absent"][*n], ops[*op], values[*v])).collect();
        let mut got: Vec<_> =
            head.select(&tenant(), &matchers, TimeRange::all()).into_iter().map(|s| s.labels).collect();
        let mut want: Vec<_> =
            all.into_iter().filter(|l| crate::model::matcher::all_match(&matchers, l.canonical())).collect();
        got.sort();
        want.sort();
        prop_assert_eq!(&got, &want);
        let mut values: Vec<_> = want.iter().filter(|l| l.has("c")).map(|l| l.get("c").to_owned()).collect();
        values.sort();
        values.dedup();
        let mut found: Vec<_> = head.label_values(&tenant(), "c", &matchers, TimeRange::all()).collect();
        found.sort_unstable();
        prop_assert_eq!(found, values);
        let mut names: Vec<_> = want.iter().flat_map(|l| l.iter().map(|(n, _)| n.to_owned())).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(head.label_names(&tenant(), &matchers, TimeRange::all()), names);
    }

    #[test]
    fn damaged_snapshots_are_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut head = Head::new(HeadOptions::default(), 0);
        for n in 0..4 {
            let id = create(&mut head, &tenant(), &series_label(n));
            head.append_float(id, 1000 * n as i64, 1.5, 0, LIMIT);
        }
        let mut bytes = Vec::new();
        head.snapshot().write(&mut bytes).unwrap();
        let at = at.index(bytes.len());
        prop_assert!(Head::restore(&mut &bytes[..at], 0).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(Head::restore(&mut &bytes[..], 0).is_err());
    }
}

#[test]
fn a_snapshot_that_counts_other_samples_than_it_holds_is_refused() {
    let mut head = Head::new(HeadOptions::default(), 0);
    let id = create(&mut head, &tenant(), &series_label(1));
    head.append_float(id, 1000, 1.0, 0, LIMIT);
    head.windows.record(0, 1000, 1);
    let mut bytes = Vec::new();
    head.snapshot().write(&mut bytes).unwrap();
    let error = Head::restore(&mut &bytes[..], 0).unwrap_err().to_string();
    assert!(error.ends_with("its windows do not list what its series hold"), "{error}");
}

#[test]
fn late_samples_of_a_closed_window_open_the_next_generation() {
    let mut head = Head::new(HeadOptions::default(), 0);
    let id = create(&mut head, &tenant(), &series_label(1));
    assert_eq!(head.append_float(id, 1000, 1.0, 0, LIMIT), Verdict::Accepted);
    assert_eq!(head.close(0), Some(0));
    assert_eq!(head.append_float(id, 2000, 2.0, 0, LIMIT), Verdict::Accepted);
    assert_eq!(head.append_float(id, 1000, 1.0, 0, LIMIT), Verdict::Duplicate);
    assert_eq!(head.append_float(id, 1000, 9.0, 0, LIMIT), Verdict::Conflict);
    assert!(head.mark_flushed(0, 0));
    assert!(head.series_exists(id), "it is still being written");
    assert_eq!(head.append_float(id, 1000, 9.0, 0, LIMIT), Verdict::Accepted, "the head no longer knows");
    let infos: Vec<_> = head.windows().iter().map(|w| (w.generation, w.state, w.samples)).collect();
    assert_eq!(infos, [(1, WindowState::Open, 2)]);
    head.check_invariants();
}

#[test]
fn retired_ids_are_never_used_again() {
    let mut head = Head::new(HeadOptions::default(), 0);
    let ids: Vec<_> = (0..40).map(|n| create(&mut head, &tenant(), &series_label(n))).collect();
    for id in &ids {
        head.append_float(*id, 1000, 1.0, 0, LIMIT);
    }
    let open = head.select(&tenant(), &[equal("n", "3")], TimeRange::all());
    head.close(0);
    let before = head.bytes();
    assert!(head.mark_flushed(0, 0));
    head.check_invariants();
    assert!(head.bytes() < before);
    assert_eq!(head.stats().series, 0);
    assert!(head.label_names(&tenant(), &[], TimeRange::all()).is_empty());
    assert_eq!(head.append_float(ids[0], 2000, 1.0, 0, LIMIT), Verdict::UnknownSeries);
    assert!(create(&mut head, &tenant(), &series_label(0)) > ids[39]);
    assert_eq!(read(open.into_iter().next().unwrap()).len(), 1, "readers go on");
}

#[test]
fn rejects_samples_older_than_the_limit_and_out_of_any_range() {
    let mut head = Head::new(HeadOptions::default(), 0);
    let (a, b) = (create(&mut head, &tenant(), &series_label(0)), create(&mut head, &tenant(), &series_label(1)));
    assert_eq!(head.append_float(a, 10 * LIMIT, 1.0, 0, LIMIT), Verdict::Accepted);
    assert_eq!(head.append_float(b, 9 * LIMIT, 1.0, 0, LIMIT), Verdict::Accepted);
    assert_eq!(head.append_float(b, 9 * LIMIT - 1, 1.0, 0, LIMIT), Verdict::TooOld);
    for t in [i64::MIN, i64::MAX] {
        assert_eq!(head.append_float(a, t, 1.0, 0, i64::MAX), Verdict::TooOld);
    }
}

#[test]
fn tenants_do_not_see_each_other() {
    let mut head = Head::new(HeadOptions::default(), 0);
    let (x, y) = (TenantId::new("x").unwrap(), TenantId::new("y").unwrap());
    let l = series_label(0);
    let (a, b) = (create(&mut head, &x, &l), create(&mut head, &y, &l));
    assert_ne!(a, b);
    head.append_float(a, 1000, 1.0, 0, LIMIT);
    assert_eq!(head.select(&x, &[], TimeRange::all()).len(), 1);
    assert_eq!(head.select(&y, &[], TimeRange::all()).len(), 0);
    assert_eq!(head.tenant_stats(&y), Some(TenantStats { series: 1, newest_t: i64::MIN }));
    assert_eq!(head.lookup(&y, series_hash("y", l.canonical()), l.canonical()), Some(b));
    assert_eq!(head.lookup(&y, series_hash("y", l.canonical()), series_label(1).canonical()), None);
}

#[test]
fn exemplars_and_metadata_are_bounded_and_survive_restores() {
    let mut head = Head::new(HeadOptions { exemplars: 2, metadata_metrics: 1 }, 0);
    let id = create(&mut head, &tenant(), &series_label(0));
    head.append_float(id, 1000, 1.0, 0, LIMIT);
    let row = |t: i64| ExemplarRow { t, v: 0.5, labels: labels(&[("trace_id", "abc")]) };
    let verdicts: Vec<_> = [1, 2, 2, 1, 3].map(|t| head.append_exemplar(id, &row(t * 1000))).into();
    use Verdict::{Accepted, Duplicate, TooOld};
    assert_eq!(verdicts, [Accepted, Accepted, Duplicate, TooOld, Accepted]);
    let meta = |metric: &str, help: &str| MetadataRow {
        metric: metric.into(),
        kind: MetricType::Counter,
        help: help.into(),
        unit: "".into(),
    };
    assert!(head.put_metadata(&tenant(), meta("m", "one")) && head.put_metadata(&tenant(), meta("m", "two")));
    assert!(!head.put_metadata(&tenant(), meta("other", "no room")));
    let head = restored(&head);
    let found = head.exemplars(&tenant(), &[equal("n", "0")], TimeRange::new(0, 2500));
    assert_eq!(found.iter().flat_map(|s| &s.exemplars).map(|e| e.t).collect::<Vec<_>>(), [2000]);
    assert_eq!(head.metadata(&tenant(), Some("m")).len(), 2);
    assert_eq!(head.metadata(&tenant(), None).len(), 2);
    assert_eq!(head.window_series(0, 0).tenants[0].exemplars[0].exemplars.len(), 2);
}

/// A head with something of everything.
fn full() -> Head {
    let mut head = Head::new(HeadOptions { exemplars: 2, metadata_metrics: 2 }, 0);
    for n in 0..3 {
        let id = create(&mut head, &tenant(), &series_label(n));
        for t in 0..20 {
            head.append_float(id, t * 15_000, (t * t) as f64, if n == 0 { 1 } else { 0 }, LIMIT);
        }
        // Out of order.
        head.append_float(id, 7_500, 0.5, 0, LIMIT);
    }
    let id = create(&mut head, &tenant(), &labels(&[("__name__", "h")]));
    for n in 1..5u32 {
        head.append_histogram(id, i64::from(n) * 15_000, Arc::new(simple_histogram(n)), 0, LIMIT);
    }
    head.append_exemplar(id, &ExemplarRow { t: 9, v: 0.5, labels: labels(&[("trace_id", "abc")]) });
    let row = MetadataRow { metric: "h".into(), kind: MetricType::Histogram, help: "one".into(), unit: "s".into() };
    head.put_metadata(&tenant(), row);
    head
}

fn all_rows(head: &Head) -> Vec<Vec<(i64, u64, bool, i64)>> {
    head.select(&tenant(), &[], TimeRange::all()).into_iter().map(|series| rows(&read(series))).collect()
}

#[test]
fn snapshots_and_parts_of_the_release_before_are_read() {
    let head = full();
    let mut snapshot = Vec::new();
    head.snapshot().write(&mut snapshot).unwrap();
    let back = Head::restore(&mut &golden("head_snapshot_1.bin", &snapshot)[..], 0).unwrap();
    back.check_invariants();
    assert_eq!(all_rows(&back), all_rows(&head));
    let cut = head.part(&tenant(), Want::Samples, &[], TimeRange::all(), |_| Ok::<_, ()>(())).unwrap();
    let pieces: Vec<u8> = cut.into_pieces().flat_map(|piece| piece.unwrap()).collect();
    let mut reader = PartReader::default();
    reader.read(&golden("head_part_1.bin", &pieces)).unwrap();
    assert_eq!(all_rows(&reader.finish().unwrap()), all_rows(&head));
}
