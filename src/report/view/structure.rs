//! The old space in the report: sub-clusters, consensus, credibility.

use super::evidence::item_card;
use super::format::{change, count, count_of, counted, interval, measure, percent};
use super::{Bar, Cell, Credibility, CredibilityCard, Table};
use crate::config::CredibilityCut;
use crate::domain::Reference;
use crate::report::thumbnails::Thumbnails;
use crate::report::{AuditReport, ClustersSection, SubClusterRow};

/// Sub-clusters in the figure.
const BARS: usize = 12;

pub fn subclusters_note(report: &AuditReport) -> String {
    if let Some(clusters) = &report.clusters {
        return clusters_note(clusters, report.probe.gallery);
    }
    let structure = &report.structure;
    let split = match structure.n_split_identities {
        0 => "no identity is split".to_owned(),
        n => format!(
            "{} split into more than one",
            counted(n, "identity is", "identities are")
        ),
    };
    let stability = structure.stability.map_or_else(String::new, |ari| {
        format!("; stability {ari:.2} (bootstrap adjusted Rand index)")
    });
    let n = counted(structure.n_subclusters, "sub-cluster", "sub-clusters");
    format!("{n} in the old gallery; {split}{stability}.")
}

/// The clusters that stand in for labels are the sub-clusters.
fn clusters_note(clusters: &ClustersSection, gallery: usize) -> String {
    let mut note = format!(
        "{} of the old gallery stand in for labels (average linkage, cut where the leave-one-out silhouette is highest), {} of one item",
        counted(clusters.n_clusters, "cluster", "clusters"),
        count(clusters.n_singletons),
    );
    if let Some(silhouette) = clusters.silhouette {
        note += &format!("; silhouette {silhouette:.2}");
    }
    if let Some(stability) = clusters.stability {
        note += &format!(
            "; stability {stability:.2} (adjusted Rand index against clusterings of four fifths of the items)"
        );
    }
    if let Some(agreement) = clusters.labels_agreement {
        note += &format!(
            "; adjusted Rand index {agreement:.2} with the probe's labels, which were not used"
        );
    }
    if let Some(searching) = clusters.searching {
        note += &format!(
            "; of {} items the {} nearest to {} were clustered, {} lie outside all clusters, and the other queries did not search",
            count(gallery),
            count(clusters.clustered),
            counted(searching, "query", "queries"),
            count(clusters.outside)
        );
    }
    note + "."
}

fn subcluster_change(row: &SubClusterRow) -> Option<f64> {
    Some(row.new_old? - row.old_old?)
}

pub fn subclusters(report: &AuditReport) -> Table {
    let change_of = format!("change, {}", report.primary);
    let mut table = Table::new([
        "sub-cluster",
        &change_of,
        "old->old",
        "new->old",
        "queries",
        "gallery items",
        "radius",
        "nearest rival (cosine)",
        "change of own mass",
        "confused with (queries)",
    ]);
    let optional = |value: Option<f64>, number: fn(f64) -> String| {
        Cell::number(value.map_or_else(|| "-".into(), number))
    };
    for row in &report.structure.subclusters {
        table.rows.push(vec![
            Cell::text(&row.name),
            optional(subcluster_change(row), change),
            optional(row.old_old, measure),
            optional(row.new_old, measure),
            Cell::number(count(row.queries)),
            Cell::number(count(row.size)),
            Cell::number(format!("{:.3}", row.radius)),
            Cell::text(row.nearest_rival.as_ref().map_or_else(
                || "-".to_owned(),
                |(name, cosine)| format!("{name} ({cosine:.3})"),
            )),
            optional(
                row.consensus.as_ref().map(|c| c.mass_new - c.mass_old),
                change,
            ),
            Cell::text(row.consensus.as_ref().map_or_else(
                || "-".to_owned(),
                |consensus| match &consensus.confused_with {
                    Some((name, n)) => format!("{name} ({n} of {})", consensus.queries),
                    None => "none".to_owned(),
                },
            )),
        ]);
    }
    table
}

/// The first rows: the report's order is worst change first.
pub fn subcluster_bars(report: &AuditReport) -> Vec<Bar> {
    let bar = |row: &SubClusterRow| {
        let value = subcluster_change(row)?;
        Some(Bar {
            label: row.name.clone(),
            note: format!("n = {}", count(row.queries)),
            value_text: change(value),
            interval_text: String::new(),
            value,
            ends: None,
        })
    };
    report
        .structure
        .subclusters
        .iter()
        .filter_map(bar)
        .take(BARS)
        .collect()
}

pub fn consensus(report: &AuditReport) -> Option<Table> {
    let consensus = report.structure.consensus.as_ref()?;
    let [identity, _] = report.primary.reference.groups();
    let mut table = Table::new([
        "consensus, mean over queries",
        "old queries",
        "new queries",
        "change",
    ]);
    let mut row = |name: &str, old: f64, new: f64| {
        table.rows.push(vec![
            Cell::text(name),
            Cell::number(measure(old)),
            Cell::number(measure(new)),
            Cell::number(change(new - old)),
        ]);
    };
    row(
        &format!("neighbourhood mass on the own {identity}"),
        consensus.mass_old,
        consensus.mass_new,
    );
    row(
        "NCCL objective L, nats",
        consensus.nccl_old,
        consensus.nccl_new,
    );
    let mut only = |name: String, value: String| {
        table.rows.push(vec![
            Cell::text(name),
            Cell::text(""),
            Cell::number(value),
            Cell::text(""),
        ]);
    };
    only(
        "KL(old || new) over sub-cluster prototypes, nats".into(),
        measure(consensus.kl),
    );
    only(
        format!("arg-max {identity} kept"),
        percent(consensus.argmax_kept),
    );
    only("temperature".into(), measure(consensus.temperature));
    Some(table)
}

pub fn credibility(report: &AuditReport, thumbnails: &mut Thumbnails) -> Credibility {
    let section = &report.structure.credibility;
    let reference = report.primary.reference;
    let [identity, _] = reference.groups();
    let mut notes = vec![format!(
        "{} of {} assessable gallery items lie below the cut-off {:.2}{}; {} not assessable (the only item of its {identity}).",
        count_of(section.below_cutoff, section.assessable),
        count(section.assessable),
        section.cutoff,
        match (section.cut, reference) {
            (CredibilityCut::Paper, _) => " of the entropy score (the paper's cut)",
            (CredibilityCut::Combined, Reference::Labels) => "",
            (CredibilityCut::Combined, Reference::OldModel) =>
                ": farther from their nearest neighbours than twice the median item",
        },
        counted(section.not_assessable, "item is", "items are"),
    )];
    if let Some(without) = &section.change_without_least_credible {
        let with = report
            .compatibility
            .as_ref()
            .and_then(|compatibility| compatibility.change.first())
            .map_or_else(String::new, |row| {
                format!(" (with them {})", change(row.estimate.value))
            });
        notes.push(format!(
            "D without the items below the cut-off: {} {}{with}.",
            change(without.value),
            interval(without, change),
        ));
    }
    if let Some(share) = section.flips_on_least_credible {
        notes.push(format!(
            "{} of the negative flips lost a hit that lies below the cut-off.",
            percent(share)
        ));
    }
    if !section.lost_hits.is_empty() {
        let rows = section.lost_hits.iter().map(|row| {
            format!(
                "{} on the {} least credible",
                percent(row.lost_hits),
                percent(row.least_credible)
            )
        });
        let rows: Vec<String> = rows.collect();
        notes.push(format!(
            "Of the hits that negative flips lost, {}; damage spread evenly would sit there in the same shares.",
            rows.join(", ")
        ));
    }
    let score = |name: &str, value: Option<f64>| {
        format!(
            "{name} {}",
            value.map_or_else(|| "-".into(), |v| format!("{v:.2}"))
        )
    };
    let least = section
        .least_credible
        .iter()
        .map(|row| CredibilityCard {
            item: item_card(&row.item, thumbnails),
            combined: format!("{:.2}", row.combined),
            scores: [
                score("entropy", row.entropy),
                score("posterior", row.posterior),
                score("neighbour share", row.consensus),
            ]
            .join(", "),
        })
        .collect();
    Credibility {
        notes,
        histogram: section.histogram.clone(),
        cutoff: section.cutoff,
        cutoff_text: format!("cut-off {:.2}", section.cutoff),
        least,
    }
}
