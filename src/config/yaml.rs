//! A YAML configuration file, walked key by key with its lines.
//!
//! *Invariants:* a key is either a setting, a group, or refused; only inside `overrides` a limit nobody knows is skipped
//! with a warning, so that a runtime file written for Mimir loads.
//!
//! *Not here:* bounds (`Config::validate`).

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::section::Section;
use super::{Config, keys_of, set_in, unknown};
use crate::model::TenantId;

/// Reads a whole file; the error names the line, the warnings what was skipped.
pub(super) fn read(text: &str) -> Result<(Config, Vec<String>), String> {
    let entries = entries(text)?;
    let mut config = Config::default();
    let mut warnings = Vec::new();
    let (overrides, settings): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.tenant.is_some());
    for Entry { key, text, line, .. } in settings {
        config.set(&key, &text).map_err(|what| format!("line {line}: {key}: {what}"))?;
    }
    // Overrides start from the limits of the same file, wherever in it these stand.
    for Entry { tenant, key, text, line } in overrides {
        let Some(tenant) = tenant else { continue };
        let name = TenantId::new(&tenant).map_err(|what| format!("line {line}: overrides: {what}"))?;
        let limits = config.overrides.entry(name).or_insert_with(|| config.limits.clone());
        let known = keys_of(limits);
        if !known.contains(&key) {
            warnings.push(format!("line {line}: overrides of {tenant}: {} (ignored)", unknown(&key, &known)));
            continue;
        }
        set_in(limits, &key, &text).map_err(|what| format!("line {line}: overrides of {tenant}: {key}: {what}"))?;
    }
    Ok((config, warnings))
}

/// One scalar of the file.
struct Entry {
    /// Set below `overrides.<tenant>`; `key` is then a limit's name.
    tenant: Option<String>,
    key: String,
    text: String,
    line: u64,
}

fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut known = keys_of(&mut Config::default());
    let mut groups = Vec::new();
    Config::groups(&mut |name, _| groups.push(name));
    known.extend(groups.iter().map(|name| (*name).to_owned()));
    known.push("overrides".to_owned());
    let mut out = Vec::new();
    // A file of nothing but comments is an empty configuration.
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(out);
    }
    let walk = Walk { place: Place::Top, known: &known, groups: &groups, out: &mut out };
    serde_saphyr::with_deserializer_from_str(text, |de| walk.deserialize(de))
        .map_err(|e| e.without_snippet().to_string())?;
    Ok(out)
}

/// Where in the file the walk is.
enum Place {
    Top,
    Group(String),
    Overrides,
    Tenant(String),
}

struct Walk<'w> {
    place: Place,
    /// Every dotted key, and the groups, for suggestions.
    known: &'w [String],
    groups: &'w [&'static str],
    out: &'w mut Vec<Entry>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        // A group with nothing below it is written as null.
        de.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Top => f.write_str("keys and values"),
            Place::Group(name) => write!(f, "the settings of {name:?}"),
            Place::Overrides => f.write_str("tenants"),
            Place::Tenant(name) => write!(f, "the limits of tenant {name:?}"),
        }
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let (line, key) = (key.referenced.line(), key.value);
            match &self.place {
                Place::Top if key == "overrides" => map.next_value_seed(self.down(Place::Overrides))?,
                Place::Top if self.groups.contains(&key.as_str()) => {
                    map.next_value_seed(self.down(Place::Group(key)))?;
                }
                Place::Top => self.setting(key, line, &mut map)?,
                Place::Group(group) => self.setting(format!("{group}.{key}"), line, &mut map)?,
                Place::Overrides => map.next_value_seed(self.down(Place::Tenant(key)))?,
                Place::Tenant(tenant) => {
                    let tenant = Some(tenant.clone());
                    self.out.push(Entry { tenant, key, text: map.next_value()?, line });
                }
            }
        }
        Ok(())
    }
}

impl Walk<'_> {
    fn down(&mut self, place: Place) -> Walk<'_> {
        Walk { place, known: self.known, groups: self.groups, out: self.out }
    }

    fn setting<'de, A: MapAccess<'de>>(&mut self, key: String, line: u64, map: &mut A) -> Result<(), A::Error> {
        if !self.known.contains(&key) {
            return Err(A::Error::custom(format!("line {line}: {}", unknown(&key, self.known))));
        }
        // Nothing after the colon is the empty text.
        let text = map.next_value::<Option<String>>()?.unwrap_or_default();
        self.out.push(Entry { tenant: None, key, text, line });
        Ok(())
    }
}
