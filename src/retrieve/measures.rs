//! Retrieval measures of one query, from the ranks of its relevant items.
//!
//! `ranks` are the 1-based ranks of ALL relevant items, strictly ascending, never empty (a query without one is
//! excluded before). Each measure is in [0, 1], higher is better; a table's number is the mean over queries. Grades, where
//! relevance is judged in grades, are parallel to the ranks; only nDCG sees them, for the others every relevant item is one.

use crate::domain::Measure;

/// The measure's value for one query. `grades` are parallel to `ranks`, or empty where every grade is 1.
pub fn evaluate(measure: Measure, ranks: &[u64], grades: &[u32]) -> f64 {
    match measure {
        Measure::MeanAveragePrecision => average_precision(ranks),
        Measure::CmcAt(k) => cmc_at(ranks, k),
        Measure::RecallAt(k) => recall_at(ranks, k),
        Measure::MeanReciprocalRank => reciprocal_rank(ranks),
        Measure::RPrecision => r_precision(ranks),
        Measure::MeanInverseNegativePenalty => inverse_negative_penalty(ranks),
        Measure::NdcgAt(k) => ndcg_at(ranks, grades, k),
    }
}

/// AP = (1/R) sum over relevant items of (relevant items at or above its rank) / rank; `map` of trec_eval.
///
/// Ranks 1 and 3 of R = 2: (1/1 + 2/3) / 2 = .8333.
pub fn average_precision(ranks: &[u64]) -> f64 {
    let sum: f64 = ranks
        .iter()
        .enumerate()
        .map(|(above, &rank)| (above + 1) as f64 / rank as f64)
        .sum();
    sum / ranks.len() as f64
}

/// CMC@k: 1 when a relevant item is in the top k, else 0 (re-identification's rank-k).
pub fn cmc_at(ranks: &[u64], k: u32) -> f64 {
    f64::from(ranks[0] <= u64::from(k))
}

/// recall@k: relevant items in the top k over R. Never an alias of CMC.
pub fn recall_at(ranks: &[u64], k: u32) -> f64 {
    hits_at(ranks, u64::from(k)) as f64 / ranks.len() as f64
}

/// 1 / rank of the first relevant item.
pub fn reciprocal_rank(ranks: &[u64]) -> f64 {
    1.0 / ranks[0] as f64
}

/// Precision at R.
pub fn r_precision(ranks: &[u64]) -> f64 {
    hits_at(ranks, ranks.len() as u64) as f64 / ranks.len() as f64
}

/// R / rank of the last relevant item (mINP, Ye et al., TPAMI 2021).
pub fn inverse_negative_penalty(ranks: &[u64]) -> f64 {
    ranks.len() as f64 / ranks[ranks.len() - 1] as f64
}

/// nDCG@k = sum over relevant items of rank r <= k of grade / log2(r + 1), over the same sum of the best possible order of all
/// relevant items; `ndcg_cut_k` of trec_eval (linear gain, Jarvelin and Kekalainen 2002).
///
/// `grades` are parallel to `ranks`, or empty where every grade is 1. Grades 1 and 3 at ranks 1 and 3:
/// (1 + 3/2) / (3 + 1/1.585) = .6885.
pub fn ndcg_at(ranks: &[u64], grades: &[u32], k: u32) -> f64 {
    let discount = |rank: u64| 1.0 / ((rank + 1) as f64).log2();
    let grade = |i: usize| f64::from(grades.get(i).copied().unwrap_or(1));
    let found: f64 = ranks
        .iter()
        .enumerate()
        .take_while(|&(_, &rank)| rank <= u64::from(k))
        .map(|(i, &rank)| grade(i) * discount(rank))
        .sum();
    let mut best: Vec<f64> = (0..ranks.len()).map(grade).collect();
    best.sort_unstable_by(|a, b| b.total_cmp(a));
    let ideal: f64 = (1..=u64::from(k))
        .zip(best)
        .map(|(rank, grade)| grade * discount(rank))
        .sum();
    found / ideal
}

fn hits_at(ranks: &[u64], k: u64) -> usize {
    ranks.partition_point(|&rank| rank <= k)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Ranking: rel, non, rel, non, non, rel (R = 3), worked by hand.
    const RANKS: [u64; 3] = [1, 3, 6];

    #[test]
    fn hand_worked_list() {
        assert!((average_precision(&RANKS) - (1.0 + 2.0 / 3.0 + 3.0 / 6.0) / 3.0).abs() < 1e-15);
        assert_eq!(cmc_at(&RANKS, 1), 1.0);
        assert_eq!(recall_at(&RANKS, 1), 1.0 / 3.0);
        assert_eq!(recall_at(&RANKS, 5), 2.0 / 3.0);
        assert_eq!(reciprocal_rank(&[4, 5]), 0.25);
        assert_eq!(r_precision(&RANKS), 2.0 / 3.0);
        assert_eq!(inverse_negative_penalty(&RANKS), 0.5);
        let dcg = 1.0 + 1.0 / 2.0;
        let ideal = 1.0 + 1.0 / 3.0_f64.log2() + 1.0 / 2.0;
        assert!((ndcg_at(&RANKS, &[], 5) - dcg / ideal).abs() < 1e-15);
    }

    #[test]
    fn cmc_is_not_recall() {
        assert_eq!(cmc_at(&[1, 9], 1), 1.0);
        assert_eq!(recall_at(&[1, 9], 1), 0.5);
    }

    #[test]
    fn graded_list_by_hand() {
        // Grades 1, 3, 2 at ranks 1, 3, 6; the best order is 3, 2, 1.
        let found = 1.0 + 3.0 / 2.0;
        let ideal = 3.0 + 2.0 / 3.0_f64.log2() + 1.0 / 2.0;
        assert!((ndcg_at(&RANKS, &[1, 3, 2], 5) - found / ideal).abs() < 1e-15);
        // The ideal is cut at k too, and is of all relevant items, also of those below k.
        assert!((ndcg_at(&RANKS, &[1, 3, 2], 1) - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(ndcg_at(&[1, 2, 3], &[4, 2, 1], 10), 1.0);
        for measure in Measure::ALL {
            let binary = evaluate(measure, &RANKS, &[]);
            assert_eq!(evaluate(measure, &RANKS, &[1, 1, 1]), binary, "{measure}");
            if !matches!(measure, Measure::NdcgAt(_)) {
                assert_eq!(evaluate(measure, &RANKS, &[1, 3, 2]), binary, "{measure}");
            }
        }
    }

    #[test]
    fn perfect_and_worst_lists() {
        for measure in Measure::ALL {
            let perfect = evaluate(measure, &[1], &[]);
            assert!((perfect - 1.0).abs() < 1e-15, "{measure}: {perfect}");
        }
        assert_eq!(cmc_at(&[11, 12], 10), 0.0);
        assert_eq!(ndcg_at(&[11, 12], &[], 10), 0.0);
    }
}
