//! What operators ask of a node.
//!
//! *Invariants:* nothing here loses data. Nothing here is served unless `enable_admin_api` is set: who reaches the API
//! reaches all of it.
//!
//! *Not here:* changes of the cluster (`cluster`).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::App;
use super::reply::{ApiError, ErrorType};
use crate::compact::plan::Ripe;

/// `POST /api/v1/admin/flush`: closes every window now and waits until the table holds them.
pub async fn flush(State(app): State<App>) -> Response {
    // In a task of its own: a client that goes away must not stop a flush between its steps.
    match tokio::spawn(async move { app.ingest.flush_now().await }).await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(e)) => ApiError::of(&e).into_response(),
        Err(e) => ApiError::new(ErrorType::Internal, format!("flush failed: {e}")).into_response(),
    }
}

/// `POST /api/v1/admin/compact`: merges the blocks of every day now, ended or not, and waits; says how many.
pub async fn compact(State(app): State<App>) -> Response {
    match tokio::spawn(async move { app.compactor.compact(Ripe::ALWAYS).await }).await {
        Ok(done) => Json(serde_json::json!({ "status": "success", "data": done })).into_response(),
        Err(e) => ApiError::new(ErrorType::Internal, format!("compaction failed: {e}")).into_response(),
    }
}

/// Any path for operators, where they are not served.
pub async fn disabled() -> ApiError {
    ApiError::new(ErrorType::Disabled, "admin APIs disabled (setting enable_admin_api)")
}
