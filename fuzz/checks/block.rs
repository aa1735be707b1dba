//! What must hold for any bytes in place of one file of a block.
#![allow(clippy::expect_used)]

use std::sync::{Arc, LazyLock};

use futures::executor::block_on;
use metrolith::block::schema::Kind;
use metrolith::block::{Block, BlockReader, BlockWriter, Error, FileRef, SeriesInput, WriterOptions};
use metrolith::model::labels::series_hash;
use metrolith::model::{
    BlockName, Columns, Epoch, Exemplar, Histogram, Labels, MatchOp, Matcher, ShardId, Span, TenantId, TimeRange,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const START: i64 = 1_780_272_000_000;

static BLOCK: LazyLock<Block> = LazyLock::new(block);

/// A small block with everything in it: decimals, doubles, histograms, stale marks, start timestamps, exemplars.
pub fn block() -> Block {
    let tenant = TenantId::anonymous();
    let options = WriterOptions {
        row_group_rows: 3,
        page_rows: 2,
        promoted: vec!["job".into()],
        ..WriterOptions::flush(BlockName::of_flush(Epoch(1), ShardId(3), START, 7))
    };
    let mut writer = BlockWriter::new(options.for_tenant(&tenant)).expect("options that can be");
    for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let instance = format!("i{n}");
        let labels = Labels::from_pairs([("__name__", name), ("job", "x"), ("instance", &instance)]);
        let mut samples = Columns::default();
        for i in 0..6 {
            let t = START + i * 1_500_000;
            if n == 3 && i > 1 {
                samples.push_histogram(t, Arc::new(histogram(i as f64)));
            } else {
                let values = [i as f64, (i as f64).sqrt(), f64::from_bits(metrolith::model::STALE_NAN_BITS)];
                samples.push_float(t, values[if i == 4 { 2 } else { n % 2 }]);
            }
            samples.set_last_start(if n == 2 { START } else { 0 });
        }
        let labels_of_exemplar = Labels::from_pairs([("trace_id", "abc")]);
        let exemplars = [Exemplar { labels: labels_of_exemplar, value: 0.5, t: START + 1 }];
        let hash = series_hash(tenant.as_str(), labels.canonical());
        writer.push(SeriesInput { labels: &labels, hash, samples: &samples, exemplars: &exemplars }).expect("in order");
    }
    writer.finish().expect("a block")
}

fn histogram(n: f64) -> Histogram {
    Histogram {
        integer: true,
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: n,
        count: n + 3.0,
        sum: 18.4,
        positive_spans: vec![Span { offset: -3, length: 1 }, Span { offset: 4, length: 1 }],
        positive: vec![1.0, 2.0],
        ..Histogram::default()
    }
}

/// No panic, no error but "corrupt", no samples that break what readers rely on. Whether all of it could be read.
///
/// The input is a byte that says which file of the block it takes the place of, and that file's bytes.
pub fn block_reader(data: &[u8]) -> bool {
    let Some((which, bytes)) = data.split_first() else { return false };
    let which = Kind::ALL[usize::from(*which) % Kind::ALL.len()];
    let store = Arc::new(InMemory::new());
    let mut files = Vec::new();
    for file in &BLOCK.files {
        let bytes = if file.kind == which { bytes.to_vec().into() } else { file.bytes.clone() };
        let path = Path::from(format!("{}.parquet", file.kind));
        files.push(FileRef { kind: file.kind, path: path.clone(), size: bytes.len() as u64 });
        block_on(store.put(&path, bytes.into())).expect("memory");
    }
    let result = block_on(read(store, files));
    assert!(matches!(result, Ok(()) | Err(Error::Corrupt { .. })), "{result:?}");
    result.is_ok()
}

async fn read(store: Arc<dyn ObjectStore>, files: Vec<FileRef>) -> Result<(), Error> {
    let reader = BlockReader::open(store, files).await?;
    let (all, some) = (TimeRange::all(), TimeRange::new(START, START + 3_000_000));
    let job = [Matcher::new("job", MatchOp::Regex, "x|y").expect("a pattern")];
    for matchers in [&[][..], &job] {
        for name in reader.label_names(matchers, all) {
            assert!(reader.label_values(name, matchers, some).all(|value| !value.is_empty()));
        }
        assert!(reader.series(matchers, all).count() <= reader.series_count());
    }
    let _ = reader.heap_bytes();
    // Each way on its own: one may refuse what the other never looks at.
    let selected = reader.select(&job, some).await;
    let exemplars = reader.exemplars(&[], all).await;
    let mut scan = reader.read_all(3);
    while let Some(series) = scan.next().await? {
        for one in series {
            assert!(one.samples.timestamps.is_sorted_by(|a, b| a < b), "samples of {} do not ascend", one.labels);
            assert_eq!(one.samples.values.len(), one.samples.timestamps.len());
            let histograms = one.samples.histograms.iter();
            histograms.for_each(|(_, h)| h.validate().expect("a valid histogram"));
        }
    }
    selected?;
    exemplars.map(drop)
}
