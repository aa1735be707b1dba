//! Every setting of Metrolith, with its default and bound.
//!
//! *Invariants:* units are part of the name or of the written value; a default lies inside its bound (tested).
//!
//! *Not here:* reading them from files and flags (`config`, `config::yaml`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::features::Features;
use super::section::section;
use super::value::{ByteSize, LogFormat, Roles};
use crate::model::TenantId;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

section! {
    /// Everything that can be set.
    pub struct Config {
        /// Directory of everything this node keeps on its own disk: the Raft log, snapshots, cached pieces of blocks.
        /// An empty one bootstraps a one-node cluster, any other resumes.
        data_dir: PathBuf = PathBuf::from("./data");
        /// Address of the HTTP server: writes, queries, metrics.
        http: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 9009));
        /// Address of the gRPC server, where the other nodes of the cluster reach this one.
        grpc: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 9095));
        /// What the other nodes are told to reach this one at, `host:port`. Empty means the address of `grpc`.
        grpc_advertise: String = String::new();
        /// Nodes of a running cluster, `host:port` of their gRPC servers with commas between them. A node with an empty
        /// data directory joins that cluster; one that has joined resumes.
        join: String = String::new();
        /// Replicas of every shard. Only read when a cluster is bootstrapped; fewer nodes hold fewer.
        replication: u32 = 3, within 1, 7;
        /// How long a node is silent before its replicas are given to other nodes.
        replace_after: Duration = secs(600), within secs(5), hours(240);
        /// Where history goes: `file:///path`, `s3://bucket/prefix`, `gs://…` or `az://…`, credentials from the usual
        /// environment variables. Empty means `file://<data_dir>/bucket`, or with `join` the bucket of that cluster.
        bucket: String = String::new();
        /// Name of this node in logs and in the cluster's list. Empty means the host's name.
        node_name: String = String::new();
        /// Failure zone this node stands in.
        zone: String = "default".to_owned();
        /// Number of shards, each its own Raft group. Only read when a cluster is bootstrapped.
        shards: u32 = 12, within 1, 4096;
        /// Roles this process plays.
        roles: Roles = Roles::All;
        /// Whether paths for operators are served (`/api/v1/admin/…`): flushes, and the queries of all tenants.
        enable_admin_api: bool = false;
    }
    sections {
        /// Log lines, on standard error.
        log: Log;
        /// The write path in front of the shards.
        write: Write;
        /// Consensus and its write-ahead log.
        raft: Raft;
        /// Recent samples in memory.
        head: Head;
        /// The way from memory to the bucket.
        flush: Flush;
        /// From many small blocks to few large ones.
        compaction: Compaction;
        /// The bucket and what is cached of it.
        store: Store;
        /// PromQL.
        query: Query;
        /// What a tenant may do when `overrides` says nothing else. Names are Mimir's.
        limits: Limits;
        /// The node's own metrics, ingested like anyone's.
        self_monitoring: SelfMonitoring;
    }
    besides {
        /// Limits of single tenants, where they differ from `limits`.
        overrides: BTreeMap<TenantId, Limits>;
    }
}

section! {
    /// Log lines.
    pub struct Log {
        /// Least severe level written (`error`, `warn`, `info`, `debug`, `trace`), or directives such as
        /// `info,metrolith::raft=debug`. Libraries speak at `warn` unless named.
        level: String = "info".to_owned();
        /// Form of a log line.
        format: LogFormat = LogFormat::Logfmt;
    }
}

section! {
    /// The write path in front of the shards.
    pub struct Write {
        /// Largest request body, and largest body after decompression; checked before anything is allocated.
        max_body_bytes: ByteSize = ByteSize::mib(32), within ByteSize::kib(64), ByteSize::gib(1);
        /// Decompressed bytes of all requests in work at the same time; over it, requests are answered 503.
        max_inflight_bytes: ByteSize = ByteSize::mib(256), within ByteSize::mib(1), ByteSize::gib(64);
        /// How long a request's samples may look for the leaders of their shards before it is answered 503.
        timeout: Duration = secs(10), within Duration::from_millis(100), hours(1);
    }
}

section! {
    /// Consensus and its write-ahead log.
    pub struct Raft {
        /// Size of one segment file of the log.
        segment_bytes: ByteSize = ByteSize::mib(64), within ByteSize::kib(64), ByteSize::gib(1);
        /// Log bytes after which snapshots are taken, so that a restart replays no more than about this much.
        snapshot_log_bytes: ByteSize = ByteSize::mib(256), within ByteSize::mib(1), ByteSize::gib(64);
        /// How long nothing happens in a group before its replicas fall silent: no heartbeats until something does. 0s is
        /// never.
        quiesce_after: Duration = secs(30), within Duration::ZERO, hours(1);
    }
}

section! {
    /// Recent samples in memory.
    pub struct Head {
        /// Memory all heads of the node may take; at three quarters windows are closed early, at the bound writes are
        /// answered 503.
        max_memory_bytes: ByteSize = ByteSize::gib(2), within ByteSize::mib(64), ByteSize::gib(4096);
    }
}

section! {
    /// The way from memory to the bucket.
    pub struct Flush {
        /// How often windows are checked for being due.
        check_interval: Duration = secs(15), within Duration::from_millis(100), hours(1);
        /// Bytes of closed windows that may wait for a bucket that is away; over it, writes are answered 503.
        max_backlog_bytes: ByteSize = ByteSize::gib(8), within ByteSize::mib(1), ByteSize::gib(65536);
    }
}

section! {
    /// From many small blocks to few large ones: the blocks of a third of a UTC day are merged once it is over, then those
    /// of the day.
    pub struct Compaction {
        /// Whether this node compacts.
        enabled: bool = true;
        /// How often tables are looked at.
        check_interval: Duration = secs(300), within secs(1), hours(24);
        /// How long no block of a period must have been written before it is merged: history that is being loaded is left
        /// alone until it is there.
        quiet_period: Duration = secs(1800), within secs(0), hours(24 * 7);
    }
}

section! {
    /// The bucket and what is cached of it.
    pub struct Store {
        /// Memory for pieces of blocks.
        cache_memory_bytes: ByteSize = ByteSize::mib(256), within ByteSize::mib(1), ByteSize::gib(1024);
        /// Disk for pieces of blocks, under `data_dir`; 0 keeps none.
        cache_disk_bytes: ByteSize = ByteSize::gib(4), within ByteSize(0), ByteSize::gib(65536);
        /// Age from which a file without a catalog entry counts as left behind and is removed.
        gc_age: Duration = hours(24), within hours(1), hours(24 * 365);
    }
}

section! {
    /// PromQL.
    pub struct Query {
        /// Longest a query may run; a request may ask for less.
        timeout: Duration = secs(120), within Duration::from_millis(1), hours(24);
        /// Most samples one query may hold in memory.
        max_samples: u64 = 50_000_000, within 1, u64::MAX;
        /// Queries running at the same time; more wait, within their timeout.
        max_concurrency: usize = 20, within 1, 10_000;
        /// Threads that compute for queries: each query has one of its own, and those beyond the first help whichever
        /// queries read many series. 1 leaves each query alone; 0 is one for each core.
        threads: usize = 0, within 0, 1024;
        /// From how long on a query is written to the log, with what it cost; 0 logs none.
        slow_log_threshold: Duration = secs(10), within secs(0), hours(24);
        /// How far back an instant selector looks for a sample.
        lookback_delta: Duration = secs(300), within Duration::from_millis(1), hours(24);
        /// Parts of PromQL to switch on, by the names Prometheus' `--enable-feature` gives them, with commas between them:
        /// `promql-experimental-functions`, `promql-extended-range-selectors`, `promql-binop-fill-modifiers`,
        /// `promql-delayed-name-removal`, `promql-per-step-stats`, `use-start-timestamps`, `type-and-unit-labels`;
        /// `promql-duration-expr` is always on. The flag is also called `--enable-feature`.
        features: Features = Features::default();
        /// Memory for finished steps of range queries, which later ones then need not compute again; 0 keeps none.
        results_cache_bytes: ByteSize = ByteSize::mib(64), within ByteSize(0), ByteSize::gib(1024);
        /// Memory one query may take.
        max_bytes: ByteSize = ByteSize::gib(1), within ByteSize::mib(1), ByteSize::gib(1024);
        /// Memory all queries of the node may take together.
        max_total_bytes: ByteSize = ByteSize::gib(2), within ByteSize::mib(1), ByteSize::gib(4096);
    }
}

section! {
    /// What a tenant may do.
    pub struct Limits {
        /// How late a sample may be, measured from the newest sample of its shard.
        out_of_order_time_window: Duration = hours(1), within secs(0), hours(24 * 365);
        /// How far in the future a sample may lie.
        creation_grace_period: Duration = secs(600), within secs(0), hours(24 * 365);
        /// Most labels a series may have, the metric's name included.
        max_label_names_per_series: usize = 64, within 1, 1024;
        /// Longest label name, bytes.
        max_label_name_length: usize = 1024, within 1, 65_536;
        /// Longest label value, bytes.
        max_label_value_length: usize = 2048, within 1, 65_536;
        /// Most series a tenant may have in memory, over all shards; 0 is no limit.
        max_global_series_per_user: u64 = 2_000_000;
    }
}

section! {
    /// The node's own metrics.
    pub struct SelfMonitoring {
        /// Whether the node ingests its own metrics, as tenant `anonymous`.
        enabled: bool = true;
        /// How often.
        interval: Duration = secs(15), within secs(1), hours(1);
    }
}
