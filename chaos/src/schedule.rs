//! Which faults in which order, from a seed. Pure.
//!
//! *Invariants:* the same profile and seed give the same schedule. Every kind of a profile comes once before any comes again.
//!
//! *Not here:* who is hit (decided when it happens: `faults`), doing it (`faults`).

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// kill -9 of a node that leads something.
    KillLeader,
    /// kill -9 of a majority.
    KillMajority,
    /// kill -9 of all nodes at once.
    KillAll,
    /// SIGSTOP, later SIGCONT, of a node that leads something.
    Pause,
    /// A node is cut off from all others, or a pair from each other.
    Cut,
    /// The same in one direction only.
    CutOneWay,
    /// A third of what a node sends to the others is lost.
    Loss,
    /// What a node sends and gets comes late and in another order.
    Delay,
    /// The disk of a node is full.
    DiskFull,
    /// A node's fsync fails with EIO.
    SyncFails,
    /// Every node in turn is stopped by SIGTERM and started again.
    Rolling,
    /// A node loses its directory and comes back as a new one.
    Replace,
    /// A node is added.
    Grow,
    /// A node is drained, removed and stopped.
    Shrink,
    /// The clock of a node jumps.
    Skew,
    /// The bucket cannot be reached.
    BucketAway,
    /// The bucket takes seconds for everything.
    BucketSlow,
    /// The bucket fails most requests, some of them after it did what was asked.
    BucketFails,
}

/// What faults can be made with here.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Network namespaces.
    pub namespaces: bool,
    /// TAP devices.
    pub tap: bool,
    /// `strace`.
    pub strace: bool,
    /// libfaketime.
    pub faketime: bool,
}

impl Kind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::KillMajority => "kill-majority",
            Self::KillAll => "kill-all",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::CutOneWay => "cut-one-way",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::DiskFull => "disk-full",
            Self::SyncFails => "sync-fails",
            Self::Rolling => "rolling-restart",
            Self::Replace => "replace",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Skew => "clock-skew",
            Self::BucketAway => "bucket-away",
            Self::BucketSlow => "bucket-slow",
            Self::BucketFails => "bucket-fails",
        }
    }

    /// Why it cannot be done here, if it cannot.
    pub fn impossible(self, means: Means) -> Option<&'static str> {
        match self {
            Self::Cut | Self::CutOneWay | Self::Loss | Self::Delay | Self::DiskFull if !means.namespaces => {
                Some("needs network namespaces")
            }
            Self::Delay if !means.tap => Some("needs /dev/net/tun"),
            Self::SyncFails if !means.strace => Some("needs strace"),
            Self::Skew if !means.faketime => Some("needs libfaketime"),
            _ => None,
        }
    }

    /// Whether a majority stays able to work: then the time without an answer counts from the fault on, else from its end.
    pub fn majority_stays(self) -> bool {
        !matches!(self, Self::KillMajority | Self::KillAll)
    }
}

/// One fault of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub kind: Kind,
    /// Milliseconds until it is undone.
    pub hold_ms: u64,
    /// Milliseconds of rest after it.
    pub rest_ms: u64,
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Most nodes at the same time.
    pub most: usize,
    /// Seconds of faults; all kinds are done once even if that takes longer.
    pub seconds: u64,
    /// What is done.
    pub kinds: Vec<Kind>,
    /// In the order given instead of a drawn one.
    pub in_order: bool,
    /// Bounds of a fault's time, milliseconds.
    pub hold_ms: (u64, u64),
    /// Bounds of the rest after it, milliseconds.
    pub rest_ms: (u64, u64),
    /// Milliseconds from one fault's beginning to the next one's at the least.
    pub period_ms: u64,
    /// Series of `metrolith load` beside the checked ones.
    pub load_series: u64,
    /// Longest the writes may be gone after a fault that leaves a majority, milliseconds (p99); 0 is no bar.
    pub gap_bar_ms: u64,
    /// Whether no query may fail.
    pub no_failed_query: bool,
}

impl Profile {
    /// Names of all profiles.
    pub const NAMES: [&'static str; 5] = ["short", "kill-leader", "kill-all", "elastic", "long"];

    /// A profile by its name.
    pub fn named(name: &str) -> Option<Self> {
        use Kind::*;
        let few = vec![
            KillLeader,
            KillMajority,
            KillAll,
            Pause,
            Cut,
            CutOneWay,
            Loss,
            Delay,
            DiskFull,
            SyncFails,
            Rolling,
            Replace,
            BucketAway,
            BucketSlow,
            BucketFails,
        ];
        let short = Self {
            name: "short",
            nodes: 3,
            most: 3,
            seconds: 90,
            kinds: few.clone(),
            in_order: false,
            hold_ms: (1_500, 4_000),
            rest_ms: (1_500, 3_000),
            period_ms: 0,
            load_series: 0,
            gap_bar_ms: 0,
            no_failed_query: false,
        };
        let profile = match name {
            "short" => short,
            "kill-leader" => Self {
                name: "kill-leader",
                seconds: 600,
                kinds: vec![KillLeader],
                hold_ms: (2_000, 6_000),
                period_ms: 20_000,
                load_series: 100_000,
                gap_bar_ms: 3_000,
                ..short
            },
            "kill-all" => Self {
                name: "kill-all",
                seconds: 0,
                kinds: vec![KillAll; 10],
                in_order: true,
                rest_ms: (5_000, 15_000),
                load_series: 10_000,
                ..short
            },
            "elastic" => Self {
                name: "elastic",
                nodes: 1,
                most: 5,
                seconds: 0,
                kinds: [[Grow; 4], [Shrink; 4]].concat(),
                in_order: true,
                rest_ms: (5_000, 10_000),
                load_series: 10_000,
                gap_bar_ms: 3_000,
                no_failed_query: true,
                ..short
            },
            "long" => Self {
                name: "long",
                nodes: 5,
                most: 6,
                seconds: 3_600,
                kinds: [few, vec![Grow, Shrink, Skew]].concat(),
                hold_ms: (2_000, 15_000),
                rest_ms: (2_000, 10_000),
                load_series: 20_000,
                ..short
            },
            _ => return None,
        };
        Some(profile)
    }

    /// The faults of one round over all kinds; the rounds of a run follow each other.
    pub fn round(&self, seed: u64, round: u64) -> Vec<Step> {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(round.wrapping_mul(0x9e37_79b9)));
        let mut kinds = self.kinds.clone();
        if !self.in_order {
            kinds.shuffle(&mut rng);
        }
        let mut draw = |(least, most): (u64, u64)| rng.random_range(least..=most);
        kinds
            .iter()
            .map(|kind| Step { kind: *kind, hold_ms: draw(self.hold_ms), rest_ms: draw(self.rest_ms) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_every_kind_comes() {
        let profile = Profile::named("long").unwrap();
        assert_eq!(profile.round(3, 1), profile.round(3, 1));
        assert_ne!(profile.round(3, 1), profile.round(4, 1));
        assert_ne!(profile.round(3, 1), profile.round(3, 2));
        let mut kinds: Vec<Kind> = profile.round(3, 1).iter().map(|step| step.kind).collect();
        let mut expected = profile.kinds.clone();
        kinds.sort_unstable();
        expected.sort_unstable();
        assert_eq!(kinds, expected);
    }

    #[test]
    fn growing_comes_before_shrinking() {
        let kinds: Vec<Kind> = Profile::named("elastic").unwrap().round(1, 0).iter().map(|step| step.kind).collect();
        assert_eq!(kinds, [[Kind::Grow; 4], [Kind::Shrink; 4]].concat());
    }

    #[test]
    fn every_profile_has_its_name() {
        for name in Profile::NAMES {
            assert_eq!(Profile::named(name).unwrap().name, name);
        }
    }
}
