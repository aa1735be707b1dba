//! Remote write, 1.0 and 2.0.
//!
//! *Invariants:* 2xx means every sample not named as refused is durable. 400 tells the sender not to repeat, 429 and 503
//! to repeat later; the counts of what was stored are in the headers in every case.
//!
//! *Not here:* decoding, limits, durability (`ingest`).

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::reply::write_error;
use super::tenant::Tenant;
use crate::error::{HasKind, Kind};
use crate::ingest::IngestError;
use crate::ingest::decode::Protocol;
use crate::ingest::outcome::WriteOutcome;
use crate::model::TenantId;

/// Longest a sender may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

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
    let length = text(header::CONTENT_LENGTH).and_then(|v| v.parse::<usize>().ok());
    // In a task of its own: a client that goes away in the middle must not leave a request half accounted for.
    let work = tokio::spawn(async move { read_and_write(&app, &tenant, protocol, length, body).await });
    match work.await {
        Ok(Ok(outcome)) => reply(&outcome),
        Ok(Err((kind, message))) => with_counts(write_error(kind, message), &WriteOutcome::default()),
        Err(e) => write_error(Kind::Internal, format!("write request failed: {e}")),
    }
}

async fn read_and_write(
    app: &App,
    tenant: &TenantId,
    protocol: Protocol,
    length: Option<usize>,
    body: Body,
) -> Result<WriteOutcome, (Kind, String)> {
    let limit = app.ingest.max_body_bytes();
    let says = |e: IngestError| (e.kind(), e.to_string());
    let too_long = || (Kind::Invalid, format!("read body: longer than write.max_body_bytes ({limit})"));
    if length.is_some_and(|n| n > limit) {
        return Err(too_long());
    }
    let mut pass = app.ingest.gate.enter(length.unwrap_or(0)).map_err(says)?;
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, limit)).await;
    let body = match read {
        Ok(Ok(body)) => body,
        Ok(Err(_)) if length.is_none() => return Err(too_long()),
        Ok(Err(e)) => return Err((Kind::Invalid, format!("read body: {e}"))),
        Err(_) => return Err((Kind::Unavailable, format!("read body: not there after {} s", BODY_TIMEOUT.as_secs()))),
    };
    if length.is_none() {
        pass.grow(body.len()).map_err(says)?;
    }
    app.ingest.write(pass, tenant, protocol, &body).await.map_err(says)
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
