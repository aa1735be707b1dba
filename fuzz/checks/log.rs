//! What must hold for any bytes in the segments of the log.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use metrolith::env::{Disk, SimDisk, SystemClock};
use metrolith::raft::{GroupSummary, Metrics, RaftError, read_log};
use prometheus_client::registry::Registry;

const DIR: &str = "/log";
const SEGMENT_HEADER: usize = 48;
const FRAME_HEADER: usize = 56;

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::register(&mut Registry::default()));
static CLOCK: LazyLock<Arc<SystemClock>> = LazyLock::new(|| Arc::new(SystemClock::new()));

/// No panic; a log that opens opens again, and to the same. Whether it opens.
///
/// The input is a byte of flags (how many segments; whether checksums are made to fit, so that what lies behind them is
/// reached), the lengths of all but the last segment (2 bytes each), the segments.
pub fn log_reader(data: &[u8]) -> bool {
    let Some((flags, mut rest)) = data.split_first() else { return false };
    let count = u64::from(flags & 3) + 1;
    let mut lengths = Vec::new();
    for _ in 1..count {
        let Some((length, after)) = rest.split_first_chunk() else { return false };
        lengths.push(usize::from(u16::from_le_bytes(*length)));
        rest = after;
    }
    let disk = SimDisk::new(1);
    for number in 1..=count {
        let length = lengths.get(number as usize - 1).map_or(rest.len(), |n| (*n).min(rest.len()));
        let (segment, after) = rest.split_at(length);
        rest = after;
        let mut segment = segment.to_vec();
        if flags & 4 != 0 {
            fit_checksums(&mut segment, number);
        }
        let file = disk.create(&path(number)).expect("a file");
        file.write_at(0, &segment).expect("room");
    }
    let Ok(first) = open(&disk) else { return false };
    let again = open(&disk).expect("a log that was opened opens again");
    assert_eq!(again, first);
    for group in first {
        assert!(group.committed <= group.last, "{group:?}");
        assert!(group.purged <= group.last, "{group:?}");
    }
    true
}

fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(format!("{number:016x}.log"))
}

fn open(disk: &SimDisk) -> Result<Vec<GroupSummary>, RaftError> {
    read_log(Arc::new(disk.clone()), DIR.into(), CLOCK.clone(), METRICS.clone())
}

/// Writes the number and the checksums that a segment would have, frame after frame (`raft/format.md`).
fn fit_checksums(segment: &mut [u8], number: u64) {
    if let Some(header) = segment.get_mut(..SEGMENT_HEADER) {
        header[8..16].copy_from_slice(&number.to_le_bytes());
        let sum = crc32fast::hash(&header[..40]);
        header[40..44].copy_from_slice(&sum.to_le_bytes());
        header[44..48].fill(0);
    }
    let mut at = SEGMENT_HEADER;
    while let Some(frame) = segment.get_mut(at..).filter(|rest| rest.len() >= FRAME_HEADER) {
        let payload = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]);
        let Some(covered) = frame.get(8..FRAME_HEADER + payload as usize) else { return };
        let mut hasher = crc32fast::Hasher::new_with_initial((number ^ (number >> 32)) as u32);
        hasher.update(&number.to_le_bytes());
        hasher.update(covered);
        let sum = hasher.finalize() ^ payload;
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
        at += (FRAME_HEADER + payload as usize).next_multiple_of(8);
    }
}
