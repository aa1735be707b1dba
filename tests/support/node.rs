//! The real `metrolith serve`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::free_port;
use super::http::Api;
use super::program::Program;

/// How long a start may take; a debug build on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How a node is started; it can be started again after it ended.
pub struct Setup {
    /// Where it keeps its data, and its log.
    pub dir: PathBuf,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    port: u16,
    grpc_port: u16,
}

impl Setup {
    /// A node with everything below `dir`, watching nothing but what is sent to it.
    pub fn new(dir: &Path) -> Self {
        let flags = ["--self-monitoring-enabled", "false", "--enable-admin-api", "true"].map(str::to_owned).to_vec();
        Self { dir: dir.to_owned(), flags, env: Vec::new(), port: free_port(), grpc_port: free_port() }
    }

    /// A node that ingests its own metrics, often.
    pub fn watching_itself(dir: &Path) -> Self {
        let flags = ["--self-monitoring-interval", "1s", "--enable-admin-api", "true"].map(str::to_owned).to_vec();
        Self { flags, ..Self::new(dir) }
    }

    /// The same with a flag.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// The same with an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where other nodes reach it.
    pub fn grpc(&self) -> String {
        format!("127.0.0.1:{}", self.grpc_port)
    }

    /// Where it answers.
    pub fn api(&self) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) -> Node {
        // Another build of the program may be asked for, to measure it.
        let built = env!("CARGO_BIN_EXE_metrolith").into();
        let mut command = Command::new(std::env::var_os("METROLITH_BIN").unwrap_or(built));
        command
            .arg("serve")
            .args(["--data-dir".as_ref(), self.dir.join("data").as_os_str()])
            .args(["--http", &format!("127.0.0.1:{}", self.port)])
            .args(["--grpc", &self.grpc()])
            .args(&self.flags)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .env("RUST_BACKTRACE", "1");
        let mut program = Program::start("metrolith", &self.dir, command);
        program.ready(&format!("http://127.0.0.1:{}/-/ready", self.port), START).await;
        Node { program, api: self.api() }
    }
}

/// A running node.
pub struct Node {
    /// The process.
    pub program: Program,
    /// Where it answers.
    pub api: Api,
}

impl Node {
    /// Ends it in order; it has 30 s.
    pub async fn stop(mut self) {
        let status = self.program.terminate(Duration::from_secs(30)).await;
        assert!(status.success(), "metrolith ended with {status} after SIGTERM:\n{}", self.program.tail());
    }
}
