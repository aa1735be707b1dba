//! A shard's way into its log: sections of concurrent requests leave in one entry.
//!
//! *Invariants:* sections keep the order in which they were queued; each is answered exactly once, also when the node
//! stops. At most [`IN_FLIGHT`] entries of a shard are under way, so under load sections gather into larger entries and
//! an idle shard proposes at once.
//!
//! *Not here:* building sections (`ingest::ingester`), replication (`raft`).

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::IngestError;
use super::entry::append_entry;
use super::reply::{SectionReply, read_append_reply};
use crate::raft::Group;

/// Entries of one shard under way at once: one being synced while the next is filled.
const IN_FLIGHT: usize = 2;

/// Most bytes of sections in one entry (a single larger section still travels alone).
const ENTRY_BYTES: usize = 1 << 20;

/// Sections that may wait per shard before senders wait themselves.
const QUEUED: usize = 1024;

type Answer = Result<SectionReply, IngestError>;

struct Waiting {
    section: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// The sending end.
#[derive(Clone)]
pub struct AppendQueue {
    sender: mpsc::Sender<Waiting>,
}

impl AppendQueue {
    /// Starts the task that proposes to `group`; it ends when all senders are gone.
    pub fn start(group: Group) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUED);
        tokio::spawn(run(group, receiver));
        Self { sender }
    }

    /// Proposes a section and waits until it is applied: then it is durable on a majority.
    pub async fn append(&self, section: Vec<u8>) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.sender.send(Waiting { section, answer }).await.map_err(|_| IngestError::Stopping)?;
        answered.await.map_err(|_| IngestError::Stopping)?
    }
}

async fn run(group: Group, mut receiver: mpsc::Receiver<Waiting>) {
    let mut under_way = FuturesUnordered::new();
    let mut carried: Option<Waiting> = None;
    loop {
        if under_way.len() >= IN_FLIGHT {
            under_way.next().await;
            continue;
        }
        let first = match carried.take() {
            Some(waiting) => waiting,
            None => tokio::select! {
                biased;
                Some(()) = under_way.next() => continue,
                received = receiver.recv() => match received {
                    Some(waiting) => waiting,
                    None => break,
                },
            },
        };
        let mut bytes = first.section.len();
        let mut batch = vec![first];
        while let Ok(waiting) = receiver.try_recv() {
            bytes += waiting.section.len();
            if bytes > ENTRY_BYTES {
                carried = Some(waiting);
                break;
            }
            batch.push(waiting);
        }
        under_way.push(propose(&group, batch));
    }
    while under_way.next().await.is_some() {}
}

async fn propose(group: &Group, batch: Vec<Waiting>) {
    let entry = append_entry(batch.iter().map(|w| w.section.as_slice()));
    let outcome = match group.propose(entry).await {
        Ok(applied) if applied.reply.is_empty() => Err(IngestError::Ended),
        Ok(applied) => read_append_reply(&applied.reply, batch.len()).map_err(IngestError::Reply),
        Err(e) => Err(IngestError::from(e)),
    };
    match outcome {
        Ok(replies) => {
            for (waiting, reply) in batch.into_iter().zip(replies) {
                // A request that went away no longer listens; what it sent is stored all the same.
                let _ = waiting.answer.send(Ok(reply));
            }
        }
        Err(e) => {
            for waiting in batch {
                let _ = waiting.answer.send(Err(e.clone()));
            }
        }
    }
}
