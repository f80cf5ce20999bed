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
mod head_graph;
pub mod nccl;
pub mod split;
pub mod trainer;
pub mod trial;
mod wire;
mod write;

use std::path::{Path, PathBuf};

pub use error::AdaptError;

use crate::audit::{self, Embedding, Surroundings};
use crate::config::{AuditConfig, Pooling, Similarity};
use crate::domain::{Adaptation, NamedMeasure, OwnSearch, Side};
use crate::embed::external::ModelFile;
use crate::embed::{self, EmbedOptions, ModelSource};
use crate::retrieve::closed_form::thin_out;
use crate::stats::mean;
use crate::structure::StructureOptions;
use crate::topk;

use checkpoint::Checkpoint;
use fit::{Candidate, Filter, Resume, Validation};
use head::Head;
use nccl::Objective;
use split::{PARTS, Part, Split};
use trainer::Training;
use trial::{Subset, TrialError};

/// Units that each part needs: fewer choose and test nothing.
const FEWEST_UNITS: usize = 5;

/// Queries that choose, at most: a mean over so many is known to one or two hundredths.
const VALIDATION_QUERIES: usize = 1_000;

/// Items, evenly spread, that the written model is compared on: a graph that is wrong is wrong on all.
const COMPARED: usize = 500;

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
    /// What was tried and taken.
    pub fitting: Fitting,
    /// The configuration of the audit of the result.
    pub config: AuditConfig,
}

/// What was tried on the validation, and the head that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitting {
    /// What was tried; least squares first.
    pub candidates: Vec<Candidate>,
    /// The one that was taken, an index into them.
    pub chosen: usize,
    /// Validation means without a head: old->old and new->new.
    pub without: [f64; 2],
    /// Validation queries.
    pub queries: usize,
    /// The measure that chose.
    pub primary: NamedMeasure,
    /// The head of the chosen kind, fitted on the validation too.
    pub head: Head,
    /// Items that it was fitted on, and how many of their old embeddings are not credible.
    pub fitted: [usize; 2],
    /// The checkpoint of the training, if there was one.
    pub checkpoint: Option<PathBuf>,
    /// Whether an interrupted training was taken up again.
    pub resumed: bool,
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
    let file = adaptable(config)?;
    let embedding = audit::embed(config, around)?;
    let Embedding {
        probe, old, new, ..
    } = &embedding;
    write::check_model(config, &file, &new.model, out)?;
    around.progress.stage("adapt");
    // Training wants the device for itself.
    topk::first_pass_on(None);
    let mut split = Split::new(probe, config.seed);
    split.separate(audit::input_digests(old, new));
    let fitting = fit_and_choose(config, choice, out, &embedding, &split, around)?;
    let adaptation = Adaptation {
        head: fitting.head.kind.to_string(),
        new_model: new.model.hash.clone(),
        old_model: old.model.hash.clone(),
        units: split.unit.to_owned(),
        seed: config.seed,
        test_below: Adaptation::bound_text(split.test_below),
        known: split.known(probe, config.seed, audit::input_digests(old, new)),
        fitted: split.units[0] + split.units[1],
        held_out: split.units[2],
        own_search: own_search(&embedding, &fitting.head, &split, config)?,
    };
    let mut config_of_result = config.clone();
    config_of_result.new = out.to_owned();
    config_of_result.new_model.pooling = Some(Pooling::None);
    config_of_result.new_model.output = new.model.output.clone();
    let check = |file: &Path| {
        let mut written = config_of_result.clone();
        written.new = file.to_owned();
        refuse_difference([config, &written], &embedding, &fitting.head, around)
    };
    let model = &new.model;
    write::model(config, &file, &fitting.head, model, &adaptation, out, check)?;
    if let Some(checkpoint) = &fitting.checkpoint {
        // It has served; that it is gone already is as good.
        let _ = std::fs::remove_file(checkpoint);
    }
    Ok(Adapted {
        split,
        fitting,
        config: config_of_result,
    })
}

/// The new model's file, of a model that a head can be fitted to, as far as can be said without running it.
fn adaptable(config: &AuditConfig) -> Result<ModelFile, AdaptError> {
    if config.similarity != Similarity::Cosine {
        return Err(AdaptError::Similarity(
            format!("{:?}", config.similarity).to_lowercase(),
        ));
    }
    let path = config.new.clone();
    let ModelSource::Onnx(_) = audit::source(Side::New, &path)? else {
        return Err(AdaptError::Stored { path });
    };
    if let Some(dims) = config.new_model.dims {
        return Err(AdaptError::Truncated { path, dims });
    }
    let mut file = write::read(&path)?;
    match file.adaptation.take() {
        Some(Adaptation { head, .. }) => Err(AdaptError::Adapted { path, head }),
        None => Ok(file),
    }
}

/// Fits the heads on the fit part, chooses one by the validation and fits it again on both.
fn fit_and_choose(
    config: &AuditConfig,
    choice: Choice,
    out: &Path,
    embedding: &Embedding,
    split: &Split,
    around: &Surroundings<'_>,
) -> Result<Fitting, AdaptError> {
    let Embedding {
        probe, old, new, ..
    } = embedding;
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
    let options = structure_options(config);
    let filter = Filter::default();
    let spaces = [&old.embeddings, &new.embeddings];
    let pairs = fit::pairs(probe, spaces, |item| fit[item], filter, &options)?;
    let dim = new.embeddings.dim().max(old.embeddings.dim());
    if pairs.new.nrows() < dim {
        let what = format!("items of fitted {} for {dim} dimensions", split.unit);
        return Err(too_few(what, dim, pairs.new.nrows()));
    }

    let validation = Subset::new(embedding, |item| develop[item], &options);
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
        gpu: Training::gpu(around.runtime.device),
        ..Training::default()
    };
    let resume = (choice != Choice::ClosedForm).then(|| Resume {
        path: Checkpoint::path(out),
        fingerprint: fingerprint(&pairs, &validation, &objective, &training),
    });
    let resumed = resume
        .as_ref()
        .is_some_and(|resume| resume.read().is_some());
    let mut candidates = fit::closed_forms(&pairs, &validation)?;
    if resume.is_some() {
        let resume = resume.as_ref();
        candidates.push(fit::train(
            &pairs,
            objective,
            training,
            &validation,
            resume,
            around.progress,
        )?);
    }
    let chosen = match choice {
        Choice::Linear | Choice::Mlp => candidates.len() - 1,
        Choice::Auto | Choice::ClosedForm => fit::choose(&candidates, without[1]),
    };
    let all = fit::pairs(probe, spaces, |item| develop[item], filter, &options)?;
    Ok(Fitting {
        head: fit::refit(&candidates[chosen], &all, objective, training)?,
        candidates,
        chosen,
        without,
        queries: queries.len(),
        primary: trial.primary(),
        fitted: [
            all.new.nrows(),
            all.credible.iter().filter(|credible| !**credible).count(),
        ],
        checkpoint: resume.map(|resume| resume.path),
        resumed,
    })
}

/// How the structure of the old space is read off.
fn structure_options(config: &AuditConfig) -> StructureOptions {
    StructureOptions {
        seed: config.seed,
        cut: config.credibility,
        ..StructureOptions::default()
    }
}

/// Embeds some items with the new model and with the written one, in the same batches and without the cache: a model that is
/// quantised as it runs gives an item another embedding in other company. The written one must give head(new), value by value.
fn refuse_difference(
    [config, written]: [&AuditConfig; 2],
    embedding: &Embedding,
    head: &Head,
    around: &Surroundings<'_>,
) -> Result<(), AdaptError> {
    let Embedding {
        probe,
        new,
        runtime,
        ..
    } = embedding;
    let mut some = probe.clone();
    let step = some.items.len().div_ceil(COMPARED).max(1);
    let keep: Vec<bool> = (0..some.items.len()).map(|item| item % step == 0).collect();
    some.retain(&keep);
    let sources = [config, written].map(|config| audit::source(Side::New, &config.new));
    let [of_new, of_written] = sources;
    let (of_new, of_written) = (of_new?, of_written?);
    let options = [config, written].map(|config| EmbedOptions {
        cache_dir: None,
        ..audit::embed_options(Side::New, config, around)
    });
    let sides = [(&of_new, &options[0]), (&of_written, &options[1])];
    let [before, given] = embed::embed_both(&some, sides, runtime.as_ref(), around.progress)
        .map_err(|(_, error)| AdaptError::Written(Box::new(error)))?;
    let expected = head.map(&before.embeddings).map_err(TrialError::from)?;
    let rows = (0..some.items.len())
        .filter_map(|item| Some((expected.get(item)?, given.embeddings.get(item)?)));
    let mut difference = 0.0_f64;
    for (expected, given) in rows {
        for (a, b) in expected.iter().zip(&*given) {
            difference = difference.max(f64::from((a - b).abs()));
        }
    }
    let limit = write::tolerance(&new.model);
    if difference > limit {
        return Err(AdaptError::Differs { difference, limit });
    }
    Ok(())
}

/// What the head does to new->new of the test queries; nothing is chosen by it.
fn own_search(
    embedding: &Embedding,
    head: &Head,
    split: &Split,
    config: &AuditConfig,
) -> Result<Option<OwnSearch>, AdaptError> {
    let all = Subset::new(embedding, |_| true, &structure_options(config));
    let trial = all.trial(config.policy.primary);
    let mut queries = trial.queries(|item| split.of_item[all.items[item]] == Some(Part::Test));
    thin_out(&mut queries, VALIDATION_QUERIES);
    if queries.is_empty() {
        return Ok(None);
    }
    Ok(Some(OwnSearch {
        measure: trial.primary().to_string(),
        queries: queries.len(),
        before: mean(&trial.new_new(&queries)?),
        after: mean(&trial.quality(head, &queries)?.new_new),
    }))
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
