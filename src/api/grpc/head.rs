//! What a head of this node holds, for another node.

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;

use crate::proto::v1::{HeadPiece, ReadHeadRequest};
use crate::query::HeadServer;

/// Reads it; what fails is said in the last piece.
pub fn read(heads: &HeadServer, request: ReadHeadRequest) -> BoxStream<'static, Result<HeadPiece, Status>> {
    heads.serve(request).map(Ok).boxed()
}
