//! The check on D: how often it errs at the margin, and how often it passes at the resolvable margin.

use compat_audit::judge::checks::state;
use compat_audit::judge::{CheckState, SafeSide};
use compat_audit::stats::{
    Bootstrap, ClusterSums, blind_share, mean_estimate, plain_bca, resolvable_margin,
};
use rand::Rng;

use super::draw::{Sizes, gaussian, queries, stream};
use super::generators::Generator;
use super::tally::tally;
use super::{ALPHA, LEVEL, POWER, REPLICATES};

const RUNS: u64 = 10_000;

/// Plain BCa is a second bootstrap a run.
const PLAIN_RUNS: u64 = 4_000;

/// Dense changes, true D on the limit: every pass and every fail is an error.
pub fn print_dense() {
    println!(
        "Per cent of {RUNS} runs with the true D on the limit, each with its 95 % Monte-Carlo interval. A pass or a fail\n\
         is an error there; each may happen in {} %. The last column has the limit a resolvable margin below D:\n\
         passing is right, at a power of {} %. Five queries an identity, but for the unequal sizes.\n",
        100.0 * ALPHA,
        100.0 * POWER
    );
    println!(
        "| change | identities | false pass | false fail | false pass, plain BCa | pass at the resolvable margin |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for generator in Generator::ALL {
        let limit = generator.true_change();
        for identities in [50, 100, 200, 500] {
            let sums = |run: u64| {
                let mut rng = stream(u64::from(identities), run);
                let sample = generator.draw(&mut rng, identities);
                ClusterSums::new(&sample.values, &sample.identities)
            };
            let [pass, fail, at_margin] = tally(RUNS, |run| {
                let sums = sums(run);
                let found = mean_estimate(&sums, LEVEL, &bootstrap(run));
                let state_at = |limit: f64| state(&found, limit, SafeSide::Above);
                let margin = resolvable_margin(&sums, ALPHA, POWER);
                [
                    state_at(limit) == CheckState::Pass,
                    state_at(limit) == CheckState::Fail,
                    state_at(limit - margin) == CheckState::Pass,
                ]
            });
            let [plain] = tally(PLAIN_RUNS, |run| {
                let ends = plain_bca(&sums(run), LEVEL, &bootstrap(run));
                [ends.is_some_and(|(lower, _)| lower > limit)]
            });
            println!(
                "| {} | {identities} | {pass} | {fail} | {plain} | {at_margin} |",
                generator.name()
            );
        }
    }
}

const SPARSE_RUNS: u64 = 4_000;

/// Share of identities that lose everything.
const COLLAPSED: f64 = 0.01;

/// Sparse damage: the mean hides a few identities that lose everything.
pub fn print_sparse() {
    println!(
        "One identity in a hundred loses all of its AP of 1, the others change by noise alone: the true D is -.01, the\n\
         limit. Per cent of {SPARSE_RUNS} runs, five queries an identity. `none drawn` is the chance that the probe holds no such\n\
         identity: then no method sees it. The blind share is the damage that a probe misses with a chance of 5 %.\n"
    );
    println!("| identities | pass | none drawn | pass when some are drawn | blind share |");
    println!("| --- | --- | --- | --- | --- |");
    for identities in [50, 100, 200, 500, 1_000] {
        let [pass, seen, pass_seen] = tally(SPARSE_RUNS, |run| {
            let mut rng = stream(7, run);
            let sample = queries(
                &mut rng,
                identities,
                Sizes::Each(5),
                |rng| rng.r#gen::<f64>() < COLLAPSED,
                |rng, &lost| if lost { -1.0 } else { 0.05 * gaussian(rng) },
            );
            let seen = sample.values.contains(&-1.0);
            let sums = ClusterSums::new(&sample.values, &sample.identities);
            let found = mean_estimate(&sums, LEVEL, &bootstrap(run));
            let pass = state(&found, -COLLAPSED, SafeSide::Above) == CheckState::Pass;
            [pass, seen, pass && seen]
        });
        println!(
            "| {identities} | {pass} | {:.1} | {:.1} | {:.1} |",
            100.0 * (1.0 - COLLAPSED).powi(identities as i32),
            100.0 * pass_seen.hits as f64 / seen.hits as f64,
            100.0 * blind_share(identities as usize)
        );
    }
}

fn bootstrap(run: u64) -> Bootstrap {
    Bootstrap {
        replicates: REPLICATES,
        seed: run,
    }
}
