//! Rows that another node sends to a shard led here.

use crate::ingest::Ingest;
use crate::proto::v1::{AppendReply, AppendRequest};

/// Appends them.
pub async fn append(ingest: &Ingest, request: AppendRequest) -> AppendReply {
    ingest.append_rows(request).await
}
