//! Runs against a real HTTP server that decodes what it gets and fails where it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clap::Parser;

use super::*;
use crate::ingest::decode::{DecodeLimits, Decoder};
use crate::model::TenantId;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

#[derive(Default)]
struct Server {
    /// Labels and timestamp of every stored sample, with its value.
    stored: Mutex<BTreeMap<(String, i64), f64>>,
    requests: AtomicUsize,
    /// Every n-th request is answered 503 before anything is stored; 0 is never.
    fail_each: usize,
    refuse_all: bool,
}

async fn write(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let n = server.requests.fetch_add(1, Ordering::SeqCst) + 1;
    if server.refuse_all {
        return (StatusCode::BAD_REQUEST, "no such luck").into_response();
    }
    if server.fail_each > 0 && n.is_multiple_of(server.fail_each) {
        return (StatusCode::SERVICE_UNAVAILABLE, [("Retry-After", "0")], "not now").into_response();
    }
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap());
    let protocol = Protocol::negotiate(text("content-type"), text("content-encoding")).unwrap();
    let mut d = Decoder::default();
    let tenant = TenantId::new(text("x-scope-orgid").unwrap()).unwrap();
    d.decode(protocol, &body, &tenant, &DecodeLimits::default()).unwrap();
    let mut stored = server.stored.lock();
    for row in &d.batch.series {
        for s in d.batch.samples_of(row) {
            let before = stored.insert((d.batch.labels_of(row).to_owned(), s.t), s.v);
            assert!(before.is_none(), "sent twice although acknowledged");
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn against(server: Server, flags: &[&str]) -> (Arc<Server>, Report) {
    let server = Arc::new(server);
    let router = axum::Router::new().route("/api/v1/write", axum::routing::post(write)).with_state(Arc::clone(&server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let args = Cli::parse_from(["load", "--url", &url, "--tenant", "a", "--max-speed"].iter().chain(flags)).args;
    let report = drive(args).await.unwrap();
    serving.abort();
    (server, report)
}

#[tokio::test]
async fn every_acknowledged_sample_is_in_the_log_and_on_the_server() {
    for protocol in ["1", "2"] {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("acks");
        let flags = ["--series", "500", "--scrapes", "3", "--batch", "64", "--seed", "5", "--protocol", protocol];
        let flags = [&flags[..], &["--ack-log", log.to_str().unwrap()]].concat();
        let (server, report) = against(Server { fail_each: 5, ..Server::default() }, &flags).await;
        assert_eq!((report.samples_acked, report.samples_lost, report.samples_rejected), (1500, 0, 0));
        assert!(report.retries > 0 && report.first_error.as_deref() == Some("503 Service Unavailable: not now"));
        let (seed, acks) = ack_log::read(&log).unwrap();
        let workload = Workload::new(seed);
        let mut stored = server.stored.lock();
        for ack in acks {
            for i in ack.series {
                let value = stored.remove(&(workload.labels(i).canonical().to_owned(), ack.t));
                assert_eq!(value, Some(workload.value(i, ack.t)));
            }
        }
        assert!(stored.is_empty());
    }
}

#[tokio::test]
async fn refused_samples_are_reported_as_lost() {
    let (_, report) =
        against(Server { refuse_all: true, ..Server::default() }, &["--series", "10", "--scrapes", "2"]).await;
    assert_eq!((report.samples_acked, report.samples_lost, report.retries), (0, 20, 0));
    assert_eq!(report.first_error.as_deref(), Some("400 Bad Request: no such luck"));
}

#[test]
fn a_url_without_a_path_gets_the_usual_one() {
    assert_eq!(write_url("http://a:1").unwrap(), "http://a:1/api/v1/write");
    assert_eq!(write_url("http://a:1/api/v1/push").unwrap(), "http://a:1/api/v1/push");
    assert!(write_url("localhost:9009").unwrap_err().to_string().contains("only http and https"));
}
