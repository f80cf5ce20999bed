//! The top of the report: the answer, why, what was not tested, what this probe can judge, the findings.

use super::format::{count, measure, p_value, percent, plain};
use super::{Fact, FindingLine, Headline, Tone};
use crate::domain::{Finding, FindingCode, Reference, Severity};
use crate::judge::Verdict;
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
        FindingCode::PreprocessingAssumed
            | FindingCode::StoredEmbeddingsDiffer
            | FindingCode::LabelFree
            | FindingCode::AdaptedModel
    )
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
    let resolvable = assay.resolvable_margin.filter(|margin| margin.is_finite());
    let resolves = resolvable.map_or_else(String::new, |margin| {
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
        if assay.largest_margin.is_finite() {
            format!(
                "Largest margin that this probe could judge: {}.",
                measure(assay.largest_margin.max(0.0))
            )
        } else {
            "This probe could judge no margin: nothing bounds old->old from below.".to_owned()
        },
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
