//! HTTP: Prometheus' API, remote write, health, metrics.
//!
//! *Invariants:* every route is listed in [`router`]; reading routes exist under `/api/v1`, `/prometheus/api/v1`
//! (Mimir) and `/api/prom/api/v1` (Cortex).
//!
//! *Not here:* what the routes do beyond wording (`ingest`, `query`).

mod absent;
mod active;
mod admin;
mod body;
mod cardinality;
mod cluster;
mod cors;
mod exemplars;
mod federate;
mod health;
mod json;
mod labels;
mod openapi;
mod params;
mod query;
mod read;
mod reply;
mod search;
mod self_metrics;
mod stats;
mod status;
mod tenant;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, post};
use tower_http::compression::CompressionLayer;

use crate::compact::Compactor;
use crate::ingest::{Ingest, Shards};
use crate::meta;
use crate::query::Queries;
use crate::telemetry;

/// Largest form a query may be sent in.
const FORM_BYTES: usize = 4 << 20;

/// What handlers share.
pub struct Shared {
    /// The write path.
    pub ingest: Arc<Ingest>,
    /// Compaction.
    pub compactor: Arc<Compactor>,
    /// The read path.
    pub queries: Arc<Queries>,
    /// The shards with a replica here.
    pub shards: Shards,
    /// The way to meta.
    pub cluster: meta::Client,
    /// The metrics registry.
    pub telemetry: telemetry::Metrics,
    /// Whether the node takes requests.
    pub ready: Arc<health::Readiness>,
    /// What the node says of itself.
    pub about: About,
    /// Whether paths for operators are served.
    pub admin: bool,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The configuration in effect, as YAML without secrets.
    pub config_yaml: String,
    /// The same as flags.
    pub flags: BTreeMap<String, String>,
    /// Its name.
    pub node_name: String,
    /// Directory it was started in.
    pub directory: String,
    /// When it was started, milliseconds.
    pub started_ms: i64,
}

/// Handle to what handlers share.
pub type App = Arc<Shared>;

pub use health::Readiness;

/// All routes.
pub fn router(app: App) -> Router {
    let writing = Router::new()
        .route("/api/v1/write", post(write::remote_write))
        .route("/api/v1/push", post(write::remote_write))
        .route("/api/v1/receive", post(write::remote_write))
        .route("/api/prom/push", post(write::remote_write))
        .layer(DefaultBodyLimit::disable());
    let federate = Router::new()
        .route("/federate", get(federate::federate))
        .route("/prometheus/federate", get(federate::federate))
        .layer(CompressionLayer::new());
    let reading = reading();
    Router::new()
        .nest("/api/v1", reading.clone())
        .nest("/prometheus/api/v1", reading.clone())
        .nest("/api/prom/api/v1", reading)
        .nest("/api/v1/admin", if app.admin { for_operators() } else { Router::new().fallback(any(admin::disabled)) })
        .merge(writing)
        .merge(federate)
        .route("/-/ready", get(health::ready))
        .route("/ready", get(health::ready))
        .route("/-/healthy", get(health::healthy))
        .route("/metrics", get(health::metrics))
        .route("/", get(health::index))
        .fallback(any(health::not_found))
        .with_state(app)
}

/// Prometheus' API for reading.
fn reading() -> Router<App> {
    Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(exemplars::exemplars).post(exemplars::exemplars))
        .route("/series", get(labels::series).post(labels::series))
        .route("/labels", get(labels::names).post(labels::names))
        .route("/label/{name}/values", get(labels::values))
        .route("/metadata", get(labels::metadata))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(query::parse).post(query::parse))
        .route("/openapi.yaml", get(openapi::openapi))
        .route("/features", get(status::features))
        .route("/cluster", get(cluster::status))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/config", get(status::config))
        .route("/status/flags", get(status::flags))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/walreplay", get(status::walreplay))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/tsdb/blocks", get(status::blocks))
        .route("/status/self_metrics", get(self_metrics::self_metrics))
        .route("/status/active_queries", get(active::list))
        .route("/status/active_queries/{id}", delete(active::cancel))
        .route("/rules", get(absent::rules))
        .route("/alerts", get(absent::alerts))
        .route("/alertmanagers", get(absent::alertmanagers))
        .route("/targets", get(absent::targets))
        .route("/targets/metadata", get(absent::targets_metadata))
        .route("/scrape_pools", get(absent::scrape_pools))
        .route("/notifications", get(absent::notifications))
        .route("/search/metric_names", get(search::metric_names).post(search::metric_names))
        .route("/search/label_names", get(search::label_names).post(search::label_names))
        .route("/search/label_values", get(search::label_values).post(search::label_values))
        .route("/cardinality/label_names", get(cardinality::label_names).post(cardinality::label_names))
        .route("/cardinality/label_values", get(cardinality::label_values).post(cardinality::label_values))
        .route("/user_limits", get(cardinality::user_limits))
        // Answers that are compressed already stay as they are: they name their encoding.
        .route("/read", post(read::read))
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(CompressionLayer::new())
        .layer(axum::middleware::from_fn(cors::cors))
}

/// What only those should reach who run the node.
fn for_operators() -> Router<App> {
    Router::new()
        .route("/flush", post(admin::flush))
        .route("/compact", post(admin::compact))
        .route("/cluster/drain", post(cluster::drain))
        .route("/cluster/activate", post(cluster::activate))
        .route("/cluster/remove", post(cluster::remove))
        .route("/cluster/reshard", post(cluster::reshard))
        .route("/active_queries", get(active::list_all))
        .route("/active_queries/{id}", delete(active::cancel_any))
}
