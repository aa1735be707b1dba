//! What this node is: build, configuration, process, and the series it holds, in the shapes Grafana and others look at.
//!
//! *Invariants:* `buildinfo` is what Grafana decides by: `application` names us and the features are strings.
//!
//! *Not here:* readiness (`api::http::health`).

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use futures::FutureExt;
use serde_json::{Value, json};

use super::App;
use super::params::Params;
use super::reply::{ApiError, ErrorType, enveloped, success};
use super::tenant::Tenant;
use crate::config::Feature;
use crate::promql::signature::FUNCTIONS;
use crate::query::statistics::Ranked;
use crate::query::{Done, Job, QueryKind};
use crate::store::catalog::snapshot::Block;

/// Entries of each list of `status/tsdb`, unless asked otherwise.
const TOP: usize = 10;
/// Most entries that may be asked for.
const MOST_TOP: usize = 10_000;

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
    success(&json!({ "yaml": app.about.config_yaml }))
}

/// `GET /api/v1/status/flags`.
pub async fn flags(State(app): State<App>) -> Response {
    success(&app.about.flags)
}

/// `GET /api/v1/status/runtimeinfo`: fields that only a Go program has are left empty.
pub async fn runtimeinfo(State(app): State<App>) -> Response {
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |t| t.to_string());
    let started = time(app.about.started_ms);
    success(&json!({
        "startTime": started,
        "CWD": app.about.directory,
        "hostname": app.about.node_name,
        "serverTime": time(app.queries.now_ms()),
        "reloadConfigSuccess": true,
        "lastConfigTime": started,
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": "",
    }))
}

/// `GET /api/v1/status/walreplay`: a node answers only when its log is applied.
pub async fn walreplay() -> Response {
    success(&json!({"min": 0, "max": 0, "current": 0}))
}

/// `GET /api/v1/features`.
pub async fn features(State(app): State<App>) -> Response {
    let options = app.queries.parse_options();
    let on = |feature| app.queries.options().features.has(feature);
    let functions: BTreeMap<&str, bool> =
        FUNCTIONS.iter().map(|f| (f.name, !f.experimental || options.experimental_functions)).collect();
    let all = |names: &[&'static str]| names.iter().map(|name| (*name, true)).collect::<BTreeMap<_, _>>();
    let data = json!({
        "api": all(&[
            "active_queries", "exemplars", "federate", "label_values_match", "query_stats",
            "query_warnings", "remote_read_samples", "remote_read_streamed_xor_chunks", "remote_write_receiver", "search",
            "time_range_labels", "time_range_series",
        ]),
        "promql": {
            "anchored_smoothed": options.extended_range_selectors,
            "at_modifier": true,
            "bool": true,
            "by": true,
            "delayed_name_removal": on(Feature::DelayedNameRemoval),
            "duration_expr": true,
            "fill": options.fill_modifiers,
            "group_left": true,
            "group_right": true,
            "ignoring": true,
            "negative_offset": true,
            "offset": true,
            "on": true,
            "per_query_lookback_delta": true,
            "per_step_stats": on(Feature::PerStepStats),
            "subqueries": true,
            "type_and_unit_labels": on(Feature::TypeAndUnitLabels),
            "use_start_timestamps": on(Feature::UseStartTimestamps),
            "without": true,
        },
        "promql_functions": functions,
        "promql_operators": all(&[
            "!=", "%", "*", "+", "-", "/", "<", "<=", "==", ">", ">=", "@", "^", "and", "atan2", "or", "unless",
        ]),
    });
    // Names of operators are not escaped for HTML here.
    enveloped(data.to_string(), &[], &[], ())
}

/// `GET /api/v1/status/tsdb`.
pub async fn tsdb(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    let top = top(&params)?;
    let job = Job { tenant, kind: QueryKind::Statistics, text: String::new(), times: None };
    let found = app.queries.look_up(job, move |leaf, active| {
        async move { leaf.statistics(&active.job.tenant, top, &active.budget).await }.boxed()
    });
    let Done { value: found, .. } = found.await.map_err(|e| ApiError::of(&e))?;
    let ranked =
        |list: &[Ranked]| list.iter().map(|(name, n)| json!({"name": name, "value": n})).collect::<Vec<Value>>();
    // Prometheus' bounds of a head without samples.
    let (min, max) = found.range.map_or((i64::MAX, i64::MIN), |r| (r.start, r.end));
    Ok(success(&json!({
        "headStats": {
            "numSeries": found.series,
            "numLabelPairs": found.label_pairs,
            "chunkCount": found.chunks,
            "minTime": min,
            "maxTime": max,
        },
        "seriesCountByMetricName": ranked(&found.series_by_metric),
        "labelValueCountByLabelName": ranked(&found.values_by_label),
        "memoryInBytesByLabelName": ranked(&found.bytes_by_label),
        "seriesCountByLabelValuePair": ranked(&found.series_by_pair),
    })))
}

fn top(params: &Params) -> Result<usize, ApiError> {
    let bad = |what: String| ApiError::new(ErrorType::BadData, what);
    match params.get("limit").map(str::parse::<usize>) {
        None => Ok(TOP),
        Some(Ok(n)) if n > MOST_TOP => Err(bad(format!("limit must not exceed {MOST_TOP}"))),
        Some(Ok(n)) if n > 0 => Ok(n),
        Some(_) => Err(bad("limit must be a positive number".to_owned())),
    }
}

/// `GET /api/v1/status/tsdb/blocks`.
pub async fn blocks(State(app): State<App>, Tenant(tenant): Tenant) -> Result<Response, ApiError> {
    let job = Job { tenant, kind: QueryKind::Statistics, text: String::new(), times: None };
    let found = app.queries.look_up(job, |leaf, active| leaf.blocks_of(&active.job.tenant, &active.budget).boxed());
    let found = found.await.map_err(|e| ApiError::of(&e))?.value;
    let blocks: Vec<Value> = found.iter().map(|block| describe(block)).collect();
    Ok(success(&json!({ "blocks": blocks })))
}

/// A block under Prometheus' names; its maximum is exclusive there.
fn describe(block: &Block) -> Value {
    let series = block.file("series").map_or(0, |file| file.rows);
    json!({
        "ulid": block.name.to_string(),
        "minTime": block.tags.range.start,
        "maxTime": block.tags.range.end.saturating_add(1),
        "stats": {"numSamples": block.tags.samples, "numSeries": series, "numBytes": block.bytes()},
        "compaction": {"level": 1, "sources": [block.name.to_string()]},
        "version": 1,
    })
}
