//! Verification of more pairs than a pilot looks at, against keeping and sorting every score.

use compat_audit::config::Similarity;
use compat_audit::domain::{Embeddings, Pairing};
use compat_audit::retrieve::SearchOptions;
use compat_audit::topk::score_pair;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::properties::{probe_of, search};

const IDENTITIES: usize = 110;
const DIM: usize = 4;

/// One query of each identity, then the gallery, of which each identity has the first items in turn.
fn labels(gallery: usize) -> Vec<u32> {
    (0..IDENTITIES + gallery)
        .map(|i| (i % IDENTITIES) as u32)
        .collect()
}

/// The smallest observed score that accepts at most the rate, the rate, and the share of matches rejected; the non-matches
/// ascend.
fn naive(matches: &[f32], non_matches: &[f32], far: f64) -> (f32, f64, f64) {
    let n = non_matches.len();
    let rejected = non_matches[n - 1 - (far * n as f64).floor() as usize];
    let observed = non_matches.iter().chain(matches).copied();
    let threshold = observed
        .filter(|&score| score > rejected)
        .min_by(f32::total_cmp);
    let threshold = threshold.unwrap_or(rejected.next_up());
    let (accepted, rejected) = at(matches, non_matches, threshold);
    (threshold, accepted, rejected)
}

/// FAR and FRR.
fn at(matches: &[f32], non_matches: &[f32], threshold: f32) -> (f64, f64) {
    let share = |scores: &[f32], is: &dyn Fn(f32) -> bool| {
        scores.iter().filter(|&&score| is(score)).count() as f64 / scores.len() as f64
    };
    (
        share(non_matches, &|score| score >= threshold),
        share(matches, &|score| score < threshold),
    )
}

/// `hubs` of the gallery's items score far above all others with every query.
fn agrees(gallery: usize, hubs: usize) {
    let labels = labels(gallery);
    let mut rng = ChaCha8Rng::seed_from_u64(gallery as u64 + hubs as u64);
    let mut model = |reach: f32| {
        let n = labels.len();
        let mut rows = Array2::from_shape_fn((n, DIM), |_| rng.gen_range(-1.0..1.0_f32));
        rows.column_mut(0)
            .slice_mut(ndarray::s![..IDENTITIES])
            .fill(1.0);
        let at_end = ndarray::s![n - hubs..];
        rows.column_mut(0)
            .slice_mut(at_end)
            .mapv_inplace(|x| reach + x);
        Embeddings::dense(rows, false).expect("finite")
    };
    let models = [model(40.0), model(60.0)];
    let query = |i: usize| if i < IDENTITIES { "query" } else { "gallery" };
    let probe = probe_of(&labels, query);
    let digests = vec![None; labels.len()];
    let options = SearchOptions {
        similarity: Similarity::Ip,
        threshold_far: 2e-3,
        ..SearchOptions::default()
    };
    let found = search(&probe, &digests, [&models[0], &models[1]], &options);

    let mut old_thresholds: Vec<f32> = Vec::new();
    for pairing in [
        Pairing::OLD_OLD,
        Pairing::NEW_OLD,
        Pairing::NEW_NEW,
        Pairing::OLD_NEW,
    ] {
        let of = |side| &models[usize::from(side == compat_audit::domain::Side::New)];
        let (mut matches, mut non_matches) = (Vec::new(), Vec::new());
        for q in 0..IDENTITIES {
            let query = of(pairing.query).get(q).expect("dense");
            for item in IDENTITIES..labels.len() {
                let other = of(pairing.gallery).get(item).expect("dense");
                let score = score_pair(&query, &other, Similarity::Ip);
                if labels[q] == labels[item] {
                    matches.push(score);
                } else {
                    non_matches.push(score);
                }
            }
        }
        non_matches.sort_unstable_by(f32::total_cmp);
        let ours = &found.verifications[&pairing];
        assert_eq!(ours.operating_points.len(), 3);
        for point in &ours.operating_points {
            let (threshold, far, frr) = naive(&matches, &non_matches, point.far);
            assert_eq!(
                (point.threshold, point.observed_far, 1.0 - point.tar),
                (threshold, far, frr),
                "{pairing}, {} hubs",
                hubs
            );
        }
        let transferred = if pairing == Pairing::OLD_OLD { 0 } else { 3 };
        assert_eq!(ours.at_thresholds.len(), transferred, "{pairing}");
        for (&threshold, &ours) in old_thresholds.iter().zip(&ours.at_thresholds) {
            assert_eq!(ours, at(&matches, &non_matches, threshold), "{pairing}");
        }
        match pairing {
            Pairing::OLD_OLD => {
                old_thresholds = ours.operating_points.iter().map(|p| p.threshold).collect();
                let transferred = naive(&matches, &non_matches, options.threshold_far).0;
                old_thresholds.push(transferred);
            }
            Pairing::NEW_OLD => {
                let transfer = found.transfer.as_ref().expect("pairs enough");
                let bootstrap = compat_audit::stats::Bootstrap {
                    replicates: 200,
                    seed: 1,
                };
                let estimates = transfer.estimates(0.9, &bootstrap);
                assert_eq!(estimates.threshold, old_thresholds[3]);
                let (far, _) = at(&matches, &non_matches, old_thresholds[3]);
                assert_eq!(estimates.far.value, far);
                for estimate in [estimates.far, estimates.frr_rise] {
                    assert!(estimate.lower <= estimate.value && estimate.value <= estimate.upper);
                    assert!(estimate.upper - estimate.lower < 0.2, "{estimate:?}");
                }
            }
            _ => {}
        }
    }
}

#[test]
fn thresholds_are_exact_where_the_pilot_is_a_sample() {
    // 4.6 million pairs; the pilot takes 4.2 million.
    agrees(42_000, 0);
}

#[test]
fn thresholds_are_exact_where_a_few_items_hold_the_false_accepts() {
    // Scores so far apart that no window can span them.
    agrees(42_000, 3);
}

#[test]
fn thresholds_are_exact_where_the_pilot_is_all() {
    agrees(12_000, 1);
}
