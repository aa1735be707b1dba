//! Answers of the Prometheus HTTP API: the envelope, and error types with their status codes.
//!
//! *Invariants:* an error body always has `status`, `errorType` and `error`. The table from [`Kind`] to status stands
//! here and nowhere else.
//!
//! *Not here:* the shapes inside `data` (`api::http::json`).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::body::{Pieces, body_of};
use crate::error::{Error, HasKind, Kind};

/// Seconds a refused writer is asked to wait.
const RETRY_AFTER_SECONDS: &str = "5";

/// `errorType` of the Prometheus API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The request is wrong.
    BadData,
    /// The query could not be evaluated.
    Execution,
    /// The caller went away.
    Canceled,
    /// The query took too long.
    Timeout,
    /// Our fault.
    Internal,
    /// Not now.
    Unavailable,
    /// Not with these settings.
    Disabled,
    /// No such thing.
    NotFound,
}

impl ErrorType {
    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadData => ("bad_data", StatusCode::BAD_REQUEST),
            Self::Execution => ("execution", StatusCode::UNPROCESSABLE_ENTITY),
            // nginx's code for it; Prometheus answers the same.
            Self::Canceled => ("canceled", StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)),
            Self::Timeout => ("timeout", StatusCode::SERVICE_UNAVAILABLE),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
            // Prometheus answers so where an API is switched off: there is no use in asking again.
            Self::Disabled => ("unavailable", StatusCode::INTERNAL_SERVER_ERROR),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
        }
    }
}

/// An error as the API words it.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// Sort of error.
    pub error_type: ErrorType,
    /// What went wrong.
    pub message: String,
}

impl ApiError {
    /// An error of `error_type`.
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self { error_type, message: message.into() }
    }

    /// A parameter that cannot be used.
    pub fn parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(ErrorType::BadData, format!("invalid parameter \"{name}\": {problem}"))
    }

    /// What an error of storage or ingestion means to a client.
    pub fn of(error: &(impl HasKind + std::fmt::Display)) -> Self {
        let error_type = match error.kind() {
            Kind::Invalid => ErrorType::BadData,
            Kind::NotFound => ErrorType::NotFound,
            Kind::Limited => ErrorType::Execution,
            Kind::Unavailable => ErrorType::Unavailable,
            Kind::Cancelled => ErrorType::Canceled,
            Kind::Corrupt | Kind::Internal => ErrorType::Internal,
        };
        Self::new(error_type, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (word, status) = self.error_type.parts();
        // A text is always JSON.
        let message = html_safe(&self.message).unwrap_or_default();
        let body = format!("{{\"status\":\"error\",\"errorType\":\"{word}\",\"error\":{message}}}");
        let mut response = json_response(status, body.into());
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// The status and error body of a write that failed, in the words writers expect: plain text.
pub fn write_error(kind: Kind, message: String) -> Response {
    let status = match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Limited => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable | Kind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Corrupt | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (status, message).into_response();
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

/// A failure in plain text, for readers that are no users of the JSON API.
pub fn read_error(error: &Error) -> Response {
    let api = ApiError::of(error);
    let (_, status) = api.error_type.parts();
    (status, api.message).into_response()
}

/// `{"status":"success","data":…}` around serialisable data.
pub fn success(data: &impl Serialize) -> Response {
    match html_safe(data) {
        Ok(data) => enveloped(data, &[], &[], ()),
        Err(e) => ApiError::new(ErrorType::Internal, format!("encode answer: {e}")).into_response(),
    }
}

/// Nothing to say: a success without a body.
pub fn no_data() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The envelope around `data` that writes itself as JSON; `held` is dropped when all of it is sent.
pub fn enveloped(data: impl Pieces, warnings: &[String], infos: &[String], held: impl Send + 'static) -> Response {
    let mut tail = String::new();
    for (key, list) in [("warnings", warnings), ("infos", infos)] {
        // A list of texts is always JSON.
        if let (false, Ok(list)) = (list.is_empty(), html_safe(&list)) {
            tail.push_str(&format!(",\"{key}\":{list}"));
        }
    }
    tail.push('}');
    let head = "{\"status\":\"success\",\"data\":".to_owned();
    json_response(StatusCode::OK, body_of(Envelope { head, data, tail, _held: held }))
}

struct Envelope<P, H> {
    head: String,
    data: P,
    tail: String,
    _held: H,
}

impl<P: Pieces, H: Send + 'static> Pieces for Envelope<P, H> {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        self.head.fill(out);
        self.data.fill(out) || self.tail.fill(out)
    }
}

fn json_response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// JSON as Go's encoder writes it: `<`, `>`, `&` and two line separators are escaped, as for a page of HTML.
pub fn html_safe(data: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::new();
    push_html_safe(&mut out, data)?;
    // The serializer writes nothing but UTF-8.
    Ok(String::from_utf8(out).unwrap_or_default())
}

/// As [`html_safe`], appended.
pub fn push_html_safe(out: &mut Vec<u8>, data: &impl Serialize) -> serde_json::Result<()> {
    data.serialize(&mut serde_json::Serializer::with_formatter(out, HtmlSafe))
}

struct HtmlSafe;

impl serde_json::ser::Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + std::io::Write>(&mut self, to: &mut W, text: &str) -> std::io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let c = rest[at..].chars().next().unwrap_or_default();
            to.write_all(&rest.as_bytes()[..at])?;
            write!(to, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        to.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_safe_inside_of_html() {
        assert_eq!(html_safe(&"a<b>&c\u{2028}\"é").unwrap(), r#""a\u003cb\u003e\u0026c\u2028\"é""#);
    }

    #[tokio::test]
    async fn what_an_answer_holds_is_given_back_with_its_body() {
        let held = std::sync::Arc::new(());
        let answer = enveloped("[1]".to_owned(), &["w".into()], &[], held.clone());
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(&body[..], br#"{"status":"success","data":[1],"warnings":["w"]}"#);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
