//! The HTTP API of a node, in process: what is written, what is refused, how it is read and worded.

#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

mod caching;
mod cluster;
mod discovery;
mod federation;
mod operating;
mod reading;
mod requests;
mod writing;

use std::path::Path;

use metrolith::config::{Config, Limits};
use metrolith::env::{Clock, SystemClock};
use metrolith::model::TenantId;
use metrolith::node::Node;
use metrolith::telemetry;
use reqwest::{Client, Response};
use serde_json::Value;

/// A node of this process, and a client of it.
struct Served {
    node: Node,
    url: String,
    client: Client,
}

/// What came back of a request.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Served {
    /// A node with everything below `dir`; one that was there before resumes.
    async fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[], &[]).await
    }

    /// The same with settings (dotted key, text) and limits of single tenants.
    async fn start_with(dir: &Path, settings: &[(&str, &str)], overrides: &[(&str, Limits)]) -> Self {
        let data = dir.join("data").display().to_string();
        let any = "127.0.0.1:0";
        let fixed = [("data_dir", data.as_str()), ("http", any), ("grpc", any), ("self_monitoring.enabled", "false")];
        let small = [("shards", "3"), ("store.cache_disk_bytes", "0"), ("enable_admin_api", "true")];
        let flags: Vec<_> =
            fixed.iter().chain(&small).chain(settings).map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut config = Config::load(None, &flags).unwrap().config;
        config.overrides.extend(overrides.iter().map(|(t, limits)| (TenantId::new(t).unwrap(), limits.clone())));
        let node = Node::start(config, telemetry::Root::new()).await.unwrap();
        let url = format!("http://{}", node.address());
        Self { node, url, client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn stop(self) {
        drop(self.client);
        self.node.stop().await.unwrap();
    }

    /// Fetches a path as it stands.
    async fn get(&self, path: &str) -> Reply {
        Reply::of(self.client.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    /// Asks with parameters in the URL.
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Reply {
        self.ask_as(None, path, parameters).await
    }

    async fn ask_as(&self, tenant: Option<&str>, path: &str, parameters: &[(&str, &str)]) -> Reply {
        let mut get = self.client.get(format!("{}/api/v1/{path}", self.url)).query(parameters);
        if let Some(tenant) = tenant {
            get = get.header("X-Scope-OrgID", tenant);
        }
        Reply::of(get.send().await.unwrap()).await
    }

    /// Asks with parameters in a form.
    async fn post_form(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        Reply::of(self.client.post(format!("{}/api/v1/{path}", self.url)).form(form).send().await.unwrap()).await
    }

    /// The `result` of an instant query, as JSON text.
    async fn instant(&self, query: &str, t: i64) -> String {
        self.instant_as(None, query, t).await
    }

    async fn instant_as(&self, tenant: Option<&str>, query: &str, t: i64) -> String {
        let reply = self.ask_as(tenant, "query", &[("query", query), ("time", &seconds(t))]).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.body);
        reply.json()["data"]["result"].to_string()
    }

    async fn flush(&self) {
        let reply = self.client.post(format!("{}/api/v1/admin/flush", self.url)).send().await.unwrap();
        assert_eq!(reply.status(), 204);
    }
}

impl Reply {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.text().await.unwrap() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn now_ms() -> i64 {
    SystemClock::new().now_ms()
}

/// Seconds as the API takes and gives them.
fn seconds(ms: i64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
