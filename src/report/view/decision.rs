//! The number that decided, against its limit.

use super::checks::{check, numbers, widened};
use super::format::{capital, counted, interval, plain};
use super::{Decision, Tone};
use crate::domain::{IntervalMethod, Reference};
use crate::judge::{Check, CheckCode, CheckSeverity, CheckState, SafeSide, Verdict};
use crate::report::AuditReport;

/// The gate that decided by the verdict's rule; `None` where D did.
fn decider(report: &AuditReport) -> Option<&Check> {
    let gates = report
        .checks
        .iter()
        .filter(|check| check.severity == CheckSeverity::Gate);
    let first_in = |state: CheckState| gates.clone().find(|check| check.state == state);
    match (report.verdict.rule, report.verdict.verdict) {
        (_, Verdict::DoNotUpgrade) => gates
            .clone()
            .find(|check| check.code == CheckCode::UpgradeWorth),
        (4 | 7, _) => first_in(CheckState::Fail),
        (8, _) => first_in(CheckState::Unsettled),
        _ => None,
    }
    .filter(|check| check.code != CheckCode::CrossTestChange)
}

/// The number that decided, its interval and its limit; D where what decided has no interval.
pub fn decision(report: &AuditReport) -> Option<Decision> {
    let decider = decider(report);
    let has_line = |check: &&Check| check.estimate.is_some() && check.limit.is_some();
    let mut checks = report.checks.iter();
    let decided = match decider.filter(has_line) {
        Some(decider) => decider,
        None => checks.find(|check| check.code == CheckCode::CrossTestChange)?,
    };
    let is_decisive = decider.is_none_or(|decider| decider.code == decided.code);
    let (estimate, limit) = (decided.estimate?, decided.limit?);
    let line = check(decided, report);
    let [identity, identities] = report.primary.reference.groups();
    let (number, limit_number) = numbers(decided.code);
    let symbol = match decided.code {
        CheckCode::CrossTestChange => "D",
        CheckCode::UpgradeWorth => "W",
        code => code.name(),
    };
    let is_change = decided.code == CheckCode::CrossTestChange;
    let holds_limit = estimate.lower <= limit && limit <= estimate.upper;
    let sentence = match (decided.state, report.primary.reference) {
        _ if !is_decisive => "Not what decided.".to_owned(),
        // Ties or one dominant identity leave it open.
        (CheckState::Unsettled, _) if !holds_limit => {
            let why = decided.settles.as_ref().unwrap_or(&decided.message);
            format!("{}.", capital(why))
        }
        (CheckState::Pass, Reference::OldModel) if is_change => {
            "The whole interval lies above the margin: new queries agree with the old model within the margin.".to_owned()
        }
        (CheckState::Pass, _) if is_change => {
            "The whole interval lies above the margin: no worse than today, within the margin.".to_owned()
        }
        (CheckState::Fail, _) if is_change => {
            "The whole interval lies below the margin: the loss is proven to exceed it.".to_owned()
        }
        (CheckState::Unsettled, _) if is_change => {
            "Neither a loss beyond the margin nor its absence is proven.".to_owned()
        }
        (CheckState::Pass, _) => "The whole interval lies on the safe side of the limit.".to_owned(),
        (CheckState::Fail, _) => "The whole interval lies beyond the limit: that is proven.".to_owned(),
        (CheckState::Unsettled, _) => "The interval holds the limit: neither side of it is proven.".to_owned(),
        (CheckState::NotTested, _) => "Not tested.".to_owned(),
    };
    // Per cents are drawn as they are written.
    let scale = if number(1.0).ends_with('%') {
        100.0
    } else {
        1.0
    };
    let change_line = report
        .checks
        .iter()
        .find(|check| check.code == CheckCode::CrossTestChange && !is_change)
        .filter(|check| check.estimate.is_some())
        .map(|change| check(change, report));
    let beside = match (decider.filter(|_| !is_decisive), change_line) {
        (Some(decider), _) => format!("{} decided: {}.", decider.code, decider.message),
        (None, Some(line)) => format!(
            "{} = {} {}, {}: {}.",
            line.name, line.value, line.interval, line.limit, line.state
        ),
        (None, None) => String::new(),
    };
    Some(Decision {
        beside,
        name: line.name,
        symbol,
        value_text: number(estimate.value),
        interval_text: interval(&estimate, number),
        interval_note: format!(
            "{} % interval, {} % to either side{}, {}; n = {}, {}",
            plain(100.0 * estimate.level),
            plain(50.0 + 50.0 * estimate.level),
            widened(decided, report).map_or_else(String::new, |all| format!(" ({all})")),
            method(estimate.method, identity),
            counted(report.probe.queries, "query", "queries"),
            counted(report.probe.query_identities, identity, identities),
        ),
        limit_text: format!(
            "{} {}",
            if matches!(
                decided.code,
                CheckCode::CrossTestChange | CheckCode::UpgradeWorth
            ) {
                "margin"
            } else {
                "limit"
            },
            limit_number(limit)
        ),
        state: line.state,
        sentence,
        tone: if is_decisive { line.tone } else { Tone::Plain },
        safe_above: decided.safe_side == SafeSide::Above,
        value: scale * estimate.value,
        lower: scale * estimate.lower,
        upper: scale * estimate.upper,
        limit: scale * limit,
    })
}
/// `unit` is what is resampled: an identity or a cluster.
fn method(method: IntervalMethod, unit: &str) -> String {
    match method {
        IntervalMethod::BcaByIdentity => format!("BCa bootstrap by {unit}"),
        IntervalMethod::LinearisedT => format!("linearised t by {unit}"),
        IntervalMethod::KornGraubard => "Korn-Graubard".to_owned(),
        IntervalMethod::ModeratedT => "moderated t by query".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn the_line_shows_the_number_that_decided() {
        let mut report = sample::skip();
        let line = decision(&report).unwrap();
        assert_eq!((line.symbol, line.beside.as_str()), ("D", ""));
        assert!(line.safe_above && line.limit_text == "margin -0.01");
        // Rule 7: another gate fails.
        report.verdict.verdict = Verdict::PartialBackfill;
        report.verdict.rule = 7;
        let flips = report
            .checks
            .iter_mut()
            .find(|check| check.code == CheckCode::ExcessFlips);
        let flips = flips.unwrap();
        flips.state = CheckState::Fail;
        let value = flips.estimate.unwrap().value;
        let line = decision(&report).unwrap();
        assert_eq!(
            (line.symbol, line.state, line.safe_above),
            ("excess-flips", "fail", false)
        );
        assert_eq!(line.limit_text, "limit 5.00 %");
        assert!(
            (line.value - 100.0 * value).abs() < 1e-12,
            "drawn in per cent"
        );
        assert!(
            line.beside
                .starts_with("D = mAP(new->old) - mAP(old->old) = +0.0207 [")
        );
        // A gate without an interval leaves D.
        let gates = report.checks.iter_mut();
        gates.for_each(|check| {
            if check.state == CheckState::Fail {
                check.estimate = None
            }
        });
        assert_eq!(decision(&report).unwrap().symbol, "D");
        report.verdict.verdict = Verdict::DoNotUpgrade;
        report.verdict.rule = 5;
        assert_eq!(decision(&report).unwrap().symbol, "W");
        // Ties leave D open though its interval clears the margin.
        report.verdict.verdict = Verdict::Inconclusive;
        report.verdict.rule = 8;
        for check in &mut report.checks {
            if check.code == CheckCode::CrossTestChange {
                check.state = CheckState::Unsettled;
                check.settles = Some("ties decide".into());
            }
        }
        assert_eq!(decision(&report).unwrap().sentence, "Ties decide.");
    }
}
