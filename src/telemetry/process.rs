//! Metrics about the process: memory, processor, files, and which build it is.
//!
//! *Invariants:* a figure that cannot be read is left out, never written as zero.
//!
//! *Not here:* metrics of modules.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;

/// Clock ticks a second in `/proc/*/stat`: 100 on every Linux (`USER_HZ` is part of its ABI).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self` and the allocator at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        if let Some(stat) = Stat::read() {
            let cpu = ConstCounter::new(stat.cpu_seconds);
            counter(&mut to, "process_cpu_seconds", "User and system time spent", &cpu)?;
            gauge(&mut to, "process_resident_memory_bytes", "Resident memory", stat.resident_bytes)?;
            gauge(&mut to, "process_virtual_memory_bytes", "Virtual memory", stat.virtual_bytes)?;
            gauge(&mut to, "process_threads", "Threads", stat.threads)?;
            if let Some(boot) = boot_seconds() {
                let start = boot + stat.start_seconds_after_boot;
                gauge(&mut to, "process_start_time_seconds", "Start of the process, Unix time", start)?;
            }
        }
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            gauge(&mut to, "process_open_fds", "Open file descriptors", fds.count() as f64)?;
        }
        if let Some((allocated, resident)) = allocator() {
            gauge(&mut to, "metrolith_memory_allocated_bytes", "Bytes the program asked for and holds", allocated)?;
            gauge(&mut to, "metrolith_memory_resident_bytes", "Bytes the allocator holds of the system", resident)?;
        }
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        build.encode(to.encode_descriptor("metrolith_build", "The build", None, build.metric_type())?)
    }
}

fn gauge(to: &mut DescriptorEncoder, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(to.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(to: &mut DescriptorEncoder, name: &str, help: &str, value: &ConstCounter<f64>) -> fmt::Result {
    value.encode(to.encode_descriptor(name, help, None, value.metric_type())?)
}

/// What `/proc/self/stat` says.
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    start_seconds_after_boot: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        let stat = Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        // Pages of `stat` may be larger than 4 KiB; `status` has kilobytes.
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?;
        Some(Self { resident_bytes: kib.parse::<f64>().ok()? * 1024.0, ..stat })
    }

    /// Fields are counted from the last `)`: the name before it may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<f64> =
            text.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(f64::NAN)).collect();
        let field = |number: usize| fields.get(number - 3).copied().filter(|v| !v.is_nan());
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            start_seconds_after_boot: field(22)? / TICKS_PER_SECOND,
            virtual_bytes: field(23)?,
            resident_bytes: 0.0,
        })
    }
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

/// Allocated and resident bytes as jemalloc counts them; its statistics are cached until the epoch advances.
fn allocator() -> Option<(f64, f64)> {
    tikv_jemalloc_ctl::epoch::advance().ok()?;
    let allocated = tikv_jemalloc_ctl::stats::allocated::read().ok()?;
    let resident = tikv_jemalloc_ctl::stats::resident::read().ok()?;
    Some((allocated as f64, resident as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_of_a_process_with_a_strange_name() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 0 0 0 0 150 50 0 0 20 0 9 0 1200 4096000 25 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.cpu_seconds, stat.threads, stat.start_seconds_after_boot), (2.0, 9.0, 12.0));
        assert_eq!(stat.virtual_bytes, 4_096_000.0);
        assert!(Stat::parse("7 (a").is_none());
        assert!(Stat::parse("7 (a) S 1 2").is_none());
    }
}
