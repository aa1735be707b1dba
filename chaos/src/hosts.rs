//! Where nodes run: each in a network namespace behind one bridge, or all on loopback.
//!
//! *Invariants:* the bridge lives in a namespace of its own, so the machine's network is untouched. Names contain our
//! process id; only what was made here is taken away, at the end by whoever made it, also if the part inside failed.
//!
//! *Not here:* the processes (`node`), when links are cut (`faults`).

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The rules of the bridge, all links open.
const RULES: &str = "table bridge chaos {
  set cut { typeof iifname . oifname; }
  chain loss { }
  chain forward { type filter hook forward priority 0; iifname . oifname @cut counter drop; jump loss; }
}
";

/// The bridge's own address, in the network of all nodes.
const SWITCH: &str = "10.77.0.254";

/// Where nodes run.
#[derive(Debug, Clone)]
pub enum Hosts {
    /// Namespaces whose names begin so; `…sw` holds the bridge, `…n1` the first node.
    Namespaces(String),
    /// Addresses of loopback; ports from this number on.
    Loopback(u16),
}

impl Hosts {
    /// Makes the namespaces: one for the bridge, and one for each of `n` nodes.
    pub async fn make(n: usize) -> Result<Self> {
        let prefix = format!("mlc{}", std::process::id());
        let this = Self::Namespaces(prefix.clone());
        let made = this.fill(&prefix, n).await;
        if made.is_err() {
            this.remove(n).await;
        }
        made.map(|()| this)
    }

    async fn fill(&self, prefix: &str, n: usize) -> Result<()> {
        let switch = format!("{prefix}sw");
        ip(&["netns", "add", &switch]).await?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]).await?;
        ip(&["-n", &switch, "addr", "add", &format!("{SWITCH}/24"), "dev", "br0"]).await?;
        ip(&["-n", &switch, "link", "set", "br0", "up"]).await?;
        ip(&["-n", &switch, "link", "set", "lo", "up"]).await?;
        for slot in 0..n {
            let (ns, port) = (format!("{prefix}n{slot}"), port(slot));
            ip(&["netns", "add", &ns]).await?;
            ip(&["link", "add", "v0", "netns", &ns, "type", "veth", "peer", "name", &port, "netns", &switch]).await?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]).await?;
            ip(&["-n", &ns, "addr", "add", &format!("10.77.0.{}/24", slot + 1), "dev", "v0"]).await?;
            ip(&["-n", &ns, "link", "set", "v0", "up"]).await?;
            ip(&["-n", &ns, "link", "set", "lo", "up"]).await?;
        }
        run(Command::new("ip").args(["netns", "exec", &switch, "nft", "-f", "-"]), Some(RULES)).await.map(drop)
    }

    /// Takes away what [`Self::make`] made; processes still in there are ours, and end.
    pub async fn remove(&self, n: usize) {
        let Self::Namespaces(prefix) = self else { return };
        for ns in (0..n).map(|slot| format!("{prefix}n{slot}")).chain([format!("{prefix}sw")]) {
            if let Ok(pids) = ip(&["netns", "pids", &ns]).await {
                let pids: Vec<&str> = pids.split_whitespace().collect();
                if !pids.is_empty() {
                    let _ = run(Command::new("kill").arg("-9").args(&pids), None).await;
                }
                if let Err(e) = ip(&["netns", "delete", &ns]).await {
                    eprintln!("chaos: {e:#}");
                }
            }
        }
    }

    /// Whether links can be cut.
    pub fn namespaces(&self) -> bool {
        matches!(self, Self::Namespaces(_))
    }

    /// Addresses of a node: HTTP and gRPC.
    pub fn addresses(&self, slot: usize) -> (String, String) {
        let n = slot + 1;
        match self {
            Self::Namespaces(_) => (format!("10.77.0.{n}:9009"), format!("10.77.0.{n}:9095")),
            Self::Loopback(port) => (format!("127.77.0.{n}:{port}"), format!("127.77.0.{n}:{}", port + 1)),
        }
    }

    /// Where the bucket listens.
    pub fn bucket(&self) -> &'static str {
        match self {
            Self::Namespaces(_) => SWITCH,
            Self::Loopback(_) => "127.0.0.1",
        }
    }

    /// What to write before a command that shall run on the host of a node.
    pub fn enter(&self, slot: usize) -> Vec<String> {
        match self {
            Self::Namespaces(prefix) => {
                ["ip", "netns", "exec", &format!("{prefix}n{slot}")].map(str::to_owned).to_vec()
            }
            Self::Loopback(_) => Vec::new(),
        }
    }

    /// Cuts links, each from the first to the second, all in one moment.
    pub async fn cut(&self, links: &[(usize, usize)]) -> Result<()> {
        let links: Vec<String> = links.iter().map(|(a, b)| format!("{} . {}", port(*a), port(*b))).collect();
        nft(&format!("add element bridge chaos cut {{ {} }}\n", links.join(", "))).await
    }

    /// Loses so much of what a node sends to the others.
    pub async fn lose(&self, slot: usize, per_cent: u32) -> Result<()> {
        nft(&format!(
            "add rule bridge chaos loss iifname {} numgen random mod 100 < {per_cent} counter drop\n",
            port(slot)
        ))
        .await
    }

    /// Packets that were dropped; counting starts again.
    pub async fn heal(&self) -> Result<u64> {
        let rules = run(Command::new("nft").args(["list", "table", "bridge", "chaos"]), None).await?;
        let packets = rules.split("counter packets ").skip(1);
        let dropped = packets.filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum();
        // In one transaction: there is no moment without the table.
        nft(&format!("delete table bridge chaos\n{RULES}")).await?;
        Ok(dropped)
    }
}

/// The bridge's end of a node's link.
pub fn port(slot: usize) -> String {
    format!("p{slot}")
}

async fn ip(args: &[&str]) -> Result<String> {
    run(Command::new("ip").args(args), None).await
}

async fn nft(script: &str) -> Result<()> {
    run(Command::new("nft").args(["-f", "-"]), Some(script)).await.map(drop)
}

/// Runs a command to its end; what it says. An error says what it complained about.
pub async fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    let shown = format!("{:?}", command.as_std());
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
