use super::*;
use crate::smr::crypto::Chain;
use crate::smr::messages::LightCheckpoint;

/// Memberships of a cluster that begins with four members and replaces one after the other, with the
/// certificates that lead to them.
fn history(epochs: u16) -> (Vec<Membership>, Vec<HandoverCertificate>) {
    let mut memberships = vec![founding(4)];
    let mut certificates = Vec::new();
    for epoch in 0..epochs {
        let base = memberships.last().unwrap();
        let (old, new) = (NodeId::new(epoch), member(4 + epoch));
        // Operators of every epoch are the founding ones.
        let next = change(base, vec![Change::ReplaceMember { old, new }]).unwrap();
        certificates.push(handover(base, 10 * u64::from(epoch) + 10, &next));
        memberships.push(next);
    }
    (memberships, certificates)
}

#[test]
fn a_certificate_is_exactly_a_quorum_of_valid_signatures_in_the_order_of_slots() {
    let (memberships, _) = history(1);
    let (ending, next) = (memberships[0].head(), memberships[1].head());
    let gather = |signatures: &[HandoverSignature]| {
        HandoverCertificate::gather(ending, closing(10), next.clone(), signatures)
    };
    let mut all = signatures(ending, closing(10), next, [3, 2, 1, 0]);
    let certificate = gather(&all).unwrap();
    let signers: Vec<u16> = certificate
        .signatures()
        .iter()
        .map(|one| one.signer.get())
        .collect();
    assert_eq!(signers, [0, 1, 2]);
    assert_eq!(certificate.verify(ending), Ok(()));
    assert_eq!(
        (certificate.epoch(), certificate.closing()),
        (Epoch::ZERO, closing(10))
    );

    // A forged one beside them is dropped, and a forged copy does not keep the true one out.
    all[3].signature[9] ^= 1;
    let without = gather(&all).unwrap();
    let signers: Vec<u16> = without.signatures().iter().map(|one| one.signer.get()).collect();
    assert_eq!(signers, [1, 2, 3]);
    let mut copied = signatures(ending, closing(10), next, [0, 1, 2]);
    for flip in 0..64 {
        let mut forged = copied[0];
        forged.signature[flip] ^= 0x40;
        copied.truncate(3);
        copied.push(forged);
        assert_eq!(gather(&copied).unwrap().signatures().len(), 3);
    }
    // Fewer than a quorum, one of them twice.
    let (got, quorum) = (2, 3);
    let twice = signatures(ending, closing(10), next, [0, 1, 1]);
    assert_eq!(gather(&twice), Err(HandoverRefused::NoQuorum { got, quorum }));
    let (got, members) = (5, 4);
    let many = signatures(ending, closing(10), next, [0, 1, 2, 3, 3]);
    assert_eq!(
        gather(&many),
        Err(HandoverRefused::TooManySignatures { got, members })
    );
    // A member of the next epoch alone does not count, nor does the signature of another statement.
    let strangers = signatures(ending, closing(10), next, [1, 2, 4]);
    let (got, quorum) = (2, 3);
    assert_eq!(gather(&strangers), Err(HandoverRefused::NoQuorum { got, quorum }));
    let elsewhere = signatures(ending, closing(11), next, [0, 1, 2]);
    let (got, quorum) = (0, 3);
    assert_eq!(gather(&elsewhere), Err(HandoverRefused::NoQuorum { got, quorum }));
}

#[test]
fn no_checkpoint_passes_for_a_handover() {
    let (memberships, _) = history(1);
    let (ending, next) = (memberships[0].head(), memberships[1].head());
    let digester = Digester::new(ending.cluster());
    let light = LightCheckpoint {
        seq: SeqNo::new(10),
        epoch: Epoch::ZERO,
        chain: Chain::START,
        state: CheckpointClaim::NONE,
    };
    let claim = light.claim(&digester);
    let statement = HandoverStatement {
        cluster: ending.cluster(),
        epoch: Epoch::ZERO,
        closing: claim,
        next: next.digest(),
    };
    let as_checkpoint = |signer: u16| HandoverSignature {
        signer: NodeId::new(signer),
        signature: member_key(signer).sign(Domain::Checkpoint, &claim.signed_digest(&digester)),
    };
    let in_its_domain = |signer: u16| HandoverSignature {
        signer: NodeId::new(signer),
        signature: member_key(signer).sign(Domain::Checkpoint, &statement.digest()),
    };
    for signatures in [[0, 1, 2].map(as_checkpoint), [0, 1, 2].map(in_its_domain)] {
        let certificate = HandoverCertificate::gather(ending, claim, next.clone(), &signatures);
        let (got, quorum) = (0, 3);
        assert_eq!(certificate, Err(HandoverRefused::NoQuorum { got, quorum }));
    }
}

#[test]
fn a_chain_leads_from_genesis_to_today_when_every_member_was_replaced() {
    let (memberships, certificates) = history(6);
    let chain = MembershipChain::from_genesis(&genesis(4)).unwrap();
    assert_eq!(chain.newest(), memberships[0].head());
    let chain = chain.verify(&certificates).unwrap();
    assert_eq!(chain.newest(), memberships[6].head());
    for (epoch, membership) in (0..).map(Epoch::new).zip(&memberships) {
        assert_eq!(chain.head(epoch), Some(membership.head()));
        assert_eq!(chain.since(epoch).unwrap().len() as u64, 6 - epoch.get());
        assert_eq!(chain.ended(epoch), certificates.get(epoch.get() as usize));
    }
    assert_eq!(chain.head(Epoch::new(7)), None);
    assert_eq!(chain.since(Epoch::new(9)), Some(&[][..]));
    // Who slept lacks the last ones.
    let slept = MembershipChain::from_genesis(&genesis(4)).unwrap();
    let mut slept = slept.verify(&certificates[..2]).unwrap();
    let (last, got) = (Epoch::new(2), Epoch::new(4));
    assert_eq!(slept.extend(&certificates[4]), Err(ChainError::Gap { last, got }));
    for certificate in chain.since(Epoch::new(2)).unwrap() {
        assert_eq!(slept.extend(certificate), Ok(Extension::New));
    }
    assert_eq!(slept, chain);
    assert_eq!(slept.extend(&certificates[1]), Ok(Extension::Known));
}

#[test]
fn a_pinned_epoch_is_believed_for_its_digest_and_nothing_before_it_counts() {
    let (memberships, certificates) = history(4);
    let pinned = memberships[2].digest();
    let wrong = MembershipChain::from_pinned(memberships[1].head().clone(), pinned);
    assert!(matches!(wrong, Err(ChainError::NotThePinned { .. })));
    let chain = MembershipChain::from_pinned(memberships[2].head().clone(), pinned).unwrap();
    let mut chain = chain.verify(&certificates[2..]).unwrap();
    assert_eq!(chain.newest(), memberships[4].head());
    let (first, got) = (Epoch::new(2), Epoch::new(1));
    assert_eq!(
        chain.extend(&certificates[1]),
        Err(ChainError::BeforePin { first, got })
    );
    assert_eq!(chain.since(Epoch::new(1)), None);
    assert_eq!(chain.head(Epoch::new(1)), None);
    // The keys of all members of epoch 1 make no other epoch 2 of it.
    let other = change(&memberships[1], vec![Change::AddClient(client(3))]).unwrap();
    let forged = handover(&memberships[1], 20, &other);
    assert!(matches!(chain.extend(&forged), Err(ChainError::BeforePin { .. })));
}

#[test]
fn only_members_of_the_ending_epoch_certify_its_end() {
    let (memberships, certificates) = history(5);
    let chain = MembershipChain::from_genesis(&genesis(4)).unwrap();
    let chain = chain.verify(&certificates[..4]).unwrap();
    // In epoch 4 the members are 4 to 7: those of epoch 0 have all left.
    let (ending, next) = (memberships[4].head(), memberships[5].head());
    let mut by_old = certificates[4].clone();
    let old = signatures(ending, closing(50), next, [0, 1, 2]);
    let encoded = by_old.encode();
    let tail = 3 * (2 + 64);
    let mut forged = encoded[..encoded.len() - tail].to_vec();
    for one in &old {
        forged.extend_from_slice(&one.signer.get().to_le_bytes());
        forged.extend_from_slice(&one.signature);
    }
    by_old = HandoverCertificate::decode(&forged).unwrap();
    let refused = chain.clone().extend(&by_old);
    assert_eq!(refused, Err(HandoverRefused::NotAMember(NodeId::new(0)).into()));

    // Less than a quorum, more than one, and a signature that does not hold.
    let cut = |signers: &[u16], flip: bool| {
        let mut bytes = encoded[..encoded.len() - tail - 4].to_vec();
        bytes.extend_from_slice(&(signers.len() as u32).to_le_bytes());
        for one in signatures(ending, closing(50), next, signers.iter().copied()) {
            bytes.extend_from_slice(&one.signer.get().to_le_bytes());
            bytes.extend_from_slice(&one.signature);
        }
        *bytes.last_mut().unwrap() ^= u8::from(flip);
        chain
            .clone()
            .extend(&HandoverCertificate::decode(&bytes).unwrap())
    };
    assert_eq!(cut(&[5, 6, 7], false), Ok(Extension::New));
    let quorum = 3;
    for got in [0, 1, 2, 4] {
        let signers = [4, 5, 6, 7];
        let refused = HandoverRefused::NoQuorum { got, quorum };
        assert_eq!(cut(&signers[..got], false), Err(refused.into()));
    }
    let refused = HandoverRefused::BadSignature(NodeId::new(7));
    assert_eq!(cut(&[5, 6, 7], true), Err(refused.into()));
}

#[test]
fn two_ends_of_one_epoch_are_proof_against_those_who_signed_both() {
    let (memberships, certificates) = history(3);
    let other = change(&memberships[1], vec![Change::AddClient(client(3))]).unwrap();
    let forged = handover(&memberships[1], 20, &other);
    let later = handover(&memberships[1], 21, &memberships[2]);
    let chain = MembershipChain::from_genesis(&genesis(4)).unwrap();
    let mut chain = chain.verify(&certificates).unwrap();
    let before = chain.clone();
    for second in [forged, later] {
        let Err(ChainError::Fork(proof)) = chain.extend(&second) else {
            panic!("two ends of one epoch are not noticed");
        };
        assert_eq!(*proof.first, certificates[1]);
        assert_eq!(proof.verify(memberships[1].head()), Ok(true));
        assert!(proof.verify(memberships[0].head()).is_err());
        let liars: Vec<u16> = proof.liars().map(NodeId::get).collect();
        assert_eq!(
            liars,
            [1, 2, 3],
            "members 1 to 4, of which the first three signed"
        );
        assert!(liars.len() > memberships[1].head().quorum().f());
        let error = ChainError::Fork(proof).to_string();
        assert!(
            error.starts_with("two quorums of epoch 1 say different things"),
            "{error}"
        );
    }
    assert_eq!(chain, before, "the chain stays as it is");
    // Other signatures of the same are no proof of anything.
    let (ending, next) = (memberships[1].head(), memberships[2].head());
    let others = signatures(ending, closing(20), next, [2, 3, 4]);
    let same = HandoverCertificate::gather(ending, closing(20), next.clone(), &others).unwrap();
    assert_ne!(same, certificates[1]);
    assert_eq!(chain.extend(&same), Ok(Extension::Known));
    let (first, second) = (Box::new(same), Box::new(certificates[1].clone()));
    assert_eq!(ForkProof { first, second }.verify(ending), Ok(false));
}

#[test]
fn certificates_of_other_clusters_and_successors_that_no_change_makes_are_refused() {
    let (memberships, certificates) = history(2);
    let mut other = genesis(4);
    other.random.push('1');
    let mut chain = MembershipChain::from_genesis(&other).unwrap();
    let cluster = memberships[0].head().cluster();
    let refused = HandoverRefused::OtherCluster(cluster);
    assert_eq!(chain.extend(&certificates[0]), Err(refused.into()));

    let ending = memberships[1].head();
    type Broken = fn(&mut MembershipHead);
    let impossible: [(Broken, UnlikelySuccessor); 5] = [
        (|next| next.next_client = 3, UnlikelySuccessor::NumbersTakenBack),
        (
            |next| next.members.insert(0, founder(0)),
            UnlikelySuccessor::MemberReturns(NodeId::new(0)),
        ),
        (
            |next| next.protocol_version = 2,
            UnlikelySuccessor::ProtocolVersion(2),
        ),
        (
            |next| next.protocol_version = 5,
            UnlikelySuccessor::ProtocolVersion(5),
        ),
        (
            |next| next.application = ApplicationId::new("bank", 2).unwrap(),
            UnlikelySuccessor::Application(ApplicationId::new("bank", 2).unwrap()),
        ),
    ];
    let mut ending = ending.clone();
    ending.next_client = 4;
    for (change, expected) in impossible {
        let mut next = memberships[2].head().clone();
        next.next_client = 4;
        change(&mut next);
        let signed = signatures(&ending, closing(20), &next, [1, 2, 3]);
        let refused = HandoverCertificate::gather(&ending, closing(20), next, &signed);
        assert_eq!(refused, Err(expected.into()));
    }
    let skipped = signatures(
        memberships[0].head(),
        closing(10),
        memberships[2].head(),
        [0, 1, 2],
    );
    let refused = HandoverCertificate::gather(
        memberships[0].head(),
        closing(10),
        memberships[2].head().clone(),
        &skipped,
    );
    let (got, expected) = (Epoch::new(1), Epoch::ZERO);
    assert_eq!(refused, Err(HandoverRefused::OtherEpoch { got, expected }));
}

#[test]
fn a_chain_travels_in_pieces_that_each_fit() {
    let (_, certificates) = history(3);
    let mut long = Vec::new();
    for _ in 0..300 {
        long.extend_from_slice(&certificates);
    }
    let (mut rest, mut read, mut pieces) = (&long[..], Vec::new(), 0);
    while !rest.is_empty() {
        let (piece, count) = encode_piece(rest);
        assert!(piece.len() <= PIECE_BYTES_MAX && count > 0);
        read.extend(decode_piece(&piece).unwrap());
        rest = &rest[count..];
        pieces += 1;
    }
    assert!(read == long && pieces > 1, "{pieces} pieces");
    let (empty, count) = encode_piece(&[]);
    assert_eq!((decode_piece(&empty), count), (Ok(Vec::new()), 0));
    assert!(matches!(
        decode_piece(&vec![0; PIECE_BYTES_MAX + 1]),
        Err(MalformedMembership::TooMany { .. })
    ));
}

#[test]
fn the_longest_certificate_fits_its_bound_and_a_piece() {
    let mut base = founding(1);
    let long = |number: u16| Member {
        addresses: (0..ADDRESSES_MAX)
            .map(|index| format!("{number:05}{index}{}:65535", "h".repeat(ADDRESS_BYTES_MAX - 12)))
            .collect(),
        ..member(number)
    };
    // The founder goes too, as it has no address.
    let joining = (1..64).map(|number| Change::AddMember(long(number)));
    base = change(&base, joining.collect()).unwrap();
    let keys = (10..26).map(|number| operator_key(number).verifying_key());
    let operators = Operators::new(2, keys.collect()).unwrap();
    let (old, new) = (NodeId::new(0), long(64));
    let next = change(
        &base,
        vec![
            Change::ReplaceMember { old, new },
            Change::SetOperators(operators),
        ],
    )
    .unwrap();
    let certificate = handover(&base, 10, &next);
    let bytes = certificate.encode().len();
    let spare = (64 - base.head().quorum().quorum()) * (2 + 64);
    assert_eq!(bytes + spare, HandoverCertificate::BYTES_MAX);
    let (piece, count) = encode_piece(&[certificate]);
    assert_eq!((decode_piece(&piece).unwrap().len(), count), (1, 1));
}

/// A history of three epochs of one more client each, and what made them.
fn told() -> (EpochHistory, Vec<(HandoverCertificate, ChangeRequest)>) {
    let mut history = EpochHistory::new(founding(4));
    let mut told = Vec::new();
    for number in 3..6 {
        let base = history.membership().clone();
        let request = signed(&base, vec![Change::AddClient(client(number))], 2);
        let certificate = handover(&base, 10 * u64::from(number), &base.next(&request).unwrap());
        assert_eq!(
            history.follow(&request),
            Err(NotTheChange::NotEnded(base.head().epoch())),
            "nobody has certified it"
        );
        history.extend(&certificate).unwrap();
        assert_eq!(history.lacking(), Some(base.head().epoch()));
        let other = signed(&base, vec![Change::AddClient(client(9))], 2);
        assert!(
            history.follow(&other).is_err(),
            "it makes no client of that number"
        );
        let other = signed(&base, vec![Change::RevokeClient(ClientId::new(0))], 2);
        assert_eq!(
            history.follow(&other),
            Err(NotTheChange::AnotherMembership(base.head().epoch()))
        );
        let ended = history.follow(&request).unwrap();
        assert_eq!((&ended.certificate, &ended.request), (&certificate, &request));
        assert_eq!(history.membership(), &ended.next);
        assert_eq!(history.base(), closing(10 * u64::from(number)));
        told.push((certificate, request));
    }
    (history, told)
}

#[test]
fn a_history_knows_who_was_a_client_when_and_says_so_to_who_asks() {
    let (history, told) = told();
    assert_eq!(history.lacking(), None);
    assert_eq!(history.membership().clients().len(), 6);
    for (epoch, (_, request)) in (0..).zip(&told) {
        assert_eq!(history.change(Epoch::new(epoch)), Some(request));
    }
    assert_eq!(history.change(Epoch::new(3)), None);
    assert_eq!(EpochHistory::new(founding(4)).base(), CheckpointClaim::NONE);
}

#[test]
fn a_history_that_was_written_is_read_and_verified_or_refused() {
    let (history, _) = told();
    let bytes = history.encode();
    assert_eq!(EpochHistory::decode(founding(4), &bytes).as_ref(), Ok(&history));
    let none = EpochHistory::new(founding(4));
    assert_eq!(EpochHistory::decode(founding(4), &none.encode()), Ok(none));
    for length in 0..bytes.len() {
        assert!(EpochHistory::decode(founding(4), &bytes[..length]).is_err());
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(EpochHistory::decode(founding(4), &longer).is_err());
    assert!(
        EpochHistory::decode(founding(7), &bytes).is_err(),
        "another cluster's"
    );
    for at in (0..bytes.len()).step_by(37) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(EpochHistory::decode(founding(4), &damaged).is_err(), "byte {at}");
    }
}
