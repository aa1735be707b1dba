//! Exemplars of the series a query selects.
//!
//! *Invariants:* shapes are those of Prometheus; a query without a selector has no data.
//!
//! *Not here:* finding them (`query::lookup`).

use std::io::Write;

use std::collections::HashSet;

use axum::extract::State;
use axum::response::Response;
use futures::FutureExt;

use super::App;
use super::body::List;
use super::json::{push_labels, push_number, push_time};
use super::params::Params;
use super::reply::{ApiError, ErrorType, enveloped, no_data};
use super::tenant::Tenant;
use crate::model::{Exemplar, Labels, Matcher, TimeRange};
use crate::promql;
use crate::promql::ast::{Ast, Expr};
use crate::query::{Done, Job, QueryKind};

/// `GET|POST /api/v1/query_exemplars`.
pub async fn exemplars(State(app): State<App>, Tenant(tenant): Tenant, params: Params) -> Result<Response, ApiError> {
    let all = TimeRange::all();
    let (start, end) = (params.time("start")?, params.time("end")?);
    let range = TimeRange::new(start.unwrap_or(all.start), end.unwrap_or(all.end));
    if range.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, "end timestamp must not be before start timestamp"));
    }
    // Prometheus does not name the parameter here.
    let parsed = promql::parse(params.get("query").unwrap_or_default(), app.queries.parse_options());
    let selectors = selectors_of(&parsed.map_err(|e| ApiError::new(ErrorType::BadData, e.to_string()))?);
    if selectors.is_empty() {
        return Ok(no_data());
    }
    let text = params.get("query").unwrap_or_default().to_owned();
    let job = Job { tenant, kind: QueryKind::Exemplars, text, times: None };
    let found = app.queries.look_up(job, move |leaf, active| {
        async move { leaf.exemplars(&active.job.tenant, &selectors, range, &active.budget).await }.boxed()
    });
    let Done { value, active } = found.await.map_err(|e| ApiError::of(&e))?;
    Ok(enveloped(List::new(value.into_iter(), push_series), &[], &[], active))
}

/// The conditions of all selectors of a query, each list once.
#[allow(clippy::mutable_key_type, reason = "matchers are told apart by name, comparison and value alone")]
fn selectors_of(ast: &Ast) -> Vec<Vec<Matcher>> {
    let (mut selectors, mut known) = (Vec::new(), HashSet::new());
    for id in ast.post_order(ast.root) {
        if let Expr::Vector(selector) = ast.expr(id)
            && known.insert(&selector.matchers)
        {
            selectors.push(selector.matchers.clone());
        }
    }
    selectors
}

fn push_series(out: &mut Vec<u8>, (labels, exemplars): (Labels, Vec<Exemplar>)) {
    out.extend_from_slice(b"{\"seriesLabels\":");
    push_labels(out, &labels);
    let mut separator = ",\"exemplars\":[";
    for exemplar in &exemplars {
        let _ = write!(out, "{separator}{{\"labels\":");
        separator = ",";
        push_labels(out, &exemplar.labels);
        out.extend_from_slice(b",\"value\":\"");
        push_number(out, exemplar.value);
        out.extend_from_slice(b"\",\"timestamp\":");
        push_time(out, exemplar.t);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}
