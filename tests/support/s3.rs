//! A real S3 server in this process: `s3s-fs` behind one lock per key.
//!
//! *Invariants:* of several conditional creations of one key exactly one wins. `s3s-fs` alone checks and then writes, so
//! all of them can.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tower::ServiceExt;

/// Both halves of the only credentials.
const KEY: &str = "metrolith-test";

/// A running server; it ends with the runtime.
pub struct S3 {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    /// The one bucket.
    pub bucket: &'static str,
}

#[derive(Clone)]
struct Shared {
    service: S3Service,
    keys: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl S3 {
    /// Starts it with its objects below `dir`.
    pub async fn start(dir: &Path) -> Self {
        let bucket = "metrics";
        std::fs::create_dir_all(dir.join(bucket)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, KEY));
        let shared = Shared { service: builder.build(), keys: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, bucket }
    }

    /// What a client of the bucket needs in its environment.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
        ]
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let writes = matches!(*request.method(), Method::PUT | Method::POST | Method::DELETE);
    let lock = writes.then(|| Arc::clone(shared.keys.lock().entry(request.uri().path().to_owned()).or_default()));
    // Held until the answer is made: check and write become one step.
    let _held = match &lock {
        Some(lock) => Some(lock.lock().await),
        None => None,
    };
    match shared.service.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response(),
    }
}
