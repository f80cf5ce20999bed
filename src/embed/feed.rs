//! The workers that run ahead of the sessions: items are read, hashed, decoded and put into batches while the models run.
//!
//! Memory is bounded by the channel: one batch of a lane is filled, one waits, one runs, and one group of items is being
//! decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, SyncSender};

use rayon::prelude::*;

use super::cache::Digest;
use super::items::{self, Batch, Plan, Prepared, Raw, Row};
use crate::domain::Probe;

/// Items read and decoded at a time: enough that cores seldom wait for the last one, few enough to fit in memory.
const TOGETHER: usize = 64;

/// An item to embed.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Index into the probe's items.
    pub item: usize,
    /// What it was found to contain, where somebody has looked already.
    pub content: Option<Digest>,
    /// Which plans want it.
    pub wanted: [bool; 2],
}

/// One stream of batches, for every plan in it: they take the same tensors of the same items.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// Indices of plans.
    pub plans: Vec<usize>,
    /// Items a batch.
    pub items: usize,
    /// Rows a batch: what is missing is filled up by repeating the last item, so that an item's vector does not depend
    /// on how many others are left.
    pub rows: usize,
}

/// A batch that is ready to run.
pub struct Filled {
    /// Index of the lane.
    pub lane: usize,
    /// The model's inputs.
    pub batch: Batch,
    /// Its items, without those that only fill it up.
    pub items: Vec<Item>,
}

/// An item of a batch.
pub struct Item {
    /// What it contains.
    pub content: Digest,
    /// BLAKE3 of the decoded input.
    pub input: Digest,
    /// Whether a 16-bit image was scaled.
    pub sixteen_bit: bool,
}

/// What was learned of the items beside their embeddings, by plan.
#[derive(Debug, Default, PartialEq)]
pub struct Learned {
    /// Items and what they contain, of jobs that did not say it.
    pub contents: [Vec<(usize, Digest)>; 2],
    /// Items that cannot be read, and why.
    pub unreadable: [Vec<(usize, String)>; 2],
    /// Contents that cannot be used, and why.
    pub unusable: [BTreeMap<Digest, String>; 2],
}

/// An item that was prepared before its turn, for each plan.
pub struct Early {
    content: Digest,
    prepared: Vec<Option<Result<Prepared, String>>>,
}

/// Prepares a sample of the jobs; what cannot be read is left out, and met again in its turn.
pub fn sample<'j>(
    probe: &Probe,
    plans: &[Plan<'_>],
    jobs: impl Iterator<Item = &'j Job>,
) -> BTreeMap<usize, Early> {
    let jobs: Vec<&Job> = jobs.collect();
    let prepared = jobs.par_iter().filter_map(|job| {
        let raw = read(probe, plans, job).ok()?;
        let content = raw.content;
        let early = Early {
            content,
            prepared: prepare(probe, plans, job, raw),
        };
        Some((job.item, early))
    });
    prepared.collect()
}

impl Early {
    /// What the plan sees of it.
    pub fn of(&self, plan: usize) -> Option<&Prepared> {
        self.prepared.get(plan)?.as_ref()?.as_ref().ok()
    }
}

fn read(probe: &Probe, plans: &[Plan<'_>], job: &Job) -> Result<Raw, String> {
    let plan = plans.iter().zip(job.wanted).find(|(_, wanted)| *wanted);
    let (plan, _) = plan.ok_or("no model wants the item")?;
    let raw = items::read(&probe.items[job.item], plan)?;
    match job.content {
        // Kept under its old content, the new one's embedding would be found for other items.
        Some(content) if content != raw.content => Err("the file changed while it was read".into()),
        _ => Ok(raw),
    }
}

/// One outcome a plan; `None` where it does not want the item.
fn prepare(
    probe: &Probe,
    plans: &[Plan<'_>],
    job: &Job,
    raw: Raw,
) -> Vec<Option<Result<Prepared, String>>> {
    let wanting: Vec<&Plan<'_>> = plans
        .iter()
        .zip(job.wanted)
        .filter_map(|(plan, wanted)| wanted.then_some(plan))
        .collect();
    if wanting.is_empty() {
        return plans.iter().map(|_| None).collect();
    }
    let mut outcomes = items::prepare(&probe.items[job.item], raw, &wanting).into_iter();
    plans
        .iter()
        .zip(job.wanted)
        .map(|(_, wanted)| wanted.then(|| outcomes.next()).flatten())
        .collect()
}

/// The workers' side of the channel.
pub struct Feed<'a> {
    /// The probe.
    pub probe: &'a Probe,
    /// The plans.
    pub plans: &'a [Plan<'a>],
    /// Every plan is in one lane.
    pub lanes: &'a [Lane],
    /// Items that are prepared already.
    pub early: BTreeMap<usize, Early>,
    /// Hears of items that come to no batch.
    pub done: &'a (dyn Fn(u64) + Sync),
}

/// Items that wait for a lane's next batch.
type Waiting = Vec<(Digest, Prepared)>;

impl Feed<'_> {
    /// Works through the jobs in their order and sends batches until all are sent or nobody listens any more. Batches
    /// that come back through `spare` are filled again.
    pub fn run(
        mut self,
        jobs: &[Job],
        sender: &SyncSender<Filled>,
        spare: &Receiver<(usize, Batch)>,
    ) -> Learned {
        let mut learned = Learned::default();
        let mut seen: [BTreeSet<Digest>; 2] = Default::default();
        let mut waiting: Vec<Waiting> = self.lanes.iter().map(|_| Vec::new()).collect();
        let mut pools: Vec<Vec<Batch>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for group in jobs.chunks(TOGETHER) {
            for prepared in self.group(group, &mut learned, &mut seen) {
                for (plan, outcome) in prepared.into_iter().enumerate() {
                    match outcome {
                        None => {}
                        Some((content, Err(error))) => {
                            learned.unusable[plan].insert(content, error);
                            (self.done)(1);
                        }
                        Some((content, Ok(prepared))) => {
                            // The first plan of a lane stands for all of it.
                            let lane = |lane: &Lane| lane.plans.first() == Some(&plan);
                            if let Some(lane) = self.lanes.iter().position(lane) {
                                waiting[lane].push((content, prepared));
                            }
                        }
                    }
                }
            }
            for (lane, waiting) in waiting.iter_mut().enumerate() {
                while waiting.len() >= self.lanes[lane].items {
                    let rest = waiting.split_off(self.lanes[lane].items);
                    let batch = std::mem::replace(waiting, rest);
                    if !self.send(lane, batch, sender, spare, &mut pools) {
                        return learned;
                    }
                }
            }
        }
        for (lane, waiting) in waiting.into_iter().enumerate() {
            if !waiting.is_empty() && !self.send(lane, waiting, sender, spare, &mut pools) {
                break;
            }
        }
        learned
    }

    /// Reads and decodes a group; contents that a plan has met before are not prepared for it again.
    #[expect(
        clippy::type_complexity,
        reason = "the outcome of each plan of each job"
    )]
    fn group(
        &mut self,
        group: &[Job],
        learned: &mut Learned,
        seen: &mut [BTreeSet<Digest>; 2],
    ) -> Vec<Vec<Option<(Digest, Result<Prepared, String>)>>> {
        let (probe, plans) = (self.probe, self.plans);
        let early: Vec<Option<Early>> = group
            .iter()
            .map(|job| self.early.remove(&job.item))
            .collect();
        let raw: Vec<Result<Option<Raw>, String>> = group
            .par_iter()
            .zip(&early)
            .map(|(job, early)| match early {
                Some(_) => Ok(None),
                None => read(probe, plans, job).map(Some),
            })
            .collect();
        let mut todo = Vec::with_capacity(group.len());
        for ((mut job, early), raw) in group.iter().copied().zip(early).zip(raw) {
            let content = match (&early, &raw) {
                (Some(early), _) => early.content,
                (None, Ok(Some(raw))) => raw.content,
                (None, Ok(None)) => continue,
                (None, Err(error)) => {
                    for plan in (0..plans.len()).filter(|&plan| job.wanted[plan]) {
                        match job.content {
                            // Others with this content are as unreadable.
                            Some(content) => {
                                learned.unusable[plan].insert(content, error.clone());
                            }
                            None => learned.unreadable[plan].push((job.item, error.clone())),
                        }
                        (self.done)(1);
                    }
                    continue;
                }
            };
            let plans = job.wanted.iter_mut().zip(seen.iter_mut());
            for ((wanted, seen), contents) in plans.zip(&mut learned.contents) {
                if !*wanted {
                    continue;
                }
                if job.content.is_none() {
                    contents.push((job.item, content));
                }
                if !seen.insert(content) {
                    *wanted = false;
                    (self.done)(1);
                }
            }
            todo.push((job, content, early, raw.ok().flatten()));
        }
        todo.into_par_iter()
            .map(|(job, content, early, raw)| {
                let prepared = match (early, raw) {
                    (Some(early), _) => early.prepared,
                    (None, Some(raw)) => prepare(probe, plans, &job, raw),
                    (None, None) => Vec::new(),
                };
                prepared
                    .into_iter()
                    .zip(job.wanted)
                    .map(|(outcome, wanted)| {
                        let outcome = outcome.filter(|_| wanted)?;
                        Some((content, outcome))
                    })
                    .collect()
            })
            .collect()
    }

    /// Fills a batch and sends it; false when nobody listens any more.
    fn send(
        &self,
        lane: usize,
        items: Waiting,
        sender: &SyncSender<Filled>,
        spare: &Receiver<(usize, Batch)>,
        pools: &mut [Vec<Batch>],
    ) -> bool {
        for (lane, batch) in spare.try_iter() {
            pools[lane].push(batch);
        }
        let Lane { plans, rows, .. } = &self.lanes[lane];
        let mut filled: Vec<&Row> = items.iter().map(|(_, prepared)| &prepared.row).collect();
        filled.resize(*rows, filled[filled.len() - 1]);
        let mut batch = pools[lane].pop().unwrap_or_default();
        batch.fill(&self.plans[plans[0]], &filled);
        let items = items
            .iter()
            .map(|(content, prepared)| Item {
                content: *content,
                input: prepared.input,
                sixteen_bit: prepared.sixteen_bit,
            })
            .collect();
        let filled = Filled { lane, batch, items };
        sender.send(filled).is_ok()
    }
}
