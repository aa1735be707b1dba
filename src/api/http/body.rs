//! Bodies written in pieces: a large answer is never in memory as one text.
//!
//! *Invariants:* a piece has about [`PIECE_BYTES`]; the next one is made when the client has taken the one before. What an
//! answer holds (bytes of a query's budget) is given back when its body is sent or dropped.
//!
//! *Not here:* what is written (`api::http::json`).

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::stream;

/// Size of a piece.
pub const PIECE_BYTES: usize = 64 << 10;

/// Something that is written piece by piece.
pub trait Pieces: Send + 'static {
    /// Appends to `out` until it holds [`PIECE_BYTES`] or nothing is left; `false` when nothing is left.
    fn fill(&mut self, out: &mut Vec<u8>) -> bool;
}

/// A text that is there already.
impl Pieces for String {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(std::mem::take(self).as_bytes());
        false
    }
}

/// A body of pieces; one that fits into a single piece is sent whole, with its length.
pub fn body_of<P: Pieces>(mut pieces: P) -> Body {
    let mut first = Vec::with_capacity(1024);
    if !pieces.fill(&mut first) {
        return Body::from(first);
    }
    let next = |(given, mut pieces, mut more): (Option<Vec<u8>>, P, bool)| async move {
        let piece = match given {
            Some(piece) => piece,
            None if !more => return None,
            None => {
                let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
                more = pieces.fill(&mut piece);
                piece
            }
        };
        Some((Ok::<_, Infallible>(Bytes::from(piece)), (None, pieces, more)))
    };
    Body::from_stream(stream::unfold((Some(first), pieces, true), next))
}

/// A JSON list.
pub struct List<I: Iterator> {
    items: I,
    begun: bool,
    write: fn(&mut Vec<u8>, I::Item),
}

impl<I: Iterator> List<I> {
    /// A list whose items `write` appends.
    pub fn new(items: I, write: fn(&mut Vec<u8>, I::Item)) -> Self {
        Self { items, begun: false, write }
    }
}

impl<I: Iterator + Send + 'static> Pieces for List<I> {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        while out.len() < PIECE_BYTES {
            let Some(item) = self.items.next() else {
                out.extend_from_slice(if self.begun { b"]" } else { b"[]" });
                return false;
            };
            out.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            (self.write)(out, item);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_list_comes_in_pieces_and_is_whole() {
        let write = |out: &mut Vec<u8>, n: u32| out.extend_from_slice(n.to_string().as_bytes());
        for n in [0u32, 1, 2, 30_000] {
            let mut list = List::new(0..n, write);
            let (mut pieces, mut all, mut more) = (0, Vec::new(), true);
            while more {
                let mut piece = Vec::new();
                more = list.fill(&mut piece);
                assert!(piece.len() < PIECE_BYTES + 16);
                pieces += 1;
                all.extend(piece);
            }
            assert!(pieces >= all.len() / (PIECE_BYTES + 16));
            let read: Vec<u32> = serde_json::from_slice(&all).unwrap();
            assert_eq!(read, (0..n).collect::<Vec<_>>());
            let body = axum::body::to_bytes(body_of(List::new(0..n, write)), usize::MAX).await.unwrap();
            assert_eq!(body, all);
        }
    }
}
