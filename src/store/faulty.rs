//! A store that fails on command: errors before the operation, answers lost after it. For tests.
//!
//! *Invariants:* what the plan decides is all that happens; nothing is random here.
//!
//! *Not here:* faults of a real server's wire (the end-to-end tests).

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::bucket::Bucket;

/// What is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// An overwriting put, or the start of a multipart one.
    Put,
    /// A put with the condition that nothing is there.
    Create,
    /// A read of any kind.
    Get,
    /// The start of a listing.
    List,
}

/// What shall happen instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation runs.
    None,
    /// The operation does not run, its caller gets an error.
    Before,
    /// The operation runs, its caller gets an error.
    LostAnswer,
    /// A create is reported as a conflict though nothing landed.
    FalseConflict,
    /// A create overwrites, as stores do that ignore the condition.
    IgnoreCondition,
}

type Plan = Box<dyn FnMut(Op, &Path) -> Fault + Send>;

/// The store.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<Plan>,
}

impl Faulty {
    /// Runs `plan` before every operation on `inner`.
    pub fn over(inner: Arc<dyn ObjectStore>, plan: impl FnMut(Op, &Path) -> Fault + Send + 'static) -> Bucket {
        Bucket::over(Arc::new(Self { inner, plan: Mutex::new(Box::new(plan)) }), "faulty://")
    }

    fn fault(&self, op: Op, key: &Path) -> Fault {
        (self.plan.lock())(op, key)
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic { store: "faulty", source: what.into() }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, key: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let op = if options.mode == PutMode::Create { Op::Create } else { Op::Put };
        match self.fault(op, key) {
            Fault::None => self.inner.put_opts(key, payload, options).await,
            Fault::Before => Err(broken("refused")),
            Fault::LostAnswer => {
                self.inner.put_opts(key, payload, options).await?;
                Err(broken("answer lost"))
            }
            Fault::FalseConflict => {
                Err(Error::AlreadyExists { path: key.to_string(), source: "false conflict".into() })
            }
            Fault::IgnoreCondition => {
                options.mode = PutMode::Overwrite;
                self.inner.put_opts(key, payload, options).await
            }
        }
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        match self.fault(Op::Put, key) {
            Fault::None => self.inner.put_multipart_opts(key, options).await,
            _ => Err(broken("refused")),
        }
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fault(Op::Get, key) {
            Fault::None => self.inner.get_opts(key, options).await,
            _ => Err(broken("refused")),
        }
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault(Op::List, prefix.unwrap_or(&Path::default())) {
            Fault::None => self.inner.list(prefix),
            _ => futures::stream::once(async { Err(broken("refused")) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
