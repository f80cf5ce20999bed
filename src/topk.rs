//! The score of a pair, and the pass that hands every score of a set of queries to whoever counts it.
//!
//! A score is DEFINED as one chain of fused multiply-adds over the dimensions in index order, f32, one
//! accumulator a pair started at +0 (`docs/METRICS.md`, section 1). The kernels keep to that chain, so every
//! instruction set, thread count and block size gives the same bits.
//!
//! [`scan`] packs the gallery a block at a time and scores groups of queries against it in parallel. A query's
//! [`Visitor`] sees its scores in gallery order, a short row at a time, while they are in the cache; rows without a
//! score that it asked for are skipped. So nothing of size queries x gallery ever exists, several query sets share
//! one pass over the gallery, and beside the embeddings a pass holds the packed queries and one block.
//!
//! Where the CPU multiplies 8-bit integers much faster and visitors want few scores, a first pass in integers finds out which
//! these may be, and only they are computed. Where there is a GPU, [`FirstPass`] may do so instead.

mod codes;
mod first_pass;
mod kernel;
mod panels;
mod progress;
mod selection;
#[cfg(test)]
mod tests;
mod tiles;
mod walk;

use std::sync::Mutex;

use rayon::prelude::*;

use crate::config::Similarity;
use crate::domain::Embeddings;

use codes::{MOST_DIMENSIONS, Side};
use first_pass::{Asked, Elsewhere, norm_above};
use kernel::FEW;
use panels::Panels;
use progress::Pass;
use walk::{Block, Part};

pub use first_pass::{FirstPass, Reached, first_pass_on, first_pass_provider, is_long};
pub use kernel::{Kernel, TOGETHER};
pub use progress::tell;

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

/// The gallery side of a pass.
#[derive(Clone, Copy)]
pub struct Gallery<'a> {
    /// One model's embeddings.
    pub embeddings: &'a Embeddings,
    /// The items to score, each with an embedding; a position is an index into them.
    pub items: &'a [usize],
}

/// Queries of one model and who hears their scores.
pub struct QueryScan<'a, V> {
    /// The model's embeddings.
    pub embeddings: &'a Embeddings,
    /// Item index of each query; each must have an embedding.
    pub items: &'a [usize],
    /// One visitor a query.
    pub visitors: Vec<V>,
}

/// Hears the scores of one query.
pub trait Visitor: Send {
    /// What the visitors of one thread count together; the caller adds up the threads'.
    type Shared: Send;

    /// A row whose scores are all below it need not be shown, and in one that is, -inf may stand for any score below it.
    /// -inf: every score is shown. Changes only by [`Visitor::visit`], and never falls: what was found out
    /// with an older floor holds.
    fn floor(&self) -> f32;

    /// Whether the floor stays at -inf whatever is shown, so that looking for scores to skip is in vain.
    fn wants_all(&self) -> bool {
        false
    }

    /// Scores of the gallery positions `first..first + row.len()`. Rows come in gallery order, each at most once; the
    /// visitor may overwrite them.
    fn visit(&mut self, shared: &mut Self::Shared, first: usize, row: &mut [f32]);
}

/// How a pass is cut up. No choice changes a bit of any score.
#[derive(Debug, Clone, Copy)]
struct Blocking {
    /// Queries that a thread goes over for each panel of the gallery: enough that reading the panel costs nothing.
    group: usize,
    /// Bytes of packed gallery between two meetings of the threads: they stay in a last-level cache of 32 MiB.
    block_bytes: usize,
    /// Whether a first pass in integers looks for what needs no exact score; for tests also where that is slower.
    two_passes: bool,
}

impl Blocking {
    /// 252 is a multiple of every kernel's tile; more queries are not faster (on AVX2, 384 dimensions: 30 queries 75,
    /// 126 91, 252 92, 1,008 92 GFLOP/s).
    fn of(kernel: Kernel) -> Self {
        Self {
            group: 252,
            block_bytes: 16 << 20,
            two_passes: kernel.has_fast_integers(),
        }
    }
}

/// Groups a thread should find at least, so that none is left alone with the last one.
const GROUPS_A_THREAD: usize = 4;

/// Scores every query of every set against the whole gallery, on the current rayon pool.
///
/// All embeddings must be of one dimension. Returns what the visitors share, one value a thread that was at work, each
/// begun by `new_shared`. Costs queries x gallery x dim; memory beside the embeddings is the packed queries and
/// 16 MiB of packed gallery, for two passes the queries' rows and a fourth of what is packed besides. Where the first one runs on
/// another device: the queries' rows twice, 16 MiB of gallery, and some 50 MiB of pairs that it names.
///
/// # Errors
/// A score that overflows (possible only for inner products or distances of huge embeddings).
pub fn scan<V: Visitor>(
    gallery: Gallery<'_>,
    similarity: Similarity,
    sets: &mut [QueryScan<'_, V>],
    new_shared: impl Fn() -> V::Shared + Sync,
) -> Result<Vec<V::Shared>, ScoreOverflow> {
    scan_with(Kernel::detect(), gallery, similarity, sets, new_shared)
}

/// [`scan`] by a kernel of one's choice: to compare them. No score depends on it.
///
/// # Errors
/// As [`scan`].
///
/// # Panics
/// When this CPU does not have it.
pub fn scan_with<V: Visitor>(
    kernel: Kernel,
    gallery: Gallery<'_>,
    similarity: Similarity,
    sets: &mut [QueryScan<'_, V>],
    new_shared: impl Fn() -> V::Shared + Sync,
) -> Result<Vec<V::Shared>, ScoreOverflow> {
    assert!(
        Kernel::available().contains(&kernel),
        "{kernel:?} is not here"
    );
    let n_queries: usize = sets.iter().map(|set| set.items.len()).sum();
    let pairs = n_queries as u64 * gallery.items.len() as u64;
    let elsewhere = first_pass::for_pass(pairs.saturating_mul(gallery.embeddings.dim() as u64));
    scan_in_blocks(
        kernel,
        Blocking::of(kernel),
        elsewhere.as_deref(),
        gallery,
        similarity,
        sets,
        new_shared,
    )
}

fn scan_in_blocks<V: Visitor>(
    kernel: Kernel,
    blocking: Blocking,
    elsewhere: Option<&Elsewhere>,
    gallery: Gallery<'_>,
    similarity: Similarity,
    sets: &mut [QueryScan<'_, V>],
    new_shared: impl Fn() -> V::Shared + Sync,
) -> Result<Vec<V::Shared>, ScoreOverflow> {
    let dim = gallery.embeddings.dim();
    let (tile_queries, tile_items) = kernel.tile();
    let n_queries: usize = sets.iter().map(|set| set.items.len()).sum();
    let fair = n_queries
        .div_ceil(GROUPS_A_THREAD * rayon::current_num_threads())
        .max(1);
    let group = blocking.group.min(fair).next_multiple_of(tile_queries);
    let is_bounded = similarity != Similarity::L2 && dim <= MOST_DIMENSIONS;
    let elsewhere = elsewhere.filter(|_| is_bounded);
    let begin = if elsewhere.is_some() {
        Begin::Elsewhere
    } else if is_bounded && blocking.two_passes && kernel.selects() {
        Begin::WithCodes
    } else {
        Begin::Exactly
    };
    let mut groups: Vec<Group<'_, V>> = sets
        .iter_mut()
        .flat_map(|set| {
            let visitors = set.visitors.par_chunks_mut(group);
            let groups = set.items.par_chunks(group).zip(visitors);
            groups
                .map(|(items, visitors)| Group::new(kernel, begin, set.embeddings, items, visitors))
                .collect::<Vec<_>>()
        })
        .collect();
    let with_codes = groups.iter().any(|group| group.packed.codes().is_some());

    let panel_bytes = tile_items * dim * size_of::<f32>();
    let block_items = (blocking.block_bytes / panel_bytes).max(1) * tile_items;
    let idle = Mutex::new(Vec::new());
    let mut panels = Panels::default();
    let pass = Pass::begin(n_queries as u64 * gallery.items.len() as u64, dim);
    for (index, items) in gallery.items.chunks(block_items).enumerate() {
        let first = index * block_items;
        let (mut rows, mut found) = (Vec::new(), vec![None; groups.len()]);
        if let Some(elsewhere) = elsewhere.filter(|device| !device.has_failed()) {
            let asked: Vec<_> = groups.iter().map(Group::asked).collect();
            if asked.iter().any(Option::is_some) {
                rows = rows_of(gallery.embeddings, items);
                found = elsewhere.select(&asked, &rows, dim);
            }
        }
        if found.iter().any(Option::is_none) {
            panels.pack(kernel, Side::Gallery, gallery.embeddings, items, with_codes);
        }
        let block = Block {
            panels: &panels,
            first,
            end: first + items.len(),
        };
        let overflow = groups
            .par_iter_mut()
            .zip(found)
            .filter_map(|(group, found)| {
                let waiting = idle
                    .lock()
                    .expect("no thread panics while it holds it")
                    .pop();
                let mut shared = waiting.unwrap_or_else(&new_shared);
                let outcome = match found {
                    Some(found) => {
                        let both = [group.rows.as_slice(), &rows];
                        found.score(kernel, both, dim, first, group.visitors, &mut shared);
                        Ok(())
                    }
                    None => kernel.score(Part {
                        similarity,
                        queries: &group.packed,
                        query_rows: &group.rows,
                        block: &block,
                        visitors: &mut *group.visitors,
                        shared: &mut shared,
                    }),
                };
                idle.lock()
                    .expect("no thread panics while it holds it")
                    .push(shared);
                let (query, position) = outcome.err()?;
                // The last panel repeats the last item.
                let position = position.min(gallery.items.len() - 1);
                Some((group.items[query], gallery.items[position]))
            })
            .min();
        if let Some((query, gallery)) = overflow {
            return Err(ScoreOverflow { query, gallery });
        }
        pass.advance(n_queries as u64 * items.len() as u64);
    }
    Ok(idle
        .into_inner()
        .expect("no thread panics while it holds it"))
}

/// [`scan`] for one set of queries whose visitors share nothing: the visitors, when all scores have passed.
///
/// # Errors
/// As [`scan`].
pub fn scan_one<V: Visitor<Shared = ()>>(
    gallery: Gallery<'_>,
    similarity: Similarity,
    queries: QueryScan<'_, V>,
) -> Result<Vec<V>, ScoreOverflow> {
    let mut sets = [queries];
    scan(gallery, similarity, &mut sets, || ())?;
    let [QueryScan { visitors, .. }] = sets;
    Ok(visitors)
}

/// Queries that a thread goes over together.
struct Group<'a, V> {
    packed: Panels,
    /// Their embeddings one after the other, where there is a first pass: the second takes single pairs.
    rows: Vec<f32>,
    /// At least the length of each, where that pass runs on another device.
    norms: Vec<f32>,
    items: &'a [usize],
    visitors: &'a mut [V],
}

/// How a pass over a group begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// There is one pass.
    Exactly,
    /// In 8-bit integers.
    WithCodes,
    /// On another device.
    Elsewhere,
}

impl<'a, V: Visitor> Group<'a, V> {
    /// Queries of which one wants every score have one pass.
    fn new(
        kernel: Kernel,
        begin: Begin,
        embeddings: &Embeddings,
        items: &'a [usize],
        visitors: &'a mut [V],
    ) -> Self {
        let begin = if visitors.iter().any(V::wants_all) {
            Begin::Exactly
        } else {
            begin
        };
        let with_codes = begin == Begin::WithCodes;
        let rows = match begin {
            Begin::Exactly => Vec::new(),
            Begin::WithCodes | Begin::Elsewhere => rows_of(embeddings, items),
        };
        let norms = match begin {
            Begin::Exactly | Begin::WithCodes => Vec::new(),
            Begin::Elsewhere => {
                let rows = rows.chunks_exact(embeddings.dim());
                rows.map(norm_above).collect()
            }
        };
        Self {
            packed: Panels::new(kernel, Side::Queries, embeddings, items, with_codes),
            rows,
            norms,
            items,
            visitors,
        }
    }

    /// What a device is asked for; nothing for queries that want every score.
    fn asked(&self) -> Option<Asked<'_>> {
        let floors = || self.visitors.iter().map(V::floor).collect();
        let may_ask = !self.norms.is_empty();
        may_ask
            .then(|| Asked::new(&self.rows, &self.norms, floors()))
            .flatten()
    }
}

/// The items' embeddings, one after the other.
fn rows_of(embeddings: &Embeddings, items: &[usize]) -> Vec<f32> {
    let dim = embeddings.dim();
    let mut rows = vec![0.0; items.len() * dim];
    let read = |(row, &item): (&mut [f32], &usize)| {
        assert!(embeddings.read_into(item, row), "{LISTED}");
    };
    rows.par_chunks_exact_mut(dim).zip(items).for_each(read);
    rows
}

/// Bytes of scores that [`map_rows`] holds at a time.
const ROW_BYTES: usize = 64 << 20;

/// `f(i, scores of query i against the whole gallery)` for every query, in order: one row of scores a model, whose queries
/// share the pass. 64 MiB of scores are held at a time.
///
/// For small galleries, or few queries: a gallery of a million items is packed anew for every 16 rows.
///
/// # Errors
/// A score that overflows f32.
pub fn map_rows<T: Send, const N: usize>(
    models: [&Embeddings; N],
    queries: &[usize],
    gallery: Gallery<'_>,
    similarity: Similarity,
    f: impl Fn(usize, [&mut [f32]; N]) -> T + Sync,
) -> Result<Vec<T>, ScoreOverflow> {
    let bytes = size_of::<f32>() * gallery.items.len().max(1) * N.max(1);
    let together = (ROW_BYTES / bytes).max(1);
    let mut results = Vec::with_capacity(queries.len());
    for (chunk, items) in queries.chunks(together).enumerate() {
        let row = || Row(vec![0.0; gallery.items.len()]);
        let mut sets = models.map(|embeddings| QueryScan {
            embeddings,
            items,
            visitors: items.iter().map(|_| row()).collect(),
        });
        scan(gallery, similarity, &mut sets, || ())?;
        let mut of_models = sets.map(|set| set.visitors.into_iter());
        let of_query = |_| {
            let rows = of_models.each_mut();
            rows.map(|rows| rows.next().expect("one row a query"))
        };
        let rows: Vec<[Row; N]> = (0..items.len()).map(of_query).collect();
        results.par_extend(rows.into_par_iter().enumerate().map(|(i, mut rows)| {
            let rows = rows.each_mut().map(|row| row.0.as_mut_slice());
            f(chunk * together + i, rows)
        }));
    }
    Ok(results)
}

/// Keeps all scores.
struct Row(Vec<f32>);

impl Visitor for Row {
    type Shared = ();

    fn floor(&self) -> f32 {
        f32::NEG_INFINITY
    }

    fn wants_all(&self) -> bool {
        true
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        self.0[first..first + row.len()].copy_from_slice(row);
    }
}

/// What every caller must see to.
const LISTED: &str = "the caller lists only items with an embedding";

/// The score of one pair by the definition; the naive twin of the kernels.
#[inline(always)]
pub fn score_pair(query: &[f32], gallery: &[f32], similarity: Similarity) -> f32 {
    let pairs = query.iter().zip(gallery);
    let sum = pairs.fold(0.0, |sum, (&q, &g)| step(q, g, sum, similarity));
    finish(sum, similarity)
}

/// One step of a chain.
#[inline(always)]
fn step(q: f32, g: f32, sum: f32, similarity: Similarity) -> f32 {
    match similarity {
        Similarity::Cosine | Similarity::Ip => q.mul_add(g, sum),
        Similarity::L2 => (q - g).mul_add(q - g, sum),
    }
}

/// Scores of one query against a few gallery positions, in their order.
pub fn score_some(
    queries: &Embeddings,
    query: usize,
    gallery: Gallery<'_>,
    positions: &[u32],
    similarity: Similarity,
) -> Vec<f32> {
    let kernel = Kernel::detect();
    let query = queries.get(query).expect(LISTED);
    let dim = query.len();
    // The last few may leave older rows in place; their scores are dropped.
    let mut rows = vec![0.0; FEW * dim];
    let mut scores = Vec::with_capacity(positions.len().next_multiple_of(FEW));
    for few in positions.chunks(FEW) {
        for (row, &position) in rows.chunks_exact_mut(dim).zip(few) {
            let item = gallery.items[position as usize];
            assert!(gallery.embeddings.read_into(item, row), "{LISTED}");
        }
        scores.extend(kernel.score_few(&query, &rows, similarity));
    }
    scores.truncate(positions.len());
    scores
}

/// Turns -0 into +0 (so that equal scores have equal bits) and a distance into a score.
#[inline(always)]
fn finish(sum: f32, similarity: Similarity) -> f32 {
    match similarity {
        Similarity::Cosine | Similarity::Ip => sum + 0.0,
        Similarity::L2 => 0.0 - sum,
    }
}

/// The instruction set that scores are computed with on this machine.
pub fn kernel_name() -> &'static str {
    Kernel::detect().name()
}

/// The features of this CPU that a kernel could use.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found = [(std::env::consts::ARCH, true)];
    found
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name)
        .collect()
}
