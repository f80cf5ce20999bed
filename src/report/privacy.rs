//! A report without items: what may leave the house when pictures, texts and names may not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AuditReport, TableFiles};

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

/// The column whose values are places or devices; the values of every other may name someone.
const OPEN_COLUMN: &str = "camera";

/// What stands where a free text was.
const WITHHELD: &str = "withheld";

/// Takes out of the report all that names or shows an item: examples, places on the map, ids in findings, names of identities,
/// sub-clusters and slices, slices with too few queries, reasons of waivers. Every number of the verdict stays.
pub fn statistics_only(report: &mut AuditReport, tables: &mut TableFiles) {
    report.privacy = Privacy::Statistics;
    *tables = TableFiles::default();
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
        withheld.hide(&mut row.name);
        row.nearest_rival
            .iter_mut()
            .for_each(|(name, _)| withheld.hide(name));
        let confused = row
            .consensus
            .as_mut()
            .and_then(|consensus| consensus.confused_with.as_mut());
        confused
            .into_iter()
            .for_each(|(name, _)| withheld.hide(name));
    }
    if let Some(plan) = &mut report.backfill {
        plan.first_subclusters
            .iter_mut()
            .for_each(|name| withheld.hide(name));
        let slices = plan
            .steps
            .iter_mut()
            .flat_map(|step| &mut step.failing_slices);
        slices.for_each(|name| withheld.hide_slice(name));
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
    let used = report
        .policy
        .waivers
        .iter_mut()
        .map(|used| &mut used.waiver);
    for waiver in used.chain(&mut report.policy.limits.waivers) {
        waiver
            .slice
            .iter_mut()
            .for_each(|name| withheld.hide_slice(name));
        waiver.reason = WITHHELD.to_owned();
    }
    report
        .settings
        .retain(|setting| !setting.key.contains("waiver"));
    // Sentences name slices as the tables do.
    let verdict = &mut report.verdict;
    withheld.in_text(&mut verdict.reason);
    verdict
        .not_tested
        .iter_mut()
        .for_each(|text| withheld.in_text(text));
    for text in &mut verdict.next_steps {
        withheld.in_text(text);
        if text.contains("backfill.csv") {
            text.push_str(" This report was made without it: the audit writes it without `--privacy statistics`.");
        }
    }
    for check in &mut report.checks {
        withheld.in_text(&mut check.message);
        check
            .settles
            .iter_mut()
            .for_each(|text| withheld.in_text(text));
        check
            .waived
            .iter_mut()
            .for_each(|text| WITHHELD.clone_into(text));
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
    number: BTreeMap<String, usize>,
    /// Slices as sentences name them, and what they say now.
    slices: BTreeMap<String, String>,
}

impl Withheld {
    fn hide(&mut self, name: &mut String) {
        let next = self.number.len() + 1;
        let number = self.number.entry(std::mem::take(name)).or_insert(next);
        *name = format!("#{number}");
    }

    /// `identity=name`: the column stays.
    fn hide_slice(&mut self, slice: &mut String) {
        let Some((column, value)) = slice.split_once('=') else {
            return;
        };
        if column == OPEN_COLUMN {
            return;
        }
        let mut value = value.to_owned();
        self.hide(&mut value);
        let hidden = format!("{column}={value}");
        self.slices
            .insert(std::mem::replace(slice, hidden.clone()), hidden);
    }

    fn in_text(&self, text: &mut String) {
        // The longer first: a name may begin another.
        let mut slices: Vec<_> = self.slices.iter().collect();
        slices.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, hidden) in slices {
            *text = text.replace(name.as_str(), hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SliceRow, sample, write};
    use super::*;
    use crate::config::Waiver;
    use crate::domain::Date;
    use crate::judge::CheckCode;
    use crate::judge::waivers::{WaiverState, WaiverUse};

    /// Every file of a report that is text.
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
            // Letters of a picture are no letters.
            if path.extension().is_none_or(|extension| extension != "svg") {
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            texts.push((path.display().to_string(), text));
        }
        texts
    }

    #[test]
    fn no_file_names_or_shows_an_item_and_every_number_of_the_verdict_stays() {
        let mut report = sample::full();
        let mut tables = sample::table_files();
        let slices = report.slices.as_mut().unwrap();
        let named = SliceRow {
            name: "identity=Jane Doe".into(),
            ..slices.tested[0].clone()
        };
        let column = SliceRow {
            name: "surname=Doe-Smith".into(),
            ..slices.tested[0].clone()
        };
        slices.tested.extend([named, column]);
        let waiver = Waiver {
            check: CheckCode::Slices,
            slice: Some("identity=Jane Doe".into()),
            reason: "Jane Doe has left".into(),
            until: Date::of_unix_day(20_000),
        };
        report.policy.limits.waivers.push(waiver.clone());
        report.policy.waivers.push(WaiverUse {
            waiver,
            state: WaiverState::Used,
        });
        report.checks[0].waived = Some("Jane Doe has left".into());
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
            .chain(["Jane Doe", "Doe-Smith", "secret.png", "data:image"].map(String::from))
            .collect();
        assert!(secrets.len() > 20);
        statistics_only(&mut report, &mut tables);
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        write(&report, tables, &out).unwrap();
        let terminal = super::super::terminal::summary(&report, &out, Default::default());
        let view = super::super::view::View::new(
            &report,
            &mut super::super::thumbnails::Thumbnails::new(9),
        );
        let annotations = super::super::annotations::lines(&view).join("\n");
        let said = [
            ("terminal".to_owned(), terminal),
            ("annotations".to_owned(), annotations),
        ];
        for (name, text) in texts(&out).into_iter().chain(said) {
            for secret in &secrets {
                assert!(!text.contains(secret.as_str()), "{secret} in {name}");
            }
        }
        for table in ["items.parquet", "backfill.csv", "backfill.parquet"] {
            assert!(!out.join(table).exists(), "{table}");
        }
        assert!(
            report.verdict.reason.contains(" identity=#"),
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
        names.iter_mut().for_each(|name| withheld.hide(name));
        assert_eq!(names, ["#1", "#2", "#1"]);
        let mut slices =
            ["identity=x", "identity=xy", "camera=3", "sub-cluster=a"].map(String::from);
        slices.iter_mut().for_each(|name| withheld.hide_slice(name));
        assert_eq!(
            slices,
            ["identity=#3", "identity=#4", "camera=3", "sub-cluster=#1"]
        );
        let mut text = "identity=xy and identity=x lose".to_owned();
        withheld.in_text(&mut text);
        assert_eq!(text, "identity=#4 and identity=#3 lose");
    }
}
