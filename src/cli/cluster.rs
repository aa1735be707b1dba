//! `metrolith cluster`: looks at a cluster and changes it, through any of its nodes.
//!
//! *Invariants:* `--json` shows the server's answer as it is.
//!
//! *Not here:* what is allowed (`meta::state`).

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::Value;

use super::columns;

/// Longest to wait for an answer; meta may have to find a leader first.
const TIMEOUT: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  metrolith cluster status
  metrolith cluster drain node-3 --url http://node-1:9009      its replicas move to the other nodes
  metrolith cluster remove node-3                              once it holds none";

/// What `cluster` was told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Any node of the cluster
    #[arg(long, global = true, env = "METROLITH_URL", default_value = "http://127.0.0.1:9009")]
    url: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Nodes, shards, and who leads them
    Status {
        /// The server's answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Move all replicas away from a node
    Drain {
        /// Its name or id
        node: String,
    },
    /// Let a node take replicas again
    Activate {
        /// Its name or id
        node: String,
    },
    /// Take a node out of the cluster that holds no replicas any more
    Remove {
        /// Its name or id
        node: String,
        /// Even if it should still hold replicas: for a machine that never comes back
        #[arg(long)]
        force: bool,
    },
    /// Begin an epoch with another number of shards
    Reshard {
        /// How many
        shards: u32,
    },
}

/// Asks a node and shows what it says.
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let url = args.url.trim_end_matches('/');
    let admin = |action: &str, form: Vec<(&'static str, String)>| {
        runtime.block_on(ask(format!("{url}/api/v1/admin/cluster/{action}"), Some(form))).map(drop)
    };
    match args.command {
        Command::Status { json } => {
            let data = runtime.block_on(ask(format!("{url}/api/v1/cluster"), None))?;
            let text = if json { serde_json::to_string_pretty(&data)? + "\n" } else { table(&data) };
            match std::io::stdout().lock().write_all(text.as_bytes()) {
                // Whoever read our output has seen enough (`| head`).
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                outcome => outcome.context("writing the answer"),
            }
        }
        Command::Drain { node } => admin("drain", vec![("node", node)]),
        Command::Activate { node } => admin("activate", vec![("node", node)]),
        Command::Remove { node, force } => admin("remove", vec![("node", node), ("force", force.to_string())]),
        Command::Reshard { shards } => admin("reshard", vec![("shards", shards.to_string())]),
    }
}

/// The `data` of an answer; an answer without one is nothing.
async fn ask(url: String, form: Option<Vec<(&'static str, String)>>) -> anyhow::Result<Value> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let request = match &form {
        Some(form) => client.post(&url).form(form),
        None => client.get(&url),
    };
    let answer = request.send().await.with_context(|| format!("asking {url}"))?;
    let status = answer.status();
    let body = answer.bytes().await.with_context(|| format!("reading the answer of {url}"))?;
    if status.is_success() && body.is_empty() {
        return Ok(Value::Null);
    }
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut answer) if status.is_success() => Ok(answer["data"].take()),
        Ok(answer) if answer["error"].is_string() => bail!("{}", answer["error"].as_str().unwrap_or_default()),
        _ => {
            let text = String::from_utf8_lossy(&body);
            bail!("{url} answered {status}: {}", text.trim().chars().take(300).collect::<String>())
        }
    }
}

/// The answer for people: the cluster, its nodes, its groups.
fn table(data: &Value) -> String {
    let nodes = || data["nodes"].as_array().into_iter().flatten();
    let name = |id: &Value| match nodes().find(|node| node["id"] == *id) {
        Some(node) => cell(&node["name"]),
        None => cell(id),
    };
    let mut out = format!("cluster {}, {} shards in epoch {}", cell(&data["cluster"]), data["shards"], data["epoch"]);
    let older = data["epochs"].as_array().map_or(0, Vec::len).saturating_sub(1);
    if older > 0 {
        let _ = write!(out, " ({older} older still drain)");
    }
    let _ = writeln!(out, ", {} replicas wanted\n", data["replication"]);
    let mut rows =
        vec![heading(["NODE", "ID", "ZONE", "STATUS", "META", "REPLICAS", "LEADS", "GRPC", "HTTP", "VERSION"])];
    for node in nodes() {
        let leads = groups(data).filter(|group| group["leader"] == node["id"]).count();
        let meta = if node["votesInMeta"] == true { "voter" } else { "learner" };
        // What it is meant to do is of little use while nobody hears of it.
        let status = if node["answers"] == false { "silent".to_owned() } else { cell(&node["status"]) };
        let mut row = vec![cell(&node["name"]), cell(&node["id"]), cell(&node["zone"]), status];
        row.extend([meta.to_owned(), cell(&node["replicas"]), leads.to_string()]);
        row.extend([cell(&node["grpc"]), cell(&node["http"]), cell(&node["version"])]);
        rows.push(row);
    }
    out.push_str(&columns::aligned(&rows));
    out.push('\n');
    let mut rows = vec![heading(["GROUP", "REPLICAS", "LEADER", "PREFERRED"])];
    for group in groups(data) {
        let shard = match group["shard"].as_u64() {
            Some(shard) => format!("shard {shard}, epoch {}", group["epoch"]),
            None => "meta".to_owned(),
        };
        let replicas = group["replicas"].as_array().into_iter().flatten().map(|replica| name(&replica["node"]));
        let replicas = replicas.collect::<Vec<_>>().join(" ");
        rows.push(vec![shard, replicas, name(&group["leader"]), name(&group["preferred"])]);
    }
    out.push_str(&columns::aligned(&rows));
    out
}

fn groups(data: &Value) -> impl Iterator<Item = &Value> {
    data["groups"].as_array().into_iter().flatten()
}

fn heading<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// A value as it stands; a dash for none.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Null | Value::String(_) => "–".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_is_shown_as_two_tables() {
        let node = |id: u64, name: &str, status: &str, votes: bool| {
            json!({"id": id, "name": name, "zone": "", "status": status, "answers": id != 13, "votesInMeta": votes,
                "replicas": 2, "grpc": format!("{name}:9010"), "http": "", "version": "0.1.0"})
        };
        let on = |nodes: &[u64]| nodes.iter().map(|node| json!({"node": node})).collect::<Vec<_>>();
        let data = json!({
            "cluster": "c1", "epoch": 2, "shards": 1, "replication": 3,
            "epochs": [{"epoch": 1, "shards": 1}, {"epoch": 2, "shards": 1}],
            "nodes": [node(1, "a", "active", true), node(12, "b", "draining", false), node(13, "c", "active", false)],
            "groups": [
                {"group": "0", "shard": null, "replicas": on(&[1]), "leader": 1, "preferred": 1},
                {"group": "1", "shard": 0, "epoch": 2, "replicas": on(&[1, 12]), "leader": null, "preferred": 12},
            ],
        });
        let expected = "\
cluster c1, 1 shards in epoch 2 (1 older still drain), 3 replicas wanted

NODE  ID  ZONE  STATUS    META     REPLICAS  LEADS  GRPC    HTTP  VERSION
a      1     –  active    voter           2      1  a:9010     –  0.1.0
b     12     –  draining  learner         2      0  b:9010     –  0.1.0
c     13     –  silent    learner         2      0  c:9010     –  0.1.0

GROUP             REPLICAS  LEADER  PREFERRED
meta              a         a       a
shard 0, epoch 2  a b       –       b
";
        assert_eq!(table(&data), expected);
    }
}
