//! The middle of the report: pairings, changes, flips, thresholds, agreement.

use std::path::Path;

use super::format::{
    capital, change, count, count_of, counted, interval, measure, p_value, percent, shortened,
};
use super::{Bar, Cell, FlipCard, Flips, HitCard, ItemCard, Table, Tone};
use crate::domain::Estimate;
use crate::report::thumbnails::Thumbnails;
use crate::report::{AuditReport, HitView, ItemView, MeasureRow};

/// Characters of an item's text that are shown.
const TEXT_SHOWN: usize = 160;

/// What a pairing stands for in production.
fn meaning(pairing: &str) -> &'static str {
    match pairing {
        "old->old" => "today",
        "new->old" => "backfill skipped",
        "new->new" => "full backfill",
        "old->new" => "old clients or rollback",
        _ => "",
    }
}

pub fn pairing_bars(report: &AuditReport) -> Vec<Bar> {
    let bar = |section: &crate::report::PairingSection| {
        let estimate = section.measures.first()?.estimate;
        Some(Bar {
            label: section.pairing.clone(),
            note: meaning(&section.pairing).into(),
            value_text: measure(estimate.value),
            interval_text: interval(&estimate, measure),
            value: estimate.value,
            ends: Some((estimate.lower, estimate.upper)),
        })
    };
    report.pairings.iter().filter_map(bar).collect()
}

fn estimate_cell(estimate: &Estimate, number: fn(f64) -> String) -> Cell {
    Cell::number(number(estimate.value)).note(interval(estimate, number))
}

/// A change's tone says only what its interval proves.
fn change_tone(estimate: &Estimate) -> Tone {
    if estimate.lower > 0.0 {
        Tone::Good
    } else if estimate.upper < 0.0 {
        Tone::Bad
    } else {
        Tone::Plain
    }
}

/// Measures down, pairings across.
pub fn pairings(report: &AuditReport) -> Table {
    let mut table = Table::new(["measure"]);
    for section in &report.pairings {
        table.head.push(format!(
            "{} ({})",
            section.pairing,
            meaning(&section.pairing)
        ));
    }
    let first = report
        .pairings
        .first()
        .map_or(&[][..], |section| &section.measures);
    for row in first {
        let mut cells = vec![Cell::text(&row.measure)];
        for section in &report.pairings {
            let found = section
                .measures
                .iter()
                .find(|other| other.measure == row.measure);
            cells.push(found.map_or_else(
                || Cell::number("-"),
                |row| estimate_cell(&row.estimate, measure),
            ));
        }
        table.rows.push(cells);
    }
    table
}

pub fn verification(report: &AuditReport) -> Option<Table> {
    let mut table = Table::new([
        "pairing",
        "AUROC",
        "EER",
        "TAR at FAR",
        "matching pairs",
        "non-matching pairs",
    ]);
    for section in &report.pairings {
        let Some(verification) = &section.verification else {
            continue;
        };
        let points: Vec<_> = verification
            .operating_points
            .iter()
            .map(|point| format!("{} at {:e}", percent(point.tar), point.far))
            .collect();
        table.rows.push(vec![
            Cell::text(&section.pairing),
            Cell::number(measure(verification.auroc)),
            Cell::number(percent(verification.eer)),
            Cell::text(points.join("; ")),
            Cell::number(count(verification.matches)),
            Cell::number(count(verification.non_matches)),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

pub fn changes(report: &AuditReport) -> Option<Table> {
    let mut table = Table::new(["change", "value", "reads"]);
    let mut row = |name: &str, cell: Cell, reads: &str| {
        table
            .rows
            .push(vec![Cell::text(name), cell, Cell::text(reads)]);
    };
    let signed = |estimate: &Estimate| estimate_cell(estimate, change).tone(change_tone(estimate));
    if let Some(worth) = &report.upgrade_worth {
        row(
            &format!("W, {}", report.primary),
            signed(worth),
            "new->new minus old->old: what a full backfill buys",
        );
    }
    if let Some(compatibility) = &report.compatibility {
        for (
            index,
            MeasureRow {
                measure, estimate, ..
            },
        ) in compatibility.change.iter().enumerate()
        {
            let reads = if index == 0 {
                "new->old minus old->old: what skipping the backfill does"
            } else {
                ""
            };
            row(&format!("D, {measure}"), signed(estimate), reads);
        }
        row(
            &format!("D, {}, ties favour the query", report.primary),
            Cell::number(change(compatibility.change_optimistic)),
            "differs from D only where scores tie",
        );
        row(
            &format!("D, {}, identities weighted equally", report.primary),
            Cell::number(change(compatibility.change_identity_weighted)),
            "shows whether large identities carry D",
        );
        row(
            "G, update gain",
            compatibility.update_gain.as_ref().map_or_else(
                || Cell::number("undefined"),
                |gain| estimate_cell(gain, change),
            ),
            "D / W: the share of the upgrade that skipping the backfill keeps; undefined unless W > 0 is proven",
        );
    }
    (!table.rows.is_empty()).then_some(table)
}

pub fn flips(report: &AuditReport) -> Option<Flips> {
    let flips = &report.compatibility.as_ref()?.flips;
    let total = flips.right_right + flips.right_wrong + flips.wrong_right + flips.wrong_wrong;
    let cell = |n: usize| Cell::number(count_of(n, total));
    let [right, wrong] = report.primary.reference.hits();
    let mut contingency = Table::new([
        "top hit, queries",
        &format!("new->old {right}"),
        &format!("new->old {wrong}"),
    ]);
    contingency.rows = vec![
        vec![
            Cell::text(format!("old->old {right}")),
            cell(flips.right_right),
            cell(flips.right_wrong)
                .note("negative flips")
                .tone(Tone::Bad),
        ],
        vec![
            Cell::text(format!("old->old {wrong}")),
            cell(flips.wrong_right)
                .note("positive flips")
                .tone(Tone::Good),
            cell(flips.wrong_wrong),
        ],
    ];
    let mut rates = Table::new(["flips at CMC@1", "share of queries", "reads"]);
    let mut row = |name: &str, estimate: Option<&Estimate>, reads: &str| {
        let share = estimate.map_or_else(
            || Cell::number("not tested"),
            |estimate| estimate_cell(estimate, percent),
        );
        rates
            .rows
            .push(vec![Cell::text(name), share, Cell::text(reads)]);
    };
    row(
        "negative",
        Some(&flips.negative),
        &format!("{right} today, {wrong} when the backfill is skipped"),
    );
    row(
        "excess",
        flips.excess.as_ref(),
        &format!("of these, {right} after a full backfill: the fault of skipping"),
    );
    row(
        "positive",
        Some(&flips.positive),
        &format!("{wrong} today, {right} when the backfill is skipped"),
    );
    Some(Flips {
        contingency,
        rates,
        asymmetry: format!(
            "Negative against positive flips: p {} (cluster sign-flip test, n = {}).",
            p_value(flips.asymmetry_p),
            counted(total, "query", "queries")
        ),
    })
}

/// The pictures that a report shows, in its order.
pub fn pictures(report: &AuditReport) -> impl Iterator<Item = &Path> {
    let of_flips = report.worst_flips.iter().flat_map(|flip| {
        let hits = flip.old_hits.iter().chain(&flip.new_hits);
        hits.map(|hit| &hit.item).chain([&flip.query])
    });
    let least = &report.structure.credibility.least_credible;
    let items = of_flips.chain(least.iter().map(|row| &row.item));
    items.filter_map(|item| item.image.as_deref())
}

/// An item with its picture, when it has one and there is room.
pub fn item_card(item: &ItemView, thumbnails: &mut Thumbnails) -> ItemCard {
    let thumbnail = item
        .image
        .as_deref()
        .and_then(|path| thumbnails.data_uri(path));
    let sound = item
        .sound
        .as_deref()
        .and_then(|path| thumbnails.sound_uri(path));
    ItemCard {
        id: item.id.clone(),
        identity: item.identity.clone(),
        placeholder: (item.image.is_some() && thumbnail.is_none())
            || (item.sound.is_some() && sound.is_none()),
        thumbnail,
        sound,
        text: item.text.as_deref().map(|text| shortened(text, TEXT_SHOWN)),
    }
}

pub fn worst_flips_note(report: &AuditReport) -> String {
    let reference = report.primary.reference;
    let [right, wrong] = reference.hits();
    let [identity, _] = reference.groups();
    format!(
        "{} under old->old, {wrong} under new->old. The first three hits of both, best first: {right} or {wrong}, \
         {identity}, score.",
        capital(right)
    )
}

pub fn worst_flips(report: &AuditReport, thumbnails: &mut Thumbnails) -> Vec<FlipCard> {
    let [right, wrong] = report.primary.reference.hits();
    let mut cards = Vec::new();
    for flip in &report.worst_flips {
        let mut hits = |hits: &[HitView]| -> Vec<HitCard> {
            hits.iter()
                .map(|hit| HitCard {
                    item: item_card(&hit.item, thumbnails),
                    score: format!("{:.3}", hit.score),
                    word: if hit.relevant { right } else { wrong },
                    mark: if hit.relevant { "✓" } else { "✗" },
                    tone: if hit.relevant { Tone::Good } else { Tone::Bad },
                })
                .collect()
        };
        let (old_hits, new_hits) = (hits(&flip.old_hits), hits(&flip.new_hits));
        cards.push(FlipCard {
            query: item_card(&flip.query, thumbnails),
            ranks: format!(
                "first {right} hit: rank {} -> {}",
                count(flip.old_rank),
                count(flip.new_rank)
            ),
            blame: match flip.excess {
                Some(true) => "excess flip: new->new finds it",
                Some(false) => "new->new misses it too",
                None => "new->new not tested",
            },
            old_hits,
            new_hits,
        });
    }
    cards
}

pub fn threshold_transfer(report: &AuditReport) -> Option<Table> {
    let rows = &report.compatibility.as_ref()?.threshold_transfer;
    let mut table = Table::new([
        "threshold of old->old, at FAR",
        "used on",
        "FAR there",
        "FRR there",
    ]);
    table.rows = rows
        .iter()
        .map(|row| {
            vec![
                Cell::text(format!("{:.4} ({:e})", row.threshold, row.far)),
                Cell::text(&row.pairing),
                Cell::number(format!("{:.2e}", row.observed_far)),
                Cell::number(percent(row.observed_frr)),
            ]
        })
        .collect();
    (!table.rows.is_empty()).then_some(table)
}

pub fn agreement(report: &AuditReport) -> Option<Table> {
    let mut table = Table::new([
        "agreement of old and new (never part of the verdict)",
        "value",
    ]);
    if let Some(compatibility) = &report.compatibility {
        for row in &compatibility.overlap {
            table.rows.push(vec![
                Cell::text(format!("top-{} overlap of old->old and new->old", row.k)),
                Cell::number(percent(row.overlap)),
            ]);
        }
        table.rows.push(vec![
            Cell::text("rank-biased overlap of old->old and new->old, p = .9"),
            Cell::number(measure(compatibility.rank_biased_overlap)),
        ]);
        if let Some(cosine) = &compatibility.alignment {
            table.rows.push(vec![
                Cell::text("cosine of an item's old and new embedding, mean"),
                Cell::number(format!("{:.3}", cosine.mean)).note(format!(
                    "min {:.3}, quartiles {:.3} / {:.3} / {:.3}, max {:.3}",
                    cosine.min,
                    cosine.lower_quartile,
                    cosine.median,
                    cosine.upper_quartile,
                    cosine.max
                )),
            ]);
        }
    }
    if let Some(cka) = &report.cka {
        table.rows.push(vec![
            Cell::text("linear CKA of the two spaces, debiased"),
            Cell::number(format!("{:.3}", cka.value)).note(format!(
                "{}; blind to a rotation, which breaks new->old",
                counted(cka.items, "item", "items")
            )),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}
