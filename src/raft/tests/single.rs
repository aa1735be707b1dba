//! Groups of one replica on a shared log.

use std::time::Duration;

use super::*;
use crate::env::clock::ManualClock;
use crate::peers::Peers;

#[tokio::test]
async fn answers_a_proposal_once_it_is_applied_and_keeps_it_over_a_restart() {
    let disk = SimDisk::new(1);
    let (host, group, journal) = alone(&disk, options(1)).await.unwrap();
    assert!(group.is_leader());
    let mut last = 0;
    for n in 0..50 {
        let done = group.propose(payload(n)).await.unwrap();
        assert_eq!(done.reply, (n + 1).to_string());
        assert!(done.index > last && group.applied_index() >= done.index && group.flushed_index() >= done.index);
        last = done.index;
    }
    assert!(group.read_index().await.unwrap() >= last);
    assert_eq!(journal.entries().len(), 50);
    host.shutdown().await;
    disk.crash();

    let (host, group, journal) = alone(&disk, options(1)).await.unwrap();
    assert_eq!(journal.entries(), (0..50).map(payload).collect::<Vec<_>>());
    assert_eq!(group.propose(payload(50)).await.unwrap().reply, "51");
    assert_eq!(host.stored_groups(), [G]);
    host.shutdown().await;
}

#[tokio::test]
async fn many_proposals_at_once_share_group_commits() {
    let disk = SimDisk::new(1);
    let (host, group, journal) = alone(&disk, options(1)).await.unwrap();
    let before = disk.operations();
    let all = (0..200).map(|n| {
        let group = group.clone();
        tokio::spawn(async move { group.propose(payload(n)).await.unwrap() })
    });
    let all: Vec<_> = all.collect();
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(journal.entries().len(), 200);
    assert!(disk.operations() - before < 400, "a write and a sync for each: {}", disk.operations() - before);
    host.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_frees_the_log_and_bounds_the_replay() {
    let disk = SimDisk::new(1);
    let (host, group, _) = alone(&disk, options(1)).await.unwrap();
    for n in 0..100 {
        group.propose(payload(n)).await.unwrap();
    }
    let segments = || disk.list("/node1/log".as_ref()).unwrap().into_iter().filter(|n| n.ends_with(".log")).count();
    assert!(segments() > 4);
    let covered = group.snapshot_now().await.unwrap();
    assert!(covered >= 100);
    group.propose(payload(100)).await.unwrap();
    group.propose(payload(101)).await.unwrap();
    assert_eq!(segments(), 1);
    group.snapshot_now().await.unwrap();
    assert_eq!(disk.list("/node1/snapshots".as_ref()).unwrap().len(), 1);
    group.propose(payload(102)).await.unwrap();
    host.shutdown().await;
    disk.crash();

    let (host, group, journal) = alone(&disk, options(1)).await.unwrap();
    assert_eq!(journal.entries(), (0..103).map(payload).collect::<Vec<_>>());
    assert_eq!(group.propose(payload(103)).await.unwrap().reply, "104");
    host.shutdown().await;
}

#[tokio::test]
async fn groups_that_pin_a_long_log_are_snapshotted() {
    let disk = SimDisk::new(1);
    let (host, busy, _) = alone(&disk, HostOptions { snapshot_log_bytes: 20 << 10, ..options(1) }).await.unwrap();
    let quiet = host.start_group(GroupId(9), Box::new(Journal::default()), Bootstrap::SingleVoter).await.unwrap();
    quiet.propose(payload(0)).await.unwrap();
    for n in 0..2000 {
        busy.propose(payload(n)).await.unwrap();
    }
    // Shortening runs beside the proposals; it is done once the extent says so.
    for n in 2000.. {
        busy.propose(payload(n)).await.unwrap();
        let extent = host.log_extent();
        if extent < 40 << 10 {
            break;
        }
        assert!(n < 20_000, "{extent} bytes of log");
    }
    host.shutdown().await;
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let disk = SimDisk::new(1);
    let (host, group, _) = alone(&disk, options(1)).await.unwrap();
    disk.set_failing_syncs(true);
    assert!(matches!(group.propose(payload(0)).await, Err(RaftError::Fatal { .. })));
    assert!(matches!(host.fatal().await, RaftError::Fatal { .. }));
    disk.set_failing_syncs(false);
    assert!(group.propose(payload(1)).await.is_err(), "no retry of a failed sync");
    host.shutdown().await;
    disk.crash();
    let (host, _, journal) = alone(&disk, options(1)).await.unwrap();
    assert!(journal.entries().is_empty());
    host.shutdown().await;
}

#[tokio::test]
async fn a_full_disk_stalls_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(1);
    let (host, group, _) = alone(&disk, options(1)).await.unwrap();
    disk.set_full(true);
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.propose(payload(0)).await }
    });
    while !host.is_stalled() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(group.propose(payload(1)).await, Err(RaftError::Unavailable { .. })));
    group.read_index().await.unwrap();
    disk.set_full(false);
    waiting.await.unwrap().unwrap();
    assert!(!host.is_stalled());
    host.shutdown().await;
}

#[tokio::test]
async fn refuses_entries_over_the_limit_and_groups_it_does_not_have() {
    let disk = SimDisk::new(1);
    let (host, group, _) = alone(&disk, options(1)).await.unwrap();
    let huge = Bytes::from(vec![0; (64 << 20) + 1]);
    assert!(matches!(group.propose(huge).await, Err(RaftError::TooLarge { .. })));
    let again = host.start_group(G, Box::new(Journal::default()), Bootstrap::SingleVoter).await;
    assert!(matches!(again, Err(RaftError::NoSuchGroup { .. })));
    let unknown = host.start_group(GroupId(1), Box::new(Journal::default()), Bootstrap::Resume).await;
    assert!(matches!(unknown, Err(RaftError::NoSuchGroup { .. })));
    host.shutdown().await;
}

#[tokio::test]
async fn a_deleted_group_does_not_come_back() {
    let disk = SimDisk::new(1);
    let (host, group, _) = alone(&disk, options(1)).await.unwrap();
    let other = host.start_group(GroupId(9), Box::new(Journal::default()), Bootstrap::SingleVoter).await.unwrap();
    for n in 0..50 {
        group.propose(payload(n)).await.unwrap();
    }
    group.snapshot_now().await.unwrap();
    host.delete_group(G).await.unwrap();
    other.propose(payload(0)).await.unwrap();
    host.shutdown().await;
    disk.crash();
    let host = super::host(&disk, options(1)).await.unwrap();
    assert_eq!(host.stored_groups(), [GroupId(9)]);
    assert!(disk.list("/node1/snapshots".as_ref()).unwrap().iter().all(|n| n.starts_with("0000000000000009")));
    host.shutdown().await;
}

#[tokio::test]
async fn readers_of_a_replica_that_was_removed_are_sent_away_at_once() {
    let disk = SimDisk::new(5);
    // Time stands still: whoever waits for it to pass waits forever. There are other nodes that may be asked.
    let (still, router) = (Arc::new(ManualClock::at(0)), Arc::new(Router::over(Peers::default())));
    let (rng, disk) = (Arc::new(SeededRng::new(5)), Arc::new(disk));
    let host = Host::open_with_router(options(1), disk, still, rng, metrics(), router).await.unwrap();
    let group = host.start_group(G, Box::new(Journal::default()), Bootstrap::SingleVoter).await.unwrap();
    group.read_index().await.unwrap();
    host.delete_group(G).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(10), group.read_index()).await;
    assert!(matches!(refused.unwrap(), Err(RaftError::Unavailable { .. })));
    host.shutdown().await;
}
