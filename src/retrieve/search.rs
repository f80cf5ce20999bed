//! The passes over both galleries, from which rankings, verification and the transfer of thresholds come together.

use std::collections::BTreeMap;

use crate::config::Similarity;
use crate::domain::{Embeddings, Pairing, Side};
use crate::topk::{Gallery, ScoreOverflow, Visitor};

use super::protocol::Protocol;
use super::rank::{RankSet, rank};
use super::verification::cells::cell_of;
use super::verification::pilot::Pilot;
use super::verification::steps::{Steps, candidates};
use super::verification::tail::Windows;
use super::verification::{
    FALSE_ACCEPT_RATES, Scores, TransferPairs, VERIFICATION_IDENTITIES, Verification, count_steps,
};
use super::{Evaluation, QuerySet, SearchOptions, n_distinct};

/// What all pairings share.
pub struct Search<'a> {
    protocol: &'a Protocol,
    /// Old, new.
    models: [&'a Embeddings; 2],
    similarity: Similarity,
    /// The false-accept rate whose threshold is transferred; `None` without verification.
    threshold_far: Option<f64>,
}

/// What the pass over one gallery has found.
#[derive(Default)]
pub struct Found {
    pub evaluations: BTreeMap<Pairing, Evaluation>,
    pub verifications: BTreeMap<Pairing, Verification>,
    pub transfer: Option<TransferPairs>,
}

/// What goes along with the ranking of a query: it hears the same scores, junk masked by NaN.
pub type Companion<'a> = &'a mut (dyn Visitor<Shared = ()> + 'a);

/// At most one companion for each of the first queries.
pub type Companions<'a> = Vec<Option<Companion<'a>>>;

/// Where a pass should look, for each of its query sets.
struct Foresight {
    windows: Vec<Windows>,
    /// Thresholds around the transferred one.
    steps: Steps,
}

/// Scores of one pairing, and each query's non-matches at or above each candidate threshold.
type Counted = (Scores, Vec<Vec<u32>>);

impl<'a> Search<'a> {
    pub fn new(
        protocol: &'a Protocol,
        models: [&'a Embeddings; 2],
        options: &SearchOptions,
    ) -> Self {
        let identities = n_distinct(protocol.query_identities());
        Self {
            protocol,
            models,
            similarity: options.similarity,
            threshold_far: (identities >= VERIFICATION_IDENTITIES).then_some(options.threshold_far),
        }
    }

    fn model(&self, side: Side) -> &Embeddings {
        self.models[usize::from(side == Side::New)]
    }

    pub fn queries(&self, side: Side) -> QuerySet<'_> {
        QuerySet {
            embeddings: self.model(side),
            items: self.protocol.query_items(),
            similarity: self.similarity,
        }
    }

    pub fn gallery_of(&self, side: Side) -> Gallery<'_> {
        Gallery {
            embeddings: self.model(side),
            items: self.protocol.gallery(),
        }
    }

    /// Ranks the queries of the gallery's model, and of the other where it is comparable, against one gallery. `thresholds` are
    /// those of old->old, as soon as they are known; `companions` go along with the gallery model's own queries and with the other's.
    ///
    /// Nothing when an item of the gallery has no embedding.
    pub fn gallery(
        &self,
        side: Side,
        thresholds: &[f32],
        mut companions: [Companions<'_>; 2],
    ) -> Result<Found, ScoreOverflow> {
        let mut found = Found::default();
        let gallery = self.gallery_of(side);
        if !gallery
            .items
            .iter()
            .all(|&item| gallery.embeddings.has(item))
        {
            return Ok(found);
        }
        // The gallery's own model first: old->old's thresholds are transferred to new->old.
        let mut queries = vec![side];
        let other = match side {
            Side::Old => Side::New,
            Side::New => Side::Old,
        };
        if self.model(other).dim() == gallery.embeddings.dim() {
            queries.push(other);
        }
        let ranked_by = |&query: &Side| {
            let of_protocol = self.protocol.queries();
            RankSet::new(self.model(query), of_protocol, gallery, self.similarity)
        };
        let mut sets: Vec<RankSet<'_>> = queries.iter().map(ranked_by).collect();
        // Only old->old and new->old tell what a transferred threshold does.
        let transfers = side == Side::Old && queries.len() == 2;
        let foresee = |far| self.foresee(gallery, &queries, far, thresholds);
        let foresight = self.threshold_far.map(foresee).transpose()?;
        let (windows, steps) = foresight.map(|found| (found.windows, found.steps)).unzip();
        if let Some(windows) = windows {
            let steps = steps.as_ref().filter(|_| transfers);
            let prepared = sets.into_iter().zip(windows);
            sets = prepared
                .map(|(set, windows)| set.pooled(windows).stepped(steps))
                .collect();
        }
        for (set, companions) in sets.iter_mut().zip(&mut companions) {
            let companions = companions.iter_mut();
            let borrowed =
                companions.map(|companion| companion.as_mut().map(|one| &mut **one as _));
            set.accompany(borrowed.collect());
        }
        let ranked = rank(gallery, self.similarity, sets)?;

        let mut thresholds = thresholds.to_vec();
        let mut counted: Vec<Counted> = Vec::new();
        for (&query, ranked) in queries.iter().zip(ranked) {
            let pairing = Pairing {
                query,
                gallery: side,
            };
            let evaluation = Evaluation {
                rankings: ranked.rankings,
            };
            if let (Some(pooled), Some(far)) = (ranked.pooled, self.threshold_far) {
                let mut scores = Scores::new(&evaluation, pooled);
                let first = counted.first().filter(|_| transfers);
                let transferred = first.and_then(|(old, _)| old.threshold_at(far));
                let asked: Vec<f32> = thresholds.iter().copied().chain(transferred).collect();
                let far = (transfers && query == side).then_some(far);
                scores.complete(self.protocol, &self.queries(query), gallery, far, &asked)?;
                let verification = scores.verification(&thresholds);
                if pairing == Pairing::OLD_OLD {
                    let points = verification
                        .iter()
                        .flat_map(|found| &found.operating_points);
                    thresholds = points.map(|point| point.threshold).collect();
                }
                let verification = verification.map(|verification| (pairing, verification));
                found.verifications.extend(verification);
                counted.push((scores, ranked.accepted));
            }
            found.evaluations.insert(pairing, evaluation);
        }
        if let (Ok(counted), Some(steps), Some(far)) =
            (<[Counted; 2]>::try_from(counted), steps, self.threshold_far)
            && transfers
        {
            found.transfer = self.transfer(gallery, &found.evaluations, counted, steps, far)?;
        }
        Ok(found)
    }

    /// The pairs around the transferred threshold. Scores them once more where the sample had the candidates in the wrong
    /// places.
    fn transfer(
        &self,
        gallery: Gallery<'_>,
        evaluations: &BTreeMap<Pairing, Evaluation>,
        [(old, mut by_old), (new, mut by_new)]: [Counted; 2],
        mut steps: Steps,
        far: f64,
    ) -> Result<Option<TransferPairs>, ScoreOverflow> {
        let at_or_above = old.at_or_above_cells();
        let own = candidates(&at_or_above, far, self.protocol.queries().len());
        if !steps.suit(&at_or_above, far, &own) {
            steps = Steps::new(&own);
            let [old_queries, new_queries] = [Side::Old, Side::New].map(|side| self.queries(side));
            let sets = [&old_queries, &new_queries];
            [by_old, by_new] = count_steps(self.protocol, sets, gallery, &steps)?;
        }
        Ok(TransferPairs::new(
            self.protocol,
            [Pairing::OLD_OLD, Pairing::NEW_OLD].map(|pairing| &evaluations[&pairing]),
            [&old, &new],
            far,
            steps.candidates().to_vec(),
            [&by_old, &by_new],
        ))
    }

    /// Looks at samples of the pairs. All sets are counted at `thresholds` too; as long as there are none, the first set's are expected
    /// to be transferred to the others.
    fn foresee(
        &self,
        gallery: Gallery<'_>,
        queries: &[Side],
        far: f64,
        thresholds: &[f32],
    ) -> Result<Foresight, ScoreOverflow> {
        let rates: Vec<f64> = FALSE_ACCEPT_RATES.into_iter().chain([far]).collect();
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let pilot = |&query: &Side| {
            let model = self.model(query);
            Pilot::new(self.protocol, model, gallery, self.similarity, least)
        };
        let pilots: Vec<Pilot> = queries.iter().map(pilot).collect::<Result<_, _>>()?;
        let mut shared: Vec<_> = thresholds
            .iter()
            .map(|&threshold| cell_of(threshold))
            .map(|cell| cell..cell + 1)
            .collect();
        if shared.is_empty() {
            shared = pilots[0].windows(&rates);
        }
        let windows = pilots.iter().map(|pilot| {
            let own = pilot.windows(&rates).into_iter();
            Windows::new(own.chain(shared.iter().cloned()).collect())
        });
        Ok(Foresight {
            windows: windows.collect(),
            steps: Steps::new(&pilots[0].candidates(far, self.protocol.queries().len())),
        })
    }
}
