//! What can break behind a good mean: slices, the refresh curve, the backfill plan, and what the policy was loosened by.

use super::checks;
use super::format::{change, count, counted, interval, measure, p_value, percent, plain};
use super::{Cell, Curve, Fact, Table, Tone};
use crate::domain::{Estimate, Reference};
use crate::judge::waivers::WaiverState;
use crate::judge::{CheckState, Verdict};
use crate::report::{AuditReport, Privacy};

/// A share of the gallery: the steps are whole per cents.
fn whole_percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Tested slices shown; report.json has all.
const SLICES: usize = 50;

/// Untestable slices named in a sentence.
const UNTESTABLE: usize = 8;

/// One line a thing that the policy is looser in than its profile; nothing when it is not.
pub fn weakened(report: &AuditReport) -> Vec<String> {
    let policy = &report.policy;
    if policy.weakened.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "WEAKENED POLICY (hash {}): {}",
        policy.hash,
        policy.weakened.join("; ")
    )]
}

pub fn waivers(report: &AuditReport) -> Option<Table> {
    let mut table = Table::new(["waived", "reason", "until", "state"]);
    for used in &report.policy.waivers {
        let waiver = &used.waiver;
        let what = match &waiver.slice {
            Some(slice) => format!("{}: {slice}", waiver.check),
            None => waiver.check.to_string(),
        };
        let (state, tone) = match used.state {
            WaiverState::Used => ("used: a failure only warns", Tone::Unsure),
            WaiverState::NotNeeded => ("not needed: no such failure", Tone::Plain),
            WaiverState::Lapsed => ("lapsed: judged as ever", Tone::Plain),
        };
        table.rows.push(vec![
            Cell::text(what),
            Cell::text(&waiver.reason),
            Cell::text(waiver.until.to_string()),
            Cell::text(state).tone(tone),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

pub fn slice_notes(report: &AuditReport) -> Vec<String> {
    let Some(section) = &report.slices else {
        return Vec::new();
    };
    let mut notes: Vec<String> = section
        .columns
        .iter()
        .map(|column| {
            format!(
                "{}: {} tested, {} with fewer than {} queries; {} of the queries lie in no tested slice of it.",
                column.column,
                count(column.tested),
                count(column.untestable),
                section.min_queries,
                percent(column.untestable_traffic)
            )
        })
        .collect();
    if section.n_untestable > 0 {
        let named: Vec<String> = section
            .untestable
            .iter()
            .take(UNTESTABLE)
            .map(|slice| format!("{} ({})", slice.name, percent(slice.share)))
            .collect();
        let rest = section.n_untestable - named.len();
        let more = if rest > 0 {
            format!(" and {} more", count(rest))
        } else {
            String::new()
        };
        notes.push(if named.is_empty() {
            let n = counted(section.n_untestable, "slice has", "slices have");
            format!("{n} fewer than {} queries.", section.min_queries)
        } else {
            format!(
                "Not testable, with their share of the queries: {}{more}.",
                named.join(", ")
            )
        });
    }
    if section.tested.len() > SLICES {
        notes.push(format!(
            "The first {SLICES} of {} tested slices are shown; report.json has all.",
            count(section.tested.len())
        ));
    }
    notes
}

pub fn slices(report: &AuditReport) -> Option<Table> {
    let mut table = Table::new([
        "slice",
        "queries",
        "old->old",
        "new->old",
        "change",
        "p, Holm",
        "smallest loss it would show",
        "state",
    ]);
    for row in report.slices.as_ref()?.tested.iter().take(SLICES) {
        let (state, tone) = match (row.state, row.suspect) {
            (CheckState::Fail, _) => ("fails", Tone::Bad),
            (CheckState::Unsettled, _) => ("not proven", Tone::Unsure),
            (_, true) => ("suspect", Tone::Unsure),
            _ if report.policy.limits.slices_proven => ("proven", Tone::Good),
            _ => ("no loss proven", Tone::Plain),
        };
        table.rows.push(vec![
            Cell::text(&row.name),
            Cell::number(count(row.queries)).note(counted(
                row.identities,
                "identity",
                "identities",
            )),
            Cell::number(measure(row.old_old)),
            Cell::number(measure(row.new_old)),
            estimate_cell(&row.change),
            Cell::number(p_value(row.p_holm)),
            Cell::number(
                row.minimum_detectable_loss
                    .map_or_else(|| "none".into(), measure),
            ),
            Cell::text(state).tone(tone),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn estimate_cell(estimate: &Estimate) -> Cell {
    Cell::number(change(estimate.value)).note(interval(estimate, change))
}

pub fn refresh_notes(report: &AuditReport) -> Vec<String> {
    let Some(section) = &report.refresh else {
        return Vec::new();
    };
    let lowest = section
        .curve
        .iter()
        .min_by(|a, b| a.change.value.total_cmp(&b.change.value))
        .map_or(f64::NAN, |point| point.change.value);
    let mut notes = vec![
        format!(
            "Lowest in the plan's order: {} at {} refreshed; area under the curve {}.",
            change(lowest),
            whole_percent(section.worst_beta),
            change(section.area)
        ),
        format!(
            "Mean of {}: lowest at {} refreshed, area {}.",
            counted(section.random_orders, "random order", "random orders"),
            whole_percent(section.random_worst_beta),
            change(section.random_area)
        ),
    ];
    if report
        .checks
        .iter()
        .any(|check| checks::widened(check, report).is_some())
    {
        notes.push(
            "The band is each share's own interval; the check's is wider, because a loss at the worst of many shares takes more proof."
                .into(),
        );
    }
    notes
}

/// The refresh curve for its figure.
pub fn refresh_curve(report: &AuditReport) -> Option<Curve> {
    let section = report.refresh.as_ref()?;
    let limit = -report.policy.limits.refresh_margin;
    Some(Curve {
        name: format!(
            "change of {} against today while the gallery is re-embedded",
            report.primary
        ),
        betas: section.curve.iter().map(|point| point.beta).collect(),
        values: section
            .curve
            .iter()
            .map(|point| point.change.value)
            .collect(),
        ends: section
            .curve
            .iter()
            .map(|point| (point.change.lower, point.change.upper))
            .collect(),
        random: section.random.clone(),
        limit,
        limit_text: format!("floor {}", plain(limit)),
        beta_star: report
            .backfill
            .as_ref()
            .and_then(|plan| plan.beta_star)
            .map(|beta| (beta, format!("beta* {}", whole_percent(beta)))),
    })
}

pub fn backfill_notes(report: &AuditReport) -> Vec<String> {
    let Some(plan) = &report.backfill else {
        return Vec::new();
    };
    let [identity, identities] = report.primary.reference.groups();
    let skips = report.verdict.verdict == Verdict::SkipBackfill;
    let mut notes = vec![match plan.beta_star {
        _ if skips => "Nothing has to be re-embedded before new queries search.".to_owned(),
        Some(0.0) => "No part of the gallery need be re-embedded for the gates that a backfill can change: they pass as it is.".to_owned(),
        Some(beta) => format!(
            "beta* = {}: from that share of the gallery on, every gate that a share can change passes on queries that had no part in the order.",
            whole_percent(beta)
        ),
        None if plan.steps.is_empty() => format!(
            "No beta*: no share was tested, because one {identity} dominates or the held-out queries are of too few {identities}."
        ),
        None if report.primary.reference == Reference::OldModel => "No beta*: the gates ask for agreement with the old model, which a gallery of the new one is not meant to keep.".to_owned(),
        None => "No beta*: not even the whole gallery re-embedded passes every gate that a share can change.".to_owned(),
    }];
    let [fixed, tested] = plan.split;
    let fixed_any = fixed > 0;
    let fixed = if fixed_any {
        format!("{} fixed the order", counted(fixed, "query", "queries"))
    } else {
        "No sub-cluster has queries enough to be put first, so the order rests on the old space alone".to_owned()
    };
    notes.push(format!(
        "{fixed}; {} tested it. A plan of up to {} of the gallery counts as partial.",
        counted(tested, "query", "queries"),
        whole_percent(plan.max_partial)
    ));
    let first = if fixed_any {
        "sub-clusters that lose most first, then the least credible items"
    } else {
        "the least credible items first"
    };
    let listed = match report.privacy {
        Privacy::Full => "; backfill.csv lists the rows",
        Privacy::Statistics => "",
    };
    notes.push(format!(
        "Order: {first}, then those farthest from their sub-cluster's centre{listed}."
    ));
    if !plan.first_subclusters.is_empty() {
        const NAMED: usize = 12;
        let named = &plan.first_subclusters[..plan.first_subclusters.len().min(NAMED)];
        notes.push(format!(
            "First: {}{}.",
            named.join(", "),
            if plan.first_subclusters.len() > NAMED {
                format!(" and {} more", count(plan.first_subclusters.len() - NAMED))
            } else {
                String::new()
            }
        ));
    }
    notes
}

/// The shares that were tested.
pub fn backfill_steps(report: &AuditReport) -> Option<Table> {
    let plan = report.backfill.as_ref()?;
    let mut table = Table::new([
        "share re-embedded",
        if plan.split[0] > 0 {
            "change, held-out queries"
        } else {
            "change, all queries"
        },
        "excess flips",
        "slices that do not pass",
        "all gates",
    ]);
    for step in &plan.steps {
        let (word, tone) = if step.passes {
            ("pass", Tone::Good)
        } else {
            ("do not pass", Tone::Unsure)
        };
        table.rows.push(vec![
            Cell::number(whole_percent(step.beta)),
            estimate_cell(&step.change),
            Cell::number(percent(step.excess_flips.value))
                .note(interval(&step.excess_flips, percent)),
            Cell::text(step.failing_slices.join(", ")),
            Cell::text(word).tone(tone),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Money and hours of the ways to go.
pub fn costs(report: &AuditReport) -> Option<Table> {
    let cost = report.backfill.as_ref()?.cost.as_ref()?;
    let mut table = Table::new(["way", "items to re-embed", "cost", "hours"]);
    for row in &cost.options {
        let number = |value: Option<f64>| {
            value.map_or_else(
                || Cell::number("-"),
                |value| Cell::number(format!("{value:.1}")),
            )
        };
        table.rows.push(vec![
            Cell::text(&row.option),
            Cell::number(count(row.items)),
            number(row.cost),
            number(row.hours),
        ]);
    }
    Some(table)
}

/// What a fitted map would recover.
pub fn what_if(report: &AuditReport) -> Option<Table> {
    let section = report.what_if.as_ref()?;
    let mut table = Table::new(["new queries", "old gallery", "against today"]);
    let mut row = |name: &str, value: f64, change: Cell| {
        table
            .rows
            .push(vec![Cell::text(name), Cell::number(measure(value)), change]);
    };
    row("old queries (today)", section.old_old, Cell::default());
    if let Some(new_old) = section.new_old {
        let raw = Cell::number(change(new_old - section.old_old));
        row("as they are", new_old, raw);
    }
    for map in &section.maps {
        let name = match map.map.as_str() {
            "procrustes" => "rotated onto the old space (Procrustes)",
            _ => "mapped linearly onto the old space",
        };
        row(name, map.mapped, estimate_cell(&map.change));
    }
    Some(table)
}

/// What the maps were fitted and tested on.
pub fn what_if_note(report: &AuditReport) -> String {
    report.what_if.as_ref().map_or_else(String::new, |section| {
        format!(
            "{} of the queries' identities: fitted on {} of half of them, tested on {} of the other half. It tells whether an adapter is worth trying and never changes the verdict.",
            report.primary,
            counted(section.fit_items, "item", "items"),
            counted(section.test_queries, "query", "queries"),
        )
    })
}

/// The policy's profile and what was changed about it.
pub fn profile(report: &AuditReport) -> Vec<Fact> {
    let limits = &report.policy.limits;
    let mut facts = vec![
        Fact::new("profile", limits.profile.name()),
        Fact::new("hash of the limits", &report.policy.hash),
        Fact::new("measure that decides", report.primary.to_string()),
    ];
    for (code, severity) in &limits.severity {
        facts.push(Fact::new(code.name(), severity.to_string()));
    }
    facts
}
