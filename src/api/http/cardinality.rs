//! Which labels make how many series, in the shapes of Mimir's cardinality API; what a tenant may and does use.
//!
//! *Invariants:* these answers have no envelope: that is how their clients expect them.
//!
//! *Not here:* counting (`query::statistics`), Prometheus' figures of the same (`api::http::status`).

use std::cmp::Reverse;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use serde_json::{Value, json};

use super::App;
use super::params::Params;
use super::reply::{ApiError, ErrorType};
use super::tenant::Tenant;
use crate::model::TenantId;
use crate::promql::parse_selector;
use crate::query::statistics::{LabelCounts, Values, highest};
use crate::query::{Done, Job, QueryKind};

/// Entries of a list unless asked otherwise, and at most.
const TOP: usize = 20;
const MOST_TOP: usize = 500;

/// `GET|POST /api/v1/cardinality/label_names`: label names with the number of their values.
pub async fn label_names(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    let top = top(&params)?;
    let Done { value: counts, .. } = counted(&app, tenant, &params).await?;
    let named = counts.names.iter().map(|(name, values)| (name, values.len() as u64));
    let list: Vec<Value> =
        highest(named, top).into_iter().map(|(name, n)| json!({"label_name": name, "label_values_count": n})).collect();
    let values: usize = counts.names.values().map(Values::len).sum();
    let answer =
        json!({"label_values_count_total": values, "label_names_count": counts.names.len(), "cardinality": list});
    Ok(Json(answer).into_response())
}

/// `GET|POST /api/v1/cardinality/label_values`: values of some labels with the number of their series.
pub async fn label_values(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let wanted: Vec<&str> = params.all("label_names[]").filter(|name| !name.is_empty()).collect();
    if wanted.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, "'label_names[]' param is required"));
    }
    let top = top(&params)?;
    let Done { value: counts, .. } = counted(&app, tenant, &params).await?;
    let mut labels: Vec<(u64, Value)> = wanted.iter().map(|name| describe(name, &counts, top)).collect();
    labels.sort_by_key(|(series, _)| Reverse(*series));
    let labels: Vec<Value> = labels.into_iter().map(|(_, label)| label).collect();
    Ok(Json(json!({"series_count_total": counts.series, "labels": labels})).into_response())
}

/// A label with its values, and its number of series.
fn describe(name: &str, counts: &LabelCounts, top: usize) -> (u64, Value) {
    let values = counts.names.get(name);
    let series = values.map_or(0, |values| values.values().sum());
    let all = values.into_iter().flatten().map(|(value, n)| (value, *n));
    let list: Vec<Value> =
        highest(all, top).into_iter().map(|(value, n)| json!({"label_value": value, "series_count": n})).collect();
    let label = json!({
        "label_name": name,
        "label_values_count": values.map_or(0, Values::len),
        "series_count": series,
        "cardinality": list,
    });
    (series, label)
}

async fn counted(app: &App, tenant: TenantId, params: &Params) -> Result<Done<LabelCounts>, ApiError> {
    let text = params.get("selector").unwrap_or_default().to_owned();
    let matchers = match text.as_str() {
        "" => Vec::new(),
        text => parse_selector(text).map_err(|e| ApiError::parameter("selector", e))?,
    };
    match params.get("count_method") {
        None | Some("inmemory" | "active") => {}
        Some(_) => {
            let known = "[inmemory active]";
            return Err(ApiError::new(
                ErrorType::BadData,
                format!("invalid 'count_method' param: must be one of {known}"),
            ));
        }
    }
    let job = Job { tenant, kind: QueryKind::Statistics, text, times: None };
    let found = app.queries.look_up(job, move |leaf, active| {
        async move { leaf.label_counts(&active.job.tenant, &matchers, &active.budget).await }.boxed()
    });
    found.await.map_err(|e| ApiError::of(&e))
}

fn top(params: &Params) -> Result<usize, ApiError> {
    let bad = |what: String| ApiError::new(ErrorType::BadData, what);
    let Some(text) = params.get("limit") else { return Ok(TOP) };
    match text.parse::<usize>() {
        Ok(n) if n > MOST_TOP => Err(bad(format!("'limit' param cannot be greater than '{MOST_TOP}'"))),
        Ok(n) => Ok(n),
        Err(_) => Err(bad("'limit' param cannot be less than '0'".to_owned())),
    }
}

/// `GET /api/v1/user_limits`: Mimir's names; 0 where there is no such limit here.
pub async fn user_limits(State(app): State<App>, Tenant(tenant): Tenant) -> Json<Value> {
    let limits = app.ingest.config.limits_of(&tenant);
    Json(json!({
        "compactor_blocks_retention_period": 0,
        "ingestion_rate": 0,
        "ingestion_burst_size": 0,
        "ingestion_burst_factor": 0,
        "max_global_series_per_user": limits.max_global_series_per_user,
        "max_global_series_per_metric": 0,
        "max_global_exemplars_per_user": 0,
        "max_fetched_chunks_per_query": 0,
        "max_fetched_series_per_query": 0,
        "max_fetched_chunk_bytes_per_query": app.ingest.config.query.max_bytes.0,
        "ruler_max_rules_per_rule_group": 0,
        "ruler_max_rule_groups_per_tenant": 0,
    }))
}
