//! Remote write, 1.0 and 2.0.
//!
//! *Invariants:* 2xx means every sample not named as refused is durable. 400 tells the sender not to repeat, 429 and 503
//! to repeat later; the counts of what was stored are in the headers in every case.
//!
//! *Not here:* decoding, limits, durability (`ingest`).

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::reply::write_error;
use super::tenant::Tenant;
use crate::error::{HasKind, Kind};
use crate::ingest::decode::Protocol;
use crate::ingest::outcome::WriteOutcome;

const SAMPLES: &str = "x-prometheus-remote-write-samples-written";
const HISTOGRAMS: &str = "x-prometheus-remote-write-histograms-written";
const EXEMPLARS: &str = "x-prometheus-remote-write-exemplars-written";

/// `POST /api/v1/write` and its other names.
pub async fn remote_write(State(app): State<App>, Tenant(tenant): Tenant, headers: HeaderMap, body: Body) -> Response {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let protocol = match Protocol::negotiate(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING)) {
        Ok(protocol) => protocol,
        Err(e) => return (StatusCode::UNSUPPORTED_MEDIA_TYPE, e.to_string()).into_response(),
    };
    let limit = app.ingest.max_body_bytes();
    let Ok(body) = axum::body::to_bytes(body, limit).await else {
        let message = format!("read body: longer than write.max_body_bytes ({limit}) or cut off");
        return write_error(Kind::Invalid, message);
    };
    match app.ingest.write(&tenant, protocol, &body).await {
        Ok(outcome) => reply(&outcome),
        Err(e) => with_counts(write_error(e.kind(), e.to_string()), &WriteOutcome::default()),
    }
}

fn reply(outcome: &WriteOutcome) -> Response {
    let response = match outcome.rejected.kind() {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(kind) => write_error(kind, outcome.rejected.to_string()),
    };
    with_counts(response, outcome)
}

fn with_counts(mut response: Response, outcome: &WriteOutcome) -> Response {
    let counts = [(SAMPLES, outcome.samples), (HISTOGRAMS, outcome.histograms), (EXEMPLARS, outcome.exemplars)];
    for (name, n) in counts {
        response.headers_mut().insert(name, HeaderValue::from(n));
    }
    response
}
