//! One `metrolith serve` and its process.
//!
//! *Invariants:* only processes started here are signalled, and only while they have not been waited for: their ids cannot
//! belong to anybody else. A process ends with us, however we end.
//!
//! *Not here:* which nodes there are (`cluster`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::broken;
use crate::bucket::Bucket;
use crate::hosts::{Hosts, run};

/// What all nodes are started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program.
    pub binary: PathBuf,
    /// Where everything of this run is.
    pub dir: PathBuf,
    /// Where nodes run.
    pub hosts: Hosts,
    /// Where their history goes.
    pub bucket: Bucket,
    /// The library that shifts clocks, if any shall be shifted.
    pub faketime: Option<PathBuf>,
    /// Number of shards.
    pub shards: u32,
    /// Whether `setpriv` can tie processes to us.
    pub setpriv: bool,
}

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Which address it has.
    pub slot: usize,
    /// Its name in the cluster.
    pub name: String,
    /// Where it answers.
    pub url: String,
    /// Where the others reach it.
    pub grpc: String,
    /// Others to join.
    pub join: Vec<String>,
    /// Whether it is stopped by SIGSTOP.
    pub paused: bool,
    child: Option<Child>,
}

impl Node {
    /// A node that does not run yet, with an empty directory.
    pub fn new(setup: &Setup, slot: usize, generation: usize, join: Vec<String>) -> Self {
        let (http, grpc) = setup.hosts.addresses(slot);
        let name = if generation == 0 { format!("n{slot}") } else { format!("n{slot}-{generation}") };
        Self { slot, name, url: format!("http://{http}"), grpc, join, paused: false, child: None }
    }

    /// Where it keeps its data; the same for all nodes of this address.
    pub fn dir(&self, setup: &Setup) -> PathBuf {
        setup.dir.join(format!("n{}", self.slot))
    }

    /// Starts the process; does not wait for it to be ready.
    pub fn start(&mut self, setup: &Setup) -> Result<()> {
        let dir = self.dir(setup);
        std::fs::create_dir_all(&dir)?;
        let log = setup.dir.join(format!("{}.log", self.name));
        let log = File::options().create(true).append(true).open(&log).with_context(|| format!("{}", log.display()))?;
        let mut words = setup.hosts.enter(self.slot);
        if setup.setpriv {
            words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        }
        words.push(setup.binary.display().to_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("serve")
            .args(["--data-dir".as_ref(), dir.join("data").as_os_str()])
            .args(["--http", self.url.trim_start_matches("http://"), "--grpc", &self.grpc, "--node-name", &self.name])
            .args(["--bucket", &setup.bucket.url()])
            .args(["--shards", &setup.shards.to_string(), "--enable-admin-api", "true"])
            .args(["--self-monitoring-enabled", "false"])
            .envs(setup.bucket.environment())
            .env("RUST_BACKTRACE", "1")
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if !self.join.is_empty() {
            command.args(["--join", &self.join.join(",")]);
        }
        if let Some(library) = &setup.faketime {
            let file = self.clock(setup);
            std::fs::write(&file, "+0s\n")?;
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
            command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        self.paused = false;
        self.child = Some(command.spawn().with_context(|| format!("starting {words:?}"))?);
        Ok(())
    }

    /// The file that shifts its clock.
    pub fn clock(&self, setup: &Setup) -> PathBuf {
        setup.dir.join(format!("n{}.clock", self.slot))
    }

    /// Its process, while it has not been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How it ended, if it ended without being told to.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(status.to_string())
    }

    /// Whether a process was started and not taken away.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until the process ended by itself or by a signal it has been sent.
    pub async fn wait(&mut self, patience: Duration) -> Result<String> {
        let Some(child) = &mut self.child else { bail!("{} does not run", self.name) };
        let status = tokio::time::timeout(patience, child.wait()).await;
        let Ok(status) = status else { return Err(broken!("{} does not end within {patience:?}", self.name)) };
        self.child = None;
        self.paused = false;
        Ok(status?.to_string())
    }
}

/// Sends a signal to some nodes with one command.
pub async fn signal(nodes: &mut [&mut Node], signal: &str) -> Result<()> {
    let pids: Vec<String> = nodes.iter().filter_map(|node| Some(node.pid()?.to_string())).collect();
    if pids.is_empty() {
        bail!("none of {:?} runs", nodes.iter().map(|node| &node.name).collect::<Vec<_>>());
    }
    run(Command::new("kill").arg(format!("-{signal}")).args(&pids), None).await?;
    for node in nodes {
        match signal {
            "STOP" => node.paused = true,
            "CONT" => node.paused = false,
            _ => {}
        }
    }
    Ok(())
}

/// Lines of logs that no fault excuses.
pub fn complaints(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "log") || path.file_stem().is_some_and(|n| n == "load") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        let bad = |line: &&str| line.contains("panicked at") || line.contains("BUG:");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.extend(text.lines().filter(bad).take(5).map(|line| format!("{name}: {line}")));
    }
    Ok(found)
}
