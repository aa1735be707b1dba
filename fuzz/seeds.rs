//! Writes the first inputs of the fuzz targets with the real writers; what a run finds is added by hand.
#![allow(clippy::unwrap_used)]

use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use metrolith::block::Kind;
use metrolith::env::{Disk, SeededRng, SimDisk, SystemClock};
use metrolith::head::Head;
use metrolith::ingest::entry::{SectionBuilder, SeriesRef, append_entry, close_entry, flushed_entry};
use metrolith::model::labels::series_hash;
use metrolith::model::{
    ExemplarRow, Histogram, HistogramRow, Labels, MetadataRow, MetricType, NodeId, SampleRow, Span, TenantId,
};
use metrolith::raft::{Bootstrap, GroupId, Host, HostOptions, Metrics, SnapshotWriter, StateMachine};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use prometheus_client::registry::Registry;

use crate::{block_checks, entry_checks, head_checks, log_checks};

const START: i64 = 1_780_272_000_000;

/// Writes all of them below `corpus`.
pub fn write(corpus: &FilePath) {
    let save = |target: &str, name: &str, bytes: Vec<u8>| {
        let check = match target {
            "block_reader" => block_checks::block_reader,
            "head_snapshot" => head_checks::head_snapshot,
            "log_reader" => log_checks::log_reader,
            _ => entry_checks::shard_entry,
        };
        assert!(check(&bytes), "{target} refuses what was really written: {name}");
        let dir = corpus.join(target);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    };
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let block = block_checks::block();
        let file = block.files.iter().find(|f| f.kind == kind).unwrap();
        save("block_reader", &format!("{kind}"), [&[at as u8][..], &file.bytes].concat());
        save("block_reader", &format!("{kind}_plain"), [&[at as u8][..], &uncompressed(&file.bytes)].concat());
    }
    save("head_snapshot", "everything", [vec![1], head_snapshot()].concat());
    save("head_snapshot", "checked", [vec![0], head_snapshot()].concat());
    for (name, entry) in entries() {
        save("shard_entry", name, entry.into());
    }
    for (name, log) in logs() {
        save("log_reader", name, log);
    }
}

/// The same rows without compression, so that a changed byte reaches the decoders behind it.
fn uncompressed(file: &Bytes) -> Vec<u8> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
    let metadata = reader.metadata().file_metadata().key_value_metadata().cloned();
    let properties = WriterProperties::builder().set_key_value_metadata(metadata).set_data_page_row_count_limit(2);
    let properties = properties.set_write_batch_size(2).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), reader.schema().clone(), Some(properties)).unwrap();
    for group in 0..reader.metadata().num_row_groups() {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
        for batch in reader.with_row_groups(vec![group]).build().unwrap() {
            writer.write(&batch.unwrap()).unwrap();
        }
        writer.flush().unwrap();
    }
    writer.into_inner().unwrap()
}

fn histogram() -> Histogram {
    Histogram {
        integer: true,
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 2.0,
        count: 5.0,
        sum: 18.4,
        positive_spans: vec![Span { offset: -3, length: 1 }, Span { offset: 4, length: 1 }],
        positive: vec![1.0, 2.0],
        ..Histogram::default()
    }
}

fn exemplar(t: i64) -> ExemplarRow {
    ExemplarRow { t, v: 0.5, labels: Labels::from_pairs([("trace_id", "x")]) }
}

fn metadata() -> MetadataRow {
    MetadataRow { metric: "up".into(), kind: MetricType::Gauge, help: "is it".into(), unit: "".into() }
}

fn head_snapshot() -> Vec<u8> {
    let mut head = Head::new(Default::default(), 0);
    for (t, name) in ["a", "b"].into_iter().enumerate() {
        let tenant = TenantId::new(&format!("team-{t}")).unwrap();
        let labels = Labels::from_pairs([("__name__", name), ("job", "x")]);
        let hash = series_hash(tenant.as_str(), labels.canonical());
        let floats = head.get_or_create(&tenant, hash, labels.canonical());
        for i in 0..20 {
            let value = [i as f64, 0.1 * i as f64][t];
            head.append_float(floats, START + i * 1_000_000, value, 0, 0);
        }
        head.append_float(floats, START + 15_500_000, 7.0, 0, i64::MAX / 2);
        head.append_exemplar(floats, &exemplar(START + 1));
        let labels = Labels::from_pairs([("__name__", "h")]);
        let hash = series_hash(tenant.as_str(), labels.canonical());
        let histograms = head.get_or_create(&tenant, hash, labels.canonical());
        for i in 0..4 {
            head.append_histogram(histograms, START + i * 15_000, Arc::new(histogram()), START - 1, 0);
        }
        head.put_metadata(&tenant, metadata());
    }
    head.close(START);
    let mut bytes = Vec::new();
    head.snapshot().write(&mut bytes).unwrap();
    bytes
}

fn entries() -> [(&'static str, Bytes); 3] {
    let mut rows = SectionBuilder::default();
    let new = rows.new_series(7, Labels::from_pairs([("a", "b")]).canonical());
    rows.float(SeriesRef::Known(900), &SampleRow { t: START, v: -0.0, start: 0 });
    rows.float(new, &SampleRow { t: START, v: 2.5, start: START - 1 });
    rows.histogram(new, &HistogramRow { t: START, h: Arc::new(histogram()), start: 0 });
    rows.exemplar(new, &exemplar(START));
    rows.metadata(&metadata());
    let (one, two) = (rows.finish("team-a", 3_600_000), SectionBuilder::default().finish("team-b", 0));
    [
        ("append", append_entry([one.as_slice(), two.as_slice()].into_iter())),
        ("close", close_entry(START)),
        ("flushed", flushed_entry(3, &[("team-a".to_owned(), 9)])),
    ]
}

struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: u64, _: &Bytes) -> Bytes {
        Bytes::new()
    }

    fn snapshot(&mut self) -> std::io::Result<SnapshotWriter> {
        Ok(Box::new(|_| Ok(())))
    }

    fn restore(&mut self, _: &mut dyn std::io::Read) -> std::io::Result<()> {
        Ok(())
    }
}

/// A log of two groups in one segment, and in several, with a purged part.
fn logs() -> Vec<(&'static str, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let log = |segment_bytes, snapshot_log_bytes| {
        runtime.block_on(async {
            let disk = SimDisk::new(1);
            let options = HostOptions::new("/n", NodeId(1));
            let options = HostOptions { segment_bytes, snapshot_log_bytes, ..options };
            let metrics = Metrics::register(&mut Registry::default());
            let clock = Arc::new(SystemClock::new());
            let host = Host::open(options, Arc::new(disk.clone()), clock, Arc::new(SeededRng::new(3)), metrics);
            let host = host.await.unwrap();
            for id in [3, 9] {
                let group = host.start_group(GroupId(id), Box::new(Nothing), Bootstrap::SingleVoter).await.unwrap();
                for n in 0..6 {
                    group.propose(Bytes::from(vec![b'a' + n; 9])).await.unwrap();
                }
                group.propose(Bytes::from_static(b"last")).await.unwrap();
            }
            host.shutdown().await;
            input(&disk)
        })
    };
    vec![("one_segment", log(1 << 20, 1 << 30)), ("segments", log(700, 1 << 30)), ("purged", log(700, 1_500))]
}

/// The newest segments, renumbered from 1 by the target.
fn input(disk: &SimDisk) -> Vec<u8> {
    let dir = FilePath::new("/n/log");
    let names: Vec<String> = disk.list(dir).unwrap().into_iter().filter(|n| n.ends_with(".log")).collect();
    let newest = &names[names.len().saturating_sub(4)..];
    let segments: Vec<Vec<u8>> = newest.iter().map(|n| disk.contents(&dir.join(n)).unwrap()).collect();
    let mut out = vec![4 | (segments.len() as u8 - 1)];
    for segment in &segments[..segments.len() - 1] {
        out.extend((segment.len() as u16).to_le_bytes());
    }
    out.extend(segments.concat());
    out
}
