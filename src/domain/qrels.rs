//! Relevance judgements: which items are relevant to which query, and how much.

use std::path::{Path, PathBuf};

/// One judgement of an item for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Item index of the query.
    pub query: usize,
    /// Item index of what was judged.
    pub item: usize,
    /// How relevant; 0 and below is not (trec_eval).
    pub grade: i32,
}

/// The judgements of a probe; they override the identities' relevance for every query.
///
/// An item that nobody judged for a query is not relevant to it, as in trec_eval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qrels {
    origin: PathBuf,
    judged: usize,
    identities_given: bool,
    /// By query item: (item, grade > 0), ascending by item.
    relevant: Vec<Vec<(u32, u32)>>,
}

impl Qrels {
    /// Judgements of a probe of `n_items`, no pair twice. `identities_given`: the probe names identities beside them.
    pub fn new(
        origin: PathBuf,
        n_items: usize,
        judgements: &[Judgement],
        identities_given: bool,
    ) -> Self {
        let mut relevant = vec![Vec::new(); n_items];
        for judgement in judgements {
            if let Ok(grade) = u32::try_from(judgement.grade)
                && grade > 0
            {
                relevant[judgement.query].push((judgement.item as u32, grade));
            }
        }
        relevant.iter_mut().for_each(|row| row.sort_unstable());
        Self {
            origin,
            judged: judgements.len(),
            identities_given,
            relevant,
        }
    }

    /// The file they were read from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Judged pairs in the file, not relevant ones included.
    pub fn n_judged(&self) -> usize {
        self.judged
    }

    /// Whether the probe names identities; if not, each item is its own.
    pub fn identities_given(&self) -> bool {
        self.identities_given
    }

    /// The relevant items of a query and their grades (at least 1), ascending by item.
    pub fn relevant_to(&self, query: usize) -> &[(u32, u32)] {
        &self.relevant[query]
    }

    /// Whether the item is relevant to the query.
    pub fn is_relevant(&self, query: usize, item: usize) -> bool {
        self.relevant[query]
            .binary_search_by_key(&(item as u32), |&(item, _)| item)
            .is_ok()
    }

    /// The highest grade; 0 when nothing is relevant.
    pub fn highest_grade(&self) -> u32 {
        let grades = self.relevant.iter().flatten().map(|&(_, grade)| grade);
        grades.max().unwrap_or(0)
    }

    /// Keeps the judgements between items whose flag is set, under the items' new indices.
    pub fn retain(&mut self, keep: &[bool]) {
        let mut next = 0;
        let new_index: Vec<u32> = keep
            .iter()
            .map(|&kept| {
                next += u32::from(kept);
                next.wrapping_sub(1)
            })
            .collect();
        let mut flags = keep.iter();
        self.relevant
            .retain(|_| *flags.next().expect("one flag an item"));
        for row in &mut self.relevant {
            row.retain(|&(item, _)| keep[item as usize]);
            for (item, _) in row {
                *item = new_index[*item as usize];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(query: usize, item: usize, grade: i32) -> Judgement {
        Judgement { query, item, grade }
    }

    #[test]
    fn only_positive_grades_are_relevant() {
        let judgements = [
            judgement(0, 3, 2),
            judgement(0, 1, 1),
            judgement(0, 2, 0),
            judgement(0, 4, -1),
        ];
        let qrels = Qrels::new("q.tsv".into(), 5, &judgements, true);
        assert_eq!(qrels.relevant_to(0), [(1, 1), (3, 2)]);
        assert!(qrels.is_relevant(0, 3) && !qrels.is_relevant(0, 2) && !qrels.is_relevant(3, 0));
        assert_eq!((qrels.n_judged(), qrels.highest_grade()), (4, 2));
    }

    #[test]
    fn retained_items_keep_their_judgements_under_their_new_indices() {
        let judgements = [
            judgement(0, 3, 2),
            judgement(0, 1, 1),
            judgement(2, 4, 3),
            judgement(1, 4, 1),
        ];
        let mut qrels = Qrels::new("q.tsv".into(), 5, &judgements, true);
        qrels.retain(&[true, false, true, true, true]);
        // 2, 3 and 4 moved up by one; item 1 and its judgements are gone.
        assert_eq!(qrels.relevant_to(0), [(2, 2)]);
        assert_eq!(qrels.relevant_to(1), [(3, 3)]);
    }
}
