//! One run: a cluster, clients, faults, and the check at the end.
//!
//! *Invariants:* the check comes after everything was undone and the cluster came to rest; history takes part in it, because
//! all nodes wrote theirs to the bucket twice.
//!
//! *Not here:* what each of these is (`cluster`, `load`, `faults`, `check`).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::api::Api;
use crate::check::{self, Asked};
use crate::cluster::{Cluster, SETTLE};
use crate::history::{History, Outcome, Shape};
use crate::load::{Clients, Seen};
use crate::node::{Setup, complaints};
use crate::report::{self, Events, Fault, Findings, Word};
use crate::schedule::{Kind, Profile};
use crate::{Broken, broken, faults};

/// Steps of one answer in the check at the end.
const CHECK_STEPS: usize = 600;
/// Rounds from one flush to the next.
const FLUSH_ROUNDS: u64 = 6;
/// Milliseconds from one sample of a series to the next.
const STEP_MS: i64 = 100;

/// What a run is told.
pub struct Plan {
    /// What is done.
    pub profile: Profile,
    /// What decides everything that is drawn.
    pub seed: u64,
    /// What nodes are started with.
    pub setup: Setup,
    /// Kinds that cannot be done here, and why.
    pub left_out: Vec<(Kind, &'static str)>,
}

/// A run while it goes on.
struct Run {
    plan: Plan,
    cluster: Cluster,
    clients: Arc<Clients>,
    events: Events,
    faults: Vec<Fault>,
    load: Option<Child>,
    span: (u64, u64),
    checked: bool,
}

/// Runs a plan to its verdict.
pub async fn run(plan: Plan, interrupted: impl Future<Output = ()>) -> Result<(Word, bool)> {
    let dir = plan.setup.dir.clone();
    let api = Api::new()?;
    let mut cluster = Cluster::new(plan.setup.clone(), api.clone());
    for slot in 0..plan.profile.nodes {
        cluster.add(slot).await?;
    }
    cluster.at_rest().await?;
    let base = now_ms() / STEP_MS * STEP_MS;
    let shape = Shape { seed: plan.seed, base, step_ms: STEP_MS, batches: 6, series: 20 };
    let clients = Clients::new(api, Arc::clone(&cluster.targets), History::new(shape));
    let events = Events::new(&dir)?;
    let mut run = Run { plan, cluster, clients, events, faults: Vec::new(), load: None, span: (0, 0), checked: false };
    let trouble = tokio::select! {
        outcome = run.all() => outcome.err(),
        () = interrupted => Some(anyhow::anyhow!("interrupted")),
    };
    if run.span.1 == 0 {
        run.span.1 = run.clients.now();
    }
    run.clients.end();
    let mut seen = std::mem::take(&mut *run.clients.seen());
    let mut words = None;
    if let Some(trouble) = &trouble {
        let text = format!("{trouble:#}");
        run.events.note(run.clients.now(), "trouble", json!(text))?;
        if trouble.downcast_ref::<Broken>().is_some() { seen.violation(text) } else { words = Some(text) }
    }
    run.finish(&dir, seen, words)
}

impl Run {
    /// Everything from the first request to the check.
    async fn all(&mut self) -> Result<()> {
        let working = tokio::spawn(Arc::clone(&self.clients).work());
        self.start_load()?;
        // Faults hit a cluster that holds something.
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.span.0 = self.clients.now();
        self.trouble_it().await?;
        self.cluster.at_rest().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.span.1 = self.clients.now();
        if let Some(mut load) = self.load.take() {
            load.start_kill()?;
            load.wait().await?;
        }
        self.clients.end();
        working.await.context("clients ended abruptly")?;
        let acked = self.clients.history().samples(Outcome::Ok);
        self.note("clients ended", json!(format!("{acked} samples acknowledged")))?;
        self.flush().await?;
        self.check().await?;
        self.checked = true;
        Ok(())
    }

    fn note(&mut self, event: &str, what: serde_json::Value) -> Result<()> {
        self.events.note(self.clients.now(), event, what)
    }

    /// Unchecked load beside the checked one.
    fn start_load(&mut self) -> Result<()> {
        let (series, setup) = (self.plan.profile.load_series, &self.plan.setup);
        if series == 0 {
            return Ok(());
        }
        let url = self.cluster.nodes.values().next().map(|node| node.url.clone()).unwrap_or_default();
        let log = std::fs::File::create(setup.dir.join("load.log"))?;
        let mut load = Command::new(&setup.binary);
        load.args(["load", "--url", &url, "--series", &series.to_string(), "--duration", "10h", "--retry-for", "1h"]);
        load.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.load = Some(load.spawn().context("starting metrolith load")?);
        Ok(())
    }

    /// Rounds of faults until the time is over, the first one whole.
    async fn trouble_it(&mut self) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(self.plan.seed ^ 0x5eed);
        let until = Instant::now() + Duration::from_secs(self.plan.profile.seconds);
        for round in 0.. {
            let steps = self.plan.profile.round(self.plan.seed, round);
            let half = steps.len() / 2;
            for (at, step) in steps.into_iter().enumerate() {
                if round > 0 && Instant::now() >= until {
                    return Ok(());
                }
                let next = Instant::now() + Duration::from_millis(self.plan.profile.period_ms);
                if !self.possible(step.kind) {
                    continue;
                }
                let begin = self.clients.now();
                self.note("begin", json!(step.kind.name()))?;
                let done = faults::perform(&mut self.cluster, step, &mut rng).await;
                let done = done.with_context(|| step.kind.name())?;
                let what =
                    json!({"fault": step.kind.name(), "nodes": done.whom, "led": done.led, "evidence": done.evidence});
                self.note("healed", what)?;
                self.faults.push(Fault { done, begin, end: self.clients.now() });
                tokio::time::sleep(Duration::from_millis(step.rest_ms)).await;
                if at == half && round % FLUSH_ROUNDS == 0 {
                    self.flush().await?;
                }
                tokio::time::sleep_until(next).await;
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
        Ok(())
    }

    fn possible(&self, kind: Kind) -> bool {
        !self.plan.left_out.iter().any(|(left, _)| *left == kind)
    }

    /// All nodes write what they hold to the bucket; a node may just lack a leader.
    async fn flush(&mut self) -> Result<()> {
        let until = Instant::now() + SETTLE;
        while let Err(e) = self.cluster.flush().await {
            if Instant::now() > until {
                return Err(broken!("after {SETTLE:?} of trying: {e:#}"));
            }
            self.note("flush again", json!(format!("{e:#}")))?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.note("flushed", json!(self.cluster.nodes.len()))
    }

    /// Reads everything from every node.
    async fn check(&mut self) -> Result<()> {
        let shape = self.clients.history().shape;
        let steps = self.clients.history().steps();
        for batch in 0..shape.batches {
            for from in (0..steps).step_by(CHECK_STEPS) {
                let to = (from + CHECK_STEPS).min(steps) - 1;
                let known = self.clients.history().slice(batch, from, to);
                let asked = Asked { shape, batch, from, before: &known, after: &known };
                self.check_part(&asked, to).await?;
            }
        }
        self.note("checked", json!({"batches": shape.batches, "steps": steps, "nodes": self.cluster.nodes.len()}))
    }

    /// Reads some steps of a batch from every node: each must be right, and all the same.
    async fn check_part(&mut self, asked: &Asked<'_>, to: usize) -> Result<()> {
        let mut answers: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let nodes: Vec<(String, String)> =
            self.cluster.nodes.values().map(|node| (node.name.clone(), node.url.clone())).collect();
        for (name, url) in nodes {
            let bytes = self.read(&url, asked, to).await.map_err(|e| broken!("{name} does not answer: {e:#}"))?;
            for wrong in check::read(asked, &check::rows(&bytes)?) {
                self.clients.seen().violation(format!("at the end, {name}: {wrong}"));
            }
            answers.insert(name, bytes);
        }
        let mut all = answers.iter();
        let Some((first, expected)) = all.next() else { return Ok(()) };
        if let Some((other, bytes)) = all.find(|(_, bytes)| *bytes != expected) {
            let dir = &self.plan.setup.dir;
            std::fs::write(dir.join(format!("answer-{first}.json")), expected)?;
            std::fs::write(dir.join(format!("answer-{other}.json")), bytes)?;
            let text = format!(
                "at the end, {other} answers something else than {first} (batch {}, step {})",
                asked.batch, asked.from
            );
            self.clients.seen().violation(text);
        }
        Ok(())
    }

    async fn read(&self, url: &str, asked: &Asked<'_>, to: usize) -> Result<Vec<u8>> {
        let until = Instant::now() + SETTLE;
        loop {
            let part = (asked.batch, asked.from, to);
            match self.clients.api.read(url, &asked.shape, part, Duration::from_secs(30)).await {
                Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(200)).await,
                outcome => return outcome,
            }
        }
    }

    fn finish(self, dir: &Path, mut seen: Seen, trouble: Option<String>) -> Result<(Word, bool)> {
        for complaint in complaints(dir)? {
            seen.violation(complaint);
        }
        let history = self.clients.history();
        let found = Findings {
            profile: &self.plan.profile,
            seed: self.plan.seed,
            faults: &self.faults,
            left_out: &self.plan.left_out,
            seen: &seen,
            samples: (history.samples(Outcome::Ok), history.samples(Outcome::Info), history.samples(Outcome::Fail)),
            span: self.span,
            trouble,
            checked: self.checked,
        };
        report::write(dir, &found)
    }
}

/// The time, Unix milliseconds.
#[allow(clippy::disallowed_methods, reason = "real processes live in real time")]
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
