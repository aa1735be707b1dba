//! Snapshot files: a state machine's bytes with what they cover, checked from end to end.
//!
//! *Invariants:* a file has a snapshot's name only when it is complete and durable, so a damaged one is
//! [`RaftError::Corrupt`]. The newest one of a group outlives its making by the next; older ones go.
//!
//! *Not here:* what the bytes mean.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codec::{self, Input};
use super::error::RaftError;
use super::types::{GroupId, SnapshotMeta, next_index};
use crate::env::disk::{self, Disk, DiskFile};

const MAGIC: &[u8; 8] = b"MLRAFTS1";
/// Bytes of head before the meta: magic, group, length and CRC of the meta.
const HEAD: usize = 24;
/// Bytes after the body: its length, its CRC, padding.
const TAIL: usize = 16;
const CHUNK: usize = 256 << 10;

/// A complete snapshot on disk.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    file: Arc<dyn DiskFile>,
    pub(crate) meta: SnapshotMeta,
    body_at: u64,
    pub(crate) body_bytes: u64,
    body_crc: u32,
}

/// The snapshots of one group.
#[derive(Clone)]
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    group: GroupId,
}

impl Snapshots {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, group: GroupId) -> Self {
        Self { disk, dir, group }
    }

    /// Does `work`, which blocks on the disk, where it holds up no tasks.
    pub(crate) async fn blocking<T, E>(&self, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<io::Error> + Send + 'static,
    {
        disk::blocking(&*self.disk, work).await?
    }

    fn prefix(&self) -> String {
        format!("{:016x}-", self.group.0)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.disk.list(&self.dir)?;
        names.retain(|name| name.starts_with(&self.prefix()) && name.ends_with(".snap"));
        Ok(names)
    }

    /// The newest snapshot, checked; removes leftovers and older ones.
    pub(crate) fn newest(&self) -> Result<Option<SnapshotFile>, RaftError> {
        let tried = || RaftError::disk(format!("list snapshots in {}", self.dir.display()));
        for name in self.disk.list(&self.dir).map_err(tried())? {
            if name.starts_with(&self.prefix()) && name.ends_with(".tmp") {
                self.disk.remove(&self.dir.join(name)).map_err(tried())?;
            }
        }
        let Some(name) = self.names().map_err(tried())?.pop() else { return Ok(None) };
        let found = SnapshotFile::open(&*self.disk, &self.dir.join(&name), self.group)?;
        found.check(&self.dir.join(&name))?;
        self.remove_others(&name).map_err(tried())?;
        Ok(Some(found))
    }

    fn remove_others(&self, keep: &str) -> io::Result<()> {
        for name in self.names()? {
            if name != keep {
                self.disk.remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Where a snapshot is put that comes from another node, until the replica has a copy under its own name.
    fn received(&self) -> PathBuf {
        self.dir.join(format!("{}received.tmp", self.prefix()))
    }

    /// Writes the snapshot that another node sends; only one at a time comes in for a group.
    pub(crate) fn receive(
        &self,
        meta: &SnapshotMeta,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        self.write(&self.received(), meta, write)
    }

    /// Removes what [`Snapshots::receive`] wrote.
    pub(crate) fn remove_received(&self) -> io::Result<()> {
        self.disk.remove(&self.received())
    }

    /// Removes all snapshots of the group.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        self.remove_others("")?;
        self.disk.sync_dir(&self.dir)
    }

    /// Writes a snapshot whose body `write` produces; durable when it returns. Blocks.
    pub(crate) fn save(
        &self,
        meta: &SnapshotMeta,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let name = format!("{}{:016x}.snap", self.prefix(), next_index(meta.last_log_id.as_ref()));
        let path = self.dir.join(&name);
        let temp = path.with_extension("tmp");
        let file = self.write(&temp, meta, write)?;
        self.disk.rename(&temp, &path)?;
        self.disk.sync_dir(&self.dir)?;
        self.remove_others(&name)?;
        Ok(file)
    }

    /// Writes a snapshot into the file `path` and syncs it.
    fn write(
        &self,
        path: &Path,
        meta: &SnapshotMeta,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let mut words = Vec::new();
        codec::put_snapshot_meta(&mut words, meta.last_log_id.as_ref(), &meta.last_membership);
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&self.group.0.to_le_bytes());
        head.extend_from_slice(&(words.len() as u32).to_le_bytes());
        head.extend_from_slice(&crc32fast::hash(&words).to_le_bytes());
        head.extend_from_slice(&words);

        let file = self.disk.create(path)?;
        file.write_at(0, &head)?;
        let body_at = head.len() as u64;
        let mut body =
            Body { file: &*file, at: body_at, buf: Vec::with_capacity(CHUNK), crc: crc32fast::Hasher::new() };
        write(&mut body)?;
        body.flush()?;
        let (body_bytes, body_crc) = (body.at - body_at, body.crc.clone().finalize());
        let mut tail = body_bytes.to_le_bytes().to_vec();
        tail.extend_from_slice(&body_crc.to_le_bytes());
        tail.resize(TAIL, 0);
        file.write_at(body_at + body_bytes, &tail)?;
        file.sync()?;
        Ok(SnapshotFile { file, meta: meta.clone(), body_at, body_bytes, body_crc })
    }
}

/// Streams a body into its file.
struct Body<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    buf: Vec<u8>,
    crc: crc32fast::Hasher,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK - self.buf.len());
        self.buf.extend_from_slice(&bytes[..n]);
        if self.buf.len() == CHUNK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.buf);
        self.file.write_at(self.at, &self.buf)?;
        self.at += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }
}

impl SnapshotFile {
    fn open(disk: &dyn Disk, path: &Path, group: GroupId) -> Result<Self, RaftError> {
        let corrupt = |why: &str| RaftError::corrupt(path.display(), why);
        let tried = || RaftError::disk(format!("read snapshot {}", path.display()));
        let file = disk.open(path).map_err(tried())?;
        let len = file.len().map_err(tried())?;
        if len < (HEAD + TAIL) as u64 {
            return Err(corrupt("too short"));
        }
        let (mut head, mut tail) = ([0; HEAD], [0; TAIL]);
        file.read_exact_at(0, &mut head).map_err(tried())?;
        file.read_exact_at(len - TAIL as u64, &mut tail).map_err(tried())?;
        let numbers = |mut i: Input<'_>| Some((i.u64()?, i.u32()?, i.u32()?));
        let (owner, meta_bytes, meta_crc) = numbers(Input(&head[8..])).ok_or_else(|| corrupt("too short"))?;
        if head[..8] != *MAGIC || owner != group.0 {
            return Err(corrupt("not a snapshot of this group"));
        }
        let (body_bytes, body_crc, _) = numbers(Input(&tail)).ok_or_else(|| corrupt("too short"))?;
        let body_at = HEAD as u64 + u64::from(meta_bytes);
        if Some(len) != body_at.checked_add(body_bytes).and_then(|n| n.checked_add(TAIL as u64)) {
            return Err(corrupt("length does not match its parts"));
        }
        let mut words = vec![0; meta_bytes as usize];
        file.read_exact_at(HEAD as u64, &mut words).map_err(tried())?;
        if crc32fast::hash(&words) != meta_crc {
            return Err(corrupt("bad checksum of the head"));
        }
        let (last_log_id, last_membership) = codec::snapshot_meta(&words).ok_or_else(|| corrupt("unreadable head"))?;
        let meta = SnapshotMeta { last_log_id, last_membership };
        Ok(Self { file, meta, body_at, body_bytes, body_crc })
    }

    /// Reads the whole body once to see that it is what was written.
    fn check(&self, path: &Path) -> Result<(), RaftError> {
        let mut crc = crc32fast::Hasher::new();
        let mut buf = vec![0; CHUNK];
        let mut body = self.reader();
        loop {
            match body.read(&mut buf).map_err(RaftError::disk(format!("read snapshot {}", path.display())))? {
                0 => break,
                n => crc.update(&buf[..n]),
            }
        }
        let good = crc.finalize() == self.body_crc;
        if good { Ok(()) } else { Err(RaftError::corrupt(path.display(), "bad checksum of the body")) }
    }

    /// The state machine's bytes.
    pub(crate) fn reader(&self) -> SnapshotReader {
        SnapshotReader { file: self.file.clone(), at: self.body_at, end: self.body_at + self.body_bytes }
    }

    /// Whether both are the same file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }
}

/// Reads a body.
pub(crate) struct SnapshotReader {
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
}

impl Read for SnapshotReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(self.at, &mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}
