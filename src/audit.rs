//! The audit: six stages in a line, no maths.

mod applicable;
mod embedding;
mod error;
mod held_out;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub(crate) use embedding::input_digests;
pub use embedding::{Embedding, Preview, embed, preview};
#[cfg(feature = "adapt")]
pub(crate) use embedding::{embed_options, source};
pub use error::AuditError;

use crate::config::AuditConfig;
use crate::domain::{Pairing, Progress, Side};
use crate::embed;
use crate::judge::{self, evidence::Evidence};
use crate::report::assemble::{Stages, assemble};
use crate::report::{AuditReport, RunSection, TableFiles};
use crate::retrieve::kept::retrieve_kept;
use crate::retrieve::protocol::Protocol;
use crate::retrieve::{self, SearchOptions};
use crate::runtime::RuntimeOptions;
use crate::structure::{self, StructureOptions};
use crate::topk;

/// What surrounds an audit: where models run, where embeddings are kept, who hears of it.
pub struct Surroundings<'a> {
    /// How to find ONNX Runtime; it is looked for only when a model must be run.
    pub runtime: RuntimeOptions,
    /// The embeddings' cache; `None` embeds everything again.
    pub embedding_cache: Option<PathBuf>,
    /// Hears of each batch.
    pub progress: &'a dyn Progress,
    /// Hears one-line notices.
    pub notify: &'a dyn Fn(&str),
    /// The command line, for the report.
    pub command: Vec<String>,
}

/// A finished audit.
pub struct Outcome {
    /// The report.
    pub report: AuditReport,
    /// Its tables.
    pub tables: TableFiles,
}

/// Runs the six stages.
///
/// # Errors
/// Bad input, a runtime that cannot be had, a model that cannot be run.
pub fn run(config: &AuditConfig, around: &Surroundings<'_>) -> Result<Outcome, AuditError> {
    let started = SystemTime::now();
    let mut clock = Clock::new(around.progress);
    let Embedding {
        mut probe,
        mut old,
        mut new,
        runtime,
        bad_items,
    } = embedding::embed_timed(config, around, &mut clock)?;
    for side in [Side::Old, Side::New] {
        held_out::keep_held_out_queries(&mut probe, &mut old, &mut new, side)?;
    }

    clock.stage("structure");
    let options = StructureOptions {
        seed: config.seed,
        similarity: config.similarity,
        cut: config.credibility,
        sample: config.sample.map(NonZeroUsize::get),
        ..StructureOptions::default()
    };
    let label_free = config.policy.profile.is_label_free();
    let pseudo = label_free.then(|| structure::stand_in(&mut probe, &old.embeddings, &options));
    if probe.names_identities() {
        let gallery = probe.gallery().len();
        let assessed = options.sample.map_or(gallery, |n| n.min(gallery));
        let (dim, threads) = (old.embeddings.dim(), around.runtime.threads);
        if let Some(said) = announcement(gallery as u64, assessed as u64, dim, threads) {
            (around.notify)(&said);
        }
    }
    let structure = structure::estimate(&probe, &old.embeddings, &options);

    clock.stage("retrieve");
    let (a, b) = (&old.embeddings, &new.embeddings);
    let digests = input_digests(&old, &new);
    let search = SearchOptions {
        similarity: config.similarity,
        primary: config.policy.primary,
        seed: config.seed,
        ..SearchOptions::default()
    };
    let search = SearchOptions {
        threshold_far: config.policy.threshold_far.unwrap_or(search.threshold_far),
        ..search
    };
    let protocol = Protocol::new(&probe, digests);
    let mut totals = probe
        .names_identities()
        .then(|| structure::LogTotals::new(protocol.queries().len(), &options))
        .flatten();
    let companions = totals.as_mut().map(structure::LogTotals::visitors);
    let mut retrieval = retrieve::search_old_gallery(
        &probe,
        protocol,
        [a, b],
        &search,
        companions.unwrap_or_default(),
    )?;
    let comparable = a.dim() == b.dim();
    let kept = if probe.names_identities() {
        let keep = |item| structure.is_credible(item);
        retrieve_kept(&retrieval, a, b, config.similarity, keep)?
    } else {
        None
    };

    clock.stage("refresh");
    let queries = retrieval.protocol.query_items();
    if queries.is_empty() {
        return Err(AuditError::NothingToEvaluate {
            origin: config.data.clone(),
            queries: probe.queries().len(),
            gallery: probe.gallery().len(),
        });
    }
    let order = judge::backfill::order(&retrieval, &structure, a, b, &config.policy, config.seed);
    let planned = order.as_ref().map(|plan| &plan.order);
    let curves = retrieve::search_new_gallery(&mut retrieval, [a, b], &search, planned)?;
    let consensus = if comparable {
        let junk = |query: usize| {
            let q = queries.binary_search(&query);
            q.map_or_else(|_| Vec::new(), |q| retrieval.protocol.junk_items(q))
        };
        // Heard only if the old gallery was searched.
        let old_old = retrieval.evaluations.get(&Pairing::OLD_OLD);
        let totals = totals.as_ref().filter(|_| old_old.is_some());
        structure::consensus(
            &probe,
            &structure,
            [a, b],
            &queries,
            &junk,
            totals,
            &options,
        )
    } else {
        Vec::new()
    };
    let same_model = old.model.hash == new.model.hash
        && old.model.preprocessing_key == new.model.preprocessing_key;
    clock.stage("what-if");
    let what_if =
        retrieve::what_if::what_if(&probe, &retrieval, a, b, config.similarity, config.seed)?;
    clock.stage("judge");
    let old_file = config.old_embeddings.as_ref().unwrap_or(&config.old);
    for (side, embedded, file) in [(Side::Old, &old, old_file), (Side::New, &new, &config.new)] {
        embed::refuse_changed(embedded, file).map_err(|source| embedding::failed(side, source))?;
    }

    let evidence = Evidence::collect(
        &judge::evidence::Stages {
            probe: &probe,
            dims: [a.dim(), b.dim()],
            same_model,
            adapted: new.model.adaptation.is_some(),
            structure: &structure,
            retrieval: &retrieval,
            kept: kept.as_ref(),
            refreshed: order.as_ref().zip(curves.as_deref()),
            today: config.today,
        },
        &config.policy,
        config.seed,
    );
    let judgement = judge::judge(&evidence, &config.policy, config.today);

    let first_pass = topk::first_pass_provider().unwrap_or_else(|why| {
        (around.notify)(&format!("warning: {why}"));
        None
    });
    // Its memory is needed no longer.
    topk::first_pass_on(None);
    clock.stage("report");
    let run = RunSection {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix: started
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        stage_seconds: clock.laps,
        command: around.command.clone(),
        directory: None,
        threads: around.runtime.threads,
        runtime_library: runtime.map(|runtime| runtime.library.display().to_string()),
        first_pass,
        from_cache: [old.n_from_cache, new.n_from_cache],
        embedded: [old.n_embedded, new.n_embedded],
    };
    // As large embeddings do, large tables wait where the cache is.
    let scratch = around.embedding_cache.as_deref();
    let scratch = scratch.filter(|folder| folder.is_dir());
    let stages = Stages {
        config,
        probe: &probe,
        old: &old,
        new: &new,
        input_digests: digests,
        pseudo: pseudo.as_ref(),
        structure: &structure,
        consensus: &consensus,
        temperature: options.temperature,
        retrieval: &retrieval,
        what_if: what_if.as_ref(),
        order: order.as_ref(),
        evidence: &evidence,
        judgement,
        bad_items,
        run,
    };
    let (report, tables) = assemble(stages, scratch)?;
    Ok(Outcome { report, tables })
}

/// Multiply-adds of the structure from which on its cost is named: some minutes on two cores.
const ANNOUNCED_FROM: u64 = 1 << 44;

/// A sample is no choice to make for the user, but what may take hours is nothing to be silent about: what is said before the
/// credibility of `assessed` old embeddings, of a gallery of so many, is measured.
fn announcement(gallery: u64, assessed: u64, dim: usize, threads: usize) -> Option<String> {
    let products = assessed.saturating_mul(gallery).saturating_mul(dim as u64);
    // Two operations a multiply-add, 50 GFLOP/s a core (docs/performance.md: 76 to 88 with AVX2).
    let minutes = products / (threads.max(1) as u64 * 25_000_000_000 * 60);
    (products >= ANNOUNCED_FROM).then(|| {
        format!(
            "note: the credibility of {assessed} old embeddings compares each with {gallery}: some {} minutes; \
             `--sample N` assesses N of them",
            minutes.max(1)
        )
    })
}

/// Wall seconds of each finished stage.
struct Clock<'a> {
    progress: &'a dyn Progress,
    running: Option<(&'static str, Instant)>,
    laps: Vec<(String, f64)>,
}

impl<'a> Clock<'a> {
    fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            running: None,
            laps: Vec::new(),
        }
    }

    /// The next stage begins, and with it the last one ends.
    fn stage(&mut self, name: &'static str) {
        if let Some((last, began)) = self.running.replace((name, Instant::now())) {
            self.laps
                .push((last.to_owned(), began.elapsed().as_secs_f64()));
        }
        self.progress.stage(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_take_many_minutes_is_announced() {
        assert_eq!(announcement(200_000, 200_000, 384, 2), None);
        assert_eq!(announcement(1_000_000, 2_000, 384, 2), None);
        let said = announcement(1_000_000, 1_000_000, 384, 2).unwrap();
        assert!(said.contains("some 128 minutes; `--sample N`"), "{said}");
        assert!(announcement(u64::MAX, u64::MAX, 384, 2).is_some());
    }
}
