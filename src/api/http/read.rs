//! Remote read: negotiation and framing of the request.
//!
//! *Invariants:* nothing is allocated for a body before what it declares was found within bounds. Errors are plain text,
//! as clients of remote read expect them.
//!
//! *Not here:* reading and encoding (`query::read`).

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use prost::Message;

use super::App;
use super::body::PIECE_BYTES;
use super::reply::read_error;
use super::tenant::Tenant;
use crate::error::{Error, Kind};
use crate::model::{MatchOp, Matcher, TimeRange};
use crate::promql::parser::PATTERN_BYTES;
use crate::proto::prometheus::label_matcher::Type;
use crate::proto::prometheus::read_request::ResponseType;
use crate::proto::prometheus::{LabelMatcher, ReadRequest};
use crate::query::{Done, Job, QueryKind, ReadQuery};

/// Largest request after decompression.
const REQUEST_BYTES: usize = 16 << 20;

/// Most conditions of a request: each may be a pattern to compile.
const MOST_MATCHERS: usize = 1000;

const SAMPLES_TYPE: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const CHUNKS_TYPE: HeaderValue =
    HeaderValue::from_static("application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse");

/// `POST /api/v1/read`.
pub async fn read(State(app): State<App>, Tenant(tenant): Tenant, body: Bytes) -> Response {
    let (queries, form) = match decode(&body) {
        Ok(asked) => asked,
        Err(what) => return (StatusCode::BAD_REQUEST, what).into_response(),
    };
    let selector = |q: &ReadQuery| {
        let matchers: Vec<String> = q.matchers.iter().map(Matcher::to_string).collect();
        format!("{{{}}}", matchers.join(","))
    };
    let text = queries.iter().map(selector).collect::<Vec<_>>().join(", ");
    let job = Job { tenant, kind: QueryKind::Read, text, times: None };
    let answer = match form {
        ResponseType::Samples => samples(&app, job, queries).await,
        ResponseType::StreamedXorChunks => chunks(&app, job, queries).await,
    };
    answer.unwrap_or_else(|e| read_error(&e))
}

async fn samples(app: &App, job: Job, queries: Vec<ReadQuery>) -> Result<Response, Error> {
    let Done { value: encoded, active } = app.queries.read_samples(job, queries).await?;
    active.budget.charge(snap::raw::max_compress_len(encoded.len()) as u64)?;
    let packed = snap::raw::Encoder::new().compress_vec(&encoded);
    let packed = packed.map_err(|e| Error::new(Kind::Internal, format!("compress answer: {e}")))?;
    drop(encoded);
    active.budget.settle(packed.capacity() as u64);
    // Its bytes count until the last part is on its way.
    let parts = stream::unfold((Bytes::from(packed), active), |(mut rest, active)| async move {
        let part = rest.split_to(rest.len().min(PIECE_BYTES));
        (!part.is_empty()).then_some((Ok::<_, Infallible>(part), (rest, active)))
    });
    let mut response = Response::new(Body::from_stream(parts));
    response.headers_mut().insert(header::CONTENT_TYPE, SAMPLES_TYPE);
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    Ok(response)
}

async fn chunks(app: &App, job: Job, queries: Vec<ReadQuery>) -> Result<Response, Error> {
    let mut frames = app.queries.read_chunks(job, queries);
    // What fails before the first frame has a status of its own; later the connection is cut.
    let first = frames.recv().await.transpose()?;
    let rest = stream::unfold((first.map(Ok), frames), |(given, mut frames)| async move {
        let frame = match given {
            Some(frame) => frame,
            None => frames.recv().await?,
        };
        Some((frame, (None, frames)))
    });
    let mut response = Response::new(Body::from_stream(rest));
    response.headers_mut().insert(header::CONTENT_TYPE, CHUNKS_TYPE);
    Ok(response)
}

/// The queries of a request, and the form their answer takes; the error says what is wrong.
fn decode(body: &[u8]) -> Result<(Vec<ReadQuery>, ResponseType), String> {
    let declared = snap::raw::decompress_len(body).map_err(|e| format!("decompress request: {e}"))?;
    if declared > REQUEST_BYTES {
        return Err(format!("request declares {declared} bytes, at most {REQUEST_BYTES} are read"));
    }
    let raw = snap::raw::Decoder::new().decompress_vec(body).map_err(|e| format!("decompress request: {e}"))?;
    let request = ReadRequest::decode(&raw[..]).map_err(|e| format!("decode request: {e}"))?;
    let matchers: usize = request.queries.iter().map(|q| q.matchers.len().max(1)).sum();
    if matchers > MOST_MATCHERS {
        return Err(format!("request has {matchers} matchers, at most {MOST_MATCHERS} are taken"));
    }
    let accepted: Vec<_> = request.accepted_response_types.iter().map(|t| ResponseType::try_from(*t).ok()).collect();
    let form = match accepted.iter().flatten().next() {
        Some(form) => *form,
        None if accepted.is_empty() => ResponseType::Samples,
        None => {
            let wanted = &request.accepted_response_types;
            return Err(format!("server does not support any of the requested response types: {wanted:?}"));
        }
    };
    let mut pattern_bytes = 0;
    let queries = request.queries.iter().map(|q| {
        let mut bounded = |m| {
            let matcher = matcher(m)?;
            pattern_bytes += matcher.pattern_bytes();
            if pattern_bytes > PATTERN_BYTES {
                return Err(format!("regular expressions of the request take more than {PATTERN_BYTES} bytes"));
            }
            Ok(matcher)
        };
        let matchers = q.matchers.iter().map(&mut bounded).collect::<Result<Vec<_>, String>>()?;
        Ok(ReadQuery { matchers, range: TimeRange::new(q.start_timestamp_ms, q.end_timestamp_ms) })
    });
    Ok((queries.collect::<Result<_, String>>()?, form))
}

fn matcher(m: &LabelMatcher) -> Result<Matcher, String> {
    let op = match Type::try_from(m.r#type) {
        Ok(Type::Eq) => MatchOp::Equal,
        Ok(Type::Neq) => MatchOp::NotEqual,
        Ok(Type::Re) => MatchOp::Regex,
        Ok(Type::Nre) => MatchOp::NotRegex,
        Err(_) => return Err(format!("invalid matcher type {}", m.r#type)),
    };
    Matcher::new(&m.name, op, &m.value)
}
