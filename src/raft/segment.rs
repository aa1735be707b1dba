//! Segments: the files of the log.
//!
//! *Invariants:* a file has a segment's name only once its header is durable, so a bad header is damage and never a torn
//! write. The header says where the segment before it ends, so that a shortened one is noticed. A reused file loses its
//! old name durably before its first byte is overwritten.
//!
//! *Not here:* what the frames in it mean (`frame`), which segments are needed (`log`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::codec::Input;
use super::error::RaftError;
use crate::env::{Disk, DiskFile};

/// Bytes of a segment's header.
pub(crate) const HEADER: usize = 48;
const MAGIC: &[u8; 8] = b"MLRAFTL1";
const SPARE: &str = "spare.tmp";

/// One file of the log; entries in memory that point into it keep it from being reused.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    /// Where the frames of the segment before end; [`HEADER`] for the first.
    pub(crate) previous_end: u64,
    /// The last group commit before this segment.
    pub(crate) previous_batch: u64,
}

impl SegmentHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for n in [self.number, self.previous_end, self.previous_batch, 0] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out.resize(HEADER, 0);
        out
    }

    /// Reads a header; `None` if it is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let covered = bytes.get(..HEADER - 8)?;
        let mut input = Input(bytes.get(HEADER - 8..HEADER)?);
        if input.u32()? != crc32fast::hash(covered) || input.u32()? != 0 || covered.get(..8)? != MAGIC {
            return None;
        }
        let mut input = Input(covered.get(8..)?);
        Some(Self { number: input.counter()?, previous_end: input.u64()?, previous_batch: input.counter()? })
    }
}

/// The directory of segments.
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// How long the disk's next operation takes, where that is simulated.
    pub(crate) fn device_time(&self) -> Option<Duration> {
        self.disk.device_time()
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.log"))
    }

    /// The numbers of all segments, ascending; removes leftovers of interrupted work.
    pub(crate) fn list(&self) -> Result<Vec<u64>, RaftError> {
        let tried = || RaftError::disk(format!("list log segments in {}", self.dir.display()));
        let mut numbers = Vec::new();
        for name in self.disk.list(&self.dir).map_err(tried())? {
            if let Some(hex) = name.strip_suffix(".log") {
                let number = u64::from_str_radix(hex, 16).ok().filter(|n| self.path(*n) == self.dir.join(&name));
                numbers.push(
                    number.ok_or_else(|| RaftError::corrupt(self.dir.join(&name).display(), "not a segment's name"))?,
                );
            } else if name.ends_with(".tmp") {
                self.disk.remove(&self.dir.join(&name)).map_err(tried())?;
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads a whole segment.
    pub(crate) fn read(&self, number: u64) -> Result<(Segment, Vec<u8>), RaftError> {
        let path = self.path(number);
        let read = || -> io::Result<_> {
            let file = self.disk.open(&path)?;
            let mut bytes = vec![0; file.len()? as usize];
            file.read_exact_at(0, &mut bytes)?;
            Ok((Segment { number, file }, bytes))
        };
        read().map_err(RaftError::disk(format!("read log segment {}", path.display())))
    }

    /// Opens a segment.
    pub(crate) fn open(&self, number: u64) -> Result<Arc<dyn DiskFile>, RaftError> {
        let path = self.path(number);
        self.disk.open(&path).map_err(RaftError::disk(format!("open log segment {}", path.display())))
    }

    /// Creates a segment with this header and `frames`, durably; in the spare file if there is one.
    pub(crate) fn create(&self, header: SegmentHeader, frames: &[u8], recycle: bool) -> io::Result<Segment> {
        let path = self.path(header.number);
        let spare = self.dir.join(SPARE);
        let (temp, file) = match self.disk.open(&spare) {
            Ok(file) if recycle => (spare, file),
            _ => {
                let temp = path.with_extension("tmp");
                let file = self.disk.create(&temp)?;
                (temp, file)
            }
        };
        let mut bytes = header.encode();
        bytes.extend_from_slice(frames);
        file.write_at(0, &bytes)?;
        file.sync()?;
        self.disk.rename(&temp, &path)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Segment { number: header.number, file })
    }

    /// Forgets a segment, durably; its file becomes the spare when nobody reads it any more and there is none.
    pub(crate) fn remove(&self, segment: Segment, recycle: bool) -> io::Result<()> {
        let (path, spare) = (self.path(segment.number), self.dir.join(SPARE));
        if recycle && self.disk.open(&spare).is_err() {
            self.disk.rename(&path, &spare)?;
        } else {
            self.disk.remove(&path)?;
        }
        self.disk.sync_dir(&self.dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}
