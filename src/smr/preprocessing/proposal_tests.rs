use bytes::Bytes;

use super::tests::{
    CLUSTER, LIMITS, REPLICAS, archive, body, check_one, check_proposal, checker, checker_with, from,
    propose, propose_at, propose_with, signed_body, with_macs, with_signature,
};
use super::*;
use crate::smr::crypto::{Digester, Domain};
use crate::smr::membership::tests::{client as membership_client, founding, signed};
use crate::smr::membership::{Change, ChangeRequest, ClientRights};
use crate::smr::messages::{
    Authenticator, BatchError, Checked, Frame, FrameBuilder, FrameError, Mode, SystemMessage,
};
use crate::smr::types::{ClientId, Digest, Epoch, FrameSeq, UnixTime};

#[test]
fn a_proposal_is_refused_for_a_bad_signature_and_only_disputed_for_a_bad_mac() {
    let mut signature = checker(1, ClientAuth::Signature);
    let good = [
        with_signature(0, 1, 0),
        with_signature(1, 1, 1),
        with_signature(1, 2, 1),
    ];
    let mut bad = good.clone();
    bad[1] = with_signature(1, 1, 2);
    assert_eq!(
        check_proposal(&mut signature, &propose(&bad)),
        Err(BatchError::NotAuthentic(1))
    );
    assert_eq!(check_proposal(&mut signature, &propose(&good)), Ok(true));
    bad[1] = with_macs(1, 1, None);
    assert_eq!(
        check_proposal(&mut signature, &propose(&bad)),
        Err(BatchError::NotAuthentic(1))
    );

    let disputed = propose(&[
        with_signature(2, 1, 2),
        with_macs(0, 1, None),
        with_macs(1, 1, Some(1)),
    ]);
    let mut mac = checker(1, ClientAuth::Mac);
    assert_eq!(check_proposal(&mut mac, &disputed), Ok(false));
    assert!(mac.drain_disputed().map(|key| key.client).eq([ClientId::new(1)]));
    assert_eq!(
        check_proposal(&mut checker(2, ClientAuth::Mac), &disputed),
        Ok(true)
    );
    let stranger = propose(&[with_macs(9, 1, None)]);
    assert_eq!(
        check_proposal(&mut mac, &stranger),
        Err(BatchError::NotAuthentic(0))
    );
}

#[test]
fn a_batch_with_more_signatures_than_its_sender_may_have_verified_is_refused_unverified() {
    let mut checker = checker(1, ClientAuth::Signature);
    let false_ones = propose(&[with_signature(0, 1, 2), with_signature(1, 1, 2)]);
    let checked = Checked::<SystemMessage>::body_of(&false_ones).unwrap();
    let mut within = |signatures_max| {
        let result = checker.check_proposal_within(&checked, &false_ones, signatures_max);
        (result.unwrap().err(), checker.effort())
    };
    let effort = |verified, invalid| Effort { verified, invalid };
    assert_eq!(within(1), (Some(BatchError::OverBudget(2)), effort(0, 0)));
    assert_eq!(within(2), (Some(BatchError::NotAuthentic(0)), effort(2, 2)));
}

/// The digest that a proposal claims.
fn digest_of(message: &Bytes) -> Digest {
    let checked = Checked::<SystemMessage>::body_of(message).unwrap();
    checked.pre_prepare_head().unwrap().digest()
}

#[test]
fn a_proposals_digest_size_and_kind_are_checked() {
    let mut checker = checker(1, ClientAuth::Mac);
    let lie = propose_with(&[with_macs(0, 1, None)], Some(Digest::from_bytes([1; 32])));
    assert_eq!(check_proposal(&mut checker, &lie), Err(BatchError::Digest));
    assert_eq!(
        check_proposal(&mut checker, &propose(&[])),
        Ok(true),
        "the null request"
    );
    let timed = propose_at(7, &[], Some(Digest::ZERO));
    assert_eq!(check_proposal(&mut checker, &timed), Err(BatchError::Digest));
    let late = propose_at(
        8,
        &[with_macs(0, 1, None)],
        Some(digest_of(&propose(&[with_macs(0, 1, None)]))),
    );
    assert_eq!(check_proposal(&mut checker, &late), Err(BatchError::Digest));
    let null_lie = propose_with(&[], Some(Digest::from_bytes([1; 32])));
    assert_eq!(check_proposal(&mut checker, &null_lie), Err(BatchError::Digest));
    let many: Vec<Bytes> = (1..8).map(|sequence| with_macs(0, sequence, None)).collect();
    let expected = BatchError::TooLong { got: 7, max: 6 };
    assert_eq!(check_proposal(&mut checker, &propose(&many)), Err(expected));
    let unordered = archive(
        body(1, 1, Mode::Unordered),
        Authenticator::Macs(vec![[0; 16]; REPLICAS]),
    );
    let unordered = propose(&[with_macs(0, 1, None), unordered]);
    assert_eq!(
        check_proposal(&mut checker, &unordered),
        Err(BatchError::Unordered(1))
    );
    let short = archive(body(1, 1, Mode::Ordered), Authenticator::Macs(Vec::new()));
    let error = FrameError::MacCount {
        got: 0,
        expected: REPLICAS,
    };
    assert_eq!(
        check_proposal(&mut checker, &propose(&[short])),
        Err(BatchError::Frame { index: 0, error })
    );
    let votes = SystemMessage::votes(CLUSTER, Epoch::ZERO, Vec::new());
    let checked = Checked::<SystemMessage>::body_of(&votes).unwrap();
    assert!(checker.check_proposal(&checked, &votes).is_none());
}

#[test]
fn a_frame_is_in_a_batch_once() {
    let mut checker = checker(1, ClientAuth::Mac);
    let twice = propose(&[
        with_macs(1, 7, None),
        with_macs(0, 7, None),
        with_signature(1, 7, 1),
    ]);
    assert_eq!(
        check_proposal(&mut checker, &twice),
        Err(BatchError::NotAuthentic(2))
    );
    let ordered = propose(&[
        with_macs(1, 8, None),
        with_macs(1, 7, None),
        with_macs(0, 7, None),
    ]);
    assert_eq!(check_proposal(&mut checker, &ordered), Ok(true));
}

#[test]
fn a_refused_proposal_leaves_no_signature_behind() {
    let bad = [with_signature(0, 1, 1), with_signature(1, 1, 1)];
    let digest = Some(Digest::from_bytes([1; 32]));
    let mut checker = checker(1, ClientAuth::Signature);
    assert_eq!(
        check_proposal(&mut checker, &propose_with(&bad, digest)),
        Err(BatchError::Digest)
    );
    assert!(check_one(&mut checker, from(1), with_signature(1, 1, 1)).is_ok());
    assert_eq!(
        check_proposal(&mut checker, &propose_with(&bad, digest)),
        Err(BatchError::Digest)
    );
    let good = propose(&[with_signature(1, 1, 1)]);
    assert_eq!(check_proposal(&mut checker, &good), Ok(true));
}

#[test]
fn a_batch_digest_covers_the_time_and_every_frame_in_order_at_any_length() {
    let digester = Digester::new(CLUSTER);
    let frame = |sequence| {
        Frame::check(with_macs(0, sequence, None), 8, 4096, |body| {
            digester.digest(Domain::RequestFrame, body)
        })
        .unwrap()
    };
    let mut frames: Vec<Frame> = (0..300).map(frame).collect();
    let time = UnixTime::from_nanos(7);
    assert_eq!(batch_digest(&digester, time, &[]), Digest::ZERO);
    for count in [1, 2, 127, 128, 129, 256, 300] {
        let mut hasher = digester.hasher(Domain::Batch);
        hasher.update(&7u64.to_le_bytes());
        frames[..count].iter().for_each(|frame| {
            hasher.update(frame.digest().as_bytes());
        });
        let expected = Digest::from_bytes(*hasher.finalize().as_bytes());
        assert_eq!(batch_digest(&digester, time, &frames[..count]), expected);
    }
    let before = batch_digest(&digester, time, &frames);
    assert_ne!(batch_digest(&digester, UnixTime::from_nanos(8), &frames), before);
    frames.swap(0, 299);
    assert_ne!(batch_digest(&digester, time, &frames), before);
}

#[test]
fn a_batch_counts_the_same_whatever_proves_its_frames_and_stays_one_in_the_other_form() {
    // As many frames as fit when each counts as if it had MACs, whether it has them or not.
    let counted = with_macs(0, 1, None).len();
    let limits = CheckerLimits {
        batch_bytes_max: 3 * counted,
        ..LIMITS
    };
    let mut checker = checker_with(1, ClientAuth::Mac, limits);
    let three = |form: fn(u64) -> Bytes| propose(&[form(1), form(2), form(3)]);
    let four = |form: fn(u64) -> Bytes| propose(&[form(1), form(2), form(3), form(4)]);
    for form in [
        |sequence| with_macs(0, sequence, None),
        |sequence| with_signature(0, sequence, 0),
    ] {
        assert_eq!(check_proposal(&mut checker, &three(form)), Ok(true));
        let refused = check_proposal(&mut checker, &four(form)).unwrap_err();
        assert!(matches!(refused, BatchError::TooLong { .. }), "{refused}");
    }
}

#[test]
fn no_form_of_a_frame_is_longer_than_it_counts() {
    for macs in [1, 4, 7, 64] {
        let frame = |authenticator| {
            let bytes = archive(body(1, 1, Mode::Ordered), authenticator);
            let frame = Frame::check(bytes, 8, 4096, |_| Digest::ZERO).unwrap();
            frame.allowing_for(macs)
        };
        let forms = [
            frame(Authenticator::Macs(vec![[7; 16]; macs])),
            frame(Authenticator::Signature([7; 64])),
        ];
        assert_eq!(forms[0].counted_bytes(), forms[1].counted_bytes());
        assert_eq!(forms[0].counted_bytes(), forms[0].bytes().len());
        assert!(forms[1].bytes().len() < forms[1].counted_bytes());
    }
}

/// A frame of the client that asks for this change.
fn asks(client: u32, sequence: u64, request: &ChangeRequest, mode: Mode) -> Bytes {
    let mut builder = FrameBuilder::default();
    builder.push(&request.encode()).unwrap();
    let body = builder.finish(ClientId::new(client), FrameSeq::new(sequence), mode);
    signed_body(client, body)
}

#[test]
fn a_change_is_proposed_alone_and_only_where_the_membership_allows_it() {
    let membership = founding(4);
    let add = |number| Change::AddClient(membership_client(number));
    let possible = signed(&membership, vec![add(3)], 2);
    let unsigned = signed(&membership, vec![add(3)], 1);
    let wrong = signed(&membership, vec![add(7)], 2);
    let propose_one = |frame: Bytes| propose(&[frame]);
    let refused = Err(BatchError::Change(0));

    let mut without = checker(1, ClientAuth::Signature);
    let good = propose_one(asks(1, 1, &possible, Mode::Change));
    assert_eq!(
        check_proposal(&mut without, &good),
        refused,
        "nothing can be changed there"
    );

    let mut judges = checker(1, ClientAuth::Signature).with_membership(membership.clone());
    assert_eq!(check_proposal(&mut judges, &good), Ok(true));
    for request in [&unsigned, &wrong] {
        let bad = propose_one(asks(1, 1, request, Mode::Change));
        assert_eq!(check_proposal(&mut judges, &bad), refused);
        assert_eq!(check_proposal(&mut judges, &bad), refused, "and once more");
    }
    let [first, second] = [with_signature(0, 1, 0), asks(1, 1, &possible, Mode::Change)];
    let together = propose(&[first, second]);
    assert_eq!(check_proposal(&mut judges, &together), Err(BatchError::Change(1)));
    let mut two = FrameBuilder::default();
    two.push(&possible.encode()).unwrap();
    two.push(&possible.encode()).unwrap();
    let two = two.finish(ClientId::new(1), FrameSeq::new(1), Mode::Change);
    assert_eq!(
        check_proposal(&mut judges, &propose_one(signed_body(1, two))),
        refused
    );
    // Whoever may not hand changes in: the client is told, and a leader that proposes it lies.
    let next = membership.next(&signed(
        &membership,
        vec![Change::LimitClient {
            client: ClientId::new(1),
            rights: ClientRights {
                admin: false,
                ..ClientRights::ALL
            },
            operations_per_second: None,
        }],
        2,
    ));
    let next = next.unwrap();
    let later = signed(&next, vec![add(3)], 2);
    let mut judges = checker(1, ClientAuth::Signature).with_membership(next);
    let frame = asks(1, 1, &later, Mode::Change);
    assert_eq!(check_proposal(&mut judges, &propose_one(frame.clone())), refused);
    let told = judges.take_frame(ClientId::new(1), frame);
    assert!(matches!(told, Err((Some(_), FrameRefusal::Change))), "{told:?}");
    let by_another = asks(0, 1, &later, Mode::Change);
    assert_eq!(check_proposal(&mut judges, &propose_one(by_another)), Ok(true));
    let stale = asks(0, 2, &possible, Mode::Change);
    assert_eq!(
        check_proposal(&mut judges, &propose_one(stale)),
        refused,
        "it builds on the epoch before"
    );
}
