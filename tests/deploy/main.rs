//! What `deploy/` holds is what the program understands: flags, ports, paths, users and metrics are those of the code.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod compose;
mod founding;
mod image;
mod kubernetes;
mod monitoring;
#[path = "../support/mod.rs"]
mod support;
mod systemd;

use std::path::PathBuf;

use metrolith::config::{Config, docs};
use serde_json::Value;

/// Where HTTP is served, and gRPC.
const PORTS: [u64; 2] = [9009, 9095];
/// Owner of the data in a container.
const USER: u64 = 65532;
const DATA: &str = "/var/lib/metrolith";

/// A path below `deploy/`.
fn path(name: &str) -> PathBuf {
    support::root().join("deploy").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("deploy/{name}: {e}"))
}

/// All documents of a YAML file.
fn yaml(name: &str) -> Vec<Value> {
    let text = text(name);
    let documents = text.split("\n---\n");
    documents.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("deploy/{name}: {e}"))).collect()
}

/// A value of a document by its JSON pointer; says what is missing.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing in {value:#}"))
}

fn string<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_else(|| panic!("{pointer} is no text in {value:#}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).as_array().unwrap_or_else(|| panic!("{pointer} is no list in {value:#}"))
}

fn strings(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).iter().map(|v| v.as_str().unwrap_or_else(|| panic!("{v} is no text")).to_owned()).collect()
}

/// What a node makes of `serve` and these arguments; a flag nobody knows, or a value out of its bound, fails.
fn configured(arguments: &[String], file: Option<&str>) -> Config {
    let (command, arguments) = arguments.split_first().unwrap();
    assert_eq!(command, "serve");
    let known = docs::flags();
    let (mut flags, mut named) = (Vec::new(), false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let flag = argument.strip_prefix("--").unwrap_or_else(|| panic!("{argument:?} is no flag"));
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag, value),
            None => (flag, rest.next().unwrap_or_else(|| panic!("--{flag} has no value")).as_str()),
        };
        if flag == "config" {
            named = true;
            continue;
        }
        let key = known.iter().find(|(_, name, _)| name == flag).unwrap_or_else(|| panic!("serve has no --{flag}"));
        flags.push((key.0.clone(), value.to_owned()));
    }
    assert_eq!(named, file.is_some(), "a file is mounted exactly if it is read: {arguments:?}");
    let loaded = Config::load(file.map(path).as_deref(), &flags).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    loaded.config
}

/// What nodes that make a cluster together must agree in, and what each says of itself.
fn assert_one_cluster(nodes: &[Config]) {
    let join: Vec<&str> = nodes[0].join.split(',').collect();
    for (node, listed) in nodes.iter().zip(&join) {
        assert_eq!(node.join, nodes[0].join, "only nodes with the same list make a cluster");
        assert_eq!(node.grpc_advertise, *listed, "a node finds itself in the list by its advertised address");
        assert_eq!((&node.bucket, node.data_dir.to_str()), (&nodes[0].bucket, Some(DATA)));
        assert!(node.bucket.starts_with("s3://"), "{}", node.bucket);
        assert_eq!(
            [node.http, node.grpc].map(|a| (a.ip().is_unspecified(), u64::from(a.port()))),
            PORTS.map(|p| (true, p))
        );
    }
    assert_eq!(join.len(), nodes.len());
    let names: std::collections::BTreeSet<&String> = nodes.iter().map(|node| &node.node_name).collect();
    assert_eq!(names.len(), nodes.len(), "a cluster refuses a second node of the same name");
}

/// An image is of one version for ever.
fn assert_pinned(image: &str) {
    let (name, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
    assert!(!name.is_empty() && !tag.contains('/') && tag != "latest", "{image}");
    // Distroless has no tags of versions: that of the user says at least which variant.
    assert!(tag.starts_with(|c: char| c.is_ascii_digit()) || tag.len() > 4, "{image}");
    assert!(name.ends_with("/cc-debian12") || tag.contains(|c: char| c.is_ascii_digit()), "{image}");
}

/// The server has this path.
fn assert_is_route(path: &str) {
    let routes = include_str!("../../src/api/http/mod.rs");
    assert!(routes.contains(&format!(".route({path:?}, ")), "the server has no {path}");
}

/// Memory a node may come to take, bytes: its bounded parts.
fn bounded_memory(config: &Config) -> u64 {
    let Config { head, query, store, write, .. } = config;
    let caches = store.cache_memory_bytes.0 + query.results_cache_bytes.0;
    head.max_memory_bytes.0 + query.max_total_bytes.0 + caches + write.max_inflight_bytes.0
}

/// Disk a node may come to take, bytes: cached blocks, history that waits, the log before and while it is cut.
fn bounded_disk(config: &Config) -> u64 {
    config.store.cache_disk_bytes.0 + config.flush.max_backlog_bytes.0 + 4 * config.raft.snapshot_log_bytes.0
}
