//! The nearest items of a query, in a pass over the gallery.

use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, QueryScan, Visitor, scan_one};

/// Queries whose embeddings are held packed; a pass over the gallery for so many costs next to nothing beside their scores.
const TOGETHER: usize = 1 << 16;

/// A gallery position and its cosine to the query.
pub(super) type Near = (usize, f32);

/// For each query the positions of the highest cosines, best first, of equal ones the lower first; all rows are unit.
///
/// `wanted[i]` says how many query i asks for, and `is_out(i, position)` what does not count for it.
pub(super) fn nearest(
    embeddings: &Embeddings,
    queries: &[usize],
    gallery: Gallery<'_>,
    wanted: &[usize],
    is_out: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Vec<Near>> {
    let mut found = Vec::with_capacity(queries.len());
    let chunks = queries.chunks(TOGETHER).zip(wanted.chunks(TOGETHER));
    for (number, (items, wanted)) in chunks.enumerate() {
        let visitor = |(i, &wanted)| Nearest {
            query: number * TOGETHER + i,
            wanted,
            found: Vec::with_capacity(wanted + 1),
            // Nothing reaches infinity.
            to_beat: if wanted == 0 {
                f32::INFINITY
            } else {
                f32::NEG_INFINITY
            },
            is_out: &is_out,
        };
        let queries = QueryScan {
            embeddings,
            items,
            visitors: wanted.iter().enumerate().map(visitor).collect(),
        };
        let visitors = scan_one(gallery, Similarity::Cosine, queries);
        let visitors = visitors.expect("unit rows do not overflow");
        found.extend(visitors.into_iter().map(|visitor| visitor.found));
    }
    found
}

/// See [`nearest`].
struct Nearest<'a, F> {
    query: usize,
    wanted: usize,
    /// Best first.
    found: Vec<Near>,
    /// Positions rise, so a cosine that only equals the last of the wanted loses to it.
    to_beat: f32,
    is_out: &'a F,
}

impl<F: Fn(usize, usize) -> bool + Sync> Visitor for Nearest<'_, F> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.to_beat
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        for (lane, &cosine) in row.iter().enumerate() {
            let position = first + lane;
            if cosine > self.to_beat && !(self.is_out)(self.query, position) {
                let at = self.found.partition_point(|&(_, other)| other >= cosine);
                self.found.insert(at, (position, cosine));
                self.found.truncate(self.wanted);
                if self.found.len() == self.wanted {
                    self.to_beat = self.found[self.wanted - 1].1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::dense;
    use super::*;

    /// Few distinct cosines, so that ties abound.
    #[test]
    fn the_nearest_are_those_of_sorting() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (n, dim) = (300, 2);
        let values = (0..n).flat_map(|_| {
            let angle = f32::from(rng.gen_range(0_u8..12));
            [angle.cos(), angle.sin()]
        });
        let rows = dense(n, dim, values.collect());
        let items: Vec<usize> = (0..n).collect();
        let gallery = Gallery {
            embeddings: &rows,
            items: &items,
        };
        let wanted: Vec<usize> = (0..n).map(|i| i % 12).collect();
        let is_out = |query: usize, position: usize| query == position || position % 7 == query % 7;
        let found = nearest(&rows, &items, gallery, &wanted, is_out);
        for (query, found) in found.iter().enumerate() {
            let cosines = crate::topk::score_some(
                &rows,
                query,
                gallery,
                &(0..n as u32).collect::<Vec<_>>(),
                Similarity::Cosine,
            );
            let mut all: Vec<usize> = (0..n).filter(|&p| !is_out(query, p)).collect();
            all.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b)));
            let expected: Vec<Near> = all
                .iter()
                .take(wanted[query])
                .map(|&p| (p, cosines[p]))
                .collect();
            assert_eq!(found, &expected, "query {query}");
        }
    }
}
