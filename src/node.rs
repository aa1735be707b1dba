//! One process: builds its roles, stops them in reverse.

use crate::config::Config;
use crate::telemetry;

/// Runs a node until it is told to stop.
pub async fn run(config: Config, metrics: telemetry::Root) -> anyhow::Result<()> {
    let _ = (config, metrics);
    anyhow::bail!("the roles of the node are not wired")
}
