//! Rows come back as they were sent, and no bytes do harm.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ingest::series_budget::SeriesBudget;
use crate::model::labels::series_hash;
use crate::model::{ExemplarRow, Histogram, Labels, MetadataRow, MetricType, TenantId};
use crate::testkit::golden::golden;

const TENANT: &str = "team-a";

/// Samples (timestamp, bits of the value, start), histograms (timestamp, count) and exemplar timestamps of a series.
type Content = (Vec<(i64, u64, i64)>, Vec<(i64, u32)>, Vec<i64>);

fn batch(series: &[(Vec<(String, String)>, Content)], metadata: &[String]) -> Batch {
    let mut b = Batch::default();
    for (pairs, (samples, histograms, exemplars)) in series {
        let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| (n, v)));
        let at = |table: usize| table as u32;
        let from = (at(b.labels.len()), at(b.samples.len()), at(b.histograms.len()), at(b.exemplars.len()));
        b.labels.push_str(labels.canonical());
        let sample = |&(t, bits, start)| SampleRow { t, v: f64::from_bits(bits), start };
        b.samples.extend(samples.iter().map(sample));
        b.histograms.extend(histograms.iter().map(|&(t, count)| {
            let count = f64::from(count);
            let h = Histogram { integer: true, zero_count: count, count, sum: 0.5, ..Histogram::default() };
            HistogramRow { t, h: Arc::new(h), start: t / 2 }
        }));
        let exemplar = |&t| ExemplarRow { t, v: 0.5, labels: Labels::from_pairs([("trace_id", "x")]) };
        b.exemplars.extend(exemplars.iter().map(exemplar));
        b.series.push(SeriesRow {
            labels: from.0..at(b.labels.len()),
            hash: series_hash(TENANT, labels.canonical()),
            samples: from.1..at(b.samples.len()),
            histograms: from.2..at(b.histograms.len()),
            exemplars: from.3..at(b.exemplars.len()),
        });
    }
    b.metadata.extend(metadata.iter().map(|help| MetadataRow {
        metric: "up".into(),
        kind: MetricType::Gauge,
        help: help.as_str().into(),
        unit: "".into(),
    }));
    b
}

fn packed(batch: &Batch, rows: &[u32]) -> Packed {
    let (tenant, budget) = (TenantId::new(TENANT).unwrap(), Arc::new(SeriesBudget::default()));
    let request = Request { tenant: &tenant, batch, out_of_order_ms: 77, budget: &budget, series_limit: 0 };
    let metadata: Vec<u32> = (0..batch.metadata.len() as u32).collect();
    pack(request, GroupId(1), rows, &metadata).unwrap()
}

fn unpacked(packed: Packed) -> Result<Batch, Malformed> {
    let bytes = unpack(packed.bytes, packed.uncompressed)?;
    let mut batch = Batch::default();
    Rows::read(&bytes)?.decode(&mut batch)?;
    Ok(batch)
}

/// Everything a batch says of a series, independent of where it stands.
fn said(batch: &Batch, row: &SeriesRow) -> impl PartialEq + std::fmt::Debug + use<> {
    let samples: Vec<_> = batch.samples_of(row).iter().map(|s| (s.t, s.v.to_bits(), s.start)).collect();
    (
        batch.labels_of(row).to_owned(),
        row.hash,
        samples,
        batch.histograms_of(row).to_vec(),
        batch.exemplars_of(row).to_vec(),
    )
}

fn content() -> impl Strategy<Value = Content> {
    let samples = prop::collection::vec((any::<i64>(), any::<u64>(), prop_oneof![Just(0i64), any::<i64>()]), 0..4);
    (samples, prop::collection::vec((any::<i64>(), any::<u32>()), 0..3), prop::collection::vec(any::<i64>(), 0..3))
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were_sent(
        series in prop::collection::vec((prop::collection::vec(("[ab\u{e4}\u{e5}]{1,3}", ".{0,140}"), 0..4), content()), 0..12),
        metadata in prop::collection::vec(".{0,9}", 0..3),
        left_out in any::<u16>(),
    ) {
        let batch = batch(&series, &metadata);
        let rows: Vec<u32> = (0..series.len() as u32).filter(|n| left_out >> n & 1 == 0).collect();
        let packed = packed(&batch, &rows);
        let bytes = unpack(packed.bytes.clone(), packed.uncompressed).unwrap();
        let head = Rows::read(&bytes).unwrap();
        prop_assert_eq!((head.tenant(), head.out_of_order_ms()), (TENANT, 77));
        let back = unpacked(packed).unwrap();
        let sent: Vec<_> = rows.iter().map(|n| said(&batch, &batch.series[*n as usize])).collect();
        prop_assert_eq!(back.series.iter().map(|row| said(&back, row)).collect::<Vec<_>>(), sent);
        prop_assert_eq!(back.metadata, batch.metadata);
    }

    #[test]
    fn any_bytes_are_rows_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), uncompressed in 0u64..600) {
        let _ = unpacked(Packed { bytes: bytes.clone().into(), uncompressed });
        let mut versioned = vec![VERSION];
        versioned.extend(bytes);
        let _ = unpacked(Packed { bytes: versioned.into(), uncompressed: 0 });
    }

    #[test]
    fn damaged_rows_are_rows_or_refused(
        series in prop::collection::vec((prop::collection::vec(("[a-c]{1,3}", "[a-z]{0,9}"), 1..4), content()), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let batch = batch(&series, &[]);
        let rows: Vec<u32> = (0..series.len() as u32).collect();
        let packed = packed(&batch, &rows);
        let mut bytes = packed.bytes.to_vec();
        damage.iter().for_each(|(at, byte)| { let at = at.index(bytes.len()); bytes[at] = *byte });
        if let Ok(back) = unpacked(Packed { bytes: bytes.into(), uncompressed: packed.uncompressed }) {
            for row in &back.series {
                prop_assert!(is_canonical(back.labels_of(row)));
                said(&back, row);
            }
        }
    }
}

fn scrape(series: usize) -> Batch {
    let content: Content = (vec![(1_700_000_000_000, 1.5f64.to_bits(), 0)], vec![], vec![]);
    let pair = |n: &str, v: String| (n.to_owned(), v);
    let labels =
        |n| vec![pair("__name__", "up".into()), pair("env", "production".into()), pair("pod", format!("pod-{n}"))];
    batch(&(0..series).map(|n| (labels(n), content.clone())).collect::<Vec<_>>(), &[])
}

#[test]
fn many_rows_are_compressed_and_few_are_not() {
    let batch = scrape(2000);
    let all: Vec<u32> = (0..2000).collect();
    let (many, few) = (packed(&batch, &all), packed(&batch, &all[..20]));
    assert_eq!(few.uncompressed, 0);
    assert!(many.bytes.len() * 2 < many.uncompressed as usize, "{} of {}", many.bytes.len(), many.uncompressed);
    assert_eq!(unpacked(many).unwrap().series.len(), 2000);
}

#[test]
fn lengths_that_lie_are_refused_before_memory_is_taken() {
    let batch = scrape(2000);
    let all: Vec<u32> = (0..2000).collect();
    let good = packed(&batch, &all);
    for uncompressed in [good.uncompressed - 1, good.uncompressed + 1, u64::MAX] {
        assert_eq!(unpacked(Packed { uncompressed, ..good.clone() }).unwrap_err().what, "compressed rows");
    }
    let mut bytes = vec![VERSION];
    put_varint(&mut bytes, MOST_BYTES as u64 + 1);
    assert_eq!(Rows::read(&bytes).err().unwrap().what, "label bytes");
}

#[test]
fn labels_longer_than_announced_are_refused() {
    // Front coding writes out much from little: 200 rows of 1,000 shared bytes.
    let (mut front, label) = (Vec::new(), Labels::from_pairs([("a", "b".repeat(1000))]));
    for n in 0..200 {
        let labels = label.canonical().as_bytes();
        let shared = if n == 0 { 0 } else { labels.len() };
        put_varint(&mut front, shared as u64);
        put_varint(&mut front, (labels.len() - shared) as u64);
        front.extend_from_slice(&labels[shared..]);
    }
    let read = |announced: usize| {
        let mut bytes = vec![VERSION];
        put_varint(&mut bytes, announced as u64);
        put_varint(&mut bytes, 200);
        put_varint(&mut bytes, front.len() as u64);
        bytes.extend_from_slice(&front);
        bytes.extend(SectionBuilder::default().finish(TENANT, 0));
        Rows::read(&bytes).unwrap().decode(&mut Batch::default())
    };
    let all = 200 * label.canonical().len();
    assert!(read(all).is_ok());
    assert_eq!(read(all - 1).unwrap_err().what, "labels of a row");
}

#[test]
fn rows_of_the_release_before_are_read() {
    let pairs = |pod: &str| vec![("__name__".to_owned(), "up".to_owned()), ("pod".to_owned(), pod.to_owned())];
    let content: Content = (vec![(1_700_000_000_000, 1.5f64.to_bits(), 9)], vec![(4, 2)], vec![5]);
    let batch = batch(&[(pairs("a-1"), content.clone()), (pairs("a-2"), content)], &["is it".to_owned()]);
    let packed = packed(&batch, &[0, 1]);
    assert_eq!(packed.uncompressed, 0);
    let kept = golden("rows_1.bin", &packed.bytes);
    let back = unpacked(Packed { bytes: kept.into(), uncompressed: 0 }).unwrap();
    let all = |batch: &Batch| batch.series.iter().map(|row| said(batch, row)).collect::<Vec<_>>();
    assert_eq!((all(&back), &back.metadata), (all(&batch), &batch.metadata));
}
