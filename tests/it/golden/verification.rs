//! AUROC, EER, TAR at FAR and thresholds against scikit-learn.

use std::collections::BTreeMap;

use compat_audit::config::Similarity;
use compat_audit::domain::{Embeddings, Pairing};
use compat_audit::retrieve::{SearchOptions, verification};
use compat_audit::stats::Bootstrap;
use ndarray::Array2;
use serde::Deserialize;

use super::{golden, matrix, pairing_named, read};
use crate::properties::{probe_of, search};

#[derive(Deserialize)]
struct Golden {
    labels: Vec<u32>,
    roles: Vec<String>,
    /// Embeddings are these over `unit`.
    old: Vec<Vec<i16>>,
    new: Vec<Vec<i16>>,
    unit: f32,
    expected: BTreeMap<String, Expected>,
}

impl Golden {
    fn rows(&self, side: &[Vec<i16>]) -> Embeddings {
        let shape = (side.len(), side[0].len());
        let at = |(i, d): (usize, usize)| f32::from(side[i][d]) / self.unit;
        Embeddings::dense(Array2::from_shape_fn(shape, at), false).expect("finite")
    }
}

#[derive(Deserialize)]
struct Expected {
    auroc: f64,
    eer: f64,
    operating_points: Vec<Point>,
    at_old_thresholds: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Point {
    far: f64,
    threshold: f64,
    tar: f64,
    observed_far: f64,
}

/// 1e-12 for means of at most 149,100 counts; scikit-learn's EER is a root found to 1e-15 on a piecewise linear curve.
fn close(ours: f64, theirs: f64) -> bool {
    (ours - theirs).abs() < 1e-12
}

#[test]
fn verification_agrees_with_scikit_learn() {
    let golden: Golden = read("verification.json");
    let probe = probe_of(&golden.labels, |i| golden.roles[i].as_str());
    let digests = vec![None; golden.labels.len()];
    let (old, new) = (golden.rows(&golden.old), golden.rows(&golden.new));
    let options = SearchOptions {
        similarity: Similarity::Ip,
        ..SearchOptions::default()
    };
    let found = search(&probe, &digests, [&old, &new], &options);
    assert_eq!(golden.expected.len(), 2);
    for (name, theirs) in &golden.expected {
        let ours = &found.verifications[&pairing_named(name)];
        assert!(close(ours.auroc, theirs.auroc), "{name}: {}", ours.auroc);
        assert!(close(ours.eer, theirs.eer), "{name}: {}", ours.eer);
        assert_eq!(ours.operating_points.len(), theirs.operating_points.len());
        for (ours, theirs) in ours.operating_points.iter().zip(&theirs.operating_points) {
            assert_eq!(ours.far, theirs.far);
            // Scores are exact in both.
            assert_eq!(f64::from(ours.threshold), theirs.threshold, "{name}");
            assert!(close(ours.tar, theirs.tar), "{name}: {}", ours.tar);
            assert!(close(ours.observed_far, theirs.observed_far), "{name}");
        }
        // old->old's own thresholds are not transferred to itself.
        if pairing_named(name) != Pairing::OLD_OLD {
            assert_eq!(ours.at_thresholds.len(), theirs.at_old_thresholds.len());
        }
        for (ours, theirs) in ours.at_thresholds.iter().zip(&theirs.at_old_thresholds) {
            assert!(close(ours.0, theirs.0) && close(ours.1, theirs.1), "{name}");
        }
    }
}

/// The judged form of the transfer: its point estimates are scikit-learn's, its intervals do not depend on the threads.
#[test]
fn threshold_transfer_agrees_with_scikit_learn() {
    let golden: Golden = read("verification.json");
    let probe = probe_of(&golden.labels, |i| golden.roles[i].as_str());
    let digests = vec![None; golden.labels.len()];
    let (old, new) = (golden.rows(&golden.old), golden.rows(&golden.new));
    let bootstrap = Bootstrap {
        replicates: 500,
        seed: 1,
    };
    let transfer = |far: f64, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let options = SearchOptions {
            similarity: Similarity::Ip,
            threshold_far: far,
            ..SearchOptions::default()
        };
        pool.expect("a pool").install(|| {
            let found = search(&probe, &digests, [&old, &new], &options);
            found.transfer.map(|pairs| pairs.estimates(0.9, &bootstrap))
        })
    };
    let [old_old, new_old] = ["old->old", "new->old"].map(|name| &golden.expected[name]);
    for (i, point) in old_old.operating_points.iter().enumerate() {
        let found = transfer(point.far, 1).expect("enough pairs");
        assert_eq!(Some(found), transfer(point.far, 3));
        assert_eq!(f64::from(found.threshold), point.threshold);
        let (far, frr) = new_old.at_old_thresholds[i];
        assert!(close(found.far.value, far), "{found:?}");
        let rise = frr - old_old.at_old_thresholds[i].1;
        assert!(close(found.frr_rise.value, rise), "{found:?}");
        for estimate in [found.far, found.frr_rise] {
            assert!(estimate.lower < estimate.value && estimate.value < estimate.upper);
            assert!(estimate.standard_error > 0.0);
        }
    }
    // 149,100 non-matching pairs are too few for a rate of 1e-4.
    assert_eq!(transfer(1e-4, 1), None);
}

#[test]
fn auroc_agrees_with_scikit_learn() {
    let golden = golden();
    let found = golden.retrieve(&golden.probe());
    let (old, new) = (matrix(&golden.old), matrix(&golden.new));
    for (pairing, queries) in [(Pairing::OLD_OLD, &old), (Pairing::NEW_OLD, &new)] {
        // 30 identities are too few for a report, so the count is asked for directly.
        let auroc = verification::auroc(&found.protocol, queries, &old, Similarity::Cosine)
            .expect("finite");
        let theirs = golden.expected[&pairing.to_string()].auroc;
        assert!(close(auroc, theirs), "{pairing}: {auroc} {theirs}");
    }
}
