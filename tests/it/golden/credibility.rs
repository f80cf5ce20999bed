//! Planted faults in real galleries: our credibility against cleanlab's scores of the same embeddings.

use std::collections::{BTreeMap, HashMap};

use compat_audit::config::ModelConfig;
use compat_audit::domain::{Embeddings, Role};
use compat_audit::structure::{self, Credibility, StructureOptions};
use ndarray::Array2;
use serde::Deserialize;

use super::read;
use crate::embedding::{embed_raw, read_probe};
use crate::properties::probe_of;
use crate::run::data;

/// By kind of fault.
type Plantings = BTreeMap<String, Vec<Planting>>;

#[derive(Deserialize)]
struct Golden {
    emoji: Plantings,
    text: Plantings,
}

#[derive(Deserialize)]
struct Planting {
    /// Gallery positions.
    items: Vec<usize>,
    /// What they are labelled from now on.
    labels: Vec<u32>,
    /// The two positions whose sum each becomes; empty for swaps.
    sum_of: Vec<Vec<usize>>,
    /// cleanlab's areas under the ROC curve, by score.
    areas: BTreeMap<String, f64>,
}

/// One gallery: unit rows, and labels numbered by first appearance.
struct Gallery {
    rows: Array2<f32>,
    labels: Vec<u32>,
}

impl Gallery {
    fn new(folder: &str, model: &str, is_in: impl Fn(Role) -> bool) -> Self {
        let probe = read_probe(&data(folder));
        let embedded = embed_raw(
            &probe,
            &data(&format!("{folder}/{model}")),
            &ModelConfig::default(),
        );
        let items: Vec<usize> = (0..probe.items.len())
            .filter(|&i| is_in(probe.items[i].role))
            .collect();
        let mut rows = Array2::zeros((items.len(), embedded.embeddings.dim()));
        for (mut row, &item) in rows.rows_mut().into_iter().zip(&items) {
            row.assign(&ndarray::ArrayView1::from(
                &*embedded.embeddings.get(item).expect("embedded"),
            ));
        }
        let mut numbers = HashMap::new();
        let labels = items.iter().map(|&item| {
            let next = numbers.len() as u32;
            *numbers
                .entry(probe.items[item].identity.get())
                .or_insert(next)
        });
        Self {
            labels: labels.collect(),
            rows: unit(rows),
        }
    }

    /// Every item's credibility after the planting.
    fn assess(&self, planting: &Planting) -> Vec<Credibility> {
        let (mut rows, mut labels) = (self.rows.clone(), self.labels.clone());
        for (&item, &label) in planting.items.iter().zip(&planting.labels) {
            labels[item] = label;
        }
        for (&item, parts) in planting.items.iter().zip(&planting.sum_of) {
            rows.row_mut(item)
                .assign(&(&self.rows.row(parts[0]) + &self.rows.row(parts[1])));
        }
        let probe = probe_of(&labels, |_| "both");
        let old = Embeddings::dense(unit(rows), true).expect("finite");
        let found = structure::estimate(&probe, &old, &StructureOptions::default());
        (0..labels.len())
            .map(|item| *found.credibility.get(item).expect("a gallery item"))
            .collect()
    }

    /// Means over the plantings of the areas under the ROC curve of combined credibility and of its entropy, low for
    /// planted faults; what cannot be assessed is not doubted.
    fn areas(&self, plantings: &[Planting]) -> [f64; 2] {
        let mut areas = [0.0; 2];
        for planting in plantings {
            let found = self.assess(planting);
            let scores: [fn(&Credibility) -> Option<f64>; 2] = [|c| c.combined, |c| c.entropy];
            for (area, score) in areas.iter_mut().zip(scores) {
                let scores = found.iter().map(|c| score(c).unwrap_or(1.0)).collect();
                *area += area_below(&planting.items, scores) / plantings.len() as f64;
            }
        }
        areas
    }
}

/// P(a planted item scores lower than another), ties one half.
fn area_below(planted: &[usize], scores: Vec<f64>) -> f64 {
    let is_planted = |i: &usize| planted.contains(i);
    let (bad, good): (Vec<usize>, Vec<usize>) = (0..scores.len()).partition(is_planted);
    let pairs = bad.iter().flat_map(|&b| good.iter().map(move |&g| (b, g)));
    let wins = pairs.map(|(b, g)| match scores[b].total_cmp(&scores[g]) {
        std::cmp::Ordering::Less => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Greater => 0.0,
    });
    wins.sum::<f64>() / (bad.len() * good.len()) as f64
}

fn unit(mut rows: Array2<f32>) -> Array2<f32> {
    for mut row in rows.rows_mut() {
        let length = row.dot(&row).sqrt();
        row /= length;
    }
    rows
}

/// cleanlab's best score of this kind of fault, mean over the plantings.
fn best_of_cleanlab(plantings: &[Planting]) -> f64 {
    let mean = |name: &String| {
        plantings.iter().map(|p| p.areas[name]).sum::<f64>() / plantings.len() as f64
    };
    plantings[0].areas.keys().map(mean).fold(0.0, f64::max)
}

#[test]
fn planted_faults_are_found_at_least_as_well_as_by_cleanlab() {
    let golden: Golden = read("credibility.json");
    let emoji = Gallery::new("emoji", "old.onnx", |role| role != Role::Query);
    assert_eq!(
        (emoji.labels.len(), emoji.labels.iter().max()),
        (738, Some(&199))
    );
    let text = Gallery::new("text", "wl64.onnx", |_| true);
    println!(
        "| gallery | fault | combined | cleanlab's best | entropy |\n| --- | --- | --- | --- | --- |"
    );
    let galleries = [("emoji", emoji, golden.emoji), ("text", text, golden.text)];
    for (name, gallery, plantings) in galleries {
        for (kind, plantings) in plantings {
            let [combined, entropy] = gallery.areas(&plantings);
            let cleanlab = best_of_cleanlab(&plantings);
            println!("| {name} | {kind} | {combined:.3} | {cleanlab:.3} | {entropy:.3} |");
            assert!(combined >= cleanlab, "{name} {kind}: {combined} {cleanlab}");
            if name == "emoji" && kind != "midpoints" {
                assert!(combined >= 0.95, "{kind}: {combined}");
            }
            if kind == "swaps" {
                // A swapped item is confidently wrong: the paper's own score is a coin.
                assert!((entropy - 0.5).abs() < 0.05, "{name}: {entropy}");
            }
        }
    }
}
