//! The checks in words.

use super::format::{capital, change, interval, measure, percent, plain};
use super::{CheckLine, Tone};
use crate::judge::checks::{change_name, worth_name};
use crate::judge::{Check, CheckCode, CheckSeverity, CheckState, SafeSide};
use crate::report::AuditReport;

type Number = fn(f64) -> String;

/// How a check's value and its limit are written.
pub fn numbers(code: CheckCode) -> (Number, Number) {
    match code {
        CheckCode::UpgradeWorth
        | CheckCode::CrossTestChange
        | CheckCode::BctCriterion
        | CheckCode::Refresh => (change, plain),
        CheckCode::ExcessFlips
        | CheckCode::NegativeFlips
        | CheckCode::UntestableTraffic
        | CheckCode::BlindShare
        | CheckCode::ThresholdFar
        | CheckCode::ThresholdFrr => (percent, percent),
        CheckCode::AssaySensitivity => (measure, plain),
        CheckCode::Dimensions | CheckCode::QueryIdentities | CheckCode::Slices => (plain, plain),
    }
}

/// What a wider interval than the refresh curve's own points have is for: what proves a loss somewhere on the curve holds at all
/// points at once. `None` where the check shows a point's own.
pub fn widened(check: &Check, report: &AuditReport) -> Option<String> {
    let own = report.refresh.as_ref()?.curve.first()?.change.level;
    let level = check.estimate?.level;
    (check.code == CheckCode::Refresh && level > own).then(|| {
        format!(
            "{} % for the upper ends of all shares at once",
            plain(50.0 + 50.0 * own)
        )
    })
}

pub fn check(check: &Check, report: &AuditReport) -> CheckLine {
    let primary = report.primary;
    let (state, mark, tone) = state(check.state);
    let (number, limit_number) = numbers(check.code);
    let [right, wrong] = primary.reference.hits();
    let [_, identities] = primary.reference.groups();
    let relation = match (check.code, check.safe_side) {
        (CheckCode::Dimensions, _) => "=",
        (CheckCode::AssaySensitivity | CheckCode::QueryIdentities, _) => "≥",
        (CheckCode::UntestableTraffic | CheckCode::BlindShare | CheckCode::Slices, _) => "≤",
        (_, SafeSide::Above) => ">",
        (_, SafeSide::Below) => "<",
    };
    let value = check
        .estimate
        .map(|estimate| estimate.value)
        .or(check.value);
    let mut detail = Vec::new();
    if check.estimate.is_none() {
        detail.push(check.message.clone());
    }
    detail.extend(widened(check, report).map(|all| format!("interval widened: {all}")));
    detail.extend(check.settles.clone());
    detail.extend(
        check
            .waived
            .as_ref()
            .map(|reason| format!("waived: {reason}")),
    );
    CheckLine {
        code: check.code.name(),
        name: match check.code {
            CheckCode::AssaySensitivity => "Probe can judge: largest margin".into(),
            CheckCode::QueryIdentities => format!("Query {identities}"),
            CheckCode::Dimensions => "Dimensions, new model".into(),
            CheckCode::UpgradeWorth => worth_name(primary),
            CheckCode::CrossTestChange => change_name(primary),
            CheckCode::BctCriterion => format!("{}: an improvement", change_name(primary)),
            CheckCode::ExcessFlips => {
                format!("Excess flips ({right} old->old and new->new, {wrong} new->old)")
            }
            CheckCode::NegativeFlips => {
                format!("Negative flips ({right} old->old, {wrong} new->old)")
            }
            CheckCode::Slices => "Slices proven to lose more than the slice margin".into(),
            CheckCode::UntestableTraffic => "Queries in no testable slice".into(),
            CheckCode::Refresh => {
                format!("{primary}(new->mixed) - {primary}(old->old), the worst share refreshed")
            }
            CheckCode::ThresholdFar => "False accepts of new->old at the old threshold".into(),
            CheckCode::ThresholdFrr => "Rise of false rejects at the old threshold".into(),
            CheckCode::BlindShare => format!("{} that could collapse unseen", capital(identities)),
        },
        value: value.map_or_else(|| "-".to_owned(), number),
        interval: check
            .estimate
            .map_or_else(String::new, |estimate| interval(&estimate, number)),
        limit: check.limit.map_or_else(
            || "-".to_owned(),
            |limit| format!("{relation} {}", limit_number(limit)),
        ),
        state,
        mark,
        tone: if check.severity == CheckSeverity::Warn && tone == Tone::Bad {
            Tone::Unsure
        } else {
            tone
        },
        severity: match check.severity {
            CheckSeverity::Gate => "gate",
            CheckSeverity::Warn => "warn",
            CheckSeverity::Off => "off",
        },
        detail: detail.join("; "),
    }
}
/// Word, mark and tone.
pub fn state(state: CheckState) -> (&'static str, &'static str, Tone) {
    match state {
        CheckState::Pass => ("pass", "✓", Tone::Good),
        CheckState::Fail => ("fail", "✗", Tone::Bad),
        CheckState::Unsettled => ("unsettled", "?", Tone::Unsure),
        CheckState::NotTested => ("not tested", "–", Tone::Plain),
    }
}

/// How many gates and how many warnings end how: `8 of 9 gates pass, 1 is unsettled; 3 of 4 warnings pass, 1 fails`.
pub fn tally(checks: &[Check]) -> String {
    let of = |severity: CheckSeverity, name: &str| {
        let states = checks
            .iter()
            .filter(|check| check.severity == severity)
            .map(|check| check.state);
        let total = states.clone().count();
        let ended = |state: CheckState| states.clone().filter(|&other| other == state).count();
        let mut parts = vec![format!(
            "{} of {} {name} pass",
            ended(CheckState::Pass),
            total
        )];
        for (state, one, many) in [
            (CheckState::Fail, "fails", "fail"),
            (CheckState::Unsettled, "is unsettled", "are unsettled"),
            (CheckState::NotTested, "was not tested", "were not tested"),
        ] {
            let n = ended(state);
            if n > 0 {
                parts.push(format!("{n} {}", if n == 1 { one } else { many }));
            }
        }
        (total > 0).then(|| parts.join(", "))
    };
    [
        (CheckSeverity::Gate, "gates"),
        (CheckSeverity::Warn, "warnings"),
    ]
    .into_iter()
    .filter_map(|(severity, name)| of(severity, name))
    .collect::<Vec<_>>()
    .join("; ")
}
