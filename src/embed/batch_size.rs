//! `--batch auto`: the size of a batch by a short measured search.
//!
//! A batch's size moves the last bits of an embedding, so this is never the default: a result must not depend on a clock
//! unless somebody asked for it. What was chosen is kept beside the embeddings, and a later run on the same machine takes
//! it again instead of measuring.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::EmbedError;
use super::items::{self, Batch, Plan, Row};
use super::resolve::{Inputs, Resolved};
use super::run::Task;
use super::session::OnnxModel;
use super::token_store::TokenStore;
use crate::domain::Probe;
use crate::interrupt::WholeFile;
use crate::runtime::SESSION_SETTINGS;

/// Sizes that are tried, in this order.
const SIZES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// A size is as good as the best when it is at most this share slower; the smallest such one wins, because it takes less
/// memory.
const AS_GOOD: f64 = 0.03;

/// The search ends when a size is this much slower than the best: larger ones no longer fit a cache.
const FALLEN: f64 = 0.10;

/// Time for one size, and for all.
const ONE: Duration = Duration::from_millis(60);
const ALL: Duration = Duration::from_millis(500);

/// Runs of one size at most; the fastest counts, since whatever else the machine does only slows a run down.
const RUNS: usize = 5;

/// Items looked at to find one of middling length.
const SAMPLE: usize = 15;

/// The size for a model: the one chosen by an earlier run, else the fastest now. `key` is the model, its runtime and the
/// threads.
pub fn choose(
    probe: &Probe,
    task: &Task<'_>,
    resolved: &Resolved,
    model: &mut OnnxModel,
    key: &[&str],
) -> Result<usize, EmbedError> {
    let kept = task
        .options
        .cache_dir
        .map(|folder| kept_in(folder, resolved, model, key));
    if let Some(size) = kept.as_deref().and_then(read) {
        return Ok(size);
    }
    let specs = model.inputs.clone();
    let tokens = TokenStore::default();
    let plan = Plan {
        options: task.options,
        resolved,
        specs: &specs,
        tokens: &tokens,
    };
    let Some(row) = middling(probe, task, &plan) else {
        return Ok(resolved.batch_size);
    };
    let mut batch = Batch::default();
    let size = search(|size| {
        batch.fill(&plan, &vec![&row; size]);
        let mut run = || -> Result<Duration, EmbedError> {
            let start = Instant::now();
            items::run(model, resolved, &batch, task.options, task.path)?;
            Ok(start.elapsed())
        };
        // The first run of a shape allocates its memory.
        let mut spent = run()?;
        let mut fastest = spent;
        for i in 0..RUNS {
            let took = run()?;
            fastest = if i == 0 { took } else { fastest.min(took) };
            spent += took;
            if spent > ONE {
                break;
            }
        }
        Ok::<_, EmbedError>((fastest, spent))
    })?;
    if let Some(path) = kept
        && let Err(error) = write(&path, size)
    {
        tracing::warn!("the size of a batch cannot be kept: {error}");
    }
    Ok(size)
}

/// The smallest size that is as good as the best; `measure` gives the seconds of one batch, and of all it did.
fn search<E>(
    mut measure: impl FnMut(usize) -> Result<(Duration, Duration), E>,
) -> Result<usize, E> {
    let mut rates: Vec<(usize, f64)> = Vec::new();
    let mut best = 0.0_f64;
    let mut spent = Duration::ZERO;
    for size in SIZES {
        let (one, all) = measure(size)?;
        let rate = size as f64 / one.as_secs_f64().max(1e-9);
        rates.push((size, rate));
        best = best.max(rate);
        spent += all;
        if rate < best * (1.0 - FALLEN) || spent > ALL {
            break;
        }
    }
    let good = rates
        .iter()
        .find(|(_, rate)| *rate >= best * (1.0 - AS_GOOD));
    Ok(good.map_or(1, |(size, _)| *size))
}

/// A readable item; of texts the one of middling length.
fn middling(probe: &Probe, task: &Task<'_>, plan: &Plan<'_>) -> Option<Row> {
    let step = task.wanted.len().div_ceil(SAMPLE).max(1);
    let mut rows = task.wanted.iter().step_by(step).filter_map(|&item| {
        let item = &probe.items[item];
        let raw = items::read(item, plan).ok()?;
        items::prepare(item, raw, &[plan]).pop()?.ok()
    });
    if !matches!(plan.resolved.inputs, Inputs::Text { .. }) {
        return rows.next().map(|prepared| prepared.row);
    }
    let mut rows: Vec<Row> = rows.map(|prepared| prepared.row).collect();
    rows.sort_by_key(|row| match row {
        Row::Tokens(ids) => ids.len(),
        Row::Image(_) | Row::Tensor(_) => 0,
    });
    let middle = rows.len() / 2;
    (middle < rows.len()).then(|| rows.swap_remove(middle))
}

fn kept_in(folder: &Path, resolved: &Resolved, model: &OnnxModel, key: &[&str]) -> PathBuf {
    let parts = [
        &resolved.cache_key,
        &model.provider,
        SESSION_SETTINGS,
        "batch",
    ];
    let text = [&parts, key].concat().join("\n");
    let name = blake3::hash(text.as_bytes()).to_hex();
    folder.join("embeddings").join(format!("{name}.batch"))
}

fn read(path: &Path) -> Option<usize> {
    let size = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    SIZES.contains(&size).then_some(size)
}

fn write(path: &Path, size: usize) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = WholeFile::beside(path)?;
    writeln!(file, "{size}")?;
    file.persist(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries `milliseconds` of a batch of each size in turn; the size chosen and how many were tried.
    fn searched(milliseconds: [f64; 7]) -> (usize, usize) {
        let mut tried = 0;
        let size = search(|size| {
            assert_eq!(size, SIZES[tried]);
            let one = Duration::from_secs_f64(milliseconds[tried] / 1000.0);
            tried += 1;
            Ok::<_, ()>((one, 6 * one))
        });
        (size.expect("no error"), tried)
    }

    #[test]
    fn the_smallest_of_the_fastest_wins() {
        // Rates 1, 1.33, 2, 2.67, 3.2, 3.2, 3.25: 16 is within 3 % of 64.
        let milliseconds = [1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 19.7];
        assert_eq!(searched(milliseconds), (16, 7));
        // Nothing is gained: one by one.
        assert_eq!(searched([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]).0, 1);
    }

    #[test]
    fn it_ends_when_larger_batches_are_slower_or_time_is_up() {
        // 8 at a time is 20 % slower than 4.
        assert_eq!(searched([1.0, 1.5, 2.0, 5.0, 0.1, 0.1, 0.1]), (4, 4));
        // Half a second is spent with the second size.
        assert_eq!(searched([30.0, 59.0, 1.0, 1.0, 1.0, 1.0, 1.0]), (1, 2));
    }

    #[test]
    fn what_is_kept_must_be_a_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("embeddings/x.batch");
        write(&path, 16).expect("written");
        assert_eq!(read(&path), Some(16));
        for damaged in ["", "sixteen", "0", "17"] {
            std::fs::write(&path, damaged).expect("written");
            assert_eq!(read(&path), None, "{damaged}");
        }
    }
}
