//! beta*: how often a share is claimed to be enough that is not.

use compat_audit::config::Policy;
use compat_audit::domain::Date;
use compat_audit::judge::backfill::{BackfillOrder, plan, split};
use compat_audit::judge::evidence::Intervals;
use compat_audit::judge::outcomes::{Flip, Outcomes};
use compat_audit::retrieve::refresh::{Curve, Order, STEPS};
use compat_audit::stats::Bootstrap;
use rand_chacha::ChaCha8Rng;

use super::draw::{gaussian, stream};
use super::tally::tally;
use super::{LEVEL, REPLICATES};

const RUNS: u64 = 2_000;

/// Orders to choose from: what an outcome can be fitted to.
const ORDERS: usize = 20;

/// First step of the curve from which on the gallery is good enough: beta = .4.
const ENOUGH: usize = 2 * STEPS / 5;

/// Change of the measure from there on.
const GAIN: f64 = 0.06;

/// Spread of what an identity's queries share, and of what each query adds in each order.
const SHARED: f64 = 0.08;
const OWN: f64 = 0.25;

/// Correlation of a query's noise between the steps of one order.
const KEPT: f64 = 0.7;

/// Each gate's true value lies on its limit below beta = .4 whatever the order, so every smaller beta* is false.
pub fn print() {
    println!(
        "Per cent of {RUNS} runs that claim a share below the true one, with the 95 % Monte-Carlo interval. The true change is on the\n\
         margin below beta = .4 and {GAIN} from there on, in each of {ORDERS} orders; the best-looking one is followed. Six queries an\n\
         identity. Last columns: the same on the queries that chose the order, in the fixed sequence and scanned from below.\n"
    );
    println!(
        "| identities | split and fixed sequence | mean beta* | fixed sequence, no split | scanned, no split |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for identities in [50, 100, 200] {
        let [claimed, fixed, scanned] = tally(RUNS, |run| {
            let world = World::new(&mut stream(u64::from(identities), run), identities);
            let everyone = vec![true; world.outcomes.identities.len()];
            let chosen_by = split(&world.outcomes.identities, run);
            let honest = world.beta_star(world.best_order(&chosen_by), &chosen_by, run);
            let best = world.best_order(&everyone);
            let greedy = world.beta_star(best, &vec![false; everyone.len()], run);
            [
                is_false(honest),
                is_false(greedy),
                world.scan_passes_too_early(best, run),
            ]
        });
        let mean = (0..200).map(|run| {
            let world = World::new(&mut stream(u64::from(identities), run), identities);
            let chosen_by = split(&world.outcomes.identities, run);
            world
                .beta_star(world.best_order(&chosen_by), &chosen_by, run)
                .unwrap_or(1.0)
        });
        println!(
            "| {identities} | {claimed} | {:.2} | {fixed} | {scanned} |",
            mean.sum::<f64>() / 200.0
        );
    }
}

fn is_false(beta_star: Option<f64>) -> bool {
    beta_star.is_some_and(|beta| beta < ENOUGH as f64 / STEPS as f64)
}

struct World {
    outcomes: Outcomes,
    curves: Vec<Curve>,
    policy: Policy,
}

impl World {
    fn new(rng: &mut ChaCha8Rng, n_identities: u32) -> Self {
        let policy = Policy::default();
        let identities: Vec<u32> = (0..n_identities).flat_map(|g| [g; 6]).collect();
        let shared: Vec<f64> = (0..n_identities).map(|_| SHARED * gaussian(rng)).collect();
        let right = Flip {
            old_old: true,
            after: true,
            new_new: Some(true),
        };
        let curves = (0..ORDERS)
            .map(|_| {
                let kept: Vec<f64> = identities.iter().map(|_| gaussian(rng)).collect();
                let values = (0..=STEPS)
                    .map(|step| {
                        let truth = if step < ENOUGH { -policy.margin } else { GAIN };
                        identities
                            .iter()
                            .zip(&kept)
                            .map(|(&g, kept)| {
                                let noise =
                                    KEPT.sqrt() * kept + (1.0 - KEPT).sqrt() * gaussian(rng);
                                truth + shared[g as usize] + OWN * noise
                            })
                            .collect()
                    })
                    .collect();
                Curve {
                    values,
                    right: vec![vec![true; identities.len()]; STEPS + 1],
                }
            })
            .collect();
        Self {
            outcomes: {
                let n = identities.len();
                Outcomes::without_ties(identities, vec![0.0; n], vec![0.0; n], vec![right; n])
            },
            curves,
            policy,
        }
    }

    fn intervals(&self, run: u64) -> Intervals {
        Intervals {
            level: LEVEL,
            bootstrap: Bootstrap {
                replicates: REPLICATES,
                seed: run,
            },
        }
    }

    /// The order whose curve looks best to the queries that choose, below the true share.
    fn best_order(&self, chosen_by: &[bool]) -> usize {
        let looks = |order: usize| -> f64 {
            (0..ENOUGH)
                .flat_map(|step| self.curves[order].values[step].iter().zip(chosen_by))
                .filter(|(_, chooses)| **chooses)
                .map(|(value, _)| value)
                .sum()
        };
        (0..ORDERS)
            .max_by(|&a, &b| looks(a).total_cmp(&looks(b)))
            .expect("there are orders")
    }

    fn beta_star(&self, order: usize, fixed_by: &[bool], run: u64) -> Option<f64> {
        let followed = BackfillOrder {
            order: Order::new((0..100).collect()),
            fixed_by: fixed_by.to_vec(),
            first_subclusters: Vec::new(),
        };
        let intervals = self.intervals(run);
        let curve = &self.curves[order];
        plan(
            &self.outcomes,
            &[],
            &followed,
            curve,
            &self.policy,
            &intervals,
            Date::of_unix_day(0),
        )
        .beta_star
    }

    /// Whether any share below the true one passes when all are tried.
    fn scan_passes_too_early(&self, order: usize, run: u64) -> bool {
        let intervals = self.intervals(run);
        (0..ENOUGH).any(|step| {
            let values = &self.curves[order].values[step];
            let found = intervals.mean(values, &self.outcomes.identities);
            found.lower > -self.policy.margin
        })
    }
}
