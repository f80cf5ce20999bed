//! Names of the checks and how much each matters: the policy speaks of them, the judge runs them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether a check can decide the verdict, from the strictest to the loosest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CheckSeverity {
    /// Must pass for skip-backfill.
    Gate,
    /// Shown, does not decide.
    Warn,
    /// Not run.
    Off,
}

impl fmt::Display for CheckSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CheckSeverity::Gate => "gate",
            CheckSeverity::Warn => "warn",
            CheckSeverity::Off => "off",
        })
    }
}

/// Stable names of the checks, in the order they are run and shown; kebab-case everywhere outside this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CheckCode {
    /// Old and new embeddings have the same dimension.
    Dimensions,
    /// The probe tells a working model from shuffled labels.
    AssaySensitivity,
    /// There are enough query identities for an interval.
    QueryIdentities,
    /// W = M(new->new) - M(old->old) is above minus the margin.
    UpgradeWorth,
    /// D = M(new->old) - M(old->old) is above minus the margin.
    CrossTestChange,
    /// D > 0: the empirical criterion of BCT (Shen et al., CVPR 2020).
    BctCriterion,
    /// Share of queries right under old->old and new->new, wrong under new->old.
    ExcessFlips,
    /// Share of queries right under old->old, wrong under new->old.
    NegativeFlips,
    /// No identity, sub-cluster, camera or manifest value loses more than the slice margin.
    Slices,
    /// Share of queries that lie in no testable slice of a listed column.
    UntestableTraffic,
    /// M(new->mixed(beta)) - M(old->old) at every share beta of a refreshed gallery.
    Refresh,
    /// False-accept rate of new->old at the threshold of old->old.
    ThresholdFar,
    /// Rise of the false-reject rate from old->old to new->old at the threshold of old->old.
    ThresholdFrr,
    /// Share of identities that could collapse unseen.
    BlindShare,
}

impl CheckCode {
    /// All of them, in order.
    pub const ALL: [CheckCode; 14] = [
        CheckCode::Dimensions,
        CheckCode::AssaySensitivity,
        CheckCode::QueryIdentities,
        CheckCode::UpgradeWorth,
        CheckCode::CrossTestChange,
        CheckCode::BctCriterion,
        CheckCode::ExcessFlips,
        CheckCode::NegativeFlips,
        CheckCode::Slices,
        CheckCode::UntestableTraffic,
        CheckCode::Refresh,
        CheckCode::ThresholdFar,
        CheckCode::ThresholdFrr,
        CheckCode::BlindShare,
    ];

    /// The name in the JSON, in audit.toml and in junit.xml.
    pub fn name(self) -> &'static str {
        match self {
            CheckCode::Dimensions => "dimensions",
            CheckCode::AssaySensitivity => "assay-sensitivity",
            CheckCode::QueryIdentities => "query-identities",
            CheckCode::UpgradeWorth => "upgrade-worth",
            CheckCode::CrossTestChange => "cross-test-change",
            CheckCode::BctCriterion => "bct-criterion",
            CheckCode::ExcessFlips => "excess-flips",
            CheckCode::NegativeFlips => "negative-flips",
            CheckCode::Slices => "slices",
            CheckCode::UntestableTraffic => "untestable-traffic",
            CheckCode::Refresh => "refresh",
            CheckCode::ThresholdFar => "threshold-far",
            CheckCode::ThresholdFrr => "threshold-frr",
            CheckCode::BlindShare => "blind-share",
        }
    }

    /// Whether the check asks if the probe can judge at all. Without it no other answer means anything, so no
    /// policy may loosen or waive it.
    pub fn is_precondition(self) -> bool {
        matches!(
            self,
            CheckCode::Dimensions | CheckCode::AssaySensitivity | CheckCode::QueryIdentities
        )
    }
}

impl fmt::Display for CheckCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CheckCode {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("check", text, CheckCode::ALL, CheckCode::name)
    }
}

/// A word that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{found}`; known: {known}")]
pub struct UnknownName {
    /// What was looked for.
    pub kind: &'static str,
    /// The word.
    pub found: String,
    /// What would have been understood, joined.
    pub known: String,
}

impl UnknownName {
    /// The one of `all` whose name is `text`.
    ///
    /// # Errors
    /// None is, with all the names.
    pub fn find<T: Copy, N: AsRef<str>>(
        kind: &'static str,
        text: &str,
        all: impl IntoIterator<Item = T>,
        name: impl Fn(T) -> N,
    ) -> Result<T, Self> {
        let mut known = Vec::new();
        for candidate in all {
            let name = name(candidate);
            if name.as_ref() == text {
                return Ok(candidate);
            }
            known.push(name.as_ref().to_owned());
        }
        Err(Self {
            kind,
            found: text.to_owned(),
            known: known.join(", "),
        })
    }

    /// The known name that is most like the word, when one is like it.
    pub fn nearest(&self) -> Option<String> {
        nearest(&self.found, self.known.split(", ").map(str::to_owned))
    }
}

/// The candidate most like the word, when one is like it enough to be worth suggesting.
pub fn nearest(word: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    /// Jaro-Winkler similarity from which a suggestion helps more than it confuses.
    const ALIKE: f64 = 0.85;
    candidates
        .into_iter()
        .map(|name| (strsim::jaro_winkler(word, &name), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_json_agrees() {
        let mut names: Vec<&str> = CheckCode::ALL.map(CheckCode::name).to_vec();
        for (code, name) in CheckCode::ALL.iter().zip(&names) {
            assert_eq!(serde_json::to_value(code).expect("a code is JSON"), *name);
            assert_eq!(name.parse(), Ok(*code));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CheckCode::ALL.len());
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "excess-flip".parse::<CheckCode>().expect_err("unknown");
        assert!(
            error
                .to_string()
                .starts_with("unknown check `excess-flip`; known: dimensions, ")
        );
        assert_eq!(error.nearest().as_deref(), Some("excess-flips"));
    }

    #[test]
    fn severities_order_from_strict_to_loose() {
        assert!(
            CheckSeverity::Gate < CheckSeverity::Warn && CheckSeverity::Warn < CheckSeverity::Off
        );
    }
}
