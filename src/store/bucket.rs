//! The bucket: opened from a URL, with retries, timeouts and a start-up probe.
//!
//! *Invariants:* a write that was answered is durable: on `file://` the file and its directories are fsynced, because the
//! write-ahead log is purged on the strength of it. An error names the key and what was tried.
//!
//! *Not here:* which keys there are (`layout`), retries over hours (`meta::copier`), the cache.

use std::fmt;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig, WriteMultipart,
};

use super::error::Error;
use super::layout;

/// Objects above this are uploaded in parts, so that a lost connection costs one part.
const MULTIPART_BYTES: usize = 16 << 20;
/// Parts of one upload on their way at a time.
const PARTS_IN_FLIGHT: usize = 4;
/// Longest one request may take, body included, unless `AWS_TIMEOUT` (or the like) says otherwise.
const REQUEST_TIMEOUT: &str = "60 seconds";

/// What the bucket does with "create only if absent", as the probe found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionalPut {
    /// A second create is refused.
    Enforced,
    /// A second create overwrites: the first line of defence is to look before writing.
    Ignored,
    /// The store does not know the operation.
    Unsupported,
}

impl fmt::Display for ConditionalPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforced => "enforced",
            Self::Ignored => "ignored",
            Self::Unsupported => "unsupported",
        })
    }
}

/// An opened bucket; a cheap handle.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    url: Arc<str>,
}

impl Bucket {
    /// Opens `file://DIR`, `s3://BUCKET/PREFIX`, `gs://…`, `az://CONTAINER/PREFIX` or `memory://`.
    ///
    /// Credentials come from the usual environment variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`). No request is made: see
    /// [`Bucket::probe`].
    pub fn open(url: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Url { url: url.to_owned(), reason };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| wrong("no scheme, expected for example s3://bucket/prefix".into()))?;
        if scheme == "file" {
            let dir = percent_encoding::percent_decode_str(rest).decode_utf8().map_err(|e| wrong(e.to_string()))?;
            return Self::open_dir(FsPath::new(&*dir));
        }
        if scheme == "memory" {
            return Ok(Self::over(Arc::new(InMemory::new()), url));
        }
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err(wrong("no bucket name".into()));
        }
        let prefix = Path::parse(prefix).map_err(|e| wrong(e.to_string()))?;
        let store = match scheme {
            "s3" | "s3a" => s3(name),
            "gs" => gs(name),
            "az" | "azure" => az(name),
            other => return Err(wrong(format!("unknown scheme {other:?}, expected file, s3, gs, az or memory"))),
        };
        let store = store.map_err(|e| wrong(e.to_string()))?;
        let store: Arc<dyn ObjectStore> =
            if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) };
        Ok(Self::over(store, url))
    }

    /// Opens a local directory, creating it if needed.
    pub fn open_dir(dir: &FsPath) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Url { url: format!("file://{}", dir.display()), reason };
        if dir.as_os_str().is_empty() {
            return Err(wrong("no directory".into()));
        }
        std::fs::create_dir_all(dir).map_err(|e| wrong(e.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(dir).map_err(|e| wrong(e.to_string()))?.with_fsync(true);
        Ok(Self::over(Arc::new(store), &format!("file://{}", dir.display())))
    }

    /// A bucket over any store; `url` is for messages.
    pub fn over(store: Arc<dyn ObjectStore>, url: &str) -> Self {
        Self { store, url: url.into() }
    }

    /// The URL it was opened with; holds no credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The store, for readers of ranges.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Writes a whole object, replacing what is there; large ones in parts.
    pub async fn put(&self, key: &Path, bytes: Bytes) -> Result<(), Error> {
        let failed = |e| Error::bucket("put", key, e);
        if bytes.len() <= MULTIPART_BYTES {
            return self.store.put(key, PutPayload::from_bytes(bytes)).await.map(|_| ()).map_err(failed);
        }
        let upload = self.store.put_multipart(key).await.map_err(failed)?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, MULTIPART_BYTES / 2);
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(MULTIPART_BYTES / 2));
            if let Err(e) = parts.wait_for_capacity(PARTS_IN_FLIGHT).await {
                // The part's error is what the caller must see; an abort that fails too leaves parts to the bucket's
                // own lifecycle rule.
                if let Err(abort) = parts.abort().await {
                    tracing::debug!(%key, error = %abort, "abort of a failed upload failed");
                }
                return Err(failed(e));
            }
            parts.put(part);
        }
        parts.finish().await.map(|_| ()).map_err(failed)
    }

    /// Writes an object only if there is none; what the store makes of the condition is its own affair
    /// ([`ConditionalPut`]).
    pub async fn create(&self, key: &Path, bytes: Bytes) -> Result<(), object_store::Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store.put_opts(key, PutPayload::from_bytes(bytes), options).await.map(|_| ())
    }

    /// A whole object.
    pub async fn get(&self, key: &Path) -> Result<Bytes, Error> {
        let failed = |e| Error::bucket("get", key, e);
        self.store.get(key).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// A whole object, or `None` if there is none.
    pub async fn get_if_exists(&self, key: &Path) -> Result<Option<Bytes>, Error> {
        match self.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All objects below `prefix`, after `offset` if one is given; the order is the store's.
    pub fn list(&self, prefix: &Path, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        let found = match offset {
            Some(offset) => self.store.list_with_offset(Some(prefix), offset),
            None => self.store.list(Some(prefix)),
        };
        let prefix = prefix.clone();
        found.map(move |object| object.map_err(|e| Error::bucket("list", &prefix, e))).boxed()
    }

    /// The directories right below `prefix`.
    pub async fn list_directories(&self, prefix: &Path) -> Result<Vec<Path>, Error> {
        let found = self.store.list_with_delimiter(Some(prefix)).await.map_err(|e| Error::bucket("list", prefix, e))?;
        Ok(found.common_prefixes)
    }

    /// Removes an object; one that is gone already is no error.
    pub async fn delete(&self, key: &Path) -> Result<(), Error> {
        match self.store.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(Error::bucket("delete", key, e)),
        }
    }

    /// Writes, reads, creates again, lists and deletes a small object under `_metrolith/probe/<who>`: says at start-up what
    /// would otherwise fail at the first flush, and what the store makes of conditional puts.
    pub async fn probe(&self, who: &str) -> Result<ConditionalPut, Error> {
        let key = Path::from(layout::PROBE).join(who);
        let step = |step: &'static str, e: Error| Error::Probe { url: self.url.to_string(), step, source: Box::new(e) };
        let (first, second) = (Bytes::from(format!("{who} 1")), Bytes::from(format!("{who} 2")));
        self.put(&key, first.clone()).await.map_err(|e| step("written", e))?;
        let found = self.get(&key).await.map_err(|e| step("read", e))?;
        if found != first {
            return Err(step("read", Error::corrupt(&key, "other bytes than were just written")));
        }
        let conditional = match self.create(&key, second.clone()).await {
            Ok(()) => ConditionalPut::Ignored,
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                match self.get(&key).await.map_err(|e| step("read", e))? == first {
                    true => ConditionalPut::Enforced,
                    false => ConditionalPut::Ignored,
                }
            }
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                ConditionalPut::Unsupported
            }
            Err(e) => return Err(step("written conditionally", Error::bucket("create", &key, e))),
        };
        let mut listed = self.list(&Path::from(layout::PROBE), None);
        let mut seen = false;
        while let Some(object) = listed.next().await {
            seen |= object.map_err(|e| step("listed", e))?.location == key;
        }
        if !seen {
            tracing::warn!(bucket = %self.url, "the bucket's listing misses an object that was just written");
        }
        self.delete(&key).await.map_err(|e| step("deleted from", e))?;
        Ok(conditional)
    }
}

/// One request is repeated for at most half a minute: whoever waits longer repeats the whole operation.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: Duration::from_secs(30),
    }
}

fn s3(name: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
    let mut builder = AmazonS3Builder::from_env();
    if builder.get_config_value(&timeout).is_none() {
        builder = builder.with_config(timeout, REQUEST_TIMEOUT);
    }
    Ok(Arc::new(builder.with_bucket_name(name).with_retry(retry()).build()?))
}

fn gs(name: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let timeout = GoogleConfigKey::Client(ClientConfigKey::Timeout);
    let builder = GoogleCloudStorageBuilder::from_env().with_config(timeout, REQUEST_TIMEOUT);
    Ok(Arc::new(builder.with_bucket_name(name).with_retry(retry()).build()?))
}

fn az(name: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let timeout = AzureConfigKey::Client(ClientConfigKey::Timeout);
    let builder = MicrosoftAzureBuilder::from_env().with_config(timeout, REQUEST_TIMEOUT);
    Ok(Arc::new(builder.with_container_name(name).with_retry(retry()).build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_tell_what_a_directory_and_memory_do() {
        let dir = tempfile::tempdir().unwrap();
        for url in [format!("file://{}/new/bucket", dir.path().display()), "memory://".to_owned()] {
            let bucket = Bucket::open(&url).unwrap();
            assert_eq!(bucket.probe("node-1").await.unwrap(), ConditionalPut::Enforced, "{url}");
            assert!(bucket.list(&Path::from(layout::PROBE), None).next().await.is_none());
        }
    }

    #[tokio::test]
    async fn large_objects_come_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::open_dir(dir.path()).unwrap();
        let bytes = Bytes::from((0..MULTIPART_BYTES + 12_345).map(|i| (i / 7) as u8).collect::<Vec<_>>());
        let key = Path::from("a/b");
        bucket.put(&key, bytes.clone()).await.unwrap();
        assert_eq!(bucket.get(&key).await.unwrap(), bytes);
        bucket.delete(&key).await.unwrap();
        bucket.delete(&key).await.unwrap();
        assert_eq!(bucket.get_if_exists(&key).await.unwrap(), None);
    }

    #[test]
    fn refuses_urls_it_cannot_serve() {
        for (url, word) in [
            ("bucket", "no scheme"),
            ("ftp://x/y", "unknown scheme"),
            ("s3:///x", "no bucket"),
            ("file://", "no directory"),
        ] {
            let text = Bucket::open(url).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains(url), "{text}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_named_at_start() {
        // A file where the probe wants a directory: fails for root too, unlike a missing permission.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("_metrolith"), b"in the way").unwrap();
        let bucket = Bucket::open_dir(dir.path()).unwrap();
        let text = bucket.probe("node-1").await.unwrap_err().to_string();
        assert!(text.contains("cannot be written") && text.contains(&dir.path().display().to_string()), "{text}");
    }
}
