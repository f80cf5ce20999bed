//! Rank-biased overlap against the rbo package, CKA against numpy's n x n form.

use std::collections::BTreeMap;

use compat_audit::domain::Pairing;
use compat_audit::retrieve::agreement::{linear_cka, rank_biased_overlap};
use serde::Deserialize;

use super::{golden, matrix, read};

#[derive(Deserialize)]
struct Agreement {
    /// By p, one value a query.
    rbo: BTreeMap<String, Vec<f64>>,
    cka: BTreeMap<String, f64>,
}

#[test]
fn every_query_agrees_with_the_rbo_package() {
    let golden = golden();
    let found = golden.retrieve(&golden.probe());
    let rankings = |pairing| &found.evaluations[&pairing].rankings;
    let pairs = || {
        rankings(Pairing::OLD_OLD)
            .iter()
            .zip(rankings(Pairing::NEW_OLD))
    };
    let expected = read::<Agreement>("agreement.json").rbo;
    assert_eq!(expected.len(), 3);
    for (p, theirs) in expected {
        assert_eq!(theirs.len(), 60);
        for (query, ((old, new), theirs)) in pairs().zip(theirs).enumerate() {
            assert_eq!((old.top.len(), new.top.len()), (100, 100));
            let ours = rank_biased_overlap(&old.top, &new.top, p.parse().expect("a number"));
            assert!(
                (ours - theirs).abs() < 1e-12,
                "p {p} query {query}: {ours} {theirs}"
            );
        }
    }
}

#[test]
fn cka_agrees_with_the_published_formula_in_numpy() {
    let golden = golden();
    let expected = read::<Agreement>("agreement.json").cka;
    let old = matrix(&golden.old);
    let ours = |rows: &[Vec<f32>]| linear_cka(&old, &matrix(rows)).expect("defined").value;
    let cut: Vec<Vec<f32>> = golden.new.iter().map(|row| row[..5].to_vec()).collect();
    for (found, name) in [
        (ours(&golden.new), "old, new"),
        (ours(&cut), "old, first 5 dimensions of new"),
        // Not even the reference sees the rotation.
        (ours(&golden.new), "old, new rotated"),
    ] {
        // 190^2 terms in f64 on both sides.
        assert!((found - expected[name]).abs() < 1e-10, "{name}: {found}");
    }
}
