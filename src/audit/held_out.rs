//! The queries that an adapted model is tested with.

use super::AuditError;
use crate::domain::{
    Adaptation, Finding, FindingCode, IDENTITIES, Probe, Role, Seen, Severity, Side,
};
use crate::embed::Embedded;

/// Of an adapted model only what its head has not seen may search, by name and, of names that are new, by input: the other
/// queries leave, the gallery stays whole.
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
    let digests = super::input_digests(old, new);
    let (mut left, mut removed, mut never) = (0, 0, 0);
    for (item, keep) in keep.iter_mut().enumerate() {
        let role = probe.items[item].role;
        if !role.is_query() || probe.items[item].identity.is_none() {
            continue;
        }
        let input = digests.get(item).and_then(Option::as_ref);
        match adaptation.seen(&probe.split_names(item, by_identity), input) {
            Seen::HeldOut => left += 1,
            Seen::Never => never += 1,
            Seen::Fitted => {
                removed += 1;
                *keep = role.is_gallery();
                probe.items[item].role = Role::Gallery;
            }
        }
    }
    let Adaptation {
        head,
        units,
        fitted,
        held_out,
        ..
    } = &adaptation;
    if adaptation.known.is_empty() || (left + never == 0 && removed > 0) {
        return Err(AuditError::NoneHeldOut {
            side,
            origin: probe.origin.clone(),
            queries: left + never + removed,
            held_out: *held_out,
            units: units.clone(),
        });
    }
    let mut message = format!(
        "the {side} model is an adapted one (head: {head}). Its head was fitted and chosen on {fitted} {units} and is tested on \
         the {held_out} held out: of this probe's queries {} are tested and {removed} are left out; the gallery is whole",
        left + never
    );
    if never > 0 {
        message += &format!(
            "; {never} of the tested ones are new to it, by name and by input: where they show what it was fitted on all the same, this audit flatters it"
        );
    }
    if let Some(own) = &adaptation.own_search {
        message += &format!(
            "; when it was made, its head took new->new from {:.4} to {:.4} {} on {} held-out queries",
            own.before, own.after, own.measure, own.queries
        );
    }
    if side == Side::New && adaptation.old_model != other.model.hash {
        message += "; it was adapted to other old embeddings than these";
    }
    let severity = if never > 0 {
        Severity::Warning
    } else {
        Severity::Info
    };
    let finding = Finding::new(FindingCode::AdaptedModel, severity, message);
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
