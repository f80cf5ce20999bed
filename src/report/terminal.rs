//! The report in the terminal: what a reader must know, on one screen.

use std::path::Path;

use super::AuditReport;
use super::thumbnails::Thumbnails;
use super::view::{Tone, View};

/// How to write for this terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours; they never carry meaning alone.
    pub color: bool,
    /// Only ASCII characters of our own (names and texts stay as they are).
    pub ascii: bool,
}

impl Style {
    fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Unsure => "33",
            Tone::Plain => return text.to_owned(),
        };
        self.escape(text, code)
    }

    fn escape(self, text: &str, code: &str) -> String {
        if self.color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Our own signs in ASCII.
    fn signs(self, text: &str) -> String {
        if self.ascii {
            text.replace('≥', ">=")
                .replace('≤', "<=")
                .replace('–', "-")
                .replace('…', "...")
        } else {
            text.to_owned()
        }
    }
}

/// About 25 lines: not tested, verdict and reason, D, checks, pairings, counts, findings, where the report lies.
pub fn summary(report: &AuditReport, out: &Path, style: Style) -> String {
    let view = View::new(report, &mut Thumbnails::new(0));
    let mut lines = Vec::new();
    for line in &view.not_tested {
        lines.push(style.paint("NOT TESTED: ", Tone::Unsure) + &printable(line));
    }
    for line in &view.cautions {
        lines.push(style.paint("READ FIRST: ", Tone::Unsure) + &printable(line));
    }
    for row in view.waivers.iter().flat_map(|table| &table.rows) {
        let cells: Vec<String> = row.iter().map(|cell| printable(&cell.text)).collect();
        let [what, reason, until, state] = &cells[..] else {
            continue;
        };
        lines.push(format!(
            "{}{what}, until {until}: {reason} ({state})",
            style.paint("WAIVER: ", Tone::Unsure)
        ));
    }
    lines.push(view.sight.clone());
    lines.push(String::new());
    let headline = &view.headline;
    let mark = match (headline.tone, style.ascii) {
        (Tone::Good, false) => "●",
        (Tone::Bad, false) => "■",
        (_, false) => "◆",
        (Tone::Good, true) => "[+]",
        (Tone::Bad, true) => "[X]",
        (_, true) => "[?]",
    };
    let title = format!(
        "{mark} {} ({})",
        headline.words.to_uppercase(),
        headline.code
    );
    lines.push(style.escape(&style.paint(&title, headline.tone), "1"));
    lines.push(printable(&headline.reason));
    lines.push(format!(
        "old {} -> new {}",
        printable(&view.old),
        printable(&view.new)
    ));
    lines.push(String::new());
    if let Some(decision) = &view.decision {
        lines.push(format!(
            "{} = {} {}, {}: {}",
            decision.name,
            decision.value_text,
            decision.interval_text,
            decision.limit_text,
            style.paint(decision.state, decision.tone)
        ));
        lines.push(format!("  {}", decision.interval_note));
        lines.push(String::new());
    }
    lines.push("checks".into());
    lines.extend(checks(&view, style));
    lines.push(String::new());
    if !view.pairing_bars.is_empty() {
        lines.push(format!("{} by pairing, query->gallery", view.primary));
        for bar in &view.pairing_bars {
            lines.push(format!(
                "  {:<9} {} {}  {}",
                printable(&bar.label),
                bar.value_text,
                bar.interval_text,
                bar.note
            ));
        }
        lines.push(String::new());
    }
    for note in view.backfill_notes.iter().take(1) {
        lines.push(printable(note));
    }
    let counts: Vec<_> = view
        .counts
        .iter()
        .map(|fact| format!("{} {}", fact.label, fact.value))
        .collect();
    lines.push(counts.join(", "));
    for finding in view.findings.iter().filter(|finding| !finding.said_first) {
        lines.push(format!(
            "{} {}: {}",
            style.paint(finding.severity, finding.tone),
            finding.code,
            printable(&finding.message)
        ));
    }
    lines.extend(baseline(&view, style));
    lines.push(format!("report: {}", out.join("report.html").display()));
    lines.join("\n") + "\n"
}

/// Changed checks and slices that are named; the report has all of them.
const TRANSITIONS: usize = 10;

/// The comparison with an earlier audit.
fn baseline(view: &View, style: Style) -> Vec<String> {
    let Some(baseline) = &view.baseline else {
        return Vec::new();
    };
    let mut lines = vec![format!("baseline: {}", printable(&baseline.origin))];
    for caution in &baseline.cautions {
        let label = style.paint("caution: ", Tone::Unsure);
        lines.push(format!("  {label}{}", printable(caution)));
    }
    for fact in &baseline.facts {
        lines.push(format!("  {}: {}", fact.label, fact.value));
    }
    let changed = &baseline.transition_lines;
    for line in changed.iter().take(TRANSITIONS) {
        lines.push(format!("  {}", printable(line)));
    }
    if changed.len() > TRANSITIONS {
        lines.push(format!("  and {} more", changed.len() - TRANSITIONS));
    }
    lines
}

/// One aligned line a check: state, code, value, interval, limit, severity.
fn checks(view: &View, style: Style) -> Vec<String> {
    let rows: Vec<[String; 6]> = view
        .checks
        .iter()
        .map(|check| {
            [
                check.state.to_owned(),
                check.code.to_owned(),
                check.value.clone(),
                check.interval.clone(),
                style.signs(&check.limit),
                check.severity.to_owned(),
            ]
        })
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    rows.iter()
        .zip(&view.checks)
        .map(|(row, check)| {
            let [state, code, value, interval, limit, severity] = row;
            let [states, codes, values, intervals, limits, _] = widths;
            // Padded before it is painted: escapes have no width.
            let state = style.paint(&format!("{state:<states$}"), check.tone);
            format!(
                "  {state}  {code:<codes$}  {value:>values$}  {interval:<intervals$}  {limit:<limits$}  {severity}"
            )
        })
        .collect()
}

/// Without control characters: a name must not move the cursor or set colours.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn plain(report: &AuditReport) -> String {
        summary(report, Path::new("reports/old-vs-new"), Style::default())
    }

    #[test]
    fn skip_backfill() {
        insta::assert_snapshot!(plain(&sample::skip()));
    }

    #[test]
    fn full_backfill() {
        insta::assert_snapshot!(plain(&sample::full()));
    }

    #[test]
    fn inconclusive_in_ascii() {
        let style = Style {
            color: false,
            ascii: true,
        };
        let text = summary(&sample::unsettled(), Path::new("reports/old-vs-new"), style);
        assert!(text.is_ascii(), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn other_dimensions() {
        insta::assert_snapshot!(plain(&sample::dimensions()));
    }

    #[test]
    fn against_a_baseline() {
        let mut report = sample::full();
        let mut then = sample::skip();
        then.policy.hash = "0123456789abcdef".into();
        report.policy.hash = "fedcba9876543210".into();
        report.baseline = Some(super::super::BaselineSection::compare(
            &then,
            &report,
            Path::new("earlier/report.json"),
        ));
        let text = plain(&report);
        let start = text.find("baseline: ").unwrap();
        insta::assert_snapshot!(&text[start..]);
    }

    #[test]
    fn colour_only_adds_escapes() {
        let mut with_baseline = sample::full();
        with_baseline.baseline = Some(super::super::BaselineSection::compare(
            &sample::skip(),
            &with_baseline,
            Path::new("earlier/report.json"),
        ));
        for report in sample::all().into_iter().chain([with_baseline]) {
            let style = Style {
                color: true,
                ascii: false,
            };
            let mut text = summary(&report, Path::new("reports/old-vs-new"), style);
            assert!(text.contains("\u{1b}["));
            for code in ["0", "1", "31", "32", "33"] {
                text = text.replace(&format!("\u{1b}[{code}m"), "");
            }
            assert_eq!(text, plain(&report));
        }
    }

    #[test]
    fn names_cannot_control_the_terminal() {
        let mut report = sample::skip();
        report.new.name = "a\u{1b}[2J\nb".into();
        assert!(plain(&report).contains("new a [2J b"));
    }
}
