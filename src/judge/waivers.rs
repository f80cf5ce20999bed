//! Waivers: a named failure becomes a warning until a day, and is shown as such.

use serde::{Deserialize, Serialize};

use crate::config::{Policy, Waiver};
use crate::domain::{CheckCode, CheckSeverity, Date};

use super::{Check, CheckState, evidence::Evidence, slices};

/// What became of a waiver in this audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WaiverState {
    /// It turned a failure into a warning.
    Used,
    /// What it names did not fail.
    NotNeeded,
    /// Its day has passed; what it names is judged as ever.
    Lapsed,
}

/// A waiver and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WaiverUse {
    /// The waiver.
    pub waiver: Waiver,
    /// What became of it.
    pub state: WaiverState,
}

/// Applies the policy's waivers to failed checks.
///
/// Waived slices leave the check on slices: it still fails when another slice fails, and is unsettled when another slice
/// is. Only failures are waived; an unsettled check stays unsettled.
pub fn apply(
    checks: &mut [Check],
    evidence: &Evidence,
    policy: &Policy,
    today: Date,
) -> Vec<WaiverUse> {
    let failing_slices = slices::in_state(evidence, policy, CheckState::Fail);
    let uses: Vec<WaiverUse> = policy
        .waivers
        .iter()
        .map(|waiver| {
            let fails = match &waiver.slice {
                Some(slice) => failing_slices.iter().any(|name| name == slice),
                None => checks
                    .iter()
                    .any(|check| check.code == waiver.check && check.state == CheckState::Fail),
            };
            let state = if !waiver.holds(today) {
                WaiverState::Lapsed
            } else if fails {
                WaiverState::Used
            } else {
                WaiverState::NotNeeded
            };
            WaiverUse {
                waiver: waiver.clone(),
                state,
            }
        })
        .collect();
    for check in checks
        .iter_mut()
        .filter(|check| check.state == CheckState::Fail)
    {
        let used: Vec<&Waiver> = uses
            .iter()
            .filter(|used| used.state == WaiverState::Used && used.waiver.check == check.code)
            .map(|used| &used.waiver)
            .collect();
        let all_waived = if check.code == CheckCode::Slices {
            failing_slices.iter().all(|name| {
                used.iter()
                    .any(|waiver| waiver.slice.as_ref() == Some(name))
            })
        } else {
            !used.is_empty()
        };
        let unproven = slices::in_state(evidence, policy, CheckState::Unsettled);
        if all_waived && check.code == CheckCode::Slices && !unproven.is_empty() {
            check.state = CheckState::Unsettled;
            check.settles = Some(format!("not proven either: {}", unproven.join(", ")));
        } else if all_waived {
            check.severity = CheckSeverity::Warn;
            let reasons: Vec<String> = used
                .iter()
                .map(|waiver| {
                    let slice = waiver
                        .slice
                        .as_ref()
                        .map_or(String::new(), |slice| format!("{slice}: "));
                    format!("{slice}{} (until {})", waiver.reason, waiver.until)
                })
                .collect();
            check.waived = Some(reasons.join("; "));
        }
    }
    uses
}
