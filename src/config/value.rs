//! What a setting can hold, and how it is written in a file or a flag.
//!
//! *Invariants:* `set(show())` gives the same value back. Durations carry their unit when written; sizes are bytes, with
//! `KiB`, `MiB`, `GiB` as allowed suffixes.
//!
//! *Not here:* which settings there are (`config::settings`).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::time::{format_duration_ms, parse_duration_ms};

/// A type a setting may have.
pub trait Value {
    /// Replaces the value by what `text` says; the error says what was expected.
    fn set(&mut self, text: &str) -> Result<(), String>;
    /// The value as it would be written in a file.
    fn show(&self) -> String;
    /// What may be written, in a word or two, for the documentation.
    fn kind(&self) -> &'static str;
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` binary kilobytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` binary megabytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` binary gigabytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

/// Suffixes, largest first, so that writing picks the largest that divides.
const SIZES: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift) {
            Some((suffix, shift)) => write!(f, "{}{suffix}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for ByteSize {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let wrong = || format!("expected a number of bytes such as 1048576 or 64MiB, got {text:?}");
        let (number, shift) =
            SIZES.iter().find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, *shift))).unwrap_or((text, 0));
        let number: u64 = number.trim_end().parse().map_err(|_| wrong())?;
        self.0 = number.checked_mul(1 << shift).ok_or_else(wrong)?;
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn kind(&self) -> &'static str {
        "bytes"
    }
}

impl Value for Duration {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let ms =
            parse_duration_ms(text).map_err(|_| format!("expected a duration such as 15s or 1h30m, got {text:?}"))?;
        *self = Duration::from_millis(ms.unsigned_abs());
        Ok(())
    }

    fn show(&self) -> String {
        format_duration_ms(i64::try_from(self.as_millis()).unwrap_or(i64::MAX))
    }

    fn kind(&self) -> &'static str {
        "duration"
    }
}

macro_rules! parsed {
    ($($ty:ty: $kind:literal, $expected:literal;)*) => {$(
        impl Value for $ty {
            fn set(&mut self, text: &str) -> Result<(), String> {
                *self = text.parse().map_err(|_| format!(concat!("expected ", $expected, ", got {:?}"), text))?;
                Ok(())
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn kind(&self) -> &'static str {
                $kind
            }
        }
    )*};
}

parsed! {
    u32: "number", "a whole number";
    u64: "number", "a whole number";
    usize: "number", "a whole number";
    bool: "boolean", "true or false";
    SocketAddr: "address", "an address such as 127.0.0.1:9009";
    String: "text", "text";
}

impl Value for PathBuf {
    fn set(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            return Err("expected a path, got nothing".into());
        }
        *self = PathBuf::from(text);
        Ok(())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }

    fn kind(&self) -> &'static str {
        "path"
    }
}

/// A setting with a few named values.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ pub enum $name:ident { $($(#[doc = $vdoc:literal])+ $variant:ident = $text:literal,)+ } kind $kind:literal) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $vdoc])+ $variant,)+ }

        impl Value for $name {
            fn set(&mut self, text: &str) -> Result<(), String> {
                *self = match text {
                    $($text => Self::$variant,)+
                    _ => return Err(format!(concat!("expected ", $kind, ", got {:?}"), text)),
                };
                Ok(())
            }

            fn show(&self) -> String {
                match self { $(Self::$variant => $text,)+ }.to_owned()
            }

            fn kind(&self) -> &'static str {
                $kind
            }
        }
    };
}

choice! {
    /// How log lines are written.
    pub enum LogFormat {
        /// `ts=… level=info target=… msg="…" key=value`
        Logfmt = "logfmt",
        /// One JSON object a line.
        Json = "json",
    } kind "logfmt or json"
}

choice! {
    /// Which parts this process plays.
    pub enum Roles {
        /// Every role.
        All = "all",
    } kind "all"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_what_they_write() {
        for (bytes, text) in [(0, "0"), (1000, "1000"), (2048, "2KiB"), (3 << 30, "3GiB"), (1536 << 10, "1536KiB")] {
            assert_eq!(ByteSize(bytes).show(), text);
            let mut back = ByteSize(7);
            back.set(text).unwrap();
            assert_eq!(back.0, bytes);
        }
        for bad in ["", "-1", "1.5GiB", "64MB", "99999999999TiB"] {
            assert!(ByteSize(0).set(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_text_leaves_the_value_alone() {
        let mut timeout = Duration::from_secs(120);
        assert!(timeout.set("2 minutes").is_err());
        assert_eq!(timeout.show(), "2m");
    }
}
