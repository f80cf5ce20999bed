//! What the figures draw: numbers where a shape needs them, and texts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Tone;
use super::format::{change, count, counted, interval, p_value, percent, plain};
use crate::judge::CheckState;
use crate::report::{
    AuditReport, MapPointRow, ON_MAP, PairingSection, SliceRow, VerificationSection,
};

/// Slices in the forest plot.
const FOREST: usize = 16;

/// A value with its interval, as text and for a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// Name.
    pub label: String,
    /// What it stands for, or `n`.
    pub note: String,
    /// The value.
    pub value_text: String,
    /// Its interval, or nothing.
    pub interval_text: String,
    /// Where to draw: the value.
    pub value: f64,
    /// The interval's ends, where there is one.
    pub ends: Option<(f64, f64)>,
}

/// Changes with their intervals against a limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forest {
    /// The limit.
    pub limit: f64,
    /// `slice margin -0.1`.
    pub limit_text: String,
    /// The rows, worst first.
    pub rows: Vec<ForestRow>,
}

/// One row of a forest plot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForestRow {
    /// Name, number, value and interval.
    pub bar: Bar,
    /// What the correction for many slices leaves of it: a failure, a suspect or nothing.
    pub mark: &'static str,
    /// Tone of the mark.
    pub tone: Tone,
    /// `Holm p = 0.302`.
    pub p_text: String,
}

/// Distributions of matching and non-matching scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// One a pairing.
    pub panels: Vec<ScorePanel>,
    /// The threshold of old->old, and its name.
    pub threshold: Option<(f64, String)>,
}

/// One pairing's scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScorePanel {
    /// `new->old`.
    pub pairing: String,
    /// Lower edge of the first bin.
    pub lowest: f64,
    /// Width of a bin.
    pub width: f64,
    /// Share of the matches in each bin.
    pub matches: Vec<f64>,
    /// Share of the non-matches in each bin.
    pub non_matches: Vec<f64>,
    /// False accepts and false rejects at the threshold, or nothing.
    pub rates_text: String,
}

/// Where old and new embeddings lie on two axes of the old space.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpaceMap {
    /// The items.
    pub dots: Vec<MapDot>,
    /// Names of the groups with a colour of their own.
    pub groups: Vec<String>,
    /// What is shown.
    pub note: String,
}

/// One item on the map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MapDot {
    /// Its old embedding.
    pub at: (f64, f64),
    /// Its new embedding.
    pub to: Option<(f64, f64)>,
    /// Index into the groups.
    pub group: Option<usize>,
    /// Whether it is a query.
    pub query: bool,
    /// Whether it moved to another identity.
    pub moved: bool,
    /// The item's id.
    pub id: String,
    /// What it is, in words.
    pub tip: String,
}

/// A curve over the share of the gallery that is re-embedded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Where its points lie, in [0, 1].
    pub betas: Vec<f64>,
    /// The points in the plan's order.
    pub values: Vec<f64>,
    /// Their intervals.
    pub ends: Vec<(f64, f64)>,
    /// The points of the mean over random orders.
    pub random: Vec<f64>,
    /// The floor.
    pub limit: f64,
    /// `floor -0.01`.
    pub limit_text: String,
    /// beta* and its name, when there is one.
    pub beta_star: Option<(f64, String)>,
}

/// The tested slices that lose most, worst first.
pub fn forest(report: &AuditReport) -> Option<Forest> {
    let tested = &report.slices.as_ref()?.tested;
    let mut worst: Vec<&SliceRow> = tested.iter().collect();
    worst.sort_by(|a, b| a.change.value.total_cmp(&b.change.value));
    let limit = -report.policy.limits.slice_margin;
    let rows: Vec<ForestRow> = worst
        .into_iter()
        .take(FOREST)
        .map(|row| {
            let (mark, tone) = match (row.state, row.suspect) {
                (CheckState::Fail, _) => ("✗", Tone::Bad),
                (_, true) => ("?", Tone::Unsure),
                _ => ("", Tone::Plain),
            };
            ForestRow {
                bar: Bar {
                    label: row.name.clone(),
                    note: format!("n = {}", count(row.queries)),
                    value_text: change(row.change.value),
                    interval_text: interval(&row.change, change),
                    value: row.change.value,
                    ends: Some((row.change.lower, row.change.upper)),
                },
                mark,
                tone,
                p_text: format!("Holm p {}", p_value(row.p_holm)),
            }
        })
        .collect();
    (!rows.is_empty()).then(|| Forest {
        limit,
        limit_text: format!("slice margin {}", plain(limit)),
        rows,
    })
}

/// Score distributions by pairing, and the threshold that old->old would be run at.
pub fn scores(report: &AuditReport) -> Option<Scores> {
    let today = report.pairings.iter().find(|p| p.pairing == "old->old");
    let point = today
        .and_then(|pairing| pairing.verification.as_ref()?.operating_points.first())
        .copied();
    let panels: Vec<ScorePanel> = report
        .pairings
        .iter()
        .filter_map(|pairing| panel(report, pairing))
        .collect();
    (!panels.is_empty()).then(|| Scores {
        panels,
        threshold: point.map(|point| {
            let text = format!(
                "old->old threshold {:.4} (set for FAR {} at most)",
                point.threshold,
                percent(point.far)
            );
            (point.threshold, text)
        }),
    })
}

fn panel(report: &AuditReport, pairing: &PairingSection) -> Option<ScorePanel> {
    let verification = pairing.verification.as_ref()?;
    let scores = verification.scores.as_ref()?;
    let shares = |counts: &[u64]| -> Vec<f64> {
        let total: u64 = counts.iter().sum();
        let share = |&n: &u64| n as f64 / total.max(1) as f64;
        counts.iter().map(share).collect()
    };
    Some(ScorePanel {
        pairing: pairing.pairing.clone(),
        lowest: scores.lowest,
        width: scores.width,
        matches: shares(&scores.matches),
        non_matches: shares(&scores.non_matches),
        rates_text: rates(report, &pairing.pairing, verification),
    })
}

/// FAR and FRR at the first of the old->old thresholds; the others have a table.
fn rates(report: &AuditReport, pairing: &str, verification: &VerificationSection) -> String {
    let own = verification.operating_points.first();
    let transferred = report.compatibility.as_ref().and_then(|compatibility| {
        let mut rows = compatibility.threshold_transfer.iter();
        rows.find(|row| row.pairing == pairing)
    });
    let (far, frr) = match (pairing, own, transferred) {
        ("old->old", Some(point), _) => (point.observed_far, 1.0 - point.tar),
        (_, _, Some(row)) => (row.observed_far, row.observed_frr),
        _ => return String::new(),
    };
    format!(
        "at the threshold: FAR {}, FRR {}",
        percent(far),
        percent(frr)
    )
}

/// The map of the old space.
pub fn space_map(report: &AuditReport) -> Option<SpaceMap> {
    let section = report.structure.map.as_ref()?;
    let mut groups: Vec<String> = Vec::new();
    // Without new->old nothing is known to lose.
    let known = report
        .structure
        .subclusters
        .iter()
        .filter(|row| row.new_old.is_some());
    groups.extend(known.take(ON_MAP).map(|row| row.name.clone()));
    let group_of: BTreeMap<&str, usize> = groups
        .iter()
        .enumerate()
        .map(|(index, name)| (name.as_str(), index))
        .collect();
    let dots: Vec<MapDot> = section
        .points
        .iter()
        .map(|point| MapDot {
            at: pair(point.old),
            to: point.new.map(pair),
            group: group_of.get(point.subcluster.as_str()).copied(),
            query: point.query,
            moved: point.moved_to.is_some(),
            id: point.id.clone(),
            tip: tip(point),
        })
        .collect();
    let n = |is: fn(&MapPointRow) -> bool| section.points.iter().filter(|point| is(point)).count();
    let [x, y] = section.explained;
    let note = format!(
        "{} and {} on the first two principal components of the old embeddings of the former, which hold {} and {} of their variance: \
         what looks near may be far in the other directions. Coloured are the sub-clusters that lose most. A line leads from the old embedding to the new one. {} moved: the nearest old prototype \
         was of the own {} and is of another.",
        counted(n(|point| !point.query), "gallery item", "gallery items"),
        counted(n(|point| point.query), "query", "queries"),
        percent(x),
        percent(y),
        counted(
            n(|point| point.moved_to.is_some()),
            "item has",
            "items have"
        ),
        report.primary.reference.groups()[0],
    );
    Some(SpaceMap { dots, groups, note })
}

fn pair([x, y]: [f32; 2]) -> (f64, f64) {
    (f64::from(x), f64::from(y))
}

fn tip(point: &MapPointRow) -> String {
    let kind = if point.query { "query" } else { "gallery" };
    let moved = point
        .moved_to
        .as_ref()
        .map_or_else(String::new, |to| format!(", moved to {to}"));
    format!("{} ({kind}) of {}{moved}", point.id, point.subcluster)
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn the_forest_is_worst_first_and_marks_what_holm_leaves() {
        let mut report = sample::skip();
        report.slices.as_mut().unwrap().tested[1].state = CheckState::Fail;
        let forest = forest(&report).unwrap();
        assert!(
            forest
                .rows
                .windows(2)
                .all(|pair| pair[0].bar.value <= pair[1].bar.value)
        );
        assert_eq!(forest.rows.iter().filter(|row| row.mark == "✗").count(), 1);
    }

    #[test]
    fn shares_of_scores_add_up_to_one() {
        let scores = scores(&sample::skip()).unwrap();
        assert_eq!(scores.panels.len(), 4);
        for panel in &scores.panels {
            assert!((panel.matches.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!((panel.non_matches.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        assert!(scores.threshold.unwrap().1.contains("0.5123"));
    }

    #[test]
    fn the_map_colours_the_sub_clusters_that_lose_most() {
        let report = sample::skip();
        let map = space_map(&report).unwrap();
        assert_eq!(map.groups.len(), ON_MAP);
        assert_eq!(map.groups[0], report.structure.subclusters[0].name);
        assert!(map.dots.iter().any(|dot| dot.group == Some(0)));
        assert!(map.note.contains("7 items have moved"), "{}", map.note);
    }
}
