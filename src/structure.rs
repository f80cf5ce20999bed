//! Stage 3: the old space's structure (sections 4 and 5 of `docs/METRICS.md`).
//!
//! After NCCL (Wu et al., AAAI 2022) an identity may be several sub-clusters, and some old embeddings are
//! not credible. Both are estimated from the old embeddings of the gallery alone, never from an outcome.
//! [`consensus`] then reads NCCL's two training objectives as measurements of the new queries. Junk and
//! camera rules are the ranking's and do not apply to [`estimate`]; an item never counts for itself.

use std::borrow::Cow;

use ndarray::{Array1, Array2, ArrayView1};
use rand::SeedableRng;

use crate::config::{CredibilityCut, Similarity};
use crate::domain::{Embeddings, Probe};
use crate::topk::Gallery;

mod agreement;
mod consensus;
mod credibility;
mod estimate;
mod groups;
mod k_means;
mod linkage;
mod map;
mod nearest;
mod one_cluster;
mod prototypes;
mod pseudo;
mod softmax;
mod subclusters;

pub use agreement::adjusted_rand_index;
pub use consensus::{Consensus, LogTotals, consensus};
pub use credibility::{Assessed, Credibility};
pub use estimate::estimate;
pub use map::{SpaceMap, map};
use nearest::nearest;
pub use pseudo::{PseudoIdentities, pseudo_identities, stand_in};
pub use subclusters::{Partition, partition};

/// How the structure is estimated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StructureOptions {
    /// Temperature of the consensus softmaxes, > 0.
    pub temperature: f64,
    /// Seed of the clustering, its null draws and its bootstrap.
    pub seed: u64,
    /// k of the consensus credibility, at least 1.
    pub neighbours: usize,
    /// How the audit scores a pair; for cosine the embeddings are unit vectors already.
    pub similarity: Similarity,
    /// Which gallery items are called not credible.
    pub cut: CredibilityCut,
    /// Gallery items whose credibility is assessed, and queries whose consensus is measured, at most; all without it.
    pub sample: Option<usize>,
}

impl Default for StructureOptions {
    /// Temperature .05 (`docs/METRICS.md`, section 4), 10 neighbours, cosine, no sample.
    fn default() -> Self {
        Self {
            temperature: 0.05,
            seed: 0,
            neighbours: 10,
            similarity: Similarity::Cosine,
            cut: CredibilityCut::Combined,
            sample: None,
        }
    }
}

/// A part of one identity's old gallery embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct SubCluster {
    /// Index into [`Probe::identities`].
    pub identity: u32,
    /// 0-based within the identity, by first item.
    pub index_in_identity: u32,
    /// Its gallery items, ascending.
    pub items: Box<[u32]>,
    /// Mean of 1 - cosine(item, centroid), in [0, 2].
    pub radius: f64,
}

/// Stands for no sub-cluster: of tens of millions of items each byte counts.
const NO_SUBCLUSTER: u32 = u32::MAX;

/// What the old space looks like.
#[derive(Debug, Clone)]
pub struct Structure {
    /// All sub-clusters, by identity, then by their first item.
    pub subclusters: Vec<SubCluster>,
    /// Their centroids, unit, one a sub-cluster: the normalised sums of their items' unit embeddings.
    pub centroids: Embeddings,
    /// Sub-cluster of each probe item; see [`Structure::subcluster_of`].
    assignment: Vec<u32>,
    /// Credibility of the gallery items that were assessed.
    pub credibility: Assessed,
    /// Temperature of the credibility posterior.
    pub tau: f64,
    /// Which score the cut is made on.
    pub cut: CredibilityCut,
    /// Items whose score is below it are called not credible.
    pub cutoff: f64,
    /// Bootstrap adjusted Rand index, the mean over the identities with more than one sub-cluster.
    pub stability: Option<f64>,
}

impl Structure {
    /// For each identity of the probe, whether it has more than one sub-cluster.
    pub fn split_identities(&self, probe: &Probe) -> Vec<bool> {
        let mut is_split = vec![false; probe.identities.len()];
        for subcluster in &self.subclusters {
            is_split[subcluster.identity as usize] |= subcluster.index_in_identity > 0;
        }
        is_split
    }

    /// Sub-cluster of a probe item: gallery items by the clustering, other queries the nearest one of their own identity by
    /// their old embedding. `None` for junk, for items without an old embedding and for identities without gallery items.
    pub fn subcluster_of(&self, item: usize) -> Option<u32> {
        let subcluster = self.assignment[item];
        (subcluster != NO_SUBCLUSTER).then_some(subcluster)
    }

    /// The sub-cluster's name: the identity's, with `/1`, `/2` where it is split ([`Structure::split_identities`]).
    pub fn subcluster_name(&self, index: u32, probe: &Probe, is_split: &[bool]) -> String {
        let subcluster = &self.subclusters[index as usize];
        let identity = &probe.identities[subcluster.identity as usize];
        if is_split[subcluster.identity as usize] {
            format!("{identity}/{}", subcluster.index_in_identity + 1)
        } else {
            identity.clone()
        }
    }

    /// For each of the chosen sub-clusters the one of another identity with the highest centroid cosine, of equal ones the
    /// first, and that cosine. Costs chosen x sub-clusters x dim.
    pub fn nearest_rivals(&self, chosen: &[usize]) -> Vec<Option<(u32, f64)>> {
        let all: Vec<usize> = (0..self.subclusters.len()).collect();
        let gallery = Gallery {
            embeddings: &self.centroids,
            items: &all,
        };
        let identity = |index: usize| self.subclusters[index].identity;
        let is_own = |i: usize, other: usize| identity(chosen[i]) == identity(other);
        let wanted = vec![1; chosen.len()];
        nearest(&self.centroids, chosen, gallery, &wanted, is_own)
            .iter()
            .map(|rivals| rivals.first().map(|&(i, c)| (i as u32, f64::from(c))))
            .collect()
    }

    /// The structure of a probe without identities.
    fn none(n_items: usize) -> Self {
        Self {
            subclusters: Vec::new(),
            centroids: dense(0, 1, Vec::new()),
            assignment: vec![NO_SUBCLUSTER; n_items],
            credibility: Assessed::default(),
            // As where nothing can be fitted.
            tau: 1.0,
            cut: CredibilityCut::Combined,
            cutoff: credibility::CUTOFF,
            stability: None,
        }
    }

    /// The score that the cut is made on, in [0, 1]; `None` for an item that was not, or cannot be, assessed.
    pub fn cut_score(&self, item: usize) -> Option<f64> {
        let scores = self.credibility.get(item)?;
        match self.cut {
            CredibilityCut::Combined => scores.combined,
            CredibilityCut::Paper => scores.entropy,
        }
    }

    /// Whether the item is credible or was not assessed.
    pub fn is_credible(&self, item: usize) -> bool {
        self.cut_score(item)
            .is_none_or(|score| score >= self.cutoff)
    }
}

/// Stream of the sample; the clustering's streams are below.
const SAMPLE_STREAM: u64 = 1 << 40;

/// The seed's sample of 0..n, rising; all without a sample or with a larger one.
fn sample(n: usize, options: &StructureOptions) -> Vec<usize> {
    draw(n, options.sample.unwrap_or(n), options.seed, SAMPLE_STREAM)
}

/// `most` of 0..n, rising, drawn by the seed; all where there are no more.
fn draw(n: usize, most: usize, seed: u64, stream: u64) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut chosen = rand::seq::index::sample(&mut rng, n, most).into_vec();
    chosen.sort_unstable();
    chosen
}

/// The items that have an embedding.
fn embedded(items: Vec<usize>, embeddings: &Embeddings) -> Vec<usize> {
    let has = |&item: &usize| embeddings.has(item);
    items.into_iter().filter(has).collect()
}

/// Unit rows of the items' embeddings in f64, shape (items, dim). Every item must have one.
fn unit_rows(embeddings: &Embeddings, items: &[usize]) -> Array2<f64> {
    let mut rows = Array2::zeros((items.len(), embeddings.dim()));
    for (mut row, &item) in rows.rows_mut().into_iter().zip(items) {
        let x = embeddings.get(item).expect("only embedded items are asked");
        row.assign(&direction(ArrayView1::from(&*x).mapv(f64::from)));
    }
    rows
}

/// The vector over its length; a zero vector (no direction, possible with `ip` and `l2`) stays zero.
fn direction(mut x: Array1<f64>) -> Array1<f64> {
    normalise(&mut x);
    x
}

/// See [`direction`].
fn normalise(x: &mut Array1<f64>) {
    let length = x.dot(x).sqrt();
    if length > 0.0 {
        *x /= length;
    }
}

/// The embeddings as cosines are taken of them: those of a cosine audit are unit already.
fn unit_embeddings(embeddings: &Embeddings, similarity: Similarity) -> Cow<'_, Embeddings> {
    match similarity {
        Similarity::Cosine => Cow::Borrowed(embeddings),
        Similarity::Ip | Similarity::L2 => Cow::Owned(unit(embeddings)),
    }
}

/// The embeddings with unit rows; a zero vector stays zero.
fn unit(embeddings: &Embeddings) -> Embeddings {
    let items: Vec<usize> = embedded((0..embeddings.n_items()).collect(), embeddings);
    let mut row_of_item = vec![None; embeddings.n_items()];
    for (row, &item) in items.iter().enumerate() {
        row_of_item[item] = Some(row as u32);
    }
    let rows = unit_rows(embeddings, &items).mapv(|v| v as f32);
    Embeddings::new(rows, row_of_item, false).expect("a unit row is finite")
}

/// Rows as embeddings, used as they are; all must be finite.
fn dense(n: usize, dim: usize, values: Vec<f32>) -> Embeddings {
    let rows = Array2::from_shape_vec((n, dim), values).expect("n rows of dim values");
    Embeddings::dense(rows, false).expect("directions are finite")
}

/// Probes and draws for the tests of this stage.
#[cfg(test)]
pub(crate) mod testing {
    use ndarray::Array1;
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;

    use super::direction;
    use crate::domain::{Item, Modality, Probe, Role};

    /// A random unit vector.
    pub(super) fn gaussian_unit(dim: usize, rng: &mut ChaCha8Rng) -> Array1<f64> {
        // Twelve uniforms make a good enough normal for a direction.
        let normal = || (0..12).map(|_| rng.r#gen::<f64>()).sum::<f64>() - 6.0;
        direction(Array1::from_shape_simple_fn(dim, normal))
    }

    /// A probe whose item i is query and gallery with identity `identities[i]`.
    pub(crate) fn probe_of(identities: &[u32]) -> Probe {
        let item =
            |(i, &identity): (usize, &u32)| Item::new(format!("{i}"), Some(identity), Role::Both);
        let names = 0..=identities.iter().copied().max().unwrap_or(0);
        let names = names.map(|identity| format!("identity {identity}"));
        Probe::new(
            identities.iter().enumerate().map(item).collect(),
            names.collect(),
            Modality::Stored,
        )
    }

    /// Area under the ROC curve of `score` for `positive`, ties one half.
    pub(super) fn auroc(score: &[f64], positive: &[bool]) -> f64 {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (a, _) in score.iter().zip(positive).filter(|&(_, &p)| p) {
            for (b, _) in score.iter().zip(positive).filter(|&(_, &p)| !p) {
                pairs += 1.0;
                wins += if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                };
            }
        }
        wins / pairs
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::testing::{gaussian_unit, probe_of};
    use super::*;
    use crate::domain::{OptionalIndex, Role};

    #[test]
    fn a_sample_says_of_its_items_what_all_say() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let identities: Vec<u32> = (0..60).map(|i| i / 6).collect();
        let rows: Vec<f32> = (0..60)
            .flat_map(|_| gaussian_unit(16, &mut rng))
            .map(|v| v as f32)
            .collect();
        let (probe, old) = (probe_of(&identities), dense(60, 16, rows));
        let options = StructureOptions::default();
        let all = estimate(&probe, &old, &options);
        let sampled = StructureOptions {
            sample: Some(20),
            ..options
        };
        let some = estimate(&probe, &old, &sampled);
        assert_eq!((&some.subclusters, some.tau), (&all.subclusters, all.tau));
        let of = |found: &Structure, item| found.credibility.get(item).copied();
        let mut sample = some.credibility.items();
        assert_eq!(sample.len(), 20);
        assert!(sample.all(|item| of(&some, item) == of(&all, item)));
        // What was not assessed is not held against anyone.
        assert!((0..60).all(|item| some.credibility.get(item).is_some() || some.is_credible(item)));
        let queries: Vec<usize> = (0..60).collect();
        let measure = |options| {
            consensus(
                &probe,
                &all,
                [&old, &old],
                &queries,
                &|_| vec![],
                None,
                options,
            )
        };
        let (whole, part) = (measure(&options), measure(&sampled));
        assert_eq!(part.iter().flatten().count(), 20);
        let kept = part.iter().zip(&whole).filter(|(part, _)| part.is_some());
        assert!(kept.into_iter().all(|(part, whole)| part == whole));
    }

    #[test]
    fn inner_products_are_normalised_first() {
        let rows = array![[2.0_f32, 0.0], [0.0, 3.0], [1.2, 1.6], [0.0, 0.0]];
        let unit = unit(&Embeddings::dense(rows, false).unwrap());
        let row = |item| unit.get(item).unwrap().to_vec();
        assert_eq!((row(0), row(1)), (vec![1.0, 0.0], vec![0.0, 1.0]));
        assert_eq!((row(2), row(3)), (vec![0.6, 0.8], vec![0.0, 0.0]));
    }

    #[test]
    fn subclusters_by_hand() {
        let mut probe = probe_of(&[1, 0, 1, 0, 1]);
        probe.items[4].role = Role::Query;
        let rows = array![
            [1.0_f32, 0.0],
            [0.0, 2.0],
            [0.6, 0.8],
            [0.0, 1.0],
            [0.9, 0.1]
        ];
        let old = Embeddings::dense(rows, false).unwrap();
        let found = estimate(&probe, &old, &StructureOptions::default());
        assert_eq!(found.subclusters.len(), 2);
        let (a, b) = (&found.subclusters[0], &found.subclusters[1]);
        assert_eq!((a.identity, &a.items[..]), (0, &[1, 3][..]));
        assert_eq!((b.identity, &b.items[..]), (1, &[0, 2][..]));
        // Not unit rows: normalised here.
        assert_eq!(&*found.centroids.get(0).unwrap(), &[0.0, 1.0]);
        assert!(a.radius.abs() < 1e-12);
        // (1, 0) and (.6, .8) halve an angle of cosine .6: cosine sqrt(.8) to the centroid.
        assert!((b.radius - (1.0 - 0.8_f64.sqrt())).abs() < 1e-6);
        let rivals = found.nearest_rivals(&[1, 0]);
        assert_eq!(rivals[0].unwrap().0, 0);
        let (rival, cosine) = rivals[1].unwrap();
        assert_eq!(rival, 1);
        assert!((cosine - 0.2_f64.sqrt()).abs() < 1e-6);
        assert_eq!(found.assignment, [1, 0, 1, 0, 1]);
        assert_eq!(found.credibility.get(4), None);
        assert!(found.credibility.get(0).is_some());
        assert_eq!(found.stability, None);
    }

    #[test]
    fn what_has_no_old_embedding_or_no_identity_is_left_out() {
        let mut probe = probe_of(&[0, 0, 0, 1]);
        probe.items[2].identity = OptionalIndex::NONE;
        probe.items[2].labels = crate::domain::Labels::default();
        probe.items[3].role = Role::Query;
        let rows = array![[1.0_f32, 0.0], [0.0, 1.0], [1.0, 1.0]];
        let map = vec![Some(0), None, Some(1), Some(2)];
        let old = Embeddings::new(rows, map, true).unwrap();
        let found = estimate(&probe, &old, &StructureOptions::default());
        let assigned = (0..4).map(|item| found.subcluster_of(item));
        assert!(assigned.eq([Some(0), None, None, None]));
        assert_eq!(found.credibility.get(1), None);
        assert_eq!(found.credibility.get(0), Some(&Credibility::default()));
        assert!(found.is_credible(0), "not assessed counts as credible");
        assert_eq!(found.nearest_rivals(&[0]), [None]);
    }

    #[test]
    fn a_collapsed_space_is_one_cluster_an_identity_and_nothing_is_nan() {
        let identities: Vec<u32> = (0..200).map(|i| i / 20).collect();
        let probe = probe_of(&identities);
        let old = Embeddings::dense(
            Array2::from_shape_fn((200, 8), |(_, d)| f32::from(u8::from(d == 0))),
            true,
        )
        .unwrap();
        let options = StructureOptions::default();
        let found = estimate(&probe, &old, &options);
        assert_eq!((found.subclusters.len(), found.stability), (10, None));
        assert!(found.subclusters.iter().all(|s| s.radius < 1e-6));
        assert_eq!(
            found.nearest_rivals(&[0, 3]),
            [Some((1, 1.0)), Some((0, 1.0))]
        );
        // Every identity is as near as every other: nothing can be believed.
        assert!((0..200).all(|item| found.cut_score(item).unwrap() < 0.6));
        let queries: Vec<usize> = (0..200).collect();
        let said = consensus(
            &probe,
            &found,
            [&old, &old],
            &queries,
            &|_| vec![],
            None,
            &options,
        );
        for found in said.iter().map(|found| found.unwrap()) {
            // 19 others of the own identity among 199.
            assert!((found.mass_old - 19.0 / 199.0).abs() < 1e-9);
            assert!(found.kl < 1e-9 && found.mass_new == found.mass_old);
        }
    }

    #[test]
    fn duplicates_count_for_each_other() {
        // Identity 0 is one picture ten times over; its copy under 1's label is not believed, and takes none with it.
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (same, others) = (gaussian_unit(32, &mut rng), gaussian_unit(32, &mut rng));
        let mut rows = Array2::<f32>::zeros((20, 32));
        for (i, mut row) in rows.rows_mut().into_iter().enumerate() {
            let x = match i {
                0..=10 => same.clone(),
                _ => direction(&others + &(gaussian_unit(32, &mut rng) * 0.3)),
            };
            row.assign(&x.mapv(|v| v as f32));
        }
        let identities: Vec<u32> = (0..20).map(|i| u32::from(i >= 10)).collect();
        let old = Embeddings::dense(rows, true).unwrap();
        let found = estimate(&probe_of(&identities), &old, &StructureOptions::default());
        assert!(found.subclusters[0].radius < 1e-6);
        let credible: Vec<bool> = (0..20).map(|item| found.is_credible(item)).collect();
        assert_eq!(
            credible,
            [
                [true; 10],
                [false, true, true, true, true, true, true, true, true, true]
            ]
            .concat()
        );
    }

    #[test]
    fn thousands_of_small_identities_are_all_accounted_for() {
        // 3,000 identities of one item or two.
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut identities = Vec::new();
        let mut rows = Vec::new();
        for identity in 0..3_000_u32 {
            let centre = gaussian_unit(16, &mut rng);
            for _ in 0..1 + identity % 2 {
                let x = direction(&centre + &(gaussian_unit(16, &mut rng) * 0.2));
                rows.extend(x.iter().map(|&v| v as f32));
                identities.push(identity);
            }
        }
        let n = identities.len();
        let found = estimate(
            &probe_of(&identities),
            &dense(n, 16, rows),
            &StructureOptions::default(),
        );
        assert_eq!(found.subclusters.len(), 3_000);
        let listed: usize = found.subclusters.iter().map(|s| s.items.len()).sum();
        let assessable = (0..n)
            .filter(|&item| found.cut_score(item).is_some())
            .count();
        assert_eq!((listed, found.credibility.items().len()), (n, n));
        assert_eq!(
            assessable, 3_000,
            "the only items of 1,500 identities are not"
        );
        assert!((0..n).all(|item| found.subcluster_of(item) == Some(identities[item])));
    }

    /// All of a million items are accounted for, a sample of them is assessed, and without labels 300 queries search.
    #[test]
    fn a_gallery_of_a_million() {
        let (n, dim, each) = (1_000_000, 8, 4);
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        let mut values = Vec::with_capacity(n * dim);
        let mut centre = Vec::new();
        for item in 0..n {
            if item % each == 0 {
                centre = (0..dim).map(|_| rng.gen_range(-1.0..1.0_f32)).collect();
            }
            values.extend(centre.iter().map(|c| c + rng.gen_range(-0.05..0.05_f32)));
        }
        let rows = ndarray::Array2::from_shape_vec((n, dim), values).unwrap();
        let old = Embeddings::dense(rows, true).unwrap();
        let identities: Vec<u32> = (0..n).map(|item| (item / each) as u32).collect();
        let mut probe = probe_of(&identities);
        for (item, of) in probe.items.iter_mut().enumerate() {
            of.role = match item % 3_331 == 0 {
                true => Role::Both,
                false => Role::Gallery,
            };
        }
        let options = StructureOptions {
            sample: Some(200),
            ..StructureOptions::default()
        };
        let found = estimate(&probe, &old, &options);
        assert_eq!(found.subclusters.len(), n / each);
        assert!(!found.assignment.contains(&NO_SUBCLUSTER));
        assert_eq!(found.credibility.items().len(), 200);

        let pseudo = pseudo_identities(&probe, &old, &options);
        assert_eq!(pseudo.searching.as_ref().map(Vec::len), Some(301));
        assert!(pseudo.of_item.iter().all(Option::is_some));
        let count = pseudo.medoids.len();
        assert!((20..=1_505).contains(&count), "{count} clusters");
    }

    #[test]
    fn an_empty_gallery_has_no_structure() {
        let mut probe = probe_of(&[0, 1]);
        for item in &mut probe.items {
            item.role = Role::Query;
        }
        let old = Embeddings::dense(array![[1.0_f32, 0.0], [0.0, 1.0]], true).unwrap();
        let found = estimate(&probe, &old, &StructureOptions::default());
        assert!(found.subclusters.is_empty());
        assert_eq!(found.assignment, [NO_SUBCLUSTER; 2]);
    }

    #[test]
    fn two_planted_subclusters_and_their_queries_whatever_the_threads() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let dim = 32;
        let mut rows = Array2::<f32>::zeros((66, dim));
        let mut identities = Vec::new();
        for identity in 0..3_u32 {
            let centres = [gaussian_unit(dim, &mut rng), gaussian_unit(dim, &mut rng)];
            for i in 0..22 {
                let x = &centres[i % 2] * 0.9 + &(gaussian_unit(dim, &mut rng) * 0.4);
                rows.row_mut(identities.len()).assign(&x.mapv(|v| v as f32));
                identities.push(identity);
            }
        }
        let mut probe = probe_of(&identities);
        for identity in 0..3 {
            probe.items[22 * identity].role = Role::Query;
            probe.items[22 * identity + 1].role = Role::Query;
        }
        let old = Embeddings::dense(rows, true).unwrap();
        let options = StructureOptions::default();
        let with_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| estimate(&probe, &old, &options))
        };
        let found = with_threads(1);
        let other = with_threads(2);
        let centroids = |of: &Structure| -> Vec<Vec<f32>> {
            let n = of.subclusters.len();
            let rows = (0..n).map(|index| of.centroids.get(index).unwrap().to_vec());
            rows.collect()
        };
        assert_eq!(centroids(&found), centroids(&other));
        assert_eq!(found.subclusters, other.subclusters);
        assert_eq!(found.assignment, other.assignment);
        assert_eq!(found.credibility, other.credibility);
        let numbers = |of: &Structure| (of.tau, of.stability, of.cutoff);
        assert_eq!(numbers(&found), numbers(&other));
        assert_eq!(found.subclusters.len(), 6);
        assert!(found.stability.unwrap() > 0.9);
        for item in 0..66 {
            // Even items, queries too, share their identity's sub-cluster of even items.
            let base = item / 22 * 22;
            assert_eq!(
                found.subcluster_of(item),
                found.subcluster_of(base + 2 + item % 2)
            );
        }
        let indices: Vec<u32> = found
            .subclusters
            .iter()
            .map(|c| c.index_in_identity)
            .collect();
        assert_eq!(indices, [0, 1, 0, 1, 0, 1]);
    }
}
