//! `metrolith serve`: reads the configuration and runs a node until it is told to stop.
//!
//! *Invariants:* every setting of `config` is a flag here; the list is made from the settings, never repeated.
//!
//! *Not here:* the node (`node`), what the settings mean (`config`).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::config::{Config, docs};
use crate::{node, telemetry};

const EXAMPLES: &str = "\
Examples:
  metrolith serve
  metrolith serve --data-dir /var/lib/metrolith --http 0.0.0.0:9009 --bucket s3://metrics/prod
  metrolith serve --config metrolith.yaml --log-level debug

Every key of the file is a flag of the same name; a flag wins. SIGTERM stops the node in order; kill -9 is safe too.";

/// How long threads may take to end once the node has stopped.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// What `serve` was told.
#[derive(Debug)]
pub struct Args {
    config: Option<PathBuf>,
    /// Dotted key and text of every flag given.
    flags: Vec<(String, String)>,
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("YAML file with settings");
        let flags = docs::flags().into_iter().map(|(key, flag, help)| {
            let nested = key.contains('.');
            let value = key.rsplit('.').next().unwrap_or(&key).to_uppercase();
            let heading = key.split_once('.').map(|(group, _)| format!("Settings: {group}"));
            // Prometheus' own name for it, so that its command lines can be kept.
            let alias = (key == "query.features").then_some("enable-feature");
            let arg =
                Arg::new(key).visible_aliases(alias).long(flag).value_name(value).help(help).hide_short_help(nested);
            if let Some(heading) = heading { arg.help_heading(heading) } else { arg }
        });
        command.arg(file).args(flags).after_help(EXAMPLES)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &String| matches.value_source(key) == Some(ValueSource::CommandLine);
        let flags = docs::flags()
            .into_iter()
            .map(|(key, ..)| key)
            .filter(given)
            .filter_map(|key| Some((matches.get_one::<String>(&key)?.clone(), key)))
            .map(|(text, key)| (key, text))
            .collect();
        Ok(Self { config: matches.get_one("config").cloned(), flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs a node until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    let loaded = Config::load(args.config.as_deref(), &args.flags)?;
    telemetry::init_logs(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("configuration: {warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(node::run(loaded.config, telemetry::Root::new()));
    // A query that does not look up may still be at work; nothing it does matters any more.
    runtime.shutdown_timeout(SHUTDOWN);
    ended
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        let command = Args::augment_args(Command::new("serve").no_binary_name(true));
        Args::from_arg_matches(&command.try_get_matches_from(line)?)
    }

    #[test]
    fn every_key_of_the_file_is_a_flag() {
        let args = parse(&["--config", "m.yaml", "--data-dir", "/d", "--query-max-samples", "7"]).unwrap();
        assert_eq!(args.config, Some(PathBuf::from("m.yaml")));
        let flags: Vec<(&str, &str)> = args.flags.iter().map(|(k, t)| (k.as_str(), t.as_str())).collect();
        assert_eq!(flags, [("data_dir", "/d"), ("query.max_samples", "7")]);
        let args = parse(&["--enable-feature=promql-per-step-stats"]).unwrap();
        assert_eq!(args.flags, [("query.features".to_owned(), "promql-per-step-stats".to_owned())]);
    }

    #[test]
    fn a_misspelt_flag_is_refused_with_the_nearest_one() {
        let message = parse(&["--data-dri", "/d"]).unwrap_err().to_string();
        assert!(message.contains("--data-dir"), "{message}");
    }
}
