//! What a scrape target exposes: metrics as node_exporter and an HTTP service in Kubernetes have them.
//!
//! *Invariants:* labels of a [`Slot`] are sorted by name and distinct; the list is the same in every run.
//!
//! *Not here:* values (`workload`), the wire (`encode`).

use crate::model::METRIC_NAME;

/// A label value that depends on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Cluster,
    Instance,
    Namespace,
    Node,
    Pod,
    Region,
    Service,
}

/// Number of [`Field`]s.
pub(super) const FIELDS: usize = 7;

/// Where a label's value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Text {
    Fixed(String),
    Of(Field),
}

/// How the values of a series move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Events counted, at most this many per second.
    Count(f64),
    /// Seconds counted, two decimals, at most this many per second.
    Seconds(f64),
    /// Bytes in pages around this many.
    Bytes(f64),
    /// A ratio or a load with three decimals, up to this much.
    Level(f64),
    /// Always this.
    Constant(f64),
    /// Observations at or below the bound that this share of them fulfils, at most this many per second.
    Bucket { rate: f64, share: f64 },
    /// Sum of observations of this mean, at most this many per second.
    Sum { rate: f64, mean: f64 },
}

/// One series of a target.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) labels: Vec<(&'static str, Text)>,
    pub(super) shape: Shape,
    /// Series of one histogram share it, so that buckets, sum and count belong together.
    pub(super) group: u32,
    /// Number of the declared type in remote write.
    pub(super) kind: i32,
}

const COUNTER: i32 = 1;
const GAUGE: i32 = 2;
const HISTOGRAM: i32 = 3;

const APP: &[(&str, Field)] = &[
    ("cluster", Field::Cluster),
    ("container", Field::Service),
    ("instance", Field::Instance),
    ("job", Field::Service),
    ("namespace", Field::Namespace),
    ("node", Field::Node),
    ("pod", Field::Pod),
];
const MACHINE: &[(&str, Field)] =
    &[("cluster", Field::Cluster), ("instance", Field::Instance), ("node", Field::Node), ("region", Field::Region)];

struct List {
    target: &'static [(&'static str, Field)],
    slots: Vec<Slot>,
    group: u32,
}

impl List {
    fn add(&mut self, kind: i32, metric: &str, own: &[(&'static str, &str)], shape: Shape) {
        let fixed = |(name, value): &(&'static str, &str)| (*name, Text::Fixed((*value).to_owned()));
        let mut labels: Vec<_> = own.iter().map(fixed).collect();
        labels.extend(self.target.iter().map(|(name, field)| (*name, Text::Of(*field))));
        labels.push((METRIC_NAME, Text::Fixed(metric.to_owned())));
        labels.sort_unstable_by_key(|(name, _)| *name);
        self.slots.push(Slot { labels, shape, group: self.group, kind });
    }

    /// A metric of its own, not part of a histogram.
    fn single(&mut self, kind: i32, metric: &str, own: &[(&'static str, &str)], shape: Shape) {
        self.group += 1;
        self.add(kind, metric, own, shape);
    }

    fn histogram(&mut self, metric: &str, own: &[(&'static str, &str)], rate: f64, mean: f64) {
        self.group += 1;
        for le in ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"] {
            // Exponentially distributed observations; `+Inf` parses as infinity, whose share is one.
            let bound: f64 = le.parse().unwrap_or(f64::INFINITY);
            let mut labels = own.to_vec();
            labels.push(("le", le));
            let share = 1.0 - (-bound / mean).exp();
            self.add(HISTOGRAM, &format!("{metric}_bucket"), &labels, Shape::Bucket { rate, share });
        }
        self.add(HISTOGRAM, &format!("{metric}_count"), own, Shape::Bucket { rate, share: 1.0 });
        self.add(HISTOGRAM, &format!("{metric}_sum"), own, Shape::Sum { rate, mean });
    }
}

/// The series of a machine.
pub(super) fn machine() -> Vec<Slot> {
    let mut list = List { target: MACHINE, slots: Vec::new(), group: 0 };
    let job = ("job", "node-exporter");
    for cpu in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        for (mode, rate) in [
            ("idle", 1.0),
            ("iowait", 0.05),
            ("irq", 0.0),
            ("nice", 0.0),
            ("softirq", 0.02),
            ("steal", 0.0),
            ("system", 0.2),
            ("user", 0.6),
        ] {
            list.single(COUNTER, "node_cpu_seconds_total", &[("cpu", cpu), job, ("mode", mode)], Shape::Seconds(rate));
        }
    }
    for name in ["MemAvailable", "MemFree", "Cached", "Buffers", "Active", "Inactive", "Slab", "Dirty", "Mapped"] {
        list.single(GAUGE, &format!("node_memory_{name}_bytes"), &[job], Shape::Bytes(4e9));
    }
    list.single(GAUGE, "node_memory_MemTotal_bytes", &[job], Shape::Constant(33_554_432_000.0));
    for (mount, device) in
        [("/", "/dev/nvme0n1p1"), ("/var/lib/containerd", "/dev/nvme1n1"), ("/boot/efi", "/dev/nvme0n1p15")]
    {
        let own = [("device", device), ("fstype", "ext4"), job, ("mountpoint", mount)];
        list.single(GAUGE, "node_filesystem_avail_bytes", &own, Shape::Bytes(8e10));
        list.single(GAUGE, "node_filesystem_size_bytes", &own, Shape::Constant(107_361_579_008.0));
        list.single(GAUGE, "node_filesystem_files_free", &own, Shape::Bytes(6e9));
    }
    for device in ["eth0", "lo", "cni0", "veth1a2b3c"] {
        for direction in ["receive", "transmit"] {
            let of = |what: &str| format!("node_network_{direction}_{what}_total");
            let own = [("device", device), job];
            list.single(COUNTER, &of("bytes"), &own, Shape::Count(200_000.0));
            list.single(COUNTER, &of("packets"), &own, Shape::Count(900.0));
            list.single(COUNTER, &of("errs"), &own, Shape::Count(0.0));
            list.single(COUNTER, &of("drop"), &own, Shape::Count(0.0));
        }
    }
    for (name, level) in [("node_load1", 6.0), ("node_load5", 5.0), ("node_load15", 4.0)] {
        list.single(GAUGE, name, &[job], Shape::Level(level));
    }
    list.single(GAUGE, "up", &[job], Shape::Constant(1.0));
    list.slots
}

/// The series of one pod of an HTTP service.
pub(super) fn service() -> Vec<Slot> {
    let mut list = List { target: APP, slots: Vec::new(), group: 0 };
    for handler in ["/api/v1/orders", "/api/v1/orders/{id}", "/api/v1/users/{id}", "/healthz"] {
        for method in ["GET", "POST"] {
            list.histogram("http_request_duration_seconds", &[("handler", handler), ("method", method)], 40.0, 0.08);
            for (code, rate) in [("200", 40.0), ("404", 0.5), ("500", 0.0)] {
                let own = [("code", code), ("handler", handler), ("method", method)];
                list.single(COUNTER, "http_requests_total", &own, Shape::Count(rate));
            }
        }
    }
    list.single(COUNTER, "process_cpu_seconds_total", &[], Shape::Seconds(0.8));
    list.single(GAUGE, "process_resident_memory_bytes", &[], Shape::Bytes(3e8));
    list.single(GAUGE, "process_open_fds", &[], Shape::Bytes(300_000.0));
    list.single(GAUGE, "process_start_time_seconds", &[], Shape::Constant(1_758_000_000.42));
    list.single(GAUGE, "go_goroutines", &[], Shape::Bytes(900_000.0));
    for (quantile, level) in [("0", 0.0001), ("0.25", 0.001), ("0.5", 0.002), ("0.75", 0.005), ("1", 0.05)] {
        list.single(GAUGE, "go_gc_duration_seconds", &[("quantile", quantile)], Shape::Level(level));
    }
    for (resource, unit, value) in [("cpu", "core", 0.5), ("memory", "byte", 536_870_912.0)] {
        let own = [("resource", resource), ("unit", unit)];
        list.single(GAUGE, "kube_pod_container_resource_limits", &own, Shape::Constant(value));
    }
    list.single(GAUGE, "up", &[], Shape::Constant(1.0));
    list.slots
}
