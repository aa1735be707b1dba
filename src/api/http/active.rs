//! The queries that are not over, and how to stop one.
//!
//! *Invariants:* a tenant sees and stops its own queries only. Where the admin API is on, its paths see those of all.
//!
//! *Not here:* the list itself (`query::active`).

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::App;
use super::reply::{ApiError, ErrorType, no_data, success};
use super::tenant::Tenant;
use crate::model::{StepGrid, TenantId};
use crate::promql::exec::Times;
use crate::query::{Active, QueryId};

/// `GET /api/v1/status/active_queries`.
pub async fn list(State(app): State<App>, Tenant(tenant): Tenant) -> Response {
    listed(&app, Some(&tenant))
}

/// `DELETE /api/v1/status/active_queries/{id}`.
pub async fn cancel(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    cancelled(&app, &id, Some(&tenant))
}

/// `GET /api/v1/admin/active_queries`.
pub async fn list_all(State(app): State<App>) -> Response {
    listed(&app, None)
}

/// `DELETE /api/v1/admin/active_queries/{id}`.
pub async fn cancel_any(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    cancelled(&app, &id, None)
}

fn listed(app: &App, tenant: Option<&TenantId>) -> Response {
    let queries = app.queries.active().list(tenant);
    let described: Vec<Value> = queries.iter().map(|active| describe(app, active)).collect();
    success(&described)
}

fn cancelled(app: &App, id: &str, tenant: Option<&TenantId>) -> Result<Response, ApiError> {
    let found = QueryId::parse(id).and_then(|id| app.queries.active().find(id, tenant));
    let none = || ApiError::new(ErrorType::NotFound, format!("no active query has the id {id:?}"));
    found.ok_or_else(none)?.cancel();
    Ok(no_data())
}

fn describe(app: &App, active: &Active) -> Value {
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let (start, end, step) = match active.job.times {
        Some(Times::Instant(t)) => (Some(t), Some(t), None),
        Some(Times::Range(StepGrid { start, end, step })) => (Some(start), Some(end), Some(step)),
        None => (None, None, None),
    };
    let fetched = active.fetched.totals();
    json!({
        "id": active.id.to_string(),
        "tenant": active.job.tenant.as_str(),
        "kind": active.job.kind.as_str(),
        "query": active.job.text,
        "start": start.map(seconds),
        "end": end.map(seconds),
        "step": step.map(seconds),
        "since": seconds(active.since_ms),
        "age": app.queries.monotonic().saturating_sub(active.since).as_secs_f64(),
        "heldBytes": active.budget.held(),
        "peakBytes": active.peak_bytes(),
        "bucketBytes": fetched.bytes,
        "cacheHits": fetched.cache_hits,
    })
}
