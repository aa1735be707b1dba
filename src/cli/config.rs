//! `metrolith config`: checks a configuration file, or prints the page about all settings.

use std::io::Write;
use std::path::PathBuf;

use crate::config::{Config, docs};

/// What `config` was told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read a file as `serve` would and say what is wrong with it
    Check {
        /// YAML file with settings
        file: PathBuf,
    },
    /// Print docs/configuration.md
    Docs,
}

/// Checks or prints.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match args.command {
        Command::Check { file } => {
            let loaded = Config::load(Some(&file), &[])?;
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            writeln!(out, "{} is right", file.display())?;
        }
        Command::Docs => out.write_all(docs::markdown().as_bytes())?,
    }
    Ok(())
}
