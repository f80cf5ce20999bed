//! A small, seeded run of what `cargo bench --bench simulations` tabulates (`docs/statistics.md`).

use compat_audit::judge::checks::state;
use compat_audit::judge::{CheckState, SafeSide};
use compat_audit::stats::{Bootstrap, ClusterSums, mean_estimate, resolvable_margin};
use rand::Rng;
use rayon::prelude::*;

#[expect(dead_code, reason = "the tables name their sizes")]
#[path = "../../benches/simulations/draw.rs"]
mod draw;
#[path = "../../benches/simulations/generators.rs"]
mod generators;
#[expect(dead_code, reason = "the table prints itself")]
#[path = "../../benches/simulations/refresh.rs"]
mod refresh;
#[path = "../../benches/simulations/tally.rs"]
mod tally;

use draw::{Queries, Sizes, gaussian, queries, stream};
use generators::Generator;

/// Three standard errors of a rate over this many runs are .024 at .05.
const RUNS: u64 = 750;

/// The default policy's one-sided error.
const ALPHA: f64 = 0.05;

/// The two-sided level whose ends have that error.
const LEVEL: f64 = 1.0 - 2.0 * ALPHA;

/// Shares of the runs in which each of the outcomes holds, given the sample and the state of the check at a limit.
fn rates<const N: usize>(
    sample: impl Fn(u64) -> Queries + Sync,
    outcomes: impl Fn(&ClusterSums, &dyn Fn(f64) -> CheckState) -> [bool; N] + Sync,
) -> [f64; N] {
    let hits: Vec<[bool; N]> = (0..RUNS)
        .into_par_iter()
        .map(|run| {
            let sample = sample(run);
            let sums = ClusterSums::new(&sample.values, &sample.identities);
            // An end of 400 replicates wanders by .1 standard errors, which moves 5 % by a tenth of a point.
            let bootstrap = Bootstrap {
                replicates: 400,
                seed: run,
            };
            let found = mean_estimate(&sums, LEVEL, &bootstrap);
            outcomes(&sums, &|limit| state(&found, limit, SafeSide::Above))
        })
        .collect();
    std::array::from_fn(|i| hits.iter().filter(|hit| hit[i]).count() as f64 / RUNS as f64)
}

#[test]
fn a_dense_loss_at_the_margin_rarely_passes_and_no_loss_passes_at_the_resolvable_margin() {
    for generator in Generator::ALL {
        let limit = generator.true_change();
        let [pass, fail, at_margin] = rates(
            |run| generator.draw(&mut stream(1, run), 50),
            |sums, state| {
                let margin = resolvable_margin(sums, ALPHA, 0.8);
                [
                    state(limit) == CheckState::Pass,
                    state(limit) == CheckState::Fail,
                    state(limit - margin) == CheckState::Pass,
                ]
            },
        );
        let name = generator.name();
        assert!(pass < ALPHA + 0.024, "{name}: {pass} pass");
        assert!(fail < ALPHA + 0.024, "{name}: {fail} fail");
        // Three standard errors at .8 are .044. Skewed losses reach the lower bound farther down than the standard
        // error tells.
        let skewed = matches!(generator, Generator::SkewedLosses | Generator::Flips);
        let lowest = if skewed { 0.65 } else { 0.75 };
        assert!(
            at_margin > lowest && at_margin < 0.86,
            "{name}: {at_margin}"
        );
    }
}

#[test]
fn sparse_damage_passes_only_where_the_probe_holds_none_of_it() {
    // One identity in a hundred loses everything; D is -.01, the limit. A lost identity sums to -5, and the noise of
    // five queries is far from that.
    let [pass, unseen] = rates(
        |run| {
            queries(
                &mut stream(2, run),
                100,
                Sizes::Each(5),
                |rng| rng.r#gen::<f64>() < 0.01,
                |rng, &lost| if lost { -1.0 } else { 0.05 * gaussian(rng) },
            )
        },
        |sums, state| {
            let unseen = sums.sum.iter().all(|&sum| sum > -4.0);
            [state(-0.01) == CheckState::Pass, unseen]
        },
    );
    assert_eq!(pass, unseen);
    // .99^100 = .366; three standard errors are .053.
    assert!((unseen - 0.366).abs() < 0.053, "{unseen}");
}

#[test]
fn a_curve_along_its_limit_rarely_fails_and_a_dip_far_below_often_does() {
    const CURVES: u64 = 200;
    let [passed, failed, uncorrected, _, found, _] =
        tally::tally(CURVES, |run| refresh::outcomes(50, 0.8, run)).map(tally::Tally::rate);
    // Three standard errors of 200 runs are .046 at .05; a third of them fails where each of 21 points is tested at .05.
    assert!(passed < 0.01 && failed < ALPHA + 0.046, "{passed} {failed}");
    assert!(uncorrected > 0.2, "{uncorrected}");
    assert!(found > 0.4, "{found}");
}
