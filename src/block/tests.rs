//! Round trips of whole blocks through an in-memory store, broken bytes, pinned bytes.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::file::metadata::ParquetMetaDataReader;
use proptest::prelude::*;

use super::*;
use crate::error::{HasKind, Kind as ErrorKind};
use crate::model::labels::series_hash;
use crate::model::{
    BlockName, Columns, Epoch, Exemplar, Histogram, Labels, MatchOp, Matcher, ResetHint, ShardId, Span, TenantId,
    TimeRange, stale_nan,
};

const HOUR: i64 = 3_600_000;
const START: i64 = 1_780_272_000_000;

fn options() -> WriterOptions {
    WriterOptions::flush(BlockName::of_flush(Epoch(1), ShardId(3), START, 7))
}

#[derive(Debug, Clone, PartialEq)]
struct Series {
    labels: Labels,
    samples: Columns,
    exemplars: Vec<Exemplar>,
}

fn of(labels: &[(&str, &str)], samples: Columns) -> Series {
    Series { labels: Labels::from_pairs(labels.iter().copied()), samples, exemplars: Vec::new() }
}

fn floats(values: &[f64]) -> Columns {
    let mut c = Columns::default();
    for (i, v) in values.iter().enumerate() {
        c.push_float(START + 15_000 * i as i64 + (i as i64 * 7) % 11, *v);
    }
    c
}

fn write(options: WriterOptions, series: &[Series]) -> Block {
    let mut writer = BlockWriter::new(options).unwrap();
    for (i, s) in series.iter().enumerate() {
        let input = SeriesInput { labels: &s.labels, hash: hash(i), samples: &s.samples, exemplars: &s.exemplars };
        writer.push(input).unwrap();
    }
    writer.finish().unwrap()
}

fn hash(i: usize) -> u64 {
    (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

async fn put(block: &Block) -> (Arc<dyn ObjectStore>, Vec<FileRef>) {
    let store = Arc::new(InMemory::new());
    let mut files = Vec::new();
    for file in &block.files {
        let path = Path::from(format!("{}/{}.parquet", block.name, file.kind));
        store.put(&path, file.bytes.clone().into()).await.unwrap();
        files.push(FileRef { kind: file.kind, path, size: file.bytes.len() as u64 });
    }
    (store, files)
}

async fn open(block: &Block) -> BlockReader {
    let (store, files) = put(block).await;
    BlockReader::open(store, files).await.unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Compared by bits: NaN payloads and signed zeros count.
fn bits(c: &Columns) -> (Vec<i64>, Vec<u64>, Vec<i64>, String) {
    let starts = (0..c.len()).map(|i| c.start(i)).collect();
    (c.timestamps.clone(), c.values.iter().map(|v| v.to_bits()).collect(), starts, histogram_bits(c))
}

fn histogram_bits(c: &Columns) -> String {
    let one = |h: &Histogram| {
        let all = [h.zero_threshold, h.zero_count, h.count, h.sum].into_iter();
        let all = all.chain(h.positive.iter().chain(&h.negative).chain(&h.custom_values).copied());
        let bits: Vec<u64> = all.map(f64::to_bits).collect();
        format!("{} {} {:?} {:?} {:?} {bits:?}", h.integer, h.schema, h.reset_hint, h.positive_spans, h.negative_spans)
    };
    c.histograms.iter().map(|(i, h)| format!("{i}: {}; ", one(h))).collect()
}

fn check_round_trip(options: WriterOptions, series: &[Series]) {
    run(async {
        let reader = open(&write(options, series)).await;
        let (mut scan, mut back) = (reader.read_all(3), Vec::new());
        while let Some(batch) = scan.next().await.unwrap() {
            back.extend(batch);
        }
        let written: Vec<_> = series.iter().enumerate().filter(|(_, s)| !s.samples.is_empty()).collect();
        assert_eq!(back.len(), written.len());
        for (got, (i, want)) in back.iter().zip(written) {
            assert_eq!((&got.labels, got.hash), (&want.labels, hash(i)));
            assert_eq!(bits(&got.samples), bits(&want.samples), "{}", got.labels);
        }
        let exemplars = reader.exemplars(&[], TimeRange::all()).await.unwrap();
        let written = series.iter().filter(|s| !s.exemplars.is_empty());
        assert_eq!(exemplars, written.map(|s| (s.labels.clone(), s.exemplars.clone())).collect::<Vec<_>>());
    });
}

fn histogram(seed: i64) -> Arc<Histogram> {
    let (f, even, custom) = (seed as f64, seed % 2 == 0, seed % 3 == 0);
    let buckets = 2 + usize::from(even);
    let zero_count = if custom { 0.0 } else { f };
    let (first, gap) = if custom { (0, 1) } else { (-2, 4) };
    Arc::new(Histogram {
        integer: even,
        schema: if custom { -53 } else { 3 },
        reset_hint: ResetHint::from_u8((seed % 4) as u8),
        zero_threshold: if custom { 0.0 } else { 1e-128 },
        zero_count,
        count: zero_count + f * buckets as f64,
        sum: if seed % 5 == 0 { stale_nan() } else { f / 7.0 },
        positive_spans: vec![Span { offset: first, length: 2 }, Span { offset: gap, length: u32::from(even) }],
        positive: vec![f; buckets],
        negative_spans: if custom { vec![] } else { vec![Span { offset: 0, length: 1 }] },
        negative: if custom { vec![] } else { vec![-0.0] },
        custom_values: if custom { vec![0.1, 0.5, f + 1.0] } else { vec![] },
    })
}

fn sample_set() -> Vec<Series> {
    let nan = f64::from_bits(0x7ff8_0000_dead_beef);
    let mut counters = floats(&[1.0, 2.0, 3.0]);
    counters.set_last_start(START - 5);
    let mut mixed = floats(&[0.5, 1.5]);
    for i in 2..9 {
        mixed.push_histogram(START + 15_000 * i, histogram(i));
    }
    mixed.push_float(START + 200_000, 7.0);
    mixed.set_last_start(START);
    let mut late = floats(&[1.0, 2.0, 3.0]);
    late.push_float(START + 2 * HOUR, 4.5);
    late.push_float(START + 5 * HOUR, 1.0 / 3.0);
    late.push_float(START + 9 * HOUR, 5.0);
    let mut with_exemplars = of(&[("__name__", "e"), ("le", "0.5"), ("zone", "z")], floats(&[1e300, 5e-324]));
    with_exemplars.exemplars = vec![
        Exemplar { labels: Labels::from_pairs([("trace_id", "abc")]), value: 0.25, t: START + 1 },
        Exemplar { labels: Labels::empty(), value: -0.0, t: START + 2 },
    ];
    vec![
        of(&[("job", "nameless")], floats(&[f64::INFINITY, f64::NEG_INFINITY, nan])),
        of(&[("__name__", "a"), ("job", "x"), ("instance", "1")], floats(&[1.0, stale_nan(), 0.0, -0.0])),
        of(&[("__name__", "a"), ("job", "x"), ("instance", "2")], floats(&[stale_nan(), stale_nan()])),
        of(
            &[("__name__", "a"), ("job", "x"), ("instance", "3"), ("é\u{1}", "ü")],
            floats(&[0.1, 0.25, stale_nan(), 3.75]),
        ),
        of(&[("__name__", "b"), ("job", "x")], counters),
        of(&[("__name__", "c"), ("job", "x")], mixed),
        of(&[("__name__", "d"), ("job", "x")], late),
        with_exemplars,
        Series {
            labels: Labels::from_pairs([("__name__", "f")]),
            samples: Columns::default(),
            exemplars: vec![Exemplar { labels: Labels::empty(), value: 1.0, t: START }],
        },
    ]
}

#[test]
fn everything_comes_back_bit_for_bit() {
    check_round_trip(options(), &sample_set());
    let small = WriterOptions { row_group_rows: 2, page_rows: 1, slice_ms: HOUR, ..options() };
    check_round_trip(WriterOptions { promoted: vec!["instance".into()], ..small.clone() }, &sample_set());
    check_round_trip(WriterOptions { promoted: vec![], slice_ms: 24 * HOUR, ..small }, &sample_set());
}

#[test]
fn equal_input_gives_equal_bytes() {
    let files = |b: Block| b.files.into_iter().map(|f| f.bytes).collect::<Vec<_>>();
    assert_eq!(files(write(options(), &sample_set())), files(write(options(), &sample_set())));
}

#[test]
fn bytes_of_this_format_version_are_pinned() {
    let block = write(options(), &sample_set());
    let sums: Vec<String> =
        block.files.iter().map(|f| format!("{} {:08x}", f.kind, crc32fast::hash(&f.bytes))).collect();
    // A change here is a new format version: bump `schema::VERSION` and keep reading the old one.
    let pinned = "series 5f116d46, timelines 21e3bc5a, samples ba836841, histograms c1cac248, exemplars 989c1018";
    assert_eq!(sums.join(", "), pinned);
}

#[test]
fn hashes_that_follow_from_the_tenant_are_not_stored() {
    let set = sample_set();
    let tenant = TenantId::new("team-1").unwrap();
    let mut writer = BlockWriter::new(options().for_tenant(&tenant)).unwrap();
    let of_tenant = |s: &Series| series_hash("team-1", s.labels.canonical());
    for s in &set {
        let wrong = SeriesInput { labels: &s.labels, hash: 1, samples: &s.samples, exemplars: &s.exemplars };
        assert!(writer.push(wrong).is_err());
        writer.push(SeriesInput { hash: of_tenant(s), ..wrong }).unwrap();
    }
    let reader = run(open(&writer.finish().unwrap()));
    let want: Vec<_> = set.iter().map(|s| (s.labels.clone(), of_tenant(s))).collect();
    assert_eq!(reader.series(&[], TimeRange::all()).collect::<Vec<_>>(), want);
}

#[test]
fn a_block_without_series_has_no_files() {
    let block = write(options(), &[]);
    assert_eq!((block.files.len(), block.samples), (0, 0));
    let reader = run(open(&block));
    assert_eq!(run(reader.select(&[], TimeRange::all())).unwrap(), []);
}

#[test]
fn statistics_name_the_extremes() {
    let block = write(options(), &sample_set());
    let stats = |kind| &block.files.iter().find(|f| f.kind == kind).unwrap().stats;
    assert_eq!((block.series, block.min_ts, block.max_ts), (9, START, START + 9 * HOUR));
    assert_eq!(stats(Kind::Samples).samples + stats(Kind::Histograms).samples, block.samples);
    assert_eq!(stats(Kind::Samples).metric, Some((String::new(), "e".into())));
    assert_eq!(stats(Kind::Histograms).metric, Some(("c".into(), "c".into())));
    assert_eq!((stats(Kind::Samples).min_ts, stats(Kind::Samples).max_ts), (START, START + 9 * HOUR));
    let hashes: Vec<i64> = (0..9).map(|i| hash(i) as i64).collect();
    assert_eq!(stats(Kind::Series).series_hash, hashes.iter().min().copied().zip(hashes.iter().max().copied()));
}

#[test]
fn refuses_series_out_of_order_and_columns_that_do_not_fit() {
    let set = sample_set();
    let mut writer = BlockWriter::new(options()).unwrap();
    let input = |s| -> SeriesInput<'_> {
        let s: &Series = s;
        SeriesInput { labels: &s.labels, hash: 0, samples: &s.samples, exemplars: &[] }
    };
    writer.push(input(&set[4])).unwrap();
    for wrong in [&set[4], &set[3]] {
        assert!(matches!(writer.push(input(wrong)), Err(Error::Input { .. })));
    }
    let mut twice = of(&[("__name__", "z")], floats(&[1.0]));
    twice.samples.push_float(twice.samples.timestamps[0], 2.0);
    assert!(matches!(writer.push(input(&twice)), Err(Error::Input { .. })));
    assert!(BlockWriter::new(WriterOptions { promoted: vec!["a-b".into()], ..options() }).is_err());
}

#[test]
fn series_taken_in_any_order_give_the_same_and_in_block_order_hold_one_batch() {
    run(async {
        let set: Vec<Series> = (100..300)
            .map(|i| of(&[("__name__", "m"), ("instance", &i.to_string())], floats(&[f64::from(i), 0.1, -1.0 / 3.0])))
            .collect();
        let reader = open(&write(options(), &set)).await;
        let take = |s: PackedSeries| (s.labels.clone(), bits(&s.samples().unwrap()));
        let mut decoded = 0;
        let mut in_order = Vec::new();
        for series in reader.select_packed(&[], TimeRange::all()).await.unwrap() {
            let batches = series.open_batches();
            in_order.push(take(series));
            decoded += usize::from(batches == 0);
            assert!(batches <= 1, "{batches} batches");
        }
        assert!((3..=13).contains(&decoded), "{decoded} batches of 200 series");
        let mut reversed: Vec<_> = reader.select_packed(&[], TimeRange::all()).await.unwrap();
        reversed.reverse();
        let mut reversed: Vec<_> = reversed.into_iter().map(take).collect();
        reversed.reverse();
        assert_eq!(reversed, in_order);
        let want: Vec<_> = set.iter().map(|s| (s.labels.clone(), bits(&s.samples))).collect();
        assert_eq!(in_order, want);
    });
}

#[test]
fn a_second_reader_gets_the_same_afterwards_and_side_by_side() {
    run(async {
        let set: Vec<Series> =
            (100..300).map(|i| of(&[("__name__", "m"), ("i", &i.to_string())], floats(&[f64::from(i), 0.5]))).collect();
        let reader = open(&write(options(), &set)).await;
        let want: Vec<_> = set.iter().map(|s| bits(&s.samples)).collect();
        let take = |s: PackedSeries| bits(&s.samples().unwrap());
        let first = reader.select_packed(&[], TimeRange::all()).await.unwrap();
        let second = first.clone();
        let watch = first[0].clone();
        assert_eq!(first.into_iter().map(take).collect::<Vec<_>>(), want);
        assert_eq!(watch.open_batches(), 0);
        let third = second.clone();
        // Side by side, one a few series behind the other.
        let (mut ahead, mut behind) = (Vec::new(), Vec::new());
        let mut late = third.into_iter();
        for (i, series) in second.into_iter().enumerate() {
            ahead.push(take(series));
            if i >= 5 {
                behind.extend(late.next().map(take));
            }
        }
        behind.extend(late.map(take));
        assert_eq!((&ahead, &behind), (&want, &want));
    });
}

#[test]
fn selects_by_labels_and_time() {
    run(async {
        let set = sample_set();
        let reader = open(&write(WriterOptions { row_group_rows: 2, ..options() }, &set)).await;
        let m = |name: &str, op, value: &str| Matcher::new(name, op, value).unwrap();
        let names = |found: Vec<BlockSeries>| found.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>();
        let select = async |m: &[Matcher], range| names(reader.select(m, range).await.unwrap());
        let all = TimeRange::all();
        let a = m("__name__", MatchOp::Equal, "a");
        let two_of_a = [a.clone(), m("instance", MatchOp::Regex, "1|2")];
        assert_eq!(select(&two_of_a, all).await, ["a{instance=\"1\", job=\"x\"}", "a{instance=\"2\", job=\"x\"}"]);
        assert_eq!(select(&[m("instance", MatchOp::Equal, "")], all).await.len(), 5);
        assert_eq!(select(&[m("job", MatchOp::NotEqual, "x")], all).await.len(), 2);
        assert_eq!(select(&[m("nowhere", MatchOp::Equal, "x")], all).await.len(), 0);
        assert_eq!(select(&[m("nowhere", MatchOp::NotEqual, "x")], all).await.len(), 8);
        let late = reader.select(&[], TimeRange::new(START + HOUR, START + 5 * HOUR)).await.unwrap();
        assert_eq!(late.len(), 1);
        assert_eq!(late[0].samples.values, [4.5, 1.0 / 3.0]);
        let c = reader.select(&[m("__name__", MatchOp::Equal, "c")], TimeRange::new(START + 1, START + 45_000)).await;
        let c = &c.unwrap()[0].samples;
        assert_eq!((c.len(), c.histograms.len(), c.values[0]), (3, 2, 1.5));
        assert_eq!(reader.label_values("instance", &[a], all).into_iter().collect::<Vec<_>>(), ["1", "2", "3"]);
        let e = [m("__name__", MatchOp::Equal, "e")];
        assert_eq!(reader.label_names(&e, all).into_iter().collect::<Vec<_>>(), ["__name__", "le", "zone"]);
        assert!(reader.heap_bytes() > 1000);
    });
}

#[test]
fn broken_files_are_corrupt_and_never_panic() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let block = write(WriterOptions { row_group_rows: 4, ..options() }, &sample_set());
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut failed = 0;
    for round in 0..150 {
        let mut broken = block.clone();
        let which = round % broken.files.len();
        let file = &mut broken.files[which];
        let mut bytes = file.bytes.to_vec();
        match round % 3 {
            0 => bytes.truncate(random() % bytes.len()),
            // Footers are where structure lies; hit them more often than their size would.
            1 => {
                let at = bytes.len() - 1 - random() % (bytes.len() / 3);
                bytes[at] ^= 1 << (random() % 8);
            }
            _ => (0..4).for_each(|_| {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }),
        }
        file.bytes = bytes.into();
        run(async {
            let (store, files) = put(&broken).await;
            let result = async {
                let reader = BlockReader::open(store, files).await?;
                let mut scan = reader.read_all(100);
                while scan.next().await?.is_some() {}
                reader.exemplars(&[], TimeRange::all()).await.map(|_| ())
            };
            if let Err(e) = result.await {
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
                failed += 1;
            }
        });
    }
    std::panic::set_hook(hook);
    assert!(failed > 50, "{failed}");
}

/// Bytes that claim sizes the `parquet` crate would allocate before it looks at what is there.
#[test]
fn refuses_forged_sizes_before_they_are_allocated() {
    let block = write(options(), &sample_set());
    let at = block.files.iter().position(|f| f.kind == Kind::Samples).unwrap();
    let bytes = block.files[at].bytes.clone();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
    let column = metadata.row_group(0).columns().iter().find(|c| c.column_path().string().starts_with("value_f"));
    let column = column.unwrap();
    let (page, index) = (column.data_page_offset() as usize, column.offset_index_offset().unwrap() as usize);
    let footer = bytes.len() - 8 - u32::from_le_bytes(*bytes[bytes.len() - 8..].first_chunk().unwrap()) as usize;
    let forgeries: [(usize, &[u8], &str); 4] = [
        // A list of 2^31 - 1 pages.
        (index, &[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07], "broken offset index"),
        // A page of 2^31 - 1 bytes.
        (page, &[0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 2, 0], "0 values in 2147483647 bytes"),
        // Statistics with a smallest value of 2^40 bytes.
        (page, &[0x5c, 0x5c, 0x58, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20], "a broken header"),
        // A schema of structs in structs.
        (footer, &[0x29, 0xfc, 70].into_iter().chain([0x55, 2, 0].repeat(70)).collect::<Vec<u8>>(), "broken metadata"),
    ];
    for (place, forged, want) in forgeries {
        let (mut broken, mut bytes) = (block.clone(), bytes.to_vec());
        bytes[place..place + forged.len()].copy_from_slice(forged);
        broken.files[at].bytes = bytes.into();
        let error = run(async {
            let (store, files) = put(&broken).await;
            BlockReader::open(store, files).await?.select(&[], TimeRange::all()).await
        });
        let text = error.unwrap_err().to_string();
        assert!(text.contains(want), "{text}");
    }
}

#[test]
fn an_empty_file_is_corrupt() {
    let mut block = write(options(), &sample_set());
    for at in 0..block.files.len() {
        let good = std::mem::take(&mut block.files[at].bytes);
        let error = run(async {
            let (store, files) = put(&block).await;
            BlockReader::open(store, files).await.map(|_| ()).unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        block.files[at].bytes = good;
    }
}

#[test]
fn a_missing_file_is_not_found() {
    run(async {
        let (_, files) = put(&write(options(), &sample_set())).await;
        let error = BlockReader::open(Arc::new(InMemory::new()), files).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-100_000i64..100_000, 0i32..5).prop_map(|(n, s)| n as f64 / 10f64.powi(s)),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => prop_oneof![Just(stale_nan()), Just(-0.0), Just(f64::INFINITY), Just(f64::NAN), Just(0.0), Just(1e22)],
    ]
}

fn columns() -> impl Strategy<Value = Columns> {
    let sample = (1i64..HOUR, value(), 0i64..4, proptest::bool::weighted(0.1));
    (proptest::collection::vec(sample, 0..40), proptest::bool::weighted(0.5)).prop_map(|(samples, plain)| {
        let mut c = Columns::default();
        let mut t = START - HOUR;
        for (i, (gap, v, start, is_histogram)) in samples.into_iter().enumerate() {
            t += if plain { 15_000 } else { gap };
            if is_histogram && !plain {
                c.push_histogram(t, histogram(i as i64));
            } else {
                c.push_float(t, v);
            }
            c.set_last_start(if start == 0 { t - 1 } else { 0 });
        }
        c
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_series_come_back_bit_for_bit(
        series in proptest::collection::vec(columns(), 1..12),
        rows in 1usize..6,
        page in 1usize..4,
        hours in 1i64..5,
    ) {
        let series: Vec<Series> = (0..).zip(series)
            .map(|(i, c): (usize, _)| of(&[("__name__", &format!("m{:03}", i / 3)), ("x", &format!("{i:03}"))], c))
            .collect();
        let options = WriterOptions { row_group_rows: rows, page_rows: page, slice_ms: hours * HOUR, ..options() };
        check_round_trip(options, &series);
    }
}
