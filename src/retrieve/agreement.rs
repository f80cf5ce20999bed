//! How much the new rankings agree with the old ones. Diagnostics: they never reach the verdict.

use crate::domain::{Embeddings, cosine};

use super::Evaluation;

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

/// Cosine of each item's old and new embedding, for items whose two embeddings have a direction; in item order.
///
/// `None` when the dimensions differ.
pub fn alignment(old: &Embeddings, new: &Embeddings) -> Option<Vec<f64>> {
    (old.dim() == new.dim()).then(|| {
        (0..old.n_items())
            .filter_map(|item| cosine(old.get(item)?, new.get(item)?))
            .collect()
    })
}
