//! The decision procedure of §4.5.

use crate::smr::messages::{SlotDigest, ViewChange, ViewStart};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Digest, Quorum, SeqNo, View};

/// The entries of an ascending list that are of one place.
fn at(list: &[SlotDigest], seq: u64) -> &[SlotDigest] {
    let from = list.partition_point(|placed| placed.seq < seq);
    let to = list.partition_point(|placed| placed.seq <= seq);
    &list[from..to]
}

/// What a view begins with, by the view changes for it: a function of them alone, so that the leader need not
/// say and nobody need trust it. `None` while they leave a place open: more view changes will settle it.
///
/// The view changes are valid, of distinct replicas, at least a quorum, and for one view.
pub(super) fn choose(view: View, view_changes: &[&ViewChange], quorum: Quorum) -> Option<ViewStart> {
    // The latest stable checkpoint. It is proved, so one message is enough (the paper asks for f+1).
    let start = view_changes.iter().max_by_key(|m| m.stable())?;
    let min_s = start.stable_seq;
    let last = |m: &&ViewChange| m.prepared.last().map_or(0, |placed| placed.seq);
    let max_s = view_changes.iter().map(last).max().unwrap_or(0).max(min_s);
    let chosen: Option<Vec<Digest>> = (min_s + 1..=max_s)
        .map(|seq| choose_at(seq, view_changes, quorum))
        .collect();
    Some(ViewStart {
        view,
        stable: start.stable(),
        proof: start.stable_proof.clone(),
        chosen: chosen?,
    })
}

/// The batch of one place: condition A for the latest prepared one, else condition B.
fn choose_at(seq: u64, view_changes: &[&ViewChange], quorum: Quorum) -> Option<Digest> {
    if active(Mutant::NewViewForgets) {
        return Some(Digest::ZERO);
    }
    let mut prepared: Vec<(u64, [u8; 32])> = view_changes
        .iter()
        .flat_map(|m| at(&m.prepared, seq))
        .map(|placed| (placed.view, placed.digest))
        .collect();
    prepared.sort_unstable_by(|a, b| b.cmp(a));
    prepared.dedup();
    if active(Mutant::NewViewSkipsA1) {
        prepared.reverse();
    }
    // Condition A: some ⟨n, d, v⟩ in a P satisfies A1 and A2. The latest view first, then the larger digest:
    // all replicas try them in one order.
    let verified = prepared
        .iter()
        .find(|(v, d)| is_a1(seq, *v, d, view_changes, quorum) && is_a2(seq, *v, d, view_changes, quorum));
    if let Some((_, digest)) = verified {
        return Some(Digest::from_bytes(*digest));
    }
    is_b(seq, view_changes, quorum).then_some(Digest::ZERO)
}

/// Condition A1: a quorum of messages has low watermarks before n and nothing in P for n that was prepared in
/// a later view than v, or in v with another digest. No other batch was committed then.
fn is_a1(seq: u64, view: u64, digest: &[u8; 32], view_changes: &[&ViewChange], quorum: Quorum) -> bool {
    let agrees = |m: &&&ViewChange| {
        let permits = |p: &SlotDigest| p.view < view || (p.view == view && p.digest == *digest);
        m.stable().seq < SeqNo::new(seq) && at(&m.prepared, seq).iter().all(permits)
    };
    view_changes.iter().filter(agrees).count() >= quorum.quorum() || active(Mutant::NewViewSkipsA1)
}

/// Condition A2: f+1 messages have ⟨n, d, v'⟩ with v' ≥ v in Q. A correct replica accepted the batch then: it
/// is authentic, its frames can be had, and it really was proposed as late as v.
fn is_a2(seq: u64, view: u64, digest: &[u8; 32], view_changes: &[&ViewChange], quorum: Quorum) -> bool {
    let accepted = |m: &&&ViewChange| {
        let entries = at(&m.pre_prepared, seq);
        entries.iter().any(|p| p.digest == *digest && p.view >= view)
    };
    view_changes.iter().filter(accepted).count() >= quorum.weak() || active(Mutant::NewViewSkipsA2)
}

/// Condition B: a quorum of messages has low watermarks before n and nothing in P for n. Nothing was
/// committed there, and the null request fills the gap.
fn is_b(seq: u64, view_changes: &[&ViewChange], quorum: Quorum) -> bool {
    let silent = |m: &&&ViewChange| m.stable().seq < SeqNo::new(seq) && at(&m.prepared, seq).is_empty();
    view_changes.iter().filter(silent).count() >= quorum.quorum()
}
