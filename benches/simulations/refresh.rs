//! The refresh gate: how often one of many points is called below a limit that every point touches, and how often a dip is found.

use compat_audit::domain::Estimate;
use compat_audit::judge::checks::state;
use compat_audit::judge::evidence::Refresh;
use compat_audit::judge::{CheckState, SafeSide};
use compat_audit::retrieve::refresh::STEPS;
use compat_audit::stats::{Bootstrap, ClusterSums, CurveEstimates, curve_estimates};
use rand_chacha::ChaCha8Rng;

use super::LEVEL;
use super::draw::{gaussian, stream};
use super::tally::tally;

const RUNS: u64 = 2_000;

/// As many as an audit draws: the level of a point is read off the lowest few in a thousand.
const REPLICATES: usize = 10_000;

const QUERIES_AN_IDENTITY: usize = 6;

/// Spread of what an identity's queries share, and of what each query adds.
const SHARED: f64 = 0.08;
const OWN: f64 = 0.25;

/// Correlations of a value at neighbouring points: at the ends of the curve .01, .36 and .82 of it are left.
const KEPT: [f64; 3] = [0.8, 0.95, 0.99];

/// How far the second curve lies above the limit, and its dip in the middle below, in standard errors.
const CLEAR: f64 = 3.0;

/// The true curve lies on the limit everywhere: every pass and every fail is an error. A second one dips below it: failing is right.
pub fn print() {
    println!(
        "Per cent of {RUNS} runs, with the 95 % Monte-Carlo interval. Left the true curve lies on the limit at all {} points:\n\
         passed (every point is proven above), failed (it is proven that a point lies below), failed were each point tested\n\
         at 5 % on its own, and failed at the first point alone. Right it lies {CLEAR} standard errors above the limit, and at one point\n\
         in the middle {CLEAR} below. {QUERIES_AN_IDENTITY} queries an identity; a query's and an identity's noise keep a correlation from point to point.\n",
        STEPS + 1
    );
    println!(
        "| identities | correlation | passed | failed | uncorrected | first point | dip: failed | dip: uncorrected |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for identities in [50, 200] {
        for kept in KEPT {
            let [passed, failed, uncorrected, first, found, found_uncorrected] =
                tally(RUNS, |run| outcomes(identities, kept, run));
            println!(
                "| {identities} | {kept} | {passed} | {failed} | {uncorrected} | {first} | {found} | {found_uncorrected} |"
            );
        }
    }
}

/// Whether a run's curve on the limit passes, fails, has a point below on its own, its first one; whether the dipping one fails, and
/// has a point below on its own.
pub fn outcomes(identities: usize, kept: f64, run: u64) -> [bool; 6] {
    let on_limit = curve(&mut stream(identities as u64, run), identities, kept, run);
    let dips = dipping(&on_limit, identities);
    [
        gate(&on_limit) == CheckState::Pass,
        gate(&on_limit) == CheckState::Fail,
        on_limit.pointwise.iter().any(is_below),
        is_below(&on_limit.pointwise[0]),
        gate(&dips) == CheckState::Fail,
        dips.pointwise.iter().any(is_below),
    ]
}

/// The gate's state at the limit 0.
fn gate(curve: &CurveEstimates) -> CheckState {
    let refresh = Refresh {
        planned: curve.clone(),
        random: Vec::new(),
        random_orders: 0,
    };
    let (_, estimate) = refresh.deciding(0.0);
    state(estimate, 0.0, SafeSide::Above)
}

fn is_below(estimate: &Estimate) -> bool {
    state(estimate, 0.0, SafeSide::Above) == CheckState::Fail
}

/// The estimates of one curve whose true values are 0.
fn curve(rng: &mut ChaCha8Rng, identities: usize, kept: f64, run: u64) -> CurveEstimates {
    let of_query: Vec<u32> = (0..identities as u32)
        .flat_map(|identity| [identity; QUERIES_AN_IDENTITY])
        .collect();
    let bootstrap = Bootstrap {
        replicates: REPLICATES,
        seed: run,
    };
    let mut shared = noise(rng, identities);
    let mut own = noise(rng, of_query.len());
    let points: Vec<ClusterSums> = (0..=STEPS)
        .map(|step| {
            if step > 0 {
                drift(&mut shared, kept, rng);
                drift(&mut own, kept, rng);
            }
            let values = of_query.iter().zip(&own);
            let values: Vec<f64> = values
                .map(|(&identity, own)| SHARED * shared[identity as usize] + OWN * own)
                .collect();
            ClusterSums::new(&values, &of_query)
        })
        .collect();
    curve_estimates(&points, LEVEL, &bootstrap)
}

/// The same curve moved up, but for its middle, which is moved down: an interval moves with its values.
fn dipping(curve: &CurveEstimates, identities: usize) -> CurveEstimates {
    let of_identity = SHARED.powi(2) + OWN.powi(2) / QUERIES_AN_IDENTITY as f64;
    let clear = CLEAR * (of_identity / identities as f64).sqrt();
    let moved = |estimates: &[Estimate]| {
        let by = |step: usize| if step == STEPS / 2 { -clear } else { clear };
        let estimates = estimates.iter().enumerate();
        estimates
            .map(|(step, estimate)| Estimate {
                value: estimate.value + by(step),
                lower: estimate.lower + by(step),
                upper: estimate.upper + by(step),
                ..*estimate
            })
            .collect()
    };
    CurveEstimates {
        pointwise: moved(&curve.pointwise),
        simultaneous: moved(&curve.simultaneous),
    }
}

fn noise(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| gaussian(rng)).collect()
}

/// One step of stationary autoregressive noise of variance 1.
fn drift(values: &mut [f64], kept: f64, rng: &mut ChaCha8Rng) {
    for value in values {
        *value = kept * *value + (1.0 - kept * kept).sqrt() * gaussian(rng);
    }
}
