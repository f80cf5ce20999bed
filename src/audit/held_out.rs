//! The queries that an adapted model is tested with.

use super::AuditError;
use crate::domain::{Adaptation, Finding, FindingCode, IDENTITIES, Probe, Role, Severity, Side};
use crate::embed::Embedded;

/// Of an adapted model only what its head has not seen may search: the other queries leave, the gallery stays whole.
///
/// # Errors
/// A split by identities, of a probe that names none; a probe of whose queries none is known to be held out.
pub fn keep_held_out_queries(
    probe: &mut Probe,
    old: &mut Embedded,
    new: &mut Embedded,
    side: Side,
) -> Result<(), AuditError> {
    let [adapted, other] = match side {
        Side::Old => [&*old, &*new],
        Side::New => [&*new, &*old],
    };
    let Some(adaptation) = adapted.model.adaptation.clone() else {
        return Ok(());
    };
    let by_identity = adaptation.units == IDENTITIES;
    if by_identity && !probe.splits_by_identity() {
        return Err(AuditError::UnknownSplit {
            side,
            origin: probe.origin.clone(),
        });
    }
    let mut keep = vec![true; probe.items.len()];
    let (mut left, mut removed) = (0, 0);
    for (item, keep) in keep.iter_mut().enumerate() {
        let role = probe.items[item].role;
        if !role.is_query() || probe.items[item].identity.is_none() {
            continue;
        }
        if adaptation.holds_out(&probe.split_names(item, by_identity)) {
            left += 1;
        } else {
            removed += 1;
            *keep = role.is_gallery();
            probe.items[item].role = Role::Gallery;
        }
    }
    let Adaptation {
        head,
        units,
        fitted,
        held_out,
        ..
    } = &adaptation;
    if left == 0 && removed > 0 {
        return Err(AuditError::NoneHeldOut {
            side,
            origin: probe.origin.clone(),
            queries: removed,
            held_out: *held_out,
            units: units.clone(),
        });
    }
    let mut message = format!(
        "the {side} model is an adapted one (head: {head}). Its head was fitted and chosen on {fitted} {units} and is tested on \
         the {held_out} held out: of this probe's queries {left} are tested and {removed} are left out; the gallery is whole"
    );
    if let Some(own) = &adaptation.own_search {
        message += &format!(
            "; when it was made, its head took new->new from {:.4} to {:.4} {} on {} held-out queries",
            own.before, own.after, own.measure, own.queries
        );
    }
    if side == Side::New && adaptation.old_model != other.model.hash {
        message += "; it was adapted to other old embeddings than these";
    }
    let finding = Finding::new(FindingCode::AdaptedModel, Severity::Info, message);
    probe.retain(&keep);
    for embedded in [&mut *old, &mut *new] {
        embedded.retain(&keep);
    }
    match side {
        Side::Old => old.findings.push(finding),
        Side::New => new.findings.push(finding),
    }
    Ok(())
}
