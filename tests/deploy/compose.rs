//! The compose file: three nodes that are one cluster, and what surrounds them.

use serde_json::{Map, Value};

use super::*;

/// Keys of a service, of which a misspelt one would be refused by compose.
const KEYS: [&str; 18] = [
    "image",
    "build",
    "command",
    "entrypoint",
    "environment",
    "depends_on",
    "restart",
    "stop_grace_period",
    "read_only",
    "cap_drop",
    "security_opt",
    "ulimits",
    "networks",
    "hostname",
    "volumes",
    "ports",
    "healthcheck",
    "<<",
];

fn file() -> Value {
    yaml("compose/compose.yaml").remove(0)
}

/// The services, with what they take over from others.
fn services() -> Map<String, Value> {
    let mut services = at(&file(), "/services").as_object().unwrap().clone();
    for service in services.values_mut() {
        let service = service.as_object_mut().unwrap();
        if let Some(Value::Object(base)) = service.remove("<<") {
            for (key, value) in base {
                service.entry(key).or_insert(value);
            }
        }
    }
    services
}

fn nodes() -> Vec<(String, Value)> {
    services().into_iter().filter(|(name, _)| name.starts_with("metrolith-")).collect()
}

/// `source:target[:options]` of a service's mounts.
fn mounts(service: &Value) -> Vec<(String, String)> {
    let volumes = strings(service, "/volumes");
    let halves = volumes.iter().map(|v| v.split(':').collect::<Vec<_>>());
    halves.map(|parts| (parts[0].to_owned(), parts[1].to_owned())).collect()
}

#[test]
fn services_name_only_what_exists() {
    let (file, services) = (file(), services());
    for (name, service) in &services {
        assert_pinned(string(service, "/image"));
        for key in service.as_object().unwrap().keys() {
            assert!(KEYS.contains(&key.as_str()), "{name}: {key}");
        }
        for needed in service.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
            let (other, condition) = (&services[needed.0], string(needed.1, "/condition"));
            match condition {
                "service_healthy" => {
                    assert!(other.get("healthcheck").is_some(), "{name} waits for {} for ever", needed.0)
                }
                "service_completed_successfully" => assert!(other.get("restart").is_none(), "{} never ends", needed.0),
                other => panic!("{other}"),
            }
        }
        let mounted = service.get("volumes").map(|_| mounts(service)).unwrap_or_default();
        for (source, _) in &mounted {
            match source.strip_prefix("./") {
                Some(local) => assert!(path("compose").join(local).exists(), "{name}: {source}"),
                None => assert!(at(&file, "/volumes").get(source).is_some(), "{name}: volume {source}"),
            }
        }
        for port in service.get("ports").map(|_| strings(service, "/ports")).unwrap_or_default() {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to others, nothing here asks who they are");
        }
        for argument in service.get("command").map(|_| strings(service, "/command")).unwrap_or_default() {
            if let Some((_, file)) = argument.split_once("config.file=") {
                assert!(mounted.iter().any(|(_, target)| target == file), "{name}: {file}");
            }
        }
    }
}

#[test]
fn three_nodes_are_one_cluster_each_with_its_own_volume() {
    let nodes = nodes();
    assert_eq!(nodes.len(), 3);
    let configs: Vec<Config> =
        nodes.iter().map(|(_, node)| configured(&strings(node, "/command"), Some("compose/metrolith.yaml"))).collect();
    assert_one_cluster(&configs);
    let mut volumes = std::collections::BTreeSet::new();
    for ((name, node), config) in nodes.iter().zip(&configs) {
        assert_eq!((name.as_str(), string(node, "/hostname")), (config.node_name.as_str(), config.node_name.as_str()));
        assert!(config.grpc_advertise.starts_with(&format!("{name}:")), "others find it by the service's name");
        let arguments = strings(node, "/command");
        let file = &arguments[arguments.iter().position(|a| a == "--config").unwrap() + 1];
        assert!(mounts(node).contains(&("./metrolith.yaml".to_owned(), file.clone())));
        let data = mounts(node).into_iter().find(|(_, target)| target == DATA).unwrap().0;
        assert!(volumes.insert(data), "{name} shares its volume");
        assert_eq!(string(node, "/image"), concat!("metrolith:", env!("CARGO_PKG_VERSION")));
        let (dir, dockerfile) = (string(node, "/build/context"), string(node, "/build/dockerfile"));
        assert!(path("compose").join(dir).join(dockerfile).exists());
        assert_eq!(at(node, "/networks/default/aliases/0"), "metrolith");
    }
}

#[test]
fn the_nodes_know_the_s3_server_and_its_bucket() {
    let services = services();
    let s3 = at(&services["s3"], "/environment");
    for (name, node) in nodes() {
        let env = at(&node, "/environment");
        assert_eq!(string(env, "/AWS_ENDPOINT_URL"), "http://s3:9000", "{name}");
        assert_eq!(string(env, "/AWS_ALLOW_HTTP"), "true");
        assert_eq!(at(env, "/AWS_ACCESS_KEY_ID"), at(s3, "/MINIO_ROOT_USER"));
        assert_eq!(at(env, "/AWS_SECRET_ACCESS_KEY"), at(s3, "/MINIO_ROOT_PASSWORD"));
    }
    let make = &services["make-bucket"];
    let (user, password) = (string(s3, "/MINIO_ROOT_USER"), string(s3, "/MINIO_ROOT_PASSWORD"));
    assert_eq!(string(make, "/environment/MC_HOST_s3"), format!("http://{user}:{password}@s3:9000"));
    let bucket = configured(&strings(&nodes()[0].1, "/command"), Some("compose/metrolith.yaml")).bucket;
    let made = strings(make, "/entrypoint").pop().unwrap();
    assert!(bucket.starts_with(&format!("{}/", made.replace("s3/", "s3://"))), "{bucket} is not in {made}");
}
