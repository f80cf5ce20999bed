//! From a query's row of scores to the ranks of its relevant items and its top hits.

use super::protocol::QueryProtocol;

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
    /// Ranks a row of scores, one a gallery position. Junk and relevant entries of `row` are overwritten.
    pub fn new(query: &QueryProtocol, row: &mut [f32]) -> Self {
        for &position in &query.junk {
            row[position as usize] = f32::NAN;
        }
        let top = top_hits(row);
        let mut relevant: Vec<(u32, f32, u32)> = query
            .relevant
            .iter()
            .enumerate()
            .map(|(i, &position)| {
                let grade = query.grades.get(i).copied().unwrap_or(1);
                (position, row[position as usize], grade)
            })
            .collect();
        relevant.sort_by(|a, b| b.1.total_cmp(&a.1).then((a.2, a.0).cmp(&(b.2, b.0))));
        // NaN compares false with everything, so what is left in the row are the non-relevant items.
        for &position in &query.relevant {
            row[position as usize] = f32::NAN;
        }
        let thresholds: Vec<f32> = relevant.iter().map(|&(_, score, _)| score).collect();
        let (at_or_above, above) = count_at_thresholds(row, &thresholds);
        let relevant = relevant
            .into_iter()
            .enumerate()
            .map(|(before, (position, score, grade))| RankedRelevant {
                position,
                score,
                rank: 1 + at_or_above[before] + before as u64,
                optimistic_rank: 1 + above[before] + before as u64,
                grade,
            })
            .collect();
        Self {
            relevant,
            top,
            n_candidates: row.len() - query.junk.len(),
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

/// For each threshold: how many scores are >= it, and how many are > it. NaN counts for neither.
fn count_at_thresholds(row: &[f32], thresholds: &[f32]) -> (Vec<u64>, Vec<u64>) {
    // A block stays in the first-level cache while all thresholds pass over it.
    const BLOCK: usize = 4096;
    let mut at_or_above = vec![0; thresholds.len()];
    let mut above = vec![0; thresholds.len()];
    for block in row.chunks(BLOCK) {
        for (i, &threshold) in thresholds.iter().enumerate() {
            at_or_above[i] += block
                .iter()
                .map(|&s| u32::from(s >= threshold))
                .sum::<u32>() as u64;
            above[i] += block.iter().map(|&s| u32::from(s > threshold)).sum::<u32>() as u64;
        }
    }
    (at_or_above, above)
}

/// Candidates gathered before the worst are dropped: a few times [`TOP`], so that dropping is rare.
const ROOM: usize = 4 * TOP;

/// The best [`TOP`] entries that are not NaN, by (score descending, position ascending).
fn top_hits(row: &[f32]) -> Vec<Hit> {
    let order = |a: &Hit, b: &Hit| {
        b.score
            .total_cmp(&a.score)
            .then(a.position.cmp(&b.position))
    };
    let mut hits: Vec<Hit> = Vec::with_capacity(ROOM);
    // Positions rise, so a score that only equals the TOP-th best loses to it. NaN exceeds nothing.
    let mut to_beat = f32::NEG_INFINITY;
    for (position, &score) in row.iter().enumerate() {
        if score > to_beat {
            hits.push(Hit {
                position: position as u32,
                score,
            });
            if hits.len() == ROOM {
                hits.select_nth_unstable_by(TOP - 1, order);
                hits.truncate(TOP);
                to_beat = hits[TOP - 1].score;
            }
        }
    }
    hits.sort_unstable_by(order);
    hits.truncate(TOP);
    // A ranking lives as long as the audit; it keeps no more than it holds.
    hits.shrink_to_fit();
    hits
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

    #[test]
    fn tied_grades_count_against_the_query_too() {
        // Grades 3, 1, 2 at scores .5, .5, .9; one non-relevant item ties at .5.
        let graded = QueryProtocol {
            grades: vec![3, 1, 2],
            ..query(&[0, 1, 2], &[])
        };
        let ranking = Ranking::new(&graded, &mut [0.5, 0.5, 0.9, 0.5]);
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
        let ranking = Ranking::new(&query(&[1], &[]), &mut [0.5, 0.5, 0.5, 0.1]);
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
        let ranking = Ranking::new(&query(&[0, 1], &[]), &mut [1.0; 10]);
        assert_eq!(ranking.ranks(), [9, 10]);
        assert_eq!(ranking.optimistic_ranks(), [1, 2]);
    }

    #[test]
    fn junk_is_neither_counted_nor_shown() {
        let ranking = Ranking::new(&query(&[2], &[0, 1]), &mut [0.9, 0.8, 0.3, 0.2]);
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
        let ranking = Ranking::new(&query(&[0, 2], &[]), &mut [0.9, 0.8, 0.7, 0.6]);
        assert_eq!(ranking.ranks(), [1, 3]);
    }

    #[test]
    fn top_is_cut_at_100_and_ordered_by_score_then_position() {
        let scores: Vec<f32> = (0..3_000).map(|i| ((i * 7) % 50) as f32).collect();
        let mut row = scores.clone();
        let ranking = Ranking::new(&query(&[0], &[]), &mut row);
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
