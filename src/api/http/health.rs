//! Health, readiness, metrics, and the page a browser finds.
//!
//! *Invariants:* ready means: a write and a query would be served now.
//!
//! *Not here:* what is measured (each module's `Metrics`).

use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};

use super::App;
use super::reply::{ApiError, ErrorType};
use crate::telemetry::Exposition;

/// Whether the node takes requests.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

const READY: u8 = 1;
const STOPPING: u8 = 2;

impl Readiness {
    /// From now on requests are served.
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    /// From now on load balancers should look elsewhere.
    pub fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::Release);
    }

    /// Whether requests are served.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == READY
    }
}

/// `GET /-/ready`.
pub async fn ready(State(app): State<App>) -> Response {
    if app.ready.is_ready() {
        return "Metrolith is ready.\n".into_response();
    }
    let stopping = app.ready.0.load(Ordering::Acquire) == STOPPING;
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n").into_response();
    let value = HeaderValue::from_static(if stopping { "true" } else { "false" });
    response.headers_mut().insert("x-prometheus-stopping", value);
    response
}

/// `GET /-/healthy`.
pub async fn healthy() -> &'static str {
    "Metrolith is healthy.\n"
}

/// `GET /metrics`: Prometheus text, or OpenMetrics where the caller accepts it.
pub async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let form = Exposition::from_accept(headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()));
    app.ingest.observe();
    match app.telemetry.encode(form) {
        Ok(text) => ([(header::CONTENT_TYPE, form.content_type())], text).into_response(),
        Err(e) => ApiError::of(&e).into_response(),
    }
}

/// `GET /`: where things are.
pub async fn index() -> Html<&'static str> {
    Html(
        "<!doctype html><title>Metrolith</title><h1>Metrolith</h1><ul>\
         <li>remote-write: <code>POST /api/v1/write</code>\
         <li>PromQL: <a href=\"/api/v1/query?query=up\"><code>/api/v1/query?query=up</code></a>\
         <li>metric names: <a href=\"/api/v1/label/__name__/values\"><code>/api/v1/label/__name__/values</code></a>\
         <li>this node: <a href=\"/metrics\"><code>/metrics</code></a>, \
         <a href=\"/-/ready\"><code>/-/ready</code></a></ul>\n",
    )
}

/// Anything else.
pub async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(ErrorType::NotFound, format!("no such path: {}", uri.path()))
}
