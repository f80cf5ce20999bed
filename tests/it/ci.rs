//! What CI systems get: exit codes, stdout, junit.xml, summary page, annotations, baseline.

use std::path::Path;
use std::sync::LazyLock;

use roxmltree::Document;

use crate::run::{Audit, compat_audit, data, stderr, stdout};

fn emoji(new: &str, extra: &[&str], environment: &[(&str, &str)]) -> Audit {
    let (old, new) = (data("emoji/old.onnx"), data("emoji").join(new));
    Audit::run_in(&old, &new, &data("emoji"), extra, environment)
}

/// An audit that passes and one that fails; most tests only read them.
static SKIP: LazyLock<Audit> = LazyLock::new(|| emoji("new_l2_compatible.onnx", &[], &[]));
static FULL: LazyLock<Audit> = LazyLock::new(|| emoji("new_incompatible.onnx", &[], &[]));

fn json_path(audit: &Audit) -> String {
    let path = audit.folder.path().join("report/report.json");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn stdout_is_the_report_in_the_asked_format() {
    let json = emoji("new_incompatible.onnx", &["--format", "json"], &[]);
    assert_eq!(json.output.status.code(), Some(1));
    assert_eq!(stdout(&json.output), json.file("report.json"));

    let markdown = emoji("new_incompatible.onnx", &["--format", "markdown"], &[]);
    assert_eq!(markdown.output.status.code(), Some(1));
    assert_eq!(stdout(&markdown.output), markdown.file("summary.md"));
    assert!(stdout(&markdown.output).starts_with("## FULL BACKFILL FIRST (`full-backfill`)"));

    let text = emoji("new_incompatible.onnx", &["--format", "text"], &[]);
    let first_lines = |audit: &Audit| -> Vec<String> {
        let text = stdout(&audit.output);
        // The last line names the folder.
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.pop();
        lines
    };
    assert_eq!(first_lines(&text), first_lines(&FULL));

    let quiet = emoji("new_incompatible.onnx", &["-q", "--format", "json"], &[]);
    assert_eq!(stdout(&quiet.output), "full-backfill\n");
    assert_eq!(
        compat_audit(["a", "b", "c", "--format", "yaml"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn junit_says_what_the_checks_say() {
    for audit in [&*SKIP, &*FULL] {
        let text = audit.file("junit.xml");
        let document = Document::parse(&text).expect("well-formed");
        let found = |name: &str| {
            document
                .descendants()
                .find(|node| node.attribute("name") == Some(name) && node.has_tag_name("testcase"))
                .and_then(|case| case.first_element_child())
                .unwrap_or_else(|| panic!("no case {name}"))
        };
        let mut failures = 0;
        for check in audit.report["checks"].as_array().expect("checks") {
            let child = found(check["code"].as_str().expect("a code"));
            let text = |key: &str| check[key].as_str().expect("text");
            let expected = match (text("state"), text("severity")) {
                ("pass", _) => "system-out",
                ("fail" | "unsettled", "gate") => "failure",
                _ => "skipped",
            };
            assert_eq!(child.tag_name().name(), expected, "{check}");
            if expected == "failure" {
                failures += 1;
                assert_eq!(child.attribute("type"), check["state"].as_str());
                let message = child.attribute("message").expect("a message");
                assert!(
                    message.contains("value ") && message.contains("limit "),
                    "{message}"
                );
            }
        }
        assert_eq!(failures > 0, audit.verdict() != "skip-backfill");
        let tested = audit.report["slices"]["tested"].as_array().expect("slices");
        for slice in tested {
            found(slice["name"].as_str().expect("a name"));
        }
    }
}

#[test]
fn metrics_hold_the_verdict_and_the_numbers() {
    let text = FULL.file("metrics.prom");
    assert!(text.contains("verdict=\"full-backfill\"} 1\n"), "{text}");
    assert!(text.contains("verdict=\"skip-backfill\"} 0\n"));
    let change = &FULL.check("cross-test-change")["estimate"];
    let line = text
        .lines()
        .find(|line| line.starts_with("compat_audit_check_upper{") && line.contains("cross-test"))
        .expect("the metric");
    let value: f64 = line
        .rsplit(' ')
        .next()
        .and_then(|value| value.parse().ok())
        .expect("a number");
    assert_eq!(Some(value), change["upper"].as_f64());
}

#[test]
fn the_exit_code_follows_fail_on_and_inconclusive() {
    let run = |new: &str, extra: &[&str]| {
        let audit = emoji(new, extra, &[]);
        (audit.verdict().to_owned(), audit.output.status.code())
    };
    let full = |extra: &[&str]| run("new_incompatible.onnx", extra);
    let verdict = "full-backfill".to_owned();
    assert_eq!(FULL.output.status.code(), Some(1));
    assert_eq!(full(&["--fail-on", "full"]), (verdict.clone(), Some(1)));
    assert_eq!(full(&["--fail-on", "never"]), (verdict, Some(0)));

    // So wide a margin could hide the loss of everything: this probe cannot judge it.
    let unsettled = |extra: &[&str]| run("old_int8.onnx", &[&["--margin", "0.5"], extra].concat());
    let verdict = "inconclusive".to_owned();
    assert_eq!(unsettled(&[]), (verdict.clone(), Some(3)));
    assert_eq!(
        unsettled(&["--inconclusive", "pass"]),
        (verdict.clone(), Some(0))
    );
    assert_eq!(unsettled(&["--fail-on", "never"]), (verdict, Some(0)));
}

#[test]
fn a_weakened_policy_is_said_in_every_output() {
    let audit = emoji("new_incompatible.onnx", &["--fail-on", "never"], &[]);
    let hash = audit.report["policy"]["hash"].as_str().expect("a hash");
    let summary = audit.file("summary.md");
    assert!(
        summary.contains(&format!("WEAKENED POLICY (hash {hash}): fail\\_on = never")),
        "{summary}"
    );
    assert!(audit.file("junit.xml").contains("fail_on = never"));
    assert!(!FULL.file("summary.md").contains("WEAKENED"));
}

#[test]
fn github_gets_a_summary_page_and_annotations_and_stdout_stays_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("summary");
    std::fs::write(&page, "written by an earlier command").expect("written");
    let environment = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_STEP_SUMMARY", page.to_str().expect("UTF-8")),
    ];
    let audit = emoji("new_incompatible.onnx", &["--format", "json"], &environment);
    assert_eq!(audit.output.status.code(), Some(1));
    assert_eq!(stdout(&audit.output), audit.file("report.json"));
    let commands: Vec<String> = stderr(&audit.output)
        .lines()
        .filter(|line| line.starts_with("::"))
        .map(str::to_owned)
        .collect();
    assert!((1..=10).contains(&commands.len()), "{commands:?}");
    assert!(commands[0].starts_with("::error title=compat-audit%3A full-backfill::"));
    assert!(commands.iter().any(|line| {
        line.starts_with("::error title=check cross-test-change%3A fail::D = mAP")
    }));

    let text = std::fs::read_to_string(&page).expect("still there");
    let own = audit.file("summary.md");
    assert_eq!(text, format!("written by an earlier command\n\n{own}"));
    // Another audit of the same job comes after it.
    emoji("new_incompatible.onnx", &["--quiet"], &environment);
    let text = std::fs::read_to_string(&page).expect("still there");
    assert_eq!(text.matches("## FULL BACKFILL FIRST").count(), 2);

    // Elsewhere nothing of it is said.
    assert!(!stderr(&FULL.output).contains("::error"));
}

#[test]
fn a_summary_page_that_cannot_be_written_changes_no_verdict() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("no/such/folder/summary");
    let environment = [("GITHUB_STEP_SUMMARY", path.to_str().expect("UTF-8"))];
    let audit = emoji("new_l2_compatible.onnx", &[], &environment);
    assert_eq!(audit.output.status.code(), SKIP.output.status.code());
    assert_eq!(audit.verdict(), SKIP.verdict());
    let text = stderr(&audit.output);
    assert!(
        text.contains("warning: GITHUB_STEP_SUMMARY: ") && text.contains("the verdict stands"),
        "{text}"
    );
}

#[test]
fn a_baseline_is_compared_and_changes_nothing_else() {
    let baseline = json_path(&SKIP);
    let audit = emoji("new_incompatible.onnx", &["--baseline", &baseline], &[]);
    let section = &audit.report["baseline"];
    assert_eq!(section["verdict"], SKIP.verdict());
    assert_eq!(section["cautions"], serde_json::json!([]));
    assert_eq!(
        section["change"],
        SKIP.check("cross-test-change")["estimate"]
    );
    let row = section["measures"]
        .as_array()
        .expect("measures")
        .iter()
        .find(|row| row["pairing"] == "new->old" && row["measure"] == "mAP")
        .expect("the cross-test");
    let expected = FULL.measure("new->old", "mAP") - SKIP.measure("new->old", "mAP");
    assert_eq!(row["difference"].as_f64(), Some(expected));
    let failing = section["checks"].as_array().expect("checks");
    assert!(
        failing
            .iter()
            .any(|row| row["name"] == "cross-test-change" && row["now"] == "fail"),
        "{failing:?}"
    );

    // All but the section, the limits and the run is as without it.
    let mut with = audit.report.clone();
    let mut without = FULL.report.clone();
    for report in [&mut with, &mut without] {
        let fields = report.as_object_mut().expect("an object");
        fields.remove("baseline");
        fields.remove("run");
    }
    assert_eq!(with, without);
    assert_eq!(audit.output.status, FULL.output.status);
    for text in [
        stdout(&audit.output),
        audit.file("summary.md"),
        audit.file("report.html"),
    ] {
        assert!(text.contains("newly failing"), "{text}");
    }
    // What is another audit is said to be one.
    let other = emoji(
        "new_incompatible.onnx",
        &["--baseline", &baseline, "--margin", "0.02"],
        &[],
    );
    let caution = other.report["baseline"]["cautions"][0].as_str();
    assert!(caution.expect("a caution").starts_with("another policy"));
}

/// Runs with the arguments; it must end with exit 2, name `named`, and leave no report.
fn refused(arguments: &[&str], named: &str) {
    for lax in [
        &[][..],
        &["--fail-on", "never", "--inconclusive", "pass"],
        &["--dry-run"],
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("report");
        let out_text = out.to_str().expect("UTF-8");
        let all = [arguments, lax, &["--out", out_text]].concat();
        let output = compat_audit(&all);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{all:?}: {text}");
        assert!(
            text.contains("error: ") && text.contains(named),
            "{all:?}: {text}"
        );
        assert!(stdout(&output).is_empty(), "{all:?}");
        assert!(!out.exists(), "{all:?} left a report");
    }
}

#[test]
fn a_mistyped_path_can_never_end_in_exit_0() {
    let path = |name: &str| data(name).to_str().expect("UTF-8").to_owned();
    let [old, new, probe] = ["emoji/old.onnx", "emoji/new_l2_compatible.onnx", "emoji"].map(path);
    let (old, new, probe) = (old.as_str(), new.as_str(), probe.as_str());
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let typo = "no-such-file";
    let missing = |extension: &str| {
        let path = folder.path().join(format!("{typo}.{extension}"));
        path.to_str().expect("UTF-8").to_owned()
    };

    refused(&[&missing("onnx"), new, probe], typo);
    refused(&[&missing("npy"), new, probe], typo);
    refused(&[old, &missing("onnx"), probe], typo);
    refused(&[old, &missing("parquet"), probe], typo);
    refused(&[old, new, &missing("csv")], typo);
    refused(
        &[old, new, folder.path().join(typo).to_str().expect("UTF-8")],
        typo,
    );
    for (flag, extension) in [
        ("--config", "toml"),
        ("--tensors", "npz"),
        ("--qrels", "txt"),
        ("--old-embeddings", "npy"),
        ("--old-embeddings", "parquet"),
        ("--baseline", "json"),
        ("--onnxruntime", "so"),
    ] {
        refused(&[old, new, probe, flag, &missing(extension)], typo);
    }
    let text = path("tiny_text");
    let text_models = ["tiny_text/old.onnx", "tiny_text/new.onnx"].map(path);
    let [text_old, text_new] = text_models.each_ref().map(String::as_str);
    for (models, toml, named) in [
        (
            [old, new, probe],
            "[audit]\ntensors = \"no-such-file.npz\"",
            typo,
        ),
        (
            [old, new, probe],
            "[audit]\nold_embeddings = \"no-such-file.npy\"",
            typo,
        ),
        (
            [old, new, probe],
            "[old]\ntokenizer = \"no-such-file.json\"",
            "old.tokenizer",
        ),
        (
            [old, new, probe],
            "[new]\ntensors = \"no-such-file.npz\"",
            "new.tensors",
        ),
        (
            [text_old, text_new, &text],
            "[old]\ntokenizer = \"no-such-file.json\"",
            typo,
        ),
        (
            [text_old, text_new, &text],
            "[new]\ntensors = \"no-such-file.npz\"",
            typo,
        ),
    ] {
        let config = file("audit.toml", toml);
        refused(&[&models[..], &["--config", &config]].concat(), named);
    }
    // A library that no model needs here is refused all the same.
    let stored = file("stored.ids.txt", "");
    let stored = stored.replace(".ids.txt", ".npy");
    std::fs::write(&stored, "").expect("written");
    refused(
        &[&stored, &stored, probe, "--onnxruntime", &missing("so")],
        typo,
    );
    let [first, second] = ["noto__2195", "twemoji__2195"]
        .map(|name| data("emoji/images").join(name).with_extension("png"));
    let manifest = file(
        "manifest.csv",
        &format!(
            "path,identity\n{},a\n{},a\n{},b\n",
            first.display(),
            second.display(),
            missing("png")
        ),
    );
    // The last one written above would be read as the manifest's own.
    std::fs::remove_file(folder.path().join("audit.toml")).expect("written above");
    refused_when_run(&[old, new, &manifest], typo);
}

/// As [`refused`], but a dry run may not look at every row's file.
fn refused_when_run(arguments: &[&str], named: &str) {
    for lax in [&[][..], &["--fail-on", "never", "--inconclusive", "pass"]] {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("report");
        let all = [arguments, lax, &["--out", out.to_str().expect("UTF-8")]].concat();
        let output = compat_audit(&all);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{all:?}: {text}");
        assert!(text.contains(named), "{text}");
        assert!(!out.exists());
    }
}

#[test]
fn what_is_no_baseline_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let other_version =
        SKIP.file("report.json")
            .replacen("\"schema_version\": 1", "\"schema_version\": 999", 1);
    for (path, named) in [
        (file("empty.json", ""), "no JSON"),
        (
            file("list.json", "[]"),
            "expected a compat-audit report.json",
        ),
        (file("other.json", &other_version), "found 999"),
        (folder.path().display().to_string(), "cannot read"),
    ] {
        // The models do not exist: the baseline is read before them.
        let arguments = ["no.onnx", "no.onnx", "no", "--baseline", &path];
        let output = compat_audit(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&path) && text.contains(named), "{text}");
        assert!(text.contains("hint: "), "{text}");
        assert!(!Path::new("reports/no-vs-no").exists());
    }
}
