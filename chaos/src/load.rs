//! Clients: writers that note every outcome, readers that check what was acknowledged while faults go on.
//!
//! *Invariants:* an outcome is noted before the request leaves. Requests start by the clock, not when others end: a node
//! that hangs does not hide that the others answer. What is on its way is bounded.
//!
//! *Not here:* what is right (`check`), what the clients saw in all (`report`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{Api, Written, body};
use crate::check::{self, Asked};
use crate::cluster::Targets;
use crate::history::{History, Outcome};

/// Longest a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Times a step is sent, each time to any node.
const TRIES: usize = 4;
/// Requests of one batch on their way at the same time; a step that finds no place is not sent.
const IN_FLIGHT: usize = 32;
/// Time from one read to the next.
const READ_EVERY: Duration = Duration::from_millis(70);
/// Steps in most reads, and in some.
const READ_STEPS: (usize, usize) = (30, 300);
/// Texts kept of each sort.
const KEPT: usize = 20;

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Times of acknowledgements, milliseconds since the beginning, in order.
    pub acks: Vec<u64>,
    /// Times of answered reads.
    pub reads: Vec<u64>,
    /// Requests that were not acknowledged, those that reached nobody not counted.
    pub unknown: u64,
    /// Requests that reached nobody.
    pub unsent: u64,
    /// Steps that found no place.
    pub skipped: u64,
    /// Reads without an answer, those that reached nobody not counted.
    pub unanswered: u64,
    /// The answers that were errors, some of their wordings, how often and when first.
    pub errors: Vec<(String, u64, u64)>,
    /// Broken promises, the first of them.
    pub violations: Vec<String>,
    /// Number of all broken promises.
    pub broken: u64,
}

impl Seen {
    /// Notes a broken promise.
    pub fn violation(&mut self, text: String) {
        self.broken += 1;
        if self.violations.len() < KEPT {
            self.violations.push(text);
        }
    }

    fn error(&mut self, now: u64, text: String) {
        if let Some((_, times, _)) = self.errors.iter_mut().find(|(known, ..)| *known == text) {
            *times += 1;
        } else if self.errors.len() < KEPT {
            self.errors.push((text, 1, now));
        }
    }
}

/// What clients share.
pub struct Clients {
    /// Speaks HTTP.
    pub api: Api,
    /// Where to send to.
    pub targets: Targets,
    history: Mutex<History>,
    seen: Mutex<Seen>,
    began: Instant,
    ended: AtomicBool,
    seed: u64,
}

impl Clients {
    /// Clients that write this history, from now on.
    pub fn new(api: Api, targets: Targets, history: History) -> Arc<Self> {
        let (ended, seed) = (AtomicBool::new(false), history.shape.seed);
        let (history, seen) = (Mutex::new(history), Mutex::new(Seen::default()));
        Arc::new(Self { api, targets, history, seen, began: Instant::now(), ended, seed })
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// What was sent.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more requests; those on their way end by themselves.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Writes and reads until told to end and everything has ended.
    pub async fn work(self: Arc<Self>) {
        let batches = self.history().shape.batches;
        let mut all = JoinSet::new();
        for batch in 0..batches {
            all.spawn(Arc::clone(&self).write_batch(batch));
        }
        all.spawn(Arc::clone(&self).read_all());
        while all.join_next().await.is_some() {}
    }

    fn any_target(&self, rng: &mut StdRng) -> Option<String> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        (!targets.is_empty()).then(|| targets[rng.random_range(0..targets.len())].clone())
    }

    async fn write_batch(self: Arc<Self>, batch: usize) {
        let shape = self.history().shape;
        let step_time = Duration::from_millis(shape.step_ms as u64);
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut sent = JoinSet::new();
        let mut step = 0;
        while !self.ended.load(Ordering::SeqCst) {
            // Batches are spread over the time of a step.
            let due = self.began + step_time * step as u32 + step_time * batch as u32 / shape.batches as u32;
            tokio::time::sleep_until(due).await;
            match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let this = Arc::clone(&self);
                    sent.spawn(async move {
                        this.write_step(batch, step).await;
                        drop(place);
                    });
                }
                Err(_) => self.seen().skipped += 1,
            }
            while sent.try_join_next().is_some() {}
            step += 1;
        }
        while sent.join_next().await.is_some() {}
    }

    async fn write_step(&self, batch: usize, step: usize) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ ((batch as u64) << 40) ^ step as u64);
        let shape = self.history().shape;
        let body = match body(&shape, batch, step) {
            Ok(body) => body,
            Err(e) => return self.seen().error(0, format!("encoding: {e:#}")),
        };
        let mut left = false;
        for _ in 0..TRIES {
            let Some(target) = self.any_target(&mut rng) else { return };
            self.history().sending(batch, step);
            match self.api.write(&target, body.clone(), PATIENCE).await {
                Written::Acked => {
                    // In this order: who sees the outcome may read, and must find it.
                    self.history().ended(batch, step, Outcome::Ok);
                    let now = self.now();
                    return self.seen().acks.push(now);
                }
                Written::Unsent => {
                    self.seen().unsent += 1;
                    if !left {
                        self.history().ended(batch, step, Outcome::Fail);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Written::Unknown(text) => {
                    left = true;
                    let mut seen = self.seen();
                    seen.unknown += 1;
                    seen.error(self.now(), format!("write: {text}"));
                }
                Written::Refused(text) => {
                    let t = shape.time(step);
                    return self.seen().violation(format!("batch {batch} at {t}: refused by {target}: {text}"));
                }
            }
            // Some clients give up: their samples stay of unknown outcome.
            if left && rng.random_bool(0.25) {
                return;
            }
        }
    }

    async fn read_all(self: Arc<Self>) {
        let mut rng = StdRng::seed_from_u64(!self.seed);
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut sent = JoinSet::new();
        while !self.ended.load(Ordering::SeqCst) {
            tokio::time::sleep(READ_EVERY).await;
            let (Some(target), Ok(place)) = (self.any_target(&mut rng), Arc::clone(&places).try_acquire_owned()) else {
                continue;
            };
            let (this, seed) = (Arc::clone(&self), rng.random());
            sent.spawn(async move {
                this.read_some(&target, seed).await;
                drop(place);
            });
            while sent.try_join_next().is_some() {}
        }
        while sent.join_next().await.is_some() {}
    }

    /// Reads what was acknowledged last of any batch, and some time before it.
    async fn read_some(&self, target: &str, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = self.history().shape;
        let batch = rng.random_range(0..shape.batches);
        let Some(to) = self.history().last_ok(batch, usize::MAX - 1) else { return };
        let most = if rng.random_bool(0.9) { READ_STEPS.0 } else { READ_STEPS.1 };
        let from = to.saturating_sub(rng.random_range(0..most));
        let before = self.history().slice(batch, from, to);
        let began = self.now();
        let answer = self.api.read(target, &shape, (batch, from, to), PATIENCE).await;
        let now = self.now();
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(e) => {
                let text = format!("{e:#}");
                let mut seen = self.seen();
                if text.contains("connect") {
                    seen.unsent += 1
                } else {
                    seen.unanswered += 1
                }
                return seen.error(now, format!("read: {text}"));
            }
        };
        let after = self.history().slice(batch, from, to);
        let rows = check::rows(&bytes);
        let mut seen = self.seen();
        match rows {
            Ok(rows) => {
                seen.reads.push(now);
                let asked = Asked { shape, batch, from, before: &before, after: &after };
                for wrong in check::read(&asked, &rows) {
                    seen.violation(format!("read from {target} at {began}-{now} ms: {wrong}"));
                }
            }
            Err(e) => seen.violation(format!("read from {target} at {began}-{now} ms: {e:#}")),
        }
    }
}
