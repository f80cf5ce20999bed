//! Pseudo-identities: clusters of the old gallery that stand in for labels that nobody gave.
//!
//! Average linkage, cut where the leave-one-out silhouette is highest among the cuts that an audit can use. Retrieval held
//! against them says how far it agrees with the old model; it cannot say whether the old model is right.
//!
//! Linkage is quadratic. Of a large gallery only what lies nearest to a sample of the queries is clustered: a sample of the
//! gallery would leave clusters without the items that a query finds first.

use ndarray::Array2;
use rayon::prelude::*;

use super::groups::Groups;
use super::linkage::Dendrogram;
use super::nearest::nearest;
use super::prototypes::Prototypes;
use super::{StructureOptions, adjusted_rand_index, dense, draw, embedded, unit_embeddings};
use crate::domain::{Embeddings, Probe};
use crate::stats::mean;
use crate::topk::Gallery;

/// Gallery items that are clustered at most.
const MOST_CLUSTERED: usize = 10_000;

/// Old neighbours of a query that are clustered, where the gallery has more items than that.
const NEIGHBOURS: usize = 5;

/// Queries that search a larger gallery at most.
const MOST_QUERIES: usize = MOST_CLUSTERED / NEIGHBOURS;

/// From one number of clusters that is tried to the next, before the neighbourhood of the best is tried.
const GRID_RATIO: f64 = 1.25;

/// Numbers of clusters tried between two that were; each time the interval shrinks to two steps.
const REFINED: usize = 8;

/// Clusters that the judge can use: as many as it needs query identities, and none with so large a share of the items that
/// it would dominate. A silhouette alone likes to cut off a few outliers.
const FEWEST_CLUSTERS: usize = 20;
/// See [`FEWEST_CLUSTERS`].
const LARGEST_SHARE: f64 = 0.1;
/// Of the highest silhouette a usable cut must have this share: a gallery of a few clear clusters is not cut to pieces.
const CLEAR_SHARE: f64 = 0.5;

/// Parts that the clustering's stability is read from.
const PARTS: usize = 5;

/// Their share of the clustered items: drawn without repeats, for repeats would be clusters of their own.
const PART_SHARE: f64 = 0.8;

/// Streams of the seed; identities have theirs from 0 on.
const QUERIES_STREAM: u64 = 1 << 41;
/// See [`QUERIES_STREAM`].
const PARTS_STREAM: u64 = 1 << 42;

/// Clusters of the old gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct PseudoIdentities {
    /// Cluster of each probe item; of a gallery item beyond the reach of all clusters [`Self::outside`]; `None` for junk and
    /// for items without an old embedding.
    pub of_item: Vec<Option<u32>>,
    /// Item index of the clustered item nearest to each cluster's prototype.
    pub medoids: Vec<usize>,
    /// Mean leave-one-out silhouette of the clustered items, in [-1, 1]; `None` where it allows one cluster only.
    pub silhouette: Option<f64>,
    /// Mean adjusted Rand index against the clusterings of four fifths of the items, in [-1, 1]; `None` with one cluster.
    pub stability: Option<f64>,
    /// Gallery items that were clustered.
    pub clustered: usize,
    /// Queries around which the gallery was clustered; the others do not search. `None`: the whole gallery was clustered.
    pub searching: Option<Vec<usize>>,
    /// Adjusted Rand index of the clusters' gallery items and their labels, which were not used; `None` without labels.
    pub labels_agreement: Option<f64>,
}

impl PseudoIdentities {
    /// What gallery items have in the place of a cluster that no cluster reaches.
    pub fn outside(&self) -> u32 {
        self.medoids.len() as u32
    }
}

/// Clusters the old gallery and puts the clusters in the place of the labels, each named after the item in its middle.
pub fn stand_in(
    probe: &mut Probe,
    old: &Embeddings,
    options: &StructureOptions,
) -> PseudoIdentities {
    let found = pseudo_identities(probe, old, options);
    let name = |&medoid: &usize| format!("around {}", probe.items[medoid].id);
    let names = found.medoids.iter().map(name).collect();
    probe.relabel(&found.of_item, names, found.searching.as_deref());
    found
}

/// Clusters the old gallery; every item that is not junk gets a pseudo-identity, queries that of the nearest prototype.
///
/// Of a gallery of over 10,000 items the 5 nearest of each of 2,000 queries at most are clustered, the queries drawn by the
/// seed; another item joins the nearest prototype if it is no farther from it than the farthest item of its cluster.
///
/// One cluster where no partition has a positive silhouette, as in a collapsed space. Costs clustered^2 x dim a few dozen
/// times, and items x clusters x dim.
pub fn pseudo_identities(
    probe: &Probe,
    old: &Embeddings,
    options: &StructureOptions,
) -> PseudoIdentities {
    let old = &*unit_embeddings(old, options.similarity);
    let gallery = embedded(probe.gallery(), old);
    let searching: Option<Vec<usize>> = (gallery.len() > MOST_CLUSTERED).then(|| {
        let queries = embedded(probe.queries(), old);
        let chosen = draw(queries.len(), MOST_QUERIES, options.seed, QUERIES_STREAM);
        chosen
            .into_iter()
            .map(|position| queries[position])
            .collect()
    });
    let clustered: Vec<usize> = match &searching {
        Some(queries) => neighbourhood(old, queries, &gallery),
        None => gallery.clone(),
    };
    let mut of_item = vec![None; probe.items.len()];
    if clustered.is_empty() {
        return PseudoIdentities {
            of_item,
            medoids: Vec::new(),
            silhouette: None,
            stability: None,
            clustered: 0,
            searching,
            labels_agreement: None,
        };
    }
    let found = Clustering::of(old, &clustered);
    for (&item, &cluster) in clustered.iter().zip(&found.label) {
        of_item[item] = Some(cluster as u32);
    }
    let groups = groups(&found.label);
    let of_clustered = Gallery {
        embeddings: old,
        items: &clustered,
    };
    let prototypes = Prototypes::new(of_clustered, &groups);
    let middles = Middles::new(of_clustered, &prototypes);
    let all: Vec<usize> = (0..groups.len()).collect();
    let of_prototypes = Gallery {
        embeddings: &prototypes.directions,
        items: &all,
    };
    let is_left = |&item: &usize| {
        of_item[item].is_none() && probe.items[item].identity.is_some() && old.has(item)
    };
    let rest: Vec<usize> = (0..probe.items.len()).filter(is_left).collect();
    let one_each = vec![1; rest.len()];
    // An item of both roles that does not search is gallery.
    let searches = |item: usize| match &searching {
        Some(queries) => queries.binary_search(&item).is_ok(),
        None => probe.items[item].role.is_query(),
    };
    let near = nearest(old, &rest, of_prototypes, &one_each, |_, _| false);
    for (&item, near) in rest.iter().zip(near) {
        let (cluster, cosine) = near[0];
        let is_reached = f64::from(cosine) >= middles.reach[cluster] || searches(item);
        let outside = middles.medoids.len();
        of_item[item] = Some(if is_reached { cluster } else { outside } as u32);
    }
    PseudoIdentities {
        labels_agreement: labels_agreement(probe, &gallery, &of_item, middles.medoids.len()),
        of_item,
        silhouette: found.silhouette,
        stability: (groups.len() > 1)
            .then(|| stability(old, &clustered, &found.label, options.seed)),
        clustered: clustered.len(),
        medoids: middles.medoids,
        searching,
    }
}

/// The gallery items nearest to each of the queries, rising.
fn neighbourhood(old: &Embeddings, queries: &[usize], gallery: &[usize]) -> Vec<usize> {
    let of_gallery = Gallery {
        embeddings: old,
        items: gallery,
    };
    let wanted = vec![NEIGHBOURS; queries.len()];
    let is_itself = |query: usize, position: usize| queries[query] == gallery[position];
    let near = nearest(old, queries, of_gallery, &wanted, is_itself);
    let positions = near.iter().flatten().map(|&(position, _)| position);
    let mut items: Vec<usize> = positions.map(|position| gallery[position]).collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// How alike clusters and labels are, where the probe has more than one label. What is of no cluster says nothing.
fn labels_agreement(
    probe: &Probe,
    gallery: &[usize],
    of_item: &[Option<u32>],
    outside: usize,
) -> Option<f64> {
    if probe.identities.len() < 2 {
        return None;
    }
    let pairs = gallery.iter().filter_map(|&item| {
        let label = probe.items[item].identity.get()?;
        Some((label as usize, of_item[item]? as usize))
    });
    let pairs = pairs.filter(|&(_, cluster)| cluster != outside);
    let (labels, clusters): (Vec<usize>, Vec<usize>) = pairs.unzip();
    Some(adjusted_rand_index(&labels, &clusters))
}

/// A partition of some items.
struct Clustering {
    /// Cluster of each, numbered by first item.
    label: Vec<usize>,
    silhouette: Option<f64>,
}

impl Clustering {
    /// The cut of the items' dendrogram with the highest silhouette, of those that the judge can use if one of them is clear
    /// enough; one cluster if none at all has a positive one.
    fn of(old: &Embeddings, items: &[usize]) -> Self {
        let n = items.len();
        let mut rows = Array2::zeros((n, old.dim()));
        for (mut row, &item) in rows.rows_mut().into_iter().zip(items) {
            let out = row.as_slice_mut().expect("in standard layout");
            assert!(
                old.read_into(item, out),
                "only embedded items are clustered"
            );
        }
        let dendrogram = Dendrogram::average_linkage(&rows);
        let rows = dense(n, old.dim(), rows.into_raw_vec_and_offset().0);
        let all: Vec<usize> = (0..n).collect();
        let gallery = Gallery {
            embeddings: &rows,
            items: &all,
        };
        let score = |k: usize| {
            let label = dendrogram.cut(k);
            let groups = groups(&label);
            let silhouette = silhouette(gallery, &groups);
            let largest = (0..groups.len()).map(|cluster| groups.size(cluster)).max();
            let is_usable = k >= FEWEST_CLUSTERS
                && largest.is_some_and(|largest| largest as f64 <= LARGEST_SHARE * n as f64);
            Score {
                is_usable,
                silhouette,
            }
        };
        match best_count(n, score) {
            Some((k, best)) if best.silhouette > 0.0 => Self {
                label: dendrogram.cut(k),
                silhouette: Some(best.silhouette),
            },
            _ => Self {
                label: vec![0; n],
                silhouette: None,
            },
        }
    }
}

/// Items by their cluster.
fn groups(label: &[usize]) -> Groups {
    Groups::new(label.iter().map(|&cluster| cluster as u32).collect())
}

/// How good a cut is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score {
    is_usable: bool,
    silhouette: f64,
}

/// The number of clusters in 2..n with the best score, of equal ones the lowest, and the score: a geometric grid, then twice
/// a finer one around the best so far. `None` for fewer than three items.
fn best_count(n: usize, score: impl Fn(usize) -> Score) -> Option<(usize, Score)> {
    let last = n.checked_sub(1).filter(|&last| last >= 2)?;
    let mut tried: Vec<(usize, Score)> = Vec::new();
    let mut grid = vec![2, last];
    let mut next = 2.0;
    while next < last as f64 {
        grid.push(next as usize);
        next = (next * GRID_RATIO).max(next + 1.0);
    }
    for _ in 0..=2 {
        for &k in &grid {
            if tried.iter().all(|&(other, _)| other != k) {
                tried.push((k, score(k)));
            }
        }
        tried.sort_by_key(|&(k, _)| k);
        let best = best_of(&tried);
        let low = tried[best.saturating_sub(1)].0;
        let high = tried[(best + 1).min(tried.len() - 1)].0;
        let between = |step: usize| low + (high - low) * step / (REFINED + 1);
        grid = (1..=REFINED).map(between).collect();
    }
    Some(tried[best_of(&tried)])
}

/// The first of the highest of the usable ones, or of all where those are not clear enough.
fn best_of(tried: &[(usize, Score)]) -> usize {
    let highest = |of: &dyn Fn(&Score) -> bool| {
        let mut best: Option<usize> = None;
        for (index, (_, score)) in tried.iter().enumerate() {
            let beats = |best: usize| score.silhouette > tried[best].1.silhouette;
            if of(score) && best.is_none_or(beats) {
                best = Some(index);
            }
        }
        best
    };
    let overall = highest(&|_| true).expect("some were tried");
    let least = CLEAR_SHARE * tried[overall].1.silhouette;
    let is_clear = |&usable: &usize| tried[usable].1.silhouette >= least;
    highest(&|score| score.is_usable)
        .filter(is_clear)
        .unwrap_or(overall)
}

/// Mean of (b - a) / max(a, b): a the distance of an item to its cluster's prototype without the item, b to the nearest
/// other prototype; 0 for an only item (the silhouette of Rousseeuw 1987, simplified to centres by Hruschka et al. 2004,
/// here leave-one-out, for an item is near a centre that it is itself).
fn silhouette(gallery: Gallery<'_>, groups: &Groups) -> f64 {
    let prototypes = Prototypes::new(gallery, groups);
    let sums = prototypes.sums(0..gallery.items.len());
    let all: Vec<usize> = (0..groups.len()).collect();
    let of_prototypes = Gallery {
        embeddings: &prototypes.directions,
        items: &all,
    };
    let is_own = |position: usize, cluster: usize| groups.of(position) == cluster;
    let wanted = vec![1; gallery.items.len()];
    let rivals = nearest(
        gallery.embeddings,
        gallery.items,
        of_prototypes,
        &wanted,
        is_own,
    );
    let each = rivals.par_iter().enumerate().map(|(position, rivals)| {
        if groups.size(groups.of(position)) < 2 {
            return 0.0;
        }
        let rival = rivals.first().expect("two clusters at least").1;
        let a = 1.0 - prototypes.without(position, &sums);
        let b = 1.0 - f64::from(rival);
        let most = a.max(b);
        // Of a collapsed space the two are rounding.
        if most > 1e-6 { (b - a) / most } else { 0.0 }
    });
    // Summed in one order, whatever the threads.
    let each: Vec<f64> = each.collect();
    mean(&each)
}

/// The middle of each cluster, and how far it reaches.
struct Middles {
    /// The item nearest to the prototype, of equal ones the first.
    medoids: Vec<usize>,
    /// The lowest cosine of an item to the prototype without the item, for those that may join have no part in it either; 1
    /// of an only item.
    reach: Vec<f64>,
}

impl Middles {
    fn new(gallery: Gallery<'_>, prototypes: &Prototypes<'_>) -> Self {
        let groups = prototypes.groups;
        let sums = prototypes.sums(0..gallery.items.len());
        let clusters = groups.len();
        let mut highest = vec![f64::NEG_INFINITY; clusters];
        let mut found = Self {
            medoids: vec![0; clusters],
            reach: vec![1.0; clusters],
        };
        for (position, &item) in gallery.items.iter().enumerate() {
            let cluster = groups.of(position);
            let row = gallery.embeddings.get(item);
            let row = row.expect("clustered items are embedded");
            let sum = sums.of(cluster);
            let cosine: f64 = sum.iter().zip(&*row).map(|(&s, &x)| s * f64::from(x)).sum();
            if cosine > highest[cluster] {
                highest[cluster] = cosine;
                found.medoids[cluster] = item;
            }
            if groups.size(cluster) > 1 {
                let without = prototypes.without(position, &sums);
                found.reach[cluster] = found.reach[cluster].min(without);
            }
        }
        found
    }
}

/// How alike the items are clustered when a fifth of them is missing.
fn stability(old: &Embeddings, items: &[usize], label: &[usize], seed: u64) -> f64 {
    let size = ((items.len() as f64 * PART_SHARE) as usize).max(1);
    let agreements = (0..PARTS).map(|part| {
        let chosen = draw(items.len(), size, seed, PARTS_STREAM + part as u64);
        let part: Vec<usize> = chosen.iter().map(|&position| items[position]).collect();
        let whole: Vec<usize> = chosen.iter().map(|&position| label[position]).collect();
        adjusted_rand_index(&Clustering::of(old, &part).label, &whole)
    });
    agreements.sum::<f64>() / PARTS as f64
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::testing::{gaussian_unit, probe_of};
    use super::*;
    use crate::domain::{OptionalIndex, Role};

    /// `each` items around each of `centres` random directions, at cosine about `within` to it.
    fn around(
        centres: usize,
        each: usize,
        dim: usize,
        within: f64,
        seed: u64,
    ) -> (Embeddings, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rows = Array2::zeros((centres * each, dim));
        let mut label = Vec::new();
        for centre in 0..centres {
            let axis = gaussian_unit(dim, &mut rng);
            for _ in 0..each {
                let noise = gaussian_unit(dim, &mut rng) * (1.0 - within * within).sqrt();
                let row = (&axis * within + noise).mapv(|v| v as f32);
                rows.row_mut(label.len()).assign(&row);
                label.push(centre);
            }
        }
        (Embeddings::dense(rows, true).unwrap(), label)
    }

    /// One label for all, as of a probe without labels.
    fn unlabelled(n: usize) -> Probe {
        probe_of(&vec![0; n])
    }

    fn clusters(found: &PseudoIdentities) -> Vec<usize> {
        let each = found.of_item.iter();
        each.map(|cluster| cluster.expect("every item has one") as usize)
            .collect()
    }

    #[test]
    fn planted_clusters_are_found() {
        let (old, label) = around(40, 9, 32, 0.85, 1);
        let probe = unlabelled(label.len());
        let found = pseudo_identities(&probe, &old, &StructureOptions::default());
        assert!(adjusted_rand_index(&clusters(&found), &label) > 0.98);
        assert_eq!(found.clustered, 360);
        assert!(found.silhouette.unwrap() > 0.5 && found.stability.unwrap() > 0.95);
        assert_eq!(found.labels_agreement, None);
        for (cluster, &medoid) in found.medoids.iter().enumerate() {
            assert_eq!(found.of_item[medoid], Some(cluster as u32));
        }
        let again = pseudo_identities(&probe, &old, &StructureOptions::default());
        assert_eq!(found, again);
    }

    /// Ten clusters are too few to be judged, and cutting them to pieces would be judging noise: what makes them twenty are
    /// the items farthest from all others.
    #[test]
    fn few_clear_clusters_stay_whole() {
        let (old, label) = around(10, 20, 32, 0.85, 8);
        let probe = unlabelled(label.len());
        let found = pseudo_identities(&probe, &old, &StructureOptions::default());
        assert!(adjusted_rand_index(&clusters(&found), &label) > 0.85);
    }

    #[test]
    fn labels_are_compared_and_not_used() {
        let (old, label) = around(20, 8, 32, 0.9, 2);
        let labels: Vec<u32> = label.iter().map(|&l| l as u32).collect();
        let labelled = probe_of(&labels);
        let options = StructureOptions::default();
        let with = pseudo_identities(&labelled, &old, &options);
        let without = pseudo_identities(&unlabelled(label.len()), &old, &options);
        assert_eq!(with.of_item, without.of_item);
        assert!(with.labels_agreement.unwrap() > 0.98);
    }

    #[test]
    fn queries_join_the_nearest_prototype_and_junk_joins_none() {
        let (old, label) = around(20, 8, 32, 0.9, 3);
        let mut probe = unlabelled(label.len());
        for item in (0..label.len()).step_by(8) {
            probe.items[item].role = Role::Query;
        }
        probe.items[1].identity = OptionalIndex::NONE;
        let found = pseudo_identities(&probe, &old, &StructureOptions::default());
        assert_eq!(found.clustered, label.len() - 20 - 1);
        assert_eq!(found.of_item[1], None);
        for item in (0..label.len()).filter(|&item| item != 1) {
            assert_eq!(found.of_item[item], found.of_item[label[item] * 8 + 2]);
        }
    }

    /// Clusters of ten in a gallery too large to be clustered whole; queries are in the first hundred of them.
    #[test]
    fn a_large_gallery_is_clustered_around_its_queries() {
        let (clusters, each) = (1_100, 10);
        let (old, label) = around(clusters, each, 48, 0.9, 7);
        let mut probe = unlabelled(label.len());
        for (item, of) in probe.items.iter_mut().enumerate() {
            of.role = match (label[item] < 100, item % each) {
                (true, 0) => Role::Query,
                (true, 1) => Role::Both,
                _ => Role::Gallery,
            };
        }
        let found = pseudo_identities(&probe, &old, &StructureOptions::default());
        let searching = found.searching.as_ref().expect("the gallery is large");
        assert_eq!(searching.len(), 200);
        assert!(searching.is_sorted());
        assert!(
            (500..=900).contains(&found.clustered),
            "{}",
            found.clustered
        );
        let of = |item: usize| found.of_item[item].expect("every item has one");
        // The rows of a searched cluster that were no query's neighbours join it; nothing else does.
        let (mut own, mut outside) = (0, 0);
        for (item, &cluster) in label.iter().enumerate() {
            match cluster < 100 {
                true => own += usize::from(of(item) == of(cluster * each)),
                false => outside += usize::from(of(item) == found.outside()),
            }
        }
        assert!(own >= 900, "{own} of 1000");
        assert_eq!(outside, 10_000);
        probe.relabel(
            &found.of_item,
            (0..found.outside()).map(|c| c.to_string()).collect(),
            Some(&searching[..150]),
        );
        assert_eq!(probe.outside, Some(found.outside()));
        // What is outside all clusters is no cluster, and no neighbour of what is.
        let structure = super::super::estimate(&probe, &old, &StructureOptions::default());
        assert_eq!(structure.subclusters.len(), found.medoids.len());
        let is_outside = |item: usize| of(item) == found.outside();
        assert!((0..label.len()).all(|item| {
            structure.subcluster_of(item).is_none()
                == (is_outside(item) || probe.items[item].identity.is_none())
        }));
        assert_eq!(probe.queries(), searching[..150]);
        // What was query and gallery stays in the gallery, a query that does not search is junk.
        assert_eq!(probe.gallery().len(), label.len() - 100);
    }

    #[test]
    fn items_of_both_roles_that_do_not_search_may_lie_outside() {
        let (clusters, each) = (1_100, 10);
        let (old, label) = around(clusters, each, 48, 0.9, 7);
        let probe = unlabelled(label.len());
        let found = pseudo_identities(&probe, &old, &StructureOptions::default());
        let searching = found.searching.as_ref().expect("the gallery is large");
        assert!(probe.items.iter().all(|item| item.role == Role::Both));
        let mut is_searched = vec![false; clusters];
        searching
            .iter()
            .for_each(|&item| is_searched[label[item]] = true);
        let unsearched: Vec<usize> = (0..label.len())
            .filter(|&item| !is_searched[label[item]])
            .collect();
        assert!(unsearched.len() > 1_000, "{}", unsearched.len());
        let outside = unsearched
            .iter()
            .filter(|&&item| found.of_item[item] == Some(found.outside()));
        assert_eq!(outside.count(), unsearched.len());
    }

    #[test]
    fn a_collapsed_space_is_one_cluster() {
        let rows = Array2::from_shape_fn((50, 8), |(_, d)| if d == 0 { 1.0 } else { 0.0 });
        let old = Embeddings::dense(rows, true).unwrap();
        let found = pseudo_identities(&unlabelled(50), &old, &StructureOptions::default());
        assert_eq!(found.medoids, [0]);
        assert_eq!((found.silhouette, found.stability), (None, None));
        assert!(found.of_item.iter().all(|&cluster| cluster == Some(0)));
    }

    #[test]
    fn few_items_are_one_cluster_and_none_are_none() {
        for n in [1, 2] {
            let (old, _) = around(n, 1, 8, 0.9, 4);
            let found = pseudo_identities(&unlabelled(n), &old, &StructureOptions::default());
            assert_eq!(found.medoids.len(), 1, "{n}");
        }
        let (old, _) = around(3, 1, 8, 0.9, 5);
        let mut probe = unlabelled(3);
        probe
            .items
            .iter_mut()
            .for_each(|item| item.identity = OptionalIndex::NONE);
        let found = pseudo_identities(&probe, &old, &StructureOptions::default());
        assert_eq!((found.medoids.len(), found.clustered), (0, 0));
    }

    /// The definition, item by item.
    #[test]
    fn the_silhouette_is_that_of_its_definition() {
        let (old, label) = around(7, 5, 12, 0.7, 6);
        let items: Vec<usize> = (0..label.len()).collect();
        let gallery = Gallery {
            embeddings: &old,
            items: &items,
        };
        let row = |i: usize| old.get(i).unwrap().iter().map(|&v| f64::from(v)).collect();
        let rows: Vec<Vec<f64>> = items.iter().map(|&i| row(i)).collect();
        // An only item too.
        let mut label = label;
        label[3] = 7;
        let distance = |i: usize, cluster: usize| {
            let mut sum = [0.0; 12];
            for j in (0..rows.len()).filter(|&j| j != i && label[j] == cluster) {
                sum.iter_mut().zip(&rows[j]).for_each(|(s, x)| *s += x);
            }
            let length = sum.iter().map(|s| s * s).sum::<f64>().sqrt();
            let dot: f64 = sum.iter().zip(&rows[i]).map(|(s, x)| s * x).sum();
            1.0 - dot / length
        };
        let each = (0..rows.len()).map(|i| {
            if label.iter().filter(|&&l| l == label[i]).count() == 1 {
                return 0.0;
            }
            let others = (0..8).filter(|&cluster| cluster != label[i]);
            let b = others
                .map(|cluster| distance(i, cluster))
                .fold(f64::INFINITY, f64::min);
            let a = distance(i, label[i]);
            (b - a) / a.max(b)
        });
        let expected = each.sum::<f64>() / rows.len() as f64;
        assert!((silhouette(gallery, &groups(&label)) - expected).abs() < 1e-6);
    }

    fn usable(silhouette: f64) -> Score {
        Score {
            is_usable: true,
            silhouette,
        }
    }

    /// Two far outliers make the best silhouette, and clusters that nothing can be tested on.
    #[test]
    fn a_few_outliers_are_no_clustering() {
        let (old, label) = around(40, 9, 32, 0.85, 1);
        let mut rows = Array2::zeros((label.len() + 2, 32));
        for item in 0..label.len() {
            // All but the last dimension share a direction: cosines of .8 between clusters.
            let row = old.get(item).unwrap();
            for (d, &x) in row.iter().enumerate() {
                rows[[item, d]] = x * 0.4 + if d == 0 { 0.9 } else { 0.0 };
            }
        }
        for outlier in 0..2 {
            rows[[label.len() + outlier, 0]] = -1.0;
        }
        let old = Embeddings::dense(rows, true).unwrap();
        let found = pseudo_identities(
            &unlabelled(label.len() + 2),
            &old,
            &StructureOptions::default(),
        );
        let clusters = clusters(&found);
        assert!(adjusted_rand_index(&clusters[..label.len()], &label) > 0.95);
    }

    #[test]
    fn the_number_of_clusters_is_found_between_the_grid_points() {
        for (n, peak) in [(1_000, 137), (1_000, 2), (1_000, 999), (40, 23), (3, 2)] {
            let score = |k: usize| usable(-(k as f64 / peak as f64).ln().abs());
            let (k, _) = best_count(n, score).unwrap();
            assert!(
                k.abs_diff(peak) * 50 <= peak,
                "{k} instead of {peak} of {n}"
            );
        }
        assert_eq!(best_count(2, |_| usable(1.0)), None);
        // Of equal ones the lowest.
        assert_eq!(best_count(50, |_| usable(1.0)), Some((2, usable(1.0))));
        // A usable one before a higher one, if it is at least half as high.
        let score = |usable: f64| {
            move |k: usize| Score {
                is_usable: k >= 20,
                silhouette: if k >= 20 {
                    usable
                } else {
                    1.0 - k as f64 / 100.0
                },
            }
        };
        assert_eq!(best_count(500, score(0.5)).map(|(k, _)| k), Some(20));
        assert_eq!(best_count(500, score(0.4)).map(|(k, _)| k), Some(2));
    }
}
