use std::sync::LazyLock;

use ndarray::Array2;
use rand::{Rng, SeedableRng};

use super::first_pass::tests::Rough;
use super::*;

fn random(n: usize, dim: usize, seed: u64) -> Embeddings {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let rows = Array2::from_shape_fn((n, dim), |_| rng.gen_range(-1.0_f32..1.0));
    Embeddings::dense(rows, true).expect("finite, not zero")
}

/// Keeps every score that it is shown.
struct Keep {
    floor: f32,
    scores: Vec<Option<u32>>,
}

impl Visitor for Keep {
    type Shared = usize;

    fn floor(&self) -> f32 {
        self.floor
    }

    fn visit(&mut self, shared: &mut usize, first: usize, row: &mut [f32]) {
        for (lane, &score) in row.iter().enumerate() {
            assert_eq!(self.scores[first + lane], None, "shown twice");
            self.scores[first + lane] = Some(score.to_bits());
        }
        *shared += row.len();
    }
}

struct Case {
    queries: [Embeddings; 2],
    gallery: Embeddings,
}

impl Case {
    fn new(n_queries: usize, n_gallery: usize, dim: usize) -> Self {
        Self {
            queries: [random(n_queries, dim, 1), random(n_queries, dim, 3)],
            gallery: random(n_gallery, dim, 2),
        }
    }

    /// All scores of both query sets; `None` where a row was skipped.
    fn scores(
        &self,
        kernel: Kernel,
        way: Way,
        similarity: Similarity,
        floor: f32,
    ) -> Result<Vec<Vec<Option<u32>>>, ScoreOverflow> {
        // In reverse, so that positions and items differ.
        let items: Vec<usize> = (0..self.gallery.n_items()).rev().collect();
        let queries: Vec<usize> = (0..self.queries[0].n_items()).rev().collect();
        let gallery = Gallery {
            embeddings: &self.gallery,
            items: &items,
        };
        let keep = || Keep {
            floor,
            scores: vec![None; items.len()],
        };
        let mut sets = self.queries.each_ref().map(|embeddings| QueryScan {
            embeddings,
            items: &queries,
            visitors: queries.iter().map(|_| keep()).collect(),
        });
        let shared = scan_in_blocks(
            kernel,
            way.blocking,
            way.elsewhere(),
            gallery,
            similarity,
            &mut sets,
            || 0,
        )?;
        let kept: Vec<Vec<Option<u32>>> = sets
            .into_iter()
            .flat_map(|set| set.visitors)
            .map(|visitor| visitor.scores)
            .collect();
        let shown = kept.iter().flatten().flatten().count();
        assert_eq!(shared.iter().sum::<usize>(), shown);
        Ok(kept)
    }

    fn by_definition(&self, similarity: Similarity) -> Vec<Vec<f32>> {
        let row = |embeddings: &Embeddings, item| embeddings.get(item).expect("dense").to_vec();
        let queries = self.queries.iter().flat_map(|queries| {
            (0..queries.n_items())
                .rev()
                .map(move |item| row(queries, item))
        });
        queries
            .map(|query| {
                let items = (0..self.gallery.n_items()).rev();
                items
                    .map(|item| score_pair(&query, &row(&self.gallery, item), similarity))
                    .collect()
            })
            .collect()
    }
}

/// How a pass is cut up, and whether it begins on another device.
#[derive(Debug, Clone, Copy)]
struct Way {
    blocking: Blocking,
    begins_elsewhere: bool,
}

impl Way {
    fn elsewhere(self) -> Option<&'static Elsewhere> {
        static ROUGH: LazyLock<Elsewhere> = LazyLock::new(|| Elsewhere::new(Box::new(Rough)));
        self.begins_elsewhere.then(|| &*ROUGH)
    }
}

/// With one pass, with two, and with the first one on a device that rounds badly.
fn ways() -> Vec<Way> {
    let cuts = [(252, 16 << 20), (1, 1), (9, 9_000)];
    let all = |(group, block_bytes)| {
        let passes = [(false, false), (true, false), (false, true)];
        passes.map(|(two_passes, begins_elsewhere)| Way {
            blocking: Blocking {
                group,
                block_bytes,
                two_passes,
            },
            begins_elsewhere,
        })
    };
    cuts.into_iter().flat_map(all).collect()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.build().expect("a pool")
}

#[test]
fn every_kernel_block_and_thread_count_gives_the_bits_of_the_definition() {
    let sizes = [
        (1, 1, 1),
        (6, 16, 8),
        (14, 32, 65),
        (7, 33, 7),
        (29, 100, 96),
        // More dimensions than a tile goes through at once.
        (7, 33, 600),
    ];
    for (n_queries, n_gallery, dim) in sizes {
        let case = Case::new(n_queries, n_gallery, dim);
        for similarity in [Similarity::Cosine, Similarity::Ip, Similarity::L2] {
            let expected = case.by_definition(similarity);
            for kernel in Kernel::available() {
                for way in ways() {
                    for threads in [1, 2] {
                        let scores = pool(threads)
                            .install(|| case.scores(kernel, way, similarity, f32::NEG_INFINITY));
                        for (found, expected) in scores.expect("finite").iter().zip(&expected) {
                            let expected = expected.iter().map(|score| Some(score.to_bits()));
                            assert!(found.iter().copied().eq(expected), "{kernel:?} {way:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn values_at_the_ends_of_f32_keep_their_bits_too() {
    // Denormal products, cancelling sums, norms near the square root of the largest f32, equal rows.
    let extreme = |n: usize, seed: u64| {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let magnitudes = [1e-40_f32, 1e-20, 1.0, 1e18, -1e18, -1.0, 0.0];
        let rows = Array2::from_shape_fn((n, 33), |(row, _)| {
            magnitudes[rng.gen_range(0..7)] * if row % 2 == 0 { 1.0 } else { 0.999_999_9 }
        });
        Embeddings::dense(rows, false).expect("finite")
    };
    let case = Case {
        queries: [extreme(13, 1), extreme(13, 2)],
        gallery: extreme(40, 3),
    };
    for similarity in [Similarity::Ip, Similarity::L2] {
        let expected = case.by_definition(similarity);
        for kernel in Kernel::available() {
            let as_usual = Way {
                blocking: Blocking::of(kernel),
                begins_elsewhere: false,
            };
            let found = case
                .scores(kernel, as_usual, similarity, f32::NEG_INFINITY)
                .expect("finite");
            for (found, expected) in found.iter().zip(&expected) {
                let expected = expected.iter().map(|score| Some(score.to_bits()));
                assert!(found.iter().copied().eq(expected), "{kernel:?}");
            }
        }
    }
}

#[test]
fn no_score_that_reaches_the_floor_is_skipped_and_most_others_are() {
    let case = Case::new(20, 300, 24);
    let expected = case.by_definition(Similarity::Cosine);
    for kernel in Kernel::available() {
        for way in ways() {
            let found = case
                .scores(kernel, way, Similarity::Cosine, 0.6)
                .expect("finite");
            let (mut skipped, mut left_out, mut in_vain) = (0, 0, 0);
            for (found, &expected) in found.concat().iter().zip(expected.iter().flatten()) {
                match found.map(f32::from_bits) {
                    None => skipped += 1,
                    Some(f32::NEG_INFINITY) => left_out += 1,
                    Some(score) => {
                        assert_eq!(score.to_bits(), expected.to_bits());
                        in_vain += usize::from(expected < 0.6);
                        continue;
                    }
                }
                assert!(expected < 0.6, "{kernel:?} {way:?}");
            }
            assert!(skipped > 5_000, "{kernel:?} {way:?}: {skipped}");
            // In rows that are shown for the sake of another score; the device names pairs.
            let selects = way.blocking.two_passes && kernel.selects();
            assert_eq!(left_out > 100, selects, "{kernel:?} {way:?}");
            let names_pairs = way.begins_elsewhere;
            assert_eq!(
                in_vain < 50,
                selects || names_pairs,
                "{kernel:?} {way:?}: {in_vain}"
            );
            assert!(selects || left_out == 0);
        }
    }
}

/// The best few, as rankings keep them: the floor rises while scores pass.
struct Best {
    found: Vec<(f32, usize)>,
}

impl Best {
    const KEPT: usize = 5;
}

impl Visitor for Best {
    type Shared = ();

    fn floor(&self) -> f32 {
        let last = self.found.get(Self::KEPT - 1);
        last.map_or(f32::NEG_INFINITY, |&(score, _)| score)
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        let scores = row.iter().enumerate();
        self.found
            .extend(scores.map(|(lane, &score)| (score, first + lane)));
        self.found
            .sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.found.truncate(Self::KEPT);
    }
}

/// Rows that are hard to tell apart in 8 bits: equal ones, neighbours by one unit in the last place, one dimension that
/// dwarfs the others, magnitudes from the smallest to near the square root of the largest f32, zeros.
fn hard(n: usize, dim: usize, seed: u64) -> Embeddings {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let base: Vec<f32> = (0..dim).map(|_| rng.gen_range(-1.0..1.0)).collect();
    let magnitudes = [1.0, 1e-44, 1e-20, 1e17, 0.0];
    let rows = Array2::from_shape_fn((n, dim), |(row, d)| match row % 5 {
        0 => base[d],
        1 => f32::from_bits(base[d].to_bits() ^ u32::from(rng.gen_ratio(1, 8))),
        2 => base[d] + if d == 3 { 50.0 } else { 0.0 },
        3 => rng.gen_range(-1.0..1.0),
        _ => base[d] * magnitudes[rng.gen_range(0..magnitudes.len())],
    });
    Embeddings::dense(rows, false).expect("finite")
}

#[test]
fn two_passes_find_what_one_finds_where_scores_are_hard_to_tell_apart() {
    for (n, dim, seed) in [(300, 4, 1), (700, 37, 2), (400, 130, 3)] {
        let (queries, gallery) = (hard(60, dim, seed), hard(n, dim, seed + 10));
        let items: Vec<usize> = (0..n).collect();
        let asking: Vec<usize> = (0..60).collect();
        for kernel in Kernel::available() {
            let best = |way: Way| {
                let best = |_| Best { found: Vec::new() };
                let mut sets = [QueryScan {
                    embeddings: &queries,
                    items: &asking,
                    visitors: asking.iter().map(best).collect(),
                }];
                let gallery = Gallery {
                    embeddings: &gallery,
                    items: &items,
                };
                scan_in_blocks(
                    kernel,
                    way.blocking,
                    way.elsewhere(),
                    gallery,
                    Similarity::Ip,
                    &mut sets,
                    || (),
                )
                .expect("finite");
                let bits = |(score, position): (f32, usize)| (score.to_bits(), position);
                let [set] = sets;
                let found = set.visitors.into_iter();
                let found = found.map(|best| best.found.into_iter().map(bits).collect());
                found.collect::<Vec<Vec<_>>>()
            };
            let expected = best(ways()[0]);
            for way in ways() {
                assert_eq!(best(way), expected, "{kernel:?} {way:?} {dim}");
            }
        }
    }
}

#[test]
fn an_overflow_names_the_pair_whatever_the_kernel() {
    // Items 0 and 1 overflow with each other and with themselves, by their norms or by their product alone; the others with
    // none, and few enough overflow for two passes.
    let n = 40;
    for large in [f32::MAX, 1e20] {
        let rows = Array2::from_shape_fn((n, 2), |(row, _)| if row < 2 { large } else { 0.0 });
        let embeddings = Embeddings::dense(rows, false).expect("finite");
        let rising: Vec<usize> = (0..n).collect();
        let falling: Vec<usize> = (0..n).rev().collect();
        for kernel in Kernel::available() {
            for (items, gallery) in [(&falling, 1), (&rising, 0)] {
                for way in ways() {
                    let keep = |_| Keep {
                        floor: 1.0,
                        scores: vec![None; n],
                    };
                    let mut sets = [QueryScan {
                        embeddings: &embeddings,
                        items: &[2, 0],
                        visitors: [0, 1].map(keep).into(),
                    }];
                    let of_items = Gallery {
                        embeddings: &embeddings,
                        items,
                    };
                    let (blocking, elsewhere) = (way.blocking, way.elsewhere());
                    let sum = || 0;
                    let ip = Similarity::Ip;
                    let found =
                        scan_in_blocks(kernel, blocking, elsewhere, of_items, ip, &mut sets, sum);
                    let expected = ScoreOverflow { query: 0, gallery };
                    assert_eq!(found.expect_err("inf"), expected, "{kernel:?} {way:?}");
                }
            }
        }
    }
}

#[test]
fn minus_zero_becomes_plus_zero() {
    assert_eq!(score_pair(&[1e-30], &[-1e-45], Similarity::Ip).to_bits(), 0);
    assert_eq!(score_pair(&[1.0], &[1.0], Similarity::L2).to_bits(), 0);
}

#[test]
fn minus_zero_becomes_plus_zero_in_the_second_pass_too() {
    // One item in 16 has a product too small for an f32; the others' scores lie below the floor.
    let tiny_or_not = |(row, _)| if row % 16 == 5 { -1e-45_f32 } else { -1.0 };
    let gallery = Array2::from_shape_fn((64, 1), tiny_or_not);
    let queries = || Embeddings::dense(Array2::from_elem((20, 1), 1e-30), false).expect("finite");
    let case = Case {
        queries: [queries(), queries()],
        gallery: Embeddings::dense(gallery, false).expect("finite"),
    };
    for kernel in Kernel::available() {
        for way in ways() {
            let found = case.scores(kernel, way, Similarity::Ip, 0.0);
            for scores in found.expect("finite") {
                // Positions run backwards through the items.
                let zeros = scores.iter().skip(10).step_by(16);
                assert!(zeros.copied().eq([Some(0); 4]), "{kernel:?} {way:?}");
            }
        }
    }
}

#[test]
fn no_queries_and_no_gallery_are_passes_too() {
    let embeddings = random(3, 4, 1);
    let rows = |queries: &[usize], items: &[usize]| {
        let gallery = Gallery {
            embeddings: &embeddings,
            items,
        };
        let models = [&embeddings];
        map_rows(models, queries, gallery, Similarity::Cosine, |_, [row]| {
            row.len()
        })
    };
    assert_eq!(rows(&[], &[0, 1]), Ok(vec![]));
    assert_eq!(rows(&[0, 2], &[]), Ok(vec![0, 0]));
}

#[test]
fn whole_rows_come_in_query_order() {
    let embeddings = random(70, 9, 5);
    let (queries, items): (Vec<usize>, Vec<usize>) = ((0..30).collect(), (30..70).collect());
    let gallery = Gallery {
        embeddings: &embeddings,
        items: &items,
    };
    let other = random(70, 9, 6);
    let models = [&embeddings, &other];
    let found = map_rows(models, &queries, gallery, Similarity::L2, |i, rows| {
        (i, rows.map(|row| row.to_vec()))
    });
    for (q, (i, scores)) in found.expect("finite").into_iter().enumerate() {
        assert_eq!(i, q);
        for (model, scores) in models.into_iter().zip(scores) {
            let row = |embeddings: &Embeddings, item| embeddings.get(item).expect("dense").to_vec();
            let expected = items
                .iter()
                .map(|&item| score_pair(&row(model, q), &row(&embeddings, item), Similarity::L2));
            assert!(scores.iter().copied().eq(expected));
        }
    }
}
