//! How far an old gallery embedding can be believed (section 5 of `docs/METRICS.md`).

use rayon::prelude::*;

use super::groups::Groups;
use super::nearest::{Near, nearest};
use super::prototypes::Prototypes;
use super::softmax::{expectation, log_sum_exp};
use crate::domain::Reference;
use crate::topk::Gallery;

/// Items whose combined credibility is below it are called not credible: posterior and neighbours together
/// give the own identity less than a quarter. Where the old model separates the identities that marks
/// over 95 % of swapped labels and of planted outliers and under 2 % of the rest (tests below); where it
/// does not, many true items lie below it too, because the model places them with another identity.
pub(super) const CUTOFF: f64 = 0.25;

/// The paper's cut: H(p) <= ln K / 2 is credible, and the entropy score is 1 - H(p)/ln K.
pub(super) const PAPER_CUTOFF: f64 = 0.5;

/// The range the temperature is searched in, for cosines: below it a softmax is an arg-max in f64, above
/// it all but uniform.
const TAU_RANGE: (f64, f64) = (0.005, 1.0);

/// Items the temperature is fitted on at most, evenly spaced: one number needs no more.
const TAU_ITEMS: usize = 2_048;

/// Their cosines to all prototypes at most, 64 MiB; but never fewer items than [`FEWEST_TAU_ITEMS`].
const TAU_COSINES: usize = 1 << 24;

/// See [`TAU_COSINES`].
const FEWEST_TAU_ITEMS: usize = 64;

/// Three leave-one-out scores of a gallery item and their combination, each in [0, 1], high is credible.
///
/// All are `None` when not assessable: an identity's only item has nothing left to be compared with. Without labels a
/// cluster's only item has a consensus.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Credibility {
    /// 1 - H(p)/ln K, p the softmax over the K identity prototypes; `None` also when K = 1. NCCL's own
    /// score; an item that is confidently wrong scores high.
    pub entropy: Option<f64>,
    /// p(own identity).
    pub posterior: Option<f64>,
    /// Similarity-weighted share, by (1 + cosine)/2, of the own identity among the nearest
    /// min(neighbours, n - 1) gallery items, n the identity's size, so that 1 can be reached. Without labels 2^(-d/m), d
    /// the mean cosine distance of the item to its nearest items and m the median of d over the assessed: .5 for the
    /// median item, .25 at twice its distance.
    pub consensus: Option<f64>,
    /// Mean of posterior and consensus; without labels the consensus alone, for the clusters were made of these very
    /// items. The entropy has no part: on planted label swaps its AUROC is that of a coin, for a swapped item is
    /// confidently wrong.
    pub combined: Option<f64>,
}

/// Credibility by probe item, of the assessed alone: of galleries of millions often a sample is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assessed {
    /// Probe items, ascending.
    items: Vec<u32>,
    /// Theirs, in the same order.
    scores: Vec<Credibility>,
}

impl Assessed {
    /// `items` ascend, with one score each.
    pub(super) fn new(items: Vec<u32>, scores: Vec<Credibility>) -> Self {
        assert_eq!(items.len(), scores.len(), "one score an item");
        assert!(items.is_sorted(), "items ascend");
        Self { items, scores }
    }

    /// An item's scores; `None` for what is not an embedded gallery item or not in the sample.
    pub fn get(&self, item: usize) -> Option<&Credibility> {
        let place = self.items.binary_search(&u32::try_from(item).ok()?).ok()?;
        Some(&self.scores[place])
    }

    /// The assessed items, ascending.
    pub fn items(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.items.iter().map(|&item| item as usize)
    }
}

/// Scores the `assessed` gallery positions, in their order, and returns the fitted temperature.
///
/// The gallery's embeddings are unit; `groups` are its identities, or the clusters that stand in for them.
pub(super) fn assess(
    gallery: Gallery<'_>,
    groups: &Groups,
    assessed: &[usize],
    neighbours: usize,
    reference: Reference,
) -> (Vec<Credibility>, f64) {
    let prototypes = Prototypes::new(gallery, groups);
    let tau = fit_temperature(&prototypes);
    let mut scores = prototypes.cosines(assessed, |position, cosines| {
        let own = groups.of(position);
        if groups.size(own) < 2 {
            return Credibility::default();
        }
        let classes = cosines.len();
        // H(p) = -sum p ln p, and ln p = cosine / tau - ln total.
        let (log_total, mean) = expectation(cosines, cosines, tau);
        let entropy = log_total - mean / tau;
        Credibility {
            entropy: (classes > 1).then(|| (1.0 - entropy / (classes as f64).ln()).clamp(0.0, 1.0)),
            posterior: Some((cosines[own] / tau - log_total).exp().min(1.0)),
            ..Credibility::default()
        }
    });
    let items: Vec<usize> = assessed.iter().map(|&p| gallery.items[p]).collect();
    // Only the groups are needed from here on.
    drop(prototypes);
    let own = |i: usize| groups.of(assessed[i]);
    let wanted = |i: usize| match reference {
        Reference::Labels => neighbours.min(groups.size(own(i)) - 1),
        Reference::OldModel => neighbours,
    };
    let wanted: Vec<usize> = (0..assessed.len()).map(wanted).collect();
    let is_itself = |i: usize, position: usize| assessed[i] == position;
    let near = nearest(gallery.embeddings, &items, gallery, &wanted, is_itself);
    match reference {
        Reference::Labels => {
            for (i, (score, near)) in scores.iter_mut().zip(near).enumerate() {
                let consensus = neighbour_consensus(near, |other| groups.of(other) == own(i));
                score.consensus = consensus;
                score.combined = score.posterior.zip(consensus).map(|(p, c)| (p + c) / 2.0);
            }
        }
        Reference::OldModel => {
            for (score, consensus) in scores.iter_mut().zip(closeness(&near)) {
                score.consensus = consensus;
                score.combined = consensus;
            }
        }
    }
    (scores, tau)
}

/// 2^(-d/m) of each item, d the mean distance to its nearest items and m the median of d; `None` for an item alone.
///
/// The kNN distance as an outlier score (Ramaswamy et al. 2000, with the mean of Angiulli and Pizzuti 2002).
fn closeness(near: &[Vec<Near>]) -> Vec<Option<f64>> {
    let distance = |near: &Vec<Near>| {
        let total: f64 = near
            .iter()
            .map(|&(_, cosine)| 1.0 - f64::from(cosine))
            .sum();
        // Rounding takes the distance of equal items below 0.
        (!near.is_empty()).then(|| (total / near.len() as f64).max(0.0))
    };
    let distances: Vec<Option<f64>> = near.iter().map(distance).collect();
    let mut known: Vec<f64> = distances.iter().flatten().copied().collect();
    if known.is_empty() {
        return distances;
    }
    let middle = known.len() / 2;
    let is_even = known.len().is_multiple_of(2);
    let (below, &mut upper, _) = known.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp);
    let median = lower
        .filter(|_| is_even)
        .map_or(upper, |lower| (lower + upper) / 2.0);
    // At least a rounding of f32: in a gallery of duplicates the median is 0.
    let median = median.max(f64::from(f32::EPSILON));
    distances
        .into_iter()
        .map(|distance| Some((-distance? / median).exp2()))
        .collect()
}

/// Share of the weight (1 + cosine)/2 of the nearest other items that is on the item's own identity; `None` without any.
fn neighbour_consensus(mut nearest: Vec<Near>, is_own: impl Fn(usize) -> bool) -> Option<f64> {
    if nearest.is_empty() {
        return None;
    }
    nearest.sort_unstable_by_key(|&(position, _)| position);
    let (mut own, mut total) = (0.0, 0.0);
    for (other, cosine) in nearest {
        let weight = (1.0 + f64::from(cosine)).max(0.0) / 2.0;
        total += weight;
        if is_own(other) {
            own += weight;
        }
    }
    Some(if total > 0.0 { own / total } else { 0.0 })
}

/// The temperature that minimises the mean of -ln p(own identity), leave-one-out.
///
/// The objective is convex in 1/tau, so it has one minimum and golden-section search on ln tau finds
/// it; at the end of [`TAU_RANGE`] when it lies beyond (identities that separate perfectly).
fn fit_temperature(prototypes: &Prototypes<'_>) -> f64 {
    let groups = prototypes.groups;
    let is_assessable = |&position: &usize| groups.size(groups.of(position)) > 1;
    let assessable = || (0..groups.n_positions()).filter(is_assessable);
    let n_assessable = assessable().count();
    if n_assessable == 0 || groups.len() < 2 {
        return 1.0;
    }
    let most = (TAU_COSINES / groups.len()).clamp(FEWEST_TAU_ITEMS, TAU_ITEMS);
    let stride = n_assessable.div_ceil(most);
    let chosen: Vec<usize> = assessable().step_by(stride).collect();
    // All are f32 but the own one.
    let cosines = prototypes.cosines(&chosen, |position, cosines| {
        let row: Vec<f32> = cosines.iter().map(|&cosine| cosine as f32).collect();
        (cosines[groups.of(position)], row)
    });
    let loss = |log_tau: f64| -> f64 {
        let tau = log_tau.exp();
        let each = chosen
            .par_iter()
            .zip(&cosines)
            .map(|(&position, (own, row))| {
                let mut cosines: Vec<f64> = row.iter().copied().map(f64::from).collect();
                cosines[groups.of(position)] = *own;
                log_sum_exp(&cosines, tau) - own / tau
            });
        // Summed in one order, whatever the threads.
        each.collect::<Vec<f64>>().iter().sum()
    };
    golden_section(loss, TAU_RANGE.0.ln(), TAU_RANGE.1.ln()).exp()
}

/// Where a function with one minimum in [low, high] has it, to 1e-4 (Kiefer 1953).
fn golden_section(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut f_left, mut f_right) = (f(left), f(right));
    while high - low > 1e-4 {
        if f_left <= f_right {
            (high, right, f_right) = (right, left, f_left);
            left = high - ratio * (high - low);
            f_left = f(left);
        } else {
            (low, left, f_left) = (left, right, f_right);
            right = low + ratio * (high - low);
            f_right = f(right);
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{auroc, gaussian_unit, probe_of};
    use super::super::{StructureOptions, dense, direction, estimate};
    use super::*;
    use crate::config::CredibilityCut;
    use crate::domain::Embeddings;
    use ndarray::{Array2, array};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Every row of unit rows assessed.
    fn assess(rows: &Array2<f64>, class: &[u32], neighbours: usize) -> (Vec<Credibility>, f64) {
        let values = rows.iter().map(|&v| v as f32).collect();
        let embeddings = dense(rows.nrows(), rows.ncols(), values);
        let items: Vec<usize> = (0..rows.nrows()).collect();
        let gallery = Gallery {
            embeddings: &embeddings,
            items: &items,
        };
        let groups = Groups::new(class.to_vec());
        super::assess(gallery, &groups, &items, neighbours, Reference::Labels)
    }

    #[test]
    fn a_hand_worked_gallery() {
        // Two identities on the two axes; the last item is labelled 0 but sits on 1's axis.
        let rows = array![[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]];
        let (scores, tau) = assess(&rows, &[0, 0, 1, 1, 0], 10);
        // Item 0 without itself: prototype (1, 1)/sqrt 2 of items 1 and 4; the other is (0, 1).
        let own = 0.5_f64.sqrt();
        let p = 1.0 / (1.0 + (-own / tau).exp());
        assert!((scores[0].posterior.unwrap() - p).abs() < 1e-6);
        let entropy = -(p * p.ln() + (1.0 - p) * (1.0 - p).ln()) / 2.0_f64.ln();
        assert!((scores[0].entropy.unwrap() - (1.0 - entropy)).abs() < 1e-6);
        // Its two nearest: item 1 (weight 1) and, by index, item 2 (weight 1/2).
        assert!((scores[0].consensus.unwrap() - 1.0 / 1.5).abs() < 1e-6);
        let combined = (p + 1.0 / 1.5) / 2.0;
        assert!((scores[0].combined.unwrap() - combined).abs() < 1e-6);
        // The swapped item: its own prototype is orthogonal, both neighbours are 1's.
        assert_eq!(scores[4].consensus, Some(0.0));
        assert!(scores[4].posterior.unwrap() < 0.5);
        assert!(scores[4].combined.unwrap() < CUTOFF);
    }

    #[test]
    fn an_only_item_is_not_assessable_and_still_a_rival() {
        let rows = array![[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]];
        let (scores, _) = assess(&rows, &[0, 0, 1], 10);
        assert_eq!(scores[2], Credibility::default());
        // Item 0's own prototype is item 1 (cosine .6), its rival item 2 (cosine .8).
        assert!(scores[0].posterior.unwrap() < 0.5);
        assert_eq!(scores[0].consensus, Some(0.0));
        assert!(scores[0].entropy.is_some());
    }

    #[test]
    fn one_identity_has_no_entropy_and_no_doubt() {
        let rows = array![[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]];
        let (scores, tau) = assess(&rows, &[0, 0, 0], 10);
        assert_eq!(tau, 1.0);
        for score in scores {
            assert_eq!(score.entropy, None);
            assert_eq!((score.posterior, score.consensus), (Some(1.0), Some(1.0)));
        }
    }

    /// Without labels the consensus is how near the neighbours are: what lies apart is found, what lies between is not.
    #[test]
    fn without_labels_items_far_from_all_others_are_not_credible() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let (mut rows, class) = gallery(1, &mut rng);
        let planted: Vec<bool> = (0..class.len()).map(|_| rng.gen_bool(0.02)).collect();
        for i in (0..class.len()).filter(|&i| planted[i]) {
            let lost = gaussian_unit(rows.ncols(), &mut rng).mapv(|v| v as f32);
            rows.row_mut(i).assign(&lost);
        }
        let mut probe = probe_of(&class);
        let clusters: Vec<Option<u32>> = class.iter().map(|&c| Some(c)).collect();
        probe.relabel(&clusters, probe.identities.clone(), None);
        let old = Embeddings::dense(rows.clone(), true).unwrap();
        let found = estimate(&probe, &old, &StructureOptions::default());
        assert!(found.subclusters.iter().all(|s| s.index_in_identity == 0));
        let score = |i: usize| found.credibility.get(i).unwrap().combined.unwrap();
        let doubt: Vec<f64> = (0..class.len()).map(|i| -score(i)).collect();
        let area = auroc(&doubt, &planted);
        assert!(area >= 0.95, "{area}");
        // By hand.
        let unit = |i: usize| direction(rows.row(i).mapv(f64::from));
        let mean_distance = |i: usize| {
            let mut distances: Vec<f64> = (0..class.len())
                .filter(|&j| j != i)
                .map(|j| 1.0 - unit(i).dot(&unit(j)))
                .collect();
            distances.sort_by(f64::total_cmp);
            distances[..10].iter().sum::<f64>() / 10.0
        };
        let mut all: Vec<f64> = (0..class.len()).map(mean_distance).collect();
        let first = all[0];
        all.sort_by(f64::total_cmp);
        let expected = (-first / all[all.len() / 2]).exp2();
        assert!((score(0) - expected).abs() < 1e-5);
    }

    #[test]
    fn without_labels_duplicates_are_credible_and_an_item_alone_is_not_assessed() {
        assert_eq!(closeness(&[vec![(1, 1.0)], vec![(0, 1.0)]]), [Some(1.0); 2]);
        assert_eq!(closeness(&[vec![]]), [None]);
        // Distances .1, .2, .4 and .7: the median is .3, of the first three .2.
        let near = [0.9, 0.8, 0.6, 0.3].map(|cosine| vec![(0, cosine)]);
        for (n, median) in [(4, 0.3), (3, 0.2)] {
            let found = closeness(&near[..n])[1].unwrap();
            assert!((found - (-0.2_f64 / median).exp2()).abs() < 1e-6, "{found}");
        }
    }

    #[test]
    fn a_collapsed_gallery_is_not_credible() {
        let rows = Array2::from_shape_fn((40, 8), |(_, d)| f64::from(u8::from(d == 0)));
        let class: Vec<u32> = (0..40).map(|i| i / 4).collect();
        let (scores, _) = assess(&rows, &class, 10);
        for score in &scores {
            assert!((score.posterior.unwrap() - 0.1).abs() < 1e-9);
            assert!(score.entropy.unwrap() < 1e-9);
        }
        let below = scores.iter().filter(|s| s.combined.unwrap() < CUTOFF);
        assert!(below.count() >= 36);
    }

    #[test]
    fn the_temperature_minimises_the_loss() {
        let found = golden_section(|x| (x - 0.3).powi(2), -2.0, 1.0);
        assert!((found - 0.3).abs() < 1e-4);
        // Beyond the end: the end.
        assert!((golden_section(|x| x, -2.0, 1.0) + 2.0).abs() < 1e-4);
    }

    /// 100 identities x 12 items in 64 dimensions, items at cosine .6 to their centre, of which an identity
    /// has `modes`, unrelated to one another.
    fn gallery(modes: usize, rng: &mut ChaCha8Rng) -> (Array2<f32>, Vec<u32>) {
        let (identities, each, dim) = (100, 12, 64);
        let mut rows = Array2::zeros((identities * each, dim));
        let mut class = Vec::new();
        for identity in 0..identities {
            let centres: Vec<_> = (0..modes).map(|_| gaussian_unit(dim, rng)).collect();
            for item in 0..each {
                let x = &centres[item % modes] * 0.6 + &(gaussian_unit(dim, rng) * 0.8);
                rows.row_mut(class.len()).assign(&x.mapv(|v| v as f32));
                class.push(identity as u32);
            }
        }
        (rows, class)
    }

    fn validate(rows: Array2<f32>, class: &[u32], planted: &[bool]) -> (f64, f64, f64) {
        let probe = probe_of(class);
        let old = Embeddings::dense(rows, true).unwrap();
        let found = estimate(&probe, &old, &StructureOptions::default());
        let score = |i: usize| found.credibility.get(i).unwrap().combined.unwrap();
        let doubt: Vec<f64> = (0..class.len()).map(|i| -score(i)).collect();
        let share_below = |which: bool| {
            let items: Vec<usize> = (0..class.len()).filter(|&i| planted[i] == which).collect();
            let below = items.iter().filter(|&&i| !found.is_credible(i)).count();
            below as f64 / items.len() as f64
        };
        (
            auroc(&doubt, planted),
            share_below(true),
            share_below(false),
        )
    }

    /// Gives 5 % of the items another identity; says which.
    fn swap(class: &mut [u32], rng: &mut ChaCha8Rng) -> Vec<bool> {
        let planted: Vec<bool> = (0..class.len()).map(|_| rng.gen_bool(0.05)).collect();
        for (label, _) in class.iter_mut().zip(&planted).filter(|&(_, &p)| p) {
            *label = (*label + rng.gen_range(1..100)) % 100;
        }
        planted
    }

    #[test]
    fn swapped_labels_are_found_where_identities_are_two_things() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (rows, mut class) = gallery(2, &mut rng);
        let planted = swap(&mut class, &mut rng);
        let (area, caught, _) = validate(rows, &class, &planted);
        assert!(area >= 0.95 && caught >= 0.95, "{area}, caught {caught}");
    }

    #[test]
    fn swapped_labels_are_found() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (rows, mut class) = gallery(1, &mut rng);
        let planted = swap(&mut class, &mut rng);
        let (area, caught, lost) = validate(rows, &class, &planted);
        assert!(area >= 0.95, "{area}");
        assert!(
            caught >= 0.95 && lost <= 0.02,
            "caught {caught}, lost {lost}"
        );
    }

    #[test]
    fn the_papers_cut_passes_what_is_confidently_wrong_and_with_one_prototype_everything() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (rows, mut class) = gallery(1, &mut rng);
        let planted = swap(&mut class, &mut rng);
        let old = Embeddings::dense(rows, true).unwrap();
        let options = StructureOptions {
            cut: CredibilityCut::Paper,
            ..StructureOptions::default()
        };
        let found = estimate(&probe_of(&class), &old, &options);
        let rejected = |which: bool| {
            let items: Vec<usize> = (0..class.len()).filter(|&i| planted[i] == which).collect();
            let rejected = items.iter().filter(|&&i| !found.is_credible(i)).count();
            rejected as f64 / items.len() as f64
        };
        assert!(rejected(true) < 0.05, "swaps rejected: {}", rejected(true));
        // H(p) <= ln K / 2, read off the score.
        let by_hand = |i: usize| {
            let entropy = found.credibility.get(i).unwrap().entropy.unwrap();
            let k = 100_f64;
            (1.0 - entropy) * k.ln() <= k.ln() / 2.0
        };
        assert!((0..class.len()).all(|i| found.is_credible(i) == by_hand(i)));

        let one = estimate(&probe_of(&vec![0; class.len()]), &old, &options);
        assert!((0..class.len()).all(|i| one.is_credible(i)));
    }

    #[test]
    fn outliers_are_found() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let (mut rows, mut class) = gallery(1, &mut rng);
        let clean = rows.clone();
        let n = class.len();
        let planted: Vec<bool> = (0..n).map(|_| rng.gen_bool(0.05)).collect();
        for i in (0..n).filter(|&i| planted[i]) {
            let (a, b) = (rng.gen_range(0..n), rng.gen_range(0..n));
            rows.row_mut(i).assign(&(&clean.row(a) + &clean.row(b)));
            class[i] = rng.gen_range(0..100);
        }
        let (area, caught, lost) = validate(rows, &class, &planted);
        assert!(area >= 0.95, "{area}");
        assert!(
            caught >= 0.95 && lost <= 0.02,
            "caught {caught}, lost {lost}"
        );
    }
}
