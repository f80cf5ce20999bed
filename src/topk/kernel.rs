//! What this CPU can do, and the code for it.
//!
//! `unsafe`, because `f32::mul_add` is one instruction only in a function that is compiled for it (`target_feature`), else a
//! library call (`cargo bench --bench scores -- naive` measures the ratio).

use super::codes::{self, Lane, Side};
#[cfg(target_arch = "x86_64")]
use super::tiles::{avx2_tile, avx512_pairs, avx512_tile, vnni_code_tile};
use super::tiles::{portable_code_tile, portable_pairs, portable_tile};
use super::walk::{Overflow, Part, Walk};
use super::{Visitor, finish, step};
use crate::config::Similarity;

/// Queries scored together by AVX2 and by the portable path: with 16 items, 12 of AVX2's 16 registers.
const NARROW: (usize, usize) = (6, 16);

/// Dimensions after which such a tile is put down, so that a panel's part and the queries' part fit in a first-level cache of
/// 32 KiB together.
const NARROW_DEPTH: usize = (24 << 10) / ((NARROW.0 + NARROW.1) * size_of::<f32>());

/// Queries and items of a tile for AVX-512: 28 of its 32 registers.
#[cfg(target_arch = "x86_64")]
const WIDE: (usize, usize) = (14, 32);

/// Such a tile reads little for what it computes, and a second-level cache is fast enough: to put it down costs 3 % with 384
/// dimensions.
#[cfg(target_arch = "x86_64")]
const WIDE_DEPTH: usize = usize::MAX;

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
    /// The same, and products of 8-bit integers four times as fast, for a first pass.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

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
                    if is_x86_feature_detected!("avx512vnni") {
                        all.push(Kernel::Avx512Vnni);
                    }
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
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => "AVX-512 + VNNI",
        }
    }

    /// (queries, gallery items) of a tile.
    pub fn tile(self) -> (usize, usize) {
        match self {
            Kernel::Portable => NARROW,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => NARROW,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 | Kernel::Avx512Vnni => WIDE,
        }
    }

    /// Whether it has a first pass in integers.
    pub fn selects(self) -> bool {
        match self {
            Kernel::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 | Kernel::Avx512 => false,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni => true,
        }
    }

    /// Whether integers are so much faster that two passes are faster than one.
    pub fn has_fast_integers(self) -> bool {
        self.selects() && self != Kernel::Portable
    }

    /// Scores a group of queries against a block and hands every row of a tile that reaches its visitor's floor to the
    /// visitor.
    pub(super) fn score<V: Visitor>(self, part: Part<'_, V>) -> Result<(), Overflow> {
        match self {
            Kernel::Portable => score_portable(part),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists this variant only when the CPU has AVX2 and FMA.
            Kernel::Avx2 => unsafe { score_avx2(part) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists this variant only when the CPU has AVX-512F.
            Kernel::Avx512 => unsafe { score_avx512(part) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists this variant only when the CPU has AVX-512F, VNNI and FMA.
            Kernel::Avx512Vnni => unsafe { score_vnni(part) },
        }
    }

    /// Codes the embeddings of one panel as wide as the side's in a tile.
    pub(super) fn encode(self, side: Side, panel: &[f32], words: &mut [u32], lanes: &mut [Lane]) {
        match self {
            Kernel::Portable => encode_narrow(side, panel, words, lanes),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => encode_narrow(side, panel, words, lanes),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists these variants only when the CPU has AVX-512F.
            Kernel::Avx512 | Kernel::Avx512Vnni => unsafe {
                encode_avx512(side, panel, words, lanes)
            },
        }
    }
}

/// Scores that are compared together: two vectors of eight.
pub const TOGETHER: usize = 16;

impl Kernel {
    /// Adds to `reached[i]`, lane by lane modulo 8, how many of the scores are at or above threshold i, and says whether
    /// any equals one that another reaches. The thresholds ascend; NaN reaches none.
    pub(crate) fn compare(
        self,
        scores: &[f32; TOGETHER],
        thresholds: &[f32],
        reached: &mut [[u32; TOGETHER / 2]],
    ) -> bool {
        match self {
            Kernel::Portable => compare_portable(scores, thresholds, reached),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists these variants only when the CPU has AVX2.
            Kernel::Avx2 | Kernel::Avx512 | Kernel::Avx512Vnni => unsafe {
                compare_avx2(scores, thresholds, reached)
            },
        }
    }

    /// The scores of a query with a few items, whose embeddings lie one after the other, by the definition. Their chains
    /// run side by side: a single one waits for each of its steps.
    pub(super) fn score_few(
        self,
        query: &[f32],
        items: &[f32],
        similarity: Similarity,
    ) -> [f32; FEW] {
        match self {
            Kernel::Portable => score_few(query, items, similarity),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` lists these variants only when the CPU has AVX2 and FMA.
            _ => unsafe { score_few_fma(query, items, similarity) },
        }
    }
}

/// Items whose chains run side by side.
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

fn encode_narrow(side: Side, panel: &[f32], words: &mut [u32], lanes: &mut [Lane]) {
    match side {
        Side::Queries => codes::encode::<{ NARROW.0 }>(side, panel, words, lanes),
        Side::Gallery => codes::encode::<{ NARROW.1 }>(side, panel, words, lanes),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn encode_avx512(side: Side, panel: &[f32], words: &mut [u32], lanes: &mut [Lane]) {
    match side {
        Side::Queries => codes::encode::<{ WIDE.0 }>(side, panel, words, lanes),
        Side::Gallery => codes::encode::<{ WIDE.1 }>(side, panel, words, lanes),
    }
}

fn score_portable<V: Visitor>(part: Part<'_, V>) -> Result<(), Overflow> {
    let l2 = part.similarity == Similarity::L2;
    let mut walk = Walk::<V, { NARROW.0 }, { NARROW.1 }>::new(part, NARROW_DEPTH);
    if l2 {
        walk.score(portable_tile::<_, _, true>)
    } else {
        walk.score_selected(
            portable_tile::<_, _, false>,
            portable_code_tile,
            portable_pairs::<{ NARROW.1 }>,
        )
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn score_avx2<V: Visitor>(part: Part<'_, V>) -> Result<(), Overflow> {
    let l2 = part.similarity == Similarity::L2;
    let mut walk = Walk::<V, { NARROW.0 }, { NARROW.1 }>::new(part, NARROW_DEPTH);
    if l2 {
        walk.score(|q, p, rows| avx2_tile::<true>(q, p, rows))
    } else {
        walk.score(|q, p, rows| avx2_tile::<false>(q, p, rows))
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn score_avx512<V: Visitor>(part: Part<'_, V>) -> Result<(), Overflow> {
    let l2 = part.similarity == Similarity::L2;
    let mut walk = Walk::<V, { WIDE.0 }, { WIDE.1 }>::new(part, WIDE_DEPTH);
    if l2 {
        walk.score(|q, p, rows| avx512_tile::<true>(q, p, rows))
    } else {
        walk.score(|q, p, rows| avx512_tile::<false>(q, p, rows))
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni,fma")]
fn score_vnni<V: Visitor>(part: Part<'_, V>) -> Result<(), Overflow> {
    if part.similarity == Similarity::L2 {
        return score_avx512(part);
    }
    Walk::<V, { WIDE.0 }, { WIDE.1 }>::new(part, WIDE_DEPTH).score_selected(
        |q, p, rows| avx512_tile::<false>(q, p, rows),
        |q, p, starts, rows| vnni_code_tile(q, p, starts, rows),
        |pairs| avx512_pairs(pairs),
    )
}
