//! The flags of the policy and of a backfill's cost.

use clap::{Args, ValueEnum};

use crate::config::{FailOn, Inconclusive, Overrides, Profile, Similarity};
use crate::domain::{CheckSeverity, Measure};

/// What decides, and what a backfill costs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Judging")]
pub struct JudgingArgs {
    /// Largest tolerated loss of the measure that decides (default 0.01; 0.02 lenient, 0.1 label-free)
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    pub margin: Option<f64>,
    /// One-sided error of every bound (default 0.05)
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    pub alpha: Option<f64>,
    /// Largest tolerated share of excess flips (default 0.05; 0.02 strict, 0.1 lenient and label-free)
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub excess_flips: Option<f64>,
    /// Largest tolerated share of negative flips (default: warns only)
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub negative_flips: Option<f64>,
    /// Named set of limits to start from (default: default)
    #[arg(long, value_enum)]
    pub profile: Option<ProfileArg>,
    /// The measure that decides (default: mAP, or nDCG@10 when relevance is graded)
    #[arg(long, value_name = "MEASURE")]
    pub primary: Option<Measure>,
    /// Largest tolerated loss of a slice (default 0.1; 0.2 lenient, 0.3 label-free)
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    pub slice_margin: Option<f64>,
    /// Columns whose values are slices (default: identity, sub-cluster, camera, every manifest column)
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub slice_columns: Option<Vec<String>>,
    /// Largest tolerated loss while the gallery is refreshed (default 0.01; 0.02 lenient)
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    pub refresh_margin: Option<f64>,
    /// Largest share of the gallery that a partial backfill may re-embed (default 0.5)
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub max_partial: Option<f64>,
    /// False-accept rate of a hard-wired score threshold; gates what it lets through and turns away
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub threshold_far: Option<f64>,
    /// How much a check matters: gate, warn or off (repeatable)
    #[arg(long, value_name = "CHECK=LEVEL", value_parser = severity_arg)]
    pub severity: Vec<(String, CheckSeverity)>,
    /// What an inconclusive verdict means to the exit code (default fail)
    #[arg(long, value_enum)]
    pub inconclusive: Option<InconclusiveArg>,
    /// From which verdict on the exit code is 1 (default partial)
    #[arg(long, value_enum)]
    pub fail_on: Option<FailOnArg>,
    /// How embeddings are compared (default cosine)
    #[arg(long, value_enum)]
    pub similarity: Option<SimilarityArg>,
    /// Seed of every random draw (default 0)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// What a backfill costs
    #[command(flatten)]
    pub cost: CostArgs,
}

/// What a backfill costs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Backfill")]
pub struct CostArgs {
    /// Items of the production gallery, for what a backfill costs
    #[arg(long, value_name = "N")]
    pub gallery_size: Option<u64>,
    /// Cost of embedding a million items
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub cost_per_million: Option<f64>,
    /// Items embedded a second
    #[arg(long, value_name = "Y", allow_negative_numbers = true)]
    pub throughput: Option<f64>,
}

impl JudgingArgs {
    /// What these flags say; the others' values are left to them.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            margin: self.margin,
            alpha: self.alpha,
            excess_flips: self.excess_flips,
            negative_flips: self.negative_flips,
            profile: self.profile.map(|profile| match profile {
                ProfileArg::Default => Profile::Default,
                ProfileArg::Strict => Profile::Strict,
                ProfileArg::Lenient => Profile::Lenient,
                ProfileArg::LabelFree => Profile::LabelFree,
            }),
            primary: self.primary,
            slice_margin: self.slice_margin,
            slice_columns: self.slice_columns.clone(),
            refresh_margin: self.refresh_margin,
            max_partial: self.max_partial,
            threshold_far: self.threshold_far,
            severity: self.severity.clone(),
            inconclusive: self.inconclusive.map(|meaning| match meaning {
                InconclusiveArg::Fail => Inconclusive::Fail,
                InconclusiveArg::Pass => Inconclusive::Pass,
            }),
            fail_on: self.fail_on.map(|verdict| match verdict {
                FailOnArg::Partial => FailOn::Partial,
                FailOnArg::Full => FailOn::Full,
                FailOnArg::Never => FailOn::Never,
            }),
            gallery_size: self.cost.gallery_size,
            cost_per_million: self.cost.cost_per_million,
            throughput: self.cost.throughput,
            similarity: self.similarity.map(|similarity| match similarity {
                SimilarityArg::Cosine => Similarity::Cosine,
                SimilarityArg::Ip => Similarity::Ip,
                SimilarityArg::L2 => Similarity::L2,
            }),
            seed: self.seed,
            ..Overrides::default()
        }
    }
}

/// [`Similarity`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SimilarityArg {
    /// Inner product of L2-normalised embeddings
    Cosine,
    /// Inner product of the embeddings as they are
    Ip,
    /// Negative squared Euclidean distance
    L2,
}

/// [`Profile`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ProfileArg {
    /// The documented limits
    Default,
    /// An improvement proven, every slice proven, little left untested
    Strict,
    /// Twice the tolerance, refreshes only warn
    Lenient,
    /// No labels needed: clusters of the old embeddings stand in for identities, every number is agreement with the old
    /// model
    LabelFree,
}

/// [`Inconclusive`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum InconclusiveArg {
    /// Exit with 3
    Fail,
    /// Exit with 0
    Pass,
}

/// [`FailOn`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FailOnArg {
    /// A partial backfill is enough
    Partial,
    /// A full backfill or do-not-upgrade
    Full,
    /// No verdict, not even inconclusive; errors still exit with 2
    Never,
}

/// `check=level`.
fn severity_arg(text: &str) -> Result<(String, CheckSeverity), String> {
    let (check, level) = text
        .split_once('=')
        .ok_or("expected CHECK=LEVEL, such as refresh=warn")?;
    let level = match level {
        "gate" => CheckSeverity::Gate,
        "warn" => CheckSeverity::Warn,
        "off" => CheckSeverity::Off,
        other => return Err(format!("expected gate, warn or off, found `{other}`")),
    };
    Ok((check.to_owned(), level))
}
