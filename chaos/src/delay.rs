//! Makes the packets of one node late, and some of them overtake others.
//!
//! *Invariants:* no packet is lost. The node's end of the bridge moves to a bridge of its own for that time; two TAP devices,
//! one on each bridge, lead through this process, which holds every frame back for a time of its own.
//!
//! *Not here:* the bridge and its namespaces (`hosts`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

use crate::hosts::{port, run};

/// How long a frame is held back, milliseconds, each way.
const HELD_MS: std::ops::Range<u64> = 40..120;
/// The bridge of the node whose packets are late.
const APART: &str = "br1";
/// The devices between the bridges.
const ENDS: [&str; 2] = ["d0", "d1"];
/// Bytes of the largest frame.
const FRAME: usize = 65_536;

/// A delay that lasts until [`Delay::end`].
pub struct Delay {
    slot: usize,
    frames: Arc<AtomicU64>,
    ways: [JoinHandle<()>; 2],
}

impl Delay {
    /// Begins to hold back what a node sends and gets.
    pub async fn begin(slot: usize) -> Result<Self> {
        let [here, there] = [device(ENDS[0])?, device(ENDS[1])?].map(Arc::new);
        ip(&format!("link add {APART} type bridge")).await?;
        ip(&format!("link set {} master br0 up", ENDS[0])).await?;
        ip(&format!("link set {} master {APART} up", ENDS[1])).await?;
        ip(&format!("link set {APART} up")).await?;
        ip(&format!("link set {} master {APART}", port(slot))).await?;
        let frames = Arc::new(AtomicU64::new(0));
        let way = |from: &Arc<AsyncDevice>, to: &Arc<AsyncDevice>| {
            tokio::spawn(hold_back(Arc::clone(from), Arc::clone(to), Arc::clone(&frames)))
        };
        let ways = [way(&here, &there), way(&there, &here)];
        Ok(Self { slot, frames, ways })
    }

    /// Lets everything through at once again; how many frames were late.
    pub async fn end(self) -> Result<u64> {
        // What is on its way still arrives.
        tokio::time::sleep(Duration::from_millis(HELD_MS.end)).await;
        ip(&format!("link set {} master br0", port(self.slot))).await?;
        ip(&format!("link delete {APART}")).await?;
        for way in self.ways {
            way.abort();
            // It was told to end; the devices go with it.
            let _ = way.await;
        }
        Ok(self.frames.load(Ordering::Relaxed))
    }
}

async fn hold_back(from: Arc<AsyncDevice>, to: Arc<AsyncDevice>, frames: Arc<AtomicU64>) {
    let mut frame = vec![0; FRAME];
    // An error is a device that is taken away.
    while let Ok(length) = from.recv(&mut frame).await {
        frames.fetch_add(1, Ordering::Relaxed);
        let (frame, to) = (frame[..length].to_vec(), Arc::clone(&to));
        let held = Duration::from_millis(rand::rng().random_range(HELD_MS));
        tokio::spawn(async move {
            tokio::time::sleep(held).await;
            let _ = to.send(&frame).await;
        });
    }
}

fn device(name: &str) -> Result<AsyncDevice> {
    let built = DeviceBuilder::new().name(name).layer(Layer::L2).build_async();
    built.with_context(|| format!("making the TAP device {name}"))
}

async fn ip(words: &str) -> Result<()> {
    run(Command::new("ip").args(words.split(' ')), None).await.map(drop)
}
