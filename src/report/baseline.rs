//! What changed since an earlier audit.
//!
//! Two reports hold no values by query, so a difference between them has no interval here: it is a description and
//! never reaches the verdict.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{AuditReport, MeasureRow, Privacy, ProbeSection};
use crate::domain::Estimate;
use crate::judge::{CheckState, Verdict};

/// An earlier audit beside this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BaselineSection {
    /// The earlier report, as given.
    pub path: String,
    /// compat-audit that wrote it.
    pub tool_version: String,
    /// When its audit started, seconds since the Unix epoch.
    pub started_unix: u64,
    /// What keeps the two audits from being compared like for like, one sentence each.
    pub cautions: Vec<String>,
    /// The verdict then.
    pub verdict: Verdict,
    /// D on today's primary measure then; `None` when it was not tested.
    pub change: Option<Estimate>,
    /// Every measure of every pairing of either report.
    pub measures: Vec<MeasureThenAndNow>,
    /// Checks whose state is another one now.
    pub checks: Vec<StateThenAndNow>,
    /// Slices that fail now and did not then, and the other way round.
    pub slices: Vec<StateThenAndNow>,
}

/// One measure of one pairing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MeasureThenAndNow {
    /// `query->gallery`.
    pub pairing: String,
    /// `mAP`, `CMC@1`, ...
    pub measure: String,
    /// The earlier report's; `None` when it has none.
    pub then: Option<Estimate>,
    /// This report's; `None` when it has none.
    pub now: Option<Estimate>,
    /// Now minus then.
    pub difference: Option<f64>,
}

/// The state of a check or slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StateThenAndNow {
    /// The check's code, or `column=value`.
    pub name: String,
    /// The earlier report's; `None` when it was not run or not tested.
    pub then: Option<CheckState>,
    /// This report's; `None` when it was not run or not tested.
    pub now: Option<CheckState>,
}

impl BaselineSection {
    /// Compares `now` with the report `then` that was read from `path`.
    pub fn compare(then: &AuditReport, now: &AuditReport, path: &Path) -> Self {
        Self {
            path: path.display().to_string(),
            tool_version: then.run.tool_version.clone(),
            started_unix: then.run.started_unix,
            cautions: cautions(then, now),
            verdict: then.verdict.verdict,
            change: then.compatibility.as_ref().and_then(|compatibility| {
                estimate_of(&compatibility.change, &now.primary.to_string())
            }),
            measures: measures(then, now),
            checks: transitions(&check_states(then), &check_states(now), |then, now| {
                then != now
            }),
            slices: match then.privacy {
                Privacy::Full => {
                    transitions(&slice_states(then), &slice_states(now), |then, now| {
                        (then == Some(CheckState::Fail)) != (now == Some(CheckState::Fail))
                    })
                }
                Privacy::Statistics => Vec::new(),
            },
        }
    }
}

fn estimate_of(rows: &[MeasureRow], measure: &str) -> Option<Estimate> {
    rows.iter()
        .find(|row| row.measure == measure)
        .map(|row| row.estimate)
}

/// The counts and names that two audits of one probe share.
fn probe_counts(probe: &ProbeSection) -> [(&'static str, usize); 6] {
    [
        ("items", probe.items),
        ("queries", probe.queries),
        ("query identities", probe.query_identities),
        ("gallery items", probe.gallery),
        ("identities", probe.identities),
        ("cameras", probe.cameras),
    ]
}

fn cautions(then: &AuditReport, now: &AuditReport) -> Vec<String> {
    let mut lines = Vec::new();
    let counts: Vec<String> = probe_counts(&then.probe)
        .into_iter()
        .zip(probe_counts(&now.probe))
        .filter(|(then, now)| then != now)
        .map(|((name, then), (_, now))| format!("{name} {then} then, {now} now"))
        .collect();
    if !counts.is_empty() {
        lines.push(format!("another probe: {}", counts.join("; ")));
    } else if then.probe.origin != now.probe.origin {
        lines.push(format!(
            "the probe was read from another place: {} then, {} now",
            then.probe.origin, now.probe.origin
        ));
    }
    if then.privacy == Privacy::Statistics {
        lines.push(
            "the earlier report withholds the names of slices, so these are not compared".into(),
        );
    }
    if then.probe.qrels != now.probe.qrels {
        lines.push("other relevance judgements".into());
    }
    if then.primary != now.primary {
        lines.push(format!(
            "another primary measure: {} then, {} now",
            then.primary, now.primary
        ));
    }
    if then.policy.hash != now.policy.hash {
        lines.push(format!(
            "another policy: {} then, {} now; a check may end differently because of its limit",
            then.policy.hash, now.policy.hash
        ));
    }
    let setting = |report: &AuditReport, key: &str| {
        report
            .settings
            .iter()
            .find(|setting| setting.key == key)
            .map(|setting| setting.value.to_string())
    };
    if setting(then, "audit.similarity") != setting(now, "audit.similarity") {
        lines.push("another similarity".into());
    }
    let old_differs = then.old.hash != now.old.hash;
    if old_differs || then.old.preprocessing != now.old.preprocessing {
        let what = if old_differs {
            "old model"
        } else {
            "preprocessing of the old model"
        };
        lines.push(format!(
            "another {what}: the galleries differ, so do their old->old"
        ));
    }
    lines
}

fn measures(then: &AuditReport, now: &AuditReport) -> Vec<MeasureThenAndNow> {
    let of = |report: &AuditReport, pairing: &str, measure: &str| {
        report
            .pairings
            .iter()
            .find(|section| section.pairing == pairing)
            .and_then(|section| estimate_of(&section.measures, measure))
    };
    let mut rows: Vec<MeasureThenAndNow> = Vec::new();
    for section in now.pairings.iter().chain(&then.pairings) {
        for row in &section.measures {
            let (pairing, measure) = (&section.pairing, &row.measure);
            if rows
                .iter()
                .any(|known| known.pairing == *pairing && known.measure == *measure)
            {
                continue;
            }
            let (before, after) = (of(then, pairing, measure), of(now, pairing, measure));
            rows.push(MeasureThenAndNow {
                pairing: pairing.clone(),
                measure: measure.clone(),
                difference: before
                    .zip(after)
                    .map(|(before, after)| after.value - before.value)
                    .filter(|difference| difference.is_finite()),
                then: before,
                now: after,
            });
        }
    }
    rows
}

/// Names and states in the report's order.
type States = Vec<(String, CheckState)>;

fn check_states(report: &AuditReport) -> States {
    report
        .checks
        .iter()
        .map(|check| (check.code.to_string(), check.state))
        .collect()
}

fn slice_states(report: &AuditReport) -> States {
    report
        .slices
        .iter()
        .flat_map(|section| &section.tested)
        .map(|row| (row.name.clone(), row.state))
        .collect()
}

/// What is worth a row, now's names first, then those that only `then` has.
fn transitions(
    then: &States,
    now: &States,
    is_worth_a_row: impl Fn(Option<CheckState>, Option<CheckState>) -> bool,
) -> Vec<StateThenAndNow> {
    let by_name = |states: &States| -> std::collections::BTreeMap<String, CheckState> {
        states.iter().cloned().collect()
    };
    let (earlier, later) = (by_name(then), by_name(now));
    now.iter()
        .chain(then.iter().filter(|(name, _)| !later.contains_key(name)))
        .map(|(name, _)| StateThenAndNow {
            name: name.clone(),
            then: earlier.get(name).copied(),
            now: later.get(name).copied(),
        })
        .filter(|row| is_worth_a_row(row.then, row.now))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::domain::{Measure, Reference};

    fn compare(then: &AuditReport, now: &AuditReport) -> BaselineSection {
        BaselineSection::compare(then, now, Path::new("earlier/report.json"))
    }

    #[test]
    fn a_report_against_itself_has_no_changes() {
        let report = sample::skip();
        let section = compare(&report, &report);
        assert_eq!(section.path, "earlier/report.json");
        assert!(section.cautions.is_empty(), "{:?}", section.cautions);
        assert!(section.checks.is_empty() && section.slices.is_empty());
        assert_eq!(section.measures.len(), 4 * Measure::ALL.len());
        assert!(
            section
                .measures
                .iter()
                .all(|row| row.difference == Some(0.0) && row.then == row.now)
        );
    }

    #[test]
    fn what_changed_is_listed_by_measure_check_and_slice() {
        let mut then = sample::skip();
        let mut now = sample::full();
        then.slices.as_mut().unwrap().tested[1].state = CheckState::Fail;
        let tested = &mut now.slices.as_mut().unwrap().tested;
        tested[0].state = CheckState::Fail;
        let section = compare(&then, &now);
        assert_eq!(section.verdict, Verdict::SkipBackfill);
        assert_eq!(section.change.unwrap().value, 0.0207);
        let map = &section.measures[Measure::ALL.len()];
        assert_eq!(
            (map.pairing.as_str(), map.measure.as_str()),
            ("new->old", "mAP")
        );
        assert!((map.difference.unwrap() - (0.0189 - 0.5672)).abs() < 1e-12);
        let row = |name: &str, then, now| StateThenAndNow {
            name: name.into(),
            then: Some(then),
            now,
        };
        let (pass, fail) = (CheckState::Pass, CheckState::Fail);
        assert_eq!(
            section.checks,
            ["cross-test-change", "excess-flips", "negative-flips"].map(|name| row(
                name,
                pass,
                Some(fail)
            ))
        );
        assert_eq!(
            section.slices,
            [
                row("camera=twemoji", pass, Some(fail)),
                row("licence=MIT", fail, Some(pass))
            ]
        );
        // A slice that failed and is no longer tested did not get better.
        now.slices = None;
        assert_eq!(
            compare(&then, &now).slices,
            [row("licence=MIT", fail, None)]
        );
    }

    #[test]
    fn what_cannot_be_compared_like_for_like_is_said() {
        let then = sample::skip();
        let mut now = sample::skip();
        now.probe.queries = 300;
        now.primary = Reference::Labels.name(Measure::CmcAt(1));
        now.policy.hash = "0123456789abcdef".into();
        now.old.hash = "other".into();
        let section = compare(&then, &now);
        let starts = [
            "another probe: queries 335 then, 300 now",
            "another primary measure: mAP then, CMC@1 now",
            "another policy: ",
            "another old model",
        ];
        assert_eq!(section.cautions.len(), starts.len());
        for (line, start) in section.cautions.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
        // D then is of the measure that decides now.
        assert_eq!(
            section.change,
            estimate_of(&then.compatibility.unwrap().change, "CMC@1")
        );
    }

    #[test]
    fn pairings_of_only_one_report_have_no_difference() {
        let section = compare(&sample::skip(), &sample::dimensions());
        let lost = section
            .measures
            .iter()
            .find(|row| row.pairing == "new->old")
            .unwrap();
        assert!(lost.then.is_some() && lost.now.is_none() && lost.difference.is_none());
    }
}
