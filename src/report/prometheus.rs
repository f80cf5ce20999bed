//! metrics.prom: the audit as gauges for node_exporter's textfile collector.
//!
//! The text format has NaN and infinities, so nothing is rounded or left out but what was not tested. The collector
//! refuses timestamps on samples: when the audit ran is a gauge of its own.

use std::fmt::Write;

use super::AuditReport;
use crate::domain::Reference;
use crate::judge::{CheckState, Verdict};

const VERDICTS: [Verdict; 5] = [
    Verdict::SkipBackfill,
    Verdict::PartialBackfill,
    Verdict::FullBackfill,
    Verdict::DoNotUpgrade,
    Verdict::Inconclusive,
];

const STATES: [(CheckState, &str); 4] = [
    (CheckState::Pass, "pass"),
    (CheckState::Fail, "fail"),
    (CheckState::Unsettled, "unsettled"),
    (CheckState::NotTested, "not-tested"),
];

/// Renders the metrics. Each carries the models and the probe as labels, so that the files of several audits can lie
/// in one folder.
pub fn metrics(report: &AuditReport) -> String {
    let mut text = Metrics {
        text: String::new(),
        common: [
            ("old", report.old.name.as_str()),
            ("new", &report.new.name),
            ("probe", &report.probe.origin),
            ("reference", reference_name(report.primary.reference)),
        ],
    };
    text.gauge(
        "verdict",
        "1 for the verdict of the audit, 0 for the others",
    );
    for verdict in VERDICTS {
        let is = report.verdict.verdict == verdict;
        text.sample("verdict", &[("verdict", &verdict.to_string())], flag(is));
    }
    checks(&mut text, report);
    measures(&mut text, report);
    slices(&mut text, report);
    let probe = &report.probe;
    for (name, help, value) in [
        ("queries", "Queries that were evaluated", probe.queries),
        (
            "query_identities",
            "Identities of the evaluated queries",
            probe.query_identities,
        ),
        (
            "gallery_items",
            "Gallery items of the probe, junk excluded",
            probe.gallery,
        ),
        (
            "policy_weakened",
            "Limits that are looser than the policy's profile",
            report.policy.weakened.len(),
        ),
        (
            "policy_waivers",
            "Waivers of the policy",
            report.policy.waivers.len(),
        ),
    ] {
        text.gauge(name, help);
        text.sample(name, &[], value as f64);
    }
    text.gauge("policy_info", "1; the hash of the limits is its label");
    text.sample("policy_info", &[("hash", &report.policy.hash)], 1.0);
    text.gauge(
        "duration_seconds",
        "Wall time of all stages of the audit in seconds",
    );
    let seconds = report.run.stage_seconds.iter().map(|(_, seconds)| seconds);
    text.sample("duration_seconds", &[], seconds.sum());
    text.gauge(
        "start_time_seconds",
        "Start of the audit since the Unix epoch in seconds",
    );
    text.sample("start_time_seconds", &[], report.run.started_unix as f64);
    text.text
}

fn checks(text: &mut Metrics, report: &AuditReport) {
    type Of = fn(&crate::judge::Check) -> Option<f64>;
    let numbers: [(&str, &str, Of); 4] = [
        ("check_value", "The number that the check tested", |check| {
            check.estimate.map(|at| at.value).or(check.value)
        }),
        (
            "check_lower",
            "Lower end of the interval of the check's number",
            |check| check.estimate.map(|at| at.lower),
        ),
        (
            "check_upper",
            "Upper end of the interval of the check's number",
            |check| check.estimate.map(|at| at.upper),
        ),
        ("check_limit", "The limit of the check", |check| check.limit),
    ];
    for (name, help, number) in numbers {
        text.gauge(name, help);
        for check in &report.checks {
            if let Some(value) = number(check) {
                text.sample(name, &[("check", check.code.name())], value);
            }
        }
    }
    text.gauge(
        "check_state",
        "1 for the state that the check ended in, 0 for the others",
    );
    for check in &report.checks {
        for (state, word) in STATES {
            text.sample(
                "check_state",
                &[
                    ("check", check.code.name()),
                    ("severity", &check.severity.to_string()),
                    ("state", word),
                ],
                flag(check.state == state),
            );
        }
    }
}

fn measures(text: &mut Metrics, report: &AuditReport) {
    for (name, help, number) in [
        (
            "measure_value",
            "The primary measure of the pairing query->gallery",
            (|at| at.value) as fn(crate::domain::Estimate) -> f64,
        ),
        ("measure_lower", "Lower end of its interval", |at| at.lower),
        ("measure_upper", "Upper end of its interval", |at| at.upper),
    ] {
        text.gauge(name, help);
        for section in &report.pairings {
            if let Some(row) = section.measures.first() {
                let labels = [
                    ("pairing", section.pairing.as_str()),
                    ("measure", row.measure.as_str()),
                ];
                text.sample(name, &labels, number(row.estimate));
            }
        }
    }
}

fn slices(text: &mut Metrics, report: &AuditReport) {
    let Some(section) = &report.slices else {
        return;
    };
    text.gauge("slices", "Slices by the state they ended in");
    for (state, word) in STATES {
        let n = if state == CheckState::NotTested {
            section.n_untestable
        } else {
            section
                .tested
                .iter()
                .filter(|row| row.state == state)
                .count()
        };
        text.sample("slices", &[("state", word)], n as f64);
    }
}

/// Whether the numbers are quality or agreement.
fn reference_name(reference: Reference) -> &'static str {
    match reference {
        Reference::Labels => "labels",
        Reference::OldModel => "old-model",
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

struct Metrics<'a> {
    text: String,
    common: [(&'static str, &'a str); 4],
}

impl Metrics<'_> {
    /// The head of a metric; its samples follow.
    fn gauge(&mut self, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "# HELP compat_audit_{name} {help}.\n# TYPE compat_audit_{name} gauge\n"
        );
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = self
            .common
            .iter()
            .chain(labels)
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        let value = if value.is_infinite() {
            if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
        } else {
            value.to_string()
        };
        let _ = writeln!(
            self.text,
            "compat_audit_{name}{{{}}} {value}",
            labels.join(",")
        );
    }
}

/// A label's value: the format knows three escapes.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sample;
    use super::*;

    /// Name, labels, value.
    type Sample = (String, Vec<(String, String)>, f64);

    /// A line of samples. As strict as the collector's own parser.
    fn parse(line: &str) -> Sample {
        let (name, rest) = line.split_once('{').expect("labels");
        let is_name = |name: &str| {
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty()
        };
        assert!(is_name(name), "{name}");
        let mut labels = Vec::new();
        let mut rest = rest;
        loop {
            let (label, quoted) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label), "{label}");
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (_, '\\') => match chars.next().expect("an escape").1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        c => panic!("unknown escape {c}"),
                    },
                    (at, '"') => break at,
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &quoted[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        let value = rest.strip_prefix("} ").expect("a value, no timestamp");
        (name.to_owned(), labels, value.parse().expect("a number"))
    }

    /// Every metric has one HELP, then one TYPE, then all of its samples, no two alike.
    fn samples(text: &str) -> Vec<Sample> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = String::new();
        let mut lines = text.lines();
        assert!(text.ends_with('\n'));
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help text");
                assert!(
                    help.ends_with('.') && seen.insert(name.to_owned()),
                    "{line}"
                );
                assert_eq!(lines.next(), Some(format!("# TYPE {name} gauge").as_str()));
                open = name.to_owned();
            } else {
                let sample = parse(line);
                assert_eq!(sample.0, open);
                assert!(
                    !found
                        .iter()
                        .any(|(name, labels, _)| *name == sample.0 && *labels == sample.1)
                );
                found.push(sample);
            }
        }
        found
    }

    fn value(text: &str, name: &str, wanted: &[(&str, &str)]) -> f64 {
        let name = format!("compat_audit_{name}");
        let samples = samples(text);
        let mut matching = samples.iter().filter(|(found, labels, _)| {
            *found == name
                && wanted.iter().all(|(label, value)| {
                    labels.contains(&((*label).to_owned(), (*value).to_owned()))
                })
        });
        let found = matching.next().unwrap_or_else(|| panic!("no {name}")).2;
        assert!(matching.next().is_none(), "{name} {wanted:?} is not unique");
        found
    }

    #[test]
    fn every_number_is_there_unrounded() {
        let text = metrics(&sample::full());
        assert_eq!(
            value(&text, "verdict", &[("verdict", "full-backfill")]),
            1.0
        );
        assert_eq!(
            value(&text, "verdict", &[("verdict", "skip-backfill")]),
            0.0
        );
        let check = [("check", "cross-test-change")];
        assert_eq!(value(&text, "check_value", &check), -0.5276);
        assert_eq!(value(&text, "check_lower", &check), -0.5563);
        assert_eq!(value(&text, "check_upper", &check), -0.498);
        assert_eq!(value(&text, "check_limit", &check), -0.01);
        assert_eq!(
            value(&text, "check_state", &[check[0], ("state", "fail")]),
            1.0
        );
        assert_eq!(
            value(
                &text,
                "measure_value",
                &[("pairing", "new->new"), ("measure", "mAP")]
            ),
            0.6179
        );
        assert_eq!(value(&text, "queries", &[]), 335.0);
        assert_eq!(value(&text, "slices", &[("state", "not-tested")]), 201.0);
        assert_eq!(value(&text, "start_time_seconds", &[]), 1_735_689_599.0);
        for report in sample::all() {
            samples(&metrics(&report));
        }
    }

    #[test]
    fn unbounded_ends_and_hostile_names_are_written_as_the_format_wants() {
        let mut report = sample::skip();
        let evil = "a\"b\\c\nd{e=\"f\"} 1";
        report.new.name = evil.into();
        let estimate = report.checks[4].estimate.as_mut().unwrap();
        (estimate.lower, estimate.upper) = (f64::NEG_INFINITY, f64::INFINITY);
        let text = metrics(&report);
        assert!(text.contains("} -Inf\n") && text.contains("} +Inf\n"));
        assert_eq!(
            value(
                &text,
                "check_lower",
                &[("check", "cross-test-change"), ("new", evil)]
            ),
            f64::NEG_INFINITY
        );
    }
}
