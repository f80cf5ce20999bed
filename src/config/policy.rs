//! The policy: what the judge holds the evidence against, and how much each check matters.
//!
//! A policy starts as a named profile; audit.toml and flags change single values. What they loosen against the
//! profile is listed by [`Policy::weakened`] and printed with every verdict.

mod resolve;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::{CheckCode, CheckSeverity, Date, Measure};

pub(super) use resolve::resolve;

/// A named set of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The limits of `docs/METRICS.md`.
    #[default]
    Default,
    /// An improvement proven, every listed slice proven within its margin, little left untested.
    Strict,
    /// Twice the tolerance, refreshes only warn.
    Lenient,
    /// No labels: clusters of the old embeddings stand in for identities, and all limits speak of agreement with the old
    /// model. What agreement cannot show (a gain, a loss by the upgrade itself) is not tested.
    LabelFree,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 4] = [
        Profile::Default,
        Profile::Strict,
        Profile::Lenient,
        Profile::LabelFree,
    ];

    /// Whether clusters of the old embeddings stand in for labels.
    pub fn is_label_free(self) -> bool {
        self == Profile::LabelFree
    }

    /// Whether it tolerates more than another.
    pub fn is_looser_than(self, other: Self) -> bool {
        let place = |profile| match profile {
            Profile::Strict => 0,
            Profile::Default => 1,
            Profile::Lenient => 2,
            Profile::LabelFree => 3,
        };
        place(self) > place(other)
    }

    /// The name in audit.toml.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Default => "default",
            Profile::Strict => "strict",
            Profile::Lenient => "lenient",
            Profile::LabelFree => "label-free",
        }
    }
}

/// What an inconclusive verdict means to a deployment gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Inconclusive {
    /// It stops the deployment (exit code 3).
    Fail,
    /// It lets it pass (exit code 0).
    Pass,
}

/// From which verdict on a deployment gate stops (exit code 1), strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    /// A partial backfill is enough to stop.
    Partial,
    /// Only a full backfill and a loss by the upgrade itself stop.
    Full,
    /// No verdict stops, not even an inconclusive one: the audit only reports. Errors still exit with 2.
    Never,
}

/// A named failure that somebody has decided to live with for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Waiver {
    /// The check.
    pub check: CheckCode,
    /// For [`CheckCode::Slices`]: the slice as the report names it, `column=value`.
    pub slice: Option<String>,
    /// Why; never empty.
    pub reason: String,
    /// The last day it holds, UTC.
    pub until: Date,
}

impl Waiver {
    /// Whether its last day has not passed.
    pub fn holds(&self, today: Date) -> bool {
        today <= self.until
    }
}

/// What the judge holds the evidence against; echoed in every report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Policy {
    /// Where the limits started.
    pub profile: Profile,
    /// The measure that decides; `None`: mAP, or nDCG@10 when relevance is graded.
    pub primary: Option<Measure>,
    /// Non-inferiority margin on the primary measure, absolute, for D and W.
    pub margin: f64,
    /// One-sided error of each bound.
    pub alpha: f64,
    /// Largest tolerated share of excess flips.
    pub excess_flips: f64,
    /// Largest tolerated share of negative flips; gates when set, or when excess flips cannot be tested.
    pub negative_flips: Option<f64>,
    /// Largest tolerated loss of a slice, absolute, on the primary measure.
    pub slice_margin: f64,
    /// Columns whose values are slices; `None`: identity, sub-cluster, camera and every manifest column.
    pub slice_columns: Option<Vec<String>>,
    /// Whether a slice must be proven within its margin (otherwise it only must not be proven beyond it).
    pub slices_proven: bool,
    /// Largest tolerated share of queries that lie in no testable slice of a column.
    pub untestable_traffic: f64,
    /// Largest tolerated loss at any share of a refreshed gallery, absolute: the floor of the refresh curve.
    pub refresh_margin: f64,
    /// Largest share of the gallery that a partial backfill may re-embed.
    pub max_partial: f64,
    /// False-accept rate whose old->old threshold is hard-wired somewhere; gates the threshold checks when set.
    pub threshold_far: Option<f64>,
    /// Largest tolerated multiple of `threshold_far` that new->old may reach at that threshold.
    pub threshold_far_factor: f64,
    /// Largest tolerated rise of the false-reject rate at that threshold, absolute.
    pub threshold_frr_rise: f64,
    /// Largest tolerated share of identities that could collapse unseen.
    pub blind_share: f64,
    /// How much each check matters; preconditions are not listed, they always gate.
    pub severity: BTreeMap<CheckCode, CheckSeverity>,
    /// Gates that were asked for by name: where the probe cannot test one, it is unsettled instead of passed over.
    pub asked_for: BTreeSet<CheckCode>,
    /// The profile that audit.toml names, where a flag put a looser one in its place.
    pub profile_of_file: Option<Profile>,
    /// What an inconclusive verdict means.
    pub inconclusive: Inconclusive,
    /// From which verdict on the gate stops.
    pub fail_on: FailOn,
    /// Failures to live with.
    pub waivers: Vec<Waiver>,
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(Profile::Default)
    }
}

impl Policy {
    /// The profile's own limits.
    pub fn of(profile: Profile) -> Self {
        use CheckCode::*;
        use CheckSeverity::*;
        let default = Self {
            profile,
            primary: None,
            margin: 0.01,
            alpha: 0.05,
            excess_flips: 0.05,
            negative_flips: None,
            slice_margin: 0.10,
            slice_columns: None,
            slices_proven: false,
            untestable_traffic: 0.20,
            refresh_margin: 0.01,
            max_partial: 0.5,
            threshold_far: None,
            threshold_far_factor: 2.0,
            threshold_frr_rise: 0.05,
            blind_share: 0.02,
            severity: BTreeMap::from([
                (UpgradeWorth, Gate),
                (CrossTestChange, Gate),
                (BctCriterion, Off),
                (ExcessFlips, Gate),
                (NegativeFlips, Warn),
                (Slices, Gate),
                (UntestableTraffic, Off),
                (Refresh, Gate),
                (ThresholdFar, Warn),
                (ThresholdFrr, Warn),
                (BlindShare, Off),
            ]),
            asked_for: BTreeSet::new(),
            profile_of_file: None,
            inconclusive: Inconclusive::Fail,
            fail_on: FailOn::Partial,
            waivers: Vec::new(),
        };
        match profile {
            Profile::Default => default,
            Profile::Strict => {
                let mut strict = Self {
                    excess_flips: 0.02,
                    slices_proven: true,
                    ..default
                };
                for code in [BctCriterion, UntestableTraffic, BlindShare] {
                    strict.severity.insert(code, Gate);
                }
                strict
            }
            Profile::Lenient => {
                let mut lenient = Self {
                    margin: 0.02,
                    excess_flips: 0.10,
                    slice_margin: 0.20,
                    refresh_margin: 0.02,
                    ..default
                };
                lenient.severity.insert(Refresh, Warn);
                lenient
            }
            // The old model agrees with itself best of all, so a better model loses agreement too: the margins leave
            // room for that. Measured on the emoji models: docs/nccl.md.
            Profile::LabelFree => {
                let mut label_free = Self {
                    margin: 0.10,
                    excess_flips: 0.10,
                    slice_margin: 0.30,
                    refresh_margin: 0.10,
                    ..default
                };
                // Agreement of the new model with the old one on its own gallery is no measure of its worth.
                for code in [UpgradeWorth, Refresh] {
                    label_free.severity.insert(code, Off);
                }
                label_free
            }
        }
    }

    /// How much the check matters; a precondition always gates.
    pub fn severity(&self, code: CheckCode) -> CheckSeverity {
        self.severity
            .get(&code)
            .copied()
            .unwrap_or(CheckSeverity::Gate)
    }

    /// The first 16 hex digits of the BLAKE3 hash of the policy as JSON: two audits with equal ones were held
    /// against the same limits.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("numbers, names and texts are JSON");
        blake3::hash(&json).to_hex()[..16].to_owned()
    }

    /// What negative flips are held against: their own limit, else that of excess flips.
    pub fn negative_flips_limit(&self) -> f64 {
        self.negative_flips.unwrap_or(self.excess_flips)
    }

    /// Whether a waiver holds a failure of this check, or of this slice, on that day.
    pub fn waives(&self, check: CheckCode, slice: Option<&str>, today: Date) -> bool {
        self.waivers.iter().any(|waiver| {
            waiver.check == check && waiver.slice.as_deref() == slice && waiver.holds(today)
        })
    }

    /// What is looser than the profile, one line each; empty when nothing is. Waivers are shown on their own.
    ///
    /// `usual` is the measure that decides where none is named.
    pub fn weakened(&self, usual: Measure) -> Vec<String> {
        let own = Self::of(self.profile);
        let profile = self.profile.name();
        let mut lines = Vec::new();
        let mut looser = |is_looser: bool, key: &str, now: String, then: String| {
            if is_looser {
                lines.push(format!("{key} = {now} (profile {profile}: {then})"));
            }
        };
        for (key, now, then) in [
            ("margin", self.margin, own.margin),
            ("excess_flips", self.excess_flips, own.excess_flips),
            ("slice_margin", self.slice_margin, own.slice_margin),
            (
                "untestable_traffic",
                self.untestable_traffic,
                own.untestable_traffic,
            ),
            ("refresh_margin", self.refresh_margin, own.refresh_margin),
            ("max_partial", self.max_partial, own.max_partial),
            (
                "threshold_far_factor",
                self.threshold_far_factor,
                own.threshold_far_factor,
            ),
            (
                "threshold_frr_rise",
                self.threshold_frr_rise,
                own.threshold_frr_rise,
            ),
            ("blind_share", self.blind_share, own.blind_share),
        ] {
            looser(now > then, key, now.to_string(), then.to_string());
        }
        // A larger alpha loosens every proof, a smaller one every detection: slices then fail less easily.
        looser(
            self.alpha != own.alpha,
            "alpha",
            self.alpha.to_string(),
            own.alpha.to_string(),
        );
        let measure = self.primary.unwrap_or(usual);
        looser(
            measure != usual,
            "primary",
            measure.to_string(),
            usual.to_string(),
        );
        looser(
            own.slices_proven && !self.slices_proven,
            "slices_proven",
            "false".into(),
            "true".into(),
        );
        if let Some(columns) = &self.slice_columns {
            looser(
                true,
                "slice_columns",
                format!("{columns:?}"),
                "every column".into(),
            );
        }
        for (&code, &then) in &own.severity {
            let now = self.severity(code);
            looser(
                now > then,
                &format!("severity.{code}"),
                now.to_string(),
                then.to_string(),
            );
        }
        looser(
            self.inconclusive > own.inconclusive,
            "inconclusive",
            "pass".into(),
            "fail".into(),
        );
        looser(
            self.fail_on > own.fail_on,
            "fail_on",
            if self.fail_on == FailOn::Full {
                "full"
            } else {
                "never"
            }
            .into(),
            "partial".into(),
        );
        if let Some(file) = self.profile_of_file {
            lines.push(format!("profile = {profile} (audit.toml: {})", file.name()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_not_weaker_than_itself() {
        for profile in Profile::ALL {
            assert_eq!(
                Policy::of(profile).weakened(Measure::MeanAveragePrecision),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn every_check_but_the_preconditions_has_a_severity() {
        for profile in Profile::ALL {
            let policy = Policy::of(profile);
            for code in CheckCode::ALL {
                assert_ne!(
                    code.is_precondition(),
                    policy.severity.contains_key(&code),
                    "{code}"
                );
            }
        }
    }

    /// Every key that can be loosened, loosened: each must be named.
    #[test]
    fn what_is_looser_is_listed_and_what_is_stricter_is_not() {
        let mut loose = Policy::of(Profile::Strict);
        loose.margin = 0.02;
        loose.inconclusive = Inconclusive::Pass;
        loose.fail_on = FailOn::Never;
        loose.slices_proven = false;
        loose.slice_columns = Some(vec!["camera".into()]);
        loose
            .severity
            .insert(CheckCode::Refresh, CheckSeverity::Off);
        assert_eq!(
            loose.weakened(Measure::MeanAveragePrecision),
            [
                "margin = 0.02 (profile strict: 0.01)",
                "slices_proven = false (profile strict: true)",
                "slice_columns = [\"camera\"] (profile strict: every column)",
                "severity.refresh = off (profile strict: gate)",
                "inconclusive = pass (profile strict: fail)",
                "fail_on = never (profile strict: partial)",
            ]
        );
        let mut tight = Policy {
            margin: 0.001,
            negative_flips: Some(0.05),
            ..Policy::default()
        };
        tight
            .severity
            .insert(CheckCode::BctCriterion, CheckSeverity::Gate);
        assert!(tight.weakened(Measure::MeanAveragePrecision).is_empty());
    }

    #[test]
    fn the_hash_changes_with_any_limit() {
        let policy = Policy::default();
        assert_eq!(policy.hash(), Policy::default().hash());
        assert_eq!(policy.hash().len(), 16);
        let other = Policy {
            slice_margin: 0.11,
            ..Policy::default()
        };
        assert_ne!(policy.hash(), other.hash());
    }

    #[test]
    fn another_alpha_another_measure_and_a_looser_profile_are_listed() {
        let policy = Policy {
            alpha: 0.001,
            primary: Some(Measure::CmcAt(10)),
            profile_of_file: Some(Profile::Strict),
            ..Policy::default()
        };
        assert_eq!(
            policy.weakened(Measure::MeanAveragePrecision),
            [
                "alpha = 0.001 (profile default: 0.05)",
                "primary = CMC@10 (profile default: mAP)",
                "profile = default (audit.toml: strict)",
            ]
        );
    }

    #[test]
    fn the_usual_measure_is_no_other_one_by_name() {
        let named = |measure| Policy {
            primary: Some(measure),
            ..Policy::default()
        };
        let graded = Measure::NdcgAt(10);
        assert!(named(graded).weakened(graded).is_empty());
        assert_eq!(
            named(Measure::MeanAveragePrecision).weakened(graded),
            ["primary = mAP (profile default: nDCG@10)"]
        );
    }
}
