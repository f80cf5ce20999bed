//! How many sub-clusters an identity has, and which items are in which.
//!
//! Spherical k-means from the top down. A group is split only if the cut is cleaner than those of
//! [`NULL_DRAWS`] samples from one Gaussian cluster with the group's own mean and covariance: an elongated
//! cluster can be cut in two just as its own null can, while a gap cannot be had from a Gaussian.

use std::ops::RangeInclusive;

use ndarray::{Array2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::agreement::adjusted_rand_index;
use super::direction;
use super::k_means::KMeans;
use super::one_cluster::{OneCluster, cholesky};

/// Smaller groups stay whole: in halves of fewer than four, leaving an item out leaves two or fewer to
/// tell the spread within from the gap between.
const MIN_GROUP: usize = 8;

/// A smaller half is a few outliers, which credibility is for, and not a sub-cluster.
const MIN_HALF: usize = MIN_GROUP / 2;

/// At most this share of a group is set aside as outliers before the test.
const MAX_SET_ASIDE: f64 = 0.2;

/// One-cluster samples a test compares with.
const NULL_DRAWS: usize = 99;

/// Null draws that may be cut in two as cleanly: p = (1 + 1) / (1 + 99) = .02 for "more than one". With
/// the cut in more parts below, .03 is spent of the .05 that is promised, because the covariance is
/// estimated from the same items: at a nominal .05, 5.6 % of 1,200 rank-4 clusters were cut (up to 10 % at
/// one size and dimension), at .03 2.9 %.
const ROOT_ALLOWED: usize = 1;

/// How much evidence a cut takes.
#[derive(Clone, Copy)]
struct Proof {
    /// One-cluster samples to compare with.
    draws: usize,
    /// How many of them may be cut as cleanly.
    allowed: usize,
}

impl Proof {
    /// For an identity as a whole.
    const ROOT: Self = Self {
        draws: NULL_DRAWS,
        allowed: ROOT_ALLOWED,
    };

    /// For a part of a group that was cut in so many. Each further cut must beat every draw (p = .01 for a half), and more
    /// of them the more parts are tested: each at 5 % would often cut a true sub-cluster.
    fn of_part(parts: usize) -> Self {
        Self {
            draws: NULL_DRAWS * (parts - 1),
            allowed: 0,
        }
    }
}

/// One-cluster samples that tell in how many parts a group is cut that is proven to be more than one.
const PARTS_DRAWS: usize = 20;

/// Many sub-clusters at equal distances may show no clean cut in two, so a group is also cut in three up
/// to this many parts of at least [`MIN_GROUP`] on average; the cleanest must beat every draw (p = .01).
const MOST_PARTS: usize = 8;

/// That is tried only if the cut in two withstood this many null draws, which one group in six to eleven
/// does by chance and most groups with more parts do: it costs ten times the cut in two.
const SUGGESTIVE_DRAWS: usize = 10;

/// Starts of each k-means.
const STARTS: usize = 4;

/// Rounds of settling at most; groups are small and settle in far fewer.
const MAX_ITERATIONS: usize = 50;

/// Bootstrap samples of the stability.
const STABILITY_SAMPLES: usize = 10;

/// An identity's items in sub-clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// Sub-cluster of each item, 0..k in order of first appearance.
    pub label: Vec<usize>,
    /// Number of sub-clusters, at least 1.
    pub k: usize,
    /// Mean adjusted Rand index of the partition against k-means of bootstrap samples; `None` for k = 1.
    pub stability: Option<f64>,
}

/// Partitions unit rows, shape (items, dim), of one identity; `stream` keeps identities' draws apart.
pub fn partition(rows: &Array2<f64>, seed: u64, stream: u32) -> Partition {
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
    let mut groups = vec![((0..n).collect::<Vec<usize>>(), Proof::ROOT)];
    while let Some((group, proof)) = groups.pop() {
        match split_if_proven(&points.select(Axis(0), &group), proof, &mut rng) {
            Some(parts) => {
                let proof = Proof::of_part(parts.len());
                groups.extend(parts.into_iter().map(|part| {
                    let items = part.into_iter().map(|i| group[i]).collect();
                    (items, proof)
                }));
            }
            None => leaves.push(group),
        }
    }
    // Settling may leave a part empty, so k is counted afterwards.
    let label = if leaves.len() > 1 {
        in_order_of_appearance(&settle(&points, &leaves))
    } else {
        vec![0; n]
    };
    let k = label.iter().max().map_or(1, |&last| last + 1);
    let stability = (k > 1).then(|| stability(&points, &label, k, &mut rng));
    Partition {
        label,
        k,
        stability,
    }
}

/// A cut of a group in parts.
struct Cut {
    /// Part of each point.
    part: Vec<usize>,
    /// Items of each part.
    size: Vec<usize>,
    /// See [`separation`]: large when there are gaps.
    separation: f64,
}

impl Cut {
    /// Cuts by k-means.
    fn new(points: &Array2<f64>, parts: usize, rng: &mut ChaCha8Rng) -> Self {
        let part = KMeans::fit(points, parts, STARTS, rng).label;
        let mut size = vec![0; parts];
        for &p in &part {
            size[p] += 1;
        }
        let separation = separation(points, &part, &size);
        Self {
            part,
            size,
            separation,
        }
    }

    /// The cleanest of the cuts in these numbers of parts.
    fn cleanest(points: &Array2<f64>, parts: RangeInclusive<usize>, rng: &mut ChaCha8Rng) -> Self {
        parts
            .map(|parts| Self::new(points, parts, rng))
            .max_by(|a, b| a.separation.total_cmp(&b.separation))
            .expect("at least one number of parts is asked")
    }
}

/// The proven parts of a group (indices into `points`); outliers set aside are in none of them.
fn split_if_proven(
    points: &Array2<f64>,
    proof: Proof,
    rng: &mut ChaCha8Rng,
) -> Option<Vec<Vec<usize>>> {
    let n = points.nrows();
    let mut kept: Vec<usize> = (0..n).collect();
    let (group, in_two) = loop {
        let group = points.select(Axis(0), &kept);
        if kept.len() < MIN_GROUP || (n - kept.len()) as f64 > MAX_SET_ASIDE * n as f64 {
            return None;
        }
        let cut = Cut::new(&group, 2, rng);
        let smaller = usize::from(cut.size[1] < cut.size[0]);
        if cut.size[smaller] == 0 {
            return None;
        }
        if cut.size[smaller] >= MIN_HALF {
            break (group, cut);
        }
        let mut parts = cut.part.iter();
        kept.retain(|_| parts.next() != Some(&smaller));
    };

    let null = OneCluster::fitted(&group);
    let withstood = survived(&in_two, 2..=2, &null, proof, rng);
    let most = MOST_PARTS.min(kept.len() / MIN_GROUP);
    let cut = if withstood == proof.draws {
        clearest(in_two, most, &group, &null, rng)
    } else if withstood >= SUGGESTIVE_DRAWS && most > 2 {
        let in_more = Cut::cleanest(&group, 3..=most, rng);
        let large_enough = in_more.size.iter().all(|&size| size >= MIN_HALF);
        let proof = Proof {
            allowed: 0,
            ..proof
        };
        if !large_enough || survived(&in_more, 3..=most, &null, proof, rng) < proof.draws {
            return None;
        }
        in_more
    } else {
        return None;
    };
    let mut parts = vec![Vec::new(); cut.size.len()];
    for (&item, &part) in kept.iter().zip(&cut.part) {
        parts[part].push(item);
    }
    Some(parts)
}

/// Of a group that is more than one cluster, the cut in 2 to `most` parts whose separation is most above what one cluster
/// gives when it is cut in as many: a cut in two may be proven of three. (Compared with a null as in the gap statistic of
/// Tibshirani, Walther and Hastie 2001.)
fn clearest(
    in_two: Cut,
    most: usize,
    group: &Array2<f64>,
    null: &OneCluster,
    rng: &mut ChaCha8Rng,
) -> Cut {
    if most < 3 {
        return in_two;
    }
    let n = group.nrows();
    let draws: Vec<Array2<f64>> = (0..PARTS_DRAWS).map(|_| null.draw(n, rng)).collect();
    let clearness = |cut: &Cut, rng: &mut ChaCha8Rng| {
        let parts = cut.size.len();
        let drawn = draws
            .iter()
            .map(|draw| Cut::new(draw, parts, rng).separation);
        cut.separation / (drawn.sum::<f64>() / PARTS_DRAWS as f64)
    };
    let mut best = (clearness(&in_two, rng), in_two);
    for parts in 3..=most {
        let cut = Cut::new(group, parts, rng);
        if cut.size.iter().any(|&size| size < MIN_HALF) {
            continue;
        }
        let clear = clearness(&cut, rng);
        if clear > best.0 {
            best = (clear, cut);
        }
    }
    best.1
}

/// Null draws until more of them were cut as cleanly in these numbers of parts than the proof allows: the cut is proven when
/// it survives them all. The rest need not be drawn once the outcome is decided.
fn survived(
    cut: &Cut,
    parts: RangeInclusive<usize>,
    null: &OneCluster,
    proof: Proof,
    rng: &mut ChaCha8Rng,
) -> usize {
    let mut as_clean = 0;
    for draw in 0..proof.draws {
        let drawn = null.draw(cut.part.len(), rng);
        if Cut::cleanest(&drawn, parts.clone(), rng).separation >= cut.separation {
            as_clean += 1;
            if as_clean > proof.allowed {
                return draw;
            }
        }
    }
    proof.draws
}

/// Mean margin over the pooled standard deviation of margins within the parts, where an item's margin is
/// its mean inner product with its own part minus that with the nearest other part.
///
/// The item is left out of its own part: in many dimensions an item's product with itself alone would
/// show a gap in any cut of noise. 0 when a part has fewer than two items.
fn separation(points: &Array2<f64>, part: &[usize], size: &[usize]) -> f64 {
    let (n, parts) = (part.len(), size.len());
    if n <= parts || size.iter().any(|&size| size < 2) {
        return 0.0;
    }
    let mut sums = Array2::<f64>::zeros((parts, points.ncols()));
    for (point, &p) in points.rows().into_iter().zip(part) {
        let mut sum = sums.row_mut(p);
        sum += &point;
    }
    let products = points.dot(&sums.t());
    let mut margins = Vec::with_capacity(n);
    let mut means = vec![0.0; parts];
    for ((point, products), &own) in points.rows().into_iter().zip(products.rows()).zip(part) {
        let inside = (products[own] - point.dot(&point)) / (size[own] as f64 - 1.0);
        let outside = (0..parts)
            .filter(|&other| other != own)
            .map(|other| products[other] / size[other] as f64)
            .fold(f64::NEG_INFINITY, f64::max);
        margins.push(inside - outside);
        means[own] += (inside - outside) / size[own] as f64;
    }
    let squares: f64 = margins
        .iter()
        .zip(part)
        .map(|(margin, &p)| (margin - means[p]).powi(2))
        .sum();
    let mean = means.iter().sum::<f64>() / parts as f64;
    // 0/0 when all points are the same: nothing is separated.
    let separation = mean / (squares / (n - parts) as f64).sqrt();
    if separation.is_nan() { 0.0 } else { separation }
}

/// Spherical k-means from the leaves' directions over all points, outliers included, until it settles.
fn settle(points: &Array2<f64>, leaves: &[Vec<usize>]) -> Vec<usize> {
    let mut members: Vec<Vec<usize>> = leaves.to_vec();
    let mut label = Vec::new();
    for _ in 0..MAX_ITERATIONS {
        // An emptied part would have no direction, and so cosine 0 to everything.
        members.retain(|items| !items.is_empty());
        let mut centres = Array2::zeros((members.len(), points.ncols()));
        for (mut centre, items) in centres.rows_mut().into_iter().zip(&members) {
            centre.assign(&direction(points.select(Axis(0), items).sum_axis(Axis(0))));
        }
        let nearest: Vec<usize> = points
            .dot(&centres.t())
            .rows()
            .into_iter()
            .map(|row| {
                let best = |a: usize, b: usize| if row[b] > row[a] { b } else { a };
                (0..members.len()).reduce(best).expect("a point has a part")
            })
            .collect();
        members.iter_mut().for_each(Vec::clear);
        for (point, &part) in nearest.iter().enumerate() {
            members[part].push(point);
        }
        if nearest == label {
            break;
        }
        label = nearest;
    }
    label
}

/// Mean adjusted Rand index between the partition and k-means of bootstrap samples of the points.
fn stability(points: &Array2<f64>, label: &[usize], k: usize, rng: &mut ChaCha8Rng) -> f64 {
    let n = points.nrows();
    let total: f64 = (0..STABILITY_SAMPLES)
        .map(|_| {
            let drawn: Vec<usize> = (0..n).map(|_| rng.gen_range(0..n)).collect();
            let fit = KMeans::fit(&points.select(Axis(0), &drawn), k, STARTS, rng);
            adjusted_rand_index(label, &fit.nearest(points))
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

#[cfg(test)]
#[expect(dead_code, reason = "galleries are planted elsewhere")]
#[path = "../../benches/simulations/mixtures.rs"]
mod mixtures;

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::mixtures::{elongated, mixture, unit};
    use super::*;

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
            for sizes in [&[8, 8][..], &[8, 20], &[12, 12, 12]] {
                let hits = found(20, sizes, dim);
                assert!(hits >= 18, "{sizes:?} in {dim} dimensions: {hits} of 20");
            }
        }
    }

    #[test]
    fn one_cluster_stays_one() {
        // The promise: k = 1 on 95 % of unstructured identities, here 190 of 200 of each kind.
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
        assert!(cut.iter().all(|&cut| cut <= 10), "{cut:?} of 200");
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
    fn settling_moves_misplaced_points_and_drops_an_emptied_part() {
        let points = ndarray::array![[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]];
        assert_eq!(
            settle(&points, &[vec![0, 1], vec![2, 3, 4]]),
            [0, 0, 1, 1, 0]
        );
        // The third part's direction ties with the first's, and the first of equals wins.
        let left = settle(&points, &[vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(in_order_of_appearance(&left), [0, 0, 1, 1, 0]);
    }

    #[test]
    fn the_separation_leaves_each_item_out_of_its_own_part() {
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
        assert!((separation(&points, &[0, 0, 1, 1], &[2, 2]) - expected).abs() < 1e-12);
    }
}
