//! What a head of this node holds, for another node.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;

use crate::proto::v1::{HeadPiece, ReadHeadRequest};
use crate::query::Leaf;

/// Reads it.
pub async fn read(
    _leaf: Arc<Leaf>,
    _request: ReadHeadRequest,
) -> Result<BoxStream<'static, Result<HeadPiece, Status>>, Status> {
    Ok(futures::stream::empty().boxed())
}
