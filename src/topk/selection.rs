//! Two passes over a block: one in integers over all pairs, one in f32 over those whose score may be wanted.
//!
//! What is wanted is exact and complete: [`super::codes`] bounds how far the first pass can be off.

use super::codes::{self, Codes, Lane, Limit};
use super::tiles::{PAIRS, Pairs};
use super::walk::{Overflow, Part, Rows, Walk};
use super::{Visitor, finish};

/// Pairs a candidate at which two passes are no faster than one: a single pair costs as much as some 7 in a tile, and the
/// first pass a fourth of all.
pub const PAIRS_A_CANDIDATE: usize = 10;

/// Panels that are scored exactly after one in which too many pairs came through the first pass.
const PATIENCE: usize = 7;

/// Below it no sum on a chain overflows.
pub const LARGEST_PRODUCT: f32 = 1e37;

/// Both sides' codes, where they can say which pairs need no exact score, and the largest norm of the gallery's.
fn both_codes<'a>(part: &Part<'a, impl Visitor>) -> Option<(&'a Codes, &'a Codes, f32)> {
    let (queries, gallery) = (part.queries.codes()?, part.block.panels.codes()?);
    let largest = gallery.largest_norm();
    let is_bounded = queries.largest_norm() * largest < LARGEST_PRODUCT;
    is_bounded.then_some((queries, gallery, largest))
}

/// A query and the items of a panel, one bit each, whose score may reach the query's floor.
struct Candidates {
    query: usize,
    lanes: u32,
}

impl<V: Visitor, const Q: usize, const W: usize> Walk<'_, V, Q, W> {
    /// Scores that may reach their floors: a first pass in integers finds them. Panels where a query wants every score, or
    /// where too many pairs come through, are scored as by [`Walk::score`].
    #[inline(always)]
    pub fn score_selected(
        &mut self,
        tile: impl Fn(&[f32], &[f32], &mut [[f32; W]; Q]),
        code_tile: impl Fn(&[u32], &[u32], &[i32; Q], &mut [[i32; W]; Q]),
        score_pairs: impl Fn(&Pairs<'_>) -> [f32; PAIRS],
    ) -> Result<(), Overflow> {
        let Some((queries, gallery, largest_norm)) = both_codes(&self.part) else {
            return self.score(tile);
        };
        let dim = self.part.queries.dim();
        let of_queries = &queries.lanes()[..self.part.visitors.len()];
        let limit = |(query, &floor): (&Lane, &f32)| Limit::new(query, floor, largest_norm, dim);
        let mut limits: Vec<Limit> = of_queries.iter().zip(&self.floors).map(limit).collect();
        let mut candidates = Vec::new();
        let mut patience = 0;
        for p in 0..self.n_panels() {
            let wants_all = self.floors.contains(&f32::NEG_INFINITY);
            if !wants_all && patience == 0 {
                self.select(&code_tile, [queries, gallery], &limits, p, &mut candidates);
                let pairs = candidates.iter().map(|found| found.lanes.count_ones());
                if pairs.sum::<u32>() as usize * PAIRS_A_CANDIDATE <= self.part.visitors.len() * W {
                    self.score_candidates(&score_pairs, &candidates, p);
                    for &Candidates { query, .. } in &candidates {
                        let floor = self.floors[query];
                        limits[query].set(&of_queries[query], floor, largest_norm, dim);
                    }
                    continue;
                }
                patience = PATIENCE + 1;
            }
            patience = patience.saturating_sub(1);
            self.score_panel(&tile, p)?;
            for ((limit, query), &floor) in limits.iter_mut().zip(of_queries).zip(&self.floors) {
                limit.set(query, floor, largest_norm, dim);
            }
        }
        Ok(())
    }

    /// The first pass over a panel.
    #[inline(always)]
    fn select(
        &self,
        code_tile: &impl Fn(&[u32], &[u32], &[i32; Q], &mut [[i32; W]; Q]),
        [queries, gallery]: [&Codes; 2],
        limits: &[Limit],
        p: usize,
        candidates: &mut Vec<Candidates>,
    ) {
        candidates.clear();
        let n_words = self.part.queries.dim().div_ceil(codes::TOGETHER);
        let panel = &gallery.words()[p * n_words * W..(p + 1) * n_words * W];
        let lanes = &gallery.lanes()[p * W..(p + 1) * W];
        let mut of_lanes = Rows([[0.0; W]; 2]);
        let [scales, errors] = &mut of_lanes.0;
        for (lane, of_lane) in lanes.iter().enumerate() {
            scales[lane] = of_lane.scale;
            errors[lane] = of_lane.error;
        }
        let packed = queries.words().chunks_exact(n_words * Q);
        for (t, (packed, limits)) in packed.zip(limits.chunks(Q)).enumerate() {
            let starts = std::array::from_fn(|q| limits.get(q).map_or(0, |limit| limit.start));
            let mut sums = Rows([[0; W]; Q]);
            code_tile(packed, panel, &starts, &mut sums.0);
            for (q, (sums, limit)) in sums.0.iter().zip(limits).enumerate() {
                let reaches = |lane| limit.may_reach(sums[lane], scales[lane], errors[lane]);
                let mut any = false;
                for lane in 0..W {
                    any |= reaches(lane);
                }
                if any {
                    let bits = (0..W).map(|lane| u32::from(reaches(lane)) << lane);
                    candidates.push(Candidates {
                        query: t * Q + q,
                        // Where the last item is repeated, it comes through itself.
                        lanes: bits.fold(0, |all, bit| all | bit),
                    });
                }
            }
        }
    }

    /// The second pass over a panel: rows in which only the candidates have a score.
    #[inline(always)]
    fn score_candidates(
        &mut self,
        score_pairs: &impl Fn(&Pairs<'_>) -> [f32; PAIRS],
        candidates: &[Candidates],
        p: usize,
    ) {
        let dim = self.part.queries.dim();
        let (first, width) = self.extent(p);
        let pairs: Vec<(usize, usize)> = candidates
            .iter()
            .flat_map(|&Candidates { query, lanes }| {
                let lanes = (0..W).filter(move |lane| lanes >> lane & 1 == 1);
                lanes.map(move |lane| (query, lane))
            })
            .collect();
        let panel = &self.part.block.panels.values()[p * dim * W..(p + 1) * dim * W];
        let rows = self.part.query_rows;
        let mut scores = Vec::with_capacity(pairs.len() + PAIRS);
        for some in pairs.chunks(PAIRS) {
            // The last few are filled up with the last one.
            let pair = |i: usize| some[i.min(some.len() - 1)];
            scores.extend(score_pairs(&Pairs {
                queries: std::array::from_fn(|i| &rows[pair(i).0 * dim..(pair(i).0 + 1) * dim]),
                panel,
                lanes: std::array::from_fn(|i| pair(i).1 as u32),
            }));
        }
        let mut scored = pairs.iter().zip(scores);
        for &Candidates { query, lanes } in candidates {
            let mut row = [f32::NEG_INFINITY; W];
            for (&(_, lane), score) in scored.by_ref().take(lanes.count_ones() as usize) {
                row[lane] = finish(score, self.part.similarity);
            }
            self.part.visitors[query].visit(self.part.shared, first, &mut row[..width]);
            self.floors[query] = self.part.visitors[query].floor();
        }
    }
}
