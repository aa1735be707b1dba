//! The record of every acknowledged request, for a checker that asks the server for the samples afterwards.
//!
//! *Invariants:* a line is written, and handed to the operating system, after the acknowledgement and before the next
//! request of the same series: what is in the file was acknowledged, what is not may have been.
//!
//! *Not here:* the values (`Workload::value` of the seed in the first line).
//!
//! The format is text. First line: `metrolith-load 1 seed=SEED`; then one line per request, `FROM TO T`: series FROM up to
//! but without TO each have the sample of the timestamp T (milliseconds).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};

const MAGIC: &str = "metrolith-load 1 seed=";

/// One acknowledged request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Its series.
    pub series: Range<u64>,
    /// The timestamp of their samples, milliseconds.
    pub t: i64,
}

/// A file being written.
pub struct AckLog(File);

impl AckLog {
    /// Creates the file, or continues it when it is of the same seed.
    pub fn open(path: &Path, seed: u64) -> anyhow::Result<Self> {
        let context = || format!("opening ack log {}", path.display());
        if path.exists() {
            let (before, _) = read(path)?;
            if before != seed {
                bail!("ack log {} is of seed {before}, not {seed}", path.display());
            }
            return Ok(Self(File::options().append(true).open(path).with_context(context)?));
        }
        let mut file = File::create(path).with_context(context)?;
        writeln!(file, "{MAGIC}{seed}").with_context(context)?;
        Ok(Self(file))
    }

    /// Adds an acknowledged request.
    pub fn write(&mut self, ack: &Ack) -> std::io::Result<()> {
        self.0.write_all(format!("{} {} {}\n", ack.series.start, ack.series.end, ack.t).as_bytes())
    }
}

/// Reads a file: its seed and what was acknowledged, in order.
pub fn read(path: &Path) -> anyhow::Result<(u64, Vec<Ack>)> {
    let file = File::open(path).with_context(|| format!("opening ack log {}", path.display()))?;
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let seed = first.strip_prefix(MAGIC).and_then(|seed| seed.parse().ok());
    let seed = seed.with_context(|| format!("{} is no ack log: {first:?}", path.display()))?;
    let mut acks = Vec::new();
    for (number, line) in lines.enumerate() {
        let line = line?;
        let wrong = || format!("line {} of ack log {}: {line:?}", number + 2, path.display());
        let mut numbers = line.split(' ').map(str::parse::<i64>);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(from)), Some(Ok(to)), Some(Ok(t)), None) => {
                acks.push(Ack { series: from as u64..to as u64, t });
            }
            _ => bail!(wrong()),
        }
    }
    Ok((seed, acks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_a_file_of_the_same_seed_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acks");
        let ack = |t| Ack { series: 0..2000, t };
        AckLog::open(&path, 7).unwrap().write(&ack(1)).unwrap();
        AckLog::open(&path, 7).unwrap().write(&ack(2)).unwrap();
        assert!(AckLog::open(&path, 8).is_err());
        assert_eq!(read(&path).unwrap(), (7, vec![ack(1), ack(2)]));
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acks");
        std::fs::write(&path, format!("{MAGIC}1\n0 1 2\n0 1\n")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 3"));
    }
}
