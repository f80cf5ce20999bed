//! How many sub-clusters an identity has, and which items are in which.
//!
//! Bisecting spherical k-means. A group is split in two only if the split is cleaner than those of
//! [`NULL_DRAWS`] samples from one Gaussian cluster with the group's own mean and covariance: an elongated
//! cluster can be cut in two just as its own null can, while a gap cannot be had from a Gaussian.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_clustering::KMeans;
use ndarray::{Array1, Array2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::direction;
use super::partition::adjusted_rand_index;

/// Smaller groups stay whole: two halves of four are the least that show a spread within and a gap
/// between, and five items or fewer a half leave the null's covariance with too few degrees of freedom.
const MIN_GROUP: usize = 8;

/// A smaller half is a few outliers, which credibility is for, and not a sub-cluster.
const MIN_HALF: usize = MIN_GROUP / 2;

/// At most this share of a group is set aside as outliers before the test.
const MAX_SET_ASIDE: f64 = 0.2;

/// One-cluster samples a test compares with.
const NULL_DRAWS: usize = 99;

/// Null draws that may split as cleanly: p = (1 + 2) / (1 + 99) = .03 for "more than one". The covariance
/// is estimated from the same items, so at a nominal .05 rank-4 clusters are cut in 6 to 8 % of trials; at
/// .03 the level kept is 5 %.
const ROOT_ALLOWED: usize = 2;

/// Once an identity is proven to be more than one, each further split must beat every draw (p = .01):
/// there are several such tests, and each one at 5 % would often cut a true sub-cluster.
const CHILD_ALLOWED: usize = 0;

/// Starts of each k-means.
const STARTS: usize = 4;

/// Lloyd iterations at most; groups are small and settle in far fewer.
const MAX_ITERATIONS: u64 = 50;

/// Bootstrap samples of the stability.
const STABILITY_SAMPLES: usize = 10;

/// An identity's items in sub-clusters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Partition {
    /// Sub-cluster of each item, 0..k in order of first appearance.
    pub label: Vec<usize>,
    /// Number of sub-clusters, at least 1.
    pub k: usize,
    /// Mean adjusted Rand index of the partition against k-means of bootstrap samples; `None` for k = 1.
    pub stability: Option<f64>,
}

/// Partitions unit rows, shape (items, dim), of one identity; `stream` keeps identities' draws apart.
pub(super) fn partition(rows: &Array2<f64>, seed: u64, stream: u32) -> Partition {
    let n = rows.nrows();
    if n < MIN_GROUP {
        return Partition {
            label: vec![0; n],
            k: 1,
            stability: None,
        };
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(stream));
    // Everything below depends on inner products only, so few items in many dimensions are first
    // turned into coordinates of their own span.
    let points = if n < rows.ncols() {
        cholesky(&rows.dot(&rows.t()))
    } else {
        rows.clone()
    };

    let mut leaves = Vec::new();
    let mut groups = vec![((0..n).collect::<Vec<usize>>(), ROOT_ALLOWED)];
    while let Some((group, allowed)) = groups.pop() {
        match split_if_proven(&points.select(Axis(0), &group), allowed, &mut rng) {
            Some(halves) => groups.extend(halves.map(|half| {
                let items = half.into_iter().map(|i| group[i]).collect();
                (items, CHILD_ALLOWED)
            })),
            None => leaves.push(group),
        }
    }
    let k = leaves.len();
    if k == 1 {
        return Partition {
            label: vec![0; n],
            k: 1,
            stability: None,
        };
    }
    let label = in_order_of_appearance(&settle(&points, &leaves));
    let stability = stability(&points, &label, k, &mut rng);
    Partition {
        label,
        k,
        stability: Some(stability),
    }
}

/// A cut of a group in two.
struct Cut {
    /// Half of each point.
    half: Vec<usize>,
    /// See [`separation`]: large when there is a gap.
    separation: f64,
}

/// The two halves (indices into `points`), if the cut is proven; outliers set aside are in neither.
fn split_if_proven(
    points: &Array2<f64>,
    allowed: usize,
    rng: &mut ChaCha8Rng,
) -> Option<[Vec<usize>; 2]> {
    let n = points.nrows();
    let mut kept: Vec<usize> = (0..n).collect();
    let (group, cut) = loop {
        let group = points.select(Axis(0), &kept);
        if kept.len() < MIN_GROUP || (n - kept.len()) as f64 > MAX_SET_ASIDE * n as f64 {
            return None;
        }
        let cut = cut_in_two(&group, rng);
        let second = cut.half.iter().sum::<usize>();
        let smaller = second.min(kept.len() - second);
        if smaller == 0 {
            return None;
        }
        if smaller >= MIN_HALF {
            break (group, cut);
        }
        let small_half = usize::from(smaller == second);
        let mut halves = cut.half.iter();
        kept.retain(|_| halves.next() != Some(&small_half));
    };

    let null = OneCluster::fitted(&group);
    let mut as_clean = 0;
    for _ in 0..NULL_DRAWS {
        if cut_in_two(&null.draw(kept.len(), rng), rng).separation >= cut.separation {
            as_clean += 1;
            // The outcome is decided, so the rest need not be drawn.
            if as_clean > allowed {
                return None;
            }
        }
    }
    let half = |which: usize| {
        let with_half = kept.iter().zip(&cut.half);
        with_half
            .filter(|&(_, &h)| h == which)
            .map(|(&i, _)| i)
            .collect()
    };
    Some([half(0), half(1)])
}

/// 2-means, and how clean the cut is.
fn cut_in_two(points: &Array2<f64>, rng: &mut ChaCha8Rng) -> Cut {
    let half = k_means(points, points, 2, rng);
    let separation = separation(points, &half);
    Cut { half, separation }
}

/// Mean margin over the pooled standard deviation of margins within the halves, where an item's margin is
/// its mean inner product with its own half minus that with the other half.
///
/// The item is left out of its own half: in many dimensions an item's product with itself alone would
/// show a gap in any cut of noise.
fn separation(points: &Array2<f64>, half: &[usize]) -> f64 {
    let n = half.len();
    let second = half.iter().sum::<usize>();
    let size = [(n - second) as f64, second as f64];
    if size[0] < 2.0 || size[1] < 2.0 {
        return 0.0;
    }
    let mut sums = Array2::<f64>::zeros((2, points.ncols()));
    for (point, &h) in points.rows().into_iter().zip(half) {
        let mut sum = sums.row_mut(h);
        sum += &point;
    }
    let margins: Vec<f64> = points
        .rows()
        .into_iter()
        .zip(half)
        .map(|(point, &h)| {
            let own = (sums.row(h).dot(&point) - point.dot(&point)) / (size[h] - 1.0);
            own - sums.row(1 - h).dot(&point) / size[1 - h]
        })
        .collect();
    let mut means = [0.0; 2];
    for (margin, &h) in margins.iter().zip(half) {
        means[h] += margin / size[h];
    }
    let squares: f64 = margins
        .iter()
        .zip(half)
        .map(|(margin, &h)| (margin - means[h]).powi(2))
        .sum();
    // 0/0 when all points are the same: nothing is separated.
    let separation = (means[0] + means[1]) / 2.0 / (squares / (n as f64 - 2.0)).sqrt();
    if separation.is_nan() { 0.0 } else { separation }
}

/// Fits k-means (linfa) to `sample` and returns the nearest centre of each row of `points`.
fn k_means(
    sample: &Array2<f64>,
    points: &Array2<f64>,
    k: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<usize> {
    // linfa clones the generator it is given, so each fit gets one of its own.
    let fit_rng = ChaCha8Rng::seed_from_u64(rng.r#gen());
    KMeans::params_with_rng(k, fit_rng)
        .n_runs(STARTS)
        .max_n_iterations(MAX_ITERATIONS)
        .tolerance(1e-6)
        .fit(&DatasetBase::from(sample.view()))
        .expect("the settings are valid and the points finite")
        .predict(points)
        .to_vec()
}

/// Spherical k-means from the leaves' directions over all points, outliers included, until it settles.
fn settle(points: &Array2<f64>, leaves: &[Vec<usize>]) -> Vec<usize> {
    let mut members: Vec<Vec<usize>> = leaves.to_vec();
    let mut label = Vec::new();
    for _ in 0..MAX_ITERATIONS {
        let mut centres = Array2::zeros((members.len(), points.ncols()));
        for (mut centre, items) in centres.rows_mut().into_iter().zip(&members) {
            centre.assign(&direction(points.select(Axis(0), items).sum_axis(Axis(0))));
        }
        let cosines = points.dot(&centres.t());
        let nearest: Vec<usize> = cosines
            .rows()
            .into_iter()
            .map(|row| {
                let best = |a: usize, b: usize| if row[b] > row[a] { b } else { a };
                (0..members.len()).reduce(best).expect("there is a leaf")
            })
            .collect();
        let mut regrouped = vec![Vec::new(); members.len()];
        for (point, &cluster) in nearest.iter().enumerate() {
            regrouped[cluster].push(point);
        }
        let settled = nearest == label;
        // A cluster that would vanish keeps the last partition instead.
        if regrouped.iter().any(Vec::is_empty) && !label.is_empty() {
            break;
        }
        label = nearest;
        members = regrouped;
        if settled {
            break;
        }
    }
    label
}

/// Mean adjusted Rand index between the partition and k-means of bootstrap samples of the points.
fn stability(points: &Array2<f64>, label: &[usize], k: usize, rng: &mut ChaCha8Rng) -> f64 {
    let n = points.nrows();
    let total: f64 = (0..STABILITY_SAMPLES)
        .map(|_| {
            let drawn: Vec<usize> = (0..n).map(|_| rng.gen_range(0..n)).collect();
            let again = k_means(&points.select(Axis(0), &drawn), points, k, rng);
            adjusted_rand_index(label, &again)
        })
        .sum();
    total / STABILITY_SAMPLES as f64
}

/// Renames labels to 0, 1, ... in order of first appearance.
fn in_order_of_appearance(label: &[usize]) -> Vec<usize> {
    let mut seen = Vec::new();
    label
        .iter()
        .map(|l| match seen.iter().position(|s| s == l) {
            Some(name) => name,
            None => {
                seen.push(*l);
                seen.len() - 1
            }
        })
        .collect()
}

/// The null: one Gaussian cluster with a group's mean and covariance, put back on the sphere.
///
/// A draw is mean + L z with L L^T the sample covariance, which has the same distribution as
/// mean + X_c^T z / sqrt(n - 1) with z ~ N(0, I_n), X_c the centred points.
struct OneCluster {
    mean: Array1<f64>,
    /// L^T, shape (dim, dim).
    factor: Array2<f64>,
}

impl OneCluster {
    fn fitted(points: &Array2<f64>) -> Self {
        let n = points.nrows() as f64;
        let mean = points.sum_axis(Axis(0)) / n;
        let centred = points - &mean;
        let covariance = centred.t().dot(&centred) / (n - 1.0);
        let factor = cholesky(&covariance).reversed_axes();
        Self { mean, factor }
    }

    fn draw(&self, n: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
        let normal = Array2::from_shape_simple_fn((n, self.mean.len()), || gaussian(rng));
        let mut points = normal.dot(&self.factor) + &self.mean;
        for mut point in points.rows_mut() {
            let length = point.dot(&point).sqrt();
            if length > 0.0 {
                point /= length;
            }
        }
        points
    }
}

/// A standard normal draw (Box and Muller 1958).
fn gaussian(rng: &mut ChaCha8Rng) -> f64 {
    // (0, 1], so that the logarithm is finite.
    let radius = (-2.0 * (1.0 - rng.r#gen::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.r#gen::<f64>()).cos()
}

/// Lower-triangular L with L L^T = `matrix`, symmetric positive semidefinite. Pivots below 1e-12 of the
/// largest diagonal entry are rounding of 0: their column is zero.
fn cholesky(matrix: &Array2<f64>) -> Array2<f64> {
    let n = matrix.nrows();
    let floor = 1e-12 * matrix.diag().iter().copied().fold(0.0, f64::max);
    let mut lower = Array2::<f64>::zeros((n, n));
    for j in 0..n {
        let done = lower.slice(ndarray::s![j, ..j]).to_owned();
        let pivot = matrix[[j, j]] - done.dot(&done);
        if pivot <= floor {
            continue;
        }
        let root = pivot.sqrt();
        lower[[j, j]] = root;
        for i in j + 1..n {
            let dot = lower.slice(ndarray::s![i, ..j]).dot(&done);
            lower[[i, j]] = (matrix[[i, j]] - dot) / root;
        }
    }
    lower
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    /// A random unit vector.
    fn unit(dim: usize, rng: &mut ChaCha8Rng) -> Array1<f64> {
        direction(Array1::from_shape_simple_fn(dim, || gaussian(rng)))
    }

    /// Unit rows of `sizes.len()` clusters: centres with pairwise cosine `between`, items with pairwise
    /// cosine about `within` to those of their cluster; and the planted labels.
    fn mixture(
        sizes: &[usize],
        dim: usize,
        between: f64,
        within: f64,
        rng: &mut ChaCha8Rng,
    ) -> (Array2<f64>, Vec<usize>) {
        let n = sizes.iter().sum();
        let mut rows = Array2::zeros((n, dim));
        let mut label = Vec::new();
        // Orthonormal directions by Gram and Schmidt.
        let mut axes: Vec<Array1<f64>> = Vec::new();
        for _ in 0..=sizes.len() {
            let mut axis = unit(dim, rng);
            for other in &axes {
                axis = &axis - &(other * axis.dot(other));
            }
            axes.push(direction(axis));
        }
        let (common, own) = axes.split_first().unwrap();
        for ((cluster, &size), own) in sizes.iter().enumerate().zip(own) {
            let centre = direction(common * between.sqrt() + own * (1.0 - between).sqrt());
            for _ in 0..size {
                let noise = unit(dim, rng);
                let item = direction(&centre * within.sqrt() + &noise * (1.0 - within).sqrt());
                rows.row_mut(label.len()).assign(&item);
                label.push(cluster);
            }
        }
        (rows, label)
    }

    /// One cluster stretched along four directions, plus isotropic noise.
    fn elongated(
        n: usize,
        dim: usize,
        stretch: f64,
        noise: f64,
        rng: &mut ChaCha8Rng,
    ) -> Array2<f64> {
        let centre = unit(dim, rng);
        let axes: Vec<Array1<f64>> = (0..4).map(|_| unit(dim, rng)).collect();
        let mut rows = Array2::zeros((n, dim));
        for mut row in rows.rows_mut() {
            let mut x = &centre + &(unit(dim, rng) * noise);
            for axis in &axes {
                x += &(axis * (stretch * gaussian(rng)));
            }
            row.assign(&direction(x));
        }
        rows
    }

    /// Of `runs` mixtures, how many are found with an adjusted Rand index of .95 or more.
    fn found(runs: u64, sizes: &[usize], dim: usize) -> usize {
        let hit = |&run: &u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(run);
            let (rows, label) = mixture(sizes, dim, 0.75, 0.8, &mut rng);
            let found = partition(&rows, 1, run as u32);
            adjusted_rand_index(&label, &found.label) >= 0.95
        };
        (0..runs).into_par_iter().filter(hit).count()
    }

    #[test]
    fn planted_subclusters_are_found() {
        // Centres at cosine .75, items at .8: the hardest case that is promised.
        for dim in [32, 128, 512] {
            for sizes in [&[8, 8][..], &[8, 20], &[10, 10, 10]] {
                let hits = found(20, sizes, dim);
                assert!(hits >= 18, "{sizes:?} in {dim} dimensions: {hits} of 20");
            }
        }
    }

    #[test]
    fn one_cluster_stays_one() {
        // 200 trials at the kept level of 5 %: 10 expected, 3 binomial standard errors are 9.
        let mut cut = [0, 0];
        for (dim, n) in [(32, 16), (32, 40), (256, 12), (256, 30)] {
            let counts = (0..50_u64).into_par_iter().map(|run| {
                let mut rng = ChaCha8Rng::seed_from_u64(run);
                let (isotropic, _) = mixture(&[n], dim, 0.5, 0.8, &mut rng);
                let elongated = elongated(n, dim, 0.2, 0.2, &mut rng);
                [isotropic, elongated]
                    .map(|rows| usize::from(partition(&rows, 1, run as u32).k > 1))
            });
            for [isotropic, elongated] in counts.collect::<Vec<_>>() {
                cut[0] += isotropic;
                cut[1] += elongated;
            }
        }
        assert!(cut.iter().all(|&cut| cut <= 19), "{cut:?} of 200");
    }

    #[test]
    fn few_items_or_equal_ones_stay_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (rows, _) = mixture(&[4, 3], 32, 0.0, 0.99, &mut rng);
        assert_eq!(partition(&rows, 0, 0).k, 1);
        let equal = Array2::from_shape_fn((30, 4), |(_, d)| f64::from(u8::from(d == 0)));
        let found = partition(&equal, 0, 0);
        assert_eq!((found.k, found.stability), (1, None));
        assert_eq!(found.label, vec![0; 30]);
    }

    #[test]
    fn a_lone_outlier_is_no_subcluster() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (mut rows, label) = mixture(&[12, 12], 64, 0.5, 0.9, &mut rng);
        rows.row_mut(3).assign(&unit(64, &mut rng));
        let found = partition(&rows, 0, 0);
        assert_eq!(found.k, 2);
        let kept: Vec<usize> = (0..24).filter(|&i| i != 3).collect();
        let of = |all: &[usize]| kept.iter().map(|&i| all[i]).collect::<Vec<_>>();
        assert_eq!(adjusted_rand_index(&of(&label), &of(&found.label)), 1.0);
    }

    #[test]
    fn more_items_than_dimensions_and_clear_gaps() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (rows, label) = mixture(&[30, 40], 16, 0.3, 0.9, &mut rng);
        let found = partition(&rows, 0, 0);
        assert_eq!(found.label, label);
        assert!(found.stability.unwrap() > 0.95);
    }

    #[test]
    fn the_separation_leaves_each_item_out_of_its_own_half() {
        // Points 0, 1 | 10, 11 on a line: margins by hand. Item 0: 0 * 1 - 0 = 0; item 1: 1 * 0 - 1 * 10.5;
        // items 10 and 11: 10 * 11 - 10 * .5 and 11 * 10 - 11 * .5.
        let points = ndarray::array![[0.0], [1.0], [10.0], [11.0]];
        let margins = [0.0, -10.5, 105.0, 104.5];
        let means = [-5.25, 104.75];
        let squares = 2.0 * 5.25_f64.powi(2) + 2.0 * 0.25_f64.powi(2);
        let expected = (means[0] + means[1]) / 2.0 / (squares / 2.0).sqrt();
        assert_eq!(
            margins.iter().sum::<f64>() / 4.0,
            (means[0] + means[1]) / 2.0
        );
        assert!((separation(&points, &[0, 0, 1, 1]) - expected).abs() < 1e-12);
    }

    #[test]
    fn the_null_has_the_groups_mean_and_covariance_before_it_is_put_on_the_sphere() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let points = Array2::from_shape_simple_fn((20, 3), || gaussian(&mut rng));
        let null = OneCluster::fitted(&points);
        let mean = points.sum_axis(Axis(0)) / 20.0;
        assert!((&null.mean - &mean).iter().all(|d| d.abs() < 1e-12));
        let mut covariance = Array2::<f64>::zeros((3, 3));
        for point in points.rows() {
            let d = &point - &mean;
            for i in 0..3 {
                for j in 0..3 {
                    covariance[[i, j]] += d[i] * d[j] / 19.0;
                }
            }
        }
        let rebuilt = null.factor.t().dot(&null.factor);
        assert!((&rebuilt - &covariance).iter().all(|d| d.abs() < 1e-12));
        let drawn = null.draw(5, &mut rng);
        for point in drawn.rows() {
            assert!((point.dot(&point) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_singular_matrix_has_a_factor() {
        let rows = ndarray::array![[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]];
        let gram = rows.dot(&rows.t());
        let factor = cholesky(&gram);
        assert!(
            (&factor.dot(&factor.t()) - &gram)
                .iter()
                .all(|d| d.abs() < 1e-12)
        );
    }
}
