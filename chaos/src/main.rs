//! `chaos`: real nodes, real faults, and a checker that knows every acknowledged sample. See README.md.
//!
//! *Invariants:* exit code 0 is valid, 1 invalid, 2 unknown, 3 valid with a bar missed.

mod api;
mod bucket;
mod check;
mod cluster;
mod delay;
mod faults;
mod gaps;
mod history;
mod hosts;
mod load;
mod node;
mod report;
mod run;
mod schedule;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::hosts::Hosts;
use crate::report::Word;
use crate::run::Plan;
use crate::schedule::{Kind, Means, Profile};

const USAGE: &str = "\
chaos [--profile short|kill-leader|kill-all|elastic|long] [--seed N] [--dir DIR] [--seconds N] [--shards N]
      [--only FAULT,FAULT] [--loopback] [--keep]

METROLITH_BIN names the program. Network namespaces are used by root where they work, else loopback (--loopback: always).
Exit code: 0 valid, 1 invalid, 2 unknown, 3 valid, but slower than the profile allows.";

/// Where Debian keeps the library that shifts clocks.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A promise about the cluster as a whole that was broken.
#[derive(Debug)]
pub struct Broken(pub String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// An error that says that the cluster broke a promise, not that the run could not be done.
#[macro_export]
macro_rules! broken {
    ($($text:tt)*) => { anyhow::Error::new($crate::Broken(format!($($text)*))) };
}

struct Options {
    profile: Profile,
    seed: u64,
    dir: PathBuf,
    loopback: bool,
    keep: bool,
    shards: u32,
    /// Prefix of the namespaces we are inside of.
    inside: Option<String>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("{e:#}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // One thread: the kernel ties the nodes' lives to the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(start(options)));
    match outcome {
        Ok(code) => code,
        Err(e) => {
            eprintln!("chaos: {e:#}");
            ExitCode::from(if e.downcast_ref::<Broken>().is_some() { 1 } else { 2 })
        }
    }
}

fn options(args: impl Iterator<Item = String>) -> Result<Options> {
    let mut args = args;
    let profile = Profile::named("short").context("no profile")?;
    let (shards, dir) = (6, PathBuf::new());
    let mut found = Options { profile, seed: 1, dir, loopback: false, keep: false, shards, inside: None };
    let (mut only, mut seconds) = (None, None);
    while let Some(flag) = args.next() {
        let mut value = || args.next().with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--profile" => {
                let name = value()?;
                found.profile = Profile::named(&name)
                    .with_context(|| format!("no profile {name:?}, there are {:?}", Profile::NAMES))?;
            }
            "--seed" => found.seed = value()?.parse().context("--seed")?,
            "--dir" => found.dir = value()?.into(),
            "--seconds" => seconds = Some(value()?.parse().context("--seconds")?),
            "--shards" => found.shards = value()?.parse().context("--shards")?,
            "--only" => only = Some(value()?),
            "--loopback" => found.loopback = true,
            "--keep" => found.keep = true,
            "--inside" => found.inside = Some(value()?),
            _ => bail!("unknown flag {flag:?}"),
        }
    }
    found.profile.seconds = seconds.unwrap_or(found.profile.seconds);
    if let Some(only) = only {
        let known = Profile::named("long").context("no profile")?.kinds;
        let kind = |name: &str| known.iter().copied().find(|kind: &Kind| kind.name() == name);
        let kinds = only.split(',').map(|name| kind(name).with_context(|| format!("--only: no fault {name:?}")));
        found.profile.kinds = kinds.collect::<Result<_>>()?;
    }
    if found.dir.as_os_str().is_empty() {
        found.dir = PathBuf::from(format!("target/chaos/{}-{}", found.profile.name, found.seed));
    }
    Ok(found)
}

/// Makes the namespaces and runs itself inside, or runs here on loopback.
async fn start(options: Options) -> Result<ExitCode> {
    if let Some(prefix) = options.inside.clone() {
        return carry_out(options, Hosts::Namespaces(prefix)).await;
    }
    if options.loopback {
        return on_loopback(options).await;
    }
    let mut ended = ended()?;
    let hosts = match Hosts::make(options.profile.most).await {
        Ok(hosts) => hosts,
        Err(e) => {
            println!("no network namespaces: {e:#}");
            return on_loopback(options).await;
        }
    };
    let outcome = inside(&hosts, &mut ended).await;
    hosts.remove(options.profile.most).await;
    outcome
}

async fn on_loopback(options: Options) -> Result<ExitCode> {
    let port = 12_000 + (std::process::id() % 10_000) as u16 * 2;
    carry_out(options, Hosts::Loopback(port)).await
}

/// Runs this program again in the bridge's namespace; what is mounted in there is gone with it.
async fn inside(hosts: &Hosts, ended: &mut Ended) -> Result<ExitCode> {
    let Hosts::Namespaces(prefix) = hosts else { bail!("BUG: there is no namespace to go into") };
    let mut child = Command::new("ip")
        .args(["netns", "exec", &format!("{prefix}sw")])
        .arg(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .args(["--inside", prefix])
        .spawn()
        .context("going into the namespace")?;
    let status = tokio::select! {
        status = child.wait() => status?,
        () = ended.next() => {
            if let Some(pid) = child.id() {
                hosts::run(Command::new("kill").args(["-TERM", &pid.to_string()]), None).await?;
            }
            child.wait().await?
        }
    };
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::from(2), ExitCode::from))
}

async fn carry_out(options: Options, hosts: Hosts) -> Result<ExitCode> {
    let binary = std::env::var_os("METROLITH_BIN").context("METROLITH_BIN does not name the program to run")?;
    let binary = std::fs::canonicalize(&binary).with_context(|| format!("METROLITH_BIN={}", binary.display()))?;
    if options.dir.exists() {
        bail!("{} exists already", options.dir.display());
    }
    std::fs::create_dir_all(&options.dir)?;
    let dir = options.dir.canonicalize()?;
    let there = |path: &str| Path::new(path).exists();
    let (strace, faketime) = (there("/usr/bin/strace"), there(FAKETIME));
    let means = Means { namespaces: hosts.namespaces(), tap: there("/dev/net/tun"), strace, faketime };
    let impossible = |kind: &Kind| Some((*kind, kind.impossible(means)?));
    let mut left_out: Vec<(Kind, &'static str)> = options.profile.kinds.iter().filter_map(impossible).collect();
    left_out.dedup();
    for (kind, why) in &left_out {
        println!("left out: {} {why}", kind.name());
    }
    let kinds = &options.profile.kinds;
    if kinds.contains(&Kind::DiskFull) && hosts.namespaces() {
        faults::mount(&dir.join("n0")).await?;
    }
    let faketime = (faketime && kinds.contains(&Kind::Skew)).then(|| PathBuf::from(FAKETIME));
    let setpriv = Path::new("/usr/bin/setpriv").exists();
    let bucket = bucket::Bucket::start(hosts.bucket(), &dir.join("bucket"))?;
    let setup = node::Setup { binary, dir: dir.clone(), hosts, bucket, faketime, shards: options.shards, setpriv };
    let mut ended = ended()?;
    let plan = Plan { profile: options.profile, seed: options.seed, setup, left_out };
    let (word, met) = run::run(plan, async move { ended.next().await }).await?;
    println!("everything is in {}", dir.display());
    if word == Word::Valid && !options.keep {
        forget(&dir)?;
    }
    Ok(ExitCode::from(match word {
        Word::Valid if met => 0,
        Word::Valid => 3,
        Word::Invalid => 1,
        Word::Unknown => 2,
    }))
}

/// Removes the data of a run that showed nothing wrong; logs and reports stay.
fn forget(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        for inner in std::fs::read_dir(&path)? {
            let inner = inner?.path();
            if inner.is_dir() { std::fs::remove_dir_all(&inner)? } else { std::fs::remove_file(&inner)? }
        }
    }
    Ok(())
}

/// Ctrl-C and SIGTERM.
struct Ended(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

fn ended() -> Result<Ended> {
    Ok(Ended(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
}

impl Ended {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
