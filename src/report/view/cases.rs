//! Checks and slices as test cases: what counts as a failure outside the report, decided once for junit.xml, the
//! annotations and the summary.

use serde::Serialize;

use super::checks;
use super::format::{change, count, counted, interval, p_value, plain};
use crate::judge::waivers::WaiverState;
use crate::judge::{Check, CheckCode, CheckSeverity, CheckState, SafeSide};
use crate::report::{AuditReport, SliceRow};

/// How a case ends for a machine that knows only passed, failed and skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// On the safe side of the limit.
    Pass,
    /// A gate that is proven to be missed.
    Fail,
    /// A gate that this probe cannot settle; it forbids skip-backfill as a failed one does.
    Unsettled,
    /// Missed or not settled, but it only warns or is waived.
    Warn,
    /// Nothing was tested.
    NotTested,
}

/// One check or slice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// `cross-test-change`, `camera=noto`.
    pub name: String,
    /// How it ends.
    pub outcome: Outcome,
    /// State as in the report: `pass`, `fail`, `unsettled`, `not tested`.
    pub state: &'static str,
    /// Value, bound, limit.
    pub message: String,
    /// What would settle it, why it only warns; or nothing.
    pub note: String,
    /// The value alone.
    pub value: String,
    /// Its interval, or nothing.
    pub interval: String,
    /// The limit with its relation.
    pub limit: String,
    /// Number of queries behind it; or nothing.
    pub queries: String,
}

/// Every check, in the report's order.
pub fn checks(report: &AuditReport) -> Vec<Case> {
    report
        .checks
        .iter()
        .map(|check| check_case(check, report))
        .collect()
}

fn check_case(check: &Check, report: &AuditReport) -> Case {
    let line = checks::check(check, report);
    let (number, _) = checks::numbers(check.code);
    // A failure is proven by the end towards the limit, all else hangs on the end away from it.
    let by_upper = (check.safe_side == SafeSide::Above) == (check.state == CheckState::Fail);
    let bound = check.estimate.map_or_else(String::new, |estimate| {
        let (name, end) = if by_upper {
            ("upper", estimate.upper)
        } else {
            ("lower", estimate.lower)
        };
        format!(
            ", {name} bound {} ({} % one-sided{})",
            number(end),
            plain(50.0 * (1.0 + estimate.level)),
            checks::widened(check, report)
                .filter(|_| by_upper)
                .map_or_else(String::new, |all| format!("; {all}"))
        )
    });
    let name = &line.name;
    let message = match (check.state, check.estimate) {
        (CheckState::NotTested, _) => check.message.clone(),
        (_, None) => format!(
            "{name}: value {}, limit {}: {}",
            line.value, line.limit, check.message
        ),
        (_, Some(_)) => format!("{name}: value {}{bound}, limit {}", line.value, line.limit),
    };
    let warns = check.severity != CheckSeverity::Gate;
    let mut notes: Vec<String> = Vec::new();
    notes.extend(check.settles.clone());
    match &check.waived {
        Some(reason) => notes.push(format!("waived: {reason}")),
        None if warns => notes.push("this check only warns".into()),
        None => {}
    }
    Case {
        name: line.code.to_owned(),
        outcome: outcome(check.state, warns),
        state: line.state,
        message,
        note: notes.join("; "),
        value: line.value,
        interval: line.interval,
        limit: line.limit,
        queries: String::new(),
    }
}

fn outcome(state: CheckState, warns: bool) -> Outcome {
    match (state, warns) {
        (CheckState::Pass, _) => Outcome::Pass,
        (CheckState::NotTested, _) => Outcome::NotTested,
        (_, true) => Outcome::Warn,
        (CheckState::Fail, false) => Outcome::Fail,
        (CheckState::Unsettled, false) => Outcome::Unsettled,
    }
}

/// The slices: tested ones in the report's order, then those with too few queries that the report names.
pub fn slices(report: &AuditReport) -> Vec<Case> {
    let Some(section) = &report.slices else {
        return Vec::new();
    };
    // The check's own severity is a warning as soon as every failing slice is waived.
    let severity = report.policy.limits.severity(CheckCode::Slices);
    let tested = section.tested.iter().map(|row| {
        let waived = waived(report, row);
        let warns = severity != CheckSeverity::Gate || waived.is_some();
        let note = match waived {
            Some(reason) => format!("waived: {reason}"),
            None if !warns => String::new(),
            None if severity == CheckSeverity::Off => "the check on slices is off".into(),
            None => "the check on slices only warns".into(),
        };
        slice_case(row, report, warns, note)
    });
    let untestable = section.untestable.iter().map(|slice| Case {
        name: slice.name.clone(),
        outcome: Outcome::NotTested,
        state: "not tested",
        message: format!(
            "{}; a slice is tested from {} on",
            counted(slice.queries, "query", "queries"),
            count(section.min_queries)
        ),
        note: String::new(),
        value: "-".into(),
        interval: String::new(),
        limit: "-".into(),
        queries: count(slice.queries),
    });
    tested.chain(untestable).collect()
}

fn slice_case(row: &SliceRow, report: &AuditReport, warns: bool, note: String) -> Case {
    let (value, ends) = (change(row.change.value), interval(&row.change, change));
    let limit = format!("> {}", plain(-report.policy.limits.slice_margin));
    let bound = if row.state == CheckState::Fail {
        format!("upper bound {}", change(row.change.upper))
    } else {
        format!("lower bound {}", change(row.change.lower))
    };
    Case {
        name: row.name.clone(),
        outcome: outcome(row.state, warns),
        state: checks::state(row.state).0,
        message: format!(
            "change of {}: value {value}, {bound}, limit {limit}, Holm-corrected p {} over {}; {}",
            report.primary,
            p_value(row.p_holm),
            counted(
                report
                    .slices
                    .as_ref()
                    .map_or(0, |section| section.tested.len()),
                "slice",
                "slices"
            ),
            counted(row.queries, "query", "queries"),
        ),
        note,
        value,
        interval: ends,
        limit,
        queries: count(row.queries),
    }
}

/// Why a slice's failure is waived, when a waiver holds it or all failures of slices.
fn waived(report: &AuditReport, row: &SliceRow) -> Option<String> {
    let holds = |slice: &Option<String>| match slice {
        Some(slice) => *slice == row.name,
        None => row.state == CheckState::Fail,
    };
    report
        .policy
        .waivers
        .iter()
        .find(|used| {
            used.state == WaiverState::Used
                && used.waiver.check == CheckCode::Slices
                && holds(&used.waiver.slice)
        })
        .map(|used| format!("{} (until {})", used.waiver.reason, used.waiver.until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Waiver;
    use crate::domain::Date;
    use crate::judge::waivers::WaiverUse;
    use crate::report::sample;
    use crate::report::thumbnails::Thumbnails;
    use crate::report::view::View;

    fn find<'a>(cases: &'a [Case], name: &str) -> &'a Case {
        cases.iter().find(|case| case.name == name).unwrap()
    }

    #[test]
    fn a_failure_says_value_bound_and_limit() {
        let cases = checks(&sample::full());
        let change = find(&cases, "cross-test-change");
        assert_eq!(change.outcome, Outcome::Fail);
        assert_eq!(
            change.message,
            "D = mAP(new->old) - mAP(old->old): value -0.5276, upper bound -0.4980 (95 % one-sided), limit > -0.01"
        );
        // Of a share that must stay small the lower bound is the proof.
        let flips = find(&cases, "excess-flips");
        assert!(
            flips.message.contains("lower bound 48.90 %"),
            "{}",
            flips.message
        );
        // negative-flips fails too, but warns.
        let warns = find(&cases, "negative-flips");
        assert_eq!(
            (warns.outcome, warns.state, warns.note.as_str()),
            (Outcome::Warn, "fail", "this check only warns")
        );
    }

    #[test]
    fn a_pass_and_an_unsettled_check_say_the_bound_that_must_clear_the_limit() {
        let cases = checks(&sample::unsettled());
        let change = find(&cases, "cross-test-change");
        assert_eq!(change.outcome, Outcome::Unsettled);
        assert!(
            change.message.contains("lower bound -0.0341"),
            "{}",
            change.message
        );
        assert!(change.note.contains("610 query identities"));
        let flips = find(&cases, "negative-flips");
        assert!(
            flips.message.contains("upper bound 3.11 %"),
            "{}",
            flips.message
        );
        assert_eq!(find(&cases, "excess-flips").outcome, Outcome::NotTested);
    }

    #[test]
    fn a_loss_on_the_curve_says_that_it_holds_for_all_shares() {
        let mut report = sample::skip();
        let own = find(&checks(&report), "refresh").message.clone();
        assert!(own.contains("(95 % one-sided), limit"), "{own}");
        let mut of_report = report.checks.iter_mut();
        let refresh = of_report.find(|check| check.code == CheckCode::Refresh);
        let refresh = refresh.unwrap();
        refresh.state = CheckState::Fail;
        let estimate = refresh.estimate.as_mut().unwrap();
        (estimate.lower, estimate.upper, estimate.level) = (-0.3, -0.2, 0.9926);
        let wider = find(&checks(&report), "refresh").message.clone();
        assert!(
            wider.contains("upper bound -0.2000 (99.63 % one-sided; 95 % for the upper ends of all shares at once), limit > -0.01"),
            "{wider}"
        );
        let view = View::new(&report, &mut Thumbnails::new(0));
        let line = view.checks.iter().find(|line| line.code == "refresh");
        assert_eq!(
            line.unwrap().detail,
            "interval widened: 95 % for the upper ends of all shares at once"
        );
        assert!(view.refresh_notes[2].starts_with("The band is each share's own interval"));
        report.verdict.rule = 7;
        let decided = super::super::decision::decision(&report).unwrap();
        assert!(
            decided.interval_note.starts_with(
                "99.26 % interval, 99.63 % to either side (95 % for the upper ends of all shares at once), BCa"
            ),
            "{}",
            decided.interval_note
        );
    }

    #[test]
    fn slices_follow_the_severity_of_their_check_and_their_waivers() {
        let mut report = sample::skip();
        report.slices.as_mut().unwrap().tested[0].state = CheckState::Fail;
        let outcome = |report: &AuditReport| find(&slices(report), "camera=twemoji").outcome;
        assert_eq!(outcome(&report), Outcome::Fail);

        let severity = |report: &mut AuditReport, severity| {
            let severities = &mut report.policy.limits.severity;
            severities.insert(CheckCode::Slices, severity);
        };
        for severity_of_slices in [CheckSeverity::Warn, CheckSeverity::Off] {
            severity(&mut report, severity_of_slices);
            assert_eq!(outcome(&report), Outcome::Warn);
        }
        severity(&mut report, CheckSeverity::Gate);

        report.policy.waivers.push(WaiverUse {
            waiver: Waiver {
                check: CheckCode::Slices,
                slice: Some("camera=twemoji".into()),
                reason: "vendor is leaving".into(),
                until: Date::of_unix_day(20_000),
            },
            state: WaiverState::Used,
        });
        assert_eq!(outcome(&report), Outcome::Warn);
        assert_eq!(
            find(&slices(&report), "camera=twemoji").note,
            "waived: vendor is leaving (until 2024-10-04)"
        );
        // With its only failure waived the check warns; the other slices would gate as ever.
        let mut checks = report.checks.iter_mut();
        let check = checks.find(|check| check.code == CheckCode::Slices);
        check.unwrap().severity = CheckSeverity::Warn;
        let other = slices(&report).swap_remove(1);
        assert_eq!((other.outcome, other.note.as_str()), (Outcome::Pass, ""));
        report.policy.waivers[0].waiver.slice = None;
        assert_eq!(outcome(&report), Outcome::Warn);
        assert_eq!(slices(&report)[1].note, "");
        report.policy.waivers[0].state = WaiverState::Lapsed;
        assert_eq!(outcome(&report), Outcome::Fail);
    }

    #[test]
    fn slices_with_too_few_queries_are_not_tested() {
        let cases = slices(&sample::skip());
        assert_eq!(cases.len(), 5);
        let few = find(&cases, "licence=CC-BY-4.0");
        assert_eq!(few.outcome, Outcome::NotTested);
        assert_eq!(few.message, "4 queries; a slice is tested from 10 on");
    }
}
