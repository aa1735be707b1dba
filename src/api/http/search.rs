//! Searching metric names, label names and label values by what somebody types.
//!
//! *Invariants:* an answer is lines of JSON: batches of results, and at the end whether there are more.
//!
//! *Not here:* what fits a term (`query::search`).

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;

use super::App;
use super::body::{PIECE_BYTES, Pieces, body_of};
use super::params::{Params, parse_time};
use super::reply::{ApiError, ErrorType, push_html_safe};
use super::tenant::Tenant;
use crate::error::Error;
use crate::model::labels::Quoted;
use crate::model::{METRIC_NAME, Matcher, MetadataRow, TimeRange};
use crate::query::search::{Algorithm, Hit, Order, Search};
use crate::query::{Active, Job, Leaf, QueryKind};

/// Most terms of a search.
const MOST_TERMS: usize = 32;
/// Longest term, bytes: scoring takes the square of it.
const TERM_BYTES: usize = 1024;
/// Results unless asked otherwise, and those of a batch.
const RESULTS: usize = 100;
/// Most results that may be asked for.
const MOST_RESULTS: usize = 10_000;
/// How far back is searched unless asked otherwise, milliseconds.
const BACK_MS: i64 = 3_600_000;

/// What is searched in.
#[derive(Debug, Clone)]
enum Place {
    Names,
    Values(String),
}

/// A request, checked.
struct Wanted {
    search: Search,
    selectors: Vec<Vec<Matcher>>,
    range: TimeRange,
    order: Order,
    limit: usize,
    batch: usize,
    scores: bool,
    metadata: bool,
}

/// `GET|POST /api/v1/search/metric_names`.
pub async fn metric_names(State(app): State<App>, tenant: Tenant, params: Params) -> Result<Response, ApiError> {
    let metadata = flag(&params, "include_metadata", false)?;
    answer(&app, tenant, &params, "metric_names", Place::Values(METRIC_NAME.to_owned()), metadata).await
}

/// `GET|POST /api/v1/search/label_names`.
pub async fn label_names(State(app): State<App>, tenant: Tenant, params: Params) -> Result<Response, ApiError> {
    answer(&app, tenant, &params, "label_names", Place::Names, false).await
}

/// `GET|POST /api/v1/search/label_values`.
pub async fn label_values(State(app): State<App>, tenant: Tenant, params: Params) -> Result<Response, ApiError> {
    let label = params.get("label").ok_or_else(|| bad("missing required parameter \"label\""))?;
    answer(&app, tenant, &params, "label_values", Place::Values(label.to_owned()), false).await
}

async fn answer(
    app: &App,
    Tenant(tenant): Tenant,
    params: &Params,
    what: &str,
    place: Place,
    metadata: bool,
) -> Result<Response, ApiError> {
    let wanted = wanted(params, what, app.queries.now_ms(), metadata)?;
    let (batch, scores) = (wanted.batch, wanted.scores);
    let text = params.all("search[]").collect::<Vec<_>>().join(", ");
    let job = Job { tenant, kind: QueryKind::Labels, text, times: None };
    let found = app.queries.look_up(job, move |leaf, active| find(leaf, active, wanted, place));
    let found = found.await.map_err(|e| ApiError::of(&e))?;
    let Found { hits, more, metadata } = found.value;
    let lines = Lines { rest: hits.into_iter(), metadata, scores, batch, more, begun: false, _held: found.active };
    let mut response = Response::new(body_of(lines));
    let content_type = HeaderValue::from_static("application/x-ndjson; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

struct Found {
    hits: Vec<Hit>,
    more: bool,
    metadata: HashMap<String, MetadataRow>,
}

fn find<'a>(leaf: &'a Leaf, active: &'a Active, wanted: Wanted, place: Place) -> BoxFuture<'a, Result<Found, Error>> {
    async move {
        let (tenant, budget) = (&active.job.tenant, &active.budget);
        let Wanted { search, selectors, range, order, limit, .. } = wanted;
        let names = match place {
            Place::Names => leaf.label_names(tenant, &selectors, range, budget).await?,
            Place::Values(label) => leaf.label_values(tenant, &label, &selectors, range, budget).await?,
        };
        let (hits, more) = search.pick(names, order, limit, budget)?;
        let mut metadata = HashMap::new();
        if wanted.metadata {
            for row in leaf.metadata(tenant, None, budget).await? {
                metadata.entry(row.metric.to_string()).or_insert(row);
            }
        }
        Ok(Found { hits, more, metadata })
    }
    .boxed()
}

/// The lines of an answer.
struct Lines {
    rest: std::vec::IntoIter<Hit>,
    metadata: HashMap<String, MetadataRow>,
    scores: bool,
    batch: usize,
    more: bool,
    begun: bool,
    _held: std::sync::Arc<Active>,
}

#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
}

impl Pieces for Lines {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < PIECE_BYTES {
            let hits: Vec<Hit> = self.rest.by_ref().take(self.batch).collect();
            if hits.is_empty() && self.begun {
                let trailer = format!("{{\"status\":\"success\",\"has_more\":{}}}\n", self.more);
                out.extend_from_slice(trailer.as_bytes());
                return false;
            }
            self.begun = true;
            let records: Vec<Record<'_>> = hits.iter().map(|hit| self.record(hit)).collect();
            out.extend_from_slice(b"{\"results\":");
            // Writing texts and finite numbers to a Vec cannot fail.
            let _ = push_html_safe(out, &records);
            out.extend_from_slice(b"}\n");
        }
        true
    }
}

impl Lines {
    fn record<'a>(&'a self, hit: &'a Hit) -> Record<'a> {
        let about = self.metadata.get(&hit.name);
        let text = |of: fn(&MetadataRow) -> &str| about.map(of).filter(|text| !text.is_empty());
        Record {
            name: &hit.name,
            score: self.scores.then_some(hit.score),
            kind: about.map(|row| row.kind.as_str()),
            help: text(|row| &row.help),
            unit: text(|row| &row.unit),
        }
    }
}

fn wanted(params: &Params, what: &str, now: i64, metadata: bool) -> Result<Wanted, ApiError> {
    let time = |name: &str, default: i64| match params.get(name) {
        None => Ok(default),
        Some(text) => parse_time(text).map_err(|e| bad(format!("invalid time value for '{name}': {e}"))),
    };
    let range = TimeRange::new(time("start", now - BACK_MS)?, time("end", now)?);
    let selectors = params.selectors().map_err(bad)?;
    let terms: Vec<String> = params.all("search[]").map(str::to_owned).collect();
    if terms.len() > MOST_TERMS {
        return Err(bad(format!("too many search[] parameters: {} (maximum {MOST_TERMS})", terms.len())));
    }
    if let Some(long) = terms.iter().find(|term| term.len() > TERM_BYTES) {
        return Err(bad(format!("search[] of {} bytes is too long (maximum {TERM_BYTES})", long.len())));
    }
    let threshold = match params.get("fuzz_threshold") {
        None => 0,
        Some(text) => text
            .parse::<u8>()
            .ok()
            .filter(|n| *n <= 100)
            .ok_or_else(|| bad(format!("invalid fuzz_threshold {}: must be 0-100", Quoted(text))))?,
    };
    let algorithm = match params.get("fuzz_alg") {
        None | Some("subsequence") => Algorithm::Subsequence,
        Some("jarowinkler") => Algorithm::JaroWinkler,
        Some(text) => {
            let known = "[subsequence jarowinkler]";
            return Err(bad(format!("unsupported fuzz_alg {}: must be one of {known}", Quoted(text))));
        }
    };
    let case_sensitive = flag(params, "case_sensitive", true)?;
    let scores = flag(params, "include_score", false)?;
    let order = order(params, what, terms.is_empty())?;
    let limit = count(params, "limit")?;
    if limit > MOST_RESULTS {
        return Err(bad(format!("limit {limit} exceeds the maximum of {MOST_RESULTS}")));
    }
    let search = Search { terms, algorithm, threshold: f64::from(threshold) / 100.0, case_sensitive };
    Ok(Wanted { search, selectors, range, order, limit, batch: count(params, "batch_size")?, scores, metadata })
}

fn order(params: &Params, what: &str, no_terms: bool) -> Result<Order, ApiError> {
    let (by, direction) = (params.get("sort_by"), params.get("sort_dir"));
    match (by, direction) {
        (None, Some(_)) => return Err(bad("sort_dir is only valid when sort_by is set")),
        (Some("score"), Some(_)) => return Err(bad("sort_dir is not supported for sort_by=score")),
        (_, None | Some("asc" | "dsc")) => {}
        (_, Some(other)) => {
            return Err(bad(format!("invalid sort_dir {}: must be \"asc\" or \"dsc\"", Quoted(other))));
        }
    }
    match by {
        Some("score") if no_terms => Err(bad("sort_by=score requires search[] to be set")),
        Some("score") => Ok(Order::Score),
        Some("alpha") if direction == Some("dsc") => Ok(Order::Descending),
        None | Some("alpha") => Ok(Order::Ascending),
        Some(other) => {
            Err(bad(format!("invalid sort_by {} for {what}: must be \"alpha\" or \"score\"", Quoted(other))))
        }
    }
}

/// A number of results; absent and 0 mean the default.
fn count(params: &Params, name: &str) -> Result<usize, ApiError> {
    let Some(text) = params.get(name) else { return Ok(RESULTS) };
    let wrong = |_| bad(format!("invalid {name} {}: must be non-negative integer", Quoted(text)));
    text.parse().map_err(wrong).map(|n: usize| if n == 0 { RESULTS } else { n })
}

/// A truth value in the words Go takes.
fn flag(params: &Params, name: &str, default: bool) -> Result<bool, ApiError> {
    match params.get(name) {
        None => Ok(default),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(text) => Err(bad(format!("invalid {name} {}: must be boolean", Quoted(text)))),
    }
}

fn bad(what: impl Into<String>) -> ApiError {
    ApiError::new(ErrorType::BadData, what)
}
