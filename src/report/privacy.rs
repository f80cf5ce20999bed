//! A report without items: what may leave the house when pictures, texts and names may not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AuditReport, Rows};

/// What a report may show of the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Privacy {
    /// Items with their pictures and texts.
    #[default]
    Full,
    /// Numbers only.
    Statistics,
}

/// Columns whose values name one person, product or text each.
const NAMING: [&str; 2] = ["identity", "sub-cluster"];

/// Takes out of the report all that names or shows an item: examples, places on the map, ids in findings, names of identities
/// and sub-clusters, slices with too few queries. Every number of the verdict stays.
pub fn statistics_only(report: &mut AuditReport, rows: &mut Rows) {
    report.privacy = Privacy::Statistics;
    *rows = Rows::default();
    report.worst_flips.clear();
    report.probe.bad_items.clear();
    report
        .findings
        .iter_mut()
        .for_each(|finding| finding.items.clear());
    let structure = &mut report.structure;
    structure.credibility.least_credible.clear();
    structure.map = None;
    let mut withheld = Withheld::default();
    for row in &mut structure.subclusters {
        withheld.hide(&mut row.name, "sub-cluster");
        row.nearest_rival = None;
        if let Some(consensus) = &mut row.consensus {
            consensus.confused_with = None;
        }
    }
    if let Some(plan) = &mut report.backfill {
        let first = plan.first_subclusters.iter_mut();
        first.for_each(|name| withheld.hide(name, "sub-cluster"));
        for name in plan
            .steps
            .iter_mut()
            .flat_map(|step| &mut step.failing_slices)
        {
            withheld.hide_slice(name);
        }
    }
    if let Some(slices) = &mut report.slices {
        slices.untestable.clear();
        slices
            .tested
            .iter_mut()
            .for_each(|row| withheld.hide_slice(&mut row.name));
    }
    if let Some(baseline) = &mut report.baseline {
        baseline
            .slices
            .iter_mut()
            .for_each(|row| withheld.hide_slice(&mut row.name));
    }
    for used in &mut report.policy.waivers {
        used.waiver
            .slice
            .iter_mut()
            .for_each(|name| withheld.hide_slice(name));
    }
    for waiver in &mut report.policy.limits.waivers {
        waiver
            .slice
            .iter_mut()
            .for_each(|name| withheld.hide_slice(name));
    }
    // Sentences name slices as the tables do.
    withheld.in_text(&mut report.verdict.reason);
    report
        .verdict
        .next_steps
        .iter_mut()
        .for_each(|text| withheld.in_text(text));
    for check in &mut report.checks {
        withheld.in_text(&mut check.message);
        check
            .settles
            .iter_mut()
            .for_each(|text| withheld.in_text(text));
        check
            .waived
            .iter_mut()
            .for_each(|text| withheld.in_text(text));
    }
    report
        .findings
        .iter_mut()
        .for_each(|finding| withheld.in_text(&mut finding.message));
    report
        .policy
        .weakened
        .iter_mut()
        .for_each(|text| withheld.in_text(text));
}

/// Names that were taken out, each with the number that stands in its place everywhere.
#[derive(Default)]
struct Withheld {
    number: BTreeMap<String, String>,
}

impl Withheld {
    fn hide(&mut self, name: &mut String, kind: &str) {
        let next = self.number.len() + 1;
        let stand_in = self.number.entry(std::mem::take(name));
        *name = stand_in.or_insert_with(|| format!("{kind} {next}")).clone();
    }

    /// `identity=name`: the column stays.
    fn hide_slice(&mut self, slice: &mut String) {
        if let Some((column, _)) = slice.split_once('=')
            && NAMING.contains(&column)
        {
            let column = column.to_owned();
            self.hide(slice, &column);
        }
    }

    fn in_text(&self, text: &mut String) {
        // The longer first: a name may begin another.
        let mut names: Vec<_> = self
            .number
            .iter()
            .filter(|(name, _)| name.contains('='))
            .collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, stand_in) in names {
            *text = text.replace(name.as_str(), stand_in);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SliceRow, sample, write};
    use super::*;

    /// Every file of a report, as text; of a Parquet file or a picture whatever is text in it.
    fn texts(folder: &std::path::Path) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for name in [
            "report.json",
            "report.html",
            "summary.md",
            "junit.xml",
            "metrics.prom",
        ] {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            texts.push((name.to_owned(), String::from_utf8(bytes).unwrap()));
        }
        for entry in std::fs::read_dir(folder.join("figures")).unwrap() {
            let path = entry.unwrap().path();
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            texts.push((path.display().to_string(), text));
        }
        texts
    }

    #[test]
    fn no_file_names_or_shows_an_item_and_every_number_of_the_verdict_stays() {
        let mut report = sample::full();
        let mut rows = sample::rows();
        let slices = report.slices.as_mut().unwrap();
        let named = SliceRow {
            name: "identity=Jane Doe".into(),
            ..slices.tested[0].clone()
        };
        slices.tested.push(named);
        report.verdict.reason += " identity=Jane Doe loses.";
        report.findings[0].items = vec!["images/secret.png".into()];
        let before = report.clone();
        let secrets: Vec<String> = before
            .worst_flips
            .iter()
            .map(|flip| flip.query.id.clone())
            .chain(
                before
                    .structure
                    .subclusters
                    .iter()
                    .map(|row| row.name.clone()),
            )
            .chain(
                before
                    .structure
                    .credibility
                    .least_credible
                    .iter()
                    .map(|row| row.item.id.clone()),
            )
            .chain(
                before
                    .slices
                    .iter()
                    .flat_map(|s| s.untestable.iter().map(|row| row.name.clone())),
            )
            .chain(["Jane Doe", "secret.png", "data:image"].map(String::from))
            .collect();
        assert!(secrets.len() > 20);
        statistics_only(&mut report, &mut rows);
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        write(&report, &rows, &out).unwrap();
        for (name, text) in texts(&out) {
            for secret in &secrets {
                assert!(!text.contains(secret.as_str()), "{secret} in {name}");
            }
        }
        for table in ["items.parquet", "backfill.csv", "backfill.parquet"] {
            assert!(!out.join(table).exists(), "{table}");
        }
        assert!(
            report.verdict.reason.contains("identity "),
            "{}",
            report.verdict.reason
        );
        assert_eq!(report.pairings, before.pairings);
        assert_eq!(report.compatibility, before.compatibility);
        let numbers = |report: &AuditReport| -> Vec<_> {
            report
                .checks
                .iter()
                .map(|check| (check.code, check.estimate, check.state))
                .collect()
        };
        assert_eq!(numbers(&report), numbers(&before));
    }

    #[test]
    fn one_name_has_one_stand_in() {
        let mut withheld = Withheld::default();
        let mut names = ["a", "b", "a"].map(String::from);
        names
            .iter_mut()
            .for_each(|name| withheld.hide(name, "sub-cluster"));
        assert_eq!(names, ["sub-cluster 1", "sub-cluster 2", "sub-cluster 1"]);
        let mut slices = ["identity=x", "identity=xy", "camera=3"].map(String::from);
        slices.iter_mut().for_each(|name| withheld.hide_slice(name));
        assert_eq!(slices, ["identity 3", "identity 4", "camera=3"]);
        let mut text = "identity=xy and identity=x lose".to_owned();
        withheld.in_text(&mut text);
        assert_eq!(text, "identity 4 and identity 3 lose");
    }
}
