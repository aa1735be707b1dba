//! A disk in memory that forgets, at a crash, whatever was not synced.
//!
//! *Invariants:* equal seeds and equal operations give equal outcomes. At a crash each unsynced write is lost, kept or
//! torn at arbitrary bytes, in any order; each unsynced name change is lost or kept. What was synced is never touched.
//!
//! *Not here:* the machine's disk (`env::disk`), crash points of the process (`env::crash`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile};
use crate::env::rng::{Rng, SeededRng};

/// A disk in memory; clones share it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    rng: SeededRng,
    inodes: Vec<Inode>,
    /// Names as the process sees them, as the platters have them, and the changes between the two.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    changes: Vec<Change>,
    /// Handles opened before the last crash are dead.
    boot: u64,
    /// Mutating operations since the last crash, and the one at which the power goes.
    operations: u64,
    crash_at: Option<u64>,
    down: bool,
    full: bool,
    failing_syncs: bool,
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

enum Change {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        match self {
            Change::Link(p, _) | Change::Rename(_, p, _) | Change::Unlink(p) => p.parent(),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Change::Link(path, inode) => {
                names.insert(path, inode);
            }
            Change::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
            Change::Unlink(path) => {
                names.remove(&path);
            }
        }
    }
}

struct SimFile {
    disk: SimDisk,
    boot: u64,
    inode: usize,
}

impl SimDisk {
    /// An empty disk whose misfortunes follow from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: SeededRng::new(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            boot: 0,
            operations: 0,
            crash_at: None,
            down: false,
            full: false,
            failing_syncs: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The power goes at the `n`-th mutating operation from now (1 is the next): it may or may not have happened, it
    /// fails, and so does everything after it until [`SimDisk::crash`].
    pub fn crash_at(&self, n: u64) {
        let mut state = self.state.lock();
        state.crash_at = Some(state.operations + n);
    }

    /// Whether the moment set by [`SimDisk::crash_at`] has come.
    pub fn is_down(&self) -> bool {
        self.state.lock().down
    }

    /// Mutating operations (create, write, sync, rename, remove, sync of a directory) since the last crash.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Power loss and power return: decides what became of everything unsynced. Open handles are dead.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        let State { rng, inodes, durable_names, changes, .. } = &mut *state;
        for inode in inodes.iter_mut() {
            inode.crash(rng);
        }
        for change in changes.drain(..) {
            if rng.below(2) == 0 {
                change.apply(durable_names);
            }
        }
        state.names = state.durable_names.clone();
        state.boot += 1;
        state.operations = 0;
        state.crash_at = None;
        state.down = false;
        state.failing_syncs = false;
    }

    /// The process dies and comes back, the machine stays up: unsynced bytes can be read, and are as unsynced as before.
    pub fn restart(&self) {
        let mut state = self.state.lock();
        state.boot += 1;
        state.operations = 0;
        state.crash_at = None;
        state.down = false;
    }

    /// Whether writes fail for lack of space.
    pub fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// Whether file syncs fail; what they should have made durable never will be.
    pub fn set_failing_syncs(&self, failing: bool) {
        self.state.lock().failing_syncs = failing;
    }

    /// The bytes of a file, as the process sees them.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(path).map(|&inode| state.inodes[inode].seen.clone())
    }

    /// Replaces a file's bytes, durably: rot, or a hand in the machine.
    pub fn corrupt(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        if let Some(&inode) = state.names.get(path) {
            state.inodes[inode] = Inode { seen: bytes.clone(), durable: bytes, unsynced: Vec::new() };
        }
    }

    /// An independent copy of everything, with its own `seed`: one run, many fates.
    pub fn fork(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        {
            let (from, mut to) = (self.state.lock(), copy.state.lock());
            for inode in &from.inodes {
                to.inodes.push(Inode {
                    seen: inode.seen.clone(),
                    durable: inode.durable.clone(),
                    unsynced: inode.unsynced.clone(),
                });
            }
            to.names = from.names.clone();
            to.durable_names = from.durable_names.clone();
            to.changes.extend(from.changes.iter().map(|c| match c {
                Change::Link(p, i) => Change::Link(p.clone(), *i),
                Change::Rename(a, b, i) => Change::Rename(a.clone(), b.clone(), *i),
                Change::Unlink(p) => Change::Unlink(p.clone()),
            }));
        }
        copy
    }
}

impl Inode {
    fn crash(&mut self, rng: &SeededRng) {
        let mut writes = std::mem::take(&mut self.unsynced);
        while !writes.is_empty() {
            let (offset, bytes) = writes.swap_remove(rng.below(writes.len() as u64) as usize);
            let (from, to) = match rng.below(4) {
                0 => (0, 0),
                1 => (0, bytes.len()),
                2 => (0, rng.below(bytes.len() as u64 + 1) as usize),
                _ => (rng.below(bytes.len() as u64 + 1) as usize, bytes.len()),
            };
            if from < to {
                put(&mut self.durable, offset + from, &bytes[from..to]);
            }
        }
        self.seen.clone_from(&self.durable);
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl State {
    /// Counts an operation; an error once the power is gone. `true`: this is the operation at which it goes.
    fn step(&mut self) -> io::Result<bool> {
        if self.down {
            return Err(io::Error::other("the simulated disk is down"));
        }
        self.operations += 1;
        self.down = self.crash_at.is_some_and(|n| self.operations >= n);
        Ok(self.down)
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn finish(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("the simulated disk went down")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change, again: Change) {
        again.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.step()?;
        // Always a new inode: an existing file is emptied by taking its name.
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change(Change::Link(path.to_owned(), inode), Change::Link(path.to_owned(), inode));
        state.finish()?;
        Ok(Arc::new(SimFile { disk: self.clone(), boot: state.boot, inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        let inode = state.inode(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), boot: state.boot, inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let inode = state.inode(from)?;
        let change = || Change::Rename(from.to_owned(), to.to_owned(), inode);
        state.change(change(), change());
        state.finish()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.inode(path)?;
        state.change(Change::Unlink(path.to_owned()), Change::Unlink(path.to_owned()));
        state.finish()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let names = state.names.keys().filter(|p| p.parent() == Some(dir));
        Ok(names.filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let dying = state.step()?;
        if !dying || state.rng.below(2) == 0 {
            let (now, later) =
                std::mem::take(&mut state.changes).into_iter().partition(|c: &Change| c.dir() == Some(dir));
            state.changes = later;
            let now: Vec<Change> = now;
            for change in now {
                change.apply(&mut state.durable_names);
            }
        }
        state.finish()
    }
}

impl SimFile {
    fn alive(&self, state: &State) -> io::Result<()> {
        if self.boot == state.boot { Ok(()) } else { Err(io::Error::other("file was opened before a crash")) }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.alive(&state)?;
        state.step()?;
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut state.inodes[self.inode];
        put(&mut inode.seen, offset as usize, bytes);
        inode.unsynced.push((offset as usize, bytes.to_vec()));
        state.finish()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state.lock();
        self.alive(&state)?;
        let seen = &state.inodes[self.inode].seen;
        let from = seen.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        self.alive(&state)?;
        Ok(state.inodes[self.inode].seen.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.alive(&state)?;
        let dying = state.step()?;
        if state.failing_syncs {
            state.inodes[self.inode].unsynced.clear();
            return Err(io::Error::other("simulated EIO"));
        }
        if !dying || state.rng.below(2) == 0 {
            let inode = &mut state.inodes[self.inode];
            // Replayed rather than copied from `seen`: writes before a failed sync must stay lost.
            for (offset, bytes) in std::mem::take(&mut inode.unsynced) {
                put(&mut inode.durable, offset, &bytes);
            }
        }
        state.finish()
    }
}
