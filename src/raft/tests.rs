//! Groups end to end, on the simulated disk.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use super::*;
use crate::env::{Clock, Disk, SeededRng, SimDisk, SystemClock};
use crate::model::ids::NodeId;

mod cluster;
mod crash;
mod golden;
mod openraft_suite;
mod single;

/// A state that is the list of everything applied, with its index.
#[derive(Clone, Default)]
pub(super) struct Journal(pub(super) Arc<Mutex<Vec<(u64, Bytes)>>>);

impl StateMachine for Journal {
    fn apply(&mut self, index: u64, entry: &Bytes) -> Bytes {
        let mut all = self.0.lock();
        all.push((index, entry.clone()));
        Bytes::from(all.len().to_string())
    }

    fn snapshot(&mut self) -> io::Result<SnapshotWriter> {
        let all = self.0.lock().clone();
        Ok(Box::new(move |out| {
            for (index, entry) in all {
                out.write_all(&index.to_le_bytes())?;
                out.write_all(&(entry.len() as u64).to_le_bytes())?;
                out.write_all(&entry)?;
            }
            Ok(())
        }))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let mut all = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let index = u64::from_le_bytes(rest[..8].try_into().unwrap());
            let len = u64::from_le_bytes(rest[8..16].try_into().unwrap()) as usize;
            all.push((index, Bytes::copy_from_slice(&rest[16..16 + len])));
            rest = &rest[16 + len..];
        }
        *self.0.lock() = all;
        Ok(())
    }
}

impl Journal {
    pub(super) fn entries(&self) -> Vec<Bytes> {
        self.0.lock().iter().map(|(_, entry)| entry.clone()).collect()
    }
}

pub(super) const G: GroupId = GroupId(7);

pub(super) fn options(node: u64) -> HostOptions {
    HostOptions {
        segment_bytes: 4 << 10,
        snapshot_log_bytes: 1 << 30,
        cache_bytes: 512,
        heartbeat_ms: 50,
        election_ms: (150, 300),
        ..HostOptions::new(format!("/node{node}"), NodeId(node))
    }
}

pub(super) fn metrics() -> Metrics {
    Metrics::register(&mut Registry::default())
}

pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

pub(super) async fn host(disk: &SimDisk, options: HostOptions) -> Result<Host, RaftError> {
    Host::open(options, Arc::new(disk.clone()), clock(), Arc::new(SeededRng::new(3)), metrics()).await
}

/// A host with one group of one.
pub(super) async fn alone(disk: &SimDisk, options: HostOptions) -> Result<(Host, Group, Journal), RaftError> {
    let host = host(disk, options).await?;
    let journal = Journal::default();
    let group = host.start_group(G, Box::new(journal.clone()), Bootstrap::SingleVoter).await?;
    Ok((host, group, journal))
}

pub(super) fn payload(n: usize) -> Bytes {
    let mut out = format!("entry {n} ").into_bytes();
    out.resize(40 + n % 300, b'.');
    Bytes::from(out)
}
