//! Element-wise comparison with respected tools; `fixtures/generate/` makes the files.

mod agreement;
mod credibility;
mod graded;
mod reid;
mod tools;
mod verification;

use std::collections::BTreeMap;

use compat_audit::domain::{Embeddings, Measure, Pairing, Probe};
use compat_audit::retrieve::{Retrieval, SearchOptions};
use ndarray::Array2;
use serde::Deserialize;

use crate::properties::{probe_of, search};
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

/// A golden file; its head says which tools made it, in which versions, by which command.
pub fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = root().join("fixtures/golden").join(name);
    let text = std::fs::read_to_string(path).expect("the file");
    let head: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        head["tools"].is_object() && head["command"].is_string(),
        "{name} says where it comes from"
    );
    serde_json::from_str(&text).expect("its shape")
}

fn golden() -> Golden {
    read("measures.json")
}

/// By pairing, tool and measure, one value a query.
type ByTool = BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<f64>>>>;

/// Asserts that all values are the tools', and returns how many were compared.
///
/// Sums of at most a hundred terms in [0, 1] differ by less than 1e-14 between two orders of summation; 1e-12 leaves room.
fn assert_by_tool(expected: &ByTool, ours: impl Fn(&str, &str) -> Vec<f64>) -> usize {
    let mut compared = 0;
    for (pairing, tools) in expected {
        for (tool, measures) in tools {
            for (measure, theirs) in measures {
                let ours = ours(pairing, measure);
                assert_eq!(ours.len(), theirs.len(), "{pairing} {tool} {measure}");
                for (query, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                    assert!(
                        (ours - theirs).abs() < 1e-12,
                        "{pairing} {tool} {measure} query {query}: {ours} {theirs}"
                    );
                    compared += 1;
                }
            }
        }
    }
    compared
}

fn pairing_named(name: &str) -> Pairing {
    let is_named = |pairing: &Pairing| pairing.to_string() == name;
    Pairing::ALL
        .into_iter()
        .find(is_named)
        .expect("a pairing's name")
}

/// The measure of that name, any depth.
fn measure_named(name: &str) -> Measure {
    match name.split_once('@') {
        Some(("CMC", k)) => Measure::CmcAt(k.parse().expect("a depth")),
        Some(("recall", k)) => Measure::RecallAt(k.parse().expect("a depth")),
        Some(("nDCG", k)) => Measure::NdcgAt(k.parse().expect("a depth")),
        _ => Measure::ALL
            .into_iter()
            .find(|measure| measure.to_string() == name)
            .expect("a measure's name"),
    }
}

impl Golden {
    fn probe(&self) -> Probe {
        probe_of(&self.labels, |i| self.roles[i].as_str())
    }

    /// Rankings of `probe`, which may be [`Golden::probe`] with more said of its items.
    fn retrieve(&self, probe: &Probe) -> Retrieval {
        let digests = vec![None; self.labels.len()];
        let (old, new) = (matrix(&self.old), matrix(&self.new));
        search(probe, &digests, [&old, &new], &SearchOptions::default())
    }
}

fn matrix(rows: &[Vec<f32>]) -> Embeddings {
    let flat: Vec<f32> = rows.iter().flatten().copied().collect();
    let rows = Array2::from_shape_vec((rows.len(), rows[0].len()), flat).expect("a rectangle");
    Embeddings::dense(rows, false).expect("finite")
}

/// The report's numbers and those with ties in the query's favour, against numpy on the same models.
#[test]
fn both_tie_rules_agree_with_numpy() {
    let golden: serde_json::Value = read("emoji_ties.json");
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
    let found = golden.retrieve(&golden.probe());
    let expected = golden
        .expected
        .iter()
        .map(|(pairing, expected)| {
            let trec_eval = ("trec_eval".to_owned(), expected.per_query.clone());
            (pairing.clone(), BTreeMap::from([trec_eval]))
        })
        .collect();
    let compared = assert_by_tool(&expected, |pairing, measure| {
        found.evaluations[&pairing_named(pairing)].per_query(measure_named(measure))
    });
    assert_eq!(
        compared,
        2 * 9 * 60,
        "two pairings, nine measures, sixty queries"
    );
}
