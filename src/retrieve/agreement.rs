//! How much the new rankings agree with the old ones. Diagnostics: they never reach the verdict.

use crate::domain::Embeddings;

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

/// Cosine of each item's old and new embedding, for items that have both; in item order.
///
/// `None` when the dimensions differ.
pub fn alignment(old: &Embeddings, new: &Embeddings) -> Option<Vec<f64>> {
    (old.dim() == new.dim()).then(|| {
        (0..old.n_items())
            .filter_map(|item| Some(cosine(old.get(item)?, new.get(item)?)))
            .collect()
    })
}

/// Cosine in f64; 0 when one of the vectors is zero.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_of_known_vectors() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert!((cosine(&[1.0, 1.0], &[2.0, 2.0]) - 1.0).abs() < 1e-15);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }
}
