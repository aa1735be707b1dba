//! Entries round-trip and survive any bytes.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{Histogram, ResetHint, Span};
use crate::testkit::golden::golden;

fn histogram() -> Histogram {
    Histogram {
        integer: true,
        schema: 3,
        reset_hint: ResetHint::NotReset,
        zero_threshold: 1e-128,
        zero_count: 2.0,
        count: 9.0,
        sum: 18.4,
        positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }],
        positive: vec![1.0, 2.0, 4.0],
        ..Histogram::default()
    }
}

#[test]
fn append_keeps_every_row_and_its_order() {
    let mut b = SectionBuilder::default();
    let new = b.new_series(7, "\u{1}a\u{1}1");
    b.float(SeriesRef::Known(900), &SampleRow { t: 1_700_000_000_000, v: -0.0, start: 0 });
    b.float(
        new,
        &SampleRow { t: 1_700_000_000_000, v: f64::from_bits(0x7ff0_0000_0000_0002), start: 1_600_000_000_000 },
    );
    b.float(SeriesRef::Known(0), &SampleRow { t: -5, v: f64::INFINITY, start: -5 });
    let h = HistogramRow { t: 3, h: Arc::new(histogram()), start: 9 };
    b.histogram(new, &h);
    let e = ExemplarRow { t: 4, v: 0.5, labels: Labels::from_pairs([("trace_id", "x")]) };
    b.exemplar(SeriesRef::Known(1), &e);
    let m = MetadataRow { metric: "up".into(), kind: MetricType::Gauge, help: "is it".into(), unit: "".into() };
    b.metadata(&m);
    let (one, two) = (b.finish("team-a", 3_600_000), SectionBuilder::default().finish("team-b", 0));

    let entry = append_entry([one.as_slice(), two.as_slice()].into_iter());
    let Command::Append(sections) = Command::decode(&entry).unwrap() else { panic!("not an append") };
    assert_eq!((sections[0].tenant, sections[0].out_of_order_ms, sections[1].tenant), ("team-a", 3_600_000, "team-b"));
    assert_eq!(sections[0].new_series().collect::<Vec<_>>(), [Ok((7, "\u{1}a\u{1}1"))]);
    let floats: Vec<_> =
        sections[0].floats().map(|f| f.map(|(r, s)| (r, s.t, s.v.to_bits(), s.start)).unwrap()).collect();
    assert_eq!(
        floats,
        [
            (SeriesRef::Known(900), 1_700_000_000_000, (-0.0f64).to_bits(), 0),
            (SeriesRef::New(0), 1_700_000_000_000, 0x7ff0_0000_0000_0002, 1_600_000_000_000),
            (SeriesRef::Known(0), -5, f64::INFINITY.to_bits(), -5),
        ]
    );
    assert_eq!(sections[0].histograms().collect::<Vec<_>>(), [Ok((SeriesRef::New(0), h))]);
    assert_eq!(sections[0].exemplars().collect::<Vec<_>>(), [Ok((SeriesRef::Known(1), e))]);
    assert_eq!(sections[0].metadata().collect::<Vec<_>>(), [Ok(m)]);
    assert_eq!(sections[1].floats().count(), 0);
}

#[test]
fn control_entries_round_trip() {
    let entry = close_entry(-7_200_000);
    assert!(matches!(Command::decode(&entry), Ok(Command::Close { window_start: -7_200_000 })));
    let entry = flushed_entry(12, &[("a".into(), 3)]);
    let Ok(Command::Flushed { sequence: 12, tables }) = Command::decode(&entry) else { panic!("not flushed") };
    assert_eq!(tables, [("a".to_owned(), 3)]);
}

/// Reads everything there is, so that a malformed part cannot hide.
fn read_all(entry: &[u8]) -> Result<(), Malformed> {
    if let Command::Append(sections) = Command::decode(entry)? {
        for s in sections {
            s.new_series().try_for_each(|r| r.map(drop))?;
            s.floats().try_for_each(|r| r.map(drop))?;
            s.histograms().try_for_each(|r| r.map(drop))?;
            s.exemplars().try_for_each(|r| r.map(drop))?;
            s.metadata().try_for_each(|r| r.map(drop))?;
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read(mut bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..5) {
        bytes.insert(0, kind);
        bytes.insert(0, VERSION);
        let _ = read_all(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0usize..400, with in any::<u8>()) {
        let mut b = SectionBuilder::default();
        let new = b.new_series(7, "\u{1}a\u{1}1");
        for i in 0..20 {
            b.float(SeriesRef::Known(i), &SampleRow { t: i64::from(i), v: 1.0, start: 1 });
        }
        b.histogram(new, &HistogramRow { t: 3, h: Arc::new(histogram()), start: 9 });
        let section = b.finish("t", 5);
        let mut entry = append_entry([section.as_slice()].into_iter()).to_vec();
        let len = entry.len();
        entry[at % len] = with;
        let _ = read_all(&entry);
    }
}

#[test]
fn a_section_of_another_node_is_taken_only_if_all_of_it_can_be_read_and_it_makes_no_series() {
    let mut section = SectionBuilder::default();
    section.float(SeriesRef::Known(7), &SampleRow { t: 5, v: 1.5, start: 0 });
    let good = section.finish("t", 0);
    assert!(check_known(&good).is_ok());
    for cut in 0..good.len() {
        assert!(check_known(&good[..cut]).is_err(), "cut off at {cut}");
    }
    let mut section = SectionBuilder::default();
    let new = section.new_series(1, "\u{1}a\u{1}b");
    section.float(new, &SampleRow { t: 5, v: 1.5, start: 0 });
    assert!(check_known(&section.finish("t", 0)).is_err());
    let mut section = SectionBuilder::default();
    section.float(SeriesRef::Known(7), &SampleRow { t: 5, v: 1.5, start: 0 });
    assert!(check_known(&section.finish("..", 0)).is_err());
}

/// What the logs of running nodes hold.
#[test]
fn entries_of_the_release_before_are_read() {
    let mut b = SectionBuilder::default();
    let new = b.new_series(7, "\u{1}a\u{1}1");
    b.float(SeriesRef::Known(900), &SampleRow { t: 1_700_000_000_000, v: -0.0, start: 0 });
    b.float(new, &SampleRow { t: 1_700_000_000_000, v: 1.5, start: 1_600_000_000_000 });
    b.histogram(new, &HistogramRow { t: 3, h: Arc::new(histogram()), start: 9 });
    b.exemplar(SeriesRef::Known(1), &ExemplarRow { t: 4, v: 0.5, labels: Labels::from_pairs([("trace_id", "x")]) });
    b.metadata(&MetadataRow { metric: "up".into(), kind: MetricType::Gauge, help: "is it".into(), unit: "".into() });
    let section = b.finish("team-a", 3_600_000);
    let kept = |name: &str, entry: Bytes| golden(name, &entry);
    let append = kept("entry_append_1.bin", append_entry([section.as_slice()].into_iter()));
    assert!(read_all(&append).is_ok());
    let Ok(Command::Append(sections)) = Command::decode(&append) else { panic!("not an append") };
    assert_eq!((sections[0].tenant, sections[0].float_count()), ("team-a", 2));
    let close = kept("entry_close_1.bin", close_entry(-7_200_000));
    assert!(matches!(Command::decode(&close), Ok(Command::Close { window_start: -7_200_000 })));
    let flushed = kept("entry_flushed_1.bin", flushed_entry(12, &[("a".into(), 3)]));
    assert!(matches!(Command::decode(&flushed), Ok(Command::Flushed { sequence: 12, .. })));
    let seal = kept("entry_seal_1.bin", seal_entry());
    assert!(matches!(Command::decode(&seal), Ok(Command::Seal)));
}
