//! Instant and range queries; formatting and parsing of PromQL.
//!
//! *Invariants:* checks, limits and error texts are those of Prometheus' API.
//!
//! *Not here:* evaluation (`query`), JSON of values (`api::http::json`).

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::App;
use super::json::QueryData;
use super::params::{Params, parse_duration};
use super::reply::{ApiError, ErrorType, enveloped, success};
use super::stats::{self, StatsWanted};
use super::tenant::Tenant;
use crate::error::{HasKind, Kind};
use crate::model::StepGrid;
use crate::promql;
use crate::promql::annotations::{API_LIMIT, Severity};
use crate::promql::exec::Times;
use crate::promql::exec::error::Error as EvalError;
use crate::promql::exec::result::QueryValue;
use crate::query::{Answered, QueryError, QueryRequest};

/// Most steps of a range query.
const MAX_STEPS: i64 = 11_000;

/// Longest query that is formatted or shown as a tree, which takes far more room than its text.
const SHOWN_BYTES: usize = 128 << 10;

/// Said where `limit` cut an answer.
pub const TRUNCATED: &str = "results truncated due to limit";

/// `GET|POST /api/v1/query`.
pub async fn instant(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    let (limit, wanted) = (params.limit()?, StatsWanted::of(&params, app.queries.options().features));
    let t = params.time("time")?.unwrap_or_else(|| app.queries.now_ms());
    let request = QueryRequest {
        tenant,
        text: params.get("query").unwrap_or_default().to_owned(),
        times: Times::Instant(t),
        timeout: timeout(&params)?,
        lookback_ms: lookback(&params)?,
        count_samples: wanted != StatsWanted::None,
        no_cache: no_cache(&params),
    };
    answer(app.queries.run(request).await.map_err(|e| query_error(&e))?, limit, wanted)
}

/// `GET|POST /api/v1/query_range`.
pub async fn range(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    let (limit, wanted) = (params.limit()?, StatsWanted::of(&params, app.queries.options().features));
    let (start, end) = (params.required_time("start")?, params.required_time("end")?);
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step = parse_duration(params.get("step").unwrap_or_default()).map_err(|e| ApiError::parameter("step", e))?;
    if step <= 0 {
        let problem = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", problem));
    }
    if end.checked_sub(start).is_none_or(|span| span / step > MAX_STEPS) {
        let problem = "exceeded maximum resolution of 11,000 points per timeseries. \
                       Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::new(ErrorType::BadData, problem));
    }
    let request = QueryRequest {
        tenant,
        text: params.get("query").unwrap_or_default().to_owned(),
        times: Times::Range(StepGrid { start, end, step }),
        timeout: timeout(&params)?,
        lookback_ms: lookback(&params)?,
        count_samples: wanted != StatsWanted::None,
        no_cache: no_cache(&params),
    };
    answer(app.queries.run(request).await.map_err(|e| query_error(&e))?, limit, wanted)
}

/// `GET|POST /api/v1/format_query`.
pub async fn format(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let ast = parse_parameter(&app, &params)?;
    Ok(success(&ast.pretty()))
}

/// `GET|POST /api/v1/parse_query`.
pub async fn parse(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    let ast = parse_parameter(&app, &params)?;
    Ok(enveloped(ast.to_json(), &[], &[], ()))
}

fn parse_parameter(app: &App, params: &Params) -> Result<promql::ast::Ast, ApiError> {
    let text = params.get("query").unwrap_or_default();
    if text.len() > SHOWN_BYTES {
        let problem = format!("a query of {} bytes is not shown, one of {SHOWN_BYTES} is at most", text.len());
        return Err(ApiError::parameter("query", problem));
    }
    promql::parse(text, app.queries.parse_options()).map_err(|e| ApiError::parameter("query", e))
}

fn timeout(params: &Params) -> Result<Option<Duration>, ApiError> {
    Ok(params.duration("timeout")?.map(|ms| Duration::from_millis(ms.max(0) as u64)))
}

fn lookback(params: &Params) -> Result<Option<i64>, ApiError> {
    let Some(text) = params.get("lookback_delta") else { return Ok(None) };
    let wrong = |e| ApiError::new(ErrorType::BadData, format!("error parsing lookback delta duration: {e}"));
    // As in Prometheus, one that is not positive means the node's own.
    parse_duration(text).map(|ms| Some(ms).filter(|ms| *ms > 0)).map_err(wrong)
}

/// Whether the answer is to be computed from samples alone.
fn no_cache(params: &Params) -> bool {
    matches!(params.get("nocache"), Some("1" | "true"))
}

fn answer(answered: Answered, limit: usize, wanted: StatsWanted) -> Result<Response, ApiError> {
    let Answered { mut result, active } = answered;
    let truncated = match &mut result.value {
        QueryValue::Vector(samples) => truncate(samples, limit),
        QueryValue::Matrix(series) => truncate(series, limit),
        _ => false,
    };
    // These count towards the cap on warnings too.
    let own = truncated.then_some(TRUNCATED).into_iter().chain(wanted.warning());
    own.for_each(|warning| result.annotations.storage_warning(warning));
    let text = &active.job.text;
    let warnings = result.annotations.render(Severity::Warning, text, API_LIMIT);
    let infos = result.annotations.render(Severity::Info, text, API_LIMIT);
    let stats = (wanted != StatsWanted::None).then(|| stats::to_json(&active, &result.stats, wanted));
    Ok(enveloped(QueryData::new(result.value, stats), &warnings, &infos, active))
}

fn truncate<T>(items: &mut Vec<T>, limit: usize) -> bool {
    let over = limit > 0 && items.len() > limit;
    if over {
        items.truncate(limit);
    }
    over
}

/// What a query's failure means to a client.
pub fn query_error(error: &QueryError) -> ApiError {
    let error_type = match error {
        QueryError::Parse(_) => return ApiError::parameter("query", error),
        QueryError::RangeType(_) => return ApiError::parameter("query", error),
        QueryError::Lost => ErrorType::Internal,
        QueryError::Eval(e) => match e {
            EvalError::TimedOut => ErrorType::Timeout,
            EvalError::Cancelled => ErrorType::Canceled,
            EvalError::Storage(e) => match e.kind() {
                Kind::Unavailable => ErrorType::Unavailable,
                Kind::Limited => ErrorType::Execution,
                _ => ErrorType::Internal,
            },
            _ => ErrorType::Execution,
        },
    };
    ApiError::new(error_type, error.to_string())
}
