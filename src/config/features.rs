//! Parts of PromQL that have to be switched on, by the names Prometheus gives them (`--enable-feature`).
//!
//! *Invariants:* a name nobody knows is refused with the nearest one; names of features that are always on are accepted.
//!
//! *Not here:* what the features do (`promql`).

use super::value::Value;

/// A part of PromQL that has to be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Functions and aggregations marked as experimental.
    ExperimentalFunctions,
    /// Duration expressions: always on.
    DurationExpressions,
    /// `anchored` and `smoothed`.
    ExtendedRangeSelectors,
    /// `fill`, `fill_left`, `fill_right`.
    FillModifiers,
    /// Metric names are removed at the end of a query instead of by each operation.
    DelayedNameRemoval,
    /// Samples are counted step by step where a request asks for all statistics.
    PerStepStats,
    /// Start timestamps tell counter resets.
    UseStartTimestamps,
    /// `__type__` tells counters from gauges.
    TypeAndUnitLabels,
}

/// Every feature with its name.
pub const FEATURES: [(Feature, &str); 8] = [
    (Feature::ExperimentalFunctions, "promql-experimental-functions"),
    (Feature::DurationExpressions, "promql-duration-expr"),
    (Feature::ExtendedRangeSelectors, "promql-extended-range-selectors"),
    (Feature::FillModifiers, "promql-binop-fill-modifiers"),
    (Feature::DelayedNameRemoval, "promql-delayed-name-removal"),
    (Feature::PerStepStats, "promql-per-step-stats"),
    (Feature::UseStartTimestamps, "use-start-timestamps"),
    (Feature::TypeAndUnitLabels, "type-and-unit-labels"),
];

/// The features that are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u8);

impl Features {
    /// Whether a feature is on.
    pub fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }

    /// The same features and one more.
    pub fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u8)
    }
}

impl Value for Features {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let mut features = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let known = FEATURES.iter().find(|(_, n)| *n == name);
            features = features.with(known.ok_or_else(|| unknown(name))?.0);
        }
        *self = features;
        Ok(())
    }

    fn show(&self) -> String {
        let on = FEATURES.iter().filter(|(feature, _)| self.has(*feature));
        on.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
    }

    fn kind(&self) -> &'static str {
        "list of features"
    }
}

fn unknown(name: &str) -> String {
    let near = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let best = FEATURES.iter().map(|(_, known)| (near(known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, known)) if score >= 0.55 => format!("unknown feature {name:?}, did you mean {known:?}?"),
        _ => format!("unknown feature {name:?}, known are {}", FEATURES.map(|(_, known)| known).join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_read_by_its_name_and_written_so_again() {
        for (feature, name) in FEATURES {
            let mut features = Features::default();
            features.set(name).unwrap();
            assert_eq!((features, features.show().as_str()), (Features::default().with(feature), name));
        }
        let mut features = Features::default();
        features.set("type-and-unit-labels, promql-per-step-stats").unwrap();
        assert_eq!(features.show(), "promql-per-step-stats,type-and-unit-labels");
        features.set("").unwrap();
        assert_eq!(features, Features::default());
    }

    #[test]
    fn an_unknown_feature_is_refused_with_the_nearest_one() {
        let mut features = Features::default();
        let message = features.set("promql-delayed-name-removals").unwrap_err();
        assert!(message.ends_with("did you mean \"promql-delayed-name-removal\"?"), "{message}");
        let message = features.set("agent").unwrap_err();
        assert!(message.contains("known are promql-experimental-functions, "), "{message}");
        assert_eq!(features, Features::default());
    }
}
