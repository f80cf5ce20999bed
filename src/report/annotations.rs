//! GitHub workflow commands: the worst of the report beside the job's log.

use super::view::cases::{Case, Outcome};
use super::view::format::{count, shortened};
use super::view::{Tone, View};

/// GitHub shows at most ten errors and ten warnings a step; these are all of one audit.
pub const MOST: usize = 10;

/// Characters of a message: GitHub cuts what is much longer.
const MESSAGE: usize = 1_000;

/// `::error title=...::...` lines, the most important first, at most [`MOST`].
///
/// What junit.xml calls a failure is an error, what only warns is a warning. A verdict that needs no backfill has no
/// line of its own.
pub fn lines(view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    let headline = &view.headline;
    if headline.tone != Tone::Good {
        lines.push(command(
            "error",
            &format!("compat-audit: {}", headline.code),
            &headline.reason,
        ));
    }
    let ci = &view.ci;
    let cases = |outcome| {
        ci.checks
            .iter()
            .map(|case| ("check", case))
            .chain(ci.slices.iter().map(|case| ("slice", case)))
            .filter(move |(_, case)| case.outcome == outcome)
    };
    lines.extend(cases(Outcome::Fail).map(|(kind, case)| of_case("error", kind, case)));
    lines.extend(cases(Outcome::Unsettled).map(|(kind, case)| of_case("error", kind, case)));
    for (title, sentences) in [
        ("read first", &view.cautions),
        ("not tested", &view.not_tested),
    ] {
        lines.extend(sentences.iter().map(|line| command("warning", title, line)));
    }
    lines.extend(cases(Outcome::Warn).map(|(kind, case)| of_case("warning", kind, case)));
    if lines.len() > MOST {
        let rest = lines.len() - (MOST - 1);
        lines.truncate(MOST - 1);
        lines.push(command(
            "warning",
            "compat-audit",
            &format!("{} more are in the report", count(rest)),
        ));
    }
    lines
}

fn of_case(level: &str, kind: &str, case: &Case) -> String {
    let note = match case.note.as_str() {
        "" => String::new(),
        note => format!(" ({note})"),
    };
    command(
        level,
        &format!("{kind} {}: {}", shortened(&case.name, 100), case.state),
        &format!("{}{note}", case.message),
    )
}

fn command(level: &str, title: &str, message: &str) -> String {
    format!(
        "::{level} title={}::{}",
        escape(title).replace(':', "%3A").replace(',', "%2C"),
        escape(&shortened(message, MESSAGE))
    )
}

/// As the runner decodes it: `%`, CR and LF; other control characters have no place in a log line.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' => escaped.push_str("%25"),
            '\r' => escaped.push_str("%0D"),
            '\n' => escaped.push_str("%0A"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::{AuditReport, sample, thumbnails::Thumbnails};
    use super::*;
    use crate::judge::CheckState;

    fn of(report: &AuditReport) -> Vec<String> {
        lines(&View::new(report, &mut Thumbnails::new(0)))
    }

    #[test]
    fn a_clean_pass_says_nothing() {
        assert_eq!(of(&sample::skip()), Vec::<String>::new());
    }

    #[test]
    fn failures_are_errors_and_warnings_warn() {
        let lines = of(&sample::full());
        assert!(lines[0].starts_with("::error title=compat-audit%3A full-backfill::Searching"));
        assert!(lines[1].starts_with("::error title=check cross-test-change%3A fail::D = mAP"));
        assert!(lines[1].contains("limit > -0.01"));
        assert!(lines[2].starts_with("::error title=check excess-flips%3A fail::"));
        assert!(lines[3].starts_with("::warning title=check negative-flips%3A fail::"));
        assert!(lines[3].contains("48.90 %25") || lines[3].contains("59.11 %25"));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn at_most_ten_and_the_rest_is_counted() {
        let mut report = sample::full();
        let slices = report.slices.as_mut().unwrap();
        let row = slices.tested[0].clone();
        slices.tested = vec![row; 30];
        for row in &mut slices.tested {
            row.state = CheckState::Fail;
        }
        let lines = of(&report);
        assert_eq!(lines.len(), MOST);
        // Verdict, two checks and six slices stand; 24 slices and a warning do not.
        assert_eq!(
            lines[9],
            "::warning title=compat-audit::25 more are in the report"
        );
    }

    #[test]
    fn no_name_can_end_a_line_or_a_property() {
        let mut report = sample::skip();
        let slices = report.slices.as_mut().unwrap();
        slices.tested[0].state = CheckState::Fail;
        slices.tested[0].name = "a,b:c%\r\n::set-env name=X::1\u{1b}[2J".into();
        let lines = of(&report);
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with(
                "::error title=slice a%2Cb%3Ac%25%0D%0A%3A%3Aset-env name=X%3A%3A1 [2J%3A fail::change of mAP"
            ),
            "{}",
            lines[0]
        );
        assert!(!lines[0].contains(['\r', '\n', '\u{1b}']));
    }
}
