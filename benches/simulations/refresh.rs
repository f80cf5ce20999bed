//! The refresh gate: how often the worst of many points is called below a limit that every point touches.

use compat_audit::judge::checks::state;
use compat_audit::judge::{CheckState, SafeSide};
use compat_audit::retrieve::refresh::STEPS;
use compat_audit::stats::{Bootstrap, ClusterSums, mean_estimate};
use rand_chacha::ChaCha8Rng;

use super::draw::{gaussian, stream};
use super::tally::tally;
use super::{LEVEL, REPLICATES};

const RUNS: u64 = 2_000;

const QUERIES_AN_IDENTITY: usize = 6;

/// Spread of what an identity's queries share, and of what each query adds.
const SHARED: f64 = 0.08;
const OWN: f64 = 0.25;

/// Correlations of a value at neighbouring points: at the ends of the curve .01, .36 and .82 of it are left.
const KEPT: [f64; 3] = [0.8, 0.95, 0.99];

/// The true curve lies on the limit everywhere: every pass and every fail is an error.
pub fn print() {
    println!(
        "Per cent of {RUNS} runs with the true curve on the limit at all {} points, with the 95 % Monte-Carlo interval:\n\
         passed (every point is proven above), failed (a point is proven below), and failed at the first point alone.\n\
         {QUERIES_AN_IDENTITY} queries an identity; a query's and an identity's noise keep a correlation from point to point.\n",
        STEPS + 1
    );
    println!("| identities | correlation | passed | failed | failed at the first |");
    println!("| --- | --- | --- | --- | --- |");
    for identities in [50, 200] {
        for kept in KEPT {
            let [passed, failed, first] = tally(RUNS, |run| {
                let states = states(&mut stream(identities as u64, run), identities, kept, run);
                [
                    states.iter().all(|&state| state == CheckState::Pass),
                    states.contains(&CheckState::Fail),
                    states[0] == CheckState::Fail,
                ]
            });
            println!("| {identities} | {kept} | {passed} | {failed} | {first} |");
        }
    }
}

/// The state of each point of one curve around its limit, 0.
fn states(rng: &mut ChaCha8Rng, identities: usize, kept: f64, run: u64) -> Vec<CheckState> {
    let of_query: Vec<u32> = (0..identities as u32)
        .flat_map(|identity| [identity; QUERIES_AN_IDENTITY])
        .collect();
    let bootstrap = Bootstrap {
        replicates: REPLICATES,
        seed: run,
    };
    let mut shared = noise(rng, identities);
    let mut own = noise(rng, of_query.len());
    (0..=STEPS)
        .map(|step| {
            if step > 0 {
                drift(&mut shared, kept, rng);
                drift(&mut own, kept, rng);
            }
            let values = of_query.iter().zip(&own);
            let values: Vec<f64> = values
                .map(|(&identity, own)| SHARED * shared[identity as usize] + OWN * own)
                .collect();
            let found = mean_estimate(&ClusterSums::new(&values, &of_query), LEVEL, &bootstrap);
            state(&found, 0.0, SafeSide::Above)
        })
        .collect()
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
