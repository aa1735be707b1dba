//! Who asks: the tenant of a request, from `X-Scope-OrgID`.
//!
//! *Invariants:* a header that is there must be valid; only its absence means `anonymous`.
//!
//! *Not here:* what a tenant may do (`ingest::admit`), authentication (a proxy in front).

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::reply::{ApiError, ErrorType};
use crate::model::TenantId;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// The tenant of a request.
pub struct Tenant(pub TenantId);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(TENANT_HEADER) else { return Ok(Self(TenantId::anonymous())) };
        let name = value.to_str().map_err(|_| ApiError::new(ErrorType::BadData, "X-Scope-OrgID is not text"))?;
        TenantId::new(name).map(Self).map_err(|e| ApiError::new(ErrorType::BadData, format!("X-Scope-OrgID: {e}")))
    }
}
