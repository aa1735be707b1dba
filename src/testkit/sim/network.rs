//! The network between the nodes: messages take time, overtake each other, get lost, and links are cut one way or both.
//!
//! *Invariants:* a message is delivered to the process that is alive when it arrives, and worked on there whether or not
//! its sender still waits. An answer comes only from a process that is alive when it answers. What is lost is known to be
//! after [`SILENCE`], as on a connection that is given up.
//!
//! *Not here:* what the messages say (`raft`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::world::World;
use crate::env::{Rng, SeededRng};
use crate::model::NodeId;
use crate::proto::v1::RaftMessage;
use crate::raft::{GroupId, Host, RaftError, Ways, leader_of, promise_of};

/// After this long a sender gives up.
const SILENCE: Duration = Duration::from_secs(2);

/// How messages fare.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Of a thousand messages.
    pub(super) lost: u64,
    /// Least and most time on the way, microseconds.
    pub(super) delay_us: (u64, u64),
}

pub(super) const CALM: Weather = Weather { lost: 0, delay_us: (100, 1_000) };

/// All links.
pub(super) struct Network {
    rng: SeededRng,
    state: Mutex<State>,
}

struct State {
    weather: Weather,
    /// Directed.
    cut: BTreeSet<(u64, u64)>,
    hosts: BTreeMap<u64, (Host, Arc<AtomicBool>)>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        let state = State { weather: CALM, cut: BTreeSet::new(), hosts: BTreeMap::new() };
        Self { rng: SeededRng::new(seed), state: Mutex::new(state) }
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    pub(super) fn cut(&self, links: impl IntoIterator<Item = (u64, u64)>) {
        self.state.lock().cut.extend(links);
    }

    pub(super) fn heal(&self) {
        self.state.lock().cut.clear();
    }

    pub(super) fn plug_in(&self, node: u64, host: Host, alive: Arc<AtomicBool>) {
        self.state.lock().hosts.insert(node, (host, alive));
    }

    pub(super) fn unplug(&self, node: u64) {
        self.state.lock().hosts.remove(&node);
    }

    fn listener(&self, node: u64) -> Option<(Host, Arc<AtomicBool>)> {
        self.state.lock().hosts.get(&node).cloned()
    }

    /// Waits while a message is on its way; whether it arrives.
    async fn carry(&self, from: u64, to: u64) -> bool {
        let (lost, delay) = {
            let state = self.state.lock();
            let Weather { lost, delay_us: (least, most) } = state.weather;
            let lost = state.cut.contains(&(from, to)) || self.rng.below(1000) < lost;
            (lost, least + self.rng.below(most - least + 1))
        };
        if lost {
            return false;
        }
        tokio::time::sleep(Duration::from_micros(delay)).await;
        !self.state.lock().cut.contains(&(from, to))
    }
}

/// A process's access to the network.
pub(super) struct Port {
    pub(super) world: Arc<World>,
    pub(super) node: u64,
    pub(super) incarnation: u64,
    pub(super) alive: Arc<AtomicBool>,
}

impl Port {
    /// Asks another node; `Err` if no answer comes.
    fn ask<T: Send + 'static>(
        &self,
        to: u64,
        work: impl FnOnce(Host) -> BoxFuture<'static, T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, String>> {
        let (world, from, alive) = (Arc::clone(&self.world), self.node, Arc::clone(&self.alive));
        async move {
            if !alive.load(Ordering::Relaxed) || !world.network.carry(from, to).await {
                tokio::time::sleep(SILENCE).await;
                return Err("it is silent".to_owned());
            }
            let Some((host, listens)) = world.network.listener(to) else { return Err("it is down".to_owned()) };
            let (tell, told) = oneshot::channel();
            tokio::spawn(async move {
                let answer = work(host).await;
                if listens.load(Ordering::Relaxed) && world.network.carry(to, from).await {
                    // Nobody may be waiting any more.
                    drop(tell.send(answer));
                }
            });
            match tokio::time::timeout(SILENCE, told).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) | Err(_) => Err("its answer is lost".to_owned()),
            }
        }
        .boxed()
    }
}

impl Ways for Port {
    fn message(&self, to: NodeId, message: RaftMessage) -> BoxFuture<'static, Result<RaftMessage, String>> {
        let (world, group, replica) = (Arc::clone(&self.world), message.group, message.to);
        if self.alive.load(Ordering::Relaxed) {
            world.trace.note(&[self.node, to.0, message.group, message.body.len() as u64]);
            if let Some(leads) = leader_of(&message.body) {
                world.leaders.lock().leads(&world, group, leads, (self.node, self.incarnation));
            }
        }
        let work = move |host: Host| {
            async move {
                let question = message.body.clone();
                let answer = host.deliver(message).await.map_err(|e| e.to_string())?;
                if let Some((promise, granted)) = promise_of(&question, &answer.body) {
                    world.promises.lock().made(&world, group, replica, promise);
                    if granted {
                        super::faults::aimed(&world, to.0, 5, "after a vote");
                    }
                }
                Ok(answer)
            }
            .boxed()
        };
        self.ask(to.0, work).map(Result::flatten).boxed()
    }

    fn snapshot(&self, to: NodeId, head: RaftMessage, body: Bytes) -> BoxFuture<'static, Result<RaftMessage, String>> {
        let world = Arc::clone(&self.world);
        world.count("snapshot sent");
        let work = move |host: Host| {
            async move { host.install_body(head, move |out| out.write_all(&body)).await.map_err(|e| e.to_string()) }
                .boxed()
        };
        self.ask(to.0, work).map(Result::flatten).boxed()
    }

    fn read_index(&self, to: NodeId, group: GroupId) -> BoxFuture<'static, Result<u64, RaftError>> {
        let work = move |host: Host| {
            async move {
                let none = || RaftError::NoSuchGroup { group, reason: "is not here".into() };
                host.group(group).ok_or_else(none)?.lead_read_index().await
            }
            .boxed()
        };
        let asked = self.ask(to.0, work);
        asked.map(move |answer| answer.map_err(|reason| RaftError::Unavailable { group, reason }).flatten()).boxed()
    }
}
