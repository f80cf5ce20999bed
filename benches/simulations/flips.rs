//! The check on flips: how often it errs at its limit, and how often it passes far below.

use compat_audit::judge::checks::state;
use compat_audit::judge::{CheckState, SafeSide};
use compat_audit::stats::proportion_estimate;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::draw::{Sizes, gaussian, stream};
use super::tally::tally;
use super::{ALPHA, LEVEL};

const RUNS: u64 = 10_000;

/// What a flip costs, and how far the change of AP moves otherwise: by query, and by identity.
const LOSS: f64 = 0.5;
const SPREAD: f64 = 0.05;
const SHARED: f64 = 0.03;

/// Identities whose queries flip with a probability of their own: beta distributed, so that the queries of an identity are
/// correlated by `icc`.
struct Cell {
    limit: f64,
    identities: u32,
    sizes: Sizes,
    icc: f64,
}

const CELLS: [Cell; 9] = [
    cell(0.05, 100, Sizes::Each(1), 0.0),
    cell(0.05, 50, Sizes::Each(20), 0.3),
    cell(0.05, 100, Sizes::Each(5), 0.1),
    cell(0.05, 100, Sizes::Unequal, 0.3),
    cell(0.05, 200, Sizes::Unequal, 0.3),
    cell(0.02, 100, Sizes::Each(5), 0.3),
    cell(0.02, 200, Sizes::Unequal, 0.3),
    cell(0.05, 100, Sizes::Unequal, 0.6),
    cell(0.05, 30, Sizes::Each(20), 0.6),
];

const fn cell(limit: f64, identities: u32, sizes: Sizes, icc: f64) -> Cell {
    Cell {
        limit,
        identities,
        sizes,
        icc,
    }
}

/// A true share on the limit, where a pass is an error, and one far below.
pub fn print() {
    println!(
        "Per cent of {RUNS} runs, each with its 95 % Monte-Carlo interval. Identities flip with a probability of their own (beta), so that\n\
         queries of one are correlated by `ICC`. A pass at the limit is an error; it may happen in {} %. `by flips alone` is the same with\n\
         the design effect of the flips only, as surveys do it. `none drawn` is the chance that a probe holds no flip at all.\n",
        100.0 * ALPHA
    );
    println!(
        "| limit | identities | queries each | ICC | false pass | by flips alone | none drawn | pass at a sixth of the limit |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (seed, cell) in (0..).zip(&CELLS) {
        let passes = |hits: &[bool], identities: &[u32], companion: Option<&[f64]>| {
            let found = proportion_estimate(hits, identities, companion, LEVEL);
            state(&found, cell.limit, SafeSide::Below) == CheckState::Pass
        };
        let [pass, alone, none] = tally(RUNS, |run| {
            let (hits, change, identities) = cell.draw(&mut stream(seed, run), cell.limit);
            let none = !hits.contains(&true);
            // Without a flip there is nothing else.
            let companion = none.then_some(change.as_slice());
            [
                passes(&hits, &identities, Some(&change)),
                passes(&hits, &identities, companion),
                none,
            ]
        });
        let [far_below] = tally(RUNS, |run| {
            let (hits, change, identities) = cell.draw(&mut stream(seed, run), cell.limit / 6.0);
            [passes(&hits, &identities, Some(&change))]
        });
        println!(
            "| {} | {} | {} | {} | {pass} | {alone} | {:.1} | {far_below} |",
            cell.limit,
            cell.identities,
            cell.sizes.name(),
            cell.icc,
            100.0 * none.rate()
        );
    }
}

impl Cell {
    /// Flips, changes and identities of the queries, of a true share of flips.
    fn draw(&self, rng: &mut ChaCha8Rng, share: f64) -> (Vec<bool>, Vec<f64>, Vec<u32>) {
        let (mut hits, mut change, mut identities) = (Vec::new(), Vec::new(), Vec::new());
        for identity in 0..self.identities {
            let own_share = if self.icc > 0.0 {
                let odds = (1.0 - self.icc) / self.icc;
                beta(rng, share * odds, (1.0 - share) * odds)
            } else {
                share
            };
            let shared = SHARED * gaussian(rng);
            for _ in 0..self.sizes.draw(rng) {
                let hit = rng.r#gen::<f64>() < own_share;
                let loss = if hit { LOSS } else { 0.0 };
                hits.push(hit);
                change.push(shared + SPREAD * gaussian(rng) - loss);
                identities.push(identity);
            }
        }
        (hits, change, identities)
    }
}

/// A beta draw (Johnk 1964, which suits shapes below 1): x / (x + y) with x = u^(1/a), y = v^(1/b), drawn until x + y <= 1.
fn beta(rng: &mut ChaCha8Rng, a: f64, b: f64) -> f64 {
    loop {
        let (u, v): (f64, f64) = (rng.r#gen(), rng.r#gen());
        // By their logarithms: powers of small shapes vanish.
        let (x, y) = (u.ln() / a, v.ln() / b);
        if x.exp() + y.exp() <= 1.0 {
            let most = x.max(y);
            return (x - most).exp() / ((x - most).exp() + (y - most).exp());
        }
    }
}
