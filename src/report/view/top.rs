//! The top of the report: the answer, why, what was not tested, the number that decides, the checks.

use super::format::{capital, change, count, counted, interval, measure, p_value, percent, plain};
use super::{CheckLine, Decision, Fact, FindingLine, Headline, Tone};
use crate::domain::{Finding, FindingCode, IntervalMethod, NamedMeasure, Reference, Severity};
use crate::judge::checks::{change_name, worth_name};
use crate::judge::{Check, CheckCode, CheckSeverity, CheckState, SafeSide, Verdict};
use crate::report::AuditReport;

pub fn question(report: &AuditReport) -> &'static str {
    // Beside it the card has room for the models' names: some 60 letters at most.
    match report.primary.reference {
        Reference::Labels => "compat-audit: may new queries search the old gallery?",
        Reference::OldModel => "compat-audit without labels: do new queries agree with old?",
    }
}

pub fn headline(report: &AuditReport) -> Headline {
    let section = &report.verdict;
    let (words, meaning, tone) = match section.verdict {
        Verdict::SkipBackfill if report.primary.reference == Reference::OldModel => (
            "Skip the backfill",
            "New queries may search the old gallery as it is: they find what old queries find there.",
            Tone::Good,
        ),
        Verdict::SkipBackfill => (
            "Skip the backfill",
            "New queries may search the old gallery as it is.",
            Tone::Good,
        ),
        Verdict::PartialBackfill => (
            "Partial backfill first",
            "New queries may search the old gallery once the named part of it is re-embedded.",
            Tone::Bad,
        ),
        Verdict::FullBackfill => (
            "Full backfill first",
            "New queries must not search the old gallery; re-embed all of it first.",
            Tone::Bad,
        ),
        Verdict::DoNotUpgrade => (
            "Do not upgrade",
            "Even on a re-embedded gallery the new model is worse than what runs today.",
            Tone::Bad,
        ),
        Verdict::Inconclusive => (
            "Inconclusive",
            "This probe can't tell. Do not skip the backfill on this evidence.",
            Tone::Unsure,
        ),
    };
    let mut tags = Vec::new();
    if section.bct_compatible {
        tags.push("BCT-compatible (D > 0 proven)".to_owned());
    }
    match section.gain_proven {
        Some(true) => tags.push("gain of a full backfill proven (W > 0)".to_owned()),
        Some(false) => tags.push("no gain of a full backfill proven (W > 0 not proven)".to_owned()),
        None => {}
    }
    Headline {
        code: section.verdict.to_string(),
        words,
        meaning,
        tone,
        reason: section.reason.clone(),
        rule: format!("rule {} of the verdict table", section.rule),
        tags,
    }
}

/// Findings that a reader must know before believing the verdict.
pub fn cautions(report: &AuditReport) -> Vec<String> {
    report
        .findings
        .iter()
        .filter(|finding| is_caution(finding))
        .map(|finding| format!("{}: {}", finding_code(finding), finding.message))
        .collect()
}

fn is_caution(finding: &Finding) -> bool {
    matches!(
        finding.code,
        FindingCode::PreprocessingAssumed | FindingCode::LabelFree
    )
}

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
    let line = check(decided, report.primary);
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
        .map(|change| check(change, report.primary));
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
            "{} % interval, {} % to either side, {}; n = {}, {}",
            plain(100.0 * estimate.level),
            plain(50.0 + 50.0 * estimate.level),
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

pub fn counts(report: &AuditReport) -> Vec<Fact> {
    let probe = &report.probe;
    let [_, identities] = report.primary.reference.groups();
    let mut facts = vec![
        Fact::new("queries", count(probe.queries)),
        Fact::new(format!("query {identities}"), count(probe.query_identities)),
        Fact::new("gallery items", count(probe.gallery)),
        Fact::new("negative flips", "not tested"),
    ];
    if let Some(compatibility) = &report.compatibility {
        let flips = &compatibility.flips;
        facts[3].value = format!(
            "{} ({})",
            count(flips.right_wrong),
            percent(flips.negative.value)
        );
    }
    facts
}

/// What this probe could have seen, in one sentence: it stands before the verdict.
pub fn sight(report: &AuditReport) -> String {
    let assay = &report.assay;
    let resolves = assay.resolvable_margin.map_or_else(String::new, |margin| {
        format!(
            "resolves a loss of {} {} (power .8) and ",
            measure(margin),
            report.primary
        )
    });
    format!(
        "This probe {resolves}is blind to damage on up to {} of the {}.",
        percent(assay.blind_share),
        report.primary.reference.groups()[1]
    )
}

/// How fine this probe can judge.
pub fn assay(report: &AuditReport) -> Vec<String> {
    let assay = &report.assay;
    let mut lines = vec![
        format!(
            "Labels shuffled {} times, old->old {} is {} on average (p {}): {}.",
            count(assay.permutations),
            report.primary,
            measure(assay.shuffled),
            p_value(assay.p_value),
            if assay.can_judge {
                "the probe can judge"
            } else {
                "the probe can't judge"
            }
        ),
        format!(
            "Largest margin that this probe could judge: {}.",
            measure(assay.largest_margin.max(0.0))
        ),
    ];
    if let Some(resolvable) = assay.resolvable_margin {
        lines.push(format!(
            "Resolvable margin: a loss of {} {} would be found with power .8 (one-sided {}).",
            measure(resolvable),
            report.primary,
            plain(report.policy.limits.alpha)
        ));
    }
    lines.push(format!(
        "Blind share: damage to {} of the {} or fewer can stay unseen by any method.",
        percent(assay.blind_share),
        report.primary.reference.groups()[1]
    ));
    lines
}

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

pub fn check(check: &Check, primary: NamedMeasure) -> CheckLine {
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

pub fn finding(finding: &Finding) -> FindingLine {
    let (severity, tone) = match finding.severity {
        Severity::Warning => ("warning", Tone::Unsure),
        Severity::Info => ("info", Tone::Plain),
    };
    FindingLine {
        code: finding_code(finding),
        severity,
        tone,
        message: finding.message.clone(),
        items: finding.items.join(", "),
        said_first: is_caution(finding),
    }
}

/// The code as it stands in the JSON.
fn finding_code(finding: &Finding) -> String {
    serde_json::to_value(finding.code)
        .ok()
        .and_then(|code| Some(code.as_str()?.to_owned()))
        .expect("a finding's code is a JSON string")
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
