//! HTTP: Prometheus' API, remote write, health, metrics.
//!
//! *Invariants:* every route is listed in [`router`]; reading routes exist under `/api/v1` and `/prometheus/api/v1`.
//!
//! *Not here:* what the routes do beyond wording (`ingest`, `query`).

mod admin;
mod health;
mod json;
mod labels;
mod params;
mod query;
mod reply;
mod status;
mod tenant;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, Method, header};
use axum::routing::{any, get, post};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::ingest::Ingest;
use crate::query::Queries;
use crate::telemetry;

/// Largest form a query may be sent in.
const FORM_BYTES: usize = 4 << 20;

/// What handlers share.
pub struct Shared {
    /// The write path.
    pub ingest: Arc<Ingest>,
    /// The read path.
    pub queries: Arc<Queries>,
    /// The metrics registry.
    pub telemetry: telemetry::Metrics,
    /// Whether the node takes requests.
    pub ready: Arc<health::Readiness>,
    /// The configuration in effect, as YAML without secrets.
    pub config_yaml: String,
}

/// Handle to what handlers share.
pub type App = Arc<Shared>;

pub use health::Readiness;

/// All routes.
pub fn router(app: App) -> Router {
    let reading = Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/series", get(labels::series).post(labels::series))
        .route("/labels", get(labels::names).post(labels::names))
        .route("/label/{name}/values", get(labels::values))
        .route("/metadata", get(labels::metadata))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(query::parse).post(query::parse))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/config", get(status::config))
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(CompressionLayer::new())
        .layer(cors());
    let writing = Router::new()
        .route("/api/v1/write", post(write::remote_write))
        .route("/api/v1/push", post(write::remote_write))
        .route("/api/v1/receive", post(write::remote_write))
        .route("/api/prom/push", post(write::remote_write))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .nest("/api/v1", reading.clone())
        .nest("/prometheus/api/v1", reading)
        .merge(writing)
        .route("/api/v1/admin/flush", post(admin::flush))
        .route("/-/ready", get(health::ready))
        .route("/ready", get(health::ready))
        .route("/-/healthy", get(health::healthy))
        .route("/metrics", get(health::metrics))
        .route("/", get(health::index))
        .fallback(any(health::not_found))
        .with_state(app)
}

/// Pages of any origin may read, as with Prometheus; `*` would not include `Authorization`.
fn cors() -> CorsLayer {
    let tenant = HeaderName::from_static(tenant::TENANT_HEADER);
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::GET, Method::POST, Method::OPTIONS])
        .allow_headers([header::ACCEPT, header::AUTHORIZATION, header::CONTENT_TYPE, header::ORIGIN, tenant])
}
