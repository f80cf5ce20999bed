//! A group of queries against a block of the gallery, panel by panel.

use super::panels::Panels;
use super::{Visitor, finish};
use crate::config::Similarity;

/// Packed gallery items of a pass.
pub struct Block<'a> {
    /// Their panels.
    pub panels: &'a Panels,
    /// Gallery position of the first item.
    pub first: usize,
    /// One beyond the position of the last item.
    pub end: usize,
}

/// Query index within the group and gallery position of a score that is not finite.
pub type Overflow = (usize, usize);

/// A group of queries, a block, and who hears the scores.
pub struct Part<'a, V: Visitor> {
    pub similarity: Similarity,
    /// The queries, packed; one visitor each, the repeated ones without.
    pub queries: &'a Panels,
    /// Where there is a first pass: the queries, one after the other.
    pub query_rows: &'a [f32],
    pub block: &'a Block<'a>,
    pub visitors: &'a mut [V],
    pub shared: &'a mut V::Shared,
}

/// Rows as wide as a tile, such as what it makes of its pairs. They begin on a cache line, because a vector that reaches over two lines
/// is read and written twice.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Rows<T, const Q: usize, const W: usize>(pub [[T; W]; Q]);

/// How far a [`Part`] is done, with Q queries and W items a tile.
pub struct Walk<'a, V: Visitor, const Q: usize, const W: usize> {
    pub(super) part: Part<'a, V>,
    /// Dimensions after which a tile's chains are put down and taken up again. A chain goes on where it stopped: no bit changes.
    depth: usize,
    /// Together, because most rows are skipped and their visitors never looked at.
    pub(super) floors: Vec<f32>,
    sums: Vec<Rows<f32, Q, W>>,
}

impl<'a, V: Visitor, const Q: usize, const W: usize> Walk<'a, V, Q, W> {
    pub fn new(part: Part<'a, V>, depth: usize) -> Self {
        Self {
            depth,
            floors: part.visitors.iter().map(V::floor).collect(),
            sums: vec![Rows([[0.0; W]; Q]); part.visitors.len().div_ceil(Q)],
            part,
        }
    }

    pub(super) fn n_panels(&self) -> usize {
        (self.part.block.end - self.part.block.first).div_ceil(W)
    }

    /// Position of a panel's first item, and how many items are its own.
    pub(super) fn extent(&self, p: usize) -> (usize, usize) {
        let first = self.part.block.first + p * W;
        (first, W.min(self.part.block.end - first))
    }

    /// Every score of every panel.
    #[inline(always)]
    pub fn score(
        &mut self,
        tile: impl Fn(&[f32], &[f32], &mut [[f32; W]; Q]),
    ) -> Result<(), Overflow> {
        // A loop, because what iterators do with a closure is not compiled for the caller's instruction set.
        for p in 0..self.n_panels() {
            self.score_panel(&tile, p)?;
        }
        Ok(())
    }

    /// A part of a panel stays in the cache nearest to the core while all queries of the group pass over it. Scores are read
    /// once, here, and overwritten by the next panel's.
    #[inline(always)]
    pub(super) fn score_panel(
        &mut self,
        tile: &impl Fn(&[f32], &[f32], &mut [[f32; W]; Q]),
        p: usize,
    ) -> Result<(), Overflow> {
        let dim = self.part.queries.dim();
        let (first, width) = self.extent(p);
        let panel = &self.part.block.panels.values()[p * dim * W..(p + 1) * dim * W];
        self.sums.fill(Rows([[0.0; W]; Q]));
        for begin in (0..dim).step_by(self.depth) {
            let end = dim.min(begin.saturating_add(self.depth));
            let part = &panel[begin * W..end * W];
            let packed = self.part.queries.values().chunks_exact(dim * Q);
            for (packed, sums) in packed.zip(&mut self.sums) {
                tile(&packed[begin * Q..end * Q], part, &mut sums.0);
            }
        }
        let floors = self.floors.chunks_mut(Q);
        for (t, (sums, floors)) in self.sums.iter_mut().zip(floors).enumerate() {
            for (i, (row, floor)) in sums.0.iter_mut().zip(floors).enumerate() {
                // Copies, so that the compiler sees that nothing else can change between two lanes.
                let (mut scores, lowest) = (*row, *floor);
                let (mut finite, mut reached) = (true, false);
                for score in &mut scores {
                    *score = finish(*score, self.part.similarity);
                    finite &= score.is_finite();
                    reached |= *score >= lowest;
                }
                *row = scores;
                let q = t * Q + i;
                if !finite {
                    let bad = row.iter().position(|score| !score.is_finite());
                    return Err((q, first + bad.unwrap_or(0)));
                }
                if reached {
                    self.part.visitors[q].visit(self.part.shared, first, &mut row[..width]);
                    *floor = self.part.visitors[q].floor();
                }
            }
        }
        Ok(())
    }
}
