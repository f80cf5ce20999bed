//! The two answers of the first screen that no single number gives: what would break, and what would change the verdict.

use super::checks::numbers;
use super::format::{change, count, counted, interval, measure, percent, plain};
use crate::domain::{Estimate, FindingCode};
use crate::judge::{Check, CheckCode, CheckSeverity, CheckState, SafeSide, Verdict};
use crate::report::{AuditReport, SliceRow};

/// Sub-clusters named.
const NAMED: usize = 3;

/// What would break, and for whom, if the backfill were skipped; one sentence each.
pub fn breaks(report: &AuditReport) -> Vec<String> {
    let Some(compatibility) = &report.compatibility else {
        return vec!["Everything: new queries cannot search the old gallery at all.".into()];
    };
    let flips = &compatibility.flips;
    let total = flips.right_right + flips.right_wrong + flips.wrong_right + flips.wrong_wrong;
    let mut lines = vec![match flips.right_wrong {
        0 => format!(
            "No query of {} loses its {} top hit; {} win one.",
            count(total),
            report.primary.reference.hits()[0],
            count(flips.wrong_right)
        ),
        lost => format!(
            "{} of {} ({}) {} the {} top hit that old queries find; {} win one.",
            count(lost),
            counted(total, "query", "queries"),
            percent(flips.negative.value),
            if lost == 1 { "loses" } else { "lose" },
            report.primary.reference.hits()[0],
            count(flips.wrong_right)
        ),
    }];
    lines.extend(slices(report));
    lines.extend(subclusters(report));
    lines.extend(thresholds(report));
    lines
}

fn slices(report: &AuditReport) -> Option<String> {
    let section = report.slices.as_ref()?;
    let describe = |row: &SliceRow| {
        format!(
            "{} {} {}",
            row.name,
            change(row.change.value),
            interval(&row.change, change)
        )
    };
    let by_change = |a: &&SliceRow, b: &&SliceRow| a.change.value.total_cmp(&b.change.value);
    // A slice of all queries says nothing of whom, but the table counts it.
    let parts = || section.tested.iter().filter(|row| row.share < 1.0);
    let beside = match section.tested.len() - parts().count() {
        0 => String::new(),
        whole => format!(
            " (beside {} of all queries)",
            counted(whole, "slice", "slices")
        ),
    };
    let is_failing = |row: &&SliceRow| row.state == CheckState::Fail;
    let n_failing = parts().filter(is_failing).count();
    if let Some(worst) = parts().filter(is_failing).min_by(by_change) {
        return Some(format!(
            "{} proven to lose more than {}{beside}, the most {}.",
            counted(n_failing, "slice is", "slices are"),
            plain(report.policy.limits.slice_margin),
            describe(worst),
        ));
    }
    Some(match parts().min_by(by_change) {
        Some(worst) if worst.change.value >= 0.0 => {
            format!(
                "No tested slice loses; the least gain is {}.",
                describe(worst)
            )
        }
        Some(worst) => format!(
            "Worst of {}{beside}: {}.",
            counted(parts().count(), "tested slice", "tested slices"),
            describe(worst)
        ),
        None => format!(
            "For whom is not tested: no part of the queries has {} of them.",
            section.min_queries
        ),
    })
}

fn subclusters(report: &AuditReport) -> Option<String> {
    let losing = report.structure.subclusters.iter().filter_map(|row| {
        let change = row.new_old? - row.old_old?;
        (change < 0.0).then_some((row, change))
    });
    let named: Vec<String> = losing
        .take(NAMED)
        .map(|(row, value)| {
            let queries = counted(row.queries, "query", "queries");
            format!("{} {} ({queries})", row.name, change(value))
        })
        .collect();
    let clusters = match report.primary.reference {
        crate::domain::Reference::Labels => "Sub-clusters",
        crate::domain::Reference::OldModel => "Clusters",
    };
    (!named.is_empty()).then(|| {
        format!(
            "{clusters} hit hardest, by chance or not: {}.",
            named.join(", ")
        )
    })
}

fn thresholds(report: &AuditReport) -> Option<String> {
    let rows = &report.compatibility.as_ref()?.threshold_transfer;
    let row = rows.iter().find(|row| row.pairing == "new->old")?;
    let pairings = report.pairings.iter();
    let today = pairings.filter(|pairing| pairing.pairing == "old->old");
    let mut points = today
        .flat_map(|pairing| &pairing.verification)
        .flat_map(|v| &v.operating_points);
    let today = points.find(|point| point.far == row.far)?;
    Some(format!(
        "At the old threshold for {} false accepts: {} accepted falsely (today {}), {} rejected falsely (today {}).",
        percent(row.far),
        percent(row.observed_far),
        percent(today.observed_far),
        percent(row.observed_frr),
        percent(1.0 - today.tar)
    ))
}

/// What it would take to change the verdict, one sentence each.
pub fn turning(report: &AuditReport) -> Vec<String> {
    let gates = || {
        report
            .checks
            .iter()
            .filter(|check| check.severity == CheckSeverity::Gate)
    };
    let is_open = |check: &&Check| matches!(check.state, CheckState::Fail | CheckState::Unsettled);
    // A probe that cannot judge says nothing of the other gates.
    let counts = |check: &&Check| report.assay.can_judge || check.code.is_precondition();
    let open: Vec<&Check> = gates().filter(is_open).filter(counts).collect();
    let verdict = report.verdict.verdict;
    if report.verdict.rule == 2 {
        return vec!["Another model or another preprocessing: these are the same.".into()];
    }
    if verdict == Verdict::SkipBackfill {
        return still_skips(&gates().collect::<Vec<_>>());
    }
    let mut lines: Vec<String> = open.iter().map(|check| would_pass(check, report)).collect();
    if open.len() > 1 {
        let all = format!("All {} of these gates would have to pass:", open.len());
        lines.insert(0, all);
    }
    if verdict == Verdict::PartialBackfill
        && let Some(beta) = report.backfill.as_ref().and_then(|plan| plan.beta_star)
    {
        lines.push(format!(
            "Once {:.0} % of the gallery is re-embedded in the plan's order, every gate passes.",
            100.0 * beta
        ));
    }
    if lines.is_empty() {
        lines.push("Other models or another probe; no limit of the policy decides here.".into());
    }
    lines
}

/// Its bound and its limit, in the numbers of the check.
fn bound(check: &Check) -> Option<(f64, f64, &Estimate)> {
    let estimate = check.estimate.as_ref()?;
    let bound = match check.safe_side {
        SafeSide::Above => estimate.lower,
        SafeSide::Below => estimate.upper,
    };
    let limit = check.limit?;
    (bound.is_finite() && limit.is_finite()).then_some((bound, limit, estimate))
}

/// The policy's setting that is a check's limit, or minus it.
fn setting(code: CheckCode, report: &AuditReport) -> Option<&'static str> {
    let flips = report.compatibility.as_ref().map(|found| &found.flips);
    Some(match code {
        CheckCode::CrossTestChange | CheckCode::UpgradeWorth => "margin",
        CheckCode::Refresh => "refresh_margin",
        CheckCode::ExcessFlips => "excess_flips",
        // Where they stand in for excess flips, the stricter of both limits is theirs.
        CheckCode::NegativeFlips if flips.is_some_and(|flips| flips.excess.is_none()) => {
            "negative_flips and excess_flips"
        }
        CheckCode::NegativeFlips => "negative_flips",
        CheckCode::ThresholdFrr => "threshold_frr_rise",
        _ => return None,
    })
}

/// What would make a gate pass: more queries, another limit, or what was found when neither is known.
fn would_pass(check: &Check, report: &AuditReport) -> String {
    let code = check.code;
    let unsettled = check.state == CheckState::Unsettled;
    match (
        check.settles.as_ref().filter(|_| unsettled),
        passing_limit(check, report),
    ) {
        (Some(settles), Some(limit)) => format!("{code}: {settles}; or it would pass {limit}."),
        (Some(settles), None) => format!("{code}: {settles}."),
        (None, Some(limit)) => format!("{code} would pass {limit}."),
        (None, None) => format!(
            "{code}: {}.",
            check.settles.as_ref().unwrap_or(&check.message)
        ),
    }
}

/// The limit at which the check's bound would pass; `None` where no limit decides: the bound is on its safe side and something else
/// leaves the check open, or there is no bound.
fn passing_limit(check: &Check, report: &AuditReport) -> Option<String> {
    let (mut bound, limit, _) = bound(check)?;
    if check.code == CheckCode::Refresh {
        // The check may show the point that proves a loss, at the level of all points; every point would have to pass at its own.
        let curve = report.refresh.iter().flat_map(|section| &section.curve);
        let lowest = curve.map(|point| point.change.lower);
        bound = lowest.min_by(f64::total_cmp).unwrap_or(bound);
    }
    if has_dominant_identity(report) {
        return None;
    }
    let setting = setting(check.code, report)?;
    match check.safe_side {
        SafeSide::Above if bound > limit => None,
        SafeSide::Below if bound < limit => None,
        SafeSide::Above if setting == "margin" && -bound > report.assay.largest_margin => {
            Some(format!(
                "with no margin that this probe can judge ({} at most); it is {}",
                measure(report.assay.largest_margin.max(0.0)),
                plain(-limit)
            ))
        }
        SafeSide::Above => Some(format!(
            "with a {setting} above {}; it is {}",
            measure(-bound),
            plain(-limit)
        )),
        SafeSide::Below => Some(format!(
            "with {setting} above {}; the limit is {}",
            measure(bound),
            plain(limit)
        )),
    }
}

/// Whether one identity's queries leave every interval open, whatever the limits.
fn has_dominant_identity(report: &AuditReport) -> bool {
    let mut codes = report.findings.iter().map(|finding| finding.code);
    codes.any(|code| code == FindingCode::DominantIdentity)
}

/// How far a skip is from being none: the gate whose bound is nearest to its limit, in widths of its own interval.
fn still_skips(gates: &[&Check]) -> Vec<String> {
    let margin = |check: &Check| {
        let (bound, limit, estimate) = bound(check)?;
        let half = (estimate.value - bound).abs();
        (half > 0.0).then(|| (limit - bound).abs() / half)
    };
    let nearest = gates
        .iter()
        .filter(|check| check.state == CheckState::Pass)
        .filter_map(|check| Some((check, margin(check)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let mut lines = Vec::new();
    if let Some((check, _)) = nearest
        && let Some((bound, limit, _)) = bound(check)
    {
        let (number, _) = numbers(check.code);
        let (end, moved) = match check.safe_side {
            SafeSide::Above => ("lower", "fall below"),
            SafeSide::Below => ("upper", "rise above"),
        };
        lines.push(format!(
            "The gate nearest to its limit is {}: its {end} bound {} would have to {moved} {}.",
            check.code,
            number(bound),
            number(limit)
        ));
    }
    let change = gates
        .iter()
        .find(|check| check.code == CheckCode::CrossTestChange);
    if let Some((lower, ..)) = change.and_then(|check| bound(check)) {
        lines.push(if lower > 0.0 {
            "cross-test-change passes with any margin, even with none: the gain is proven.".into()
        } else {
            format!(
                "cross-test-change passes down to a margin of {}.",
                measure((-lower).max(0.0))
            )
        });
    }
    if lines.is_empty() {
        lines.push("A change of either model, of its preprocessing or of the gallery.".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn a_skip_names_its_nearest_gate_and_the_strictest_margin() {
        let lines = turning(&sample::skip());
        assert!(
            lines[0].starts_with("The gate nearest to its limit is "),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("with any margin")),
            "{lines:?}"
        );
    }

    #[test]
    fn a_failure_names_the_limit_at_which_each_gate_would_pass() {
        let report = sample::full();
        let lines = turning(&report);
        let change = report
            .checks
            .iter()
            .find(|check| check.code == CheckCode::CrossTestChange)
            .unwrap();
        assert!(-change.estimate.unwrap().lower > report.assay.largest_margin);
        let most = measure(report.assay.largest_margin);
        let said = format!(
            "cross-test-change would pass with no margin that this probe can judge ({most} at most); it is 0.01."
        );
        assert!(lines.contains(&said), "{lines:?}");
    }

    #[test]
    fn every_gate_that_does_not_pass_is_named() {
        for report in sample::all() {
            let lines = turning(&report).join("\n");
            for check in report
                .checks
                .iter()
                .filter(|check| check.severity == CheckSeverity::Gate)
            {
                if matches!(check.state, CheckState::Fail | CheckState::Unsettled) {
                    assert!(
                        lines.contains(&check.code.to_string()),
                        "{}: {lines}",
                        check.code
                    );
                }
            }
        }
        let mut same = sample::skip();
        same.verdict.rule = 2;
        assert_eq!(turning(&same).len(), 1);
    }

    #[test]
    fn a_gate_that_ties_leave_open_is_not_said_to_pass_at_another_limit() {
        let mut report = sample::skip();
        report.verdict.verdict = Verdict::Inconclusive;
        report.verdict.rule = 8;
        let change = report
            .checks
            .iter_mut()
            .find(|check| check.code == CheckCode::CrossTestChange);
        let change = change.unwrap();
        change.state = CheckState::Unsettled;
        change.settles = Some("ties decide".into());
        assert_eq!(turning(&report), ["cross-test-change: ties decide."]);
    }

    #[test]
    fn a_failing_refresh_would_have_to_pass_at_every_point() {
        let mut report = sample::skip();
        report.verdict.rule = 7;
        report.verdict.verdict = Verdict::FullBackfill;
        let curve = &mut report.refresh.as_mut().unwrap().curve;
        curve[2].change.lower = -0.5;
        let refresh = report
            .checks
            .iter_mut()
            .find(|check| check.code == CheckCode::Refresh)
            .unwrap();
        refresh.state = CheckState::Fail;
        let estimate = refresh.estimate.as_mut().unwrap();
        // Wider than the points' own, for all of them at once.
        (estimate.lower, estimate.upper) = (-0.7, -0.2);
        assert_eq!(
            turning(&report),
            ["refresh would pass with a refresh_margin above 0.5000; it is 0.01."]
        );
    }

    #[test]
    fn a_stand_in_names_both_settings_that_hold_it() {
        let mut report = sample::unsettled();
        let flips = &mut report.compatibility.as_mut().unwrap().flips;
        flips.excess = None;
        let mut checks = report.checks.iter_mut();
        let flips = checks.find(|check| check.code == CheckCode::NegativeFlips);
        let flips = flips.unwrap();
        (flips.state, flips.severity) = (CheckState::Fail, CheckSeverity::Gate);
        let estimate = flips.estimate.as_mut().unwrap();
        (estimate.lower, estimate.upper) = (0.08, 0.1477);
        let line = would_pass(&flips.clone(), &report);
        assert_eq!(
            line,
            "negative-flips would pass with negative_flips and excess_flips above 0.1477; the limit is 0.05."
        );
    }

    #[test]
    fn no_limit_settles_what_one_identity_dominates() {
        let mut report = sample::unsettled();
        let open = |report: &AuditReport| {
            let mut checks = report.checks.iter();
            let change = checks.find(|check| check.code == CheckCode::CrossTestChange);
            would_pass(change.unwrap(), report)
        };
        assert!(open(&report).contains("or it would pass with"));
        report.findings.push(crate::domain::Finding {
            code: FindingCode::DominantIdentity,
            severity: crate::domain::Severity::Warning,
            message: "one identity holds 25 % of the queries".into(),
            items: Vec::new(),
        });
        assert!(!open(&report).contains("would pass"), "{}", open(&report));
    }

    #[test]
    fn what_breaks_is_counted_and_named() {
        let lines = breaks(&sample::full());
        assert!(
            lines[0].contains("top hit that old queries find"),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("hit hardest")),
            "{lines:?}"
        );
        let lines = breaks(&sample::dimensions());
        assert_eq!(lines.len(), 1);
        assert!(!turning(&sample::dimensions()).is_empty());
        assert!(!turning(&sample::unsettled()).is_empty());
    }
}
