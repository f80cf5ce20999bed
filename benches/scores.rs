//! The pass over all scores, side by side in one run; ratios, medians of 5.
//!
//! `cargo bench --bench scores`: every table. `-- memory`, `peak`, `linear`, `threads`, `relevant`, `pooled` or `naive`: one of them.
//! `-- full QUERIES GALLERY DIM THREADS`: a row of `relevant` for any size.
//! `-- search QUERIES GALLERY DIM THREADS [DEVICE]`: one JSON line, for `benches/peers/search.py`; with a device (`cpu`, `cuda`) the
//! first pass runs there by ONNX Runtime, and finds what the CPU finds.

use std::hint::black_box;
use std::time::Instant;

use compat_audit::config::Similarity;
use compat_audit::domain::Embeddings;
use compat_audit::retrieve::protocol::QueryProtocol;
use compat_audit::retrieve::rank::{RankSet, Ranking, rank};
use compat_audit::retrieve::verification::tail::Windows;
use compat_audit::runtime::{Runtime, RuntimeOptions, ScoreGraph, default_cache_dir};
use compat_audit::topk::{
    Gallery, Kernel, QueryScan, Visitor, first_pass_on, first_pass_provider, kernel_name,
    scan_with, score_pair,
};
use ndarray::Array2;
use rand::{Rng, SeedableRng};

const RUNS: usize = 5;

fn random(n: usize, dim: usize, seed: u64) -> Embeddings {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let rows = Array2::from_shape_fn((n, dim), |_| rng.gen_range(-1.0_f32..1.0));
    Embeddings::dense(rows, true).expect("finite and not zero")
}

fn seconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn median_seconds(mut work: impl FnMut()) -> f64 {
    work();
    median((0..RUNS).map(|_| seconds(&mut work)).collect())
}

fn pool(threads: usize) -> rayon::ThreadPool {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.build().expect("a pool")
}

/// Queries and a gallery, and what counts for whom.
struct World {
    queries: Embeddings,
    gallery: Embeddings,
    items: Vec<usize>,
    protocol: Vec<QueryProtocol>,
}

impl World {
    /// `relevant` items a query, evenly spread, so that their scores lie anywhere among the others': the worst case.
    fn new(n_queries: usize, n_gallery: usize, dim: usize, relevant: usize) -> Self {
        let step = (n_gallery / relevant) as u32;
        let query = |item: usize| QueryProtocol {
            item,
            identity: item as u32,
            relevant: (0..relevant as u32).map(|i| i * step).collect(),
            grades: Vec::new(),
            junk: Vec::new(),
        };
        Self {
            queries: random(n_queries, dim, 1),
            gallery: random(n_gallery, dim, 2),
            items: (0..n_gallery).collect(),
            protocol: (0..n_queries).map(query).collect(),
        }
    }

    /// Makes the relevant items those that each query scores highest, as in a working model.
    fn with_good_model(mut self) -> Self {
        let ranked = self.rank();
        for (query, ranking) in self.protocol.iter_mut().zip(ranked) {
            let n = query.relevant.len();
            query.relevant = ranking.top[..n].iter().map(|hit| hit.position).collect();
            query.relevant.sort_unstable();
        }
        self
    }

    fn rank(&self) -> Vec<Ranking> {
        self.pass(|set| set)
    }

    /// Ranks and counts every non-matching score of all queries among the matching ones too.
    fn rank_and_pool(&self) -> Vec<Ranking> {
        self.pass(|set| set.pooled(Windows::new(Vec::new())))
    }

    fn pass(&self, asked: impl Fn(RankSet<'_>) -> RankSet<'_>) -> Vec<Ranking> {
        let gallery = Gallery {
            embeddings: &self.gallery,
            items: &self.items,
        };
        let set = RankSet::new(&self.queries, &self.protocol, gallery, Similarity::Cosine);
        let ranked = rank(gallery, Similarity::Cosine, vec![asked(set)]).expect("finite");
        ranked.into_iter().flat_map(|set| set.rankings).collect()
    }

    /// The best hundred of every query with this kernel: a pass that looks for nothing else.
    fn top_hundred(&self, kernel: Kernel) {
        let queries: Vec<usize> = (0..self.protocol.len()).collect();
        let gallery = Gallery {
            embeddings: &self.gallery,
            items: &self.items,
        };
        let mut sets = [QueryScan {
            embeddings: &self.queries,
            items: &queries,
            visitors: queries.iter().map(|_| Best::default()).collect(),
        }];
        scan_with(kernel, gallery, Similarity::Cosine, &mut sets, || ()).expect("finite");
        black_box(sets);
    }

    /// How many times as long all rankings take as the top 100 in one pass over all scores.
    fn ranking_against_top_hundred(&self, pool: &rayon::ThreadPool) -> f64 {
        let all = Kernel::available();
        let one_pass = all.iter().rfind(|kernel| !kernel.selects());
        let one_pass = *one_pass.expect("a CPU with fused multiply-adds");
        let ratios = (0..RUNS).map(|_| {
            let top = seconds(|| pool.install(|| self.top_hundred(one_pass)));
            seconds(|| drop(black_box(pool.install(|| self.rank())))) / top
        });
        median(ratios.collect())
    }

    fn flops(&self) -> f64 {
        2.0 * (self.protocol.len() * self.items.len() * self.gallery.dim()) as f64
    }
}

/// Fused multiply-adds that wait for nothing but each other: what one core can do at most, in GFLOP/s.
fn peak_gflops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        const ROUNDS: usize = 20_000_000;
        #[target_feature(enable = "avx512f")]
        fn avx512() -> [f32; 16] {
            use std::arch::x86_64::*;
            let (a, b) = (
                _mm512_set1_ps(black_box(0.999)),
                _mm512_set1_ps(black_box(1e-3)),
            );
            let mut sums = [_mm512_set1_ps(1.0); 20];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = _mm512_fmadd_ps(*sum, a, b);
                }
            }
            let total = sums
                .into_iter()
                .fold(_mm512_setzero_ps(), |x, y| _mm512_add_ps(x, y));
            // SAFETY: both are 64 bytes of plain numbers.
            unsafe { std::mem::transmute(total) }
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2() -> [f32; 8] {
            use std::arch::x86_64::*;
            let (a, b) = (
                _mm256_set1_ps(black_box(0.999)),
                _mm256_set1_ps(black_box(1e-3)),
            );
            let mut sums = [_mm256_set1_ps(1.0); 12];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = _mm256_fmadd_ps(*sum, a, b);
                }
            }
            let total = sums
                .into_iter()
                .fold(_mm256_setzero_ps(), |x, y| _mm256_add_ps(x, y));
            // SAFETY: both are 32 bytes of plain numbers.
            unsafe { std::mem::transmute(total) }
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has it.
            let seconds = median_seconds(|| {
                let _ = black_box(unsafe { avx512() });
            });
            return 2.0 * 16.0 * 20.0 * ROUNDS as f64 / seconds / 1e9;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has them.
            let seconds = median_seconds(|| {
                let _ = black_box(unsafe { avx2() });
            });
            return 2.0 * 8.0 * 12.0 * ROUNDS as f64 / seconds / 1e9;
        }
    }
    f64::NAN
}

/// The best hundred scores of a query.
#[derive(Default)]
struct Best {
    scores: Vec<f32>,
    floor: Option<f32>,
}

impl Visitor for Best {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.floor.unwrap_or(f32::NEG_INFINITY)
    }

    fn visit(&mut self, (): &mut (), _: usize, row: &mut [f32]) {
        let floor = self.floor();
        self.scores
            .extend(row.iter().filter(|&&score| score > floor));
        if self.scores.len() >= 200 {
            let (_, &mut last, _) = self
                .scores
                .select_nth_unstable_by(99, |a, b| b.total_cmp(a));
            self.scores.truncate(100);
            self.floor = Some(last);
        }
    }
}

/// As many as an audit has: packing the gallery and filling the first hits then cost little.
const PEAK_QUERIES: usize = 5_040;

fn peak() {
    println!(
        "\nShare of the f32 peak of each kernel: one thread, top 100 of {PEAK_QUERIES} queries"
    );
    println!(
        "{:>5} {:>9} {:>16} {:>9} {:>7} {:>18}",
        "dim", "gallery", "kernel", "GFLOP/s", "share", "against the first"
    );
    let one = pool(1);
    for dim in [64, 128, 256, 384, 768] {
        let n_gallery = 30_000_000 / dim;
        let world = World::new(PEAK_QUERIES, n_gallery, dim, 1);
        // Without the portable one where there are others: it is a library call a step here.
        let all = Kernel::available();
        let kernels = if all.len() > 1 { &all[1..] } else { &all };
        let mut rates = vec![Vec::new(); kernels.len()];
        let mut peaks = Vec::new();
        for _ in 0..RUNS {
            peaks.push(one.install(peak_gflops));
            for (&kernel, rates) in kernels.iter().zip(&mut rates) {
                rates.push(
                    world.flops() / seconds(|| one.install(|| world.top_hundred(kernel))) / 1e9,
                );
            }
        }
        let peak = median(peaks);
        let rates: Vec<f64> = rates.into_iter().map(median).collect();
        for (kernel, rate) in kernels.iter().zip(&rates) {
            println!(
                "{dim:>5} {n_gallery:>9} {:>16} {rate:>9.1} {:>7.3} {:>18.2}",
                kernel.name(),
                rate / peak,
                rate / rates[0]
            );
        }
    }
}

fn linear() {
    println!("\nCost against work: one thread");
    println!(
        "{:>8} {:>9} {:>5} {:>12} {:>16}",
        "queries", "gallery", "dim", "seconds", "ns a 1,000 FMA"
    );
    for (n_queries, n_gallery, dim) in [
        (504, 2_000, 256),
        (504, 20_000, 256),
        (504, 200_000, 256),
        (5_040, 20_000, 256),
        (5_040, 200_000, 256),
        (5_040, 20_000, 64),
        (5_040, 20_000, 1_024),
    ] {
        let world = World::new(n_queries, n_gallery, dim, 1).with_good_model();
        let one = pool(1);
        let spent = median_seconds(|| drop(black_box(one.install(|| world.rank()))));
        let per_fma = spent / (world.flops() / 2.0) * 1e12;
        println!("{n_queries:>8} {n_gallery:>9} {dim:>5} {spent:>12.4} {per_fma:>16.2}");
    }
}

fn threads() {
    println!("\nOne thread against two");
    let world = World::new(2_016, 100_000, 384, 16).with_good_model();
    let (one, two) = (pool(1), pool(2));
    let mut ratios = Vec::new();
    for _ in 0..RUNS {
        let alone = seconds(|| drop(black_box(one.install(|| world.rank()))));
        let together = seconds(|| drop(black_box(two.install(|| world.rank()))));
        ratios.push(alone / together);
    }
    println!("2,016 x 100,000 x 384: {:.2} times faster", median(ratios));
}

fn relevant() {
    println!(
        "\nFull average precision against the top 100 in one pass: one thread, 1,008 x 100,000 x 384"
    );
    println!(
        "{:>14} {:>12} {:>12}",
        "relevant items", "good model", "random model"
    );
    let one = pool(1);
    for n in [1, 4, 16, 32, 64, 256, 1_024] {
        let random = World::new(1_008, 100_000, 384, n);
        // The top holds 100 items, so more relevant ones cannot all be in it.
        let good = (n <= 100).then(|| World::new(1_008, 100_000, 384, n).with_good_model());
        let good = good.map(|world| world.ranking_against_top_hundred(&one));
        println!(
            "{n:>14} {:>12} {:>12.2}",
            good.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            random.ranking_against_top_hundred(&one)
        );
    }
}

/// One row of that table for any size, 16 relevant items a query.
fn full(arguments: &[String]) {
    let sizes: Vec<usize> = arguments
        .iter()
        .map(|a| a.parse().expect("a number"))
        .collect();
    let [n_queries, n_gallery, dim, n_threads] = sizes[..] else {
        panic!("full QUERIES GALLERY DIM THREADS");
    };
    let threads = pool(n_threads);
    let world = World::new(n_queries, n_gallery, dim, 16);
    let random = world.ranking_against_top_hundred(&threads);
    let world = threads.install(|| world.with_good_model());
    let good = world.ranking_against_top_hundred(&threads);
    println!(
        "Full average precision, 16 relevant items a query, against the top 100 in one pass, {n_queries} x {n_gallery} x {dim}, \
         {n_threads} threads: good model {good:.2}, random model {random:.2}"
    );
}

fn pooled() {
    println!(
        "\nCounting every score for AUROC too, against ranking alone: one thread, 16 relevant items a query, dim 384"
    );
    println!(
        "{:>8} {:>9} {:>12} {:>12}",
        "queries", "gallery", "good model", "random model"
    );
    let one = pool(1);
    for (n_queries, n_gallery) in [(1_008, 100_000), (10_080, 20_000)] {
        let random = World::new(n_queries, n_gallery, 384, 16);
        let ratio = |world: &World| {
            let ratios = (0..RUNS).map(|_| {
                let ranking = seconds(|| drop(black_box(one.install(|| world.rank()))));
                seconds(|| drop(black_box(one.install(|| world.rank_and_pool())))) / ranking
            });
            median(ratios.collect())
        };
        let good = World::new(n_queries, n_gallery, 384, 16).with_good_model();
        println!(
            "{n_queries:>8} {n_gallery:>9} {:>12.2} {:>12.2}",
            ratio(&good),
            ratio(&random)
        );
    }
}

fn naive() {
    println!("\nAgainst the naive twin: one thread");
    println!(
        "{:>8} {:>9} {:>5} {:>12} {:>12} {:>7}",
        "queries", "gallery", "dim", "pass s", "naive s", "ratio"
    );
    let one = pool(1);
    for (n_queries, n_gallery, dim) in [(56, 2_000, 64), (56, 20_000, 256), (112, 20_000, 384)] {
        let world = World::new(n_queries, n_gallery, dim, 1);
        let pass = median_seconds(|| drop(black_box(one.install(|| world.rank()))));
        let naive = median_seconds(|| {
            for q in 0..n_queries {
                let query = world.queries.get(q).expect("dense");
                for g in 0..n_gallery {
                    let item = world.gallery.get(g).expect("dense");
                    black_box(score_pair(&query, &item, Similarity::Cosine));
                }
            }
        });
        println!(
            "{n_queries:>8} {n_gallery:>9} {dim:>5} {pass:>12.4} {naive:>12.4} {:>7.1}",
            naive / pass
        );
    }
}

/// A number of mebibytes that Linux says of this process.
fn mebibytes(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// One size: what a first one had freed would be used again without becoming resident.
fn memory() {
    let world = World::new(10_000, 200_000, 384, 16);
    // Forgets the peak of making the embeddings.
    let forgotten = std::fs::write("/proc/self/clear_refs", "5");
    let before = mebibytes("VmRSS");
    black_box(world.rank_and_pool());
    println!(
        "\nMemory of a pass beside the embeddings, 10,000 x 200,000 x 384, 16 relevant items a query, AUROC too"
    );
    match (forgotten, before, mebibytes("VmHWM")) {
        (Ok(()), Some(before), Some(peak)) => println!("{:.0} MiB", peak - before),
        _ => println!("this system does not say"),
    }
}

/// One search as the peers do it, in its own process: seconds a run.
fn search(arguments: &[String]) {
    let (sizes, device) = arguments.split_at(4.min(arguments.len()));
    let sizes: Vec<usize> = sizes.iter().map(|a| a.parse().expect("a number")).collect();
    let [n_queries, n_gallery, dim, n_threads] = sizes[..] else {
        panic!("search QUERIES GALLERY DIM THREADS [DEVICE]");
    };
    let world = World::new(n_queries, n_gallery, dim, 1).with_good_model();
    let threads = pool(n_threads);
    if let Some(device) = device.first() {
        let on_cpu = threads.install(|| world.rank());
        first_pass_on(Some(Box::new(score_graph(device, n_threads))));
        assert_eq!(threads.install(|| world.rank()), on_cpu, "on {device}");
        assert_ne!(first_pass_provider(), Ok(None), "{device} was not used");
    }
    let runs: Vec<f64> = (0..RUNS)
        .map(|_| seconds(|| drop(black_box(threads.install(|| world.rank())))))
        .collect();
    println!(
        "{{\"method\":\"compat-audit\",\"kernel\":\"{}\",\"first_pass\":\"{}\",\"median\":{:.4},\"seconds\":{runs:?}}}",
        kernel_name(),
        first_pass_provider().expect("it works").unwrap_or_default(),
        median(runs.clone())
    );
}

/// The graph of the first pass on a device, with the library that `compat-audit runtime show` names.
fn score_graph(device: &str, threads: usize) -> ScoreGraph {
    let options = RuntimeOptions {
        onnxruntime: None,
        offline: true,
        device: device.parse().expect("a device"),
        threads,
        cache_dir: default_cache_dir(),
        verbose: true,
    };
    let runtime = Runtime::init(&options, &|line| eprintln!("{line}"));
    let graph = runtime.and_then(|runtime| runtime.score_graph());
    graph.unwrap_or_else(|error| panic!("{device}: {error}"))
}

fn main() {
    let arguments = std::env::args_os().skip(1);
    let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
    let arguments: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
    let tables: [(&str, fn()); 7] = [
        // First, while nothing has been freed that the pass could use again.
        ("memory", memory),
        ("peak", peak),
        ("linear", linear),
        ("threads", threads),
        ("relevant", relevant),
        ("pooled", pooled),
        ("naive", naive),
    ];
    if arguments.first().is_some_and(|first| first == "search") {
        return search(&arguments[1..]);
    }
    println!("{} kernel, medians of {RUNS}", kernel_name());
    if arguments.first().is_some_and(|first| first == "full") {
        return full(&arguments[1..]);
    }
    for (name, table) in tables {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == name) {
            table();
        }
    }
}
