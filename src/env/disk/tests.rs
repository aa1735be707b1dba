//! Both disks keep what was synced; the simulated one loses the rest.

use std::path::Path;

use super::*;

const A: &str = "/d/a";

#[test]
fn a_crash_keeps_what_was_synced_and_nothing_that_was_never_written() {
    let mut lost = 0;
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        let file = disk.create(Path::new(A)).unwrap();
        file.write_at(0, b"durable!").unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(8, b"unsynced").unwrap();
        disk.crash();
        assert!(file.read_at(0, &mut [0; 1]).is_err(), "handles die with the power");
        let got = disk.contents(Path::new(A)).unwrap();
        assert_eq!(&got[..8], b"durable!");
        for (i, b) in got[8..].iter().enumerate() {
            assert!(*b == b"unsynced"[i] || *b == 0);
        }
        lost += usize::from(got.len() == 8);
    }
    assert!(lost > 0 && lost < 64, "{lost}");
}

#[test]
fn an_unsynced_name_may_vanish_and_a_synced_one_does_not() {
    let mut vanished = 0;
    for seed in 0..32 {
        let disk = SimDisk::new(seed);
        disk.create(Path::new(A)).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.rename(Path::new(A), Path::new("/d/b")).unwrap();
        disk.crash();
        let names = disk.list(Path::new("/d")).unwrap();
        assert!(names == ["a"] || names == ["b"], "{names:?}");
        vanished += usize::from(names == ["a"]);
    }
    assert!(vanished > 0 && vanished < 32);
}

#[test]
fn a_failed_sync_loses_its_bytes_although_they_can_be_read() {
    let disk = SimDisk::new(1);
    let file = disk.create(Path::new(A)).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(0, b"x").unwrap();
    disk.set_failing_syncs(true);
    assert!(file.sync().is_err());
    disk.set_failing_syncs(false);
    assert!(file.sync().is_ok());
    assert_eq!(file.len().unwrap(), 1);
    disk.crash();
    assert_eq!(disk.contents(Path::new(A)).unwrap(), b"");
}

#[test]
fn everything_fails_from_the_operation_at_which_the_power_goes() {
    let disk = SimDisk::new(1);
    let file = disk.create(Path::new(A)).unwrap();
    disk.crash_at(2);
    file.write_at(0, b"x").unwrap();
    assert!(file.sync().is_err());
    assert!(file.write_at(0, b"x").is_err() && disk.is_down());
    disk.crash();
    assert!(!disk.is_down());
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let disk = SimDisk::new(1);
    let file = disk.create(Path::new(A)).unwrap();
    disk.set_full(true);
    assert_eq!(file.write_at(0, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.set_full(false);
    assert!(file.write_at(0, b"x").is_ok());
}

#[test]
fn the_machines_disk_does_what_the_simulated_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("x/y");
    SystemDisk.create_dir(&sub).unwrap();
    let file = SystemDisk.create(&sub.join("a")).unwrap();
    file.write_at(3, b"abc").unwrap();
    file.sync().unwrap();
    let mut buf = [9; 6];
    file.read_exact_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"\0\0\0abc");
    assert!(file.read_exact_at(1, &mut buf).is_err());
    SystemDisk.rename(&sub.join("a"), &sub.join("b")).unwrap();
    SystemDisk.sync_dir(&sub).unwrap();
    assert_eq!(SystemDisk.list(&sub).unwrap(), ["b"]);
    assert_eq!(SystemDisk.open(&sub.join("b")).unwrap().len().unwrap(), 6);
    SystemDisk.remove(&sub.join("b")).unwrap();
    assert!(SystemDisk.list(&sub).unwrap().is_empty());
}
