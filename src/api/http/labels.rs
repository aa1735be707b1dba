//! Series, label names, label values and metadata.
//!
//! *Invariants:* lists are sorted and have no duplicates; a cut by `limit` is said in a warning.
//!
//! *Not here:* finding them (`query::lookup`).

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::Response;
use futures::FutureExt;
use serde::Serialize;

use super::App;
use super::body::List;
use super::json::push_labels;
use super::params::Params;
use super::query::TRUNCATED;
use super::reply::{ApiError, ErrorType, enveloped, html_safe, push_html_safe};
use super::tenant::Tenant;
use crate::model::{Labels, Matcher, MetadataRow, TenantId, TimeRange};
use crate::query::{Active, Done, Job, Leaf, QueryKind};

/// `GET|POST /api/v1/series`.
pub async fn series(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::new(ErrorType::BadData, "no match[] parameter provided"));
    }
    let (limit, range) = (params.limit()?, range(&params)?);
    let selectors = params.selectors().map_err(|e| ApiError::parameter("match[]", e))?;
    let found = app.queries.look_up(job(tenant, QueryKind::Series, &params), move |leaf, active| {
        async move { leaf.series(&active.job.tenant, &selectors, range, &active.budget).await }.boxed()
    });
    let found = found.await.map_err(|e| ApiError::of(&e))?;
    Ok(list(found, limit, |out, labels: Labels| push_labels(out, &labels)))
}

/// `GET|POST /api/v1/labels`.
pub async fn names(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    let (limit, range, selectors) = (params.limit()?, range(&params)?, selectors(&params)?);
    let found = app.queries.look_up(job(tenant, QueryKind::Labels, &params), move |leaf, active| {
        async move { leaf.label_names(&active.job.tenant, &selectors, range, &active.budget).await }.boxed()
    });
    Ok(list(found.await.map_err(|e| ApiError::of(&e))?, limit, push_text))
}

/// `GET /api/v1/label/<name>/values`.
pub async fn values(
    State(app): State<App>,
    Tenant(tenant): Tenant,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = unescape(&name);
    if name.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, format!("invalid label name: {name:?}")));
    }
    let (limit, range, selectors) = (params.limit()?, range(&params)?, selectors(&params)?);
    let found = app.queries.look_up(job(tenant, QueryKind::Labels, &params), move |leaf, active| {
        async move { leaf.label_values(&active.job.tenant, &name, &selectors, range, &active.budget).await }.boxed()
    });
    Ok(list(found.await.map_err(|e| ApiError::of(&e))?, limit, push_text))
}

/// The job of a look-up; its text are its selectors.
fn job(tenant: TenantId, kind: QueryKind, params: &Params) -> Job {
    let selectors: Vec<&str> = params.all("match[]").collect();
    Job { tenant, kind, text: selectors.join(", "), times: None }
}

/// One metric's metadata in an answer.
#[derive(Serialize)]
struct MetadataItem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    help: &'a str,
    unit: &'a str,
}

/// `GET /api/v1/metadata`.
pub async fn metadata(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    let (limit, per_metric) = (number(&params, "limit")?, number(&params, "limit_per_metric")?);
    let (limit, per_metric) = (limit.filter(|n| *n >= 0), per_metric.filter(|n| *n > 0));
    let metric = params.get("metric").map(str::to_owned);
    let text = metric.clone().unwrap_or_default();
    let job = Job { tenant, kind: QueryKind::Metadata, text, times: None };
    let rows = app.queries.look_up(job, move |leaf: &Leaf, active: &Active| {
        async move { leaf.metadata(&active.job.tenant, metric.as_deref(), &active.budget).await }.boxed()
    });
    let Done { value: rows, active } = rows.await.map_err(|e| ApiError::of(&e))?;
    let mut by_metric: BTreeMap<&str, Vec<MetadataItem<'_>>> = BTreeMap::new();
    for MetadataRow { metric, kind, help, unit } in &rows {
        let full = limit.is_some_and(|limit| by_metric.len() as i64 >= limit);
        if full && !by_metric.contains_key(&**metric) {
            continue;
        }
        let items = by_metric.entry(metric).or_default();
        if per_metric.is_none_or(|most| (items.len() as i64) < most) {
            items.push(MetadataItem { kind: kind.as_str(), help, unit });
        }
    }
    let data = html_safe(&by_metric).map_err(|e| ApiError::new(ErrorType::Internal, format!("encode answer: {e}")))?;
    Ok(enveloped(data, &[], &[], active))
}

/// A number as `metadata` takes them, where 0 means none and a negative one no limit.
fn number(params: &Params, name: &str) -> Result<Option<i64>, ApiError> {
    let wrong = |_| ApiError::new(ErrorType::BadData, format!("{name} must be a number"));
    params.get(name).map(|text| text.parse().map_err(wrong)).transpose()
}

/// Prometheus names the parameter in errors of `series`, and does not in those of names and values.
fn selectors(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    params.selectors().map_err(|e| ApiError::new(ErrorType::BadData, e))
}

/// The range of a look-up: everything, unless it is said.
pub fn range(params: &Params) -> Result<TimeRange, ApiError> {
    let all = TimeRange::all();
    let (start, end) = (params.time("start")?, params.time("end")?);
    let range = TimeRange::new(start.unwrap_or(all.start), end.unwrap_or(all.end));
    if range.is_empty() {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    Ok(range)
}

fn list<T: Send + 'static>(found: Done<BTreeSet<T>>, limit: usize, write: fn(&mut Vec<u8>, T)) -> Response {
    let over = limit > 0 && found.value.len() > limit;
    let warnings = if over { vec![TRUNCATED.to_owned()] } else { Vec::new() };
    let items = found.value.into_iter().take(if over { limit } else { usize::MAX });
    enveloped(List::new(items, write), &warnings, &[], found.active)
}

fn push_text(out: &mut Vec<u8>, text: String) {
    // Writing a text to a Vec cannot fail.
    let _ = push_html_safe(out, &text);
}

/// A label name written in the `U__` form: `_` doubled, other characters as `_<hex>_`.
fn unescape(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::new();
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let decoded = after.split_once('_').and_then(|(hex, after)| {
            let c = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
            Some((c, after))
        });
        let Some((c, after)) = decoded else { return name.to_owned() };
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_utf8_form_are_read_back() {
        assert_eq!(unescape("job"), "job");
        assert_eq!(unescape("U__http_2e_status__code"), "http.status_code");
        assert_eq!(unescape("U__bad_zz_"), "U__bad_zz_");
    }
}
