//! A shard's way into its log: sections of concurrent requests leave in one entry.
//!
//! *Invariants:* sections keep the order in which they were queued; each is answered exactly once, also when the node
//! stops. Few entries of a shard are under way at once, and those of a replicated one begin at least [`GATHER`] apart, so
//! under load sections gather into larger entries and an idle shard proposes at once.
//!
//! *Not here:* building sections (`ingest::ingester`), replication (`raft`).

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::IngestError;
use super::entry::append_entry;
use super::reply::{SectionReply, read_append_reply};
use crate::raft::Group;

/// Entries of one shard under way at once: one being synced while the next is filled. Of a replicated one the next is
/// filled until the one before is answered: an entry costs messages to other nodes, more than a few hundred samples do.
const IN_FLIGHT: [usize; 2] = [2, 1];

/// From one entry of a replicated shard to the next, at least.
const GATHER: Duration = Duration::from_millis(20);

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

/// Sections on their way into one entry.
#[derive(Default)]
struct Gathered {
    sections: Vec<Waiting>,
    bytes: usize,
    /// The first section that found no room.
    carried: Option<Waiting>,
}

impl Gathered {
    fn push(&mut self, waiting: Waiting) {
        let bytes = self.bytes + waiting.section.len();
        if bytes > ENTRY_BYTES && !self.sections.is_empty() {
            self.carried = Some(waiting);
            return;
        }
        self.bytes = bytes;
        self.sections.push(waiting);
    }

    fn is_full(&self) -> bool {
        self.carried.is_some() || self.bytes >= ENTRY_BYTES
    }

    /// The sections of one entry; what found no room begins the next.
    fn take(&mut self) -> Vec<Waiting> {
        let carried = self.carried.take();
        let taken = std::mem::take(self).sections;
        carried.into_iter().for_each(|waiting| self.push(waiting));
        taken
    }
}

async fn run(group: Group, mut receiver: mpsc::Receiver<Waiting>) {
    let mut under_way = FuturesUnordered::new();
    let mut gathered = Gathered::default();
    let pause = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(pause);
    let (mut pausing, mut open) = (false, true);
    loop {
        let replicated = group.is_replicated();
        while open && !gathered.is_full() {
            match receiver.try_recv() {
                Ok(waiting) => gathered.push(waiting),
                Err(e) => {
                    open = e != TryRecvError::Disconnected;
                    break;
                }
            }
        }
        let gathers = pausing && open && !gathered.is_full();
        if !gathered.sections.is_empty() && under_way.len() < IN_FLIGHT[usize::from(replicated)] && !gathers {
            under_way.push(propose(&group, gathered.take()));
            pausing = replicated;
            pause.as_mut().reset(Instant::now() + GATHER);
            continue;
        }
        if !open && gathered.sections.is_empty() && under_way.is_empty() {
            return;
        }
        tokio::select! {
            Some(()) = under_way.next() => {}
            () = &mut pause, if pausing => pausing = false,
            received = receiver.recv(), if open && !gathered.is_full() => match received {
                Some(waiting) => gathered.push(waiting),
                None => open = false,
            },
        }
    }
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
