//! The bucket of all nodes: a real S3 server (`s3s-fs`), and what can be wrong with it.
//!
//! *Invariants:* of several conditional creations of one key exactly one wins: `s3s-fs` checks and then writes, so changes
//! of one key come one after the other. What is answered with an error may have been done: clients must not rely on it.
//! The server has a thread of its own, so that nothing else is slowed down by it.
//!
//! *Not here:* when something is wrong (`faults`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};

/// The bucket's name.
const NAME: &str = "metrics";
/// Both halves of the only credentials.
const KEY: &str = "chaos";
/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(2_500);

/// What is wrong with the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Connections are closed as soon as they are opened or used.
    Away,
    /// Every answer takes [`SLOW`] longer.
    Slow,
    /// In turn: refused with 503; done and answered with 500; done, and the connection closed without an answer; well.
    Failing,
}

/// The bucket; clones are the same one.
#[derive(Debug, Clone)]
pub struct Bucket {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Mutex<Option<Trouble>>,
    /// Requests and connections that had to do with it.
    hit: AtomicU64,
}

/// Why a connection is closed without an answer.
#[derive(Debug)]
struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is lost")
    }
}

impl std::error::Error for Lost {}

type Locks = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// What answers on one connection.
#[derive(Clone)]
struct Server {
    objects: S3Service,
    keys: Arc<Locks>,
    state: Arc<State>,
}

impl Bucket {
    /// Starts the server on a host, its objects below `dir`; it ends with this process.
    pub fn start(host: &str, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir.join(NAME))?;
        let objects = s3s_fs::FileSystem::new(dir).map_err(|e| anyhow::anyhow!("opening the bucket: {e:?}"))?;
        let mut builder = S3ServiceBuilder::new(objects);
        builder.set_auth(SimpleAuth::from_single(KEY, KEY));
        let listener = std::net::TcpListener::bind((host, 0)).context("listening for the bucket")?;
        listener.set_nonblocking(true)?;
        let bucket = Self { address: listener.local_addr()?, state: Arc::default() };
        let server = Server { objects: builder.build(), keys: Arc::default(), state: Arc::clone(&bucket.state) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || runtime.block_on(server.listen(listener));
        std::thread::Builder::new().name("bucket".to_owned()).spawn(serve).context("starting the bucket")?;
        Ok(bucket)
    }

    /// What nodes are told.
    pub fn url(&self) -> String {
        format!("s3://{NAME}/chaos")
    }

    /// What nodes need in their environment.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
        ]
    }

    /// Makes trouble, or ends it; returns how many requests the trouble before hit.
    pub fn set(&self, trouble: Option<Trouble>) -> u64 {
        *self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        self.state.hit.swap(0, Ordering::Relaxed)
    }
}

impl State {
    /// What is wrong now, and the how many-th request it hits.
    fn hit(&self) -> Option<(Trouble, u64)> {
        let trouble = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.map(|trouble| (trouble, self.hit.fetch_add(1, Ordering::Relaxed)))
    }

    fn is_away(&self) -> bool {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) == Some(Trouble::Away)
    }
}

impl Server {
    async fn listen(self, listener: std::net::TcpListener) -> Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            // What fails is one connection, which its client tries again.
            let Ok((stream, _)) = listener.accept().await else { continue };
            if self.state.is_away() {
                self.state.hit();
                continue;
            }
            tokio::spawn(self.clone().converse(stream));
        }
    }

    async fn converse(self, stream: TcpStream) {
        let answer = hyper::service::service_fn(|request| self.answer(request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), answer);
        // An error is a connection that was closed, often by us.
        let _ = connection.await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Lost> {
        match self.state.hit() {
            None => Ok(self.act(request).await),
            Some((Trouble::Away, _)) => Err(Lost),
            Some((Trouble::Slow, _)) => {
                tokio::time::sleep(SLOW).await;
                Ok(self.act(request).await)
            }
            Some((Trouble::Failing, n)) => match n % 4 {
                0 => Ok(failed(StatusCode::SERVICE_UNAVAILABLE)),
                1 => {
                    self.act(request).await;
                    Ok(failed(StatusCode::INTERNAL_SERVER_ERROR))
                }
                2 => {
                    self.act(request).await;
                    Err(Lost)
                }
                _ => Ok(self.act(request).await),
            },
        }
    }

    /// Does what is asked.
    async fn act(&self, request: Request<Incoming>) -> Response<Body> {
        let writes = matches!(*request.method(), Method::PUT | Method::POST | Method::DELETE);
        let lock = writes.then(|| {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(keys.entry(request.uri().path().to_owned()).or_default())
        });
        // Held until the answer is made: check and write become one step.
        let _held = match &lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        match self.objects.call(request.map(Body::from)).await {
            Ok(response) => response,
            Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

fn failed(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn trouble_hits_requests_and_ends() {
        let dir = std::env::temp_dir().join(format!("chaos-bucket-{}", std::process::id()));
        let bucket = Bucket::start("127.0.0.1", &dir).unwrap();
        let client = reqwest::Client::new();
        let ask = || async { client.get(format!("http://{}/{NAME}/none", bucket.address)).send().await };
        let status = |answer: reqwest::Result<reqwest::Response>| answer.unwrap().status().as_u16();
        // Without a signature.
        assert_eq!(status(ask().await), 403);
        assert_eq!(bucket.set(Some(Trouble::Away)), 0);
        assert!(ask().await.is_err());
        assert_ne!(bucket.set(Some(Trouble::Failing)), 0);
        assert_eq!([status(ask().await), status(ask().await)], [503, 500]);
        assert_eq!(bucket.set(None), 2);
        assert_eq!(status(ask().await), 403);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
