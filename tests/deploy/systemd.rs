//! The units: flags of their environment files, and what systemd itself says of them.

use std::process::Command;

use super::*;

/// Values of a key of the unit's section `[Service]`.
fn service(key: &str) -> Vec<String> {
    let text = text("systemd/metrolith.service");
    let section = text.split("[Service]\n").nth(1).unwrap().split("\n[").next().unwrap().to_owned();
    section.lines().filter_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned())).collect()
}

/// The arguments with which the unit starts the program when it reads this environment file.
fn arguments(env: &str) -> Vec<String> {
    let env = text(env);
    let mut flags = env.lines().filter_map(|line| line.strip_prefix("METROLITH_FLAGS=\"")?.strip_suffix('"'));
    let flags = flags.next().unwrap();
    let start = service("ExecStart").remove(0).replace("$METROLITH_FLAGS", flags);
    let mut words = start.split(' ').map(str::to_owned);
    assert_eq!(words.next().as_deref(), Some("/usr/local/bin/metrolith"));
    words.collect()
}

#[test]
fn one_node_and_the_nodes_of_a_cluster_start_with_flags_that_exist() {
    let alone = configured(&arguments("systemd/one-node.env"), None);
    assert!(alone.join.is_empty() && alone.http.ip().is_unspecified());
    assert_eq!((alone.data_dir.to_str(), alone.bucket), (Some(DATA), format!("file://{DATA}/bucket")));

    let first = configured(&arguments("systemd/cluster.env"), None);
    let nodes: Vec<Config> = first
        .join
        .split(',')
        .map(|at| Config { grpc_advertise: at.to_owned(), node_name: at.to_owned(), ..first.clone() })
        .collect();
    assert_eq!(first.grpc_advertise, nodes[0].grpc_advertise, "the file is that of the first node");
    assert_one_cluster(&nodes);
}

#[test]
fn a_node_that_fails_is_started_again_and_one_that_stops_has_its_time() {
    assert_eq!(service("Restart"), ["on-failure"]);
    assert!(service("TimeoutStopSec")[0].parse::<u32>().unwrap() >= 40);
    assert!(service("LimitNOFILE")[0].parse::<u32>().unwrap() >= 65536);
    assert_eq!(service("StateDirectory"), [DATA.strip_prefix("/var/lib/").unwrap()]);
    let users = text("systemd/metrolith.sysusers.conf");
    assert_eq!(users.split(' ').nth(1), Some(service("User")[0].as_str()));
    assert!(service("ProcSubset").is_empty(), "the name of the machine is read from /proc/sys");
}

#[test]
fn systemd_understands_the_unit_and_finds_little_exposed() {
    let Some(analyze) = systemd_analyze() else { return };
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("metrolith.service");
    // It wants to see the program.
    let text = text("systemd/metrolith.service").replace("/usr/local/bin/metrolith", env!("CARGO_BIN_EXE_metrolith"));
    std::fs::write(&unit, text).unwrap();
    let unit = unit.to_str().unwrap();
    for arguments in
        [&["verify", "--man=no", unit][..], &["security", "--offline=true", "--threshold=20", "--no-pager", unit]]
    {
        let out = Command::new(&analyze).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.success(), "{arguments:?}: {said}");
        assert!(arguments[0] != "verify" || said.is_empty(), "{said}");
    }
}

/// Only machines that run systemd have it, and nothing fetches it.
fn systemd_analyze() -> Option<std::path::PathBuf> {
    let found =
        std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("systemd-analyze")).find(|f| f.is_file());
    if found.is_none() {
        println!("skipped, systemd-analyze is not installed");
    }
    found
}
