//! What the statistics do, counted: markdown tables, seeded, in parallel. Some 25 minutes on two cores for all.
//!
//! `cargo bench --bench simulations`, or one table: `cargo bench --bench simulations -- coverage`

use std::process::ExitCode;

mod clusters;
mod coverage;
mod draw;
mod flips;
mod gate;
mod generators;
mod mixtures;
mod plan;
mod refresh;
mod shuffled;
mod slices;
mod subclusters;
mod tally;

/// One-sided error of every bound, the default policy's.
const ALPHA: f64 = 0.05;

/// Two-sided level whose ends are those bounds.
const LEVEL: f64 = 1.0 - 2.0 * ALPHA;

/// Power of the resolvable margin and of the minimum detectable loss.
const POWER: f64 = 0.8;

/// Replicates a bootstrap: an audit draws 10,000. With 2,000 an end wanders by another .05 standard errors, which
/// moves a rate of 5 % by less than .02 points.
const REPLICATES: usize = 2_000;

type Table = (&'static str, &'static str, fn());

const TABLES: [Table; 11] = [
    (
        "coverage",
        "Coverage of the mean's interval",
        coverage::print,
    ),
    ("gate", "Errors of the check on D", gate::print_dense),
    ("sparse", "Sparse damage", gate::print_sparse),
    ("shuffled", "Shuffled labels", shuffled::print),
    ("flips", "Errors of the check on flips", flips::print),
    ("slices", "Slices", slices::print),
    ("plan", "False claims of beta*", plan::print),
    ("refresh", "Errors of the refresh gate", refresh::print),
    (
        "planted",
        "Planted sub-clusters",
        subclusters::print_planted,
    ),
    ("whole", "One cluster", subclusters::print_whole),
    ("clusters", "Clusters without labels", clusters::print),
];

fn main() -> ExitCode {
    // cargo passes --bench; what is left names tables.
    let asked: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if let Some(unknown) = asked
        .iter()
        .find(|asked| TABLES.iter().all(|(name, ..)| name != asked))
    {
        let names = TABLES.map(|(name, ..)| name).join(", ");
        eprintln!("no table {unknown}; there are {names}");
        return ExitCode::from(2);
    }
    for (name, title, print) in TABLES {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            let start = std::time::Instant::now();
            println!("## {title}\n");
            print();
            println!();
            eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
        }
    }
    ExitCode::SUCCESS
}
