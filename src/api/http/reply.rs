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

use crate::error::{HasKind, Kind};

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
        let body = serde_json::json!({"status": "error", "errorType": word, "error": self.message});
        let mut response = json_response(status, body.to_string().into());
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

/// `{"status":"success","data":…}` around serialisable data.
pub fn success(data: &impl Serialize) -> Response {
    success_with(data, Vec::new())
}

/// As [`success`], with warnings.
pub fn success_with(data: &impl Serialize, warnings: Vec<String>) -> Response {
    match serde_json::to_string(data) {
        Ok(data) => enveloped(&data, &warnings, &[]),
        Err(e) => ApiError::new(ErrorType::Internal, format!("encode answer: {e}")).into_response(),
    }
}

/// The envelope around `data` that is JSON already.
pub fn enveloped(data: &str, warnings: &[String], infos: &[String]) -> Response {
    let mut body = String::with_capacity(data.len() + 64);
    body.push_str("{\"status\":\"success\",\"data\":");
    body.push_str(data);
    for (key, list) in [("warnings", warnings), ("infos", infos)] {
        if !list.is_empty() {
            body.push_str(&format!(",\"{key}\":{}", serde_json::Value::from(list)));
        }
    }
    body.push('}');
    json_response(StatusCode::OK, body.into())
}

fn json_response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
