//! A map of the old space for the eye: the two directions in which the old gallery is spread most, and where the old and
//! the new embeddings of some items lie on them.

use std::collections::BTreeMap;

use linfa_linalg::Order;
use linfa_linalg::eigh::{EigSort, EighInto};
use linfa_linalg::lobpcg::TruncatedSvd;
use ndarray::{Array2, Axis, s};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Structure, dense, nearest, unit_rows};
use crate::domain::{Embeddings, Probe};
use crate::topk::Gallery;

/// Gallery items shown, at most: more are a blot.
const GALLERY: usize = 600;

/// Queries shown, at most.
const QUERIES: usize = 300;

/// Stream of the choice and of the decomposition's start; the sample has the one before it.
const MAP_STREAM: u64 = super::SAMPLE_STREAM + 1;

/// Steps of the decomposition, at most. A picture needs no more than it reaches.
const STEPS: usize = 200;

/// The map.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceMap {
    /// Share of the shown gallery items' variance along the first and the second axis, in [0, 1].
    pub explained: [f64; 2],
    /// Gallery items, then queries that are none, each in the probe's order.
    pub points: Vec<MapPoint>,
}

/// One item on the map.
#[derive(Debug, Clone, PartialEq)]
pub struct MapPoint {
    /// Probe item.
    pub item: usize,
    /// Its old embedding.
    pub old: [f64; 2],
    /// Its new embedding on the same axes; `None` without one, or with another dimension.
    pub new: Option<[f64; 2]>,
    /// Sub-cluster whose prototype is nearest to the old embedding.
    pub nearest_old: u32,
    /// The same of the new embedding.
    pub nearest_new: Option<u32>,
}

impl MapPoint {
    /// Whether the old embedding is nearest to a prototype of its own identity and the new one is not.
    pub fn moved(&self, structure: &Structure, probe: &Probe) -> bool {
        let own = probe.items[self.item].identity.get();
        let identity = |index: u32| Some(structure.subclusters[index as usize].identity);
        identity(self.nearest_old) == own
            && self.nearest_new.is_some_and(|new| identity(new) != own)
    }
}

/// Draws the map: principal components of the shown gallery items' old unit embeddings, centred on their mean (Pearson 1901).
///
/// All items of the sub-clusters in `first` are shown as far as there is room, then others drawn by the seed; so are up to
/// 300 of the `queries`. The sign of an axis is the one that makes its largest weight positive. `None` with fewer than
/// three gallery items or where they do not spread in two directions.
pub fn map(
    probe: &Probe,
    structure: &Structure,
    [old, new]: [&Embeddings; 2],
    queries: &[usize],
    first: &[u32],
    seed: u64,
) -> Option<SpaceMap> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(MAP_STREAM);
    let is_first = |item: usize| {
        structure
            .subcluster_of(item)
            .is_some_and(|s| first.contains(&s))
    };
    let clustered = |item: &usize| structure.subcluster_of(*item).is_some() && old.has(*item);
    let gallery: Vec<usize> = probe.gallery().into_iter().filter(clustered).collect();
    let shown = chosen(&gallery, GALLERY, is_first, &mut rng);
    let others: Vec<usize> = queries
        .iter()
        .copied()
        .filter(clustered)
        .filter(|&item| !probe.items[item].role.is_gallery())
        .collect();
    let asking = chosen(&others, QUERIES, is_first, &mut rng);

    let mut rows = unit_rows(old, &shown);
    let centre = rows.mean_axis(Axis(0))?;
    rows -= &centre;
    let total = rows.iter().map(|value| value * value).sum::<f64>();
    let (axes, explained) = principal_axes(rows, total, rng)?;

    let items: Vec<usize> = shown.into_iter().chain(asking).collect();
    let place = |embeddings: &Embeddings, items: &[usize]| -> Vec<([f64; 2], u32)> {
        let rows = unit_rows(embeddings, items);
        let on_axes = (&rows - &centre).dot(&axes);
        let places = on_axes.rows().into_iter().map(|row| [row[0], row[1]]);
        places
            .zip(nearest_prototypes(&structure.centroids, &rows))
            .collect()
    };
    let mut after: BTreeMap<usize, ([f64; 2], u32)> = BTreeMap::new();
    if old.dim() == new.dim() {
        let has_new: Vec<usize> = items.iter().copied().filter(|&i| new.has(i)).collect();
        let places = place(new, &has_new);
        after = has_new.into_iter().zip(places).collect();
    }
    let points = items
        .iter()
        .zip(place(old, &items))
        .map(|(&item, (at, nearest))| {
            let new = after.get(&item);
            MapPoint {
                item,
                old: at,
                new: new.map(|&(at, _)| at),
                nearest_old: nearest,
                nearest_new: new.map(|&(_, nearest)| nearest),
            }
        });
    Some(SpaceMap {
        explained,
        points: points.collect(),
    })
}

/// At most so many of the items, rising: the preferred ones first, the others as the generator draws them.
fn chosen(
    items: &[usize],
    most: usize,
    is_preferred: impl Fn(usize) -> bool,
    rng: &mut ChaCha8Rng,
) -> Vec<usize> {
    let (mut chosen, others): (Vec<usize>, Vec<usize>) =
        items.iter().partition(|&&item| is_preferred(item));
    chosen.truncate(most);
    let room = (most - chosen.len()).min(others.len());
    let drawn = rand::seq::index::sample(rng, others.len(), room);
    chosen.extend(drawn.into_iter().map(|index| others[index]));
    chosen.sort_unstable();
    chosen
}

/// The first two right singular vectors of centred rows, shape (dim, 2), and the share of the total sum of squares along each.
fn principal_axes(
    rows: Array2<f64>,
    total: f64,
    rng: ChaCha8Rng,
) -> Option<(Array2<f64>, [f64; 2])> {
    // Below this a "direction" is rounding: unit rows are f32.
    const NOTHING: f64 = 1e-10;
    // Where there is nothing to leave out of a map.
    const LEAST: usize = 3;
    // The iterative solver misses axes where it seeks a good part of all of them.
    const FEW: usize = 32;
    if rows.nrows() < LEAST || rows.ncols() < LEAST || total < NOTHING {
        return None;
    }
    let (squares, mut axes) = if rows.ncols() < FEW {
        rows.t().dot(&rows).eigh_into().ok()?.sort_eig_desc()
    } else {
        let svd = TruncatedSvd::new_with_rng(rows, Order::Largest, rng).maxiter(STEPS);
        let (_, values, right) = svd.decompose(2).ok()?.values_vectors();
        (&values * &values, right.reversed_axes())
    };
    if squares.len() < 2 || !axes.iter().all(|value| value.is_finite()) {
        return None;
    }
    axes.slice_collapse(s![.., ..2]);
    for mut axis in axes.columns_mut() {
        let largest = axis
            .iter()
            .copied()
            .max_by(|a, b| a.abs().total_cmp(&b.abs()));
        if largest.is_some_and(|value| value < 0.0) {
            axis.mapv_inplace(|value| -value);
        }
    }
    let share = |index: usize| squares[index] / total;
    Some((axes, [share(0), share(1)]))
}

/// For each unit row the prototype with the highest cosine, of equal ones the first.
fn nearest_prototypes(prototypes: &Embeddings, rows: &Array2<f64>) -> Vec<u32> {
    let values = rows.iter().map(|&v| v as f32).collect();
    let rows = dense(rows.nrows(), rows.ncols(), values);
    let asked: Vec<usize> = (0..rows.n_items()).collect();
    let all: Vec<usize> = (0..prototypes.n_items()).collect();
    let gallery = Gallery {
        embeddings: prototypes,
        items: &all,
    };
    let found = nearest(&rows, &asked, gallery, &vec![1; asked.len()], |_, _| false);
    found.iter().map(|near| near[0].0 as u32).collect()
}

#[cfg(test)]
mod tests {
    use linfa_linalg::svd::SVD;
    use ndarray::{Array1, array};

    use super::super::testing::{gaussian_unit, probe_of};
    use super::super::{StructureOptions, estimate};
    use super::*;
    use crate::domain::Role;

    /// Ten identities of six items around their own directions, spread more in the first dimensions.
    fn made(dim: usize) -> (Probe, Embeddings) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let centres: Vec<Array1<f64>> = (0..10).map(|_| gaussian_unit(dim, &mut rng)).collect();
        let identities: Vec<u32> = (0..60).map(|i| i / 6).collect();
        let mut values = Vec::new();
        for &identity in &identities {
            let row = &centres[identity as usize] * 3.0 + gaussian_unit(dim, &mut rng);
            let stretch = |(i, v): (usize, &f64)| v / (1.0 + i as f64);
            let row = super::super::direction(row.iter().enumerate().map(stretch).collect());
            values.extend(row.iter().map(|&v| v as f32));
        }
        (probe_of(&identities), dense(60, dim, values))
    }

    #[test]
    fn the_axes_are_those_of_the_full_decomposition() {
        for dim in [3, 5, 7, 12, 31, 32, 40] {
            axes_are_those_of_the_full_decomposition(dim);
        }
    }

    fn axes_are_those_of_the_full_decomposition(dim: usize) {
        let (_, old) = made(dim);
        let all: Vec<usize> = (0..60).collect();
        let mut rows = unit_rows(&old, &all);
        let centre = rows.mean_axis(Axis(0)).unwrap();
        rows -= &centre;
        let total = rows.iter().map(|v| v * v).sum::<f64>();
        let (axes, explained) =
            principal_axes(rows.clone(), total, ChaCha8Rng::seed_from_u64(1)).unwrap();
        let (_, values, right) = rows.svd(true, true).unwrap();
        let right = right.unwrap();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        for axis in 0..2 {
            let full = right.row(order[axis]);
            let cosine = full.dot(&axes.column(axis)).abs();
            assert!((cosine - 1.0).abs() < 1e-6, "{dim}, axis {axis}: {cosine}");
            let share = values[order[axis]].powi(2) / total;
            assert!((explained[axis] - share).abs() < 1e-6);
        }
    }

    #[test]
    fn the_same_model_moves_nothing_and_a_turned_one_moves_much() {
        let (mut probe, old) = made(12);
        for item in (0..60).step_by(6) {
            probe.items[item].role = Role::Query;
        }
        let structure = estimate(&probe, &old, &StructureOptions::default());
        let queries: Vec<usize> = (0..60).step_by(6).collect();
        let of = |new: &Embeddings| map(&probe, &structure, [&old, new], &queries, &[], 0).unwrap();
        let same = of(&old);
        assert_eq!(same.points.len(), 60);
        let items: Vec<usize> = same.points.iter().map(|point| point.item).collect();
        assert_eq!(items[50..], queries, "queries come last");
        for point in &same.points {
            assert_eq!(point.new, Some(point.old));
            assert!(!point.moved(&structure, &probe));
        }
        assert_eq!(same, of(&old), "the same seed, the same map");
        // Each dimension becomes the next one.
        let mut rows = Array2::zeros((60, 12));
        for item in 0..60 {
            for (i, &value) in old.get(item).unwrap().iter().enumerate() {
                rows[[item, (i + 1) % 12]] = value;
            }
        }
        let turned = of(&Embeddings::dense(rows, false).unwrap());
        let moved = turned.points.iter().filter(|p| p.moved(&structure, &probe));
        assert!(moved.count() > 30);
        // Of another dimension nothing can be placed.
        let wide = Embeddings::dense(Array2::ones((60, 13)), true).unwrap();
        assert!(of(&wide).points.iter().all(|point| point.new.is_none()));
    }

    #[test]
    fn the_first_subclusters_are_shown_whole_and_the_rest_as_there_is_room() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let items: Vec<usize> = (0..100).collect();
        let shown = chosen(&items, 20, |item| item % 10 == 3, &mut rng);
        assert_eq!(shown.len(), 20);
        assert!((0..100).filter(|i| i % 10 == 3).all(|i| shown.contains(&i)));
        assert!(shown.is_sorted());
        assert_eq!(chosen(&items[..5], 20, |_| false, &mut rng), items[..5]);
    }

    #[test]
    fn where_nothing_spreads_in_two_directions_there_is_no_map() {
        let probe = probe_of(&[0, 0, 1, 1]);
        let of = |rows: Array2<f32>| {
            let old = Embeddings::dense(rows, true).unwrap();
            let structure = estimate(&probe, &old, &StructureOptions::default());
            map(&probe, &structure, [&old, &old], &[], &[], 0)
        };
        let collapsed = array![
            [1.0, 0.0, 0.0],
            [1.0, 0.0, 0.0],
            [1.0, 0.0, 0.0],
            [1.0, 0.0, 0.0]
        ];
        assert_eq!(of(collapsed), None);
        let planar = array![[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]];
        assert_eq!(
            of(planar),
            None,
            "two dimensions are too few for the solver"
        );
    }
}
