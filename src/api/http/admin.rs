//! What operators ask of a node.
//!
//! *Invariants:* nothing here loses data.
//!
//! *Not here:* cluster changes (they come with the cluster).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::App;
use super::reply::ApiError;

/// `POST /api/v1/admin/flush`: closes every window now and waits until the table holds them.
pub async fn flush(State(app): State<App>) -> Response {
    match app.ingest.flush_now().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => ApiError::of(&e).into_response(),
    }
}
