//! What a CI system is told: cases, counts, the policy's hash, when the audit ran.

use serde::Serialize;

use super::cases::{self, Case};
use super::format::{count, plain};
use crate::report::AuditReport;

/// The parts of the view that only CI outputs lay out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ci {
    /// The policy's hash.
    pub policy_hash: String,
    /// What is looser than the profile; empty when nothing is.
    pub weakened: Vec<String>,
    /// The checks as cases.
    pub checks: Vec<Case>,
    /// The slices as cases.
    pub slices: Vec<Case>,
    /// Slices with too few queries that are not among the cases.
    pub slices_unnamed: usize,
    /// Tested and untestable slices, in a sentence.
    pub slices_note: String,
    /// Start as ISO 8601 without a zone (UTC), as JUnit wants it.
    pub timestamp: String,
    /// Wall seconds of all stages.
    pub seconds: String,
}

pub fn ci(report: &AuditReport) -> Ci {
    let started = super::format::utc(report.run.started_unix);
    let seconds: f64 = report
        .run
        .stage_seconds
        .iter()
        .map(|(_, seconds)| seconds)
        .sum();
    Ci {
        policy_hash: report.policy.hash.clone(),
        weakened: report.policy.weakened.clone(),
        checks: cases::checks(report),
        slices: cases::slices(report),
        slices_unnamed: report.slices.as_ref().map_or(0, |section| {
            section
                .n_untestable
                .saturating_sub(section.untestable.len())
        }),
        slices_note: slices_note(report),
        timestamp: started.trim_end_matches(" UTC").replace(' ', "T"),
        seconds: format!("{seconds:.3}"),
    }
}

fn slices_note(report: &AuditReport) -> String {
    let Some(section) = &report.slices else {
        return "Slices were not tested: there is no new->old.".into();
    };
    format!(
        "{} tested, {} with fewer than {} queries not tested. A slice fails when its loss is proven to exceed {} {} (Holm-corrected).",
        count(section.tested.len()),
        count(section.n_untestable),
        count(section.min_queries),
        plain(report.policy.limits.slice_margin),
        report.primary
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn what_was_not_tested_is_said() {
        let mut report = sample::skip();
        let tested = ci(&report);
        assert_eq!(tested.timestamp, "2024-12-31T23:59:59");
        assert_eq!(tested.slices_unnamed, 200);
        assert!(tested.slices_note.starts_with("4 tested, 201 with fewer"));
        report.slices = None;
        let ci = ci(&report);
        assert!(ci.slices.is_empty() && ci.slices_unnamed == 0);
        assert!(ci.slices_note.contains("not tested"));
    }
}
