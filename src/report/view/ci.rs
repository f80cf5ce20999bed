//! What a CI system shows: cases, the policy's state, refreshes and the backfill plan in a few lines.

use serde::Serialize;

use super::cases::{self, Case};
use super::format::{change, count, interval, percent, plain};
use super::{Cell, Fact, Table, Tone};
use crate::judge::waivers::WaiverState;
use crate::report::{AuditReport, BackfillSection, CostSection};

/// First sub-clusters of the plan that are named.
const NAMED: usize = 10;

/// The parts of the view that only CI outputs lay out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ci {
    /// The policy's hash.
    pub policy_hash: String,
    /// What is looser than the profile; empty when nothing is.
    pub weakened: Vec<String>,
    /// Every waiver and what became of it.
    pub waivers: Vec<String>,
    /// The checks as cases.
    pub checks: Vec<Case>,
    /// The slices as cases.
    pub slices: Vec<Case>,
    /// Slices with too few queries that are not among the cases.
    pub slices_unnamed: usize,
    /// Tested and untestable slices, in a sentence.
    pub slices_note: String,
    /// The refresh curve.
    pub refresh: Vec<Fact>,
    /// The backfill plan.
    pub backfill: Vec<Fact>,
    /// The shares that were tested.
    pub backfill_steps: Table,
    /// What the options cost.
    pub costs: Table,
    /// Start as ISO 8601 without a zone (UTC), as JUnit wants it.
    pub timestamp: String,
    /// Wall seconds of all stages.
    pub seconds: String,
}

pub fn ci(report: &AuditReport) -> Ci {
    let started = super::format::utc(report.run.started_unix);
    let seconds: f64 = report
        .run
        .stage_seconds
        .iter()
        .map(|(_, seconds)| seconds)
        .sum();
    Ci {
        policy_hash: report.policy.hash.clone(),
        weakened: report.policy.weakened.clone(),
        waivers: waivers(report),
        checks: cases::checks(report),
        slices: cases::slices(report),
        slices_unnamed: report.slices.as_ref().map_or(0, |section| {
            section
                .n_untestable
                .saturating_sub(section.untestable.len())
        }),
        slices_note: slices_note(report),
        refresh: refresh(report),
        backfill: report
            .backfill
            .as_ref()
            .map_or_else(Vec::new, backfill_facts),
        backfill_steps: report
            .backfill
            .as_ref()
            .map_or_else(Table::default, backfill_steps),
        costs: report
            .backfill
            .as_ref()
            .and_then(|section| section.cost.as_ref())
            .map_or_else(Table::default, costs),
        timestamp: started.trim_end_matches(" UTC").replace(' ', "T"),
        seconds: format!("{seconds:.3}"),
    }
}

fn waivers(report: &AuditReport) -> Vec<String> {
    report
        .policy
        .waivers
        .iter()
        .map(|used| {
            let waiver = &used.waiver;
            let slice = waiver
                .slice
                .as_ref()
                .map_or_else(String::new, |slice| format!(", {slice}"));
            let state = match used.state {
                WaiverState::Used => "waived",
                WaiverState::NotNeeded => "waiver not needed",
                WaiverState::Lapsed => "waiver lapsed",
            };
            format!(
                "{state}: {}{slice} (until {}): {}",
                waiver.check, waiver.until, waiver.reason
            )
        })
        .collect()
}

fn slices_note(report: &AuditReport) -> String {
    let Some(section) = &report.slices else {
        return "Slices were not tested: there is no new->old.".into();
    };
    format!(
        "{} tested, {} with fewer than {} queries not tested. A slice fails when its loss is proven to exceed {} {} (Holm-corrected).",
        count(section.tested.len()),
        count(section.n_untestable),
        count(section.min_queries),
        plain(report.policy.limits.slice_margin),
        report.primary
    )
}

fn refresh(report: &AuditReport) -> Vec<Fact> {
    let Some(section) = &report.refresh else {
        return Vec::new();
    };
    let mut facts = Vec::new();
    let worst = section
        .curve
        .iter()
        .find(|point| point.beta == section.worst_beta);
    if let Some(point) = worst {
        facts.push(Fact::new(
            "worst point, plan's order",
            format!(
                "{} {} with {} of the gallery re-embedded",
                change(point.change.value),
                interval(&point.change, change),
                percent(point.beta)
            ),
        ));
    }
    facts.push(Fact::new(
        "area under the curve, plan's order",
        change(section.area),
    ));
    facts.push(Fact::new(
        format!(
            "area under the curve, mean of {} random orders",
            count(section.random_orders)
        ),
        change(section.random_area),
    ));
    facts
}

fn backfill_facts(section: &BackfillSection) -> Vec<Fact> {
    let mut first: Vec<&str> = section
        .first_subclusters
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect();
    let rest = section.first_subclusters.len() - first.len();
    let more = format!("and {} more", count(rest));
    if rest > 0 {
        first.push(&more);
    }
    let mut facts = vec![
        Fact::new(
            "smallest share at which every gate passes (beta*)",
            section
                .beta_star
                .map_or_else(|| "none, not even the whole gallery".to_owned(), percent),
        ),
        Fact::new(
            "counts as a partial backfill up to",
            percent(section.max_partial),
        ),
        Fact::new(
            "queries that fixed the order / tested it",
            format!("{} / {}", count(section.split[0]), count(section.split[1])),
        ),
        Fact::new("gallery items in the plan", count(section.items)),
    ];
    if !first.is_empty() {
        facts.push(Fact::new("first sub-clusters", first.join(", ")));
    }
    facts
}

fn backfill_steps(section: &BackfillSection) -> Table {
    let mut table = Table::new([
        "re-embedded",
        "change on held-out queries",
        "excess flips",
        "failing slices",
        "every gate",
    ]);
    for step in &section.steps {
        let (word, tone) = if step.passes {
            ("passes", Tone::Good)
        } else {
            ("does not pass", Tone::Bad)
        };
        table.rows.push(vec![
            Cell::number(percent(step.beta)),
            Cell::number(change(step.change.value)).note(interval(&step.change, change)),
            Cell::number(percent(step.excess_flips.value))
                .note(interval(&step.excess_flips, percent)),
            Cell::number(count(step.failing_slices.len())),
            Cell::text(word).tone(tone),
        ]);
    }
    table
}

fn costs(section: &CostSection) -> Table {
    let mut table = Table::new(["option", "items to re-embed", "cost", "hours"]);
    let optional =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    for row in &section.options {
        table.rows.push(vec![
            Cell::text(&row.option),
            Cell::number(count(row.items)),
            Cell::number(optional(row.cost)),
            Cell::number(optional(row.hours)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CostRow, sample};

    #[test]
    fn the_plan_and_the_curve_in_a_few_lines() {
        let mut report = sample::skip();
        let section = report.backfill.as_mut().unwrap();
        section.first_subclusters = (0..12).map(|index| format!("s{index}")).collect();
        section.cost = Some(CostSection {
            gallery_size: 10_000_000,
            cost_per_million: Some(4.5),
            throughput: None,
            options: vec![CostRow {
                option: "full".into(),
                items: 10_000_000,
                cost: Some(45.0),
                hours: None,
            }],
        });
        let ci = ci(&report);
        assert_eq!(ci.backfill[0].value, "0.00 %");
        assert!(ci.backfill[4].value.ends_with("s9, and 2 more"));
        assert_eq!(
            ci.costs.rows[0]
                .iter()
                .map(|cell| cell.text.as_str())
                .collect::<Vec<_>>(),
            ["full", "10,000,000", "45.00", "-"]
        );
        assert!(
            ci.refresh[0]
                .value
                .starts_with("+0.0207 [+0.0102, +0.0312]")
        );
        assert_eq!(ci.backfill_steps.rows.len(), 21);
        assert_eq!(ci.timestamp, "2024-12-31T23:59:59");
        assert_eq!(ci.slices_unnamed, 200);
        report.backfill.as_mut().unwrap().beta_star = None;
        assert!(super::ci(&report).backfill[0].value.starts_with("none"));
    }

    #[test]
    fn what_was_not_tested_is_said() {
        let mut report = sample::dimensions();
        (report.slices, report.refresh, report.backfill) = (None, None, None);
        let ci = ci(&report);
        assert!(ci.refresh.is_empty() && ci.backfill.is_empty() && ci.slices.is_empty());
        assert!(ci.slices_note.contains("not tested"));
    }
}
