//! A node's disk as one process sees it: takes simulated time, and refuses everything once the process is dead.
//!
//! *Invariants:* planted mistakes are made here, so that the code under test stays as it is: a sync that says it is done
//! although it is not is, from outside, a log that does not wait for it.
//!
//! *Not here:* what a crash leaves (`env::disk::sim`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Planted;
use crate::env::{Disk, DiskFile, Rng, SeededRng, SimDisk};

/// Bytes of a log frame without payload, and where its kind is.
const FRAME: usize = 56;
const KIND_AT: usize = 8;
const VOTE: u8 = 4;

/// A disk in the hands of one process.
#[derive(Clone)]
pub(super) struct NodeDisk {
    pub(super) disk: SimDisk,
    pub(super) alive: Arc<AtomicBool>,
    pub(super) rng: Arc<SeededRng>,
    /// Longest time of an operation, microseconds.
    pub(super) slowness_us: Arc<AtomicU64>,
    pub(super) planted: Option<Planted>,
    /// A file that should be synced already, and is before anything else is written.
    pub(super) owed: Arc<Mutex<Option<Arc<dyn DiskFile>>>>,
}

struct NodeFile {
    file: Arc<dyn DiskFile>,
    on: NodeDisk,
    /// It is a segment of the log.
    log: bool,
    /// What was written last.
    last: Mutex<Written>,
}

#[derive(Clone, Copy)]
enum Written {
    Vote,
    OtherFrames,
    Something,
}

impl NodeDisk {
    fn check(&self) -> io::Result<()> {
        if self.alive.load(Ordering::Relaxed) { Ok(()) } else { Err(io::Error::other("this process is dead")) }
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let log = path.parent().is_some_and(|dir| dir.ends_with("log"));
        Arc::new(NodeFile { file, on: self.clone(), log, last: Mutex::new(Written::Something) })
    }

    fn pay(&self) -> io::Result<()> {
        let owed = self.owed.lock().take();
        owed.map_or(Ok(()), |file| file.sync())
    }
}

impl Disk for NodeDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.check()?;
        self.pay()?;
        Ok(self.file(path, self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.check()?;
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check()?;
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.check()?;
        self.disk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check()?;
        self.disk.sync_dir(dir)
    }

    fn device_time(&self) -> Option<Duration> {
        let most = self.slowness_us.load(Ordering::Relaxed);
        Some(Duration::from_micros(most / 4 + self.rng.below(most)))
    }
}

impl DiskFile for NodeFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.on.pay()?;
        *self.last.lock() = match bytes.get(KIND_AT) {
            Some(&VOTE) if bytes.len() == FRAME => Written::Vote,
            Some(_) if offset > 0 && self.log => Written::OtherFrames,
            _ => Written::Something,
        };
        self.file.write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        let early = match *self.last.lock() {
            Written::Vote => self.on.planted.is_some_and(|p| p != Planted::SkippedReadIndex),
            Written::OtherFrames => self.on.planted == Some(Planted::AckBeforeSync),
            Written::Something => false,
        };
        if early {
            *self.on.owed.lock() = Some(Arc::clone(&self.file));
            return Ok(());
        }
        self.file.sync()
    }
}
