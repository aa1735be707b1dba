//! Answers about what this node has none of: it scrapes no targets and evaluates no rules.
//!
//! *Invariants:* shapes are those of Prometheus with nothing in them, so that clients which look everywhere go on.
//!
//! *Not here:* anything that exists.

use axum::response::Response;
use serde_json::json;

use super::params::Params;
use super::reply::{ApiError, success};

/// `GET /api/v1/rules`.
pub async fn rules(params: Params) -> Result<Response, ApiError> {
    match params.get("type") {
        None | Some("alert" | "record") => Ok(success(&json!({"groups": []}))),
        Some(other) => Err(ApiError::parameter("type", format!("not supported value {other:?}"))),
    }
}

/// `GET /api/v1/alerts`.
pub async fn alerts() -> Response {
    success(&json!({"alerts": []}))
}

/// `GET /api/v1/alertmanagers`.
pub async fn alertmanagers() -> Response {
    success(&json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}

/// `GET /api/v1/targets`.
pub async fn targets() -> Response {
    success(&json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}}))
}

/// `GET /api/v1/targets/metadata`.
pub async fn targets_metadata() -> Response {
    success(&json!([]))
}

/// `GET /api/v1/scrape_pools`.
pub async fn scrape_pools() -> Response {
    success(&json!({"scrapePools": []}))
}

/// `GET /api/v1/notifications`.
pub async fn notifications() -> Response {
    success(&json!([]))
}
