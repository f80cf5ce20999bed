//! Comparing two partitions of the same items.

use std::collections::BTreeMap;

/// Adjusted Rand index of two labellings (Hubert and Arabie 1985): 1 for equal partitions, about 0 for
/// independent ones. 1 when both are trivial in the same way, where the index is 0/0.
pub fn adjusted_rand_index(a: &[usize], b: &[usize]) -> f64 {
    let pairs = |n: usize| (n * n.saturating_sub(1)) as f64 / 2.0;
    let (mut both, mut of_a, mut of_b) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (&x, &y) in a.iter().zip(b) {
        *both.entry((x, y)).or_insert(0) += 1;
        *of_a.entry(x).or_insert(0) += 1;
        *of_b.entry(y).or_insert(0) += 1;
    }
    let together: f64 = both.values().map(|&n| pairs(n)).sum();
    let in_a: f64 = of_a.values().map(|&n| pairs(n)).sum();
    let in_b: f64 = of_b.values().map(|&n| pairs(n)).sum();
    let expected = in_a * in_b / pairs(a.len());
    let most = (in_a + in_b) / 2.0;
    if most == expected || a.len() < 2 {
        1.0
    } else {
        (together - expected) / (most - expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_partitions_score_one_whatever_the_names() {
        assert_eq!(adjusted_rand_index(&[0, 0, 1, 2], &[5, 5, 9, 1]), 1.0);
        assert_eq!(adjusted_rand_index(&[0, 0, 0], &[1, 1, 1]), 1.0);
        assert_eq!(adjusted_rand_index(&[0, 1, 2], &[2, 1, 0]), 1.0);
    }

    #[test]
    fn a_hand_worked_value() {
        // Contingency [[2, 1], [0, 3]]: 1 + 3 = 4 pairs together; rows 3 + 3 = 6, columns 1 + 6 = 7;
        // expected 42 / 15 = 2.8; (4 - 2.8) / (6.5 - 2.8).
        let ari = adjusted_rand_index(&[0, 0, 0, 1, 1, 1], &[0, 0, 1, 1, 1, 1]);
        assert!((ari - 1.2 / 3.7).abs() < 1e-12);
    }

    #[test]
    fn crossed_partitions_are_below_zero() {
        assert!(adjusted_rand_index(&[0, 0, 1, 1], &[0, 1, 0, 1]) < 0.0);
    }
}
