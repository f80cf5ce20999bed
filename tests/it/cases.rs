//! Every `fixtures/cases/<name>/expected.toml`: real models, real probes, independently measured truth.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::run::{Audit, data, root, stderr};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    old: String,
    new: String,
    data: String,
    #[serde(default)]
    config: Option<String>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdicts: Vec<String>,
    rule: Option<u64>,
    exit: Option<i32>,
    change: Option<f64>,
    negative_flips: Option<u64>,
    #[serde(default)]
    measures: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Most that ties move a mean on these probes: one query of 335 (the golden test of both rules is exact).
const TIES: f64 = 0.0031;

/// truth.json is rounded to 4 decimals.
const TRUTH: f64 = 0.5e-4 + 1e-12;

fn run_case(name: &str, self_audit: bool) -> (Case, Audit) {
    let file = root()
        .join("fixtures/cases")
        .join(name)
        .join("expected.toml");
    let text = std::fs::read_to_string(&file).expect("the case exists");
    let case: Case = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("audit.toml");
    let mut extra = Vec::new();
    if let Some(text) = case.config.as_ref().filter(|_| !self_audit) {
        std::fs::write(&config, text).expect("written");
        extra = vec!["--config", config.to_str().expect("UTF-8")];
    }
    let new: PathBuf = data(if self_audit { &case.old } else { &case.new });
    let audit = Audit::run(&data(&case.old), &new, &data(&case.data), &extra);
    (case, audit)
}

fn check(name: &str) {
    let (case, audit) = run_case(name, false);
    let expect = &case.expect;
    let reason = audit.report["verdict"]["reason"]
        .as_str()
        .expect("a reason");
    assert!(
        expect
            .verdicts
            .iter()
            .any(|verdict| verdict == audit.verdict()),
        "{name}: {} ({reason})",
        audit.verdict()
    );
    if let Some(rule) = expect.rule {
        assert_eq!(audit.report["verdict"]["rule"], rule, "{name}: {reason}");
    }
    let exit = match audit.verdict() {
        "skip-backfill" => 0,
        "inconclusive" => 3,
        _ => 1,
    };
    assert_eq!(
        audit.output.status.code(),
        Some(expect.exit.unwrap_or(exit)),
        "{}",
        stderr(&audit.output)
    );
    for (pairing, measures) in &expect.measures {
        for (measure, truth) in measures {
            // truth.json was made by sorting, which leaves ties in either order, so it lies between the two rules.
            let (against, favour) = audit.measure_and_optimistic(pairing, measure);
            assert!(
                favour - against < TIES,
                "{name}: {pairing} {measure}: {against}, {favour}"
            );
            assert!(
                against - TRUTH <= *truth && *truth <= favour + TRUTH,
                "{name}: {pairing} {measure}: {against} to {favour}, truth {truth}"
            );
        }
    }
    let compatibility = &audit.report["compatibility"];
    if let Some(change) = expect.change {
        let found = compatibility["change"][0]["estimate"]["value"]
            .as_f64()
            .expect("D");
        // A difference of two rounded numbers.
        assert!(
            (found - change).abs() <= 2.0 * TRUTH,
            "{name}: D {found}, truth {change}"
        );
    }
    if let Some(flips) = expect.negative_flips {
        assert_eq!(compatibility["flips"]["right_wrong"], flips, "{name}");
    }
}

macro_rules! cases {
    ($($function:ident: $name:literal,)*) => {
        $(#[test] fn $function() { check($name); })*

        #[test]
        fn every_case_is_listed() {
            let mut listed = vec![$($name),*];
            listed.sort_unstable();
            let mut found: Vec<String> = std::fs::read_dir(root().join("fixtures/cases"))
                .expect("cases")
                .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
                .collect();
            found.sort_unstable();
            assert_eq!(found, listed);
        }
    };
}

cases! {
    emoji_self: "emoji-self",
    emoji_l2_compatible: "emoji-l2-compatible",
    emoji_int8: "emoji-int8",
    emoji_incompatible: "emoji-incompatible",
    emoji_bct_near: "emoji-bct-near",
    emoji_rotated: "emoji-rotated",
    text_matryoshka_cut: "text-matryoshka-cut",
    text_dimensions: "text-dimensions",
    text_unrelated: "text-unrelated",
}

/// The false-positive guard: each old model against itself is a skip without flips.
#[test]
fn old_against_old_is_silent() {
    for name in ["emoji-l2-compatible", "text-unrelated"] {
        let (_, audit) = run_case(name, true);
        assert_eq!(
            (audit.verdict(), audit.output.status.code()),
            ("skip-backfill", Some(0)),
            "{name}"
        );
        let compatibility = &audit.report["compatibility"];
        assert_eq!(
            compatibility["change"][0]["estimate"]["value"], 0.0,
            "{name}"
        );
        assert_eq!(compatibility["flips"]["right_wrong"], 0, "{name}");
    }
}

/// Same inputs give the same bytes outside `run`, with and without the cache.
#[test]
fn reports_are_byte_equal_outside_run() {
    let cache = tempfile::tempdir().expect("a folder");
    let cache_dir = cache.path().to_str().expect("UTF-8");
    let report = |extra: &[&str]| {
        let audit = Audit::run(
            &data("emoji/old.onnx"),
            &data("emoji/new_l2_compatible.onnx"),
            &data("emoji"),
            extra,
        );
        let mut report = audit.report.clone();
        let run = report["run"].take();
        (serde_json::to_string(&report).expect("JSON"), run)
    };
    let (first, run) = report(&["--cache-dir", cache_dir]);
    assert_eq!(run["embedded"], serde_json::json!([1073, 1073]));
    let (second, run) = report(&["--cache-dir", cache_dir]);
    assert_eq!(
        run["embedded"],
        serde_json::json!([0, 0]),
        "a second run embeds nothing"
    );
    assert_eq!(first, second);
    let (third, _) = report(&["--no-cache", "--threads", "1"]);
    assert_eq!(first, third);
}

/// No fixture is outside the folder that the README names.
#[test]
fn cases_name_files_under_fixtures_data() {
    for entry in std::fs::read_dir(root().join("fixtures/cases")).expect("cases") {
        let file = entry.expect("readable").path().join("expected.toml");
        let case: Case =
            toml::from_str(&std::fs::read_to_string(&file).expect("a case")).expect("valid");
        for path in [&case.old, &case.new, &case.data] {
            assert!(
                Path::new(&data(path)).exists(),
                "{}: {path}",
                file.display()
            );
        }
    }
}
