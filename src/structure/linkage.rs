//! Average linkage (UPGMA, Sokal and Michener 1958) of unit rows by cosine distance, exact, on the retrieval kernel.
//!
//! The mean cosine between the items of two clusters is the inner product of the clusters' mean vectors, so "which
//! cluster is nearest to which" is a pass of the kernel over as many vectors as there are clusters. Two clusters that are
//! each other's nearest can be merged at once, all such pairs in one round: a merge never brings a cluster nearer to a
//! third than the nearer of its parts was, so the merges in the order of their heights are those of the greedy algorithm
//! (Bruynooghe 1977). For the same reason only clusters that lost their nearest look for a new one.

use std::cmp::Ordering;

use ndarray::Array2;

use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, QueryScan, Visitor, scan_one};

/// Two clusters that became one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Merge {
    /// A row of either cluster.
    rows: [usize; 2],
    /// Mean cosine distance between their rows, in [0, 2].
    height: f64,
}

/// All merges of n rows, from n clusters down to one.
#[derive(Debug)]
pub(super) struct Dendrogram {
    n: usize,
    /// By height; n - 1 of them.
    merges: Vec<Merge>,
}

impl Dendrogram {
    /// Links unit rows, shape (n, dim), n at least 1. Some n^2 x dim multiply-adds a round; the rounds shrink quickly.
    pub(super) fn average_linkage(rows: &Array2<f32>) -> Self {
        let n = rows.nrows();
        let mut clusters = Cluster::singles(rows);
        let mut merges = Vec::with_capacity(n.saturating_sub(1));
        while clusters.len() > 1 {
            find_nearest(&mut clusters);
            let merged = merge_mutual(&mut clusters);
            // The nearest kept from earlier rounds may be an ulp off what their rounded means give now, and of near-duplicates
            // then name each other in a circle. Looked for afresh, the nearest pair of all is mutual.
            if merged.is_empty() {
                clusters
                    .iter_mut()
                    .for_each(|cluster| cluster.nearest = None);
            }
            merges.extend(merged);
        }
        merges.sort_by(|a, b| a.height.total_cmp(&b.height));
        Self { n, merges }
    }

    /// The partition into k clusters, 1 <= k <= n: a cluster 0..k of each row, numbered by first row.
    pub(super) fn cut(&self, k: usize) -> Vec<usize> {
        let mut parent: Vec<usize> = (0..self.n).collect();
        for merge in &self.merges[..self.n - k] {
            let [a, b] = merge.rows.map(|row| root(&mut parent, row));
            parent[a.max(b)] = a.min(b);
        }
        let mut number = vec![usize::MAX; self.n];
        let mut next = 0;
        (0..self.n)
            .map(|row| {
                let root = root(&mut parent, row);
                if number[root] == usize::MAX {
                    number[root] = next;
                    next += 1;
                }
                number[root]
            })
            .collect()
    }
}

/// The row that stands for the row's cluster; halves the path on the way.
fn root(parent: &mut [usize], mut row: usize) -> usize {
    while parent[row] != row {
        parent[row] = parent[parent[row]];
        row = parent[row];
    }
    row
}

/// A cluster that is not merged yet.
struct Cluster {
    /// Its first row: the cluster's name in all rounds.
    row: usize,
    size: f64,
    /// Mean of its rows, shape (dim,).
    mean: Vec<f32>,
    /// The nearest other one, until that is merged.
    nearest: Option<Near>,
}

impl Cluster {
    /// One a row.
    fn singles(rows: &Array2<f32>) -> Vec<Self> {
        let single = |row| Self {
            row,
            size: 1.0,
            mean: rows.row(row).to_vec(),
            nearest: None,
        };
        (0..rows.nrows()).map(single).collect()
    }
}

/// How near another cluster is.
#[derive(Clone, Copy)]
struct Near {
    /// Mean cosine.
    cosine: f32,
    /// Breaks ties; the same for both clusters of a pair. Where all pairs tie (a collapsed space), the lowest index would
    /// be everybody's nearest and a round would merge one pair; random keys merge many.
    key: u64,
    row: usize,
}

impl Near {
    fn new(cosine: f32, own: usize, row: usize) -> Self {
        let pair = ((own.min(row) as u64) << 32) | own.max(row) as u64;
        Self {
            cosine,
            key: split_mix(pair),
            row,
        }
    }

    fn beats(&self, other: &Near) -> bool {
        let order = self.cosine.total_cmp(&other.cosine);
        order.then(self.key.cmp(&other.key)) == Ordering::Greater
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014): one pair, one number, no two alike.
fn split_mix(pair: u64) -> u64 {
    let mut z = pair.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Looks for the nearest of every cluster that has none.
fn find_nearest(clusters: &mut [Cluster]) {
    let (n, dim) = (clusters.len(), clusters[0].mean.len());
    let means = clusters.iter().flat_map(|c| &c.mean).copied().collect();
    let means = Array2::from_shape_vec((n, dim), means).expect("a mean a cluster");
    let means = Embeddings::dense(means, false).expect("means of unit rows are finite");
    let all: Vec<usize> = (0..n).collect();
    let rows: Vec<usize> = clusters.iter().map(|cluster| cluster.row).collect();
    let asking: Vec<usize> = (0..n).filter(|&i| clusters[i].nearest.is_none()).collect();
    let visitor = |&own: &usize| Nearest {
        own,
        rows: &rows,
        found: None,
    };
    let gallery = Gallery {
        embeddings: &means,
        items: &all,
    };
    let queries = QueryScan {
        embeddings: &means,
        items: &asking,
        visitors: asking.iter().map(visitor).collect(),
    };
    let visitors = scan_one(gallery, Similarity::Ip, queries);
    let visitors = visitors.expect("means of unit rows do not overflow");
    let found: Vec<Option<Near>> = visitors.into_iter().map(|visitor| visitor.found).collect();
    for (&i, found) in asking.iter().zip(found) {
        clusters[i].nearest = found;
    }
}

/// Keeps the nearest other cluster.
struct Nearest<'a> {
    own: usize,
    /// The name of each cluster.
    rows: &'a [usize],
    found: Option<Near>,
}

impl Visitor for Nearest<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.found.map_or(f32::NEG_INFINITY, |near| near.cosine)
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        for (lane, &cosine) in row.iter().enumerate() {
            let other = first + lane;
            if cosine < self.floor() || other == self.own {
                continue;
            }
            let near = Near::new(cosine, self.rows[self.own], self.rows[other]);
            if self.found.is_none_or(|found| near.beats(&found)) {
                self.found = Some(near);
            }
        }
    }
}

/// Merges all pairs that are each other's nearest; where all were looked for in this round there is one at least, the nearest
/// pair of all.
fn merge_mutual(clusters: &mut Vec<Cluster>) -> Vec<Merge> {
    let rows: Vec<usize> = clusters.iter().map(|cluster| cluster.row).collect();
    // Clusters stay in the order of their first rows.
    let index = |row: usize| rows.binary_search(&row).expect("the nearest is not merged");
    let mut merges = Vec::new();
    let mut gone = vec![false; clusters.len()];
    let mut changed = vec![false; clusters.len()];
    for a in 0..clusters.len() {
        let near = clusters[a].nearest.expect("two clusters at least");
        let b = index(near.row);
        let back = clusters[b].nearest.expect("two clusters at least");
        if a > b || back.row != clusters[a].row {
            continue;
        }
        merges.push(Merge {
            rows: [clusters[a].row, clusters[b].row],
            height: (1.0 - f64::from(near.cosine)).max(0.0),
        });
        let (of_a, of_b) = (clusters[a].size, clusters[b].size);
        let (head, tail) = clusters.split_at_mut(b);
        for (x, &y) in head[a].mean.iter_mut().zip(&tail[0].mean) {
            *x = ((of_a * f64::from(*x) + of_b * f64::from(y)) / (of_a + of_b)) as f32;
        }
        clusters[a].size += of_b;
        (changed[a], changed[b], gone[b]) = (true, true, true);
    }
    for i in 0..clusters.len() {
        let lost = |near: Near| changed[index(near.row)];
        if changed[i] || clusters[i].nearest.is_some_and(lost) {
            clusters[i].nearest = None;
        }
    }
    let mut gone = gone.into_iter();
    clusters.retain(|_| !gone.next().expect("one flag a cluster"));
    merges
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::adjusted_rand_index;
    use super::super::testing::gaussian_unit;
    use super::*;

    fn random_rows(n: usize, dim: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
        let mut rows = Array2::zeros((n, dim));
        for mut row in rows.rows_mut() {
            row.assign(&gaussian_unit(dim, rng).mapv(|v| v as f32));
        }
        rows
    }

    /// Copies that differ in their last digits: repeated texts, frames of a video.
    #[test]
    fn near_duplicates_come_to_an_end() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for noise in [6e-8, 1e-6, 1e-4] {
            let centers = random_rows(60, 64, &mut rng);
            let mut rows = Array2::zeros((300, 64));
            for (i, mut row) in rows.rows_mut().into_iter().enumerate() {
                row.assign(&centers.row(i / 5));
                row.mapv_inplace(|v| v + noise * rng.gen_range(-1.0..1.0_f32));
                let norm = row.dot(&row).sqrt();
                row.mapv_inplace(|v| v / norm);
            }
            let found = Dendrogram::average_linkage(&rows);
            assert_eq!(found.merges.len(), 299, "noise {noise}");
            let expected: Vec<usize> = (0..300).map(|i| i / 5).collect();
            assert_eq!(found.cut(60), expected, "noise {noise}");
        }
    }

    /// The definition: the two clusters with the least mean distance between their rows, again and again.
    fn greedy(rows: &Array2<f32>) -> (Vec<f64>, Vec<Vec<usize>>) {
        let n = rows.nrows();
        let wide = rows.mapv(f64::from);
        let cosine = wide.dot(&wide.t());
        let mut clusters: Vec<Vec<usize>> = (0..n).map(|row| vec![row]).collect();
        let (mut heights, mut labels) = (Vec::new(), Vec::new());
        while clusters.len() > 1 {
            let mut best = (f64::INFINITY, 0, 0);
            for a in 0..clusters.len() {
                for b in a + 1..clusters.len() {
                    let pairs = clusters[a]
                        .iter()
                        .flat_map(|&i| clusters[b].iter().map(move |&j| (i, j)));
                    let total: f64 = pairs.map(|(i, j)| 1.0 - cosine[[i, j]]).sum();
                    let mean = total / (clusters[a].len() * clusters[b].len()) as f64;
                    if mean < best.0 {
                        best = (mean, a, b);
                    }
                }
            }
            let (height, a, b) = best;
            let merged = clusters.remove(b);
            clusters[a].extend(merged);
            heights.push(height);
            let mut label = vec![0; n];
            for (index, cluster) in clusters.iter().enumerate() {
                cluster.iter().for_each(|&row| label[row] = index);
            }
            labels.push(label);
        }
        (heights, labels)
    }

    #[test]
    fn merges_are_those_of_the_definition() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        for (n, dim) in [(2, 3), (17, 3), (60, 16), (90, 5)] {
            let rows = random_rows(n, dim, &mut rng);
            let (heights, labels) = greedy(&rows);
            let found = Dendrogram::average_linkage(&rows);
            assert_eq!(found.merges.len(), n - 1);
            for (merge, height) in found.merges.iter().zip(&heights) {
                assert!((merge.height - height).abs() < 1e-5, "{n} x {dim}");
            }
            for (step, label) in labels.iter().enumerate() {
                let cut = found.cut(n - 1 - step);
                assert_eq!(adjusted_rand_index(&cut, label), 1.0, "{n} x {dim}, {step}");
            }
        }
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        linkage: GoldenLinkage,
    }

    #[derive(serde::Deserialize)]
    struct GoldenLinkage {
        rows: Vec<Vec<f32>>,
        heights: Vec<f64>,
        cuts: std::collections::BTreeMap<usize, Vec<usize>>,
    }

    #[test]
    fn heights_and_cuts_are_scipys() {
        let text = include_str!("../../fixtures/golden/label_free.json");
        let golden = serde_json::from_str::<Golden>(text).unwrap().linkage;
        let rows = Array2::from_shape_fn((golden.rows.len(), golden.rows[0].len()), |(i, d)| {
            golden.rows[i][d]
        });
        let found = Dendrogram::average_linkage(&rows);
        for (merge, height) in found.merges.iter().zip(&golden.heights) {
            assert!((merge.height - height).abs() < 1e-6, "{height}");
        }
        for (&k, label) in &golden.cuts {
            assert_eq!(adjusted_rand_index(&found.cut(k), label), 1.0, "{k}");
        }
    }

    #[test]
    fn a_cut_has_as_many_clusters_as_asked_numbered_by_first_row() {
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let rows = random_rows(40, 8, &mut rng);
        let found = Dendrogram::average_linkage(&rows);
        for k in 1..=40 {
            let label = found.cut(k);
            let mut seen = 0;
            for &cluster in &label {
                assert!(cluster <= seen);
                seen = seen.max(cluster + 1);
            }
            assert_eq!(seen, k);
        }
    }

    /// Equal rows tie with one another; pairing them off must not take a round each.
    #[test]
    fn a_collapsed_space_is_linked_in_few_rounds() {
        let mut rng = ChaCha8Rng::seed_from_u64(13);
        let one = random_rows(1, 8, &mut rng);
        let rows = Array2::from_shape_fn((4_000, 8), |(_, d)| one[[0, d]]);
        let mut clusters = Cluster::singles(&rows);
        let mut rounds = 0;
        while clusters.len() > 1 {
            find_nearest(&mut clusters);
            merge_mutual(&mut clusters);
            rounds += 1;
        }
        assert!(rounds < 60, "{rounds}");
        let found = Dendrogram::average_linkage(&rows);
        assert!(found.merges.iter().all(|merge| merge.height < 1e-6));
    }

    #[test]
    fn duplicates_are_merged_first() {
        let mut rng = ChaCha8Rng::seed_from_u64(14);
        let base = random_rows(20, 8, &mut rng);
        let of: Vec<usize> = (0..100).map(|_| rng.gen_range(0..20)).collect();
        let rows = Array2::from_shape_fn((100, 8), |(i, d)| base[[of[i], d]]);
        let mut distinct = of.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let label = Dendrogram::average_linkage(&rows).cut(distinct.len());
        assert_eq!(adjusted_rand_index(&label, &of), 1.0);
    }
}
