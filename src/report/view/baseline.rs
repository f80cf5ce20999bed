//! The comparison with an earlier audit, in words.

use serde::Serialize;

use super::format::{change, interval, measure, utc};
use super::{Cell, Fact, Table, Tone, checks};
use crate::judge::{CheckCode, CheckState};
use crate::report::{AuditReport, BaselineSection, StateThenAndNow};

/// Then and now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baseline {
    /// Which report it is.
    pub origin: String,
    /// What keeps the two from being compared like for like.
    pub cautions: Vec<String>,
    /// Verdict and D, then and now.
    pub facts: Vec<Fact>,
    /// Checks and slices that end differently.
    pub transitions: Table,
    /// The same, one line each, for the terminal.
    pub transition_lines: Vec<String>,
    /// Every measure.
    pub measures: Table,
}

pub fn baseline(report: &AuditReport) -> Option<Baseline> {
    let section = report.baseline.as_ref()?;
    let mut transitions = Table::new(["what", "name", "then", "now", "reads"]);
    let mut lines = Vec::new();
    for (kind, rows) in [("check", &section.checks), ("slice", &section.slices)] {
        for row in rows {
            let (reads, tone) = reads(row);
            lines.push(format!("{reads} {kind}: {}", row.name));
            transitions.rows.push(vec![
                Cell::text(kind),
                Cell::text(&row.name),
                Cell::text(word(row.then)),
                Cell::text(word(row.now)),
                Cell::text(reads).tone(tone),
            ]);
        }
    }
    Some(Baseline {
        origin: format!(
            "{}, {}, compat-audit {}",
            section.path,
            utc(section.started_unix),
            section.tool_version
        ),
        cautions: section.cautions.clone(),
        facts: facts(report, section),
        transitions,
        transition_lines: lines,
        measures: measures(section),
    })
}

fn facts(report: &AuditReport, section: &BaselineSection) -> Vec<Fact> {
    let now = report
        .checks
        .iter()
        .find(|check| check.code == CheckCode::CrossTestChange)
        .and_then(|check| check.estimate);
    let d = |estimate: Option<crate::domain::Estimate>| {
        estimate.map_or_else(
            || "not tested".to_owned(),
            |estimate| format!("{} {}", change(estimate.value), interval(&estimate, change)),
        )
    };
    vec![
        Fact::new(
            "verdict",
            format!("{} -> {}", section.verdict, report.verdict.verdict),
        ),
        Fact::new(
            format!("D, {}", report.primary),
            format!("{} -> {}", d(section.change), d(now)),
        ),
    ]
}

fn word(state: Option<CheckState>) -> &'static str {
    state.map_or("not tested", |state| checks::state(state).0)
}

/// What a change of state says.
fn reads(row: &StateThenAndNow) -> (&'static str, Tone) {
    use CheckState::{Fail, NotTested, Pass, Unsettled};
    match (row.then, row.now) {
        (_, Some(Fail)) => ("newly failing", Tone::Bad),
        (_, Some(Pass)) => ("newly passing", Tone::Good),
        (_, Some(Unsettled)) => ("newly unsettled", Tone::Unsure),
        (_, None | Some(NotTested)) => ("no longer tested", Tone::Unsure),
    }
}

fn measures(section: &BaselineSection) -> Table {
    let mut table = Table::new(["pairing", "measure", "then", "now", "now - then"]);
    for row in &section.measures {
        let cell = |estimate: Option<crate::domain::Estimate>| {
            estimate.map_or_else(
                || Cell::number("-"),
                |estimate| Cell::number(measure(estimate.value)).note(interval(&estimate, measure)),
            )
        };
        table.rows.push(vec![
            Cell::text(&row.pairing),
            Cell::text(&row.measure),
            cell(row.then),
            cell(row.now),
            Cell::number(row.difference.map_or_else(|| "-".to_owned(), change)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::Measure;
    use crate::report::sample;

    #[test]
    fn then_and_now_are_worded_once() {
        let then = sample::skip();
        let mut now = sample::full();
        now.baseline = Some(BaselineSection::compare(&then, &now, Path::new("a.json")));
        let view = baseline(&now).unwrap();
        assert_eq!(view.facts[0].value, "skip-backfill -> full-backfill");
        assert_eq!(
            view.facts[1].value,
            "+0.0207 [+0.0111, +0.0308] -> -0.5276 [-0.5563, -0.4980]"
        );
        assert_eq!(
            view.transition_lines,
            [
                "newly failing check: cross-test-change",
                "newly failing check: excess-flips",
                "newly failing check: negative-flips",
            ]
        );
        assert_eq!(view.measures.rows[Measure::ALL.len()][4].text, "-0.5483");
        assert!(view.origin.starts_with("a.json, 2024-12-31 23:59:59 UTC"));
        assert_eq!(baseline(&then), None);
    }
}
