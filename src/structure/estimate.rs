//! What the old space looks like, from the old embeddings of the gallery.

use rayon::prelude::*;

use super::groups::Groups;
use super::prototypes::Reader;
use super::subclusters::{Partition, partition};
use super::{
    Assessed, NO_SUBCLUSTER, Structure, StructureOptions, SubCluster, credibility, dense, embedded,
    sample, unit_embeddings, unit_rows,
};
use crate::config::CredibilityCut;
use crate::domain::{Embeddings, Probe, Reference};
use crate::stats::mean;
use crate::topk::Gallery;

/// Estimates sub-clusters and credibility of the old gallery.
///
/// A probe that names no identities has no structure: no sub-clusters, no credibility, every item credible.
///
/// `ip` and `l2` audits are normalised here. Costs items x identities x dim for the prototypes and items^2 x dim for the
/// neighbours, or sample x items x dim; every score is the retrieval kernel's.
pub fn estimate(probe: &Probe, old: &Embeddings, options: &StructureOptions) -> Structure {
    if !probe.names_identities() {
        return Structure::none(probe.items.len());
    }
    let old = &*unit_embeddings(old, options.similarity);
    let gallery: Vec<usize> = embedded(probe.gallery(), old);
    let (identities, groups) = by_identity(probe, &gallery);
    let of_gallery = Gallery {
        embeddings: old,
        items: &gallery,
    };
    // Before there are centroids: of a gallery of millions they and the identities' prototypes take as much again.
    let assessed = sample(gallery.len(), options);
    let (scores, tau) = credibility::assess(
        of_gallery,
        &groups,
        &assessed,
        options.neighbours,
        probe.reference,
    );
    let items = assessed.iter().map(|&position| gallery[position] as u32);
    let credibility = Assessed::new(items.collect(), scores);

    // A cluster that stands in for an identity is not split again.
    let stands_in = probe.reference == Reference::OldModel;
    // Nothing is kept of the many that are one cluster: what is kept would lie between the large buffers that come and go,
    // and the holes that these leave could not be used again.
    let partitions: Vec<Option<Partition>> = (0..groups.len())
        .into_par_iter()
        .map(|group| {
            if stands_in {
                return None;
            }
            let items: Vec<usize> = groups.positions(group).map(|p| gallery[p]).collect();
            let found = partition(&unit_rows(old, &items), options.seed, identities[group]);
            (found.k > 1).then_some(found)
        })
        .collect();
    let stabilities = partitions.iter().flatten().filter_map(|p| p.stability);
    let stabilities: Vec<f64> = stabilities.collect();
    let stability = (!stabilities.is_empty()).then(|| mean(&stabilities));
    let mut subclusters = Vec::with_capacity(groups.len());
    let is_cluster = |&(group, _): &(usize, _)| probe.outside != Some(identities[group]);
    for (group, partition) in partitions.iter().enumerate().filter(is_cluster) {
        let k = partition.as_ref().map_or(1, |partition| partition.k);
        for index in 0..k {
            let is_in = |row: usize| partition.as_ref().is_none_or(|p| p.label[row] == index);
            let positions = groups.positions(group).enumerate();
            let own = positions.filter(|&(row, _)| is_in(row));
            subclusters.push(SubCluster {
                identity: identities[group],
                index_in_identity: index as u32,
                items: own.map(|(_, position)| gallery[position] as u32).collect(),
                radius: 0.0,
            });
        }
    }
    drop((groups, partitions));
    let centroids = measure(old, &mut subclusters);
    let mut assignment = vec![NO_SUBCLUSTER; probe.items.len()];
    for (index, subcluster) in subclusters.iter().enumerate() {
        for &item in &subcluster.items {
            assignment[item as usize] = index as u32;
        }
    }
    assign_queries(probe, old, &subclusters, &centroids, &mut assignment);
    Structure {
        subclusters,
        centroids,
        assignment,
        credibility,
        tau,
        cut: options.cut,
        cutoff: match options.cut {
            CredibilityCut::Combined => credibility::CUTOFF,
            CredibilityCut::Paper => credibility::PAPER_CUTOFF,
        },
        stability,
    }
}

/// The identities that the gallery has, rising, and its positions by their place among them.
fn by_identity(probe: &Probe, gallery: &[usize]) -> (Vec<u32>, Groups) {
    let identity = |item: usize| {
        probe.items[item]
            .identity
            .get()
            .expect("gallery() drops junk")
    };
    let mut is_present = vec![false; probe.identities.len()];
    for &item in gallery {
        is_present[identity(item) as usize] = true;
    }
    let present = |&identity: &u32| is_present[identity as usize];
    let identities: Vec<u32> = (0..is_present.len() as u32).filter(present).collect();
    let mut place = vec![0; is_present.len()];
    for (group, &identity) in identities.iter().enumerate() {
        place[identity as usize] = group as u32;
    }
    let group = |&item: &usize| place[identity(item) as usize];
    let groups = Groups::new(gallery.iter().map(group).collect());
    (identities, groups)
}

/// Sets the sub-clusters' radii and returns their centroids.
fn measure(old: &Embeddings, subclusters: &mut [SubCluster]) -> Embeddings {
    let dim = old.dim();
    let mut centroids = vec![0.0; subclusters.len() * dim];
    centroids
        .par_chunks_mut(dim)
        .zip(&mut *subclusters)
        .for_each_init(
            || (Reader::new(old), Reader::new(old)),
            |(of_centroid, of_item), (row, subcluster)| {
                let items = &subcluster.items;
                let centroid = of_centroid.prototype(items.iter().map(|&item| item as usize));
                let distances = items
                    .iter()
                    .map(|&item| 1.0 - of_item.row(item as usize).dot(centroid));
                let mean = distances.sum::<f64>() / items.len() as f64;
                for (value, &component) in row.iter_mut().zip(centroid) {
                    *value = component as f32;
                }
                subcluster.radius = mean.max(0.0);
            },
        );
    dense(subclusters.len(), dim, centroids)
}

/// Gives each query that is no gallery item the nearest sub-cluster of its own identity.
fn assign_queries(
    probe: &Probe,
    old: &Embeddings,
    subclusters: &[SubCluster],
    centroids: &Embeddings,
    assignment: &mut [u32],
) {
    for query in probe.queries() {
        if assignment[query] != NO_SUBCLUSTER {
            continue;
        }
        let (Some(x), Some(identity)) = (old.get(query), probe.items[query].identity.get()) else {
            continue;
        };
        let cosine = |index: usize| -> f64 {
            let centroid = centroids.get(index);
            let centroid = centroid.expect("each sub-cluster has one");
            let dot = x.iter().zip(&*centroid);
            dot.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let first = subclusters.partition_point(|other| other.identity < identity);
        let own = subclusters[first..].partition_point(|other| other.identity == identity);
        // `max_by` keeps the last of equals; reversed, that is the lowest index.
        let nearest = (first..first + own)
            .rev()
            .max_by(|&a, &b| cosine(a).total_cmp(&cosine(b)));
        if let Some(nearest) = nearest {
            assignment[query] = nearest as u32;
        }
    }
}
