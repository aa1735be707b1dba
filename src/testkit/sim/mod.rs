//! A cluster in one process, from a seed: real groups, logs and shards on disks, clocks and a network that are simulated.
//!
//! *Invariants:* one seed per process, on a tokio runtime of one thread whose time is paused: then equal seeds give equal
//! traces. Nothing of a node that crashed has an effect on anything outside of it: its disk refuses, its messages are lost.
//!
//! *Not here:* gRPC, meta, flush and queries; the runner of many seeds (`tests/simulate.rs`).

mod clock;
mod disk;
mod faults;
mod history;
mod invariants;
mod members;
mod network;
mod node;
mod trace;
mod workload;
mod world;

use std::time::Duration;

use crate::env::rng;

/// A mistake made on purpose, which an invariant must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The log says that entries are durable before they are.
    AckBeforeSync,
    /// Reads do not ask for a read index.
    SkippedReadIndex,
    /// Votes are not synced by themselves.
    VoteNotSynced,
}

impl Planted {
    /// All of them, by name.
    pub const ALL: [(&str, Self); 3] = [
        ("ack-before-sync", Self::AckBeforeSync),
        ("skipped-read-index", Self::SkippedReadIndex),
        ("vote-not-synced", Self::VoteNotSynced),
    ];
}

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// How long faults go on, in simulated seconds; healing comes after that.
    pub seconds: u64,
    /// A mistake to make.
    pub planted: Option<Planted>,
    /// Prints what happens.
    pub print: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What was broken: the invariant's name and the circumstances.
    pub violations: Vec<(&'static str, String)>,
    /// Differs when anything went another way.
    pub trace: u64,
    /// Samples acknowledged.
    pub acked: usize,
    /// Reads checked.
    pub reads: u64,
    /// How often each kind of fault happened.
    pub faults: Vec<(&'static str, u64)>,
}

/// Runs one seed. The runtime must be of one thread, its time paused.
pub async fn run(options: Options) -> Outcome {
    rng::fix(options.seed);
    let world = world::World::new(options);
    world.begin().await;
    let clients = workload::start(&world);
    let operator = tokio::spawn(members::run(world.clone()));
    faults::run(&world, Duration::from_secs(options.seconds)).await;
    world.heal();
    invariants::liveness::check(&world).await;
    world.stop();
    for client in clients {
        // A client that panicked has said why.
        drop(client.await);
    }
    drop(operator.await);
    invariants::at_the_end(&world).await;
    world.outcome()
}
