//! Debian's Prometheus and its node exporter.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::http::Api;
use super::program::Program;
use super::{free_port, tool};

const START: Duration = Duration::from_secs(60);

/// A running Prometheus.
pub struct Prometheus {
    /// The process.
    pub program: Program,
    /// Where it answers.
    pub api: Api,
}

/// Where and how scrapes are sent.
#[derive(Debug, Clone)]
pub struct RemoteWrite {
    /// The receiver.
    pub url: String,
    /// Version of the protocol, 1 or 2.
    pub version: u32,
}

/// Newest remote-write protocol the installed Prometheus can send; 2.0 came, stable, with Prometheus 3.
pub fn newest_remote_write() -> Option<u32> {
    let (major, _) = version()?;
    Some(if major >= 3 { 2 } else { 1 })
}

/// Version of the installed Prometheus, major and minor. `None` if there is none.
pub fn version() -> Option<(u32, u32)> {
    let out = Command::new(tool("prometheus")?).arg("--version").output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut parts = text.split("version ").nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Starts Prometheus with data in `dir/prometheus`; scrapes `targets` and itself each second and sends all of it to
/// `remote_write` if there is one. Without targets it scrapes nothing at all. `None` if there is no Prometheus.
pub async fn start(dir: &Path, targets: &[String], remote_write: Option<&RemoteWrite>) -> Option<Prometheus> {
    let port = free_port();
    let own = format!("127.0.0.1:{port}");
    let mut config = String::from("global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n");
    if !targets.is_empty() {
        config.push_str("scrape_configs:\n");
        for (job, target) in [("prometheus", &own)].into_iter().chain(targets.iter().map(|t| ("node", t))) {
            config.push_str(&format!("- job_name: {job}\n  static_configs:\n  - targets: ['{target}']\n"));
        }
    }
    if let Some(RemoteWrite { url, version }) = remote_write {
        // One shard keeps the order of the log: what came later arrives later.
        config.push_str(&format!(
            "remote_write:\n- url: {url}\n  queue_config:\n    max_shards: 1\n    batch_send_deadline: 200ms\n"
        ));
        if *version == 2 {
            config.push_str("  protobuf_message: io.prometheus.write.v2.Request\n");
        }
    }
    start_on(dir, &config, port, &[]).await
}

/// Starts Prometheus without targets, with data in `dir/prometheus`, to be sent samples of any age by remote write.
/// `None` if there is no Prometheus.
pub async fn start_receiver(dir: &Path) -> Option<Prometheus> {
    let flags = ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
    start_on(dir, "global: {}\n", free_port(), &flags).await
}

/// Starts Prometheus with this configuration, these flags and data in `dir/prometheus`. `None` if there is no Prometheus.
pub async fn start_with(dir: &Path, config: &str, flags: &[&str]) -> Option<Prometheus> {
    start_on(dir, config, free_port(), flags).await
}

async fn start_on(dir: &Path, config: &str, port: u16, flags: &[&str]) -> Option<Prometheus> {
    let (binary, own) = (tool("prometheus")?, format!("127.0.0.1:{port}"));
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(binary);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
        .arg(format!("--web.listen-address={own}"))
        .args(flags);
    let mut program = Program::start("prometheus", dir, command);
    program.ready(&format!("http://{own}/-/ready"), START).await;
    Some(Prometheus { program, api: Api::new(&format!("http://{own}")) })
}

/// Starts the node exporter; the program and its address. `None` if there is none.
pub async fn node_exporter(dir: &Path) -> Option<(Program, String)> {
    let binary = tool("prometheus-node-exporter")?;
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary);
    command.arg(format!("--web.listen-address={address}"));
    let mut program = Program::start("node-exporter", dir, command);
    program.ready(&format!("http://{address}/metrics"), START).await;
    Some((program, address))
}
