//! The outside world behind seams: clock, crash points, disk, randomness, network.
//!
//! *Invariants:* nothing below this module reads a clock, a disk or a random number in another way, so that a whole
//! cluster can run in a simulator from a seed.

pub mod clock;
pub mod crash;
pub mod disk;
pub mod rng;

pub use clock::{Clock, SystemClock};
pub use disk::{Disk, DiskFile, SimDisk, SystemDisk};
pub use rng::{Rng, SeededRng, SystemRng};
