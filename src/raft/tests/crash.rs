//! Power loss at every write, sync and rename; damage at every frame.

use std::path::PathBuf;

use super::*;
use crate::raft::frame::{BatchBuf, Head, Kind};
use crate::raft::log::{Log, Shared};
use crate::raft::segment::{SegmentHeader, Segments};
use crate::raft::types::{Command, Entry, LeaderId, LogId, Payload, Vote};
use crate::raft::writer::{Done, WriterOptions};

const OPTIONS: WriterOptions = WriterOptions { segment_bytes: 700, cache_bytes: 200, recycle: true };

fn open(disk: &SimDisk) -> Result<Arc<Log>, RaftError> {
    Log::open(Arc::new(disk.clone()), PathBuf::from("/log"), OPTIONS, Shared::new(clock(), metrics()))
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64) -> Entry {
    let text = format!("{term}/{index} {}", "x".repeat((index * 37 % 90) as usize));
    Entry { log_id: id(term, index), payload: Payload::Normal(Command(Bytes::from(text))) }
}

/// What a caller was told, and what it asked for beyond that.
#[derive(Clone, Default)]
struct Expected {
    /// Entries by index that were acknowledged, from the oldest not purged.
    acked: BTreeMap<u64, Entry>,
    /// Everything ever appended.
    asked: Vec<Entry>,
    vote: Option<u64>,
    asked_vote: Option<u64>,
    purged: Option<u64>,
    asked_purged: Option<u64>,
}

/// Does a bit of everything to two groups until the disk fails.
async fn work(log: &Arc<Log>, seen: &mut [Expected; 2]) -> io::Result<()> {
    for term in 1..4u64 {
        for (which, seen) in seen.iter_mut().enumerate() {
            let group = match log.group(GroupId(which as u64)) {
                Some(group) => group,
                None => log.create_group(GroupId(which as u64), 1).await?,
            };
            seen.asked_vote = Some(term);
            log.save_vote(&group, Vote::new(term, 1)).await?;
            seen.vote = Some(term);

            // A new term overwrites the last two entries of the one before.
            let last = Log::bounds(&group).0.map_or(0, |l| l.index() + 1);
            let from = last.saturating_sub(if term > 1 { 2 } else { 0 });
            if from < last {
                let keep = from.checked_sub(1).map(|index| id(term - 1, index));
                seen.acked.retain(|index, _| *index < from);
                log.truncate_after(&group, keep)?;
            }
            for index in from..from + 4 {
                let new = entry(term, index);
                seen.asked.push(new.clone());
                let (tell, told) = tokio::sync::oneshot::channel();
                log.append(&group, vec![new.clone()], Done::Waiter(tell))?;
                Log::save_committed(&group, index.checked_sub(2).map(|i| id(term, i)).filter(|i| i.index() >= from));
                told.await.map_err(io::Error::other)??;
                seen.acked.insert(index, new);
            }
            // The second group is slower to purge: it pins segments.
            if term as usize > which {
                let upto = from;
                seen.asked_purged = Some(upto);
                log.purge(&group, id(term, upto))?;
                seen.acked.retain(|index, _| *index > upto);
            }
        }
    }
    Ok(())
}

fn check(log: &Log, seen: &[Expected; 2], fate: &str) {
    for (which, seen) in seen.iter().enumerate() {
        let Some(group) = log.group(GroupId(which as u64)) else {
            assert!(seen.vote.is_none(), "{fate}: group {which} is gone");
            continue;
        };
        let state = group.state.lock();
        let vote = state.vote.map(|v| v.leader_id.term);
        assert!(vote >= seen.vote && vote <= seen.asked_vote, "{fate}: vote {vote:?}, promised {:?}", seen.vote);
        let purged = state.purged.map(|p| p.index());
        assert!(purged >= seen.purged && purged <= seen.asked_purged, "{fate}: purged {purged:?}");
        assert!(state.committed <= state.last(), "{fate}: committed beyond the log");
        drop(state);
        let found = log.read(&group, 0, u64::MAX, usize::MAX).unwrap();
        for found in &found {
            assert!(seen.asked.contains(found), "{fate}: entry {} was never written", found.log_id);
        }
        for (index, want) in &seen.acked {
            let there = found.iter().any(|e| e == want);
            assert!(there || purged >= Some(*index), "{fate}: acknowledged entry {} is gone", want.log_id);
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    let total = {
        let disk = SimDisk::new(0);
        let log = open(&disk).unwrap();
        work(&log, &mut Default::default()).await.unwrap();
        log.close();
        disk.operations()
    };
    assert!(total > 60, "{total} operations");
    for moment in 1..=total {
        let disk = SimDisk::new(moment);
        disk.crash_at(moment);
        let mut seen = <[Expected; 2]>::default();
        if let Ok(log) = open(&disk) {
            drop(work(&log, &mut seen).await);
            log.close();
        }
        for fate in 0..6 {
            let mut disk = disk.fork(moment * 100 + fate);
            disk.crash();
            // The power may go again while the log is repaired.
            if fate % 2 == 1 {
                disk.crash_at(1 + fate);
                drop(open(&disk));
                disk = disk.fork(fate);
                disk.crash();
            }
            let fate = format!("power lost at operation {moment} of {total}, fate {fate}");
            let log = open(&disk).unwrap_or_else(|e| panic!("{fate}: {e}"));
            check(&log, &seen, &fate);
            // It goes on where it stopped.
            let mut more = seen.clone();
            if let Err(e) = work(&log, &mut more).await {
                panic!("{fate}: {e}");
            }
            log.close();
        }
    }
}

/// Everything in the log, as text.
fn dump(log: &Log) -> String {
    let mut out = String::new();
    for group in log.groups() {
        let vote = group.state.lock().vote;
        let entries = log.read(&group, 0, u64::MAX, usize::MAX).unwrap();
        out += &format!("{} {vote:?} {:?} {entries:?}\n", group.id, Log::bounds(&group));
    }
    out
}

#[tokio::test]
async fn what_an_opened_log_shows_is_durable_even_if_its_bytes_were_only_cached() {
    for moment in 1..200 {
        let disk = SimDisk::new(moment);
        if moment % 4 == 0 {
            disk.crash_at(moment);
        }
        if let Ok(log) = open(&disk) {
            if moment % 4 != 0 {
                disk.set_failing_syncs(moment % 4 == 1);
                disk.crash_at(moment);
            }
            drop(work(&log, &mut Default::default()).await);
            log.close();
        }
        disk.set_failing_syncs(false);
        disk.restart();
        let shown = dump(&open(&disk).unwrap());
        disk.crash();
        assert_eq!(dump(&open(&disk).unwrap()), shown, "process died at operation {moment}");
    }
}

/// A log with several segments, and what is in it.
async fn filled() -> (SimDisk, [Expected; 2]) {
    let disk = SimDisk::new(5);
    let mut seen = <[Expected; 2]>::default();
    let log = open(&disk).unwrap();
    work(&log, &mut seen).await.unwrap();
    log.close();
    (disk, seen)
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list("/log".as_ref()).unwrap().into_iter().filter(|n| n.ends_with(".log"));
    names.map(|n| PathBuf::from("/log").join(n)).collect()
}

#[tokio::test]
async fn damage_is_an_error_or_cuts_the_last_commit_and_never_invents() {
    let (disk, seen) = filled().await;
    let files = segments(&disk);
    assert!(files.len() > 2);
    let (mut refused, mut cut) = (0, 0);
    for (at, path) in files.iter().enumerate() {
        let good = disk.contents(path).unwrap();
        for offset in (0..good.len()).step_by(5) {
            for kind in 0..3 {
                let mut bad = good.clone();
                match kind {
                    0 => bad[offset] ^= 0x10,
                    1 => bad[offset..].iter_mut().take(8).for_each(|b| *b = 0),
                    _ => bad.truncate(offset),
                }
                if bad == good {
                    continue;
                }
                let disk = disk.fork(1);
                disk.corrupt(path, bad);
                let what = format!("damage {kind} of {} at {offset}", path.display());
                match open(&disk) {
                    Err(RaftError::Corrupt { .. }) => refused += 1,
                    Err(e) => panic!("{what}: {e}"),
                    Ok(log) => {
                        // Padding, or old bytes behind the end, or the last commit, or a clean end of the last file.
                        cut += 1;
                        let mut less = seen.clone();
                        if at + 1 == files.len() {
                            less.iter_mut().for_each(|s| (s.vote, s.purged) = (None, None));
                            less.iter_mut().for_each(|s| s.acked.clear());
                        }
                        check(&log, &less, &what);
                        log.close();
                    }
                }
            }
        }
    }
    assert!(refused > cut && cut > 0, "{refused} refused, {cut} opened");
}

#[tokio::test]
async fn a_commit_whose_padding_is_missing_is_cut() {
    for length in 1..=8 {
        let disk = SimDisk::new(1);
        let log = open(&disk).unwrap();
        let group = log.create_group(GroupId(0), 1).await.unwrap();
        let payload = Payload::Normal(Command(Bytes::from("x".repeat(length))));
        let (tell, told) = tokio::sync::oneshot::channel();
        log.append(&group, vec![Entry { log_id: id(1, 0), payload }], Done::Waiter(tell)).unwrap();
        told.await.unwrap().unwrap();
        log.close();
        let last = segments(&disk).pop().unwrap();
        let good = disk.contents(&last).unwrap();
        for cut in 1..=8 {
            let disk = disk.fork(1);
            disk.corrupt(&last, good[..good.len() - cut].to_vec());
            let opened = open(&disk).map(|log| log.close());
            assert!(opened.is_ok(), "{length} bytes, {cut} cut: {opened:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_damage() {
    let (disk, _) = filled().await;
    let files = segments(&disk);
    disk.remove(&files[files.len() / 2]).unwrap();
    assert!(matches!(open(&disk), Err(RaftError::Corrupt { .. })));
}

#[tokio::test]
async fn numbers_that_no_log_counts_up_to_are_damage() {
    let open_with = |previous_batch: u64, term, index| {
        let disk = SimDisk::new(1);
        let segments = Segments::new(Arc::new(disk.clone()), PathBuf::from("/log"));
        let mut buf = BatchBuf { bytes: Vec::new(), segment: 1, batch: previous_batch.wrapping_add(1) };
        buf.push(Head::new(Kind::GroupCreated, GroupId(1)).with_replica(1), |_| {});
        buf.push(Head::new(Kind::Purged, GroupId(1)).with_log_id(Some(&id(term, index))), |_| {});
        segments.create(SegmentHeader { number: 1, previous_end: 48, previous_batch }, &buf.bytes, false).unwrap();
        open(&disk).map(drop)
    };
    assert!(open_with(0, 1, 5).is_ok());
    for (batch, term, index) in [(0, 1, u64::MAX), (0, u64::MAX, 5), (u64::MAX, 1, 5)] {
        let result = open_with(batch, term, index);
        assert!(matches!(result, Err(RaftError::Corrupt { .. })), "{batch} {term} {index}: {result:?}");
    }
}

/// Found by fuzzing: the last entry may be of a later term than a commit record of a higher index.
#[tokio::test]
async fn a_commit_record_beyond_the_log_is_cut_back_to_it() {
    let disk = SimDisk::new(1);
    let segments = Segments::new(Arc::new(disk.clone()), PathBuf::from("/log"));
    let mut buf = BatchBuf { bytes: Vec::new(), segment: 1, batch: 1 };
    buf.push(Head::new(Kind::GroupCreated, GroupId(1)).with_replica(1), |_| {});
    buf.push(Head::new(Kind::Purged, GroupId(1)).with_log_id(Some(&id(2, 8))), |_| {});
    buf.push(Head::new(Kind::Committed, GroupId(1)).with_log_id(Some(&id(1, 29))), |_| {});
    segments.create(SegmentHeader { number: 1, previous_end: 48, previous_batch: 0 }, &buf.bytes, false).unwrap();
    let log = open(&disk).unwrap();
    let group = log.group(GroupId(1)).unwrap();
    assert_eq!(group.state.lock().committed, Some(id(2, 8)));
}

#[tokio::test]
async fn survives_any_bytes_in_any_file() {
    let (disk, _) = filled().await;
    let rng = SeededRng::new(11);
    use crate::env::Rng;
    for path in segments(&disk) {
        let len = disk.contents(&path).unwrap().len();
        for _ in 0..20 {
            let disk = disk.fork(1);
            let noise = (0..rng.below(len as u64 * 2)).map(|_| rng.next_u64() as u8).collect();
            disk.corrupt(&path, noise);
            assert!(open(&disk).is_err());
        }
    }
}

#[tokio::test]
async fn snapshots_survive_power_loss_at_every_step_and_damage_is_noticed() {
    let total = {
        let disk = SimDisk::new(0);
        let (host, group, _) = alone(&disk, options(1)).await.unwrap();
        for n in 0..12 {
            group.propose(payload(n)).await.unwrap();
        }
        let before = disk.operations();
        group.snapshot_now().await.unwrap();
        group.propose(payload(12)).await.unwrap();
        let after = disk.operations();
        host.shutdown().await;
        (before, after)
    };
    for moment in total.0..=total.1 + 1 {
        let disk = SimDisk::new(moment);
        let (host, group, _) = alone(&disk, options(1)).await.unwrap();
        for n in 0..12 {
            group.propose(payload(n)).await.unwrap();
        }
        disk.crash_at((moment + 1).saturating_sub(disk.operations()).max(1));
        let mut acked = 12;
        if group.snapshot_now().await.is_ok() && group.propose(payload(12)).await.is_ok() {
            acked = 13;
        }
        host.shutdown().await;
        disk.crash();
        let (host, group, journal) = alone(&disk, options(1)).await.unwrap();
        let entries = journal.entries();
        assert!(entries.len() >= acked, "operation {moment}: {} of {acked}", entries.len());
        assert_eq!(entries, (0..entries.len()).map(payload).collect::<Vec<_>>(), "operation {moment}");
        group.snapshot_now().await.unwrap();
        host.shutdown().await;

        if moment == total.1 {
            let name = disk.list("/node1/snapshots".as_ref()).unwrap().pop().unwrap();
            let path = PathBuf::from("/node1/snapshots").join(name);
            let good = disk.contents(&path).unwrap();
            for offset in (0..good.len() - 4).step_by(3) {
                let disk = disk.fork(1);
                let mut bad = good.clone();
                bad[offset] ^= 1;
                disk.corrupt(&path, bad);
                let opened = alone(&disk, options(1)).await;
                assert!(matches!(opened, Err(RaftError::Corrupt { .. })), "flipped byte {offset}");
            }
        }
    }
}
