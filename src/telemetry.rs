//! What the process says about itself: log lines and metrics.
//!
//! *Invariants:* every metric of Metrolith's own begins with `metrolith_` (the root adds it; modules register plain
//! names); those about the process keep the names every exporter uses (`process_*`). No metric is global: a module gets
//! a registry, registers, keeps its handles.
//!
//! *Not here:* the HTTP route (`api`), what modules count (their `Metrics`).

pub mod exposition;
mod logfmt;
mod process;

use std::sync::Arc;

use prometheus_client::encoding::prometheus_protobuf::{self, prometheus_data_model::MetricFamily};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{self, LogFormat};
use crate::error::{HasKind, Kind};
pub use exposition::Exposition;

/// Why telemetry could not be set up or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `log.level` is neither a level nor a list of directives.
    #[error("setting log.level: {level:?} is neither a level nor a list of directives")]
    Level {
        /// What was configured.
        level: String,
        /// Why it was refused.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody installed another log subscriber before.
    #[error("installing the log subscriber")]
    Installed(#[source] tracing_subscriber::util::TryInitError),
    /// A metric could not be written.
    #[error("writing metrics")]
    Encode(#[source] std::fmt::Error),
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Level { .. } => Kind::Invalid,
            Self::Installed(_) | Self::Encode(_) => Kind::Internal,
        }
    }
}

/// Libraries that tell their own story at `info`; a directive of the same name in `log.level` replaces these.
const QUIET: &str = "openraft=error,foyer=warn,foyer_storage=warn,foyer_memory=warn";

/// Sends `tracing` events to standard error in the configured form; once per process.
pub fn init_logs(log: &config::Log) -> Result<(), Error> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level))
        .map_err(|source| Error::Level { level: log.level.clone(), source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let root = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Logfmt => root.with(lines.event_format(logfmt::Logfmt).fmt_fields(logfmt::Fields)).try_init(),
        LogFormat::Json => root.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(Error::Installed)
}

/// The registry of all metrics while the process is being built; [`Root::finish`] makes it readable.
pub struct Root(Registry);

impl Root {
    /// A root that already knows the metrics of the process.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        Self(registry)
    }

    /// Where modules register, with names that lack the `metrolith_`.
    pub fn modules(&mut self) -> &mut Registry {
        self.0.sub_registry_with_prefix("metrolith")
    }

    /// Everything registered so far, ready to be shared and read.
    pub fn finish(self) -> Metrics {
        Metrics(Arc::new(self.0))
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new()
    }
}

/// All metrics of the process.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Registry>);

impl Metrics {
    /// All metrics as messages.
    pub fn families(&self) -> Result<Vec<MetricFamily>, Error> {
        prometheus_protobuf::encode(&self.0).map_err(Error::Encode)
    }

    /// All metrics as text.
    pub fn encode(&self, exposition: Exposition) -> Result<String, Error> {
        let mut text = String::with_capacity(64 << 10);
        prometheus_client::encoding::text::encode(&mut text, &self.0).map_err(Error::Encode)?;
        Ok(match exposition {
            Exposition::OpenMetrics => text,
            Exposition::Prometheus => exposition::to_prometheus(&text),
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn modules_get_the_prefix_and_the_process_does_not() {
        let mut root = Root::new();
        let written = Counter::<u64>::default();
        root.modules().register("samples_written", "Samples written", written.clone());
        written.inc_by(3);
        let metrics = root.finish();
        let text = metrics.encode(Exposition::Prometheus).unwrap();
        assert!(text.contains("# TYPE metrolith_samples_written_total counter\nmetrolith_samples_written_total 3\n"));
        for name in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_start_time_seconds",
            "metrolith_memory_allocated_bytes",
            "metrolith_build_info{version=",
        ] {
            assert!(text.lines().any(|l| l.starts_with(name)), "{name} in\n{text}");
        }
        assert!(metrics.encode(Exposition::OpenMetrics).unwrap().ends_with("# EOF\n"));
    }
}
