//! Models over a probe: what the caches lack is prepared once for all of them and embedded, batch by batch.
//!
//! One thread runs the sessions in turn, so that two models never compete for the cores: each session has the threads
//! of the whole run, asleep while it is not its turn. The workers of `feed` fill the next batches meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::batch_size;
use super::cache::Digest;
use super::feed::{self, Early, Feed, Filled, Job, Lane, Learned};
use super::items::{self, Plan, Row};
use super::one::Run;
use super::resolve::{self, Inputs};
use super::token_store::TokenStore;
use super::{EmbedError, EmbedOptions, Embedded, open_model};
use crate::domain::{Probe, Progress};
use crate::runtime::Runtime;

/// Items that are embedded alone and in a batch to see whether it matters.
const BATCH_SAMPLE: usize = 8;

/// One model and the items it is wanted for.
pub struct Task<'a> {
    /// The model.
    pub path: &'a Path,
    /// The side's options.
    pub options: &'a EmbedOptions<'a>,
    /// Indices of items, rising.
    pub wanted: &'a [usize],
}

/// Embeds the `wanted` items (indices into the probe's, rising) with a model; the others have no row. `tokens` are those that
/// another model's tokenizer made of the same texts.
///
/// # Errors
/// A model that cannot be opened or run, too many unreadable items, embeddings that no metric can use.
pub fn embed(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
    wanted: &[usize],
    tokens: &mut TokenStore,
) -> Result<Embedded, EmbedError> {
    let task = Task {
        path,
        options,
        wanted,
    };
    let mut embedded =
        embed_all(probe, &[task], runtime, progress, tokens).map_err(|(_, error)| error)?;
    Ok(embedded.pop().expect("one for the one task"))
}

/// Runs one model, or two whose items are read and decoded once for both.
///
/// # Errors
/// As [`embed`], with the index of the task.
pub fn embed_all(
    probe: &Probe,
    tasks: &[Task<'_>],
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
    tokens: &mut TokenStore,
) -> Result<Vec<Embedded>, (usize, EmbedError)> {
    let mut parts = Vec::with_capacity(tasks.len());
    for (i, task) in tasks.iter().enumerate() {
        let failed = |error| (i, error);
        let (file, mut model) = open_model(task.path, runtime).map_err(failed)?;
        let mut resolved =
            resolve::resolve(probe, task.path, &model, task.options).map_err(failed)?;
        let version = runtime.map_or_else(String::new, |runtime| runtime.version.clone());
        let specs = model.inputs.clone();
        if resolved.measure_batch {
            let threads = runtime.map_or(0, |runtime| runtime.threads);
            let size = batch_size::choose(
                probe,
                task,
                &resolved,
                &mut model,
                &[&file.hash, &version, &threads.to_string()],
            )
            .map_err(failed)?;
            resolved.set_batch_size(size);
        }
        parts.push((resolved, specs, Some((file, model, version))));
    }
    let mut runs: Vec<Run<'_>> = parts
        .iter_mut()
        .zip(tasks)
        .map(|((resolved, specs, rest), task)| {
            let (file, model, version) = rest.take().expect("set above");
            Run::new(probe, task, resolved, specs, file, model, version)
        })
        .collect();
    let outcome = embed_missing(&mut runs, progress, tokens);
    // What was embedded before an error is kept too.
    for run in &mut runs {
        if let Err(error) = run.cache.save() {
            let folder = run.options.cache_dir.unwrap_or(Path::new("")).display();
            run.not_kept = Some(format!(
                "{folder}: embeddings cannot be kept for the next run: {error}"
            ));
        }
    }
    outcome?;
    for (i, run) in runs.iter_mut().enumerate() {
        run.refuse_too_many_bad_items()
            .map_err(|error| (i, error))?;
    }
    runs.into_iter()
        .enumerate()
        .map(|(i, run)| run.finish().map_err(|error| (i, error)))
        .collect()
}

/// Embeds what the caches lack; items of one content once.
fn embed_missing(
    runs: &mut [Run<'_>],
    progress: &dyn Progress,
    tokens: &mut TokenStore,
) -> Result<(), (usize, EmbedError)> {
    let images = runs
        .iter()
        .all(|run| matches!(run.resolved.inputs, Inputs::Image { .. }));
    // With nothing kept, all files are to be decoded, and hashing them on the way saves reading them twice.
    let mut jobs = if images && runs.iter().all(|run| run.cache.is_empty()) {
        all_wanted(runs)
    } else {
        look_at(runs, images);
        let missing: Vec<Vec<(usize, Digest)>> = runs
            .iter_mut()
            .map(|run| {
                let missing = run.missing();
                run.by_length(missing, tokens)
            })
            .collect();
        merged(&missing)
    };
    if jobs.is_empty() {
        return Ok(());
    }
    let specs = runs
        .iter()
        .map(|run| (run.options, run.resolved, run.specs));
    let plans: Vec<Plan<'_>> = specs
        .map(|(options, resolved, specs)| Plan {
            options,
            resolved,
            specs,
            tokens,
        })
        .collect();
    let before: Vec<Option<bool>> = runs.iter().map(|run| run.cache.batch_dependent).collect();
    let early = try_batches(runs, &plans, &jobs)?;
    let mut is_forgotten = false;
    for (run, before) in runs.iter_mut().zip(before) {
        if run.cache.batch_dependent != before
            && run.cache.batch_dependent == Some(true)
            && !run.cache.is_empty()
        {
            // What was kept was made in batches that hid it.
            run.cache.forget();
            is_forgotten = true;
        }
    }
    if is_forgotten {
        let missing: Vec<_> = runs.iter_mut().map(Run::missing_again).collect();
        jobs = merged(&missing);
    }
    let label = match runs {
        [run] => format!("embedding, {} model", run.options.side),
        _ => "embedding, both models".into(),
    };
    let total: usize = jobs
        .iter()
        .map(|job| job.wanted.iter().filter(|&&wanted| wanted).count())
        .sum();
    progress.start(&label, total as u64);
    let outcome = embed_jobs(runs, &plans, &jobs, early, progress);
    progress.finish();
    outcome
}

/// Every wanted item, its content unknown.
fn all_wanted(runs: &[Run<'_>]) -> Vec<Job> {
    let mut wanted: BTreeMap<usize, [bool; 2]> = BTreeMap::new();
    for (i, run) in runs.iter().enumerate() {
        for &item in run.wanted {
            wanted.entry(item).or_default()[i] = true;
        }
    }
    let job = |(item, wanted)| Job {
        item,
        content: None,
        wanted,
    };
    wanted.into_iter().map(job).collect()
}

/// Finds what each item contains; a file is read once for all models of images.
fn look_at(runs: &mut [Run<'_>], images: bool) {
    if !images {
        for run in runs {
            let found = contents(run, run.wanted);
            run.learn_contents(&found);
        }
        return;
    }
    let items: Vec<usize> = all_wanted(runs).iter().map(|job| job.item).collect();
    let found = contents(&runs[0], &items);
    for run in runs {
        run.learn_contents(&found);
    }
}

fn contents(run: &Run<'_>, items: &[usize]) -> BTreeMap<usize, Result<Digest, String>> {
    let none = TokenStore::default();
    let plan = run.plan(&none);
    let digests = items.par_iter().map(|&item| {
        let raw = items::read(&run.probe.items[item], &plan);
        (item, raw.map(|raw| raw.content))
    });
    digests.collect()
}

/// The jobs of all runs, an item that both lack once, in the order of the first run that lacks it.
fn merged(missing: &[Vec<(usize, Digest)>]) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut of_item: BTreeMap<usize, usize> = BTreeMap::new();
    for (i, missing) in missing.iter().enumerate() {
        for &(item, content) in missing {
            let job = *of_item.entry(item).or_insert_with(|| {
                jobs.push(Job {
                    item,
                    content: Some(content),
                    wanted: [false; 2],
                });
                jobs.len() - 1
            });
            jobs[job].wanted[i] = true;
        }
    }
    if missing.len() > 1 {
        jobs.sort_by_key(|job| job.item);
    }
    jobs
}

fn embed_jobs(
    runs: &mut [Run<'_>],
    plans: &[Plan<'_>],
    jobs: &[Job],
    early: BTreeMap<usize, Early>,
    progress: &dyn Progress,
) -> Result<(), (usize, EmbedError)> {
    let lanes = lanes(runs, jobs);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Filled>(1);
    let (give_back, spare) = std::sync::mpsc::channel();
    let done = |n| progress.advance(n);
    let feed = Feed {
        probe: runs[0].probe,
        plans,
        lanes: &lanes,
        early,
        done: &done,
    };
    let (outcome, learned) = std::thread::scope(|scope| {
        let workers = scope.spawn(move || feed.run(jobs, &sender, &spare));
        let mut outcome = Ok(());
        for filled in &receiver {
            outcome = lanes[filled.lane].plans.iter().try_for_each(|&i| {
                runs[i]
                    .embed_batch(&filled, jobs.len())
                    .map_err(|error| (i, error))?;
                progress.advance(filled.items.len() as u64);
                Ok(())
            });
            if outcome.is_err() {
                break;
            }
            // The workers are gone after their last batch.
            let _ = give_back.send((filled.lane, filled.batch));
        }
        drop(receiver);
        match workers.join() {
            Ok(learned) => (outcome, learned),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let Learned {
        contents,
        unreadable,
        unusable,
    } = learned;
    let learned = contents.into_iter().zip(unreadable).zip(unusable);
    for (run, ((contents, unreadable), unusable)) in runs.iter_mut().zip(learned) {
        run.n_embedded += contents.len();
        run.contents.extend(contents);
        for (item, error) in unreadable {
            run.bad(item, error);
        }
        let unusable: Vec<(usize, String)> = run
            .contents
            .iter()
            .filter_map(|(&item, content)| Some((item, unusable.get(content)?.clone())))
            .collect();
        run.n_embedded -= unusable.len();
        for (item, error) in unusable {
            run.bad(item, error);
        }
    }
    outcome
}

/// Two models that take the same tensors of the same items in batches of one size share a lane.
fn lanes(runs: &[Run<'_>], jobs: &[Job]) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let (items, rows) = run.batch_sizes();
        let same = |lane: &Lane| {
            let first = lane.plans[0];
            (lane.items, lane.rows) == (items, rows)
                && runs[first].resolved.inputs.alike(&run.resolved.inputs)
                && jobs.iter().all(|job| job.wanted[first] == job.wanted[i])
        };
        match lanes.iter_mut().find(|lane| same(lane)) {
            Some(lane) => lane.plans.push(i),
            None => lanes.push(Lane {
                plans: vec![i],
                items,
                rows,
            }),
        }
    }
    lanes
}

/// Finds out of each model that runs, but for those known to, whether the batch changes its vectors; returns the items that were
/// prepared for it. What an earlier probe did not show, such as one of equal texts, this one may.
fn try_batches(
    runs: &mut [Run<'_>],
    plans: &[Plan<'_>],
    jobs: &[Job],
) -> Result<BTreeMap<usize, Early>, (usize, EmbedError)> {
    let untried =
        |run: &Run<'_>| run.cache.batch_dependent != Some(true) && run.resolved.batch_size > 1;
    let probe = runs[0].probe;
    let length = |at: &usize| probe.items[jobs[*at].item].text().map_or(0, str::len);
    let samples: Vec<Vec<usize>> = runs
        .iter()
        .enumerate()
        .map(|(i, run)| {
            let wanted: Vec<usize> = jobs
                .iter()
                .enumerate()
                .filter(|(_, job)| untried(run) && job.wanted[i])
                .map(|(at, _)| at)
                .collect();
            // Evenly spread, with the longest text and the shortest: what is padded most.
            let step = wanted.len().div_ceil(BATCH_SAMPLE).max(1);
            let of_texts = matches!(run.resolved.inputs, Inputs::Text { .. });
            let ends = [
                wanted.iter().copied().min_by_key(length),
                wanted.iter().copied().max_by_key(length),
            ];
            let ends = ends.into_iter().flatten().filter(|_| of_texts);
            let spread = wanted.iter().copied().step_by(step);
            let mut sample: Vec<usize> = spread.chain(ends).collect();
            sample.sort_unstable();
            sample.dedup();
            sample
        })
        .collect();
    let mut all: Vec<usize> = samples.iter().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    let early = feed::sample(runs[0].probe, plans, all.iter().map(|&at| &jobs[at]));
    for (i, run) in runs.iter_mut().enumerate() {
        let rows: Vec<&Row> = samples[i]
            .iter()
            .filter_map(|&at| Some(&early.get(&jobs[at].item)?.of(i)?.row))
            .collect();
        if rows.len() >= 2 {
            run.cache.batch_dependent = Some(
                run.depends_on_the_batch(&plans[i], &rows)
                    .map_err(|error| (i, error))?,
            );
        }
    }
    Ok(early)
}
