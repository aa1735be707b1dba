//! Remote read: raw samples of series, as messages for other Prometheus servers.
//!
//! *Invariants:* series of a query are sorted by labels, samples ascend and lie in its range, stale markers are among them.
//! An answer in chunks is made frame by frame while the client takes it; an answer of samples is charged to the query's
//! budget as it grows.
//!
//! *Not here:* compression, negotiation (`api::http::read`), packing of chunks (`chunk::prometheus`).
//!
//! Source: Prometheus `storage/remote/codec.go`, `prompb/remote.proto`.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, message};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::active::{Active, Job};
use super::frontend::Queries;
use super::job::Done;
use super::leaf::TenantSource;
use crate::chunk::prometheus::{PrometheusChunk, PrometheusChunks};
use crate::error::{Error, Kind};
use crate::model::{Columns, Histogram, Labels, Matcher, TimeRange};
use crate::promql::source::{SampleCursor, SelectRequest, SeriesSet, Source};
use crate::proto::prometheus as wire;

/// Most samples of a query that is answered at once.
const MOST_SAMPLES: u64 = 50_000_000;
/// Bytes of chunks from which on a frame is sent.
const FRAME_BYTES: usize = 1 << 20;
/// Frames that may wait for the client.
const FRAMES: usize = 2;

/// One query of a request.
#[derive(Debug, Clone)]
pub struct ReadQuery {
    /// Conditions, all of which must hold.
    pub matchers: Vec<Matcher>,
    /// Samples wanted.
    pub range: TimeRange,
}

impl Queries {
    /// Answers with a `ReadResponse`, encoded.
    pub async fn read_samples(&self, job: Job, queries: Vec<ReadQuery>) -> Result<Done<Vec<u8>>, Error> {
        self.job(job, None, move |leaf, active, runtime| {
            let (source, mut response) = (leaf.source(active), Vec::new());
            for query in queries {
                let found = select(&source, query, active, runtime)?;
                let result = encode_samples(found, active)?;
                // For a moment it is there twice.
                active.budget.charge(result.len() as u64)?;
                encode_key(1, WireType::LengthDelimited, &mut response);
                encode_varint(result.len() as u64, &mut response);
                response.extend_from_slice(&result);
                active.budget.release(result.len() as u64);
            }
            active.budget.settle(response.len() as u64);
            Ok(response)
        })
        .await
    }

    /// Answers with frames of `ChunkedReadResponse`, as they are made. The last item may be what went wrong.
    pub fn read_chunks(self: &Arc<Self>, job: Job, queries: Vec<ReadQuery>) -> mpsc::Receiver<Result<Bytes, Error>> {
        let (frames, taken) = mpsc::channel(FRAMES);
        let (own, ended) = (Arc::clone(self), frames.clone());
        tokio::spawn(async move {
            let work = own.job(job, None, move |leaf, active, runtime| {
                let source = leaf.source(active);
                queries.into_iter().enumerate().try_for_each(|(index, query)| {
                    let found = select(&source, query, active, runtime)?;
                    send_chunks(found, index as i64, active, &|frame| send(&frames, frame, active, runtime))
                })
            });
            // Without a reader the work is dropped, which cancels it.
            let outcome = tokio::select! {
                outcome = work => outcome.map(|_| ()),
                () = ended.closed() => return,
            };
            if let Err(e) = outcome {
                // The reader may be gone, and then nobody asks.
                let _ = ended.send(Err(e)).await;
            }
        });
        taken
    }
}

fn select(source: &TenantSource, query: ReadQuery, active: &Active, runtime: &Handle) -> Result<SeriesSet, Error> {
    if query.range.is_empty() {
        return Ok(SeriesSet::default());
    }
    let request = SelectRequest { matchers: query.matchers, range: query.range };
    let found = runtime.block_on(source.select(&request))?;
    active.spend(|s| s.series += found.series.len() as u64);
    Ok(found)
}

/// Hands the samples of a series to `each`: index and columns.
fn for_each(
    cursor: &mut dyn SampleCursor,
    active: &Active,
    columns: &mut Columns,
    mut each: impl FnMut(&Columns, usize, Option<&Histogram>) -> Result<(), Error>,
) -> Result<(), Error> {
    while cursor.next(columns)? {
        active.budget.charge(0)?;
        active.spend(|s| s.samples += columns.len() as u64);
        let mut histograms = columns.histograms.iter().peekable();
        for i in 0..columns.len() {
            let histogram = histograms.next_if(|(at, _)| *at as usize == i).map(|(_, h)| &**h);
            each(columns, i, histogram)?;
        }
    }
    Ok(())
}

/// A `QueryResult`, encoded. The samples of a series are charged while they are collected, and given back when they are
/// encoded.
fn encode_samples(found: SeriesSet, active: &Active) -> Result<Vec<u8>, Error> {
    let (mut out, mut columns, mut samples) = (Vec::new(), Columns::default(), 0);
    for mut series in found.series {
        let mut one = wire::TimeSeries { labels: labels_of(&series.labels), ..wire::TimeSeries::default() };
        let mut held = 0;
        for_each(series.cursor.as_mut(), active, &mut columns, |columns, i, histogram| {
            samples += 1;
            if samples > MOST_SAMPLES {
                return Err(Error::new(Kind::Invalid, format!("exceeded sample limit ({MOST_SAMPLES})")));
            }
            let timestamp = columns.timestamps[i];
            match histogram {
                Some(h) => {
                    let bytes = (2 * size_of::<wire::Histogram>() + h.heap_bytes()) as u64;
                    active.budget.charge(bytes)?;
                    held += bytes;
                    one.histograms.push(histogram_of(timestamp, h));
                }
                None => {
                    if one.samples.len() == one.samples.capacity() {
                        // The list doubles, and is there twice while it does.
                        let bytes = (size_of::<wire::Sample>() * (2 * one.samples.len()).max(4)) as u64;
                        active.budget.charge(bytes)?;
                        held += bytes;
                    }
                    one.samples.push(wire::Sample { timestamp, value: columns.values[i] });
                }
            }
            Ok(())
        })?;
        if !one.samples.is_empty() || !one.histograms.is_empty() {
            let bytes = one.encoded_len() as u64;
            // The answer may double, too.
            active.budget.charge(2 * bytes)?;
            message::encode(1, &one, &mut out);
            active.budget.release(bytes);
        }
        active.budget.release(held);
    }
    Ok(out)
}

fn send_chunks(
    found: SeriesSet,
    query_index: i64,
    active: &Active,
    send: &dyn Fn(Bytes) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut columns = Columns::default();
    for mut series in found.series {
        let mut frame = Frame { labels: labels_of(&series.labels), chunks: Vec::new(), bytes: 0, query_index };
        let mut packer = PrometheusChunks::default();
        for_each(series.cursor.as_mut(), active, &mut columns, |columns, i, histogram| {
            let t = columns.timestamps[i];
            let done = match histogram {
                Some(h) => packer.push_histogram(t, h),
                None => packer.push_float(t, columns.values[i]),
            };
            if let Some(chunk) = done {
                frame.push(chunk);
                if frame.bytes >= FRAME_BYTES {
                    return send(frame.take());
                }
            }
            Ok(())
        })?;
        if let Some(chunk) = packer.finish() {
            frame.push(chunk);
            send(frame.take())?;
        }
    }
    Ok(())
}

fn send(
    frames: &mpsc::Sender<Result<Bytes, Error>>,
    frame: Bytes,
    active: &Active,
    runtime: &Handle,
) -> Result<(), Error> {
    let gone = || Error::new(Kind::Cancelled, "nobody takes the answer any more");
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = active.stop.cancelled() => Err(gone()),
            sent = frames.send(Ok(frame)) => sent.map_err(|_| gone()),
        }
    })
}

/// Chunks of one series on their way.
struct Frame {
    labels: Vec<wire::Label>,
    chunks: Vec<wire::Chunk>,
    bytes: usize,
    query_index: i64,
}

impl Frame {
    fn push(&mut self, chunk: PrometheusChunk) {
        self.bytes += chunk.bytes.len();
        let PrometheusChunk { min_t, max_t, encoding, bytes } = chunk;
        self.chunks.push(wire::Chunk { min_time_ms: min_t, max_time_ms: max_t, r#type: encoding as i32, data: bytes });
    }

    /// Length, CRC-32C, message: what is in the frame, which is empty afterwards.
    fn take(&mut self) -> Bytes {
        self.bytes = 0;
        let chunks = std::mem::take(&mut self.chunks);
        let series = wire::ChunkedSeries { labels: self.labels.clone(), chunks };
        let response = wire::ChunkedReadResponse { chunked_series: vec![series], query_index: self.query_index };
        let encoded = response.encode_to_vec();
        let mut frame = Vec::with_capacity(encoded.len() + 16);
        encode_varint(encoded.len() as u64, &mut frame);
        frame.extend_from_slice(&crc32c::crc32c(&encoded).to_be_bytes());
        frame.extend_from_slice(&encoded);
        frame.into()
    }
}

fn labels_of(labels: &Labels) -> Vec<wire::Label> {
    labels.iter().map(|(name, value)| wire::Label { name: name.to_owned(), value: value.to_owned() }).collect()
}

fn histogram_of(timestamp: i64, h: &Histogram) -> wire::Histogram {
    use wire::histogram::{Count, ZeroCount};
    let spans = |spans: &[crate::model::Span]| {
        spans.iter().map(|s| wire::BucketSpan { offset: s.offset, length: s.length }).collect()
    };
    let mut out = wire::Histogram {
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        negative_spans: spans(&h.negative_spans),
        positive_spans: spans(&h.positive_spans),
        reset_hint: h.reset_hint as i32,
        timestamp,
        custom_values: h.custom_values.clone(),
        ..wire::Histogram::default()
    };
    if h.integer {
        (out.count, out.zero_count) =
            (Some(Count::CountInt(h.count as u64)), Some(ZeroCount::ZeroCountInt(h.zero_count as u64)));
        (out.negative_deltas, out.positive_deltas) = (deltas(&h.negative), deltas(&h.positive));
    } else {
        (out.count, out.zero_count) = (Some(Count::CountFloat(h.count)), Some(ZeroCount::ZeroCountFloat(h.zero_count)));
        (out.negative_counts, out.positive_counts) = (h.negative.clone(), h.positive.clone());
    }
    out
}

fn deltas(counts: &[f64]) -> Vec<i64> {
    let before = std::iter::once(0.0).chain(counts.iter().copied());
    counts.iter().zip(before).map(|(now, before)| *now as i64 - before as i64).collect()
}
