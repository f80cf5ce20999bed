//! What must hold for any space, and a readable O(n^2) twin of the rankings.

use compat_audit::config::Similarity;
use compat_audit::domain::{
    Embeddings, Item, Judgement, Measure, Modality, Pairing, Probe, Qrels, Role, Side,
};
use compat_audit::retrieve::agreement::linear_cka;
use compat_audit::retrieve::protocol::Protocol;
use compat_audit::retrieve::{
    Retrieval, SearchOptions, measures, search_new_gallery, search_old_gallery,
};
use compat_audit::topk::score_pair;
use ndarray::Array2;
use proptest::prelude::*;

/// A probe of one label an item; `role` names each item's role.
pub fn probe_of<'a>(labels: &[u32], role: impl Fn(usize) -> &'a str) -> Probe {
    let n_labels = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let names = (0..n_labels).map(|label| label.to_string()).collect();
    let item = |(index, &label)| {
        let role = match role(index) {
            "query" => Role::Query,
            "gallery" => Role::Gallery,
            _ => Role::Both,
        };
        Item::new(format!("item{index}"), Some(label), role)
    };
    let items = labels.iter().enumerate().map(item).collect();
    Probe::new(items, names, Modality::Stored)
}

#[derive(Debug, Clone)]
struct Space {
    labels: Vec<u32>,
    old: Array2<f32>,
    new: Array2<f32>,
    /// `grades[query][item]`; `None`: relevant is who shares the label.
    grades: Option<Vec<Vec<u32>>>,
}

fn matrix(
    n: usize,
    dim: usize,
    values: impl Strategy<Value = f32>,
) -> impl Strategy<Value = Array2<f32>> {
    prop::collection::vec(values, n * dim)
        .prop_map(move |values| Array2::from_shape_vec((n, dim), values).expect("n x dim"))
}

/// Half-integers are neither zero nor infinite, and few, so that ties happen.
fn coarse() -> impl Strategy<Value = f32> {
    (-3_i8..4).prop_map(|v| f32::from(v) + 0.5)
}

/// A space of ties; every other one is judged in grades of 0 (mostly) to 3.
fn space() -> impl Strategy<Value = Space> {
    (8..30_usize, 2..6_usize).prop_flat_map(|(n, dim)| {
        let grade = prop_oneof![4 => Just(0_u32), 1 => 1..4_u32];
        let grades = prop::collection::vec(prop::collection::vec(grade, n), n);
        (
            prop::collection::vec(0..4_u32, n),
            matrix(n, dim, coarse()),
            matrix(n, dim, coarse()),
            prop::option::of(grades),
        )
            .prop_map(|(labels, old, new, grades)| Space {
                labels,
                old,
                new,
                grades,
            })
    })
}

/// A space and an order of its items.
fn space_and_order() -> impl Strategy<Value = (Space, Vec<usize>)> {
    space().prop_flat_map(|space| {
        let order: Vec<usize> = (0..space.labels.len()).collect();
        (Just(space), Just(order).prop_shuffle())
    })
}

fn embeddings(rows: &Array2<f32>) -> Embeddings {
    Embeddings::dense(rows.clone(), true).expect("no row is zero or infinite")
}

/// Both galleries searched.
pub fn search(
    probe: &Probe,
    digests: &[Option<[u8; 32]>],
    models: [&Embeddings; 2],
    options: &SearchOptions,
) -> Retrieval {
    let protocol = Protocol::new(probe, digests);
    let alone = Default::default();
    let found = search_old_gallery(probe, protocol, models, options, alone);
    let mut found = found.expect("finite");
    search_new_gallery(&mut found, models, options, None).expect("finite");
    found
}

fn run(space: &Space) -> Retrieval {
    let mut probe = probe_of(&space.labels, |_| "both");
    let n = space.labels.len();
    probe.qrels = space.grades.as_ref().map(|grades| {
        let pairs = (0..n).flat_map(|query| (0..n).map(move |item| (query, item)));
        let judgements: Vec<Judgement> = pairs
            .map(|(query, item)| Judgement {
                query,
                item,
                grade: grades[query][item] as i32,
            })
            .collect();
        Qrels::new("made up".into(), n, &judgements, true)
    });
    let digests = vec![None; n];
    let (old, new) = (embeddings(&space.old), embeddings(&space.new));
    let options = SearchOptions {
        seed: 7,
        ..SearchOptions::default()
    };
    search(&probe, &digests, [&old, &new], &options)
}

/// Grades in the order of one query's ranking, by sorting: of equal scores the less relevant first, or last.
fn naive_ranking(space: &Space, pairing: Pairing, query: usize, favour: bool) -> Vec<u32> {
    let of = |side| {
        if side == Side::Old {
            &space.old
        } else {
            &space.new
        }
    };
    let (queries, gallery) = (
        embeddings(of(pairing.query)),
        embeddings(of(pairing.gallery)),
    );
    let grade = |item: usize| match &space.grades {
        Some(grades) => grades[query][item],
        None => u32::from(space.labels[item] == space.labels[query]),
    };
    let mut ranking: Vec<(f32, u32)> = (0..space.labels.len())
        .filter(|&item| item != query)
        .map(|item| {
            let (q, g) = (queries.get(query), gallery.get(item));
            let (q, g) = (q.expect("dense"), g.expect("dense"));
            (score_pair(&q, &g, Similarity::Cosine), grade(item))
        })
        .collect();
    ranking.sort_by(|a, b| {
        let by_grade = if favour { b.1.cmp(&a.1) } else { a.1.cmp(&b.1) };
        b.0.total_cmp(&a.0).then(by_grade)
    });
    ranking.into_iter().map(|(_, grade)| grade).collect()
}

/// The measure by its textbook definition, on the grades in ranked order; at least one is above 0.
fn naive_measure(measure: Measure, grades: &[u32]) -> f64 {
    let hits = |k: usize| grades.iter().take(k).filter(|&&grade| grade > 0).count();
    let n_relevant = hits(grades.len());
    let ranks: Vec<usize> = (1..=grades.len())
        .filter(|&rank| grades[rank - 1] > 0)
        .collect();
    let total = n_relevant as f64;
    let dcg = |grades: &[u32], k: u32| -> f64 {
        let gain = |(i, &grade): (usize, &u32)| f64::from(grade) / ((i + 2) as f64).log2();
        grades.iter().enumerate().take(k as usize).map(gain).sum()
    };
    match measure {
        Measure::MeanAveragePrecision => {
            let precision = |&rank: &usize| hits(rank) as f64 / rank as f64;
            ranks.iter().map(precision).sum::<f64>() / total
        }
        Measure::CmcAt(k) => f64::from(u8::from(hits(k as usize) > 0)),
        Measure::RecallAt(k) => hits(k as usize) as f64 / total,
        Measure::MeanReciprocalRank => 1.0 / ranks[0] as f64,
        Measure::RPrecision => hits(n_relevant) as f64 / total,
        Measure::MeanInverseNegativePenalty => total / ranks[n_relevant - 1] as f64,
        Measure::NdcgAt(k) => {
            let mut best = grades.to_vec();
            best.sort_unstable_by(|a, b| b.cmp(a));
            dcg(grades, k) / dcg(&best, k)
        }
    }
}

/// One row a query item: every measure under every pairing, with ties against the query and in its favour.
fn all_values(found: &Retrieval) -> Vec<(usize, Vec<f64>)> {
    let mut rows: Vec<(usize, Vec<f64>)> = found
        .protocol
        .query_items()
        .into_iter()
        .map(|item| (item, Vec::new()))
        .collect();
    for evaluation in found.evaluations.values() {
        for measure in Measure::ALL {
            let against = evaluation.per_query(measure);
            let favour = evaluation.per_query_optimistic(measure);
            for ((row, against), favour) in rows.iter_mut().zip(against).zip(favour) {
                row.1.extend([against, favour]);
            }
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_measure_agrees_with_the_naive_twin(space in space()) {
        let found = run(&space);
        for (&pairing, evaluation) in &found.evaluations {
            for favour in [false, true] {
                let rankings: Vec<Vec<u32>> = (0..space.labels.len())
                    .map(|query| naive_ranking(&space, pairing, query, favour))
                    .filter(|grades| grades.iter().any(|&grade| grade > 0))
                    .collect();
                prop_assert_eq!(rankings.len(), evaluation.rankings.len());
                for measure in Measure::ALL {
                    let ours = if favour {
                        evaluation.per_query_optimistic(measure)
                    } else {
                        evaluation.per_query(measure)
                    };
                    for (ours, grades) in ours.iter().zip(&rankings) {
                        let naive = naive_measure(measure, grades);
                        prop_assert!((ours - naive).abs() < 1e-12, "{} {} {} {}", pairing, measure, ours, naive);
                    }
                }
            }
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
    fn every_measure_is_in_0_1(ranked in prop::collection::btree_map(1..200_u64, 1..5_u32, 1..20)) {
        let (ranks, grades): (Vec<u64>, Vec<u32>) = ranked.into_iter().unzip();
        for measure in Measure::ALL {
            for grades in [&grades[..], &[]] {
                let value = measures::evaluate(measure, &ranks, grades);
                prop_assert!((0.0..=1.0 + 1e-15).contains(&value), "{}: {}", measure, value);
            }
        }
    }

    #[test]
    fn permuting_the_items_changes_nothing((space, order) in space_and_order()) {
        let permuted = Space {
            labels: order.iter().map(|&i| space.labels[i]).collect(),
            old: space.old.select(ndarray::Axis(0), &order),
            new: space.new.select(ndarray::Axis(0), &order),
            grades: space.grades.as_ref().map(|grades| {
                order.iter().map(|&q| order.iter().map(|&g| grades[q][g]).collect()).collect()
            }),
        };
        let values = all_values(&run(&space));
        let mut again: Vec<_> =
            all_values(&run(&permuted)).into_iter().map(|(item, row)| (order[item], row)).collect();
        again.sort_by_key(|&(item, _)| item);
        prop_assert_eq!(values, again);
    }

    #[test]
    fn a_model_against_itself_changes_nothing_and_flips_nothing(space in space()) {
        let same = Space { new: space.old.clone(), ..space };
        let found = run(&same);
        let old_old = &found.evaluations[&Pairing::OLD_OLD];
        for pairing in [Pairing::NEW_OLD, Pairing::NEW_NEW, Pairing::OLD_NEW] {
            let other = &found.evaluations[&pairing];
            prop_assert_eq!(old_old, other);
            for measure in Measure::ALL {
                prop_assert_eq!(old_old.per_query(measure), other.per_query(measure));
            }
        }
        let flips = old_old.rankings.iter().zip(&found.evaluations[&Pairing::NEW_OLD].rankings)
            .filter(|(a, b)| (a.first_rank() == 1) != (b.first_rank() == 1));
        prop_assert_eq!(flips.count(), 0);
    }

    /// One rotation of both spaces, by an angle in each of two planes, so that every score is rounded anew.
    #[test]
    fn rotating_both_models_together_changes_nothing(
        labels in prop::collection::vec(0..4_u32, 24),
        old in matrix(24, 4, 0.1_f32..1.0),
        new in matrix(24, 4, 0.1_f32..1.0),
        angles in (0.0..6.3_f64, 0.0..6.3_f64),
    ) {
        let turn = |rows: &Array2<f32>| {
            Array2::from_shape_fn(rows.dim(), |(i, d)| {
                let (angle, first) = if d < 2 { (angles.0, 0) } else { (angles.1, 2) };
                let (a, b) = (f64::from(rows[[i, first]]), f64::from(rows[[i, first + 1]]));
                let turned = if d == first {
                    a * angle.cos() - b * angle.sin()
                } else {
                    a * angle.sin() + b * angle.cos()
                };
                turned as f32
            })
        };
        let (turned_old, turned_new) = (turn(&old), turn(&new));
        let space = Space { labels, old, new, grades: None };
        let turned = Space { old: turned_old, new: turned_new, ..space.clone() };
        let (found, again) = (run(&space), run(&turned));
        for (pairing, evaluation) in &found.evaluations {
            let other = &again.evaluations[pairing];
            // Unit vectors of four dimensions, rounded at 2^-24 each: a score moves by less than 1e-6.
            let is_clear: Vec<bool> = evaluation.rankings.iter()
                .map(|ranking| ranking.top.windows(2).all(|pair| pair[0].score - pair[1].score > 2e-6))
                .collect();
            for measure in Measure::ALL {
                let values = evaluation.per_query(measure).into_iter().zip(other.per_query(measure));
                for ((before, after), _) in values.zip(&is_clear).filter(|(_, is_clear)| **is_clear) {
                    prop_assert_eq!(before, after, "{} {}", pairing, measure);
                }
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
    let space = Space {
        labels,
        old,
        new,
        grades: None,
    };
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
