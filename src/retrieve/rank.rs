//! From a query's scores to the ranks of its relevant items and its top hits.
//!
//! The relevant items' own scores are known before the pass ([`RankSet::new`]), so ranks need no sorting: the pass
//! counts the non-relevant items at or above each of them (`docs/METRICS.md`, section 2).

use rayon::prelude::*;

use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, QueryScan, ScoreOverflow, Visitor, scan, score_some};

use super::counts::{Mask, ThresholdCounts};
use super::protocol::QueryProtocol;
use super::search::{Companion, Companions};
use super::verification::bounds::Bounds;
use super::verification::pooled::{PooledCounts, PooledTotal};
use super::verification::sorted;
use super::verification::steps::{StepCounts, Steps};
use super::verification::tail::Windows;

/// How many hits a ranking keeps; the largest k of the overlap measures.
pub const TOP: usize = 100;

/// One query's ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// The relevant items, best first; never empty.
    pub relevant: Vec<RankedRelevant>,
    /// The best [`TOP`] non-junk gallery items by (score descending, position ascending).
    pub top: Vec<Hit>,
    /// Gallery items that are not junk.
    pub n_candidates: usize,
}

/// One relevant item's rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedRelevant {
    /// Gallery position.
    pub position: u32,
    /// Score.
    pub score: f32,
    /// 1 + non-relevant items with a score >= its own + relevant items before it: ties count against the query.
    pub rank: u64,
    /// The same with ties counted in the query's favour (non-relevant items with a score > its own).
    pub optimistic_rank: u64,
    /// How relevant, at least 1; 1 without graded judgements. Of equal scores the lower grade stands first: a tie counts
    /// against the query here too.
    pub grade: u32,
}

/// One hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Gallery position.
    pub position: u32,
    /// Score.
    pub score: f32,
}

impl Ranking {
    /// The ranking of one row of scores by the definition: the naive twin of the pass.
    #[cfg(test)]
    pub fn by_sorting(query: &QueryProtocol, row: &[f32]) -> Self {
        let is = |positions: &[u32], p: usize| positions.contains(&(p as u32));
        let mut left: Vec<usize> = (0..row.len()).filter(|&p| !is(&query.junk, p)).collect();
        left.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let top = left.iter().take(TOP).map(|&p| Hit {
            position: p as u32,
            score: row[p],
        });
        let mut relevant: Vec<(usize, u32)> = query
            .relevant
            .iter()
            .enumerate()
            .map(|(i, &p)| (p as usize, query.grades.get(i).copied().unwrap_or(1)))
            .collect();
        relevant.sort_by(|a, b| {
            row[b.0]
                .total_cmp(&row[a.0])
                .then((a.1, a.0).cmp(&(b.1, b.0)))
        });
        let rivals = |reaches: &dyn Fn(f32) -> bool| {
            let rivals = left.iter().filter(|&&p| !is(&query.relevant, p));
            rivals.filter(|&&p| reaches(row[p])).count() as u64
        };
        let relevant = relevant
            .iter()
            .enumerate()
            .map(|(before, &(p, grade))| RankedRelevant {
                position: p as u32,
                score: row[p],
                rank: 1 + rivals(&|score| score >= row[p]) + before as u64,
                optimistic_rank: 1 + rivals(&|score| score > row[p]) + before as u64,
                grade,
            });
        Self {
            relevant: relevant.collect(),
            top: top.collect(),
            n_candidates: left.len(),
        }
    }

    /// Ranks of the relevant items, ties against the query, ascending.
    pub fn ranks(&self) -> Vec<u64> {
        self.relevant.iter().map(|relevant| relevant.rank).collect()
    }

    /// Ranks with ties in the query's favour.
    pub fn optimistic_ranks(&self) -> Vec<u64> {
        self.relevant
            .iter()
            .map(|relevant| relevant.optimistic_rank)
            .collect()
    }

    /// Grades, parallel to [`Ranking::ranks`].
    pub fn grades(&self) -> Vec<u32> {
        self.relevant
            .iter()
            .map(|relevant| relevant.grade)
            .collect()
    }

    /// Grades with ties in the query's favour, parallel to [`Ranking::optimistic_ranks`]: of equal scores the higher
    /// grade first.
    pub fn optimistic_grades(&self) -> Vec<u32> {
        self.relevant
            .chunk_by(|a, b| a.score == b.score)
            .flat_map(|tied| tied.iter().rev().map(|relevant| relevant.grade))
            .collect()
    }

    /// Rank of the first relevant item.
    pub fn first_rank(&self) -> u64 {
        self.relevant[0].rank
    }

    /// The same with ties in the query's favour.
    pub fn optimistic_first_rank(&self) -> u64 {
        self.relevant[0].optimistic_rank
    }
}

/// Ranks one query in a pass over the gallery.
pub struct Ranker<'a> {
    junk: Mask<'a>,
    own: Mask<'a>,
    /// (position, score, grade), the worst first: the order of [`Ranking::relevant`] turned round.
    relevant: Vec<(u32, f32, u32)>,
    counts: ThresholdCounts<'static>,
    top: TopHits,
    /// Where its non-matching scores are counted with those of the other queries of its set.
    pooled: Option<Pool<'a>>,
    /// Counts its own non-matching scores at candidate thresholds, where they are pooled too.
    steps: Option<StepCounts<'a>>,
    companion: Option<Companion<'a>>,
    n_candidates: usize,
}

/// What the non-matching scores of a set of queries are counted against.
#[derive(Clone, Copy)]
struct Pool<'a> {
    bounds: &'a Bounds,
    windows: &'a Windows,
    /// Which set.
    set: usize,
}

impl<'a> Ranker<'a> {
    /// `scores` are those of the query's relevant items.
    fn new(
        query: &'a QueryProtocol,
        scores: &[f32],
        n_gallery: usize,
        pooled: Option<Pool<'a>>,
        steps: Option<&'a Steps>,
        companion: Option<Companion<'a>>,
    ) -> Self {
        let mut relevant: Vec<(u32, f32, u32)> = query
            .relevant
            .iter()
            .zip(scores)
            .enumerate()
            .map(|(i, (&position, &score))| {
                (position, score, query.grades.get(i).copied().unwrap_or(1))
            })
            .collect();
        relevant.sort_by(|a, b| a.1.total_cmp(&b.1).then((b.2, b.0).cmp(&(a.2, a.0))));
        let thresholds: Vec<f32> = relevant.iter().map(|&(_, score, _)| score).collect();
        Self {
            junk: Mask::new(&query.junk),
            own: Mask::new(&query.relevant),
            counts: ThresholdCounts::new(thresholds),
            relevant,
            top: TopHits::new(),
            pooled,
            steps: steps.map(StepCounts::new),
            companion,
            n_candidates: n_gallery - query.junk.len(),
        }
    }

    /// The ranking, once the whole gallery has passed, and the non-matches at or above each candidate threshold.
    fn finish(self) -> (Ranking, Vec<u32>) {
        let accepted = self.steps.map_or_else(Vec::new, StepCounts::at_or_above);
        let (at_or_above, above) = self.counts.totals();
        let counted = self
            .relevant
            .into_iter()
            .zip(at_or_above.into_iter().zip(above));
        let relevant = counted
            .rev()
            .enumerate()
            .map(
                |(before, ((position, score, grade), (at_or_above, above)))| RankedRelevant {
                    position,
                    score,
                    rank: 1 + u64::from(at_or_above) + before as u64,
                    optimistic_rank: 1 + u64::from(above) + before as u64,
                    grade,
                },
            )
            .collect();
        let ranking = Ranking {
            relevant,
            top: self.top.sorted(),
            n_candidates: self.n_candidates,
        };
        (ranking, accepted)
    }
}

impl Visitor for Ranker<'_> {
    /// One a set that counts.
    type Shared = Vec<Option<PooledCounts>>;

    #[inline(always)]
    fn floor(&self) -> f32 {
        if self.pooled.is_some() {
            return f32::NEG_INFINITY;
        }
        let companion = self.companion.as_ref();
        let companion = companion.map_or(f32::INFINITY, |companion| companion.floor());
        self.counts.lowest().min(self.top.to_beat).min(companion)
    }

    fn wants_all(&self) -> bool {
        self.pooled.is_some()
    }

    #[inline(always)]
    fn visit(&mut self, shared: &mut Self::Shared, first: usize, row: &mut [f32]) {
        self.junk.apply(first, row);
        self.top.offer(first, row);
        if let Some(companion) = &mut self.companion {
            companion.visit(&mut (), first, row);
        }
        self.own.apply(first, row);
        self.counts.count(row);
        if let Some(pool) = self.pooled {
            if let Some(counts) = &mut shared[pool.set] {
                counts.count(pool.bounds, self.steps.as_mut(), row);
            }
            pool.windows.count(row);
        }
    }
}

/// Queries of one model that are to be ranked.
pub struct RankSet<'a> {
    embeddings: &'a Embeddings,
    queries: Vec<&'a QueryProtocol>,
    /// Item index of each query.
    items: Vec<usize>,
    /// Each query's scores of its relevant items, in the protocol's order.
    relevant: Vec<Vec<f32>>,
    /// What all non-matching scores are counted against, where they are.
    pooled: Option<(Bounds, Windows)>,
    /// Candidate thresholds at which each query's are counted.
    steps: Option<&'a Steps>,
    /// They go along with the first queries.
    companions: Companions<'a>,
}

impl<'a> RankSet<'a> {
    /// Scores the relevant items.
    pub fn new(
        embeddings: &'a Embeddings,
        queries: impl IntoIterator<Item = &'a QueryProtocol>,
        gallery: Gallery<'_>,
        similarity: Similarity,
    ) -> Self {
        let queries: Vec<&QueryProtocol> = queries.into_iter().collect();
        let items = queries.iter().map(|query| query.item).collect();
        Self::with_items(embeddings, items, queries, gallery, similarity)
    }

    /// As [`RankSet::new`], where the queries have other indices among the embeddings than in the probe: `items`, one a query.
    pub fn with_items(
        embeddings: &'a Embeddings,
        items: Vec<usize>,
        queries: Vec<&'a QueryProtocol>,
        gallery: Gallery<'_>,
        similarity: Similarity,
    ) -> Self {
        let relevant = queries.par_iter().zip(&items).map(|(query, &item)| {
            score_some(embeddings, item, gallery, &query.relevant, similarity)
        });
        Self {
            embeddings,
            relevant: relevant.collect(),
            items,
            queries,
            pooled: None,
            steps: None,
            companions: Vec::new(),
        }
    }

    /// Counts the non-matching scores of all queries too, in the windows to the last bit.
    pub fn pooled(mut self, windows: Windows) -> Self {
        self.pooled = Some((Bounds::new(&self.matches()), windows));
        self
    }

    /// Counts each query's non-matching scores by candidate thresholds too; only with [`RankSet::pooled`].
    pub fn stepped(mut self, steps: Option<&'a Steps>) -> Self {
        self.steps = steps;
        self
    }

    /// Lets each of the first queries' scores be heard by a companion too, junk masked.
    pub fn accompany(&mut self, companions: Companions<'a>) {
        self.companions = companions;
    }

    /// Scores of all matching pairs, ascending.
    pub fn matches(&self) -> Vec<f32> {
        sorted(self.relevant.iter().flatten().copied())
    }
}

/// What a pass found for one set.
pub struct Ranked {
    /// One a query.
    pub rankings: Vec<Ranking>,
    /// Its non-matching scores, where they were to be counted.
    pub pooled: Option<Pooled>,
    /// Each query's non-matching scores at or above each candidate threshold.
    pub accepted: Vec<Vec<u32>>,
}

/// Non-matching scores of all queries of a set.
pub struct Pooled {
    /// What they were counted against.
    pub bounds: Bounds,
    /// How many lie where.
    pub total: PooledTotal,
    /// Some of them to the last bit.
    pub windows: Windows,
}

/// Ranks the queries of every set in one pass over the gallery.
///
/// # Errors
/// A score that overflows f32.
pub fn rank(
    gallery: Gallery<'_>,
    similarity: Similarity,
    mut sets: Vec<RankSet<'_>>,
) -> Result<Vec<Ranked>, ScoreOverflow> {
    let n_gallery = gallery.items.len();
    let mut companions: Vec<_> = sets
        .iter_mut()
        .map(|set| std::mem::take(&mut set.companions))
        .collect();
    let mut scans = Vec::new();
    for (index, (set, companions)) in sets.iter().zip(&mut companions).enumerate() {
        let mut companions = companions.iter_mut();
        let pooled = set.pooled.as_ref().map(|(bounds, windows)| Pool {
            bounds,
            windows,
            set: index,
        });
        let with_scores = set.queries.iter().zip(&set.relevant);
        scans.push(QueryScan {
            embeddings: set.embeddings,
            items: &set.items,
            visitors: with_scores
                .map(|(query, scores)| {
                    let companion = companions.next().and_then(Option::as_mut);
                    let companion = companion.map(|companion| &mut **companion as _);
                    Ranker::new(query, scores, n_gallery, pooled, set.steps, companion)
                })
                .collect(),
        });
    }
    let bounds: Vec<Option<&Bounds>> = sets
        .iter()
        .map(|set| set.pooled.as_ref().map(|(bounds, _)| bounds))
        .collect();
    let nothing = || {
        bounds
            .iter()
            .map(|bounds| bounds.map(PooledCounts::new))
            .collect()
    };
    let mut parts: Vec<Vec<Option<PooledCounts>>> = scan(gallery, similarity, &mut scans, nothing)?;
    let found: Vec<(Vec<Ranking>, Vec<Vec<u32>>)> = scans
        .into_iter()
        .map(|scan| scan.visitors.into_iter().map(Ranker::finish).unzip())
        .collect();
    let outcomes = found.into_iter().zip(sets).enumerate();
    Ok(outcomes
        .map(|(index, ((rankings, accepted), set))| {
            let own = parts.iter_mut().filter_map(|part| part[index].take());
            let pooled = set.pooled.map(|(bounds, windows)| Pooled {
                total: PooledCounts::total(&bounds, own.collect()),
                bounds,
                windows,
            });
            Ranked {
                rankings,
                pooled,
                accepted,
            }
        })
        .collect())
}

/// Candidates gathered before the worst are dropped: twice [`TOP`], so that dropping is rare.
const ROOM: usize = 2 * TOP;

/// The best [`TOP`] scores so far that are not NaN, by (score descending, position ascending).
struct TopHits {
    hits: Vec<Hit>,
    /// Positions rise, so a score that only equals the TOP-th best loses to it.
    to_beat: f32,
}

impl TopHits {
    fn new() -> Self {
        Self {
            hits: Vec::new(),
            to_beat: f32::NEG_INFINITY,
        }
    }

    fn order(a: &Hit, b: &Hit) -> std::cmp::Ordering {
        let positions = a.position.cmp(&b.position);
        b.score.total_cmp(&a.score).then(positions)
    }

    #[inline(always)]
    fn offer(&mut self, first: usize, row: &[f32]) {
        let mut any = false;
        for &score in row {
            any |= score > self.to_beat;
        }
        if any {
            self.take(first, row);
        }
    }

    fn take(&mut self, first: usize, row: &[f32]) {
        for (lane, &score) in row.iter().enumerate() {
            // NaN exceeds nothing.
            if score > self.to_beat {
                let position = (first + lane) as u32;
                self.hits.push(Hit { position, score });
                if self.hits.len() == ROOM {
                    self.hits.select_nth_unstable_by(TOP - 1, Self::order);
                    self.hits.truncate(TOP);
                    self.to_beat = self.hits[TOP - 1].score;
                }
            }
        }
    }

    fn sorted(mut self) -> Vec<Hit> {
        self.hits.sort_unstable_by(Self::order);
        self.hits.truncate(TOP);
        // A ranking lives as long as the audit; it keeps no more than it holds.
        self.hits.shrink_to_fit();
        self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(relevant: &[u32], junk: &[u32]) -> QueryProtocol {
        QueryProtocol {
            item: 0,
            identity: 0,
            relevant: relevant.to_vec(),
            grades: Vec::new(),
            junk: junk.to_vec(),
        }
    }

    /// Ranks a row by the pass's visitor, in tile rows of 16; the twin must agree.
    fn ranking(query: &QueryProtocol, row: &[f32]) -> Ranking {
        let scores = query.relevant.iter().map(|&p| row[p as usize]);
        let scores: Vec<f32> = scores.collect();
        let mut ranker = Ranker::new(query, &scores, row.len(), None, None, None);
        for (i, row) in row.chunks(16).enumerate() {
            if row.iter().any(|&score| score >= ranker.floor()) {
                ranker.visit(&mut Vec::new(), 16 * i, &mut row.to_vec());
            }
        }
        let (found, _) = ranker.finish();
        assert_eq!(found, Ranking::by_sorting(query, row));
        // Score by score, as what another device found is shown.
        let mut ranker = Ranker::new(query, &scores, row.len(), None, None, None);
        for (i, &score) in row.iter().enumerate() {
            if score >= ranker.floor() {
                ranker.visit(&mut Vec::new(), i, &mut [score]);
            }
        }
        assert_eq!(ranker.finish().0, found);
        found
    }

    #[test]
    fn tied_grades_count_against_the_query_too() {
        // Grades 3, 1, 2 at scores .5, .5, .9; one non-relevant item ties at .5.
        let graded = QueryProtocol {
            grades: vec![3, 1, 2],
            ..query(&[0, 1, 2], &[])
        };
        let ranking = ranking(&graded, &[0.5, 0.5, 0.9, 0.5]);
        assert_eq!(
            (ranking.ranks(), ranking.grades()),
            (vec![1, 3, 4], vec![2, 1, 3])
        );
        let optimistic = (ranking.optimistic_ranks(), ranking.optimistic_grades());
        assert_eq!(optimistic, (vec![1, 2, 3], vec![2, 3, 1]));
    }

    #[test]
    fn ties_count_against_the_query() {
        // Relevant at .5 ties with two non-relevant items: rank 3, optimistic 1.
        let ranking = ranking(&query(&[1], &[]), &[0.5, 0.5, 0.5, 0.1]);
        assert_eq!(
            (
                ranking.relevant[0].rank,
                ranking.relevant[0].optimistic_rank
            ),
            (3, 1)
        );
    }

    #[test]
    fn a_collapsed_model_ranks_last() {
        let ranking = ranking(&query(&[0, 1], &[]), &[1.0; 10]);
        assert_eq!(ranking.ranks(), [9, 10]);
        assert_eq!(ranking.optimistic_ranks(), [1, 2]);
    }

    #[test]
    fn junk_is_neither_counted_nor_shown() {
        let ranking = ranking(&query(&[2], &[0, 1]), &[0.9, 0.8, 0.3, 0.2]);
        assert_eq!(ranking.ranks(), [1]);
        assert_eq!(ranking.n_candidates, 2);
        assert_eq!(
            ranking
                .top
                .iter()
                .map(|hit| hit.position)
                .collect::<Vec<_>>(),
            [2, 3]
        );
    }

    #[test]
    fn relevant_items_do_not_push_each_other_as_negatives() {
        // Order: rel .9, non .8, rel .7, non .6 -> ranks 1 and 3.
        let ranking = ranking(&query(&[0, 2], &[]), &[0.9, 0.8, 0.7, 0.6]);
        assert_eq!(ranking.ranks(), [1, 3]);
    }

    #[test]
    fn top_is_cut_at_100_and_ordered_by_score_then_position() {
        let scores: Vec<f32> = (0..3_000).map(|i| ((i * 7) % 50) as f32).collect();
        let ranking = ranking(&query(&[0], &[]), &scores);
        let mut all: Vec<usize> = (0..scores.len()).collect();
        all.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let found: Vec<usize> = ranking
            .top
            .iter()
            .map(|hit| hit.position as usize)
            .collect();
        assert_eq!(found, all[..TOP]);
    }
}
