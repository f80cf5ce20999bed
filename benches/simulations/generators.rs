//! Dense changes: what a new model does to the queries when it does it everywhere, not to a few identities.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::draw::{Queries, Sizes, exponential, gaussian, queries};

/// A way to draw the change of every query.
#[derive(Clone, Copy, PartialEq)]
pub enum Generator {
    /// Normal, standard deviation .2 a query, ICC .3.
    Gaussian,
    /// The same with 1 to 40 queries an identity.
    GaussianUnequal,
    /// Difference of two average precisions: ranks of three relevant items in a list of distractors, the identity's
    /// difficulty shared by both models, the new model a little worse.
    AveragePrecision,
    /// An identity's loss is exponential (skewness -2), queries add normal noise.
    SkewedLosses,
    /// An identity's gain is exponential (skewness 2), queries add normal noise.
    SkewedGains,
    /// CMC@1: -1, 0 or 1; flips hang together within an identity.
    Flips,
}

impl Generator {
    pub const ALL: [Self; 6] = [
        Self::Gaussian,
        Self::GaussianUnequal,
        Self::AveragePrecision,
        Self::SkewedLosses,
        Self::SkewedGains,
        Self::Flips,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "normal",
            Self::GaussianUnequal => "normal, unequal sizes",
            Self::AveragePrecision => "difference of AP",
            Self::SkewedLosses => "exponential losses",
            Self::SkewedGains => "exponential gains",
            Self::Flips => "flips of CMC@1",
        }
    }

    /// The true mean over queries of [`Generator::draw`], exactly.
    pub fn true_change(self) -> f64 {
        match self {
            Self::AveragePrecision => {
                let mean: f64 = DIFFICULTIES
                    .iter()
                    .map(|&p| expected_ap(p * NEW) - expected_ap(p))
                    .sum();
                mean / DIFFICULTIES.len() as f64
            }
            _ => -0.01,
        }
    }

    /// One run: `identities` of 5 queries, or of 1 to 40.
    pub fn draw(self, rng: &mut ChaCha8Rng, identities: u32) -> Queries {
        let five = Sizes::Each(5);
        let mean = -0.01;
        match self {
            Self::Gaussian | Self::GaussianUnequal => {
                let sizes = if self == Self::Gaussian {
                    five
                } else {
                    Sizes::Unequal
                };
                queries(
                    rng,
                    identities,
                    sizes,
                    |rng| mean + 0.2 * 0.3_f64.sqrt() * gaussian(rng),
                    |rng, effect| effect + 0.2 * 0.7_f64.sqrt() * gaussian(rng),
                )
            }
            Self::AveragePrecision => queries(
                rng,
                identities,
                five,
                |rng| DIFFICULTIES[rng.gen_range(0..DIFFICULTIES.len())],
                |rng, &p| draw_ap(rng, p * NEW) - draw_ap(rng, p),
            ),
            Self::SkewedLosses | Self::SkewedGains => {
                let side = if self == Self::SkewedLosses {
                    -1.0
                } else {
                    1.0
                };
                queries(
                    rng,
                    identities,
                    five,
                    |rng| mean + side * 0.1 * (exponential(rng) - 1.0),
                    |rng, effect| effect + 0.1 * gaussian(rng),
                )
            }
            Self::Flips => queries(
                rng,
                identities,
                five,
                // A fifth of the identities is unsure: there .2 flip to wrong and .15 to right.
                |rng| rng.r#gen::<f64>() < 0.2,
                |rng, &unsure| {
                    let u: f64 = rng.r#gen();
                    if !unsure {
                        0.0
                    } else if u < 0.2 {
                        -1.0
                    } else if u < 0.35 {
                        1.0
                    } else {
                        0.0
                    }
                },
            ),
        }
    }
}

/// Chance that the next item of a ranking is a relevant one, by identity: from hopeless to easy.
const DIFFICULTIES: [f64; 6] = [0.05, 0.2, 0.4, 0.6, 0.8, 0.95];

/// The new model finds the next relevant item this much less often.
const NEW: f64 = 0.98;

/// Relevant items a query.
const RELEVANT: usize = 3;

/// Items a ranking looks at; a relevant item behind them counts 0.
const DEPTH: usize = 60;

/// AP of a ranking whose every position is, until all are found, a relevant item with chance `p`.
fn draw_ap(rng: &mut ChaCha8Rng, p: f64) -> f64 {
    let (mut found, mut sum) = (0, 0.0);
    for position in 1..=DEPTH {
        if found == RELEVANT {
            break;
        }
        if rng.r#gen::<f64>() < p {
            found += 1;
            sum += found as f64 / position as f64;
        }
    }
    sum / RELEVANT as f64
}

/// The mean of [`draw_ap`] by the number found so far.
fn expected_ap(p: f64) -> f64 {
    let mut chance = [0.0; RELEVANT + 1];
    chance[0] = 1.0;
    let mut sum = 0.0;
    for position in 1..=DEPTH {
        for found in (0..RELEVANT).rev() {
            let hit = chance[found] * p;
            sum += hit * (found + 1) as f64 / position as f64;
            chance[found] -= hit;
            chance[found + 1] += hit;
        }
    }
    sum / RELEVANT as f64
}
