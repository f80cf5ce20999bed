//! The cure: makes an incompatible new model compatible where that is possible, without touching the gallery.
//!
//! A second line beside the audit's, on its stages' outputs: split -> fit -> choose -> refit -> append -> check. A small head
//! on the frozen new model is fitted with the objective of NCCL (Wu et al., AAAI 2022), on identities that neither chose it
//! nor test it, and appended to the model's graph. The audit of the result takes the held-out identities by itself: the
//! model's file says which they are ([`Adaptation`]).

mod checkpoint;
mod error;
pub mod fit;
pub mod graph;
pub mod head;
pub mod nccl;
pub mod split;
pub mod trial;
mod wire;
mod write;

use std::path::Path;

pub use error::AdaptError;

use crate::audit::{self, Embedding, Surroundings};
use crate::config::{AuditConfig, Pooling, Similarity};
use crate::domain::{Adaptation, Embeddings, Measure, Probe, Side};
use crate::embed::{self, Embedded, ModelSource};
use crate::retrieve::closed_form::thin_out;
use crate::structure::StructureOptions;

use checkpoint::Checkpoint;
use fit::{Candidate, Filter, Resume, Validation};
use nccl::{Objective, Training};
use split::{PARTS, Part, Split};
use trial::{Trial, mean};

/// Units that each part needs: fewer choose and test nothing.
const FEWEST_UNITS: usize = 5;

/// Queries that choose, at most: a mean over so many is known to one or two hundredths.
const VALIDATION_QUERIES: usize = 1_000;

/// Width of the hidden layer of a residual MLP.
const HIDDEN: usize = 128;

/// Which heads are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Least squares and the trained linear head.
    Auto,
    /// Least squares only.
    ClosedForm,
    /// The trained linear head, whatever the validation says.
    Linear,
    /// The trained residual MLP, whatever the validation says.
    Mlp,
}

/// An adapted model that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapted {
    /// Who was fitted on, who chose, who is left for the test.
    pub split: Split,
    /// What was tried, on the validation; least squares first.
    pub candidates: Vec<Candidate>,
    /// The one that was taken, an index into them.
    pub chosen: usize,
    /// Validation means without a head: old->old and new->new.
    pub without: [f64; 2],
    /// Validation queries.
    pub queries: usize,
    /// The measure that chose.
    pub primary: Measure,
    /// Items that the final head was fitted on, and how many of their old embeddings are not credible.
    pub fitted: [usize; 2],
    /// Whether an interrupted training was taken up again.
    pub resumed: bool,
    /// The configuration of the audit of the result.
    pub config: AuditConfig,
}

/// Fits, chooses, writes `out` and checks it.
///
/// # Errors
/// See [`AdaptError`]; then no file is left but, of an interrupted training, its checkpoint.
pub fn run(
    config: &AuditConfig,
    choice: Choice,
    out: &Path,
    around: &Surroundings<'_>,
) -> Result<Adapted, AdaptError> {
    write::check_out(config, out)?;
    if config.similarity != Similarity::Cosine {
        return Err(AdaptError::Similarity(
            format!("{:?}", config.similarity).to_lowercase(),
        ));
    }
    let ModelSource::Onnx(_) = audit::source(Side::New, &config.new)? else {
        return Err(AdaptError::Stored {
            path: config.new.clone(),
        });
    };
    if let Some(dims) = config.new_model.dims {
        return Err(AdaptError::Truncated {
            path: config.new.clone(),
            dims,
        });
    }
    let file = write::read(&config.new)?;
    if let Some(adaptation) = file.adaptation {
        return Err(AdaptError::Adapted {
            path: config.new.clone(),
            head: adaptation.head,
        });
    }
    let Embedding {
        probe,
        old,
        new,
        runtime,
        ..
    } = audit::embed(config, around)?;
    write::check_model(config, &file, &new.model, out)?;
    around.progress.stage("adapt");
    let mut split = Split::new(&probe, config.seed);
    split.separate(audit::input_digests(&old, &new));
    let too_few = |what: String, needed, found| AdaptError::TooFew {
        origin: config.data.clone(),
        what,
        needed,
        found,
    };
    if split.units[1] < FEWEST_UNITS {
        let found = split.units.iter().sum();
        return Err(too_few(split.unit.to_owned(), PARTS * FEWEST_UNITS, found));
    }
    let [fit, develop] = [
        split.is_in(&[Part::Fit]),
        split.is_in(&[Part::Fit, Part::Validation]),
    ];
    let options = StructureOptions {
        seed: config.seed,
        cut: config.credibility,
        ..StructureOptions::default()
    };
    let filter = Filter::default();
    let spaces = [&old.embeddings, &new.embeddings];
    let pairs = fit::pairs(&probe, spaces, |item| fit[item], filter, &options)?;
    let dim = new.embeddings.dim().max(old.embeddings.dim());
    if pairs.new.nrows() < dim {
        let what = format!("items of fitted {} for {dim} dimensions", split.unit);
        return Err(too_few(what, dim, pairs.new.nrows()));
    }

    // Of what only the old gallery still holds, new->new cannot be measured.
    let in_both: Vec<bool> = (0..probe.items.len())
        .map(|item| develop[item] && old.embeddings.has(item) && new.embeddings.has(item))
        .collect();
    let validation = Bench::new(&probe, [&old, &new], &in_both);
    let trial = validation.trial(config.policy.primary);
    let mut queries = trial.queries(|item| !fit[validation.items[item]]);
    thin_out(&mut queries, VALIDATION_QUERIES);
    if queries.is_empty() {
        let what = format!(
            "queries of validation {} that have something to find",
            split.unit
        );
        return Err(too_few(what, 1, 0));
    }
    let primary = trial.primary();
    let validation = Validation {
        trial: &trial,
        queries: &queries,
    };
    let without = [
        mean(&trial.old_old(&queries)?),
        mean(&trial.new_new(&queries)?),
    ];

    let objective = Objective::default();
    let training = Training {
        seed: config.seed,
        hidden: if choice == Choice::Mlp { HIDDEN } else { 0 },
        ..Training::default()
    };
    let resume = Resume {
        path: Checkpoint::path(out),
        fingerprint: fingerprint(&pairs, &validation, &objective, &training),
    };
    let resumed = Checkpoint::read(&resume.path, &resume.fingerprint).is_some();
    let mut candidates = fit::closed_forms(&pairs, &validation)?;
    if choice != Choice::ClosedForm {
        let progress = around.progress;
        candidates.push(fit::train(
            &pairs,
            objective,
            training,
            &validation,
            Some(&resume),
            progress,
        )?);
    }
    let chosen = match choice {
        Choice::Linear | Choice::Mlp => candidates.len() - 1,
        Choice::Auto | Choice::ClosedForm => fit::choose(&candidates, without[1]),
    };
    let all = fit::pairs(&probe, spaces, |item| develop[item], filter, &options)?;
    let head = fit::refit(&candidates[chosen], &all, objective, training)?;

    let adaptation = Adaptation {
        head: head.kind.to_string(),
        new_model: new.model.hash.clone(),
        old_model: old.model.hash.clone(),
        units: split.unit.to_owned(),
        seed: config.seed,
        test_below: Adaptation::bound_text(split.test_below),
        fitted: split.units[0] + split.units[1],
        held_out: split.units[2],
    };
    let mut config_of_result = config.clone();
    config_of_result.new = out.to_owned();
    config_of_result.new_model.pooling = Some(Pooling::None);
    config_of_result.new_model.output = new.model.output.clone();
    write::model(
        config,
        &file,
        &head,
        &new.model,
        &adaptation,
        out,
        |written| {
            let mut config = config_of_result.clone();
            config.new = written.to_owned();
            let source = audit::source(Side::New, written)?;
            let options = audit::embed_options(Side::New, &config, around);
            let given = embed::embed(&probe, &source, &options, runtime.as_ref(), around.progress)
                .map_err(|error| AdaptError::Written(Box::new(error)))?;
            let expected = head.map(&new.embeddings).map_err(trial::TrialError::from)?;
            let difference = (0..probe.items.len())
                .filter_map(|item| Some((expected.get(item)?, given.embeddings.get(item)?)))
                .flat_map(|(a, b)| {
                    a.iter()
                        .zip(&*b)
                        .map(|(a, b)| f64::from((a - b).abs()))
                        .collect::<Vec<_>>()
                })
                .fold(0.0, f64::max);
            let limit = write::tolerance(&new.model);
            if difference > limit {
                return Err(AdaptError::Differs { difference, limit });
            }
            Ok(())
        },
    )?;
    if choice != Choice::ClosedForm {
        // It has served; that it is gone already is as good.
        let _ = std::fs::remove_file(&resume.path);
    }
    Ok(Adapted {
        split,
        candidates,
        chosen,
        without,
        queries: queries.len(),
        primary,
        fitted: [
            all.new.nrows(),
            all.credible.iter().filter(|credible| !**credible).count(),
        ],
        resumed,
        config: config_of_result,
    })
}

/// The units of some parts, with nothing of the others: neither to be found nor to be confused with.
struct Bench {
    /// Index of each item in the whole probe.
    items: Vec<usize>,
    probe: Probe,
    digests: Vec<Option<[u8; 32]>>,
    old: Embeddings,
    new: Embeddings,
}

impl Bench {
    fn new(probe: &Probe, [old, new]: [&Embedded; 2], keep: &[bool]) -> Self {
        let items: Vec<usize> = (0..keep.len()).filter(|&item| keep[item]).collect();
        let digests = audit::input_digests(old, new);
        let kept = |of: &Embeddings| {
            let mut of = of.clone();
            of.retain(keep);
            of
        };
        let mut part = probe.clone();
        part.retain(keep);
        Self {
            digests: items
                .iter()
                .filter_map(|&item| digests.get(item).copied())
                .collect(),
            old: kept(&old.embeddings),
            new: kept(&new.embeddings),
            probe: part,
            items,
        }
    }

    fn trial(&self, primary: Option<Measure>) -> Trial<'_> {
        Trial::new(&self.probe, &self.digests, [&self.old, &self.new], primary)
    }
}

/// All that the course of a training hangs on.
fn fingerprint(
    pairs: &nccl::Pairs,
    validation: &Validation<'_>,
    objective: &Objective,
    training: &Training,
) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(format!("{objective:?} {training:?}").as_bytes());
    for values in [&pairs.new, &pairs.old] {
        values.iter().for_each(|value| {
            hasher.update(&value.to_le_bytes());
        });
    }
    hasher.update(
        format!(
            "{:?} {:?} {:?}",
            pairs.identity, pairs.subcluster, pairs.credible
        )
        .as_bytes(),
    );
    validation.trial.add_to(&mut hasher, validation.queries);
    hasher.finalize().to_hex().to_string()
}
