//! A first pass on another device, such as a GPU: it multiplies queries with a block of the gallery and names the pairs whose
//! score may reach what the query looks for. The CPU scores these by the definition, so that no bit of a result
//! depends on the device, on the order in which it adds, or on how it rounds.
//!
//! For a score s by the definition and the device's value d of q.g, with u = 2^-24 (Higham 2002, "Accuracy and Stability of
//! Numerical Algorithms", sections 3.1 and 4.2: whatever the order of the sum):
//!
//! ```text
//! |s - d| <= (2 f + f^2 + 1.1 dim (u + a)) |q| |g| + m (2 dim + sqrt(dim) (|q| + |g|))
//! ```
//!
//! where factors may be cut to TensorFloat-32's 10 bits (f = 2^-10), each addition may cut as tensor cores do (a = 2^-21), and
//! what is smaller than m = 2^-126 may become 0. So much the floors are lowered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::prelude::*;

use super::kernel::{FEW, Kernel};
use super::progress::LONG;
use super::selection::LARGEST_PRODUCT;
use super::{Similarity, Visitor};

/// Pairs a device is asked for at a time.
const PAIRS_A_RUN: usize = 1 << 26;

/// Pairs a found one at which scoring a group whole is no slower: one that is scored by itself costs as much as some 15 in an AVX2 tile,
/// some 25 in one of AVX-512 (timed once, by hand, at 384 dimensions).
const PAIRS_A_FOUND: usize = 30;

/// Products on another device.
pub trait FirstPass: Send + Sync {
    /// Where it runs, as the report names it.
    fn provider(&self) -> &str;

    /// Counts the items of `block` (items, dim) whose inner product with each query of `queries` (queries, dim) reaches
    /// the query's floor, and names them for the queries of which there are at most `most`. May round as the module says.
    ///
    /// # Errors
    /// Why the device failed, in a line.
    fn reached(
        &self,
        queries: &[f32],
        block: &[f32],
        floors: &[f32],
        most: usize,
    ) -> Result<Reached, String>;
}

/// Which items reach their queries' floors.
pub struct Reached {
    /// How many, for each query.
    pub counts: Vec<usize>,
    /// Positions in the block, ascending, query by query, where there are few enough.
    pub items: Vec<u32>,
}

impl Reached {
    /// A wrong answer would lose pairs without a word.
    fn check(&self, n_queries: usize, n_items: usize, most: usize) -> Result<(), String> {
        let named = self.counts.iter().filter(|&&count| count <= most);
        let is_whole = self.counts.len() == n_queries
            && named.sum::<usize>() == self.items.len()
            && self.items.iter().all(|&item| (item as usize) < n_items);
        is_whole
            .then_some(())
            .ok_or_else(|| "its counts and items do not agree".into())
    }
}

/// What passes of this process begin on.
static ELSEWHERE: Mutex<Option<Arc<Elsewhere>>> = Mutex::new(None);

/// From now on long passes of this process that look for few scores begin there; `None`: no more.
pub fn first_pass_on(device: Option<Box<dyn FirstPass>>) {
    let elsewhere = device.map(|device| Arc::new(Elsewhere::new(device)));
    *ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner) = elsewhere;
}

/// Where passes of this process began; `None` where none did.
///
/// # Errors
/// Why the device failed on the way: from then on the CPU scored alone.
pub fn first_pass_provider() -> Result<Option<String>, String> {
    let elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(elsewhere) = elsewhere.as_ref() else {
        return Ok(None);
    };
    let provider = elsewhere.device.provider();
    if let Some(error) = elsewhere.failure.get() {
        return Err(format!("{provider} failed, the CPU scored alone: {error}"));
    }
    let is_used = elsewhere.used.load(Ordering::Relaxed);
    Ok(is_used.then(|| provider.to_owned()))
}

/// Whether a pass of so many multiply-adds is long enough to begin elsewhere.
pub fn is_long(multiply_adds: u64) -> bool {
    multiply_adds >= LONG
}

/// Where a pass of so many multiply-adds begins, if not here.
pub(super) fn for_pass(multiply_adds: u64) -> Option<Arc<Elsewhere>> {
    let elsewhere = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner);
    let works = |elsewhere: &Arc<Elsewhere>| !elsewhere.has_failed();
    elsewhere
        .clone()
        .filter(works)
        .filter(|_| is_long(multiply_adds))
}

/// Queries that a thread goes over together, as a device is asked for them.
pub(super) struct Asked<'a> {
    rows: &'a [f32],
    norms: &'a [f32],
    floors: Vec<f32>,
}

impl<'a> Asked<'a> {
    /// Queries' embeddings, one after the other, at least the length of each, and what each looks for (-inf: every score). `None`
    /// where too many want every score.
    pub fn new(rows: &'a [f32], norms: &'a [f32], floors: Vec<f32>) -> Option<Self> {
        let all = floors.iter().filter(|&&floor| floor == f32::NEG_INFINITY);
        is_worth_it(all.count(), floors.len()).then_some(Self {
            rows,
            norms,
            floors,
        })
    }
}

/// The items of a block whose score with a query may reach its floor.
#[derive(Clone)]
pub(super) struct Found {
    /// Where each query's items end.
    ends: Vec<usize>,
    /// Positions in the block, ascending for each query.
    positions: Vec<u32>,
}

/// A device, as long as it works.
pub(super) struct Elsewhere {
    device: Box<dyn FirstPass>,
    used: AtomicBool,
    failure: OnceLock<String>,
}

impl Elsewhere {
    pub fn new(device: Box<dyn FirstPass>) -> Self {
        Self {
            device,
            used: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    /// Whether the device failed once; it is not asked again.
    pub fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// What may be wanted of a block, group by group; `None` where the group is better scored whole, by the definition, which is
    /// always so after the device has failed.
    pub fn select(
        &self,
        asked: &[Option<Asked<'_>>],
        block: &[f32],
        dim: usize,
    ) -> Vec<Option<Found>> {
        let n = block.len() / dim;
        let norms = block.par_chunks_exact(dim).map(norm_above);
        let largest = norms.reduce(|| 0.0, f32::max);
        let is_open = |asked: &Asked<'_>| {
            is_bounded(asked.norms, largest) && asked.floors.len() * n <= PAIRS_A_RUN
        };
        let of_groups = asked.iter().enumerate();
        let open = of_groups.filter_map(|(group, asked)| Some((group, asked.as_ref()?)));
        let mut waiting: Vec<(usize, &Asked<'_>)> =
            open.filter(|(_, asked)| is_open(asked)).collect();
        let mut found: Vec<Option<Found>> = asked.iter().map(|_| None).collect();
        while !waiting.is_empty() && !self.has_failed() {
            let mut pairs = 0;
            let fits = waiting.iter().take_while(|(_, asked)| {
                pairs += asked.floors.len() * n;
                pairs <= PAIRS_A_RUN
            });
            let later = waiting.split_off(fits.count());
            match self.ask(&waiting, block, largest, dim) {
                Ok(of_groups) => {
                    for ((group, _), of_group) in waiting.iter().zip(of_groups) {
                        found[*group] = of_group;
                    }
                    self.used.store(true, Ordering::Relaxed);
                }
                // Another thread's failure is as good a reason.
                Err(error) => drop(self.failure.set(error)),
            }
            waiting = later;
        }
        found
    }

    fn ask(
        &self,
        asked: &[(usize, &Asked<'_>)],
        block: &[f32],
        largest: f32,
        dim: usize,
    ) -> Result<Vec<Option<Found>>, String> {
        let n = block.len() / dim;
        let (mut rows, mut floors) = (Vec::new(), Vec::new());
        for (_, asked) in asked {
            rows.extend_from_slice(asked.rows);
            let looked_for = asked.norms.iter().zip(&asked.floors);
            floors
                .extend(looked_for.map(|(&norm, &floor)| lowered(floor, norm, largest, dim, ANY)));
        }
        let most = (n / PAIRS_A_FOUND).max(1);
        let reached = self.device.reached(&rows, block, &floors, most)?;
        reached.check(floors.len(), n, most)?;
        let mut counts = reached.counts.into_iter();
        let mut items = reached.items.into_iter();
        let of_group = |(_, asked): &(usize, &Asked<'_>)| {
            let mut found = Found {
                ends: Vec::with_capacity(asked.floors.len()),
                positions: Vec::new(),
            };
            for count in counts.by_ref().take(asked.floors.len()) {
                if count > most {
                    found.positions.extend(0..n as u32);
                } else {
                    found.positions.extend(items.by_ref().take(count));
                }
                found.ends.push(found.positions.len());
            }
            is_worth_it(found.positions.len(), asked.floors.len() * n).then_some(found)
        };
        Ok(asked.iter().map(of_group).collect())
    }
}

/// Whether single pairs are faster to score than all of them are in tiles.
fn is_worth_it(found: usize, all: usize) -> bool {
    found * PAIRS_A_FOUND <= all
}

/// At least the length of an embedding, however it rounds.
pub(super) fn norm_above(row: &[f32]) -> f32 {
    let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    ((squares.sqrt() * (1.0 + 1e-9)) as f32).next_up()
}

/// Whether no sum can overflow, nor a factor that is rounded up.
fn is_bounded(norms: &[f32], largest: f32) -> bool {
    let mut norms = norms.iter();
    largest < LARGEST_PRODUCT
        && norms.all(|norm| *norm < LARGEST_PRODUCT && norm * largest < LARGEST_PRODUCT)
}

/// How a device may round.
#[derive(Clone, Copy)]
struct Rounding {
    /// f: relative error of a factor.
    factor: f64,
    /// a: relative error of an addition.
    addition: f64,
}

/// Any f32 product of matrices, TensorFloat-32 or not.
const ANY: Rounding = Rounding {
    factor: 1.0 / (1 << 10) as f64,
    addition: 1.0 / (1 << 21) as f64,
};

/// The floor that no pair misses whose exact score reaches `floor`; norms as of [`norm_above`].
fn lowered(floor: f32, norm: f32, largest_norm: f32, dim: usize, rounding: Rounding) -> f32 {
    const UNIT: f64 = 1.0 / (1 << 24) as f64;
    const SMALLEST: f64 = f32::MIN_POSITIVE as f64;
    let Rounding { factor, addition } = rounding;
    let (norm, largest, dim) = (f64::from(norm), f64::from(largest_norm), dim as f64);
    let relative = 2.0 * factor + factor * factor + 1.1 * dim * (UNIT + addition);
    let absolute = SMALLEST * (2.0 * dim + dim.sqrt() * (norm + largest));
    ((f64::from(floor) - relative * norm * largest - absolute) as f32).next_down()
}

impl Found {
    /// Scores what was found by the definition and shows it to the queries' visitors; `first` is the position of the block's first
    /// item.
    pub(super) fn score<V: Visitor>(
        &self,
        kernel: Kernel,
        [queries, block]: [&[f32]; 2],
        dim: usize,
        first: usize,
        visitors: &mut [V],
        shared: &mut V::Shared,
    ) {
        // The last few may leave older rows in place; their scores are dropped.
        let mut items = vec![0.0; FEW * dim];
        let mut begin = 0;
        let queries = queries.chunks_exact(dim);
        for ((query, visitor), &end) in queries.zip(visitors).zip(&self.ends) {
            for few in self.positions[begin..end].chunks(FEW) {
                for (item, &at) in items.chunks_exact_mut(dim).zip(few) {
                    item.copy_from_slice(&block[at as usize * dim..(at as usize + 1) * dim]);
                }
                let scores = kernel.score_few(query, &items, Similarity::Ip);
                for (&at, score) in few.iter().zip(scores) {
                    visitor.visit(shared, first + at as usize, &mut [score]);
                }
            }
            begin = end;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::super::score_pair;
    use super::*;

    /// A device that rounds as badly as one may: factors cut to 10 bits, sums from the end and cut to 21 bits, tiny values 0.
    pub struct Rough;

    fn rough_product(query: &[f32], item: &[f32], factor_bits: u32) -> f32 {
        let cut = |x: f32, bits: u32| f32::from_bits(x.to_bits() >> (23 - bits) << (23 - bits));
        let flush = |x: f32| if x.is_normal() { x } else { 0.0 };
        let pairs = query.iter().zip(item).rev();
        pairs.fold(0.0, |sum, (&q, &g)| {
            let factors = [q, g].map(|x| flush(cut(x, factor_bits)));
            flush(cut(sum + flush(factors[0] * factors[1]), 21))
        })
    }

    impl FirstPass for Rough {
        fn provider(&self) -> &str {
            "rough"
        }

        fn reached(
            &self,
            queries: &[f32],
            block: &[f32],
            floors: &[f32],
            most: usize,
        ) -> Result<Reached, String> {
            let dim = queries.len() / floors.len();
            let (mut counts, mut items) = (Vec::new(), Vec::new());
            for (query, floor) in queries.chunks_exact(dim).zip(floors) {
                let block = block.chunks_exact(dim).zip(0..);
                let reach = block.filter(|(item, _)| rough_product(query, item, 10) >= *floor);
                let reach: Vec<u32> = reach.map(|(_, at)| at).collect();
                counts.push(reach.len());
                items.extend(
                    reach
                        .into_iter()
                        .filter(|_| counts[counts.len() - 1] <= most),
                );
            }
            Ok(Reached { counts, items })
        }
    }

    fn rows() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        let exponents = prop_oneof![3 => Just(0), 1 => Just(-30), 1 => Just(-140), 1 => Just(15), 1 => -3..3_i32];
        let value = (-1.0_f32..1.0, exponents).prop_map(|(x, e)| x * 2.0_f32.powi(e));
        (1..200_usize).prop_flat_map(move |dim| {
            let row = || prop::collection::vec(value.clone(), dim);
            (row(), row())
        })
    }

    proptest! {
        #[test]
        fn a_lowered_floor_is_reached_however_the_device_rounds((query, item) in rows()) {
            let [norm, largest] = [&query, &item].map(|row| norm_above(row));
            for (query, item) in [(&query, &item), (&query, &query)] {
                let (largest, dim) = (largest.max(norm), query.len());
                let score = score_pair(query, item, Similarity::Ip);
                // What cutting factors allows for hides the rest.
                let exact = Rounding { factor: 0.0, ..ANY };
                for (bits, rounding) in [(10, ANY), (23, exact)] {
                    let floor = lowered(score, norm, largest, dim, rounding);
                    prop_assert!(rough_product(query, item, bits) >= floor);
                }
            }
        }

        #[test]
        fn no_embedding_is_longer_than_it_says((row, _) in rows()) {
            let squares = row.iter().map(|&x| f64::from(x).powi(2));
            prop_assert!(squares.sum::<f64>().sqrt() <= f64::from(norm_above(&row)));
        }
    }

    #[test]
    fn a_floor_is_lowered_by_little_and_none_stays_none() {
        assert!(lowered(0.5, 1.0, 1.0, 384, ANY) > 0.497);
        let none = lowered(f32::NEG_INFINITY, 1.0, 1.0, 384, ANY);
        assert_eq!(none, f32::NEG_INFINITY);
    }

    #[test]
    fn each_part_of_the_bound_is_needed() {
        let exact = Rounding {
            factor: 0.0,
            addition: 0.0,
        };
        let reaches = |query: &[f32], item: &[f32], bits, rounding| {
            let score = score_pair(query, item, Similarity::Ip);
            let floor = lowered(
                score,
                norm_above(query),
                norm_above(item),
                query.len(),
                rounding,
            );
            rough_product(query, item, bits) >= floor
        };
        // A factor that is 0 on the device; the product is not.
        let (tiny, large) = ([2.0_f32.powi(-140)], [2.0_f32.powi(15)]);
        assert!(reaches(&tiny, &large, 23, exact));
        // Additions that each lose much of 2^-21, because the device begins at the end with a sum of 1.
        let few_bits = |small: f32| {
            let mut row = [small; 65];
            row[64] = 1.0;
            row
        };
        let (query, item) = (
            few_bits(2.0_f32.powi(-10)),
            few_bits(0.7 * 2.0_f32.powi(-11)),
        );
        let additions = Rounding { factor: 0.0, ..ANY };
        assert!(reaches(&query, &item, 23, additions));
        assert!(!reaches(&query, &item, 23, exact));
        // Factors with all bits set.
        let full = [1.999_999_9_f32; 4];
        assert!(reaches(&full, &full, 10, ANY));
        assert!(!reaches(&full, &full, 10, additions));
    }

    #[test]
    fn long_passes_begin_where_they_were_told_to_as_long_as_that_works() {
        first_pass_on(Some(Box::new(Rough)));
        assert!(for_pass(LONG - 1).is_none());
        assert_eq!(first_pass_provider(), Ok(None));
        let here = for_pass(LONG).expect("it was told to");
        let asked = [Asked::new(&[1.0; 2], &[2.0], vec![9.0])];
        assert!(here.select(&asked, &[1.0; 40], 2)[0].is_some());
        assert_eq!(first_pass_provider(), Ok(Some("rough".into())));
        first_pass_on(Some(Box::new(Broken)));
        let here = for_pass(LONG).expect("it was told to");
        assert!(here.select(&asked, &[1.0; 40], 2)[0].is_none());
        let why = first_pass_provider().expect_err("it failed");
        assert!(
            why.contains("broken failed") && why.contains("out of memory"),
            "{why}"
        );
        assert!(for_pass(LONG).is_none());
        first_pass_on(None);
        assert_eq!(first_pass_provider(), Ok(None));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_a_failure() {
        let reached = |counts: &[usize], items: &[u32]| Reached {
            counts: counts.to_vec(),
            items: items.to_vec(),
        };
        assert_eq!(reached(&[1, 9, 2], &[3, 0, 4]).check(3, 5, 4), Ok(()));
        for wrong in [
            reached(&[1, 2], &[3, 0, 4]),
            reached(&[1, 9, 2], &[3, 0]),
            reached(&[1, 9, 1], &[3, 0, 4]),
            reached(&[1, 9, 2], &[3, 0, 5]),
        ] {
            assert!(wrong.check(3, 5, 4).is_err());
        }
    }

    #[test]
    fn what_reaches_its_floor_is_found_and_groups_better_scored_whole_are_left_out() {
        let dim = 2;
        // 120 items on a half circle, query 0 beside the first of them, query 1 beside the last.
        let items: Vec<f32> = (0..120)
            .flat_map(|i| {
                let angle = i as f32 * std::f32::consts::PI / 119.0;
                [angle.cos(), angle.sin()]
            })
            .collect();
        let (queries, norms) = ([1.0, 0.0, -1.0, 0.0], [1.0, 1.0]);
        let asked = |floors: [f32; 2]| Asked::new(&queries, &norms, floors.to_vec());
        let elsewhere = Elsewhere::new(Box::new(Rough));
        let all = [
            asked([0.9965, 0.999]),
            None,
            // Three of four, by floors that are reached.
            asked([-0.7, -0.7]),
        ];
        let found = elsewhere.select(&all, &items, dim);
        assert!(found[1..].iter().all(Option::is_none));
        let few = found[0].as_ref().expect("few are found");
        // cos(k pi / 119) is .9997, .9986, .9969, .9944 for k from 1 to 4; the floors are lowered by .002.
        assert_eq!(few.ends, [4, 7]);
        assert_eq!(few.positions, [0, 1, 2, 3, 117, 118, 119]);
        assert!(asked([f32::NEG_INFINITY; 2]).is_none());
    }

    #[test]
    fn a_query_of_which_most_items_are_wanted_gets_all_of_them() {
        // 199 queries that want one item of 40, and one that wants all.
        let items: Vec<f32> = (0..40).map(|i| i as f32).collect();
        let queries = vec![1.0; 200];
        let floors = (0..200).map(|q| if q == 7 { -1.0 } else { 39.0 });
        let asked = [Asked::new(&queries, &queries, floors.collect())];
        let found = Elsewhere::new(Box::new(Rough)).select(&asked, &items, 1);
        let found = found[0].as_ref().expect("worth it");
        let n = |q: usize| found.ends[q] - q.checked_sub(1).map_or(0, |before| found.ends[before]);
        assert!((0..200).all(|q| n(q) == if q == 7 { 40 } else { 1 }));
        assert!(found.positions[7..47].iter().copied().eq(0..40));
    }

    struct Broken;

    impl FirstPass for Broken {
        fn provider(&self) -> &str {
            "broken"
        }
        fn reached(&self, _: &[f32], _: &[f32], _: &[f32], _: usize) -> Result<Reached, String> {
            Err("out of memory".into())
        }
    }
}
