//! Prometheus, Alertmanager and Grafana: files that their own programs accept, and metrics that nodes have.

use std::collections::BTreeSet;
use std::process::Command;

use metrolith::promql;
use serde_json::Value;

use super::*;

/// Metrics of the other programs, and of scraping.
const OTHERS: [&str; 1] = ["up"];
/// Ends of names that a histogram or a counter is asked by.
const PARTS: [&str; 3] = ["_bucket", "_count", "_sum"];

fn dashboard() -> Value {
    serde_json::from_str(&text("compose/grafana/provisioning/dashboards/metrolith.json")).unwrap()
}

/// Every expression that an alert or a panel asks.
fn expressions() -> Vec<String> {
    let alerts = yaml("compose/alerts.yml").remove(0);
    let rules = list(&alerts, "/groups").iter().flat_map(|group| list(group, "/rules"));
    let mut found: Vec<String> = rules.map(|rule| string(rule, "/expr").to_owned()).collect();
    for panel in list(&dashboard(), "/panels") {
        let targets = list(panel, "/targets").iter();
        // Grafana writes a duration there.
        found.extend(targets.map(|target| string(target, "/expr").replace("$__rate_interval", "1m")));
    }
    found
}

/// Names of the metrics an expression selects.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let ast = promql::parse(expression, promql::ParseOptions::default());
    ast.unwrap_or_else(|e| panic!("{expression}: {e}"));
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let words = expression
        .split(|c| !word(c))
        .filter(|w| w.starts_with("metrolith_") || w.starts_with("process_") || *w == "up");
    words.map(str::to_owned).collect()
}

/// Whether a page of metrics has a family of this name.
fn has(page: &str, name: &str) -> bool {
    let family = PARTS.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    [family, name].iter().any(|n| page.contains(&format!("# TYPE {n} ")))
}

/// Fails for alerts and panels over metrics that a node does not have.
pub fn assert_has_metrics(page: &str) {
    let asked: BTreeSet<String> = expressions().iter().flat_map(|e| metrics_of(e)).collect();
    assert!(asked.len() > 10, "{asked:?}");
    let missing: Vec<&String> = asked.iter().filter(|n| !OTHERS.contains(&n.as_str()) && !has(page, n)).collect();
    assert!(missing.is_empty(), "no node has {missing:?}");
}

#[test]
fn every_alert_says_what_is_wrong_and_how_bad_it_is() {
    let alerts = yaml("compose/alerts.yml").remove(0);
    for rule in list(&alerts, "/groups/0/rules") {
        metrics_of(string(rule, "/expr"));
        assert!(["warning", "critical"].contains(&string(rule, "/labels/severity")));
        assert!(!string(rule, "/annotations/summary").is_empty());
    }
}

#[test]
fn prometheus_accepts_its_configuration_and_alerts() {
    let Some(promtool) = support::tool("promtool") else { return };
    for (what, file) in [("config", "compose/prometheus.yml"), ("rules", "compose/alerts.yml")] {
        let out = Command::new(&promtool).args(["check", what]).arg(path(file)).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&[out.stdout, out.stderr].concat()));
    }
}

#[test]
fn prometheus_scrapes_every_node_and_sends_all_of_it_to_them() {
    let (prometheus, compose) = (yaml("compose/prometheus.yml").remove(0), yaml("compose/compose.yaml").remove(0));
    let services = at(&compose, "/services");
    for job in list(&prometheus, "/scrape_configs") {
        for target in strings(job, "/static_configs/0/targets") {
            assert!(services.get(target.split(':').next().unwrap()).is_some(), "{target}");
        }
    }
    let nodes = strings(&prometheus, "/scrape_configs/0/static_configs/0/targets");
    let expected: Vec<String> = (1..=3).map(|n| format!("metrolith-{n}:{}", PORTS[0])).collect();
    assert_eq!(nodes, expected);
    let url = string(&prometheus, "/remote_write/0/url");
    let path = url.strip_prefix(&format!("http://metrolith:{}", PORTS[0])).unwrap_or_else(|| panic!("{url}"));
    assert_is_route(path);
    let alertmanager = string(&prometheus, "/alerting/alertmanagers/0/static_configs/0/targets/0");
    assert_eq!(alertmanager, "alertmanager:9093");
    assert!(services.get("alertmanager").is_some());
}

#[test]
fn every_route_of_the_alertmanager_has_a_receiver() {
    let config = yaml("compose/alertmanager.yml").remove(0);
    let known: Vec<&str> = list(&config, "/receivers").iter().map(|r| string(r, "/name")).collect();
    assert!(known.contains(&string(&config, "/route/receiver")));
    // Nothing fetches amtool.
    let found =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|d| d.join("amtool")).find(|f| f.is_file());
    if let Some(amtool) = found {
        let out = Command::new(amtool).arg("check-config").arg(path("compose/alertmanager.yml")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn grafana_reads_from_the_nodes() {
    let sources = yaml("compose/grafana/provisioning/datasources/metrolith.yaml").remove(0);
    let source = at(&sources, "/datasources/0");
    assert_eq!((string(source, "/type"), string(source, "/url")), ("prometheus", "http://metrolith:9009"));
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard(), "/panels") {
        assert_eq!(at(panel, "/datasource/uid"), at(source, "/uid"));
        assert!(ids.insert(at(panel, "/id").as_u64()), "{panel}");
    }
    let compose = yaml("compose/compose.yaml").remove(0);
    let grafana = at(&compose, "/services/grafana");
    let target = "/etc/grafana/provisioning";
    assert!(strings(grafana, "/volumes").contains(&format!("./grafana/provisioning:{target}:ro")));
    let home = string(grafana, "/environment/GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH");
    assert!(path("compose/grafana/provisioning").join(home.strip_prefix(&format!("{target}/")).unwrap()).exists());
    let provider = yaml("compose/grafana/provisioning/dashboards/metrolith.yaml").remove(0);
    assert!(home.starts_with(string(&provider, "/providers/0/options/path")));
}
