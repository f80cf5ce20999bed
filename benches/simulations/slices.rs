//! The slice test: how often it fails a slice that does not lose, and how often it finds those that do.

use std::ops::RangeInclusive;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, StudentsT};

use compat_audit::stats::{Bootstrap, SliceValues, holm, test_slices};

use super::draw::{gaussian, stream};
use super::tally::tally;
use super::{ALPHA, POWER, REPLICATES};

const RUNS: u64 = 1_000;

/// The default slice margin is .10.
const LIMIT: f64 = -0.1;

/// How the values of one slice scatter around its true mean.
#[derive(Clone, Copy)]
enum Values {
    /// Normal; the standard deviation is drawn for each slice between .005 and .5, evenly in its logarithm.
    Normal,
    /// 0, or a loss that is drawn for each slice between the true loss and 1, as often as the true loss asks. Slices
    /// without a loss lose and gain .3 in one query of ten each.
    Losses,
    /// Mostly a loss .1 below the true mean, balanced by rare gains that are drawn for each slice.
    RareGains,
}

const VALUES: [(Values, &str); 3] = [
    (Values::Normal, "normal"),
    (Values::Losses, "rare losses"),
    (Values::RareGains, "rare gains"),
];

/// (slices, identities each, queries an identity)
struct Design {
    name: &'static str,
    parts: &'static [(usize, u32, RangeInclusive<u32>)],
}

const DESIGNS: [Design; 5] = [
    Design {
        name: "200 of 1 identity x 2 queries",
        parts: &[(200, 1, 2..=2)],
    },
    Design {
        name: "60 of 1 x 15",
        parts: &[(60, 1, 15..=15)],
    },
    Design {
        name: "1,000 of 1 x 10 to 30",
        parts: &[(1_000, 1, 10..=30)],
    },
    Design {
        name: "40 of 30 x 2",
        parts: &[(40, 30, 2..=2)],
    },
    Design {
        name: "20 of 60 x 2, 5 of 25 x 3, 60 of 1 x 10 to 30",
        parts: &[(20, 60, 2..=2), (5, 25, 3..=3), (60, 1, 10..=30)],
    },
];

pub fn print() {
    println!(
        "Per cent of {RUNS} runs in which any slice fails (Holm at {} %) though none loses more than the margin of .1, with\n\
         the 95 % Monte-Carlo interval. `raw t` is a t test of each slice's queries with their own variance, Holm too.\n\
         In slices of several identities a third of the variance lies between identities.\n",
        100.0 * ALPHA
    );
    println!(
        "| slices | values | no loss: false fail | raw t | loss on the limit: false fail | raw t |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for design in &DESIGNS {
        for (values, name) in VALUES {
            let [none, none_raw, limit, limit_raw] = tally(RUNS, |run| {
                let mut rng = stream(11, run);
                let fails = |mean: f64, rng: &mut ChaCha8Rng| {
                    let slices = design.draw(rng, values, |_| mean);
                    let tests = test_slices(&slices, LIMIT, ALPHA, POWER, &bootstrap(run));
                    let fails = tests.iter().any(|test| test.p_holm <= ALPHA);
                    [fails, raw_t_fails(&slices)]
                };
                let [none, none_raw] = fails(0.0, &mut rng);
                let [limit, limit_raw] = fails(LIMIT, &mut rng);
                [none, none_raw, limit, limit_raw]
            });
            println!(
                "| {} | {name} | {none} | {none_raw} | {limit} | {limit_raw} |",
                design.name
            );
        }
    }
    print_power();
}

/// 3 of 60 identities of 15 queries lose; normal values as above.
fn print_power() {
    println!(
        "\n3 of 60 slices (one identity of 15 queries each) lose, the others gain .02; normal values. Per cent of {RUNS} runs\n\
         in which all three are named, at least one is, any other is, and the mean over the three of their minimum\n\
         detectable loss.\n"
    );
    println!("| loss | all three named | at least one | any other | minimum detectable loss |");
    println!("| --- | --- | --- | --- | --- |");
    let design = &DESIGNS[1];
    for loss in [0.1, 0.2, 0.3, 0.5, 0.8] {
        let of = |run: u64| {
            let mut rng = stream(13, run);
            let lost = |slice: usize| slice % 20 == 7;
            let slices = design.draw(&mut rng, Values::Normal, |slice| {
                if lost(slice) { -loss } else { 0.02 }
            });
            let tests = test_slices(&slices, LIMIT, ALPHA, POWER, &bootstrap(run));
            let named = |wanted: bool| {
                (0..tests.len())
                    .filter(|&i| lost(i) == wanted && tests[i].p_holm <= ALPHA)
                    .count()
            };
            let detectable: f64 = (0..tests.len())
                .filter(|&i| lost(i))
                .map(|i| tests[i].minimum_detectable_loss / 3.0)
                .sum();
            ([named(true), named(false)], detectable)
        };
        let [all, some, other] = tally(RUNS, |run| {
            let ([named, others], _) = of(run);
            [named == 3, named > 0, others > 0]
        });
        let detectable: f64 = (0..RUNS).map(|run| of(run).1).sum::<f64>() / RUNS as f64;
        println!("| {loss} | {all} | {some} | {other} | {detectable:.3} |");
    }
}

impl Design {
    /// All slices; `mean` gives slice i's true mean.
    fn draw(
        &self,
        rng: &mut ChaCha8Rng,
        values: Values,
        mean: impl Fn(usize) -> f64,
    ) -> Vec<SliceValues> {
        let mut slices = Vec::new();
        for (count, identities, queries) in self.parts {
            for _ in 0..*count {
                let mean = mean(slices.len());
                let n_queries = rng.gen_range(queries.clone());
                slices.push(values.draw(rng, mean, *identities, n_queries));
            }
        }
        slices
    }
}

impl Values {
    /// One slice of true mean `mean`: unconditionally when it has several identities, else of that identity.
    fn draw(self, rng: &mut ChaCha8Rng, mean: f64, identities: u32, queries: u32) -> SliceValues {
        let scale: f64 = rng.r#gen();
        let mut slice = SliceValues {
            values: Vec::new(),
            identities: Vec::new(),
            largest: 1.0,
        };
        for identity in 0..identities {
            // What the identity's queries share. Several identities: each repeats its first value in a third of the
            // other queries, an ICC of a third.
            let mut first = None;
            for _ in 0..queries {
                let fresh = self.value(rng, mean, scale);
                let value = match first {
                    Some(first) if identities > 1 && rng.r#gen::<f64>() < 1.0 / 3.0 => first,
                    _ => fresh,
                };
                first.get_or_insert(value);
                slice.values.push(value);
                slice.identities.push(identity);
            }
        }
        slice
    }

    /// `scale` in [0, 1) is the slice's own.
    fn value(self, rng: &mut ChaCha8Rng, mean: f64, scale: f64) -> f64 {
        let u: f64 = rng.r#gen();
        match self {
            Self::Normal => mean + 0.005 * 100.0_f64.powf(scale) * gaussian(rng),
            Self::Losses if mean >= 0.0 => {
                if u < 0.1 {
                    mean - 0.3
                } else if u < 0.2 {
                    mean + 0.3
                } else {
                    mean
                }
            }
            Self::Losses => {
                let loss = -mean + scale * (1.0 + mean);
                if u < -mean / loss { -loss } else { 0.0 }
            }
            // -.1 with chance 1 - c, gain with chance c: .1 (1 - c) = c gain.
            Self::RareGains => {
                let gain = 0.1 + 0.7 * scale;
                if u < 0.1 / (0.1 + gain) {
                    mean + gain
                } else {
                    mean - 0.1
                }
            }
        }
    }
}

/// Whether a t test of some slice's queries, with their own variance, fails after Holm.
fn raw_t_fails(slices: &[SliceValues]) -> bool {
    let p: Vec<f64> = slices
        .iter()
        .map(|slice| {
            let n = slice.values.len() as f64;
            let mean = slice.values.iter().sum::<f64>() / n;
            let squares: f64 = slice.values.iter().map(|v| (v - mean).powi(2)).sum();
            let error = (squares / (n - 1.0) / n).sqrt();
            let t = (mean - LIMIT) / error;
            // 0/0: all values on the limit.
            if t.is_nan() {
                return 1.0;
            }
            StudentsT::new(0.0, 1.0, n - 1.0)
                .expect("two queries or more")
                .cdf(t)
        })
        .collect();
    holm(&p).iter().any(|&p| p <= ALPHA)
}

fn bootstrap(run: u64) -> Bootstrap {
    Bootstrap {
        replicates: REPLICATES,
        seed: run,
    }
}
