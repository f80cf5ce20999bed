//! summary.md: the report for a pull request or a job's summary page, GitHub-flavoured.
//!
//! Names come from users' data: all of them are escaped, and none can close a table, a `<details>` or a code span.

use super::view::cases::{Case, Outcome};
use super::view::format::{count, shortened};
use super::view::{Fact, Table, View};

/// GitHub drops a step summary of more than 1 MiB as a whole
/// (docs.github.com, "Workflow commands for GitHub Actions", step isolation and limits).
pub const LIMIT: usize = 1 << 20;

/// Bytes kept for closing tags and for saying what was left out.
const RESERVE: usize = 8 << 10;

/// Slices in the table; all of them are in report.json and junit.xml.
const SLICES: usize = 200;

/// Characters of a name and of a sentence that are shown.
const NAME: usize = 200;
const SENTENCE: usize = 2_000;

/// Renders the page: verdict, D, what was not tested, checks; the long parts folded. Always under [`LIMIT`] bytes.
pub fn summary(view: &View) -> String {
    let mut page = Page::default();
    top(&mut page, view);
    checks(&mut page, view);
    list(&mut page, "Next steps", &view.next_steps);
    slices(&mut page, view);
    backfill(&mut page, view);
    baseline(&mut page, view);
    let pairings = format!("{} by pairing, query-&gt;gallery", view.quantity);
    page.folded(&pairings, |page| page.table(&view.pairings));
    page.folded("Provenance", |page| {
        page.table(&view.models);
        page.facts(&view.policy);
        page.facts(&view.run);
        page.line(&format!("Replay: {}", code(&view.command, SENTENCE)));
    });
    page.finish()
}

fn top(page: &mut Page, view: &View) {
    let headline = &view.headline;
    page.line(&format!(
        "## {} (`{}`)\n",
        headline.words.to_uppercase(),
        headline.code
    ));
    page.line(&format!(
        "{} {}\n",
        headline.meaning,
        sentence(&headline.reason)
    ));
    page.line(&format!(
        "old {} -&gt; new {}\n",
        code(&view.old, NAME),
        code(&view.new, NAME)
    ));
    match &view.decision {
        Some(decision) => page.line(&format!(
            "**{}** = {} {}, {}: **{}** ({})\n",
            escape(&decision.name),
            escape(&decision.value_text),
            escape(&decision.interval_text),
            escape(&decision.limit_text),
            decision.state,
            escape(&decision.interval_note)
        )),
        None => page.line("D, the change of new-&gt;old against old-&gt;old, was not tested.\n"),
    };
    page.line(&format!("{}\n", escape(&view.sight)));
    for (label, lines) in [
        ("NOT TESTED", &view.not_tested),
        ("READ FIRST", &view.cautions),
    ] {
        for line in lines {
            page.line(&format!("- **{label}**: {}", sentence(line)));
        }
    }
    if let Some(waivers) = &view.waivers {
        page.line("");
        page.table(waivers);
    }
    page.line("");
}

fn checks(page: &mut Page, view: &View) {
    page.line("### Checks\n");
    page.head(&["state", "check", "value", "interval", "limit", "severity"]);
    for check in &view.checks {
        let detail = if check.detail.is_empty() {
            String::new()
        } else {
            format!("<br>{}", sentence(&check.detail))
        };
        page.row(&[
            format!("{} {}", check.mark, check.state),
            format!("`{}`<br>{}{detail}", check.code, escape(&check.name)),
            escape(&check.value),
            escape(&check.interval),
            escape(&check.limit),
            check.severity.to_owned(),
        ]);
    }
    page.line("");
}

fn list(page: &mut Page, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    page.line(&format!("### {title}\n"));
    for line in lines {
        page.line(&format!("1. {}", sentence(line)));
    }
    page.line("");
}

fn slices(page: &mut Page, view: &View) {
    let ci = &view.ci;
    let tested: Vec<&Case> = ci
        .slices
        .iter()
        .filter(|case| case.outcome != Outcome::NotTested)
        .collect();
    let of = |outcome| tested.iter().filter(|case| case.outcome == outcome).count();
    let title = format!(
        "Slices: {} failing, {} unsettled, {} with a warning, {} passing",
        count(of(Outcome::Fail)),
        count(of(Outcome::Unsettled)),
        count(of(Outcome::Warn)),
        count(of(Outcome::Pass))
    );
    page.folded(&title, |page| {
        page.line(&format!("{}\n", escape(&ci.slices_note)));
        if tested.is_empty() {
            return;
        }
        page.head(&["state", "slice", "change", "interval", "limit", "queries"]);
        // What stops the gate first; within that in the report's order, worst first.
        let rank = |case: &&Case| match case.outcome {
            Outcome::Fail => 0,
            Outcome::Unsettled => 1,
            Outcome::Warn => 2,
            Outcome::Pass | Outcome::NotTested => 3,
        };
        let mut shown = tested.clone();
        shown.sort_by_key(rank);
        let mut left_out = shown.len().saturating_sub(SLICES);
        for case in shown.iter().take(SLICES) {
            let note = if case.note.is_empty() {
                String::new()
            } else {
                format!("<br>{}", sentence(&case.note))
            };
            let fits = page.row(&[
                case.state.to_owned(),
                format!("{}{note}", code(&case.name, NAME)),
                escape(&case.value),
                escape(&case.interval),
                escape(&case.limit),
                escape(&case.queries),
            ]);
            left_out += usize::from(!fits);
        }
        if left_out > 0 {
            page.close(&format!(
                "\n{} of {} tested slices are left out here; report.json and junit.xml have them.",
                count(left_out),
                count(tested.len())
            ));
        }
    });
}

fn backfill(page: &mut Page, view: &View) {
    if view.refresh_notes.is_empty() && view.backfill_notes.is_empty() {
        return;
    }
    page.folded("Refresh curve and backfill plan", |page| {
        for note in view.refresh_notes.iter().chain(&view.backfill_notes) {
            page.line(&format!("- {}", sentence(note)));
        }
        page.line("");
        for table in [&view.costs, &view.backfill_steps].into_iter().flatten() {
            page.table(table);
        }
    });
}

fn baseline(page: &mut Page, view: &View) {
    let Some(baseline) = &view.baseline else {
        return;
    };
    page.line("### Against the baseline\n");
    page.line(&format!("{}\n", code(&baseline.origin, SENTENCE)));
    for caution in &baseline.cautions {
        page.line(&format!("- **CAUTION**: {}", sentence(caution)));
    }
    for fact in &baseline.facts {
        page.line(&format!(
            "- {}: {}",
            escape(&fact.label),
            escape(&fact.value)
        ));
    }
    page.line("");
    if baseline.transitions.rows.is_empty() {
        page.line("No check or slice ends differently.\n");
    } else {
        page.folded(
            &format!(
                "{} checks and slices end differently",
                count(baseline.transitions.rows.len())
            ),
            |page| page.table(&baseline.transitions),
        );
    }
    page.folded("Every measure, then and now", |page| {
        page.table(&baseline.measures);
    });
}

/// The text so far. What does not fit is left out and counted.
#[derive(Default)]
struct Page {
    text: String,
    left_out: usize,
}

impl Page {
    /// Adds a line when there is room for it.
    fn line(&mut self, line: &str) -> bool {
        let fits = self.text.len() + line.len() < LIMIT - RESERVE;
        if fits {
            self.close(line);
        } else {
            self.left_out += 1;
        }
        fits
    }

    /// Adds a line that must not be missing; the reserve is for these.
    fn close(&mut self, line: &str) {
        if line.is_empty() && self.text.ends_with("\n\n") {
            return;
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn head(&mut self, names: &[&str]) -> bool {
        let rule: Vec<&str> = names.iter().map(|_| "---").collect();
        self.line(&format!(
            "| {} |\n| {} |",
            names.join(" | "),
            rule.join(" | ")
        ))
    }

    fn row(&mut self, cells: &[String]) -> bool {
        self.line(&format!("| {} |", cells.join(" | ")))
    }

    fn table(&mut self, table: &Table) {
        if table.rows.is_empty() {
            return;
        }
        let names: Vec<String> = table.head.iter().map(|name| escape(name)).collect();
        if !self.head(&names.iter().map(String::as_str).collect::<Vec<_>>()) {
            return;
        }
        let mut left_out = 0;
        for row in &table.rows {
            let cells: Vec<String> = row
                .iter()
                .map(|cell| match cell.note.as_str() {
                    "" => sentence(&cell.text),
                    note => format!("{}<br><sub>{}</sub>", sentence(&cell.text), sentence(note)),
                })
                .collect();
            left_out += usize::from(!self.row(&cells));
        }
        if left_out > 0 {
            self.close(&format!("\n{} rows are left out here.", count(left_out)));
        }
        self.close("");
    }

    fn facts(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.line(&format!(
                "- {}: {}",
                escape(&fact.label),
                sentence(&fact.value)
            ));
        }
        self.line("");
    }

    /// A part that is closed at first; a blank line makes GitHub read Markdown inside it.
    fn folded(&mut self, title: &str, inside: impl FnOnce(&mut Self)) {
        if self.line(&format!("<details><summary>{title}</summary>\n")) {
            inside(self);
            self.close("\n</details>\n");
        }
    }

    fn finish(mut self) -> String {
        if self.left_out > 0 {
            let line = format!(
                "{} lines did not fit; report.json has everything.",
                count(self.left_out)
            );
            self.close(&line);
        }
        self.text
    }
}

/// A name in a code span that no character can end: GitHub makes no mentions, issue links or emoji in it.
fn code(text: &str, most: usize) -> String {
    format!("<code>{}</code>", escape(&shortened(text, most)))
}

/// A sentence, cut where it is very long.
fn sentence(text: &str) -> String {
    escape(&shortened(text, SENTENCE))
}

/// Text that GitHub shows as it is, in a table cell too. Control characters become spaces; those that turn the
/// direction of writing, and so could make a name look like another, become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied().unwrap_or(' ');
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // References, which Markdown never takes for syntax: backslashes are not known inside every table.
            '|' => escaped.push_str("&#124;"),
            '`' => escaped.push_str("&#96;"),
            // No link from `https://`, no emoji from `:bug:`.
            ':' if !next.is_whitespace() && !next.is_ascii_digit() => escaped.push_str("&#58;"),
            // No link from `[text](address)`.
            ']' if next == '(' => escaped.push_str("\\]"),
            // An empty comment parts the word, so that nobody is mentioned and no issue linked.
            '@' | '#' if !before.is_some_and(char::is_alphanumeric) => {
                escaped.extend(['\\', c]);
                escaped.push_str("<!-- -->");
            }
            '\\' | '*' | '_' | '~' | '$' | '#' | '!' => escaped.extend(['\\', c]),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                escaped.push('\u{fffd}');
            }
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => escaped.push(' '),
            c => escaped.push(c),
        }
        before = Some(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{AuditReport, BaselineSection, SliceRow, sample, thumbnails::Thumbnails};
    use super::*;
    use crate::judge::CheckState;

    fn page(report: &AuditReport) -> String {
        summary(&View::new(report, &mut Thumbnails::new(0)))
    }

    #[test]
    fn skip_backfill() {
        insta::assert_snapshot!(page(&sample::skip()));
    }

    #[test]
    fn the_verdict_comes_first_then_d_then_what_was_not_tested_then_the_policy() {
        let mut report = sample::unsettled();
        report.policy.weakened = vec!["margin = 0.02 (profile default: 0.01)".into()];
        report.policy.hash = "0123456789abcdef".into();
        let text = page(&report);
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("no {part} in:\n{text}"))
        };
        assert!(text.starts_with("## INCONCLUSIVE (`inconclusive`)"));
        assert!(at("-0.0146 [-0.0341, +0.0049], margin -0.01") < at("NOT TESTED"));
        assert!(at("NOT TESTED") < at("WEAKENED POLICY"));
        assert!(at("WEAKENED POLICY") < at("### Checks"));
        assert!(text.contains("- **READ FIRST**: WEAKENED POLICY (hash 0123456789abcdef): margin"));
        assert!(!page(&sample::skip()).contains("WEAKENED"));
    }

    #[test]
    fn the_baseline_has_its_own_part() {
        let mut report = sample::full();
        let then = sample::skip();
        report.baseline = Some(BaselineSection::compare(
            &then,
            &report,
            Path::new("a b.json"),
        ));
        let text = page(&report);
        for part in [
            "### Against the baseline",
            "<code>a b.json, 2024-12-31",
            "verdict: skip-backfill -&gt; full-backfill",
            "3 checks and slices end differently",
            "| check | cross-test-change | pass | fail | newly failing |",
        ] {
            assert!(text.contains(part), "no {part} in:\n{text}");
        }
    }

    /// Every table has rows of one width, every fold is closed, and nothing but our own tags is left.
    fn assert_well_formed(text: &str) {
        assert!(text.len() < LIMIT, "{} bytes", text.len());
        let count = |part: &str| text.matches(part).count();
        assert_eq!(count("<details>"), count("</details>"));
        let mut width = None;
        for line in text.lines() {
            if line.starts_with("| ") {
                let bars = line.matches('|').count();
                assert_eq!(*width.get_or_insert(bars), bars, "{line}");
                assert!(line.ends_with(" |"), "{line}");
            } else {
                width = None;
            }
        }
        let mut rest = text.to_owned();
        for own in [
            "<details>",
            "</details>",
            "<summary>",
            "</summary>",
            "<code>",
            "</code>",
            "<br>",
            "<sub>",
            "</sub>",
            "<!-- -->",
        ] {
            rest = rest.replace(own, "");
        }
        assert!(!rest.contains(['<', '>']), "a foreign tag");
        assert!(!text.contains("\n\n\n\n"));
    }

    #[test]
    fn hostile_names_stay_in_their_cells() {
        let evil = "a|b`c\n# <script>alert(1)</script> **x** [l](https://e.org) @admin #1 $x$ \
                    </details>\r\n| --- |\u{202e}\u{0}\\| ~~s~~ ![i](u) <!-- \u{2028}";
        let mut report = sample::skip();
        let slices = report.slices.as_mut().unwrap();
        slices.tested[0].name = evil.into();
        (report.old.name, report.new.name) = (evil.into(), evil.into());
        report.verdict.reason = evil.into();
        report.verdict.not_tested = vec![evil.into()];
        report.verdict.next_steps = vec![evil.into()];
        report.policy.weakened = vec![evil.into()];
        report.checks[2].message = evil.into();
        report.backfill.as_mut().unwrap().first_subclusters = vec![evil.into()];
        report.run.command = vec![evil.into()];
        let then = sample::skip();
        report.baseline = Some(BaselineSection::compare(&then, &report, Path::new(evil)));
        let text = page(&report);
        assert_well_formed(&text);
        for raw in [
            "**x**", "https://", "l](", "i](", " @admin", " #1", "\u{202e}",
        ] {
            assert!(!text.contains(raw), "{raw}");
        }
        for report in sample::all() {
            assert_well_formed(&page(&report));
        }
    }

    #[test]
    fn a_page_stays_under_the_limit_and_counts_what_it_leaves_out() {
        let mut report = sample::skip();
        let slices = report.slices.as_mut().unwrap();
        let row = slices.tested[0].clone();
        let hostile = "|`\n<b>@x#1\u{202e}*_~[]$\\".repeat(60);
        slices.tested = (0..20_000)
            .map(|index| SliceRow {
                name: format!("person={index}{hostile}"),
                state: CheckState::Fail,
                ..row.clone()
            })
            .collect();
        let text = page(&report);
        assert_well_formed(&text);
        assert!(text.contains("19,800 of 20,000 tested slices are left out here"));

        // Not only slices can be many.
        report.verdict.not_tested = vec!["<|>".repeat(5_000); 2_000];
        report.policy.weakened = vec![hostile.repeat(100); 200];
        let then = sample::skip();
        report.baseline = Some(BaselineSection::compare(
            &then,
            &report,
            Path::new("a.json"),
        ));
        let text = page(&report);
        assert_well_formed(&text);
        assert!(text.starts_with("## SKIP THE BACKFILL"));
        assert!(text.contains("lines did not fit"));
    }

    #[test]
    fn escapes_are_the_smallest_that_hold() {
        assert_eq!(escape("CMC@1 of camera=a-b.png"), "CMC@1 of camera=a-b.png");
        assert_eq!(escape("@me #1 a#b"), "\\@<!-- -->me \\#<!-- -->1 a\\#b");
        assert_eq!(escape("x|y `z`"), "x&#124;y &#96;z&#96;");
        assert_eq!(escape("12:30, a: b"), "12:30, a: b");
        assert_eq!(escape("[l](u) [+1, 2]"), "[l\\](u) [+1, 2]");
        assert_eq!(
            escape("https://e.org :bug:x"),
            "https&#58;//e.org &#58;bug&#58;x"
        );
    }
}
