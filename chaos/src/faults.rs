//! Does what a schedule says to a cluster, and undoes it.
//!
//! *Invariants:* when a fault returns, it is undone and every node is ready. A fault says what shows that it happened; one
//! that shows nothing does not count. No more than a minority ever loses its disk, and only of a cluster at rest.
//!
//! *Not here:* when (`schedule`), what clients see of it (`load`).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::process::Command;

use crate::broken;
use crate::bucket::Trouble;
use crate::cluster::Cluster;
use crate::delay::Delay;
use crate::hosts::run;
use crate::schedule::{Kind, Step};

/// Share of a node's packets that are lost.
const LOSS_PER_CENT: u32 = 30;
/// Room on the disk of the node whose disk gets full, MiB.
pub const DISK_MIB: u64 = 2048;
/// How long a node whose fsync fails may take to notice and end.
const SYNC_ENDS: Duration = Duration::from_secs(15);

/// What was done.
#[derive(Debug, Clone)]
pub struct Done {
    /// What.
    pub kind: Kind,
    /// To whom, in words.
    pub whom: String,
    /// Groups that those who were hit led.
    pub led: usize,
    /// What shows that it happened; nothing: it did not.
    pub evidence: Option<String>,
}

/// Does one fault and undoes it.
pub async fn perform(cluster: &mut Cluster, step: Step, rng: &mut StdRng) -> Result<Done> {
    let leads = cluster.leads().await;
    let slots = cluster.slots();
    let leading: Vec<usize> = slots.iter().copied().filter(|slot| leads.contains_key(slot)).collect();
    let victim = *leading.choose(rng).or(slots.choose(rng)).context("there is no node")?;
    let hold = Duration::from_millis(step.hold_ms);
    let (hit, evidence) = match step.kind {
        Kind::KillLeader => kill(cluster, vec![victim], hold).await?,
        Kind::KillMajority => {
            let mut hit = slots.clone();
            hit.shuffle(rng);
            hit.truncate(slots.len() / 2 + 1);
            kill(cluster, hit, hold).await?
        }
        Kind::KillAll => kill(cluster, slots, hold).await?,
        Kind::Pause => pause(cluster, victim, hold).await?,
        Kind::Cut | Kind::CutOneWay => cut(cluster, step, victim, rng).await?,
        Kind::Loss => {
            cluster.setup.hosts.lose(victim, LOSS_PER_CENT).await?;
            tokio::time::sleep(hold).await;
            (vec![victim], dropped(cluster).await?)
        }
        Kind::Delay => {
            let delay = Delay::begin(victim).await?;
            tokio::time::sleep(hold).await;
            let frames = delay.end().await?;
            (vec![victim], (frames > 0).then(|| format!("{frames} frames came late")))
        }
        Kind::DiskFull => disk_full(cluster, hold).await?,
        Kind::SyncFails => sync_fails(cluster, victim).await?,
        Kind::Rolling => rolling(cluster).await?,
        Kind::Replace => replace(cluster, victim, hold, rng.random()).await?,
        Kind::Grow => grow(cluster).await?,
        Kind::Shrink => shrink(cluster, rng).await?,
        Kind::BucketAway => bucket(cluster, Trouble::Away, hold).await?,
        Kind::BucketSlow => bucket(cluster, Trouble::Slow, hold).await?,
        Kind::BucketFails => bucket(cluster, Trouble::Failing, hold).await?,
        Kind::Skew => {
            skew(cluster, victim, hold, if rng.random() { 1 } else { -1 } * rng.random_range(60..=300)).await?
        }
    };
    let led = hit.iter().filter_map(|slot| leads.get(slot)).sum();
    Ok(Done { kind: step.kind, whom: format!("{hit:?}"), led, evidence })
}

/// Those who were hit, and what shows it.
type Hit = (Vec<usize>, Option<String>);

async fn kill(cluster: &mut Cluster, hit: Vec<usize>, hold: Duration) -> Result<Hit> {
    cluster.kill(&hit).await?;
    tokio::time::sleep(hold).await;
    cluster.start(&hit).await?;
    let evidence = format!("{} processes ended by signal 9", hit.len());
    Ok((hit, Some(evidence)))
}

async fn pause(cluster: &mut Cluster, victim: usize, hold: Duration) -> Result<Hit> {
    cluster.signal(&[victim], "STOP").await?;
    tokio::time::sleep(hold).await;
    let pid = cluster.node(victim)?.pid().unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let stopped = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
    cluster.signal(&[victim], "CONT").await?;
    cluster.ready(victim).await?;
    Ok((vec![victim], stopped.then(|| format!("process {pid} was stopped"))))
}

/// Cuts the links of one node, or those between two, in one or both directions.
async fn cut(cluster: &mut Cluster, step: Step, victim: usize, rng: &mut StdRng) -> Result<Hit> {
    let mut others: Vec<usize> = cluster.slots().into_iter().filter(|slot| *slot != victim).collect();
    if rng.random_bool(0.4) {
        others.shuffle(rng);
        others.truncate(1);
    }
    let mut links: Vec<(usize, usize)> = others.iter().map(|other| (victim, *other)).collect();
    let back: Vec<(usize, usize)> = links.iter().map(|(a, b)| (*b, *a)).collect();
    match step.kind {
        Kind::CutOneWay if rng.random() => links = back,
        Kind::CutOneWay => {}
        _ => links.extend(back),
    }
    cluster.setup.hosts.cut(&links).await?;
    tokio::time::sleep(Duration::from_millis(step.hold_ms)).await;
    let evidence = dropped(cluster).await?.map(|text| format!("{links:?}: {text}"));
    Ok((vec![victim], evidence))
}

/// Heals the network.
async fn dropped(cluster: &Cluster) -> Result<Option<String>> {
    let packets = cluster.setup.hosts.heal().await?;
    Ok((packets > 0).then(|| format!("{packets} packets dropped")))
}

/// Makes the directory of a node a disk of its own.
pub async fn mount(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let size = format!("size={DISK_MIB}m");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "chaos"]).arg(dir), None).await.map(drop)
}

async fn disk_full(cluster: &mut Cluster, hold: Duration) -> Result<Hit> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let on = |slot: &usize| {
        let dir = cluster.setup.dir.join(format!("n{slot}"));
        mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str())
    };
    let Some(victim) = cluster.slots().into_iter().find(on) else { return Ok((Vec::new(), None)) };
    let setup = cluster.setup.clone();
    let dir = cluster.node(victim)?.dir(&setup);
    let df = |column: &'static str| {
        let mut df = Command::new("df");
        df.args(["-k", &format!("--output={column}")]).arg(&dir);
        df
    };
    let number = |text: String| text.lines().nth(1).and_then(|line| line.trim().parse::<u64>().ok());
    let used = number(run(&mut df("used"), None).await?).context("df says nothing")?;
    let resize = |kib: u64| {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={kib}k")]).arg(&dir);
        mount
    };
    // Nothing more fits but the rest of a page.
    run(&mut resize(used + 4), None).await?;
    tokio::time::sleep(hold).await;
    let left = number(run(&mut df("avail"), None).await?);
    run(&mut resize(DISK_MIB * 1024), None).await?;
    let ended = cluster.node(victim)?.ended();
    let mut evidence = (left == Some(0)).then(|| "no byte left".to_owned());
    if let Some(status) = ended {
        evidence = Some(format!("ended with {status}"));
        cluster.node(victim)?.wait(SYNC_ENDS).await?;
        cluster.start(&[victim]).await?;
    }
    cluster.ready(victim).await?;
    Ok((vec![victim], evidence))
}

/// Fails every fsync of a node from now on: it must end, because nobody knows what is on its disk.
async fn sync_fails(cluster: &mut Cluster, victim: usize) -> Result<Hit> {
    let node = cluster.node(victim)?;
    let pid = node.pid().context("it does not run")?.to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-p", &pid])
        .args(["-e", "inject=fsync,fdatasync:error=EIO"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("starting strace")?;
    let ended = node.wait(SYNC_ENDS).await;
    strace.start_kill().context("ending strace")?;
    strace.wait().await?;
    let name = node.name.clone();
    let Ok(status) = ended else {
        return Err(broken!("{name} goes on {SYNC_ENDS:?} after its fsync began to fail"));
    };
    cluster.start(&[victim]).await?;
    Ok((vec![victim], Some(format!("ended with {status}"))))
}

/// Makes trouble in the bucket while every node wants to write to it.
async fn bucket(cluster: &Cluster, trouble: Trouble, hold: Duration) -> Result<Hit> {
    cluster.setup.bucket.set(Some(trouble));
    // Whether they come through is seen later: what they hold is written again at the end.
    let _ = tokio::time::timeout(hold, cluster.flush()).await;
    let hit = cluster.setup.bucket.set(None);
    Ok((Vec::new(), (hit > 0).then(|| format!("{hit} requests had to do with it"))))
}

async fn rolling(cluster: &mut Cluster) -> Result<Hit> {
    let slots = cluster.slots();
    for slot in &slots {
        cluster.stop(*slot).await?;
        cluster.start(&[*slot]).await?;
    }
    Ok((slots, Some("all ended in order".to_owned())))
}

async fn replace(cluster: &mut Cluster, victim: usize, hold: Duration, first_remove: bool) -> Result<Hit> {
    if cluster.slots().len() < 3 {
        bail!("the last copy of a sample may be on the node that is replaced");
    }
    cluster.at_rest().await?;
    let setup = cluster.setup.clone();
    cluster.kill(&[victim]).await?;
    let old = cluster.node(victim)?.name.clone();
    for entry in std::fs::read_dir(cluster.node(victim)?.dir(&setup))? {
        std::fs::remove_dir_all(entry?.path())?;
    }
    tokio::time::sleep(hold).await;
    let fresh = cluster.make(victim);
    let name = fresh.name.clone();
    cluster.nodes.insert(victim, fresh);
    let form = [("node", old.as_str()), ("force", "true")];
    if first_remove {
        cluster.change("remove", &form).await?;
        cluster.start(&[victim]).await?;
    } else {
        cluster.start(&[victim]).await?;
        cluster.change("remove", &form).await?;
    }
    cluster.at_rest().await?;
    Ok((vec![victim], Some(format!("{old} became {name}"))))
}

async fn grow(cluster: &mut Cluster) -> Result<Hit> {
    let slots = cluster.slots();
    let slot = (0..=slots.len()).find(|slot| !slots.contains(slot)).unwrap_or(slots.len());
    cluster.add(slot).await?;
    cluster.at_rest().await?;
    Ok((vec![slot], Some(format!("{} nodes", slots.len() + 1))))
}

async fn shrink(cluster: &mut Cluster, rng: &mut StdRng) -> Result<Hit> {
    cluster.at_rest().await?;
    let slots = cluster.slots();
    let victim = *slots.choose(rng).context("there is no node")?;
    let setup = cluster.setup.clone();
    let name = cluster.node(victim)?.name.clone();
    cluster.change("drain", &[("node", &name)]).await?;
    cluster.drained(&name).await?;
    // Those who ask its neighbours from now on need it no more.
    let mut gone = cluster.nodes.remove(&victim).context("it is not there")?;
    cluster.publish();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let removed = cluster.change("remove", &[("node", &name)]).await;
    if removed.is_ok() {
        crate::node::signal(&mut [&mut gone], "TERM").await?;
        gone.wait(SYNC_ENDS * 3).await?;
        std::fs::remove_dir_all(gone.dir(&setup).join("data"))?;
    }
    removed?;
    cluster.at_rest().await?;
    Ok((vec![victim], Some(format!("{} nodes", slots.len() - 1))))
}

async fn skew(cluster: &mut Cluster, victim: usize, hold: Duration, seconds: i32) -> Result<Hit> {
    let setup = cluster.setup.clone();
    let before = cluster.time(victim).await?;
    let file = cluster.node(victim)?.clock(&setup);
    let began = tokio::time::Instant::now();
    std::fs::write(&file, format!("{seconds:+}s\n"))?;
    // The library looks at the file once a second.
    tokio::time::sleep(hold.max(Duration::from_secs(2))).await;
    let after = cluster.time(victim).await;
    let jumped = after.map(|after| after - before - began.elapsed().as_secs_f64());
    std::fs::write(&file, "+0s\n")?;
    let jumped = jumped?;
    let seen = (jumped - f64::from(seconds)).abs() < 10.0;
    Ok((vec![victim], seen.then(|| format!("its clock jumped by {jumped:+.0} s"))))
}
