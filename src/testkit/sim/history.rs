//! What clients tried, and what was acknowledged to them.
//!
//! *Invariants:* a client writes one series, with ascending timestamps; a timestamp has one value for ever.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::BEGIN_MS;

/// Between two samples of a client, milliseconds.
const STEP_MS: i64 = 5_000;

/// All clients' samples.
#[derive(Default)]
pub(super) struct History {
    clients: BTreeMap<u64, Client>,
}

#[derive(Default)]
struct Client {
    tried: i64,
    acked: BTreeSet<i64>,
}

/// The value a client writes at a time.
pub(super) fn value(client: u64, t: i64) -> f64 {
    (client * 1_000_003) as f64 + ((t - BEGIN_MS) / STEP_MS) as f64
}

impl History {
    /// The timestamp of a client's next sample.
    pub(super) fn next(&mut self, client: u64) -> i64 {
        let client = self.clients.entry(client).or_default();
        client.tried += 1;
        BEGIN_MS + client.tried * STEP_MS
    }

    pub(super) fn acked(&mut self, client: u64, t: i64) {
        self.clients.entry(client).or_default().acked.insert(t);
    }

    /// What a client was told is stored.
    pub(super) fn promised(&self, client: u64) -> BTreeSet<i64> {
        self.clients.get(&client).map(|c| c.acked.clone()).unwrap_or_default()
    }

    pub(super) fn count(&self) -> usize {
        self.clients.values().map(|c| c.acked.len()).sum()
    }

    /// What is wrong with samples read: something never written, out of order or twice, or with another value.
    pub(super) fn phantom(&self, client: u64, read: &[(i64, f64)]) -> Option<String> {
        let last = BEGIN_MS + self.clients.get(&client).map_or(0, |c| c.tried) * STEP_MS;
        if let Some(pair) = read.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Some(format!("client {client}: {} comes after {}", pair[1].0, pair[0].0));
        }
        let wrong = |(t, v): &&(i64, f64)| {
            let written = *t > BEGIN_MS && *t <= last && (t - BEGIN_MS) % STEP_MS == 0;
            !written || *v != value(client, *t)
        };
        read.iter().find(wrong).map(|(t, v)| format!("client {client} never wrote {v} at {t}"))
    }
}
