//! What each part of the cure buys: a 5-fold cross-fit by identity on `fixtures/data/emoji`, every identity tested once, with
//! 0, 5 and 20 % of the old embeddings corrupted. Its output stands in `docs/nccl.md`.
//!
//! A fold is the test, the next one is the validation, three are fitted on; what was chosen is fitted again on four. The test
//! queries search the whole old gallery as it is, so all rows of a table are judged alike; what is corrupted (the normalised
//! sum of two other items' old embeddings in the place of an item's own) is what heads are fitted on and chosen by.
//!
//! `cargo bench --bench nccl [-- MODEL]`, MODEL a file of `fixtures/data/emoji` (default: `new_incompatible.onnx`)

use std::path::{Path, PathBuf};

use compat_audit::adapt::fit::{self, Candidate, Filter, Validation};
use compat_audit::adapt::head::Head;
use compat_audit::adapt::nccl::{Objective, Pairs};
use compat_audit::adapt::trainer::Training;
use compat_audit::adapt::trial::Trial;
use compat_audit::audit::{self, Surroundings};
use compat_audit::config::{AuditConfig, ConfigFile, Overrides};
use compat_audit::domain::{Adaptation, Embeddings, NoProgress, Probe};
use compat_audit::runtime::{Device, RuntimeOptions};
use compat_audit::stats::{Bootstrap, ClusterSums, mean, mean_estimate};
use compat_audit::structure::StructureOptions;
use ndarray::{Array2, Axis};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const FOLDS: u32 = 5;

/// Corruptions drawn anew at a rate above 0: one draw says little of the next.
const DRAWS: u64 = 3;

/// The seed of the folds and draws. The objective was tuned on other folds of the same fixture, so the figures flatter it a
/// little.
const SEED: u64 = 0;

/// Values of one row: a number a query of new->old and of new->new.
#[derive(Default)]
struct Row {
    new_old: Vec<f64>,
    new_new: Vec<f64>,
}

fn main() {
    let model = std::env::args_os()
        .skip(1)
        .filter_map(|word| word.into_string().ok())
        .find(|word| word.ends_with(".onnx"));
    let model = model.unwrap_or_else(|| "new_incompatible.onnx".into());
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/data/emoji");
    let embedding = embedded(&emoji, &model);
    let probe = &embedding.probe;
    let (old, new) = (&embedding.old.embeddings, &embedding.new.embeddings);
    let trial = Trial::new(probe, &embedding.old.input_digests, [old, new], None);
    let all = trial.queries(|_| true);
    println!(
        "emoji/{model}: {} queries of {} identities, {FOLDS} folds; {} old->old {:.4}, new->new {:.4}, new->old {:.4} without a cure",
        all.len(),
        probe.identities.len(),
        trial.primary(),
        mean(&trial.old_old(&all).expect("finite")),
        mean(&trial.new_new(&all).expect("finite")),
        mean(&trial.new_old(&all).expect("finite")),
    );
    let raw = mean(&trial.new_new(&all).expect("finite"));
    for rate in [0.0, 0.05, 0.2] {
        let draws = if rate > 0.0 { DRAWS } else { 1 };
        let mut rows: Vec<(&str, Row)> = Vec::new();
        for draw in 0..draws {
            let corrupted = corrupt(probe, old, rate, SEED + draw);
            for fold in 0..FOLDS {
                let tested = trial.queries(|item| fold_of(probe, item) == Some(fold));
                for (index, (name, head)) in
                    heads(probe, &corrupted, new, fold).into_iter().enumerate()
                {
                    let found = trial.quality(&head, &tested).expect("finite");
                    if rows.len() <= index {
                        rows.push((name, Row::default()));
                    }
                    let row = &mut rows[index].1;
                    row.new_old.extend(found.new_old);
                    row.new_new.extend(found.new_new);
                }
            }
        }
        let tested: Vec<usize> = (0..draws)
            .flat_map(|_| 0..FOLDS)
            .flat_map(|fold| trial.queries(|item| fold_of(probe, item) == Some(fold)))
            .collect();
        let clusters: Vec<u32> = tested.iter().map(|&query| trial.identity(query)).collect();
        print(rate, draws, &rows, &clusters, raw);
    }
}

/// A table: each head against the best of least squares, which is the third row.
fn print(rate: f64, draws: u64, rows: &[(&str, Row)], clusters: &[u32], raw: f64) {
    println!("\n{} % corrupted, {draws} draws", 100.0 * rate);
    println!("| head | new->old | against the best of least squares | new->new |");
    println!("| --- | --- | --- | --- |");
    let reference = &rows[2].1.new_old;
    for (name, row) in rows {
        let change: Vec<f64> = row
            .new_old
            .iter()
            .zip(reference)
            .map(|(a, b)| a - b)
            .collect();
        let sums = ClusterSums::new(&change, clusters);
        let estimate = mean_estimate(&sums, 0.9, &Bootstrap::default());
        println!(
            "| {name} | {:.4} | {:+.4} [{:+.4}, {:+.4}] | {:.4} ({:+.4}) |",
            mean(&row.new_old),
            estimate.value,
            estimate.lower,
            estimate.upper,
            mean(&row.new_new),
            mean(&row.new_new) - raw
        );
    }
}

/// The heads of one fold, each fitted on four folds, by name.
fn heads(
    probe: &Probe,
    old: &Embeddings,
    new: &Embeddings,
    fold: u32,
) -> Vec<(&'static str, Head)> {
    let options = StructureOptions::default();
    let is_validation = |item: usize| fold_of(probe, item) == Some((fold + 1) % FOLDS);
    let is_test = |item: usize| fold_of(probe, item) == Some(fold);
    let pairs = |filter: Filter| {
        [false, true].map(|with_validation| {
            let wanted = |item: usize| !is_test(item) && (with_validation || !is_validation(item));
            fit::pairs(probe, [old, new], wanted, filter, &options).expect("a map")
        })
    };
    let plain = pairs(Filter::All);
    let by_neighbours = pairs(Filter::OldSpace);
    let agreeing = pairs(Filter::default());
    let keep: Vec<bool> = (0..probe.items.len()).map(|item| !is_test(item)).collect();
    let (mut part, mut part_old, mut part_new) = (probe.clone(), old.clone(), new.clone());
    part.retain(&keep);
    part_old.retain(&keep);
    part_new.retain(&keep);
    let trial = Trial::new(&part, &[], [&part_old, &part_new], None);
    let queries = trial.queries(|item| fold_of(&part, item) == Some((fold + 1) % FOLDS));
    let validation = Validation {
        trial: &trial,
        queries: &queries,
    };
    let without = mean(&trial.new_new(&queries).expect("finite"));

    let nccl = Objective::default();
    let instance = Objective {
        affinity_temperature: None,
        discrimination: 0.0,
        ..nccl
    };
    let linear = Training::default();
    let mlp = Training {
        hidden: 128,
        ..linear
    };
    let refit = |candidate: &Candidate, pairs: &Pairs, objective, training| {
        fit::refit(candidate, pairs, objective, training).expect("fits")
    };
    let trained = |pairs: &[Pairs; 2], objective, training| {
        let found = fit::train(
            &pairs[0],
            objective,
            training,
            &validation,
            None,
            &NoProgress,
        );
        let found = found.expect("trains");
        let head = refit(&found, &pairs[1], objective, training);
        (found, head)
    };
    let closed = fit::closed_forms(&plain[0], &validation).expect("fits");
    let best = fit::choose(&closed, without);
    let ridges = fit::choose(&closed[1..], f64::NEG_INFINITY) + 1;
    let of_closed = |index: usize| refit(&closed[index], &plain[1], nccl, linear);
    let (candidate, head) = trained(&agreeing, nccl, linear);
    let mut heads = vec![
        ("Procrustes", of_closed(0)),
        ("linear least squares, ridge chosen", of_closed(ridges)),
        ("best of least squares", of_closed(best)),
        (
            "Procrustes on agreeing pairs",
            fit::start(&only_credible(&agreeing[1])).expect("a map"),
        ),
        (
            "instance-level contrast, no filter",
            trained(&plain, instance, linear).1,
        ),
        (
            "instance-level contrast",
            trained(&agreeing, instance, linear).1,
        ),
        (
            "NCCL without a credibility filter",
            trained(&plain, nccl, linear).1,
        ),
        (
            "NCCL, credible by old neighbours",
            trained(&by_neighbours, nccl, linear).1,
        ),
        ("NCCL, residual MLP", trained(&agreeing, nccl, mlp).1),
        ("NCCL", head.clone()),
    ];
    let candidates: Vec<Candidate> = closed.iter().cloned().chain([candidate]).collect();
    let chosen = fit::choose(&candidates, without);
    let auto = if chosen == closed.len() {
        head
    } else {
        of_closed(chosen)
    };
    heads.push(("what adapt takes (auto)", auto));
    heads
}

fn only_credible(pairs: &Pairs) -> Pairs {
    let rows: Vec<usize> = (0..pairs.credible.len())
        .filter(|&row| pairs.credible[row])
        .collect();
    Pairs {
        new: pairs.new.select(Axis(0), &rows),
        old: pairs.old.select(Axis(0), &rows),
        ..pairs.clone()
    }
}

/// The fold of an item's identity, by its name.
fn fold_of(probe: &Probe, item: usize) -> Option<u32> {
    let names = probe.split_names(item, true);
    Some((Adaptation::key(SEED, names.first()?) % u64::from(FOLDS)) as u32)
}

/// A share of the old embeddings replaced by the normalised sum of two others.
fn corrupt(probe: &Probe, old: &Embeddings, rate: f64, seed: u64) -> Embeddings {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = probe.items.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut rng);
    let mut rows = Array2::zeros((n, old.dim()));
    for item in 0..n {
        let of = old.get(item).expect("every item has one");
        rows.row_mut(item).assign(&ndarray::aview1(&of));
    }
    let clean = rows.clone();
    for &item in &order[..(rate * n as f64).round() as usize] {
        let [a, b] = [(); 2].map(|()| rng.gen_range(0..n));
        rows.row_mut(item).assign(&(&clean.row(a) + &clean.row(b)));
    }
    Embeddings::new(rows, (0..n).map(|item| Some(item as u32)).collect(), true).expect("finite")
}

fn embedded(emoji: &Path, model: &str) -> audit::Embedding {
    let paths = [emoji.join("old.onnx"), emoji.join(model), emoji.to_owned()];
    let file = ConfigFile::read(&emoji.join("audit.toml")).expect("the fixture's");
    let config = AuditConfig::resolve(paths, file, Overrides::default()).expect("the fixture's");
    let cache: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cache");
    let around = Surroundings {
        runtime: RuntimeOptions {
            onnxruntime: None,
            offline: false,
            device: Device::Cpu,
            threads: 1,
            cache_dir: Some(cache.clone()),
            verbose: false,
        },
        embedding_cache: Some(cache),
        progress: &NoProgress,
        notify: &|line| eprintln!("{line}"),
        command: Vec::new(),
    };
    audit::embed(&config, &around).expect("the fixture's")
}
