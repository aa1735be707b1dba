//! What the heads of this node hold, and what queries make of it, for another node.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;

use crate::proto::v1::{EvaluatePiece, EvaluateRequest, HeadPiece, ReadHeadRequest};
use crate::query::{HeadServer, Queries};

/// Reads it; what fails is said in the last piece.
pub fn read(heads: &HeadServer, request: ReadHeadRequest) -> BoxStream<'static, Result<HeadPiece, Status>> {
    heads.serve(request).map(Ok).boxed()
}

/// Evaluates it; what fails is said in the last piece.
pub fn evaluate(queries: &Arc<Queries>, request: EvaluateRequest) -> BoxStream<'static, Result<EvaluatePiece, Status>> {
    queries.evaluate(request).map(Ok).boxed()
}
