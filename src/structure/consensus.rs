//! NCCL's neighbourhood consensus, read as a measurement (section 4 of `docs/METRICS.md`).

use std::collections::BTreeMap;

use ndarray::Array1;
use rayon::prelude::*;

use super::prototypes::{Reader, Sums};
use super::softmax::{LogSumExp, expectation, log_sum_exp};
use super::{Structure, StructureOptions, embedded, sample, unit};
use crate::config::Similarity;
use crate::domain::{Embeddings, Probe};
use crate::topk::{Gallery, QueryScan, Visitor, map_rows, scan, score_pair, score_some};

/// What an old and a new query of one item say of the old gallery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consensus {
    /// Sum of P(j | i) over the relevant gallery items, in [0, 1], old query.
    pub mass_old: f64,
    /// The same, new query.
    pub mass_new: f64,
    /// NCCL's L_i = sum_j w_ij ln P(j | i), at most 0, old query.
    pub nccl_old: f64,
    /// The same, new query; the weights are those of the old query.
    pub nccl_new: f64,
    /// KL(p_oo || p_no) over the old sub-cluster prototypes, nats, at least 0.
    pub kl: f64,
    /// Sub-cluster of the prototype nearest to the old query.
    pub nearest_old: u32,
    /// The same of the new query.
    pub nearest_new: u32,
    /// Whether those two are of one identity.
    pub argmax_kept: bool,
}

/// Consensus of each query in the embedding space and in the discrimination space, new queries against
/// the OLD gallery.
///
/// - P(j | i) is the softmax of the query's cosines over the embedded gallery without i and without
///   every item that `junk(query)` names, at `options.temperature`.
/// - `totals` have heard every query's cosines already; without them the gallery passes once more.
/// - w_ij = (1 + cosine(old i, old j))/2 over the relevant, credible j, normalised; over all relevant j
///   when none is credible. Items that cannot be assessed count as credible.
/// - p_i is the softmax over the sub-cluster prototypes at the same temperature; a query that is itself a
///   gallery item is taken out of its own prototype, and a sub-cluster of it alone is left out.
///
/// The result is parallel to `queries`: `None` for a query without a relevant gallery item left, without
/// both embeddings or not in the sample, and for every query of a probe that names no identities. Relevant are here the items of the query's
/// identity, also where retrieval follows judgements: the objectives that are read are those of a classifier.
///
/// # Panics
/// When the dimensions differ: new->old does not exist then, and the caller checks.
pub fn consensus(
    probe: &Probe,
    structure: &Structure,
    [old, new]: [&Embeddings; 2],
    queries: &[usize],
    junk: &(dyn Fn(usize) -> Vec<usize> + Sync),
    totals: Option<&LogTotals>,
    options: &StructureOptions,
) -> Vec<Option<Consensus>> {
    assert_eq!(old.dim(), new.dim(), "new->old needs one dimension");
    if !probe.names_identities() {
        return vec![None; queries.len()];
    }
    let tau = options.temperature;
    let (unit_old, unit_new);
    let [old, new] = match options.similarity {
        Similarity::Cosine => [old, new],
        Similarity::Ip | Similarity::L2 => {
            (unit_old, unit_new) = (unit(old), unit(new));
            [&unit_old, &unit_new]
        }
    };
    let gallery = embedded(probe.gallery(), old);
    let has_both = |&q: &usize| old.has(queries[q]) && new.has(queries[q]);
    let sampled: Vec<usize> = sample(queries.len(), options)
        .into_iter()
        .filter(has_both)
        .collect();
    let asked: Vec<usize> = sampled.iter().map(|&q| queries[q]).collect();
    let rows_of_label = probe.positions_of_labels(&asked, &gallery);
    let owns = Owns::new(structure, old, &asked);
    let clusters: Vec<usize> = (0..structure.subclusters.len()).collect();
    let of_gallery = Gallery {
        embeddings: old,
        items: &gallery,
    };
    let of_prototypes = Gallery {
        embeddings: &structure.centroids,
        items: &clusters,
    };
    let neighbourhoods: Vec<Neighbourhood> = asked
        .par_iter()
        .map(|&query| {
            let labels = probe.items[query].labels.iter();
            let same = labels.flat_map(|&label| rows_of_label[&label].iter().copied());
            Neighbourhood::of(query, same.collect(), structure, &gallery, &junk(query))
        })
        .collect();
    let totals = totals.map_or_else(
        || log_totals([old, new], &asked, of_gallery, &neighbourhoods, tau),
        |totals| totals.of(&sampled),
    );

    let one = |index: usize, [of_old, of_new]: [&mut [f32]; 2]| {
        let query = asked[index];
        let neighbourhood = &neighbourhoods[index];
        let cosines_of = |embeddings, rows: &[u32]| {
            score_some(embeddings, query, of_gallery, rows, Similarity::Cosine)
        };
        let weights = neighbourhood.weights(&cosines_of(old, &neighbourhood.weighted))?;
        let read = |side: usize, embeddings| {
            let relevant = cosines_of(embeddings, &neighbourhood.relevant);
            let weighted = cosines_of(embeddings, &neighbourhood.weighted);
            read(&relevant, &weighted, &weights, totals[side][index], tau)
        };
        let (mass_old, nccl_old) = read(0, old);
        let (mass_new, nccl_new) = read(1, new);
        let widened = |row: &[f32]| row.iter().copied().map(f64::from).collect();
        let mut old_scores: Vec<f64> = widened(of_old);
        let mut new_scores: Vec<f64> = widened(of_new);
        let old_row = Reader::new(old).row(query).clone();
        match owns.of(query, structure, &old_row) {
            Own::Apart => {}
            Own::Alone(cluster) => {
                // A probability of exactly 0 on both sides.
                old_scores[cluster] = f64::NEG_INFINITY;
                new_scores[cluster] = f64::NEG_INFINITY;
            }
            Own::Among(cluster, rest) => {
                // In f32 as the other prototypes, so that equal ones tie.
                let rest: Vec<f32> = rest.iter().map(|&value| value as f32).collect();
                let score = |embeddings: &Embeddings| {
                    let row = embeddings.get(query).expect("it was asked for that");
                    f64::from(score_pair(&row, &rest, Similarity::Cosine))
                };
                old_scores[cluster] = score(old);
                new_scores[cluster] = score(new);
            }
        }
        let nearest = [&old_scores, &new_scores].map(|scores| arg_max(scores));
        let [old_identity, new_identity] = nearest.map(|best| structure.subclusters[best].identity);
        let found = Consensus {
            mass_old,
            mass_new,
            nccl_old,
            nccl_new,
            kl: divergence(&old_scores, &new_scores, tau),
            nearest_old: nearest[0] as u32,
            nearest_new: nearest[1] as u32,
            argmax_kept: old_identity == new_identity,
        };
        Some((query, found))
    };
    let measured = map_rows([old, new], &asked, of_prototypes, Similarity::Cosine, one);
    let measured = measured.expect("unit rows do not overflow");
    let measured: BTreeMap<usize, Consensus> = measured.into_iter().flatten().collect();
    queries
        .iter()
        .map(|query| measured.get(query).copied())
        .collect()
}

/// The gallery as one query sees it; indices are rows of the gallery.
struct Neighbourhood {
    /// The query itself and junk, rising.
    absent: Vec<u32>,
    /// Items that share a label with the query, rising.
    relevant: Vec<u32>,
    /// The relevant that bear weight.
    weighted: Vec<u32>,
}

impl Neighbourhood {
    /// `same` are the rows of the query's labels, `junk` the items that it must not find.
    fn of(
        query: usize,
        mut same: Vec<u32>,
        structure: &Structure,
        gallery: &[usize],
        junk: &[usize],
    ) -> Self {
        let out = junk.iter().chain([&query]);
        let mut absent: Vec<u32> = out
            .filter_map(|item| gallery.binary_search(item).ok())
            .map(|row| row as u32)
            .collect();
        absent.sort_unstable();
        absent.dedup();
        let is_left = |row: &u32| absent.binary_search(row).is_err();
        same.sort_unstable();
        same.dedup();
        let relevant: Vec<u32> = same.into_iter().filter(is_left).collect();
        let is_credible = |row: &u32| structure.is_credible(gallery[*row as usize]);
        let mut weighted: Vec<u32> = relevant.iter().copied().filter(is_credible).collect();
        if weighted.is_empty() {
            weighted.clone_from(&relevant);
        }
        Self {
            absent,
            relevant,
            weighted,
        }
    }

    /// w_ij of the weighted items from their old cosines; `None` without relevant items.
    fn weights(&self, old_cosines: &[f32]) -> Option<Vec<f64>> {
        if self.weighted.is_empty() {
            return None;
        }
        let raw = |&cosine: &f32| (1.0 + f64::from(cosine)).max(0.0) / 2.0;
        let mut weights: Vec<f64> = old_cosines.iter().map(raw).collect();
        let total: f64 = weights.iter().sum();
        if total > 0.0 {
            weights.iter_mut().for_each(|w| *w /= total);
        } else {
            // All of them opposite to the query: no affinity tells them apart.
            weights.fill(1.0 / self.weighted.len() as f64);
        }
        Some(weights)
    }
}

/// (m_i, L_i) from the cosines of the relevant and of the weighted items and the logarithm of what all items sum up to.
fn read(
    relevant: &[f32],
    weighted: &[f32],
    weights: &[f64],
    log_total: f64,
    tau: f64,
) -> (f64, f64) {
    let relevant: Vec<f64> = relevant.iter().copied().map(f64::from).collect();
    let mass = (log_sum_exp(&relevant, tau) - log_total).exp().min(1.0);
    let log_p = |&cosine: &f32| f64::from(cosine) / tau - log_total;
    let nccl = weighted
        .iter()
        .zip(weights)
        .map(|(cosine, w)| w * log_p(cosine));
    (mass, nccl.sum())
}

/// What the cosines of old and new queries to the old gallery sum up to, where a pass that ranks them hears it anyway.
pub struct LogTotals {
    /// Of the old and of the new model: one a query in the sample, nothing for the others.
    of_models: [Vec<Option<TotalVisitor<'static>>>; 2],
}

impl LogTotals {
    /// Nothing heard yet. `None` where scores are no cosines.
    pub fn new(n_queries: usize, options: &StructureOptions) -> Option<Self> {
        if options.similarity != Similarity::Cosine {
            return None;
        }
        let mut of_model: Vec<Option<TotalVisitor<'static>>> = vec![None; n_queries];
        for q in sample(n_queries, options) {
            // The pass masks what is absent.
            of_model[q] = Some(TotalVisitor {
                absent: &[],
                total: LogSumExp::new(options.temperature),
            });
        }
        Some(Self {
            of_models: [of_model.clone(), of_model],
        })
    }

    /// Who must hear the cosines of the old and of the new queries to the whole old gallery, junk masked by NaN.
    pub fn visitors(&mut self) -> [Vec<Option<&mut (dyn Visitor<Shared = ()> + '_)>>; 2] {
        self.of_models.each_mut().map(|of_model| {
            let visitors = of_model.iter_mut();
            visitors
                .map(|visitor| visitor.as_mut().map(|one| one as _))
                .collect()
        })
    }

    fn of(&self, sampled: &[usize]) -> [Vec<f64>; 2] {
        let value = |visitor: &Option<TotalVisitor<'_>>| {
            visitor
                .as_ref()
                .map_or(f64::NEG_INFINITY, |one| one.total.value())
        };
        self.of_models
            .each_ref()
            .map(|of_model| sampled.iter().map(|&q| value(&of_model[q])).collect())
    }
}

/// ln of the sum of e^(cosine / tau) over each query's gallery, for each model's queries, in one pass.
fn log_totals(
    models: [&Embeddings; 2],
    queries: &[usize],
    gallery: Gallery<'_>,
    neighbourhoods: &[Neighbourhood],
    tau: f64,
) -> [Vec<f64>; 2] {
    let mut scans = models.map(|embeddings| QueryScan {
        embeddings,
        items: queries,
        visitors: neighbourhoods
            .iter()
            .map(|neighbourhood| TotalVisitor {
                absent: &neighbourhood.absent,
                total: LogSumExp::new(tau),
            })
            .collect(),
    });
    scan(gallery, Similarity::Cosine, &mut scans, || ()).expect("unit rows do not overflow");
    scans.map(|scan| {
        scan.visitors
            .iter()
            .map(|visitor| visitor.total.value())
            .collect()
    })
}

/// Sums up one query's gallery.
#[derive(Clone)]
struct TotalVisitor<'a> {
    /// Rows that have not passed and do not count.
    absent: &'a [u32],
    total: LogSumExp,
}

impl Visitor for TotalVisitor<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        f32::NEG_INFINITY
    }

    fn wants_all(&self) -> bool {
        true
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        while let Some((&next, rest)) = self.absent.split_first()
            && (next as usize) < first + row.len()
        {
            // What has no cosine of its own has no probability.
            row[next as usize - first] = f32::NEG_INFINITY;
            self.absent = rest;
        }
        self.total.add(row);
    }
}

/// A query's part in the sub-cluster prototypes.
enum Own {
    /// It is not a gallery item.
    Apart,
    /// It is the only item of this sub-cluster.
    Alone(usize),
    /// The direction of this sub-cluster without it.
    Among(usize, Array1<f64>),
}

/// Where queries stand to the sub-clusters that they are in.
struct Owns(Sums);

impl Owns {
    /// For these queries.
    fn new(structure: &Structure, old: &Embeddings, queries: &[usize]) -> Self {
        let own = queries
            .iter()
            .filter_map(|&query| structure.subcluster_of(query));
        let own = own.map(|subcluster| subcluster as usize).collect();
        Self(Sums::new(old, own, |subcluster| {
            let items = structure.subclusters[subcluster].items.iter();
            items.map(|&item| item as usize)
        }))
    }

    /// `row` is the query's old unit row.
    fn of(&self, query: usize, structure: &Structure, row: &Array1<f64>) -> Own {
        let Some(cluster) = structure.subcluster_of(query) else {
            return Own::Apart;
        };
        let cluster = cluster as usize;
        let items = &structure.subclusters[cluster].items;
        match items.binary_search(&(query as u32)) {
            Err(_) => Own::Apart,
            Ok(_) if items.len() == 1 => Own::Alone(cluster),
            Ok(_) => Own::Among(cluster, self.0.without(cluster, row)),
        }
    }
}

/// KL(p || q) in nats of two softmaxes of scores at one temperature; entries that are -inf in both are
/// left out.
fn divergence(p: &[f64], q: &[f64], tau: f64) -> f64 {
    let apart = |(p, q): (&f64, &f64)| if p.is_finite() { p - q } else { 0.0 };
    let differences: Vec<f64> = p.iter().zip(q).map(apart).collect();
    let (total_p, mean) = expectation(p, &differences, tau);
    let kl = mean / tau - total_p + log_sum_exp(q, tau);
    // Rounding may leave a divergence of 0 slightly negative.
    kl.max(0.0)
}

/// Index of the largest score, the first of equals.
fn arg_max(scores: &[f64]) -> usize {
    let best = |a: usize, b: usize| if scores[b] > scores[a] { b } else { a };
    (0..scores.len())
        .reduce(best)
        .expect("a query with a relevant item has a prototype")
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::SeedableRng;

    use super::super::estimate;
    use super::super::testing::probe_of;
    use super::*;
    use crate::domain::Role;

    const NO_JUNK: &(dyn Fn(usize) -> Vec<usize> + Sync) = &|_| Vec::new();

    /// Two identities on the axes, two gallery items each, and a query of identity 0 (item 4).
    fn setting() -> (Probe, Embeddings, Embeddings) {
        let mut probe = probe_of(&[0, 0, 1, 1, 0]);
        probe.items[4].role = Role::Query;
        let old = array![
            [1.0_f32, 0.0],
            [0.6, 0.8],
            [0.0, 1.0],
            [0.0, 1.0],
            [1.0, 0.0]
        ];
        let mut new = old.clone();
        new.row_mut(4).assign(&array![0.0, 1.0]);
        let unit = |rows| Embeddings::dense(rows, true).unwrap();
        (probe, unit(old), unit(new))
    }

    fn options() -> StructureOptions {
        StructureOptions {
            temperature: 0.5,
            ..StructureOptions::default()
        }
    }

    #[test]
    fn a_hand_worked_query() {
        let (probe, old, new) = setting();
        let mut structure = estimate(&probe, &old, &options());
        structure.cutoff = 0.0;
        let found = consensus(
            &probe,
            &structure,
            [&old, &new],
            &[4],
            NO_JUNK,
            None,
            &options(),
        );
        let found = found[0].unwrap();
        // Old query (1, 0): cosines 1, .6, 0, 0; at temperature .5: 2, 1.2, 0, 0.
        let total = (2.0_f64.exp() + 1.2_f64.exp() + 2.0).ln();
        let mass = (2.0_f64.exp() + 1.2_f64.exp()) / total.exp();
        assert!((found.mass_old - mass).abs() < 1e-6);
        // Weights (1 + 1)/2 = 1 and .8, over 1.8.
        let nccl = (1.0 * (2.0 - total) + 0.8 * (1.2 - total)) / 1.8;
        assert!((found.nccl_old - nccl).abs() < 1e-6);
        // New query (0, 1): cosines 0, .8, 1, 1.
        let total = (1.0 + 1.6_f64.exp() + 2.0 * 2.0_f64.exp()).ln();
        assert!((found.mass_new - (1.0 + 1.6_f64.exp()) / total.exp()).abs() < 1e-6);
        let nccl = (1.0 * (0.0 - total) + 0.8 * (1.6 - total)) / 1.8;
        assert!((found.nccl_new - nccl).abs() < 1e-6);
        // Prototypes: the half angle (sqrt .8, sqrt .2), and (0, 1).
        let p = 1.0 / (1.0 + (-0.8_f64.sqrt() / 0.5).exp());
        let q = 1.0 / (1.0 + ((1.0 - 0.2_f64.sqrt()) / 0.5).exp());
        let kl = p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        assert!((found.kl - kl).abs() < 1e-6);
        assert!(!found.argmax_kept);
    }

    /// All prototypes are equal, the query's own without it too: the first of them is the nearest, for old and new alike.
    #[test]
    fn equal_prototypes_tie_the_own_one_too() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for _ in 0..20 {
            let row = super::super::testing::gaussian_unit(5, &mut rng);
            let old = ndarray::Array2::from_shape_fn((9, 5), |(_, d)| row[d] as f32);
            let turned = super::super::testing::gaussian_unit(5, &mut rng);
            let new = ndarray::Array2::from_shape_fn((9, 5), |(_, d)| turned[d] as f32);
            let [old, new] = [old, new].map(|rows| Embeddings::dense(rows, true).unwrap());
            let probe = probe_of(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
            let structure = estimate(&probe, &old, &options());
            let queries: Vec<usize> = (0..9).collect();
            let models = [&old, &new];
            let found = consensus(
                &probe,
                &structure,
                models,
                &queries,
                NO_JUNK,
                None,
                &options(),
            );
            for found in found.into_iter().map(Option::unwrap) {
                assert!(found.argmax_kept);
                assert_eq!((found.nearest_old, found.nearest_new), (0, 0));
            }
        }
    }

    #[test]
    fn the_same_embeddings_agree_with_themselves() {
        let (probe, old, _) = setting();
        let structure = estimate(&probe, &old, &options());
        let queries: Vec<usize> = (0..5).collect();
        for found in consensus(
            &probe,
            &structure,
            [&old, &old],
            &queries,
            NO_JUNK,
            None,
            &options(),
        ) {
            let found = found.unwrap();
            assert_eq!(found.mass_old, found.mass_new);
            assert_eq!(found.nccl_old, found.nccl_new);
            assert_eq!(found.kl, 0.0);
            assert!(found.argmax_kept);
        }
    }

    #[test]
    fn a_gallery_query_is_no_neighbour_and_no_prototype_of_itself() {
        let (probe, old, new) = setting();
        let structure = estimate(&probe, &old, &options());
        let found = consensus(
            &probe,
            &structure,
            [&old, &new],
            &[0],
            NO_JUNK,
            None,
            &options(),
        );
        // Item 0 without itself: cosines .6, 0, 0.
        let mass = 1.2_f64.exp() / (1.2_f64.exp() + 2.0);
        assert!((found[0].unwrap().mass_old - mass).abs() < 1e-6);
        // Its prototype is item 1 alone: cosine .6 against 0. New is the same item here.
        assert_eq!(found[0].unwrap().kl, 0.0);
        let owns = Owns::new(&structure, &old, &[0]);
        match owns.of(0, &structure, Reader::new(&old).row(0)) {
            Own::Among(0, rest) => assert!((rest[0] - 0.6).abs() < 1e-6),
            _ => panic!("item 0 is one of two in sub-cluster 0"),
        }
    }

    #[test]
    fn junk_is_left_out_and_nothing_relevant_means_none() {
        let (probe, old, new) = setting();
        let structure = estimate(&probe, &old, &options());
        let first = |_: usize| vec![0];
        let found = consensus(
            &probe,
            &structure,
            [&old, &new],
            &[4],
            &first,
            None,
            &options(),
        );
        let mass = 1.2_f64.exp() / (1.2_f64.exp() + 2.0);
        assert!((found[0].unwrap().mass_old - mass).abs() < 1e-6);
        let own = |_: usize| vec![0, 1];
        let found = consensus(
            &probe,
            &structure,
            [&old, &new],
            &[4, 2],
            &own,
            None,
            &options(),
        );
        assert_eq!(found[0], None);
        assert!(found[1].is_some(), "the result is parallel to the queries");
    }

    #[test]
    fn queries_without_an_embedding_are_none_and_keep_their_place() {
        let (probe, old, _) = setting();
        let structure = estimate(&probe, &old, &options());
        let rows = array![[0.0_f32, 1.0], [1.0, 0.0]];
        let map = vec![None, None, Some(0), None, Some(1)];
        let new = Embeddings::new(rows, map, true).unwrap();
        let found = consensus(
            &probe,
            &structure,
            [&old, &new],
            &[0, 4, 2],
            NO_JUNK,
            None,
            &options(),
        );
        assert_eq!(found[0], None);
        assert!(found[1].unwrap().argmax_kept);
        assert!((found[2].unwrap().mass_old - found[2].unwrap().mass_new).abs() < 1e-12);
    }

    #[test]
    fn only_credible_items_bear_weight_unless_none_is() {
        let (probe, old, new) = setting();
        let mut structure = estimate(&probe, &old, &options());
        let found = &structure.credibility;
        let score = |item: usize| {
            let mut score = *found.get(item).unwrap();
            score.combined = [0.9, 0.1].get(item).copied().or(score.combined);
            score
        };
        let items = found.items().map(|item| item as u32).collect();
        let scores = found.items().map(score).collect();
        structure.credibility = super::super::Assessed::new(items, scores);
        let nccl = |structure: &Structure| {
            consensus(
                &probe,
                structure,
                [&old, &new],
                &[4],
                NO_JUNK,
                None,
                &options(),
            )[0]
            .unwrap()
            .nccl_old
        };
        let total = (2.0_f64.exp() + 1.2_f64.exp() + 2.0).ln();
        structure.cutoff = 0.5;
        assert!((nccl(&structure) - (2.0 - total)).abs() < 1e-6);
        structure.cutoff = 1.0;
        let all = (1.0 * (2.0 - total) + 0.8 * (1.2 - total)) / 1.8;
        assert!((nccl(&structure) - all).abs() < 1e-6);
    }

    #[test]
    fn an_item_alone_in_its_subcluster_leaves_it_out() {
        assert_eq!(arg_max(&[f64::NEG_INFINITY, 0.1, 0.1]), 1);
        let kl = divergence(
            &[f64::NEG_INFINITY, 0.2, 0.2],
            &[f64::NEG_INFINITY, 0.7, 0.7],
            0.05,
        );
        assert_eq!(kl, 0.0);
    }

    #[test]
    #[should_panic(expected = "one dimension")]
    fn other_dimensions_are_the_callers_to_refuse() {
        let (probe, old, _) = setting();
        let structure = estimate(&probe, &old, &options());
        let new = Embeddings::dense(ndarray::Array2::from_elem((5, 3), 1.0), true).unwrap();
        consensus(
            &probe,
            &structure,
            [&old, &new],
            &[4],
            NO_JUNK,
            None,
            &options(),
        );
    }
}
