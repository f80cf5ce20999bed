//! Relevance judgements beside stored embeddings: a probe without any identity.

use std::path::{Path, PathBuf};

use crate::run::{Audit, compat_audit, data, stderr, stdout};
use crate::synthetic::write_npy;

const QUERIES: usize = 40;
const DIM: usize = 8;

/// 40 queries; query q finds its two documents, the better one first. Documents q and 40 + q are its own.
struct Judged {
    folder: tempfile::TempDir,
}

impl Judged {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut manifest = "id,role\n".to_owned();
        for q in 0..QUERIES {
            manifest += &format!("q{q},query\n");
        }
        for d in 0..2 * QUERIES {
            manifest += &format!("d{d},gallery\n");
        }
        std::fs::write(folder.path().join("manifest.csv"), manifest).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Judgements in BEIR's format: grade 2 for one's own first document, 1 for the second, 0 for a third.
    fn qrels(&self, name: &str) {
        let mut text = "query-id\tcorpus-id\tscore\n".to_owned();
        for q in 0..QUERIES {
            text += &format!(
                "q{q}\td{q}\t2\nq{q}\td{}\t1\nq{q}\td{}\t0\n",
                QUERIES + q,
                (q + 1) % QUERIES
            );
        }
        std::fs::write(self.path(name), text).expect("written");
    }

    /// Embeddings: a direction a query; its documents lie at cosines .9 and .8 of it, or the other way round.
    fn store(&self, name: &str, exchanged: bool) -> PathBuf {
        let direction = |q: usize| -> Vec<f64> {
            let at = |d: usize| ((q * DIM + d) as f64 * 12.9898).sin();
            let row: Vec<f64> = (0..DIM).map(at).collect();
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter().map(|v| v / norm).collect()
        };
        let near = |q: usize, share: f64| -> Vec<f64> {
            let (own, other) = (direction(q), direction((q + 11) % QUERIES));
            let mixed = own.iter().zip(&other);
            mixed.map(|(a, b)| share * a + (1.0 - share) * b).collect()
        };
        let (first, second) = if exchanged { (0.8, 0.9) } else { (0.9, 0.8) };
        let rows: Vec<Vec<f64>> = (0..QUERIES)
            .map(direction)
            .chain((0..QUERIES).map(|q| near(q, first)))
            .chain((0..QUERIES).map(|q| near(q, second)))
            .collect();
        let path = self.path(name);
        write_npy(&path, &rows);
        let ids: Vec<String> = (0..QUERIES)
            .map(|q| format!("q{q}"))
            .chain((0..2 * QUERIES).map(|d| format!("d{d}")))
            .collect();
        std::fs::write(path.with_extension("ids.txt"), ids.join("\n") + "\n").expect("written");
        path
    }
}

#[test]
fn judgements_take_the_place_of_identities() {
    let judged = Judged::new();
    judged.qrels("qrels.tsv");
    let (old, new) = (
        judged.store("old.npy", false),
        judged.store("new.npy", true),
    );
    let audit = Audit::run(&old, &new, judged.folder.path(), &[]);
    let probe = &audit.report["probe"];
    assert_eq!(probe["queries"], 40);
    assert_eq!(probe["query_identities"], 40, "each query is a unit");
    assert_eq!(probe["distractors"], 0);
    assert_eq!(probe["qrels"]["judged"], 120);
    assert_eq!(probe["qrels"]["highest_grade"], 2);
    assert_eq!(probe["qrels"]["identities_given"], false);
    assert!(audit.findings().contains(&"no-identities"));
    // The new queries are the old ones, so new->old is old->old; new->new finds both documents the wrong way round: nDCG alone sees it.
    assert_eq!(
        audit.measure("old->old", "mAP"),
        audit.measure("new->new", "mAP")
    );
    let (ours, theirs) = (
        audit.measure("old->old", "nDCG@10"),
        audit.measure("new->new", "nDCG@10"),
    );
    assert!(ours > theirs, "{ours} {theirs}");
    // Nothing that compares items of one identity was estimated.
    let structure = &audit.report["structure"];
    assert_eq!(structure["n_subclusters"], 0);
    assert!(structure["consensus"].is_null());
    assert_eq!(structure["credibility"]["assessable"], 0);
    assert!(structure["credibility"]["change_without_least_credible"].is_null());
    // Shuffled judgements find next to nothing, so the probe can judge.
    assert_eq!(audit.report["assay"]["can_judge"], true);
    let page =
        std::fs::read_to_string(audit.folder.path().join("report/report.html")).expect("the page");
    assert!(page.contains("120 judged pairs, grades up to 2"));
}

#[test]
fn a_flag_names_the_file_and_a_wrong_line_ends_with_2() {
    let judged = Judged::new();
    let (old, new) = (
        judged.store("old.npy", false),
        judged.store("new.npy", true),
    );
    let run = |qrels: &Path| {
        let paths =
            [&old, &new, &judged.path("manifest.csv")].map(|path| path.clone().into_os_string());
        let flags = [
            "--dry-run".into(),
            "--qrels".into(),
            qrels.as_os_str().to_owned(),
        ];
        compat_audit(paths.into_iter().chain(flags))
    };
    judged.qrels("test.tsv");
    let output = run(&judged.path("test.tsv"));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("120 judged pairs, grades up to 2"));

    std::fs::write(judged.path("typo.txt"), "q1 0 d1 1\nq1 0 d99 1\n").expect("written");
    let output = run(&judged.path("typo.txt"));
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("typo.txt, line 2: expected the id of an item, found `d99`"),
        "{message}"
    );
    let output = run(&judged.path("absent.tsv"));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no such file"));
}

#[test]
fn without_identities_and_judgements_the_hint_names_both() {
    let judged = Judged::new();
    let old = judged.store("old.npy", false);
    let output = compat_audit([&old, &old, &judged.path("manifest.csv")]);
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(message.contains("--qrels FILE"), "{message}");
}

/// The labels of the text fixture as judgements in TREC's format.
pub fn judgements_of_text(folder: &Path) -> PathBuf {
    let manifest = std::fs::read_to_string(data("text/labels.jsonl")).expect("the manifest");
    let rows: Vec<serde_json::Value> = manifest
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |role: &'static str| rows.iter().filter(move |row| row["role"] == role);
    let mut text = String::new();
    for query in of("query") {
        for item in of("gallery").filter(|item| item["label"] == query["label"]) {
            let id = |row: &serde_json::Value| row["id"].as_str().expect("an id").to_owned();
            text += &format!("{} 0 {} 1\n", id(query), id(item));
        }
    }
    let qrels = folder.join("judged.txt");
    std::fs::write(&qrels, text).expect("written");
    qrels
}

#[test]
fn judgements_that_say_what_identities_say_give_the_same_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let qrels = judgements_of_text(folder.path());
    let run = |extra: &[&str]| {
        let (old, new) = (data("text/wl64.onnx"), data("text/lsa64.onnx"));
        Audit::run(&old, &new, &data("text"), extra)
    };
    let (plain, judged) = (run(&[]), run(&["--qrels", qrels.to_str().expect("UTF-8")]));
    for part in ["pairings", "compatibility", "assay", "checks"] {
        assert_eq!(plain.report[part], judged.report[part], "{part}");
    }
}
