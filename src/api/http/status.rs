//! Build information and configuration, in the shapes Grafana and others look at.
//!
//! *Invariants:* `buildinfo` is what Grafana decides by: `application` names us and the features are strings.
//!
//! *Not here:* readiness (`api::http::health`).

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::App;
use super::reply::success;

/// `GET /api/v1/status/buildinfo`.
pub async fn buildinfo() -> Response {
    success(&json!({
        "application": "Metrolith",
        "version": env!("CARGO_PKG_VERSION"),
        "revision": option_env!("METROLITH_REVISION").unwrap_or("unknown"),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "features": {
            "ruler_config_api": "false",
            "alertmanager_config_api": "false",
            "query_sharding": "false",
            "federated_rules": "false",
        },
    }))
}

/// `GET /api/v1/status/config`.
pub async fn config(State(app): State<App>) -> Response {
    success(&json!({ "yaml": app.config_yaml }))
}
