//! The subcommands of the `metrolith` program.
//!
//! *Invariants:* what a command was asked for goes to standard output, everything said about it to standard error. Exit
//! codes: 0 done, 1 failed, 2 asked for wrongly.
//!
//! *Not here:* what the commands do with a running node (`node`, `api`).

mod cluster;
mod columns;
mod config;
pub mod load;
mod query;
mod serve;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const ABOUT: &str = "A clustered long-term store for Prometheus metrics: one binary, no other system to run.";

const EXAMPLES: &str = "\
Examples:
  metrolith serve                                       a node with everything in ./data, on http://127.0.0.1:9009
  metrolith query 'up'                                  ask it
  metrolith query --start -1h --format plot 'rate(metrolith_written_samples_total[5m])'

Point a Prometheus at it:
  remote_write:
    - url: http://127.0.0.1:9009/api/v1/write";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "metrolith", version, about = ABOUT, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Args),
    /// Ask a running node a PromQL question
    Query(query::Args),
    /// Write generated series to a node, and report how it went
    Load(load::Args),
    /// Look at a cluster, drain or remove its nodes
    Cluster(cluster::Args),
    /// Look at the tables in a bucket, without a node
    Table(table::Args),
    /// Check a configuration file, or print the page about all settings
    Config(config::Args),
}

/// Runs what the command line asks for.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Query(args) => query::run(args),
        Command::Load(args) => load::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Table(args) => table::run(args),
        Command::Config(args) => config::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(if error.is::<crate::config::Error>() { 2 } else { 1 })
        }
    }
}

/// An error and its causes in one line; a cause that only repeats the line before it is left out.
fn chain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line_of_causes() {
        let error = Err::<(), _>(std::io::Error::other("no route")).context("asking http://x").unwrap_err();
        assert_eq!(chain(&error), "asking http://x: no route");
    }
}
