//! The score of a pair, and the register-blocked kernel that computes it.
//!
//! A score is DEFINED as one chain of fused multiply-adds over the dimensions in index order, f32, one
//! accumulator a pair started at +0 (`docs/METRICS.md`, section 9). A tile keeps its accumulators in registers over
//! the whole dimension, so every instruction set, thread count and block size gives the same bits.
//!
//! This is the only file with `unsafe`: without the `target_feature` attribute `f32::mul_add` is a library call a
//! multiplication (measured: `cargo bench --bench scores`, ratio to the naive twin).

use ndarray::ArrayView1;
use rayon::prelude::*;

use crate::config::Similarity;
use crate::domain::Embeddings;

/// Gallery items scored together; one SIMD-friendly lane each.
const LANES: usize = 32;

/// Queries scored together. 14 x 32 accumulators fill 28 of AVX-512's 32 registers.
const QUERIES: usize = 14;

/// A pair's score is infinite, so it ties with others that are not its equals. (NaN cannot arise: a fused
/// multiply-add of finite factors never adds infinities of different signs.)
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the score of query item {query} and gallery item {gallery} overflows f32")]
pub struct ScoreOverflow {
    /// Item index of the query.
    pub query: usize,
    /// Item index of the gallery item.
    pub gallery: usize,
}

/// Gallery embeddings laid out for the kernel: panels of 32 items, dimension-major inside.
pub struct PackedGallery {
    items: Vec<usize>,
    dim: usize,
    panels: Vec<f32>,
}

impl PackedGallery {
    /// Packs the embeddings of `items`; each must have one.
    pub fn new(embeddings: &Embeddings, items: &[usize]) -> Self {
        Self::concatenated(&[embeddings], items)
    }

    /// Packs the embeddings of `items` by each model, one gallery after the other; all of one dimension. A row of
    /// scores then holds the items' scores by the first model, then those by the next.
    pub fn concatenated(models: &[&Embeddings], items: &[usize]) -> Self {
        let dim = models[0].dim();
        let n = models.len() * items.len();
        let mut panels = vec![0.0; n.div_ceil(LANES) * LANES * dim];
        let rows = models
            .iter()
            .flat_map(|&embeddings| items.iter().map(move |&item| (embeddings, item)));
        let mut row = vec![0.0; dim];
        for (position, (embeddings, item)) in rows.enumerate() {
            assert!(
                embeddings.read_into(item, &mut row),
                "the caller lists only items with an embedding"
            );
            let (panel, lane) = (position / LANES, position % LANES);
            for (d, &value) in row.iter().enumerate() {
                panels[(panel * dim + d) * LANES + lane] = value;
            }
        }
        Self {
            items: items.repeat(models.len()),
            dim,
            panels,
        }
    }

    /// Item indices, in the order of every row of scores.
    pub fn items(&self) -> &[usize] {
        &self.items
    }
}

/// Scores each query against the whole gallery and hands its row (one score a gallery position) to `visit`.
///
/// Rows are visited in parallel on the current rayon pool; results come back in query order. Memory beside the
/// gallery is 14 rows a thread, never queries x gallery.
///
/// # Errors
/// A score that overflows (possible only for inner products or distances of huge embeddings).
pub fn score_rows<T: Send>(
    embeddings: &Embeddings,
    queries: &[usize],
    gallery: &PackedGallery,
    similarity: Similarity,
    visit: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Result<Vec<T>, ScoreOverflow> {
    let kernel = Kernel::detect();
    let n = gallery.items.len();
    let blocks: Result<Vec<Vec<T>>, ScoreOverflow> = queries
        .par_chunks(QUERIES)
        .enumerate()
        .map(|(block, chunk)| {
            let panel = pack_queries(embeddings, chunk);
            let mut rows = vec![0.0; chunk.len() * n];
            kernel.score_block(&panel, gallery, similarity, &mut rows);
            (0..chunk.len())
                .map(|q| {
                    let row = &mut rows[q * n..(q + 1) * n];
                    if let Some(bad) = row.iter().position(|score| !score.is_finite()) {
                        return Err(ScoreOverflow {
                            query: chunk[q],
                            gallery: gallery.items[bad],
                        });
                    }
                    Ok(visit(block * QUERIES + q, row))
                })
                .collect()
        })
        .collect();
    Ok(blocks?.into_iter().flatten().collect())
}

/// The score of one pair by the definition; the naive twin of the kernel.
pub fn score_pair(
    query: ArrayView1<'_, f32>,
    gallery: ArrayView1<'_, f32>,
    similarity: Similarity,
) -> f32 {
    let mut sum = 0.0_f32;
    for (&q, &g) in query.iter().zip(gallery) {
        sum = match similarity {
            Similarity::Cosine | Similarity::Ip => q.mul_add(g, sum),
            Similarity::L2 => (q - g).mul_add(q - g, sum),
        };
    }
    finish(sum, similarity)
}

/// Turns -0 into +0 (so that equal scores have equal bits) and a distance into a score.
#[inline(always)]
fn finish(sum: f32, similarity: Similarity) -> f32 {
    match similarity {
        Similarity::Cosine | Similarity::Ip => sum + 0.0,
        Similarity::L2 => 0.0 - sum,
    }
}

/// Queries of a block, dimension-major, padded with zeros to [`QUERIES`].
fn pack_queries(embeddings: &Embeddings, chunk: &[usize]) -> Vec<f32> {
    let dim = embeddings.dim();
    let mut panel = vec![0.0; dim * QUERIES];
    for (q, &item) in chunk.iter().enumerate() {
        let row = embeddings
            .get(item)
            .expect("the caller lists only items with an embedding");
        for (d, &value) in row.iter().enumerate() {
            panel[d * QUERIES + q] = value;
        }
    }
    panel
}

/// The instruction set that scores are computed with on this machine.
pub fn kernel_name() -> &'static str {
    match Kernel::detect() {
        Kernel::Portable => "portable",
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => "AVX2 + FMA",
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 => "AVX-512",
    }
}

/// The features of this CPU that a kernel could use.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found = [(std::env::consts::ARCH, true)];
    found
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name)
        .collect()
}

/// The instruction set a block is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// Whatever the target has; correct everywhere, slow without hardware FMA.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Kernel::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Kernel::Avx2;
            }
        }
        Kernel::Portable
    }

    fn score_block(
        self,
        queries: &[f32],
        gallery: &PackedGallery,
        similarity: Similarity,
        rows: &mut [f32],
    ) {
        match self {
            Kernel::Portable => score_block(queries, gallery, similarity, rows),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` returns this variant only when the CPU has AVX2 and FMA.
            Kernel::Avx2 => unsafe { score_block_avx2(queries, gallery, similarity, rows) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` returns this variant only when the CPU has AVX-512F.
            Kernel::Avx512 => unsafe { score_block_avx512(queries, gallery, similarity, rows) },
        }
    }
}

/// The same code, compiled for AVX2: 7 x 8 accumulators fit its sixteen registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn score_block_avx2(q: &[f32], gallery: &PackedGallery, similarity: Similarity, rows: &mut [f32]) {
    score_block(q, gallery, similarity, rows);
}

/// The portable path: the same chains, compiled for whatever the caller has.
#[inline(always)]
fn score_block(q: &[f32], gallery: &PackedGallery, similarity: Similarity, rows: &mut [f32]) {
    match similarity {
        Similarity::Cosine | Similarity::Ip => {
            tiles(q, gallery, similarity, rows, tile::<7, 8, false>);
        }
        Similarity::L2 => tiles(q, gallery, similarity, rows, tile::<7, 8, true>),
    }
}

/// Intrinsics, because the vectoriser turns a 14 x 32 tile inside out.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn score_block_avx512(
    q: &[f32],
    gallery: &PackedGallery,
    similarity: Similarity,
    rows: &mut [f32],
) {
    match similarity {
        Similarity::Cosine | Similarity::Ip => {
            tiles(q, gallery, similarity, rows, |q, p, _, _| {
                tile_avx512::<false>(q, p)
            });
        }
        Similarity::L2 => tiles(q, gallery, similarity, rows, |q, p, _, _| {
            tile_avx512::<true>(q, p)
        }),
    }
}

/// Scores a block of queries tile by tile. Q divides [`QUERIES`], G divides [`LANES`]; they only say how much stays in
/// registers, never what is computed. `tile` gets the queries, a panel, the tile's first query and first lane.
#[inline(always)]
fn tiles<const Q: usize, const G: usize>(
    queries: &[f32],
    gallery: &PackedGallery,
    similarity: Similarity,
    rows: &mut [f32],
    tile: impl Fn(&[f32], &[f32], usize, usize) -> [[f32; G]; Q],
) {
    let (n, dim) = (gallery.items.len(), gallery.dim);
    let n_queries = rows.len().checked_div(n).unwrap_or(0);
    for (p, panel) in gallery.panels.chunks_exact(dim * LANES).enumerate() {
        for first_query in (0..n_queries).step_by(Q) {
            // The last panel's lanes beyond the gallery are padding.
            for first_lane in (0..LANES.min(n - p * LANES)).step_by(G) {
                let sums = tile(queries, panel, first_query, first_lane);
                let start = p * LANES + first_lane;
                let width = (n - start).min(G);
                for (q, sums) in sums.iter().enumerate().take(n_queries - first_query) {
                    let row = (first_query + q) * n + start;
                    for (score, &sum) in rows[row..row + width].iter_mut().zip(sums) {
                        *score = finish(sum, similarity);
                    }
                }
            }
        }
    }
}

/// Q x G chains over the whole dimension.
#[inline(always)]
fn tile<const Q: usize, const G: usize, const L2: bool>(
    queries: &[f32],
    panel: &[f32],
    first_query: usize,
    first_lane: usize,
) -> [[f32; G]; Q] {
    let mut sums = [[0.0_f32; G]; Q];
    for (column, values) in panel.chunks_exact(LANES).zip(queries.chunks_exact(QUERIES)) {
        let column: &[f32; G] = column[first_lane..first_lane + G]
            .try_into()
            .expect("a slice of G lanes");
        let values: &[f32; Q] = values[first_query..first_query + Q]
            .try_into()
            .expect("a slice of Q queries");
        for q in 0..Q {
            for lane in 0..G {
                let (a, b) = if L2 {
                    let difference = values[q] - column[lane];
                    (difference, difference)
                } else {
                    (values[q], column[lane])
                };
                sums[q][lane] = a.mul_add(b, sums[q][lane]);
            }
        }
    }
    sums
}

/// [`QUERIES`] x [`LANES`] chains in 28 vector registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn tile_avx512<const L2: bool>(queries: &[f32], panel: &[f32]) -> [[f32; LANES]; QUERIES] {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
        _mm512_sub_ps,
    };
    let mut sums = [[_mm512_setzero_ps(); 2]; QUERIES];
    for (column, values) in panel.chunks_exact(LANES).zip(queries.chunks_exact(QUERIES)) {
        let values: &[f32; QUERIES] = values.try_into().expect("a chunk of that size");
        // SAFETY: the chunk has LANES = 2 x 16 values.
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
    let mut out = [[0.0; LANES]; QUERIES];
    for (out, sums) in out.iter_mut().zip(sums) {
        for (half, sum) in out.chunks_exact_mut(16).zip(sums) {
            // SAFETY: the chunk has 16 values.
            unsafe { _mm512_storeu_ps(half.as_mut_ptr(), sum) };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn random(n: usize, dim: usize, seed: u64) -> Embeddings {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let rows = Array2::from_shape_fn((n, dim), |_| rng.gen_range(-1.0_f32..1.0));
        Embeddings::dense(rows, true).expect("finite, not zero")
    }

    fn kernels() -> Vec<Kernel> {
        let mut all = vec![Kernel::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Kernel::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                all.push(Kernel::Avx512);
            }
        }
        all
    }

    #[test]
    fn every_kernel_gives_the_bits_of_the_definition() {
        for (n_queries, n_gallery, dim) in [(1, 1, 1), (14, 32, 8), (15, 33, 7), (29, 100, 65)] {
            let (q, g) = (random(n_queries, dim, 1), random(n_gallery, dim, 2));
            let items: Vec<usize> = (0..n_gallery).collect();
            let queries: Vec<usize> = (0..n_queries).collect();
            let packed = PackedGallery::new(&g, &items);
            for similarity in [Similarity::Cosine, Similarity::L2] {
                for kernel in kernels() {
                    for chunk in queries.chunks(QUERIES) {
                        let mut rows = vec![f32::NAN; chunk.len() * n_gallery];
                        let panel = pack_queries(&q, chunk);
                        kernel.score_block(&panel, &packed, similarity, &mut rows);
                        for (i, &query) in chunk.iter().enumerate() {
                            for item in 0..n_gallery {
                                let expected = score_pair(
                                    ArrayView1::from(&*q.get(query).expect("dense")),
                                    ArrayView1::from(&*g.get(item).expect("dense")),
                                    similarity,
                                );
                                let found = rows[i * n_gallery + item];
                                assert_eq!(found.to_bits(), expected.to_bits(), "{kernel:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_come_back_in_query_order_whatever_the_threads() {
        let embeddings = random(100, 16, 3);
        let packed = PackedGallery::new(&embeddings, &(0..70).collect::<Vec<_>>());
        let queries: Vec<usize> = (5..100).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            pool.install(|| {
                score_rows(
                    &embeddings,
                    &queries,
                    &packed,
                    Similarity::Cosine,
                    |q, row| (q, row.to_vec()),
                )
            })
            .expect("finite")
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert!(one.iter().enumerate().all(|(i, (q, _))| i == *q));
    }

    #[test]
    fn an_overflow_names_the_pair() {
        let rows = Array2::from_shape_vec((2, 2), vec![f32::MAX, f32::MAX, f32::MAX, -f32::MAX])
            .expect("2 x 2");
        let embeddings = Embeddings::dense(rows, false).expect("finite");
        let packed = PackedGallery::new(&embeddings, &[0, 1]);
        let found = score_rows(&embeddings, &[0], &packed, Similarity::Ip, |_, _| ());
        assert_eq!(
            found.expect_err("inf"),
            ScoreOverflow {
                query: 0,
                gallery: 0
            }
        );
    }

    #[test]
    fn minus_zero_becomes_plus_zero() {
        let embeddings = Embeddings::dense(
            Array2::from_shape_vec((2, 1), vec![1.0, -1e-45]).expect("2 x 1"),
            false,
        )
        .expect("finite");
        let [a, b] = [0, 1].map(|item| embeddings.get(item).expect("dense"));
        let (a, b) = (ArrayView1::from(&*a), ArrayView1::from(&*b));
        let tiny = ndarray::arr1(&[1e-30_f32]);
        assert_eq!(score_pair(tiny.view(), b, Similarity::Ip).to_bits(), 0);
        assert_eq!(score_pair(a, a, Similarity::L2).to_bits(), 0);
    }
}
