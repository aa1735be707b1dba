//! Every setting: unit, default, bound; read from a YAML file and from flags of the same names.
//!
//! Flags win over the file, the file over defaults. Unknown keys are refused, with the nearest known one.
//!
//! *Invariants:* a [`Config`] that came out of [`Config::load`] has passed [`Config::validate`] and has no empty `node_name`,
//! and an empty `bucket` only if it joins a cluster. Parts of the process get their section (or single values), never a global.
//!
//! *Not here:* what the settings do (each part of the process), flag parsing (`cli`).

pub mod docs;
pub mod features;
pub mod section;
pub mod settings;
pub mod value;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{HasKind, Kind};
use crate::model::TenantId;
pub use features::{Feature, Features};
use section::{Section, Setting};
pub use settings::{Config, Flush, Head, Limits, Log, Query, Raft, SelfMonitoring, Store, Write};
pub use value::{ByteSize, LogFormat, Roles};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("reading configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML, or a key or value in it is wrong.
    #[error("configuration {path}: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        what: String,
    },
    /// A flag is wrong.
    #[error("flag --{flag}: {what}")]
    Flag {
        /// The flag without its dashes.
        flag: String,
        /// What is wrong.
        what: String,
    },
    /// A value is outside its bound, or values contradict each other.
    #[error("setting {key}: {what}")]
    Bound {
        /// Dotted path.
        key: String,
        /// What is wrong.
        what: String,
    },
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// A configuration and what should be said about it once logging works.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things that were ignored.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads `file` if given, lays `flags` (dotted key, text) over it, fills in what was left empty and checks all.
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Loaded, Error> {
        let (mut config, warnings) = match file {
            None => (Self::default(), Vec::new()),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
                yaml::read(&text).map_err(|what| Error::File { path: path.to_owned(), what })?
            }
        };
        for (key, text) in flags {
            config.set(key, text).map_err(|what| Error::Flag { flag: flag_name(key), what })?;
        }
        config.fill()?;
        config.validate()?;
        Ok(Loaded { config, warnings })
    }

    /// The limits of one tenant.
    pub fn limits_of(&self, tenant: &TenantId) -> &Limits {
        self.overrides.get(tenant).unwrap_or(&self.limits)
    }

    /// Sets one setting by its dotted key. The error says what was expected, or which key is nearest.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        set_in(self, key, text)
    }

    /// All settings but those of single tenants, as a file would say them.
    pub fn to_yaml(&self) -> String {
        let mut yaml = String::new();
        let mut group = String::new();
        self.clone().visit("", &mut |setting| {
            let (section, name) = setting.key.split_once('.').unwrap_or(("", &setting.key));
            if section != group {
                group = section.to_owned();
                yaml.push_str(&format!("{section}:\n"));
            }
            let indent = if section.is_empty() { "" } else { "  " };
            yaml.push_str(&format!("{indent}{name}: {}\n", setting.value.show()));
        });
        yaml
    }

    /// All settings but those of single tenants, as flags would say them.
    pub fn to_flags(&self) -> BTreeMap<String, String> {
        let mut flags = BTreeMap::new();
        self.clone().visit("", &mut |setting| {
            flags.insert(flag_name(&setting.key), setting.value.show());
        });
        flags
    }

    /// Checks every bound and what must hold between settings.
    pub fn validate(&mut self) -> Result<(), Error> {
        check_bounds(self, "")?;
        for (tenant, limits) in &mut self.overrides {
            check_bounds(limits, &format!("overrides.{tenant}."))?;
        }
        let bound = |key: &str, what: &str| Err(Error::Bound { key: key.to_owned(), what: what.to_owned() });
        if self.query.max_bytes > self.query.max_total_bytes {
            return bound("query.max_bytes", "one query may not take more than all of them (query.max_total_bytes)");
        }
        if self.raft.segment_bytes > self.raft.snapshot_log_bytes {
            return bound("raft.segment_bytes", "a segment may not be larger than raft.snapshot_log_bytes");
        }
        if self.write.max_body_bytes > self.write.max_inflight_bytes {
            return bound("write.max_body_bytes", "one body may not be larger than write.max_inflight_bytes");
        }
        Ok(())
    }

    /// Replaces the empty values whose meaning depends on others or on the host.
    fn fill(&mut self) -> Result<(), Error> {
        if self.bucket.is_empty() && self.join.is_empty() {
            let path = std::path::absolute(self.data_dir.join("bucket"))
                .map_err(|source| Error::Read { path: self.data_dir.clone(), source })?;
            self.bucket = format!("file://{}", path.display());
        }
        if self.node_name.is_empty() {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            self.node_name = if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() };
        }
        Ok(())
    }
}

/// The flag of a dotted key: `query.max_samples` is `--query-max-samples`.
pub fn flag_name(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// All dotted keys of a section.
fn keys_of(section: &mut impl Section) -> Vec<String> {
    let mut keys = Vec::new();
    section.visit("", &mut |setting| keys.push(setting.key));
    keys
}

fn set_in(section: &mut impl Section, key: &str, text: &str) -> Result<(), String> {
    let mut outcome = None;
    section.visit("", &mut |setting: Setting<'_>| {
        if setting.key == key {
            outcome = Some(setting.value.set(text));
        }
    });
    outcome.unwrap_or_else(|| Err(unknown(key, &keys_of(section))))
}

/// What to say about a key nobody knows: the nearest known one, if there is a near one.
fn unknown<S: AsRef<str>>(key: &str, known: &[S]) -> String {
    let near = |name: &str| {
        let whole = strsim::normalized_damerau_levenshtein(key, name);
        // A key written in the wrong place is near to one with the same last word.
        let last = strsim::normalized_damerau_levenshtein(last_word(key), last_word(name)) * 0.9;
        whole.max(last)
    };
    let best = known.iter().map(|name| (near(name.as_ref()), name.as_ref())).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, name)) if score >= 0.55 => format!("unknown key {key:?}, did you mean {name:?}?"),
        _ => format!("unknown key {key:?}"),
    }
}

fn last_word(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn check_bounds(section: &mut impl Section, prefix: &str) -> Result<(), Error> {
    let mut first = None;
    section.visit(prefix, &mut |setting| {
        if let (false, Some((least, most)), None) = (setting.inside, &setting.bound, &first) {
            let what = format!("must be from {least} to {most}, is {}", setting.value.show());
            first = Some(Error::Bound { key: setting.key, what });
        }
    });
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
