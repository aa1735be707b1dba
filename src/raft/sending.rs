//! Sends a snapshot to a replica of another node, piece by piece.
//!
//! *Invariants:* at most [`AHEAD`] pieces are in memory. A disk that fails while the file is read ends the stream with an
//! error, never with a body that is too short to be told from a whole one: the receiver checks length and checksum.
//!
//! *Not here:* receiving (`delivery`).

use std::io::Read;

use bytes::Bytes;
use openraft::errors::Unreachable;
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;

use super::machine::Snapshot;
use super::transport::{Link, Others};
use super::types::{TypeConfig, Vote};
use super::wire::{self, Reply};
use crate::model::NodeId;
use crate::peers::Peers;
use crate::proto::v1::{RaftMessage, SnapshotPiece};

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces read before they are sent.
const AHEAD: usize = 4;

/// Sends a snapshot and gives the other side's answer.
pub(crate) async fn send_snapshot(
    link: &Link,
    node: NodeId,
    others: &Others,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, Unreachable<TypeConfig>> {
    let body = wire::put_snapshot_head(&vote, &snapshot.meta);
    let head = RaftMessage { group: link.group.0, to: link.to, body };
    let reply = match others {
        Others::Peers(peers) => stream(link, node, peers, head, snapshot).await?,
        Others::Ways(ways) => {
            let mut body = Vec::new();
            let read = snapshot.snapshot.reader().read_to_end(&mut body);
            read.map_err(|e| link.unreachable(&format!("read the snapshot: {e}")))?;
            ways.snapshot(node, head, body.into()).await.map_err(|why| link.unreachable(&why))?
        }
    };
    match Reply::decode(&reply.body) {
        Some(Reply::Snapshot(reply)) => Ok(reply),
        _ => Err(link.unreachable("its answer cannot be read")),
    }
}

async fn stream(
    link: &Link,
    node: NodeId,
    peers: &Peers,
    head: RaftMessage,
    snapshot: Snapshot,
) -> Result<RaftMessage, Unreachable<TypeConfig>> {
    let mut client = peers.client(node).map_err(|e| link.unreachable(&e.to_string()))?;
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read_pieces(head, &snapshot, &sender));
    let pieces = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let reply = client.install_snapshot(pieces).await.map_err(|status| link.unreachable(status.message()));
    match reading.await {
        Ok(Err(e)) => Err(link.unreachable(&format!("read the snapshot: {e}"))),
        Err(e) => Err(link.unreachable(&format!("read the snapshot: {e}"))),
        Ok(Ok(())) => Ok(reply?.into_inner()),
    }
}

/// Reads the file into the channel until the other end is gone. The last piece is an empty one: a stream that ends
/// without it was cut off.
fn read_pieces(head: RaftMessage, snapshot: &Snapshot, pieces: &mpsc::Sender<SnapshotPiece>) -> std::io::Result<()> {
    let send = |piece| pieces.blocking_send(piece).is_ok();
    if !send(SnapshotPiece { head: Some(head), data: Bytes::new() }) {
        return Ok(());
    }
    let mut body = snapshot.snapshot.reader();
    loop {
        let mut piece = vec![0; PIECE];
        let mut len = 0;
        while len < PIECE {
            match body.read(&mut piece[len..])? {
                0 => break,
                n => len += n,
            }
        }
        piece.truncate(len);
        let last = len == 0;
        if !send(SnapshotPiece { head: None, data: piece.into() }) || last {
            return Ok(());
        }
    }
}
