//! Many tests at once: adjusted p values, in the order of the input.
//!
//! Both procedures compare with any level afterwards: reject where the adjusted value is at most the level.

/// Holm's step-down adjusted p values (Holm 1979): `p[(i)]` ascending, i from 1 of m, becomes
/// max over j <= i of (m - j + 1) `p[(j)]`, at most 1.
///
/// Rejecting where the result is at most alpha errs on any true null with probability at most alpha,
/// whatever the dependence between the tests. Each `p` must be in [0, 1].
///
/// .01, .04, .03 become .03, .06, .06.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let m = p.len();
    let mut adjusted = vec![0.0; m];
    let mut highest = 0.0_f64;
    for (i, &test) in ascending(p).iter().enumerate() {
        highest = highest.max((m - i) as f64 * p[test]);
        adjusted[test] = highest.min(1.0);
    }
    adjusted
}

/// Benjamini and Hochberg's (1995) q values: `p[(i)]` ascending, i from 1 of m, becomes
/// min over j >= i of m `p[(j)]` / j.
///
/// The expected share of true nulls among the tests with q at most alpha is at most alpha when the tests are
/// independent or positively dependent. Each `p` must be in [0, 1].
///
/// .01, .04, .03 become .03, .04, .04.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let m = p.len() as f64;
    let mut q = vec![0.0; p.len()];
    let mut lowest = 1.0_f64;
    for (i, &test) in ascending(p).iter().enumerate().rev() {
        // The quotient first: it is at least 1, so that no rounding takes q below p.
        lowest = lowest.min(m / (i + 1) as f64 * p[test]);
        q[test] = lowest;
    }
    q
}

/// Indices of `p`, smallest value first.
fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{floats, golden};
    use super::*;

    #[test]
    fn both_agree_with_statsmodels() {
        for case in golden()["multiplicity"].as_array().unwrap() {
            let p = floats(&case["p"]);
            for (found, key) in [(holm(&p), "holm"), (benjamini_hochberg(&p), "fdr_bh")] {
                for ((found, expected), p) in found.iter().zip(floats(&case[key])).zip(&p) {
                    // A product and a quotient of numbers below 1: a few roundings.
                    assert!(
                        (found - expected).abs() < 1e-14,
                        "{key} of {p}: {found} against {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn none_and_one_are_left_alone() {
        assert!(holm(&[]).is_empty() && benjamini_hochberg(&[]).is_empty());
        assert_eq!(holm(&[0.3]), [0.3]);
        assert_eq!(benjamini_hochberg(&[0.3]), [0.3]);
        assert_eq!(holm(&[1.0, 0.0]), [1.0, 0.0]);
    }

    proptest! {
        #[test]
        fn adjusting_keeps_the_order_and_holm_is_the_stricter(
            p in proptest::collection::vec(0.0..=1.0_f64, 1..60)
        ) {
            let (strict, loose) = (holm(&p), benjamini_hochberg(&p));
            for i in 0..p.len() {
                prop_assert!(loose[i] >= p[i]);
                // (m - j + 1) p >= (m / j) p for every j, but for the rounding of the quotient.
                prop_assert!(strict[i] >= loose[i] * (1.0 - 1e-15) && strict[i] <= 1.0);
                for j in 0..p.len() {
                    if p[i] <= p[j] {
                        prop_assert!(strict[i] <= strict[j] && loose[i] <= loose[j]);
                    }
                }
            }
            let reversed: Vec<f64> = p.iter().rev().copied().collect();
            let back = |mut values: Vec<f64>| { values.reverse(); values };
            prop_assert_eq!(back(holm(&reversed)), strict);
            prop_assert_eq!(back(benjamini_hochberg(&reversed)), loose);
        }
    }
}
