//! The bottom of the report: which models, probe, settings and run it comes from.

use super::format::{count, percent, plain, utc};
use super::{Cell, Fact, Table};
use crate::domain::Adaptation;
use crate::report::{AuditReport, ModelSection};

/// Hex digits of a hash that are enough to recognise it; the JSON has all of them.
const HASH_DIGITS: usize = 16;

pub fn models(report: &AuditReport) -> Table {
    let mut table = Table::new(["", "old", "new"]);
    let mut row = |label: &str, value: &dyn Fn(&ModelSection) -> String| {
        table.rows.push(vec![
            Cell::text(label),
            Cell::text(value(&report.old)),
            Cell::text(value(&report.new)),
        ]);
    };
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    row("file", &|model| model.name.clone());
    row("kind", &|model| model.kind.clone());
    row("dimensions", &|model| model.dim.to_string());
    row("model hash (BLAKE3)", &|model| short(&model.hash));
    row("preprocessing hash", &|model| short(&model.preprocessing));
    row("output", &|model| or_none(&model.output));
    row("execution provider", &|model| or_none(&model.provider));
    row("ONNX Runtime", &|model| or_none(&model.runtime_version));
    row("weights", &|model| or_none(&model.precision));
    if [&report.old, &report.new]
        .iter()
        .any(|model| model.adaptation.is_some())
    {
        row("adapted: head", &|model| {
            adapted(model, |made| made.head.clone())
        });
        row("adapted: split", &|model| {
            adapted(model, |made| {
                format!(
                    "{} {} fitted and chosen on, {} held out, seed {}",
                    count(made.fitted),
                    made.units,
                    count(made.held_out),
                    made.seed
                )
            })
        });
        row("adapted: from, to (BLAKE3)", &|model| {
            adapted(model, |made| {
                format!("{}, {}", short(&made.new_model), short(&made.old_model))
            })
        });
    }
    let run = &report.run;
    table.rows.push(vec![
        Cell::text("embeddings computed / from cache"),
        Cell::text(format!(
            "{} / {}",
            count(run.embedded[0]),
            count(run.from_cache[0])
        )),
        Cell::text(format!(
            "{} / {}",
            count(run.embedded[1]),
            count(run.from_cache[1])
        )),
    ]);
    table
}

fn adapted(model: &ModelSection, words: impl Fn(&Adaptation) -> String) -> String {
    model.adaptation.as_ref().map_or_else(|| "-".into(), words)
}

fn short(hash: &str) -> String {
    hash.chars().take(HASH_DIGITS).collect()
}

pub fn probe(report: &AuditReport) -> Vec<Fact> {
    let probe = &report.probe;
    let [identity, identities] = report.primary.reference.groups();
    vec![
        Fact::new("origin", &probe.origin),
        Fact::new("modality", &probe.modality),
        Fact::new(
            "relevance",
            probe.qrels.as_ref().map_or_else(
                || format!("same {identity}"),
                |qrels| {
                    format!(
                        "{} ({} judged pairs, grades up to {})",
                        qrels.origin,
                        count(qrels.judged),
                        qrels.highest_grade
                    )
                },
            ),
        ),
        Fact::new("items", count(probe.items)),
        Fact::new(identities, count(probe.identities)),
        Fact::new(
            "cameras",
            if probe.cameras == 0 {
                "none given".into()
            } else {
                count(probe.cameras)
            },
        ),
        Fact::new("queries evaluated", count(probe.queries)),
        Fact::new(format!("query {identities}"), count(probe.query_identities)),
        Fact::new(
            "queries excluded (nothing relevant left)",
            count(probe.queries_excluded),
        ),
        Fact::new("gallery items", count(probe.gallery)),
        Fact::new("junk items (identity -1)", count(probe.junk)),
        Fact::new(
            format!("distractors ({identity} no query has)"),
            count(probe.distractors),
        ),
        Fact::new(
            format!("pairs removed: same {identity} and camera"),
            count(probe.same_camera_pairs),
        ),
        Fact::new(
            "pairs removed: byte-identical inputs",
            count(probe.identical_pairs),
        ),
    ]
}

pub fn bad_items(report: &AuditReport) -> Table {
    let mut table = Table::new(["item", "row", "error"]);
    table.rows = report
        .probe
        .bad_items
        .iter()
        .map(|bad| {
            let row = bad.row.map_or_else(String::new, |row| row.to_string());
            vec![
                Cell::text(&bad.id),
                Cell::number(row),
                Cell::text(&bad.error),
            ]
        })
        .collect();
    table
}

pub fn policy(report: &AuditReport) -> Vec<Fact> {
    let policy = &report.policy.limits;
    vec![
        Fact::new(
            format!("margin on {}, absolute", report.primary),
            plain(policy.margin),
        ),
        Fact::new("one-sided error of each bound (alpha)", plain(policy.alpha)),
        Fact::new("loss of a slice, at most", plain(policy.slice_margin)),
        Fact::new(
            "loss while the gallery is refreshed, at most",
            plain(policy.refresh_margin),
        ),
        Fact::new(
            "share of the gallery of a partial backfill, at most",
            percent(policy.max_partial),
        ),
        Fact::new("excess flips, at most", percent(policy.excess_flips)),
        Fact::new(
            "negative flips, at most",
            policy.negative_flips.map_or_else(
                || format!("no limit set (warns from {})", percent(policy.excess_flips)),
                percent,
            ),
        ),
    ]
}

pub fn settings(report: &AuditReport) -> Table {
    let mut table = Table::new(["setting", "value", "from"]);
    table.rows = report
        .settings
        .iter()
        .map(|setting| {
            let value = match setting.value.as_str() {
                Some(text) => text.to_owned(),
                None => setting.value.to_string(),
            };
            vec![
                Cell::text(&setting.key),
                Cell::text(value),
                Cell::text(setting.origin.to_string()),
            ]
        })
        .collect();
    table
}

pub fn run(report: &AuditReport) -> Vec<Fact> {
    let run = &report.run;
    let stages: Vec<_> = run
        .stage_seconds
        .iter()
        .map(|(stage, seconds)| format!("{stage} {seconds:.2} s"))
        .collect();
    let mut facts = vec![
        Fact::new("compat-audit", &run.tool_version),
        Fact::new("started", utc(run.started_unix)),
        Fact::new("stages", stages.join(", ")),
        Fact::new("threads", count(run.threads)),
        Fact::new(
            "ONNX Runtime library",
            run.runtime_library.as_deref().unwrap_or("not needed"),
        ),
        Fact::new("schema_version", report.schema_version.to_string()),
    ];
    if let Some(provider) = &run.first_pass {
        facts.push(Fact::new("long passes over scores begin on", provider));
    }
    facts
}
