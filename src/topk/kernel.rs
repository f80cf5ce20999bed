//! The register-blocked kernels: a tile of chains stays in registers while they run.
//!
//! `unsafe`, because `f32::mul_add` is one instruction only in a function that is compiled for it (`target_feature`), else a
//! library call (`cargo bench --bench scores -- naive` measures the ratio).

use super::{Visitor, finish, step};
use crate::config::Similarity;

/// Queries scored together by AVX2 and by the portable path: with 16 items, 12 of AVX2's 16 registers.
const NARROW: (usize, usize) = (6, 16);

/// Queries and items of a tile for AVX-512: 28 of its 32 registers.
#[cfg(target_arch = "x86_64")]
const WIDE: (usize, usize) = (14, 32);

/// The instruction set that scores are computed with. None changes a bit of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Whatever the target has; correct everywhere, slow without hardware FMA.
    Portable,
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Gallery embeddings laid out for a kernel: panels of as many items as its tile is wide, dimension-major inside. The
/// last panel repeats the last item.
pub struct PackedBlock<'a> {
    /// The panels.
    pub panels: &'a [f32],
    /// Gallery position of the first item.
    pub first: usize,
    /// One beyond the position of the last item.
    pub end: usize,
    /// Dimensions.
    pub dim: usize,
}

/// Query index within the group and gallery position of a score that is not finite.
pub type Overflow = (usize, usize);

impl Kernel {
    /// All kernels that this CPU can run, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Kernel::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Kernel::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    all.push(Kernel::Avx512);
                }
            }
        }
        all
    }

    /// The fastest kernel of this CPU.
    pub fn detect() -> Self {
        *Self::available().last().expect("there is always one")
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => "AVX2 + FMA",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => "AVX-512",
        }
    }

    /// (queries, gallery items) of a tile.
    pub fn tile(self) -> (usize, usize) {
        match self {
            Kernel::Portable => NARROW,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => NARROW,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => WIDE,
        }
    }

    /// Scores a group of queries (packed panels, the last one filled up) against a block and hands every row of a tile
    /// that reaches its visitor's floor to the visitor.
    pub fn score<V: Visitor>(
        self,
        similarity: Similarity,
        queries: &[f32],
        block: &PackedBlock<'_>,
        visitors: &mut [V],
        shared: &mut V::Shared,
    ) -> Result<(), Overflow> {
        match self {
            Kernel::Portable => score_portable(similarity, queries, block, visitors, shared),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists this variant only when the CPU has AVX2 and FMA.
            Kernel::Avx2 => unsafe { score_avx2(similarity, queries, block, visitors, shared) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists this variant only when the CPU has AVX-512F.
            Kernel::Avx512 => unsafe { score_avx512(similarity, queries, block, visitors, shared) },
        }
    }
}

/// Scores that [`Kernel::compare`] takes: two vectors of eight.
pub const TOGETHER: usize = 16;

impl Kernel {
    /// Adds to `reached[i]`, lane by lane modulo 8, how many of the scores are at or above threshold i, and says whether
    /// any equals one that another reaches. The thresholds ascend; NaN reaches none.
    pub fn compare(
        self,
        scores: &[f32; TOGETHER],
        thresholds: &[f32],
        reached: &mut [[u32; TOGETHER / 2]],
    ) -> bool {
        match self {
            Kernel::Portable => compare_portable(scores, thresholds, reached),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists these variants only when the CPU has AVX2.
            Kernel::Avx2 | Kernel::Avx512 => unsafe { compare_avx2(scores, thresholds, reached) },
        }
    }

    /// The scores of a query with a few items, whose embeddings lie one after the other, by the definition. Their chains
    /// run side by side: a single one waits for each of its steps.
    pub fn score_few(self, query: &[f32], items: &[f32], similarity: Similarity) -> [f32; FEW] {
        match self {
            Kernel::Portable => score_few(query, items, similarity),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists these variants only when the CPU has AVX2 and FMA.
            Kernel::Avx2 | Kernel::Avx512 => unsafe { score_few_fma(query, items, similarity) },
        }
    }
}

/// Items that [`Kernel::score_few`] takes.
pub const FEW: usize = 8;

fn compare_portable(
    scores: &[f32; TOGETHER],
    thresholds: &[f32],
    reached: &mut [[u32; TOGETHER / 2]],
) -> bool {
    let mut tie = false;
    for (threshold, reached) in thresholds.iter().zip(reached) {
        let mut any = false;
        for (i, score) in scores.iter().enumerate() {
            any |= score >= threshold;
            tie |= score == threshold;
            reached[i % (TOGETHER / 2)] += u32::from(score >= threshold);
        }
        if !any {
            break;
        }
    }
    tie
}

/// Intrinsics, because the vectoriser does not keep the counts apart by lane: 16 thresholds deep in the bulk of the
/// scores then cost 105 % of a pass over 384 dimensions, and 26 % like this (`cargo bench --bench scores`, "relevant").
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn compare_avx2(
    scores: &[f32; TOGETHER],
    thresholds: &[f32],
    reached: &mut [[u32; TOGETHER / 2]],
) -> bool {
    use std::arch::x86_64::{
        __m256i, _CMP_EQ_OQ, _CMP_GE_OQ, _mm256_add_epi32, _mm256_castps_si256, _mm256_cmp_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_movemask_ps, _mm256_or_ps, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_storeu_si256, _mm256_sub_epi32,
    };
    // SAFETY: 2 x 8 values.
    let (low, high) = unsafe {
        (
            _mm256_loadu_ps(scores.as_ptr()),
            _mm256_loadu_ps(scores.as_ptr().add(8)),
        )
    };
    let mut ties = _mm256_setzero_ps();
    for (&threshold, reached) in thresholds.iter().zip(reached) {
        let threshold = _mm256_set1_ps(threshold);
        let a = _mm256_cmp_ps::<_CMP_GE_OQ>(low, threshold);
        let b = _mm256_cmp_ps::<_CMP_GE_OQ>(high, threshold);
        if _mm256_movemask_ps(_mm256_or_ps(a, b)) == 0 {
            break;
        }
        // A lane that reaches is all ones, which is -1.
        let minus = _mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b));
        let counts: *mut __m256i = reached.as_mut_ptr().cast();
        // SAFETY: 8 counts of 4 bytes, of any alignment.
        unsafe {
            let counted = _mm256_sub_epi32(_mm256_loadu_si256(counts), minus);
            _mm256_storeu_si256(counts, counted);
        }
        let low_equal = _mm256_cmp_ps::<_CMP_EQ_OQ>(low, threshold);
        let high_equal = _mm256_cmp_ps::<_CMP_EQ_OQ>(high, threshold);
        ties = _mm256_or_ps(ties, _mm256_or_ps(low_equal, high_equal));
    }
    _mm256_movemask_ps(ties) != 0
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn score_few_fma(query: &[f32], items: &[f32], similarity: Similarity) -> [f32; FEW] {
    score_few(query, items, similarity)
}

#[inline(always)]
fn score_few(query: &[f32], items: &[f32], similarity: Similarity) -> [f32; FEW] {
    let dim = query.len();
    let rows: [&[f32]; FEW] = std::array::from_fn(|i| &items[i * dim..(i + 1) * dim]);
    let mut sums = [0.0; FEW];
    for (d, &q) in query.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = step(q, row[d], *sum, similarity);
        }
    }
    sums.map(|sum| finish(sum, similarity))
}

fn score_portable<V: Visitor>(
    similarity: Similarity,
    queries: &[f32],
    block: &PackedBlock<'_>,
    visitors: &mut [V],
    shared: &mut V::Shared,
) -> Result<(), Overflow> {
    const { assert!(NARROW.0 == 6 && NARROW.1 == 16) };
    match similarity {
        Similarity::Cosine | Similarity::Ip => tiles(
            portable_tile::<6, 16, false>,
            similarity,
            queries,
            block,
            visitors,
            shared,
        ),
        Similarity::L2 => tiles(
            portable_tile::<6, 16, true>,
            similarity,
            queries,
            block,
            visitors,
            shared,
        ),
    }
}

/// Intrinsics, because the vectoriser turns tiles of this size inside out.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn score_avx2<V: Visitor>(
    similarity: Similarity,
    queries: &[f32],
    block: &PackedBlock<'_>,
    visitors: &mut [V],
    shared: &mut V::Shared,
) -> Result<(), Overflow> {
    match similarity {
        Similarity::Cosine | Similarity::Ip => tiles(
            |q: &[f32], p: &[f32], rows: &mut [[f32; 16]; 6]| avx2_tile::<false>(q, p, rows),
            similarity,
            queries,
            block,
            visitors,
            shared,
        ),
        Similarity::L2 => tiles(
            |q: &[f32], p: &[f32], rows: &mut [[f32; 16]; 6]| avx2_tile::<true>(q, p, rows),
            similarity,
            queries,
            block,
            visitors,
            shared,
        ),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn score_avx512<V: Visitor>(
    similarity: Similarity,
    queries: &[f32],
    block: &PackedBlock<'_>,
    visitors: &mut [V],
    shared: &mut V::Shared,
) -> Result<(), Overflow> {
    match similarity {
        Similarity::Cosine | Similarity::Ip => tiles(
            |q: &[f32], p: &[f32], rows: &mut [[f32; 32]; 14]| avx512_tile::<false>(q, p, rows),
            similarity,
            queries,
            block,
            visitors,
            shared,
        ),
        Similarity::L2 => tiles(
            |q: &[f32], p: &[f32], rows: &mut [[f32; 32]; 14]| avx512_tile::<true>(q, p, rows),
            similarity,
            queries,
            block,
            visitors,
            shared,
        ),
    }
}

/// Dimensions after which a tile's chains are put down and taken up again, so that a panel's part and the queries' part
/// fit in a first-level cache of 32 KiB together. A chain goes on where it stopped: no bit changes.
const fn dimensions_together(q: usize, w: usize) -> usize {
    (24 << 10) / ((q + w) * size_of::<f32>())
}

/// A part of a panel stays in the cache nearest to the core while all queries of the group pass over it. Scores are read
/// once, here, and overwritten by the next panel's.
#[inline(always)]
fn tiles<const Q: usize, const W: usize, V: Visitor>(
    tile: impl Fn(&[f32], &[f32], &mut [[f32; W]; Q]),
    similarity: Similarity,
    queries: &[f32],
    block: &PackedBlock<'_>,
    visitors: &mut [V],
    shared: &mut V::Shared,
) -> Result<(), Overflow> {
    let dim = block.dim;
    let depth = const { dimensions_together(Q, W) };
    let mut sums = vec![[[0.0_f32; W]; Q]; visitors.len().div_ceil(Q)];
    // Together, because most rows are skipped and their visitors never looked at.
    let mut floors: Vec<f32> = visitors.iter().map(V::floor).collect();
    for (p, panel) in block.panels.chunks_exact(dim * W).enumerate() {
        let first = block.first + p * W;
        let width = W.min(block.end - first);
        sums.fill([[0.0; W]; Q]);
        for begin in (0..dim).step_by(depth) {
            let end = dim.min(begin + depth);
            let part = &panel[begin * W..end * W];
            for (packed, sums) in queries.chunks_exact(dim * Q).zip(&mut sums) {
                tile(&packed[begin * Q..end * Q], part, sums);
            }
        }
        let rows = sums.as_flattened_mut().iter_mut();
        for (q, (row, floor)) in rows.zip(&mut floors).enumerate() {
            // Copies, so that the compiler sees that nothing else can change between two lanes.
            let (mut scores, lowest) = (*row, *floor);
            let (mut finite, mut reached) = (true, false);
            for score in &mut scores {
                *score = finish(*score, similarity);
                finite &= score.is_finite();
                reached |= *score >= lowest;
            }
            *row = scores;
            if !finite {
                let bad = row.iter().position(|score| !score.is_finite());
                return Err((q, first + bad.unwrap_or(0)));
            }
            if reached {
                visitors[q].visit(shared, first, &mut row[..width]);
                *floor = visitors[q].floor();
            }
        }
    }
    Ok(())
}

/// Continues Q x W chains, for whatever the target has.
#[inline(always)]
fn portable_tile<const Q: usize, const W: usize, const L2: bool>(
    queries: &[f32],
    panel: &[f32],
    rows: &mut [[f32; W]; Q],
) {
    for (column, values) in panel.chunks_exact(W).zip(queries.chunks_exact(Q)) {
        let column: &[f32; W] = column.try_into().expect("a chunk of that size");
        let values: &[f32; Q] = values.try_into().expect("a chunk of that size");
        for (row, &value) in rows.iter_mut().zip(values) {
            for (sum, &item) in row.iter_mut().zip(column) {
                let (a, b) = if L2 {
                    (value - item, value - item)
                } else {
                    (value, item)
                };
                *sum = a.mul_add(b, *sum);
            }
        }
    }
}

/// Continues 6 x 16 chains in 12 registers; two more hold the column, one the query's value.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
fn avx2_tile<const L2: bool>(queries: &[f32], panel: &[f32], rows: &mut [[f32; 16]; 6]) {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
        _mm256_sub_ps,
    };
    let mut sums = [[_mm256_setzero_ps(); 2]; 6];
    for (row, sums) in rows.iter().zip(&mut sums) {
        for (half, sum) in row.chunks_exact(8).zip(sums) {
            // SAFETY: the chunk has 8 values.
            *sum = unsafe { _mm256_loadu_ps(half.as_ptr()) };
        }
    }
    for (column, values) in panel.chunks_exact(16).zip(queries.chunks_exact(6)) {
        let values: &[f32; 6] = values.try_into().expect("a chunk of that size");
        // SAFETY: the chunk has 2 x 8 values.
        let column = unsafe {
            [
                _mm256_loadu_ps(column.as_ptr()),
                _mm256_loadu_ps(column.as_ptr().add(8)),
            ]
        };
        for (sums, &value) in sums.iter_mut().zip(values) {
            let value = _mm256_set1_ps(value);
            for (sum, column) in sums.iter_mut().zip(column) {
                let (a, b) = if L2 {
                    let difference = _mm256_sub_ps(value, column);
                    (difference, difference)
                } else {
                    (value, column)
                };
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
    }
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (half, sum) in row.chunks_exact_mut(8).zip(sums) {
            // SAFETY: the chunk has 8 values.
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), sum) };
        }
    }
}

/// Continues 14 x 32 chains in 28 registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn avx512_tile<const L2: bool>(queries: &[f32], panel: &[f32], rows: &mut [[f32; 32]; 14]) {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
        _mm512_sub_ps,
    };
    let mut sums = [[_mm512_setzero_ps(); 2]; 14];
    for (row, sums) in rows.iter().zip(&mut sums) {
        for (half, sum) in row.chunks_exact(16).zip(sums) {
            // SAFETY: the chunk has 16 values.
            *sum = unsafe { _mm512_loadu_ps(half.as_ptr()) };
        }
    }
    for (column, values) in panel.chunks_exact(32).zip(queries.chunks_exact(14)) {
        let values: &[f32; 14] = values.try_into().expect("a chunk of that size");
        // SAFETY: the chunk has 2 x 16 values.
        let column = unsafe {
            [
                _mm512_loadu_ps(column.as_ptr()),
                _mm512_loadu_ps(column.as_ptr().add(16)),
            ]
        };
        for (sums, &value) in sums.iter_mut().zip(values) {
            let value = _mm512_set1_ps(value);
            for (sum, column) in sums.iter_mut().zip(column) {
                let (a, b) = if L2 {
                    let difference = _mm512_sub_ps(value, column);
                    (difference, difference)
                } else {
                    (value, column)
                };
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
    }
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (half, sum) in row.chunks_exact_mut(16).zip(sums) {
            // SAFETY: the chunk has 16 values.
            unsafe { _mm512_storeu_ps(half.as_mut_ptr(), sum) };
        }
    }
}
