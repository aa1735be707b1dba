//! The manifests: selectors, ports, probes, and that the pods together are one cluster.

use std::collections::BTreeMap;

use metrolith::config::{ByteSize, Config};
use serde_json::{Value, json};

use super::*;

/// Longest that SIGTERM takes, seconds (docs/operations.md).
const STOP: u64 = 30;

/// Kinds that exist here, the API they belong to, and what each must have.
const KINDS: [(&str, &str, &[&str]); 4] = [
    ("Service", "v1", &["/spec/selector", "/spec/ports"]),
    (
        "StatefulSet",
        "apps/v1",
        &["/spec/serviceName", "/spec/selector/matchLabels", "/spec/template/metadata/labels", "/spec/template/spec"],
    ),
    ("PodDisruptionBudget", "policy/v1", &["/spec/selector/matchLabels"]),
    ("NetworkPolicy", "networking.k8s.io/v1", &["/spec/podSelector", "/spec/policyTypes"]),
];

/// All manifests by kind and name; each is checked for what its kind needs.
fn manifests() -> BTreeMap<(String, String), Value> {
    let kustomization = yaml("kubernetes/kustomization.yaml").remove(0);
    let mut found = BTreeMap::new();
    for file in strings(&kustomization, "/resources") {
        for manifest in yaml(&format!("kubernetes/{file}")) {
            let (kind, name) = (string(&manifest, "/kind").to_owned(), string(&manifest, "/metadata/name").to_owned());
            let known = KINDS.iter().find(|(known, ..)| *known == kind).unwrap_or_else(|| panic!("{file}: {kind}"));
            assert_eq!(string(&manifest, "/apiVersion"), known.1, "{file}");
            for needed in known.2 {
                at(&manifest, needed);
            }
            assert!(found.insert((kind, name), manifest).is_none(), "{file} repeats an object");
        }
    }
    found
}

fn get(kind: &str, name: &str) -> Value {
    manifests().remove(&(kind.to_owned(), name.to_owned())).unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn set() -> Value {
    get("StatefulSet", "metrolith")
}

fn container(set: &Value) -> &Value {
    let containers = list(set, "/spec/template/spec/containers");
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// What the pod of a number runs with, in a zone.
fn pod(set: &Value, number: u64, zone: &str) -> Config {
    let name = format!("{}-{number}", string(set, "/metadata/name"));
    let mut env = BTreeMap::new();
    for variable in list(container(set), "/env") {
        let value = match string(variable, "/valueFrom/fieldRef/fieldPath") {
            "metadata.name" => name.as_str(),
            "metadata.labels['topology.kubernetes.io/zone']" => zone,
            other => panic!("{other}"),
        };
        env.insert(string(variable, "/name").to_owned(), value);
    }
    let mut arguments = strings(container(set), "/args");
    for argument in &mut arguments {
        for (variable, value) in &env {
            *argument = argument.replace(&format!("$({variable})"), value);
        }
        assert!(!argument.contains("$("), "{argument}: no such variable");
    }
    configured(&arguments, Some("kubernetes/metrolith.yaml"))
}

#[test]
fn every_selector_selects_the_pods() {
    let labels = at(&set(), "/spec/template/metadata/labels").clone();
    for ((kind, name), manifest) in manifests() {
        let selector = match kind.as_str() {
            "Service" => "/spec/selector",
            "NetworkPolicy" => "/spec/podSelector/matchLabels",
            _ => "/spec/selector/matchLabels",
        };
        assert_eq!(at(&manifest, selector), &labels, "{kind} {name}");
    }
    let set = set();
    let spec = at(&set, "/spec/template/spec");
    let apart = "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0";
    assert_eq!(at(spec, &format!("{apart}/labelSelector/matchLabels")), &labels);
    assert_eq!(string(spec, &format!("{apart}/topologyKey")), "kubernetes.io/hostname");
    let spread = at(spec, "/topologySpreadConstraints/0");
    assert_eq!(at(spread, "/labelSelector/matchLabels"), &labels);
    assert_eq!((string(spread, "/topologyKey"), at(spread, "/maxSkew")), ("topology.kubernetes.io/zone", &json!(1)));
}

#[test]
fn the_pods_are_one_cluster_and_another_pod_joins_it() {
    let set = set();
    let replicas = at(&set, "/spec/replicas").as_u64().unwrap();
    let nodes: Vec<Config> = (0..replicas).map(|n| pod(&set, n, "a")).collect();
    assert_one_cluster(&nodes);
    let service = string(&set, "/spec/serviceName");
    for node in &nodes {
        let (host, port) = node.grpc_advertise.split_once(':').unwrap();
        assert_eq!((host, port), (format!("{}.{service}", node.node_name).as_str(), "9095"));
    }
    let added = pod(&set, replicas, "b");
    assert!(added.join == nodes[0].join && !added.join.contains(&added.grpc_advertise), "it makes none itself");
    assert_eq!((added.zone.as_str(), pod(&set, 0, "").zone.as_str()), ("b", ""), "a machine without a zone is one too");
}

#[test]
fn pods_find_each_other_before_they_are_ready_and_all_start_at_once() {
    let set = set();
    let peers = get("Service", string(&set, "/spec/serviceName"));
    assert_eq!(at(&peers, "/spec/clusterIP"), "None");
    assert_eq!(at(&peers, "/spec/publishNotReadyAddresses"), true);
    assert_eq!(at(&set, "/spec/podManagementPolicy"), "Parallel");
    let budget = get("PodDisruptionBudget", "metrolith");
    assert_eq!(at(&budget, "/spec/maxUnavailable"), 1);
}

#[test]
fn ports_have_the_same_names_everywhere() {
    let set = set();
    let ports: BTreeMap<String, u64> = list(container(&set), "/ports")
        .iter()
        .map(|port| (string(port, "/name").to_owned(), at(port, "/containerPort").as_u64().unwrap()))
        .collect();
    assert_eq!(ports, BTreeMap::from([("http".to_owned(), PORTS[0]), ("grpc".to_owned(), PORTS[1])]));
    for (service, name) in [("metrolith", "http"), ("metrolith-peers", "grpc")] {
        let service = get("Service", service);
        let port = &list(&service, "/spec/ports")[0];
        assert_eq!((string(port, "/targetPort"), at(port, "/port").as_u64()), (name, Some(ports[name])));
    }
    let policy = get("NetworkPolicy", "metrolith");
    let mut open = BTreeMap::new();
    for rule in list(&policy, "/spec/ingress") {
        open.insert(string(rule, "/ports/0/port").to_owned(), rule.get("from").is_some());
    }
    assert_eq!(open, BTreeMap::from([("http".to_owned(), false), ("grpc".to_owned(), true)]), "port, whether guarded");
    assert_eq!(string(&set, "/spec/template/metadata/annotations/prometheus.io~1port"), PORTS[0].to_string());
}

#[test]
fn probes_ask_for_pages_of_the_server_and_a_stop_has_its_time() {
    let set = set();
    let container = container(&set);
    let expected = [("startupProbe", "/-/healthy"), ("livenessProbe", "/-/healthy"), ("readinessProbe", "/-/ready")];
    for (probe, page) in expected {
        let get = at(container, &format!("/{probe}/httpGet"));
        assert_eq!((string(get, "/path"), string(get, "/port")), (page, "http"), "{probe}");
        assert_is_route(page);
    }
    let number = |pointer: &str| at(container, pointer).as_u64().unwrap();
    let patience = number("/startupProbe/periodSeconds") * number("/startupProbe/failureThreshold");
    assert!(patience >= 600, "a node that waits for its cluster is not ill: {patience} s");
    let grace = at(&set, "/spec/template/spec/terminationGracePeriodSeconds").as_u64().unwrap();
    assert!(grace >= number("/lifecycle/preStop/sleep/seconds") + STOP + 10, "{grace} s");
}

#[test]
fn a_pod_may_do_little_and_its_data_is_on_its_volume() {
    let set = set();
    let (spec, container) = (at(&set, "/spec/template/spec"), container(&set));
    let pod = at(spec, "/securityContext");
    assert_eq!(at(pod, "/runAsNonRoot"), true);
    for id in ["/runAsUser", "/runAsGroup", "/fsGroup"] {
        assert_eq!(at(pod, id).as_u64(), Some(USER), "{id} is the user of the image");
    }
    assert_eq!(at(pod, "/seccompProfile/type"), "RuntimeDefault");
    assert_eq!(at(spec, "/automountServiceAccountToken"), false);
    let security = at(container, "/securityContext");
    assert_eq!(
        (at(security, "/allowPrivilegeEscalation"), at(security, "/readOnlyRootFilesystem")),
        (&json!(false), &json!(true))
    );
    assert_eq!(at(security, "/capabilities/drop"), &json!(["ALL"]));

    let mounts: BTreeMap<&str, &str> =
        list(container, "/volumeMounts").iter().map(|m| (string(m, "/name"), string(m, "/mountPath"))).collect();
    let claim = &list(&set, "/spec/volumeClaimTemplates")[0];
    assert_eq!(mounts[string(claim, "/metadata/name")], DATA);
    let volume = at(spec, "/volumes/0");
    let file = strings(container, "/args").iter().find_map(|a| a.strip_prefix("--config=").map(str::to_owned)).unwrap();
    let kustomization = yaml("kubernetes/kustomization.yaml").remove(0);
    let generated = at(&kustomization, "/configMapGenerator/0");
    assert_eq!(string(volume, "/configMap/name"), string(generated, "/name"));
    assert_eq!(file, format!("{}/{}", mounts[string(volume, "/name")], string(generated, "/files/0")));
    let image = at(&kustomization, "/images/0");
    let (name, tag) = string(container, "/image").split_once(':').unwrap();
    assert_eq!((string(image, "/name"), string(image, "/newTag"), tag), (name, tag, env!("CARGO_PKG_VERSION")));
}

#[test]
fn memory_and_disk_suffice_for_what_the_settings_allow() {
    let set = set();
    let size = |pointer: &str, of: &Value| string(of, pointer).parse::<Quantity>().unwrap().0;
    let node = pod(&set, 0, "a");
    let memory = size("/resources/limits/memory", container(&set));
    assert!(memory >= bounded_memory(&node) + ByteSize::mib(512).0, "{memory} bytes of memory");
    let disk = size("/spec/resources/requests/storage", &list(&set, "/spec/volumeClaimTemplates")[0]);
    assert!(disk >= 2 * bounded_disk(&node), "{disk} bytes of disk");
}

/// A size as Kubernetes writes it, bytes.
struct Quantity(u64);

impl std::str::FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("Gi").ok_or_else(|| format!("{text} is not in Gi"))?;
        number.parse::<u64>().map(|gib| Self(gib << 30)).map_err(|e| e.to_string())
    }
}
