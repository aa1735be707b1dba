//! Federation: the newest samples as text, for another Prometheus to scrape, or as messages where it prefers them.
//!
//! *Invariants:* metrics come in order of their names, each family in one piece. Native histograms with exponential
//! buckets have no text form and are left out there; those with custom buckets are written as classic ones.
//!
//! *Not here:* finding the samples (`query::newest`), our own metrics (`api::http::health`).
//!
//! Source: Prometheus `web/federate.go`, text format 0.0.4.

mod protobuf;

use std::io::Write;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::body::{PIECE_BYTES, Pieces, body_of};
use super::params::Params;
use super::reply::read_error;
use super::tenant::Tenant;
use crate::model::buckets::buckets;
use crate::model::labels::{is_legacy_label_name, is_legacy_metric_name};
use crate::model::number::format_g;
use crate::model::{Histogram, Labels, METRIC_NAME};
use crate::promql::exec::column::Sample;
use crate::query::{Active, Done, Job, Newest, QueryKind};

/// What a client says that reads any name in quotes.
const ANY_NAME: &str = "escaping=allow-utf-8";
/// The message of a family of metrics.
const FAMILY: &str = "io.prometheus.client.MetricFamily";

/// `GET /federate`.
pub async fn federate(State(app): State<App>, Tenant(tenant): Tenant, headers: HeaderMap, params: Params) -> Response {
    let selectors = match params.selectors() {
        Ok(selectors) => selectors,
        Err(what) => return (StatusCode::BAD_REQUEST, what).into_response(),
    };
    let text = params.all("match[]").collect::<Vec<_>>().join(", ");
    let job = Job { tenant, kind: QueryKind::Federate, text, times: None };
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let any_name = accept.contains(ANY_NAME);
    match app.queries.newest(job, selectors, app.queries.now_ms()).await {
        Err(e) => read_error(&e),
        Ok(Done { value, active }) => {
            let form = Form::preferred(accept);
            let body = match form {
                Form::Messages => body_of(protobuf::Families::new(value, any_name, active)),
                Form::Text => body_of(Page { rest: value.into_iter(), family: None, any_name, _held: active }),
            };
            let mut response = Response::new(body);
            let content_type = HeaderValue::from_static(form.content_type(any_name));
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
    }
}

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Messages,
}

impl Form {
    /// The known form that `accept` gives the highest weight, the first of several; text if it names none.
    fn preferred(accept: &str) -> Self {
        let (mut best, mut best_weight) = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameter = |name: &str| parts.clone().find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
            let form = match (kind, parameter("proto"), parameter("encoding")) {
                ("text/plain", ..) => Self::Text,
                ("application/vnd.google.protobuf", Some(FAMILY), Some("delimited")) => Self::Messages,
                _ => continue,
            };
            let weight = parameter("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if weight > best_weight {
                (best, best_weight) = (form, weight);
            }
        }
        best
    }

    fn content_type(self, any_name: bool) -> &'static str {
        match (self, any_name) {
            (Self::Text, false) => "text/plain; version=0.0.4; charset=utf-8",
            (Self::Text, true) => "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
            (Self::Messages, false) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            (Self::Messages, true) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; \
                 escaping=allow-utf-8"
            }
        }
    }
}

/// The page in the making.
struct Page {
    rest: std::vec::IntoIter<Newest>,
    /// Name of the family before, and whether it is one of histograms.
    family: Option<(String, bool)>,
    any_name: bool,
    _held: std::sync::Arc<Active>,
}

impl Pieces for Page {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < PIECE_BYTES {
            let Some(newest) = self.rest.next() else { return false };
            self.write(out, &newest);
        }
        true
    }
}

impl Page {
    fn write(&mut self, out: &mut Vec<u8>, newest: &Newest) {
        let name = newest.labels.metric();
        let histogram = match &newest.sample {
            Sample::Histogram(h) if h.is_custom() => Some(h),
            Sample::Histogram(_) => return,
            Sample::Float(_) => None,
        };
        if name.is_empty() {
            return;
        }
        if self.family.as_ref().is_none_or(|(n, h)| *n != name || *h != histogram.is_some()) {
            out.extend_from_slice(b"# TYPE ");
            self.write_family(out, name, "");
            out.extend_from_slice(if histogram.is_some() { b" histogram\n" } else { b" untyped\n" });
            self.family = Some((name.to_owned(), histogram.is_some()));
        }
        match (&newest.sample, histogram) {
            (_, Some(h)) => self.write_histogram(out, newest, h),
            (Sample::Float(v), None) => self.write_sample(out, newest, "", None, *v),
            _ => {}
        }
    }

    /// Cumulative buckets, sum, count.
    fn write_histogram(&self, out: &mut Vec<u8>, newest: &Newest, h: &Histogram) {
        let filled = buckets(h);
        let mut filled = filled.iter().peekable();
        let mut below = 0.0;
        for bound in &h.custom_values {
            while let Some(bucket) = filled.next_if(|b| b.upper <= *bound) {
                below += bucket.count;
            }
            self.write_sample(out, newest, "_bucket", Some(&format_g(*bound)), below);
        }
        self.write_sample(out, newest, "_bucket", Some("+Inf"), h.count);
        self.write_sample(out, newest, "_sum", None, h.sum);
        self.write_sample(out, newest, "_count", None, h.count);
    }

    fn write_sample(&self, out: &mut Vec<u8>, newest: &Newest, suffix: &str, le: Option<&str>, v: f64) {
        let labels = &newest.labels;
        let quoted = self.any_name && !is_legacy_metric_name(labels.metric());
        if !quoted {
            self.write_family(out, labels.metric(), suffix);
        }
        let mut separator = b'{';
        let mut next = |out: &mut Vec<u8>| out.push(std::mem::replace(&mut separator, b','));
        if quoted {
            next(out);
            self.write_family(out, labels.metric(), suffix);
        }
        for (name, value) in own_labels(labels).chain(le.map(|le| ("le", le))) {
            next(out);
            self.write_name(out, name, is_legacy_label_name(name));
            out.extend_from_slice(b"=\"");
            push_escaped(out, value);
            out.push(b'"');
        }
        if separator == b',' {
            out.push(b'}');
        }
        let _ = writeln!(out, " {} {}", format_g(v), newest.t);
    }

    fn write_family(&self, out: &mut Vec<u8>, name: &str, suffix: &str) {
        self.write_name(out, &format!("{name}{suffix}"), is_legacy_metric_name(name));
    }

    /// A name as it is; one that old readers do not know in quotes, or for them with `_` where they stumble.
    fn write_name(&self, out: &mut Vec<u8>, name: &str, plain: bool) {
        if plain {
            out.extend_from_slice(name.as_bytes());
        } else if self.any_name {
            out.push(b'"');
            push_escaped(out, name);
            out.push(b'"');
        } else {
            out.extend_from_slice(legible(name).as_bytes());
        }
    }
}

/// A name for readers that know old ones only: with `_` where they stumble.
fn legible(name: &str) -> String {
    let digit_first = name.starts_with(|c: char| c.is_ascii_digit()).then_some('_');
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' });
    digit_first.into_iter().chain(plain).collect()
}

fn own_labels(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().filter(|(name, _)| *name != METRIC_NAME)
}

fn push_escaped(out: &mut Vec<u8>, text: &str) {
    for b in text.bytes() {
        match b {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            b => out.push(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_preferred() {
        let messages = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for (accept, form) in [
            (String::new(), Form::Text),
            ("*/*".into(), Form::Text),
            (messages.to_owned(), Form::Messages),
            (format!("{messages};q=0.6,application/openmetrics-text;version=1.0.0;q=0.9,*/*;q=0.1"), Form::Messages),
            (format!("text/plain;version=0.0.4;q=0.5, {messages};q=0.4"), Form::Text),
            (format!("text/plain;q=0.5,{}", messages.replace(";", " ; ")), Form::Messages),
            (messages.replace("delimited", "text"), Form::Text),
            (format!("{messages};q=0"), Form::Text),
        ] {
            assert_eq!(Form::preferred(&accept), form, "{accept}");
        }
    }
}
