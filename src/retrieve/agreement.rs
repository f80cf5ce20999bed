//! How much the new rankings and the new space agree with the old ones. Diagnostics: they never reach the verdict.

mod cka;

use crate::domain::{Embeddings, cosine};

use super::Evaluation;
use super::rank::Hit;

pub use cka::{LinearCka, linear_cka};

/// Persistence of the rank-biased overlap: the chance that a reader who looked at one hit looks at the next.
///
/// .9 is what Webber et al. use throughout; the first 10 hits then carry 86 % of the weight, about what a results page shows,
/// and the part of the weight beyond a list of 100 is .9^100 = 3e-5, so the cut of the lists does not matter.
pub const RBO_PERSISTENCE: f64 = 0.9;

/// Mean over queries of |top-k under a and top-k under b| / k, k cut to the shorter list; in [0, 1].
pub fn top_k_overlap(a: &Evaluation, b: &Evaluation, k: usize) -> f64 {
    let mut sum = 0.0;
    for (left, right) in a.rankings.iter().zip(&b.rankings) {
        let k = k.min(left.top.len()).min(right.top.len());
        let mut positions: Vec<u32> = left.top[..k].iter().map(|hit| hit.position).collect();
        positions.sort_unstable();
        let common = right.top[..k]
            .iter()
            .filter(|hit| positions.binary_search(&hit.position).is_ok())
            .count();
        sum += common as f64 / k as f64;
    }
    sum / a.rankings.len() as f64
}

/// Mean over queries of the rank-biased overlap of the two top lists; in [0, 1].
pub fn mean_rank_biased_overlap(a: &Evaluation, b: &Evaluation, p: f64) -> f64 {
    let sum: f64 = a
        .rankings
        .iter()
        .zip(&b.rankings)
        .map(|(left, right)| rank_biased_overlap(&left.top, &right.top, p))
        .sum();
    sum / a.rankings.len() as f64
}

/// Extrapolated rank-biased overlap of two lists of one length k, 0 < p < 1; in [0, 1], 1 for equal lists.
///
/// RBO_EXT = X_k / k p^k + (1 - p)/p sum_{d=1..k} X_d / d p^d, X_d the number of items in both lists' first d (Webber, Moffat
/// and Zobel, ACM TOIS 2010, equation 32 for lists of one length): the agreement seen at depth k is taken to continue. The
/// lower bound alone would say less than 1 of equal lists. Lists of different lengths are cut to the shorter one.
///
/// Equal scores stand in both lists in gallery order, so a tie can only raise the agreement: two collapsed models
/// agree, as they do in what they answer.
///
/// (a, b, c) and (b, a, d) with p = .5: X/d = 0, 1, 2/3; (2/3) / 8 + (0/2 + 1/4 + (2/3)/8) = .4167.
pub fn rank_biased_overlap(a: &[Hit], b: &[Hit], p: f64) -> f64 {
    let k = a.len().min(b.len());
    // Positions shown so far by one list and not by the other, sorted.
    let mut waiting: Vec<u32> = Vec::with_capacity(2 * k);
    let mut common = 0;
    let mut see = |position: u32| match waiting.binary_search(&position) {
        // A position is at most once in a list, so a waiting one came from the other.
        Ok(at) => {
            waiting.remove(at);
            1
        }
        Err(at) => {
            waiting.insert(at, position);
            0
        }
    };
    let (mut weight, mut sum, mut agreement) = (1.0, 0.0, 0.0);
    for depth in 0..k {
        common += see(a[depth].position) + see(b[depth].position);
        agreement = f64::from(common) / (depth + 1) as f64;
        sum += agreement * weight;
        weight *= p;
    }
    // `weight` is p^k now; sum_{d} X_d / d p^(d-1) (1 - p) is the bracket with its 1/p.
    (1.0 - p) * sum + agreement * weight
}

/// Cosine of each item's old and new embedding, for items whose two embeddings have a direction; in item order.
///
/// `None` when the dimensions differ.
pub fn alignment(old: &Embeddings, new: &Embeddings) -> Option<Vec<f64>> {
    (old.dim() == new.dim()).then(|| {
        (0..old.n_items())
            .filter_map(|item| cosine(&old.get(item)?, &new.get(item)?))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(positions: &[u32]) -> Vec<Hit> {
        let hit = |&position| Hit {
            position,
            score: 0.0,
        };
        positions.iter().map(hit).collect()
    }

    #[test]
    fn rank_biased_overlap_by_hand() {
        let found = rank_biased_overlap(&list(&[0, 1, 2]), &list(&[1, 0, 3]), 0.5);
        let expected = (2.0 / 3.0) / 8.0 + (1.0 / 4.0 + (2.0 / 3.0) / 8.0);
        assert!((found - expected).abs() < 1e-15, "{found}");
    }

    #[test]
    fn equal_lists_agree_wholly_and_disjoint_ones_not_at_all() {
        let (a, b) = (list(&[4, 2, 9]), list(&[1, 3, 5]));
        let same = rank_biased_overlap(&a, &a, RBO_PERSISTENCE);
        assert!((same - 1.0).abs() < 1e-15, "{same}");
        assert_eq!(rank_biased_overlap(&a, &b, RBO_PERSISTENCE), 0.0);
    }

    #[test]
    fn agreement_at_the_top_weighs_more() {
        let base = list(&[0, 1, 2, 3]);
        let top = rank_biased_overlap(&base, &list(&[0, 1, 8, 9]), RBO_PERSISTENCE);
        let bottom = rank_biased_overlap(&base, &list(&[8, 9, 2, 3]), RBO_PERSISTENCE);
        assert!(top > bottom, "{top} {bottom}");
    }
}
