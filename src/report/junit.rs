//! junit.xml: a test case a check and slice, for the test report of any CI system.
//!
//! A gate that fails or is unsettled is a `<failure>` (of type `fail` or `unsettled`). A check that only warns, a
//! waived failure and what was not tested are `<skipped>` with the reason: systems show it, and none counts it
//! against the build. The process's exit code follows the policy; these cases follow the checks.

use std::fmt::Write;

use super::view::View;
use super::view::cases::{Case, Outcome};
use super::xml::xml_escaped;

/// Renders the XML: `testsuites`, a `testsuite` of checks and one of slices, each `properties`, `testcase`s,
/// `system-out` in the order of the common JUnit schema.
pub fn to_xml(view: &View) -> String {
    let ci = &view.ci;
    let all = || ci.checks.iter().chain(&ci.slices);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"compat-audit\" {} time=\"{}\">\n",
        counts(all()),
        ci.seconds
    );
    let properties = [
        ("verdict", view.headline.code.as_str()),
        ("reason", &view.headline.reason),
        ("old", &view.old),
        ("new", &view.new),
        ("measures", &view.quantity),
        ("policy", &ci.policy_hash),
        ("weakened", &ci.weakened.join("; ")),
    ];
    suite(&mut xml, "checks", &ci.checks, view, &properties, "");
    if !ci.slices.is_empty() {
        let unnamed = match ci.slices_unnamed {
            0 => String::new(),
            n => format!("{n} further slices with too few queries are not listed."),
        };
        suite(&mut xml, "slices", &ci.slices, view, &[], &unnamed);
    }
    xml + "</testsuites>\n"
}

/// The counting attributes.
fn counts<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let (mut tests, mut failures, mut skipped) = (0, 0, 0);
    for case in cases {
        tests += 1;
        match case.outcome {
            Outcome::Pass => {}
            Outcome::Fail | Outcome::Unsettled => failures += 1,
            Outcome::Warn | Outcome::NotTested => skipped += 1,
        }
    }
    format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"")
}

fn suite(
    xml: &mut String,
    name: &str,
    cases: &[Case],
    view: &View,
    properties: &[(&str, &str)],
    system_out: &str,
) {
    let mut line = |text: String| {
        xml.push_str(&text);
        xml.push('\n');
    };
    // No case has a time of its own: the audit's stands at the suite of checks.
    let seconds = if name == "checks" {
        &view.ci.seconds
    } else {
        "0"
    };
    line(format!(
        "  <testsuite name=\"{name}\" {} time=\"{seconds}\" timestamp=\"{}\">",
        counts(cases.iter()),
        view.ci.timestamp
    ));
    if !properties.is_empty() {
        line("    <properties>".into());
        for (name, value) in properties {
            line(format!(
                "      <property name=\"{name}\" value=\"{}\"/>",
                xml_escaped(value)
            ));
        }
        line("    </properties>".into());
    }
    for case in cases {
        line(testcase(case, name));
    }
    if !system_out.is_empty() {
        line(format!(
            "    <system-out>{}</system-out>",
            xml_escaped(system_out)
        ));
    }
    line("  </testsuite>".into());
}

fn testcase(case: &Case, suite: &str) -> String {
    let mut text = format!(
        "    <testcase name=\"{}\" classname=\"compat-audit.{suite}\" time=\"0\">",
        xml_escaped(&case.name)
    );
    let message = xml_escaped(&case.message);
    let note = xml_escaped(&case.note);
    let with_note = |separator: &str| match note.as_str() {
        "" => message.clone(),
        note => format!("{message}{separator}{note}"),
    };
    // Writing to a String cannot fail.
    let _ = match case.outcome {
        Outcome::Pass => write!(text, "<system-out>{}</system-out>", with_note("; ")),
        Outcome::Fail => write!(
            text,
            "<failure type=\"fail\" message=\"{message}\">{}</failure>",
            with_note("; ")
        ),
        Outcome::Unsettled => write!(
            text,
            "<failure type=\"unsettled\" message=\"{message}\">{}</failure>",
            with_note("; ")
        ),
        Outcome::Warn => write!(
            text,
            "<skipped message=\"{} ({note}): {message}\"/>",
            case.state
        ),
        Outcome::NotTested => write!(
            text,
            "<skipped message=\"not tested: {}\"/>",
            with_note("; ")
        ),
    };
    text + "</testcase>"
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, Node};

    use super::super::{AuditReport, sample, thumbnails::Thumbnails};
    use super::*;
    use crate::judge::{CheckSeverity, CheckState};

    fn xml(report: &AuditReport) -> String {
        to_xml(&View::new(report, &mut Thumbnails::new(0)))
    }

    fn elements<'a>(node: Node<'a, 'a>) -> Vec<Node<'a, 'a>> {
        node.children().filter(Node::is_element).collect()
    }

    /// The element order and attributes of the common JUnit schema (as Jenkins, GitLab and Azure read it), and counts
    /// that add up.
    fn assert_valid(text: &str) {
        let document = Document::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let root = document.root_element();
        assert_eq!(root.tag_name().name(), "testsuites");
        let number = |node: Node, name: &str| -> f64 {
            let value = node.attribute(name);
            value
                .unwrap_or_else(|| panic!("no {name}"))
                .parse()
                .unwrap()
        };
        let mut total = [0.0; 3];
        for suite in elements(root) {
            assert_eq!(suite.tag_name().name(), "testsuite");
            for name in ["name", "timestamp"] {
                assert!(suite.has_attribute(name));
            }
            number(suite, "time");
            assert_eq!(number(suite, "errors"), 0.0);
            let rank = |node: &Node| {
                ["properties", "testcase", "system-out", "system-err"]
                    .iter()
                    .position(|name| node.tag_name().name() == *name)
                    .unwrap()
            };
            let children = elements(suite);
            assert!(children.is_sorted_by_key(rank));
            let cases: Vec<&Node> = children
                .iter()
                .filter(|node| node.tag_name().name() == "testcase")
                .collect();
            let mut found = [cases.len() as f64, 0.0, 0.0];
            for case in cases {
                assert!(case.has_attribute("name") && case.has_attribute("classname"));
                number(*case, "time");
                let inside: Vec<&str> = elements(*case)
                    .iter()
                    .map(|node| node.tag_name().name())
                    .collect();
                match inside[..] {
                    ["system-out"] => {}
                    ["failure"] => found[1] += 1.0,
                    ["skipped"] => found[2] += 1.0,
                    _ => panic!("{inside:?}"),
                }
                for node in elements(*case) {
                    if node.tag_name().name() != "system-out" {
                        assert!(!node.attribute("message").unwrap().is_empty());
                    }
                    if node.tag_name().name() == "failure" {
                        assert!(["fail", "unsettled"].contains(&node.attribute("type").unwrap()));
                    }
                }
            }
            let said = ["tests", "failures", "skipped"].map(|name| number(suite, name));
            assert_eq!(said, found);
            for (sum, count) in total.iter_mut().zip(said) {
                *sum += count;
            }
        }
        assert_eq!(
            ["tests", "failures", "skipped"].map(|name| number(root, name)),
            total
        );
    }

    /// The child of a case, and one of its attributes.
    fn case(text: &str, name: &str, attribute: &str) -> (String, Option<String>) {
        let document = Document::parse(text).unwrap();
        let case = document
            .descendants()
            .find(|node| {
                node.tag_name().name() == "testcase" && node.attribute("name") == Some(name)
            })
            .unwrap_or_else(|| panic!("no case {name}"));
        let child = case.first_element_child().unwrap();
        (
            child.tag_name().name().to_owned(),
            child.attribute(attribute).map(str::to_owned),
        )
    }

    #[test]
    fn every_sample_is_valid_and_counts_add_up() {
        for report in sample::all() {
            assert_valid(&xml(&report));
        }
    }

    #[test]
    fn gates_fail_and_warnings_are_skipped() {
        let full = xml(&sample::full());
        let (kind, message) = case(&full, "cross-test-change", "message");
        assert_eq!(kind, "failure");
        let message = message.unwrap();
        for part in ["value -0.5276", "upper bound -0.4980", "limit > -0.01"] {
            assert!(message.contains(part), "{message}");
        }
        let (kind, message) = case(&full, "negative-flips", "message");
        assert_eq!(kind, "skipped");
        assert!(message.unwrap().starts_with("fail (this check only warns)"));
        assert_eq!(case(&full, "dimensions", "message").0, "system-out");

        let unsettled = xml(&sample::unsettled());
        assert_eq!(
            case(&unsettled, "cross-test-change", "type"),
            ("failure".into(), Some("unsettled".into()))
        );
        assert_eq!(case(&unsettled, "excess-flips", "type").0, "skipped");
    }

    #[test]
    fn a_waived_failure_is_skipped_with_its_reason() {
        let mut report = sample::full();
        report.checks[4].severity = CheckSeverity::Warn;
        report.checks[4].waived = Some("known, ticket 12 (until 2027-01-01)".into());
        let text = xml(&report);
        let (kind, message) = case(&text, "cross-test-change", "message");
        assert_eq!(kind, "skipped");
        assert!(message.unwrap().contains("waived: known, ticket 12"));
        assert_valid(&text);
    }

    #[test]
    fn hostile_names_stay_names() {
        let evil = "a\"/><failure>&]]>\u{0}\u{1b}[2J\n\r\t'<!--\u{ffff}\u{202e}💥";
        let mut report = sample::skip();
        let slices = report.slices.as_mut().unwrap();
        slices.tested[0].name = evil.into();
        slices.tested[0].state = CheckState::Fail;
        slices.untestable[0].name = evil.into();
        report.new.name = evil.into();
        report.verdict.reason = evil.into();
        report.checks[0].message = evil.into();
        report.checks[5].settles = Some(evil.into());
        report.policy.weakened = vec![evil.into()];
        let text = xml(&report);
        assert_valid(&text);
        let document = Document::parse(&text).unwrap();
        let failures = document
            .descendants()
            .filter(|node| node.tag_name().name() == "failure");
        assert_eq!(failures.count(), 1);
        let kept = "a\"/><failure>&]]>\u{fffd}\u{fffd}[2J\n\r\t'<!--\u{fffd}\u{202e}💥";
        assert_eq!(case(&text, kept, "type").1.as_deref(), Some("fail"));
    }
}
