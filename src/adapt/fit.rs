//! Fits heads, and chooses one on units that none of them has seen.

use std::path::PathBuf;

use ndarray::{Array2, Axis};

use super::AdaptError;
use super::checkpoint::Checkpoint;
use super::head::{Head, HeadKind};
use super::nccl::{Objective, Pairs};
use super::trainer::{Trainer, Training};
use super::trial::{Quality, Trial};
use crate::domain::{Embeddings, Item, Probe, Progress, Role};
use crate::retrieve::closed_form::{orthogonal, ridge, rows, thin_out};
use crate::stats::mean;
use crate::structure::{self, StructureOptions};

/// Items that a head is fitted on, at most, evenly spread: a linear head of 1,024 dimensions has a million weights and
/// sees twenty million values.
const FIT_ITEMS: usize = 20_000;

/// Old embeddings that a pair is held against, at most, and pairs a block.
const REFERENCE: usize = 4096;
const BLOCK: usize = 1024;

/// Ridges that are tried, as shares of the mean eigenvalue.
const RIDGES: [f64; 4] = [0.01, 0.1, 0.3, 1.0];

/// Steps between two looks at the validation.
const LOOK: usize = 10;

/// Looks without a gain after which a training ends.
const PATIENCE: usize = 4;

/// Steps of a training, at most.
const STEPS: usize = 300;

/// The most that new->new may fall on the validation.
pub const FALL: f64 = 0.01;

/// Which old embeddings are learnt from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filter {
    /// All of them.
    All,
    /// Those that the structure of the old space calls credible: NCCL's own idea. It also drops what is merely hard, and an
    /// item whose pair is there need not be judged by its neighbours.
    OldSpace,
    /// Those that agree with their pair: mapped by least squares, the item's new embedding has its own old embedding among
    /// this share of the nearest. Scale-free, and least squares over many pairs bear a fifth of bad ones.
    Agreement(f64),
}

impl Default for Filter {
    fn default() -> Self {
        Self::Agreement(0.05)
    }
}

/// What heads are fitted on: the wanted items with both embeddings, their sub-clusters and their credibility, estimated
/// from these items alone.
///
/// # Errors
/// [`AdaptError::NoMap`].
pub fn pairs(
    probe: &Probe,
    [old, new]: [&Embeddings; 2],
    wanted: impl Fn(usize) -> bool,
    filter: Filter,
    options: &StructureOptions,
) -> Result<Pairs, AdaptError> {
    let is_usable = |&item: &usize| {
        wanted(item) && probe.items[item].identity.is_some() && old.has(item) && new.has(item)
    };
    let mut items: Vec<usize> = (0..probe.items.len()).filter(is_usable).collect();
    thin_out(&mut items, FIT_ITEMS);
    let mut keep = vec![false; probe.items.len()];
    items.iter().for_each(|&item| keep[item] = true);
    let mut part = probe.clone();
    part.retain(&keep);
    // All of them are old embeddings that the structure is read off, queries too.
    part.items
        .iter_mut()
        .for_each(|item| item.role = Role::Both);
    let mut part_old = old.clone();
    part_old.retain(&keep);
    let by_identity = probe.splits_by_identity();
    // What nobody searches for is often many things under one name.
    let mut is_sought = vec![false; probe.identities.len()];
    let queries = probe.items.iter().filter(|item| item.role.is_query());
    queries
        .filter_map(|item| item.identity.get())
        .for_each(|identity| is_sought[identity as usize] = true);
    let identity = |(row, item): (usize, &Item)| match item.identity.get() {
        Some(identity) if is_sought[identity as usize] => identity,
        _ => (probe.identities.len() + row) as u32,
    };
    let identities = by_identity.then(|| part.items.iter().enumerate().map(identity).collect());
    if !by_identity {
        part.qrels = None;
        structure::stand_in(&mut part, &part_old, options);
    }
    let found = structure::estimate(&part, &part_old, options);
    let to_f32 = |values: Array2<f64>| values.mapv(|v| v as f32);
    let mut pairs = Pairs {
        new: to_f32(rows(new, &items)),
        old: to_f32(rows(old, &items)),
        identity: identities,
        subcluster: (0..items.len())
            .map(|item| found.subcluster_of(item))
            .collect(),
        credible: vec![true; items.len()],
    };
    match filter {
        Filter::All => {}
        Filter::OldSpace => {
            pairs.credible = (0..items.len())
                .map(|item| found.is_credible(item))
                .collect();
        }
        Filter::Agreement(share) => {
            let head = start(&pairs)?;
            pairs.credible = agree(&pairs, &head, share);
        }
    }
    Ok(pairs)
}

/// Whether each item's own old embedding is among the `share` of the old embeddings nearest to its head.
fn agree(pairs: &Pairs, head: &Head, share: f64) -> Vec<bool> {
    let n = pairs.old.nrows();
    let mut reference: Vec<usize> = (0..n).collect();
    thin_out(&mut reference, REFERENCE);
    let reference = pairs.old.select(Axis(0), &reference);
    let most = share * reference.nrows() as f64;
    let blocks = pairs.new.axis_chunks_iter(Axis(0), BLOCK);
    let own = pairs.old.axis_chunks_iter(Axis(0), BLOCK);
    let mut credible = Vec::with_capacity(n);
    for (new, own) in blocks.zip(own) {
        // Lengths do not matter: a row is compared with itself.
        let mapped = head.apply(new);
        let scores = mapped.dot(&reference.t());
        for ((h, own), scores) in mapped.rows().into_iter().zip(own.rows()).zip(scores.rows()) {
            let own = h.dot(&own);
            let nearer = scores.iter().filter(|&&score| score > own).count();
            credible.push(nearer as f64 <= most);
        }
    }
    credible
}

/// A head and what it does on the validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The head, fitted on the fit part alone.
    pub head: Head,
    /// Steps it was trained for.
    pub steps: usize,
    /// Mean of head(new)->old.
    pub new_old: f64,
    /// Mean of head(new)->head(new).
    pub new_new: f64,
}

/// The queries that choose.
pub struct Validation<'a> {
    /// Fit and validation units; nothing of the test.
    pub trial: &'a Trial<'a>,
    /// Its queries of validation units.
    pub queries: &'a [usize],
}

impl Validation<'_> {
    fn candidate(&self, head: Head, steps: usize) -> Result<Candidate, AdaptError> {
        let Quality { new_old, new_new } = self.trial.quality(&head, self.queries)?;
        Ok(Candidate {
            head,
            steps,
            new_old: mean(&new_old),
            new_new: mean(&new_new),
        })
    }
}

/// The start of every training.
///
/// # Errors
/// [`AdaptError::NoMap`].
pub fn start(pairs: &Pairs) -> Result<Head, AdaptError> {
    let [from, to] = [&pairs.new, &pairs.old].map(|m| m.mapv(f64::from));
    let found = orthogonal(&from, &to);
    let weights = found.ok_or(AdaptError::NoMap {
        items: from.nrows(),
    })?;
    Ok(Head::linear(HeadKind::Orthogonal, &weights))
}

/// The heads that least squares give: the orthogonal one first, then one a ridge.
///
/// # Errors
/// [`AdaptError::NoMap`], and [`AdaptError::Trial`].
pub fn closed_forms(
    pairs: &Pairs,
    validation: &Validation<'_>,
) -> Result<Vec<Candidate>, AdaptError> {
    let [from, to] = [&pairs.new, &pairs.old].map(|m| m.mapv(f64::from));
    let mut candidates = vec![validation.candidate(start(pairs)?, 0)?];
    for share in RIDGES {
        if let Some(weights) = ridge(&from, &to, share) {
            let head = Head::linear(HeadKind::Ridge(share), &weights);
            candidates.push(validation.candidate(head, 0)?);
        }
    }
    Ok(candidates)
}

/// Trains from the orthogonal map until the validation gains no more; the candidate is the best head seen, which may be the
/// start itself.
///
/// # Errors
/// candle's, and [`AdaptError::Trial`].
pub fn train(
    pairs: &Pairs,
    objective: Objective,
    training: Training,
    validation: &Validation<'_>,
    resume: Option<&Resume>,
    progress: &dyn Progress,
) -> Result<Candidate, AdaptError> {
    let mut trainer = Trainer::new(pairs, &start(pairs)?, objective, training)?;
    let look = |trainer: &Trainer<'_>| validation.candidate(trainer.head()?, trainer.steps());
    let found = resume.and_then(Resume::read);
    let (mut trace, mut best, mut best_state);
    if let Some(found) = found {
        let best_steps = best_of(&found.trace) * LOOK;
        trainer.restore(best_steps, &found.best)?;
        best = look(&trainer)?;
        trainer.restore(found.steps, &found.state)?;
        (trace, best_state) = (found.trace, found.best);
    } else {
        best = look(&trainer)?;
        (trace, best_state) = (vec![best.new_old], trainer.state()?.1);
    }
    progress.start("training the head", STEPS as u64);
    progress.advance(trainer.steps() as u64);
    while trainer.steps() < STEPS && trace.len() - 1 - best_of(&trace) < PATIENCE {
        let mut losses = trainer.step()?;
        for _ in 1..LOOK {
            losses = trainer.step()?;
        }
        let now = look(&trainer)?;
        trace.push(now.new_old);
        progress.say(&format!(
            "{} {:.4}, best {:.4}; L_emb {:.3}, L_dis {:.3}, L_keep {:.3}",
            validation.trial.primary(),
            now.new_old,
            best.new_old.max(now.new_old),
            losses.embedding,
            losses.discrimination,
            losses.keep,
        ));
        if now.new_old > best.new_old {
            (best, best_state) = (now, trainer.state()?.1);
        }
        if let Some(resume) = resume {
            let (steps, state) = trainer.state()?;
            resume.write(steps, &trace, state, best_state.clone())?;
        }
        progress.advance(LOOK as u64);
    }
    progress.finish();
    Ok(best)
}

/// The first of the best.
fn best_of(trace: &[f64]) -> usize {
    let mut best = 0;
    for (look, value) in trace.iter().enumerate() {
        if *value > trace[best] {
            best = look;
        }
    }
    best
}

/// Fits a head of the chosen kind again on more pairs: what was learnt is how, not the weights.
///
/// # Errors
/// [`AdaptError::NoMap`], candle's.
pub fn refit(
    chosen: &Candidate,
    pairs: &Pairs,
    objective: Objective,
    training: Training,
) -> Result<Head, AdaptError> {
    match chosen.head.kind {
        HeadKind::Orthogonal => start(pairs),
        HeadKind::Ridge(share) => {
            let [from, to] = [&pairs.new, &pairs.old].map(|m| m.mapv(f64::from));
            let weights = ridge(&from, &to, share);
            let weights = weights.ok_or(AdaptError::NoMap {
                items: from.nrows(),
            })?;
            Ok(Head::linear(chosen.head.kind, &weights))
        }
        // Not trained at all: the validation wanted the start.
        HeadKind::Linear | HeadKind::Mlp if chosen.steps == 0 => start(pairs),
        HeadKind::Linear | HeadKind::Mlp => {
            let mut trainer = Trainer::new(pairs, &start(pairs)?, objective, training)?;
            for _ in 0..chosen.steps {
                trainer.step()?;
            }
            Ok(trainer.head()?)
        }
    }
}

/// The best on new->old among those whose new->new falls by no more than [`FALL`] from `new_new`; where none does, the one
/// that falls least. Of equal ones the first: a trained head must do better than least squares.
pub fn choose(candidates: &[Candidate], new_new: f64) -> usize {
    let holds = |candidate: &Candidate| candidate.new_new >= new_new - FALL;
    let better = |a: &Candidate, b: &Candidate| match (holds(a), holds(b)) {
        (true, true) => a.new_old > b.new_old,
        (false, false) => a.new_new > b.new_new,
        (a, _) => a,
    };
    let mut best = 0;
    for (index, candidate) in candidates.iter().enumerate() {
        if better(candidate, &candidates[best]) {
            best = index;
        }
    }
    best
}

/// Where a training is written down as it goes, and which one it is.
pub struct Resume {
    /// The checkpoint's file.
    pub path: PathBuf,
    /// BLAKE3 over all that the training hangs on, hex.
    pub fingerprint: String,
}

impl Resume {
    /// What was written down of this very training.
    pub fn read(&self) -> Option<Checkpoint> {
        Checkpoint::read(&self.path, &self.fingerprint)
    }

    fn write(
        &self,
        steps: usize,
        trace: &[f64],
        state: Vec<Vec<f32>>,
        best: Vec<Vec<f32>>,
    ) -> Result<(), AdaptError> {
        Checkpoint::new(self.fingerprint.clone(), steps, trace.to_vec(), state, best)
            .write(&self.path)
            .map_err(|source| AdaptError::Io {
                path: self.path.clone(),
                action: "write",
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn candidate(new_old: f64, new_new: f64) -> Candidate {
        Candidate {
            head: Head::linear(HeadKind::Orthogonal, &Array2::eye(2)),
            steps: 0,
            new_old,
            new_new,
        }
    }

    #[test]
    fn the_best_that_keeps_its_own_search_is_chosen() {
        let choose = |list: &[(f64, f64)]| {
            let candidates: Vec<_> = list.iter().map(|&(a, b)| candidate(a, b)).collect();
            super::choose(&candidates, 0.6)
        };
        assert_eq!(choose(&[(0.4, 0.6), (0.5, 0.595), (0.6, 0.5)]), 1);
        assert_eq!(
            choose(&[(0.4, 0.6), (0.4, 0.7)]),
            0,
            "of equal ones the first"
        );
        assert_eq!(
            choose(&[(0.9, 0.3), (0.1, 0.5), (0.5, 0.4)]),
            1,
            "none keeps it"
        );
        assert_eq!(choose(&[(0.9, 0.3), (0.1, 0.6)]), 1);
    }

    #[test]
    fn the_best_look_is_the_first_of_the_best() {
        assert_eq!(best_of(&[0.1, 0.3, 0.2, 0.3]), 1);
        assert_eq!(best_of(&[0.1]), 0);
    }

    #[test]
    fn corrupted_pairs_are_found_by_their_disagreement() {
        let (n, d) = (400, 16);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let mut draw = |rows| Array2::from_shape_fn((rows, d), |_| rng.gen_range(-1.0_f32..1.0));
        let (new, noise, other) = (draw(n), draw(n), draw(n));
        // The old space is the new one with its axes turned round, and some noise; a fifth is something else.
        let mut old = new.slice(ndarray::s![.., ..;-1]).to_owned() + noise * 0.4;
        let is_bad = |row: usize| row.is_multiple_of(5);
        for row in (0..n).filter(|&row| is_bad(row)) {
            old.row_mut(row).assign(&other.row(row));
        }
        let unit = |mut m: Array2<f32>| {
            for mut row in m.rows_mut() {
                let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                row /= length;
            }
            m
        };
        let pairs = Pairs {
            new: unit(new),
            old: unit(old),
            identity: None,
            subcluster: vec![Some(0); n],
            credible: vec![true; n],
        };
        let credible = agree(&pairs, &start(&pairs).expect("a map"), 0.05);
        let found = (0..n).filter(|&row| is_bad(row) && !credible[row]).count();
        let wronged = (0..n).filter(|&row| !is_bad(row) && !credible[row]).count();
        assert!(
            found >= 70 && wronged <= 4,
            "{found} of 80 found, {wronged} of 320 wronged"
        );
    }

    #[test]
    fn sub_clusters_are_found_with_labels_and_without() {
        use super::super::split::tests::probe;
        use crate::domain::Reference;

        let (identities, dim) = (40, 8);
        let mut probe = probe(identities);
        let n = probe.items.len();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
        let mut draw = |rows| Array2::from_shape_fn((rows, dim), |_| rng.gen_range(-1.0_f32..1.0));
        // Item i is of identity i modulo their number, as the probe has it.
        let (centres, noise) = (draw(identities), draw(n));
        let rows = noise * 0.1 + ndarray::concatenate![Axis(0), centres, centres, centres];
        let items = (0..n as u32).map(Some).collect();
        let old = Embeddings::new(rows, items, true).expect("finite");
        let options = StructureOptions::default();
        let mut found = |reference| {
            probe.reference = reference;
            pairs(&probe, [&old, &old], |_| true, Filter::All, &options).expect("pairs")
        };
        let [labelled, unlabelled] = [Reference::Labels, Reference::OldModel].map(&mut found);
        assert_eq!(labelled.new.nrows(), n - 1, "junk is not learnt from");
        assert!(labelled.identity.is_some() && unlabelled.identity.is_none());
        for pairs in [labelled, unlabelled] {
            // Two of one identity share a sub-cluster more often than not; of two identities never.
            let distinct: std::collections::BTreeSet<_> = pairs.subcluster.iter().collect();
            assert!(
                (identities / 2..=2 * identities).contains(&distinct.len()),
                "{}",
                distinct.len()
            );
        }
    }
}
