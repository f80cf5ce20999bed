//! What must hold for any space, and a readable O(n^2) twin of the rankings.

use compat_audit::config::Similarity;
use compat_audit::domain::{Embeddings, Item, Measure, Modality, Pairing, Probe, Role, Source};
use compat_audit::retrieve::agreement::linear_cka;
use compat_audit::retrieve::score::score_pair;
use compat_audit::retrieve::{Retrieval, measures, retrieve};
use ndarray::Array2;
use proptest::prelude::*;

/// A probe of one label an item; `role` names each item's role.
pub fn probe_of<'a>(labels: &[u32], role: impl Fn(usize) -> &'a str) -> Probe {
    let n_labels = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let names: Vec<String> = (0..n_labels).map(|label| label.to_string()).collect();
    let items = labels
        .iter()
        .enumerate()
        .map(|(index, &label)| Item {
            id: format!("item{index}"),
            labels: vec![label],
            identity: Some(label),
            camera: None,
            role: match role(index) {
                "query" => Role::Query,
                "gallery" => Role::Gallery,
                _ => Role::Both,
            },
            source: Source::Missing,
            text: None,
            slices: Vec::new(),
        })
        .collect();
    Probe {
        items,
        labels: names.clone(),
        identities: names,
        cameras: Vec::new(),
        slice_columns: Vec::new(),
        modality: Modality::Stored,
        origin: "made up".into(),
        tensors: None,
        findings: Vec::new(),
    }
}

#[derive(Debug, Clone)]
struct Space {
    labels: Vec<u32>,
    old: Array2<f32>,
    new: Array2<f32>,
}

/// Few distinct coordinates, so that ties happen.
fn space() -> impl Strategy<Value = Space> {
    (8..30_usize, 2..6_usize).prop_flat_map(|(n, dim)| {
        let matrix = || {
            prop::collection::vec((-3_i8..4).prop_map(|v| f32::from(v) + 0.5), n * dim)
                .prop_map(move |values| Array2::from_shape_vec((n, dim), values).expect("n x dim"))
        };
        (prop::collection::vec(0..4_u32, n), matrix(), matrix())
            .prop_map(|(labels, old, new)| Space { labels, old, new })
    })
}

fn embeddings(rows: &Array2<f32>) -> Embeddings {
    Embeddings::dense(rows.clone(), true).expect("half-integers are neither zero nor infinite")
}

fn run(space: &Space) -> Retrieval {
    let probe = probe_of(&space.labels, |_| "both");
    let digests = vec![None; space.labels.len()];
    let (old, new) = (embeddings(&space.old), embeddings(&space.new));
    retrieve(
        &probe,
        &digests,
        &old,
        &new,
        Similarity::Cosine,
        Measure::MeanAveragePrecision,
        7,
    )
    .expect("finite")
}

/// AP by the definition: sort, walk, count; ties count against the query.
fn naive_average_precision(space: &Space, query: usize) -> Option<f64> {
    let (old, new) = (embeddings(&space.old), embeddings(&space.new));
    let score = |g: usize| {
        score_pair(
            new.view(query).expect("dense"),
            old.view(g).expect("dense"),
            Similarity::Cosine,
        )
    };
    let others: Vec<usize> = (0..space.labels.len()).filter(|&g| g != query).collect();
    let is_relevant = |g: usize| space.labels[g] == space.labels[query];
    let mut relevant: Vec<usize> = others.iter().copied().filter(|&g| is_relevant(g)).collect();
    relevant.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let precision = |(before, &g): (usize, &usize)| {
        let worse = others
            .iter()
            .filter(|&&n| !is_relevant(n) && score(n) >= score(g))
            .count();
        (before + 1) as f64 / (1 + worse + before) as f64
    };
    let sum: f64 = relevant.iter().enumerate().map(precision).sum();
    (!relevant.is_empty()).then(|| sum / relevant.len() as f64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rankings_agree_with_the_naive_twin(space in space()) {
        let found = run(&space);
        let ours = found.evaluations[&Pairing::NEW_OLD].per_query(Measure::MeanAveragePrecision);
        let naive: Vec<f64> =
            (0..space.labels.len()).filter_map(|query| naive_average_precision(&space, query)).collect();
        prop_assert_eq!(ours.len(), naive.len());
        for (ours, naive) in ours.iter().zip(&naive) {
            prop_assert!((ours - naive).abs() < 1e-12);
        }
    }

    #[test]
    fn cmc_and_recall_do_not_fall_with_k(mut ranks in prop::collection::btree_set(1..200_u64, 1..20)) {
        let ranks: Vec<u64> = std::mem::take(&mut ranks).into_iter().collect();
        for k in 1..100 {
            prop_assert!(measures::cmc_at(&ranks, k) <= measures::cmc_at(&ranks, k + 1));
            prop_assert!(measures::recall_at(&ranks, k) <= measures::recall_at(&ranks, k + 1));
        }
    }

    #[test]
    fn every_measure_is_in_0_1(ranks in prop::collection::btree_set(1..200_u64, 1..20)) {
        let ranks: Vec<u64> = ranks.into_iter().collect();
        for measure in Measure::ALL {
            let value = measures::evaluate(measure, &ranks);
            prop_assert!((0.0..=1.0 + 1e-15).contains(&value), "{}: {}", measure, value);
        }
    }

    #[test]
    fn permuting_the_items_changes_nothing(space in space(), shift in 1..7_usize) {
        let n = space.labels.len();
        let order: Vec<usize> = (0..n).map(|i| (i + shift) % n).collect();
        let permuted = Space {
            labels: order.iter().map(|&i| space.labels[i]).collect(),
            old: space.old.select(ndarray::Axis(0), &order),
            new: space.new.select(ndarray::Axis(0), &order),
        };
        let values = |space: &Space| {
            let mut values =
                run(space).evaluations[&Pairing::NEW_OLD].per_query(Measure::MeanAveragePrecision);
            values.sort_by(f64::total_cmp);
            values
        };
        prop_assert_eq!(values(&space), values(&permuted));
    }

    #[test]
    fn a_model_against_itself_changes_nothing(space in space()) {
        let same = Space { new: space.old.clone(), ..space };
        let found = run(&same);
        prop_assert_eq!(&found.evaluations[&Pairing::OLD_OLD], &found.evaluations[&Pairing::NEW_OLD]);
        prop_assert_eq!(&found.evaluations[&Pairing::OLD_OLD], &found.evaluations[&Pairing::NEW_NEW]);
    }

    /// Swapping two axes and flipping one is an exact rotation of f32 vectors up to the order of the chain, so only
    /// tie-free rankings can be compared.
    #[test]
    fn rotating_both_models_together_changes_nothing(space in space()) {
        let turn = |rows: &Array2<f32>| {
            let dim = rows.ncols();
            Array2::from_shape_fn(rows.dim(), |(i, d)| match d {
                0 => -rows[[i, dim - 1]],
                d if d == dim - 1 => rows[[i, 0]],
                d => rows[[i, d]],
            })
        };
        let turned = Space { labels: space.labels.clone(), old: turn(&space.old), new: turn(&space.new) };
        let (found, again) = (run(&space), run(&turned));
        for (a, b) in found.evaluations[&Pairing::NEW_OLD].rankings.iter()
            .zip(&again.evaluations[&Pairing::NEW_OLD].rankings)
        {
            let tied = a.top.windows(2).any(|pair| (pair[0].score - pair[1].score).abs() < 1e-5);
            if !tied {
                prop_assert_eq!(a.ranks(), b.ranks());
            }
        }
    }
}

/// Why CKA is a diagnostic: the old model turned looks the same from inside, and searches the old gallery at chance.
#[test]
fn cka_cannot_see_the_rotation_that_breaks_the_search() {
    // Six identities at six axes, items near them.
    let labels: Vec<u32> = (0..60).map(|item| item % 6).collect();
    let near = |item: usize, d: usize| ((item * 31 + d * 17) % 13) as f32 / 40.0;
    let old = Array2::from_shape_fn((60, 6), |(item, d)| {
        f32::from(u8::from(labels[item] as usize == d)) + near(item, d)
    });
    // Every axis becomes the next one.
    let new = Array2::from_shape_fn((60, 6), |(item, d)| old[[item, (d + 1) % 6]]);
    let space = Space { labels, old, new };
    let found = run(&space);
    let first = |pairing| {
        let values = found.evaluations[&pairing].per_query(Measure::CmcAt(1));
        values.iter().sum::<f64>() / values.len() as f64
    };
    assert_eq!(
        (first(Pairing::OLD_OLD), first(Pairing::NEW_NEW)),
        (1.0, 1.0)
    );
    assert_eq!(first(Pairing::NEW_OLD), 0.0);
    let cka = linear_cka(&embeddings(&space.old), &embeddings(&space.new)).expect("defined");
    // The rows are rounded to f32 after their normalisation, in both spaces alike.
    assert!((cka.value - 1.0).abs() < 1e-9, "{cka:?}");
}
