//! The memory of another process, as the kernel counts it.

/// Forgets the highest resident memory so far; what is resident now, bytes.
pub fn reset_peak(pid: u32) -> u64 {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    of(pid, "VmRSS")
}

/// The highest resident memory since it was forgotten, bytes.
pub fn peak(pid: u32) -> u64 {
    of(pid, "VmHWM")
}

fn of(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}
