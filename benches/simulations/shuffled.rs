//! Labels that say nothing: whole audits in memory, from embeddings to verdict.

use ndarray::Array2;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use compat_audit::config::Policy;
use compat_audit::domain::{Date, Embeddings, Item, Modality, Probe, Role};
use compat_audit::judge::evidence::{Evidence, Stages};
use compat_audit::judge::{Verdict, judge};
use compat_audit::retrieve::protocol::Protocol;
use compat_audit::retrieve::{SearchOptions, search_new_gallery, search_old_gallery};
use compat_audit::structure::{self, StructureOptions};

use super::draw::{gaussian, stream};
use super::tally::tally;

const RUNS: u64 = 200;

const IDENTITIES: usize = 40;
const ITEMS_EACH: usize = 5;
const DIM: usize = 16;

/// What the new model is to the old one.
#[derive(Clone, Copy)]
enum NewModel {
    /// The same space with a little noise: would pass with right labels.
    Compatible,
    /// Unrelated embeddings of the same structure, as after a rotation.
    Incompatible,
}

pub fn print() {
    println!(
        "Whole audits of {IDENTITIES} identities of {ITEMS_EACH} items, dimension {DIM}: per cent of {RUNS} runs with the verdict\n\
         skip-backfill, with its 95 % Monte-Carlo interval. A share of the labels is shuffled among the items.\n"
    );
    println!("| new model | no label shuffled | 80 % shuffled | all shuffled |");
    println!("| --- | --- | --- | --- |");
    for (model, name) in [
        (NewModel::Compatible, "compatible"),
        (NewModel::Incompatible, "incompatible"),
    ] {
        let skips = [0.0, 0.8, 1.0].map(|share| {
            tally(RUNS, |run| {
                [verdict(model, share, run) == Verdict::SkipBackfill]
            })[0]
        });
        println!("| {name} | {} | {} | {} |", skips[0], skips[1], skips[2]);
    }
}

/// One audit.
fn verdict(model: NewModel, shuffled_share: f64, run: u64) -> Verdict {
    let mut rng = stream(17, run);
    let n = IDENTITIES * ITEMS_EACH;
    let (old_centres, new_centres) = (rows(&mut rng, IDENTITIES), rows(&mut rng, IDENTITIES));
    let around = |centres: &Array2<f32>, rng: &mut ChaCha8Rng| {
        let noise = rows(rng, n);
        Array2::from_shape_fn((n, DIM), |(item, d)| {
            centres[[item / ITEMS_EACH, d]] + 0.7 * noise[[item, d]]
        })
    };
    let old = around(&old_centres, &mut rng);
    let new = match model {
        NewModel::Compatible => &old + &(0.02 * rows(&mut rng, n)),
        NewModel::Incompatible => around(&new_centres, &mut rng),
    };
    let embeddings = |rows| Embeddings::dense(rows, true).expect("finite and not zero");
    let (old, new) = (embeddings(old), embeddings(new));
    let probe = probe(&mut rng, shuffled_share);
    let digests = vec![None; n];
    let options = SearchOptions {
        seed: run,
        ..SearchOptions::default()
    };
    let models = [&old, &new];
    let protocol = Protocol::new(&probe, &digests);
    let found = search_old_gallery(&probe, protocol, models, &options, Default::default());
    let mut retrieval = found.expect("unit vectors do not overflow");
    search_new_gallery(&mut retrieval, models, &options, None)
        .expect("unit vectors do not overflow");
    let structure = structure::estimate(&probe, &old, &StructureOptions::default());
    let policy = Policy::default();
    // Without the refresh curve there is one gate less to fail: what never passes here never passes with it.
    let stages = Stages {
        probe: &probe,
        dims: [DIM; 2],
        same_model: false,
        adapted: false,
        structure: &structure,
        retrieval: &retrieval,
        kept: None,
        refreshed: None,
        today: Date::of_unix_day(0),
    };
    let evidence = Evidence::collect(&stages, &policy, run);
    judge(&evidence, &policy, stages.today).verdict
}

fn rows(rng: &mut ChaCha8Rng, n: usize) -> Array2<f32> {
    Array2::from_shape_fn((n, DIM), |_| gaussian(rng) as f32)
}

/// Items in order of their true identity, a share of the labels shuffled.
fn probe(rng: &mut ChaCha8Rng, shuffled_share: f64) -> Probe {
    let mut labels: Vec<u32> = (0..IDENTITIES * ITEMS_EACH)
        .map(|item| (item / ITEMS_EACH) as u32)
        .collect();
    let places: Vec<usize> = (0..labels.len())
        .filter(|_| rng.r#gen::<f64>() < shuffled_share)
        .collect();
    let mut donors: Vec<u32> = places.iter().map(|&place| labels[place]).collect();
    donors.shuffle(rng);
    for (place, label) in places.into_iter().zip(donors) {
        labels[place] = label;
    }
    probe_of(&labels)
}

/// A probe of items that are query and gallery, with these labels.
pub fn probe_of(labels: &[u32]) -> Probe {
    let last = labels.iter().max().map_or(0, |&last| last + 1);
    let names = (0..last).map(|i| i.to_string()).collect();
    let item = |(item, &label): (usize, &u32)| Item::new(item.to_string(), Some(label), Role::Both);
    let items = labels.iter().enumerate().map(item).collect();
    Probe::new(items, names, Modality::Stored)
}
