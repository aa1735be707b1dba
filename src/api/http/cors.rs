//! Pages of any origin may read, as with Prometheus.
//!
//! *Invariants:* nothing is said about origins to a client that names none. `OPTIONS` is answered without a body.
//!
//! *Not here:* who may read what: tokens and cookies are a proxy's matter.

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
/// `*` would not include `Authorization`.
const HEADERS: HeaderValue = HeaderValue::from_static("Accept, Authorization, Content-Type, Origin, X-Scope-OrgID");

/// Answers `OPTIONS`, and tells browsers that they may pass an answer on.
pub async fn cors(request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}
