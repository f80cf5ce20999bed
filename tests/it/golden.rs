//! Element-wise comparison with respected tools; `fixtures/generate/` makes the files.

use std::collections::BTreeMap;

use compat_audit::config::Similarity;
use compat_audit::domain::{Embeddings, Measure, Pairing};
use compat_audit::retrieve::{retrieve, verification};
use ndarray::Array2;
use serde::Deserialize;

use crate::properties::probe_of;
use crate::run::{Audit, data, root};

#[derive(Deserialize)]
struct Golden {
    labels: Vec<u32>,
    roles: Vec<String>,
    old: Vec<Vec<f32>>,
    new: Vec<Vec<f32>>,
    expected: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    per_query: BTreeMap<String, Vec<f64>>,
    auroc: f64,
}

fn golden() -> Golden {
    let path = root().join("fixtures/golden/measures.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("its shape")
}

fn matrix(rows: &[Vec<f32>]) -> Embeddings {
    let flat: Vec<f32> = rows.iter().flatten().copied().collect();
    let rows = Array2::from_shape_vec((rows.len(), rows[0].len()), flat).expect("a rectangle");
    Embeddings::dense(rows, false).expect("finite")
}

/// The report's numbers and those with ties in the query's favour, against numpy on the same models.
#[test]
fn both_tie_rules_agree_with_numpy() {
    let path = root().join("fixtures/golden/emoji_ties.json");
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("JSON");
    let mut compared = 0;
    for (model, pairings) in golden["models"].as_object().expect("models") {
        let new = data(&format!("emoji/{model}.onnx"));
        let audit = Audit::run(&data("emoji/old.onnx"), &new, &data("emoji"), &[]);
        for (pairing, rules) in pairings.as_object().expect("pairings") {
            for measure in ["mAP", "CMC@1"] {
                let (against, favour) = audit.measure_and_optimistic(pairing, measure);
                for (rule, found) in [("against", against), ("favour", favour)] {
                    let expected = rules[rule][measure].as_f64().expect("a number");
                    // f32 scores could swap two that differ by less than their rounding; on these none do.
                    assert!(
                        (found - expected).abs() < 1e-9,
                        "{model} {pairing} {measure} {rule}: {found} {expected}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 4 * 4 * 2 * 2);
}

#[test]
fn every_query_agrees_with_trec_eval() {
    let golden = golden();
    let probe = probe_of(&golden.labels, |i| golden.roles[i].as_str());
    let digests = vec![None; golden.labels.len()];
    let (old, new) = (matrix(&golden.old), matrix(&golden.new));
    let found = retrieve(
        &probe,
        &digests,
        &old,
        &new,
        Similarity::Cosine,
        Measure::MeanAveragePrecision,
        0,
    )
    .expect("finite");
    let mut compared = 0;
    for pairing in [Pairing::OLD_OLD, Pairing::NEW_OLD] {
        let evaluation = &found.evaluations[&pairing];
        let expected = &golden.expected[&pairing.to_string()];
        for measure in Measure::ALL {
            // trec_eval has no mINP.
            let Some(theirs) = expected.per_query.get(&measure.to_string()) else {
                continue;
            };
            let ours = evaluation.per_query(measure);
            assert_eq!(ours.len(), theirs.len());
            for (query, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                assert!(
                    (ours - theirs).abs() < 1e-12,
                    "{pairing} {measure} query {query}: {ours} {theirs}"
                );
                compared += 1;
            }
        }
    }
    assert_eq!(
        compared,
        2 * 9 * 60,
        "two pairings, nine measures, sixty queries"
    );
}

#[test]
fn auroc_agrees_with_scikit_learn() {
    let golden = golden();
    let probe = probe_of(&golden.labels, |i| golden.roles[i].as_str());
    let digests = vec![None; golden.labels.len()];
    let (old, new) = (matrix(&golden.old), matrix(&golden.new));
    let found = retrieve(
        &probe,
        &digests,
        &old,
        &new,
        Similarity::Cosine,
        Measure::MeanAveragePrecision,
        0,
    )
    .expect("finite");
    for (pairing, queries) in [(Pairing::OLD_OLD, &old), (Pairing::NEW_OLD, &new)] {
        // 30 identities are too few for a report, so the count is asked for directly.
        let auroc = verification::auroc(
            &found.protocol,
            queries,
            &old,
            Similarity::Cosine,
            &found.evaluations[&pairing],
        )
        .expect("finite");
        let theirs = golden.expected[&pairing.to_string()].auroc;
        assert!(
            (auroc - theirs).abs() < 1e-12,
            "{pairing}: {auroc} {theirs}"
        );
    }
}
