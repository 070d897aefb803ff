use super::*;

/// A membership with one of each thing that can be in it.
fn various() -> Membership {
    let mut genesis = genesis(1);
    genesis.members[0].id = NodeId::new(2);
    genesis.clients.truncate(1);
    genesis.clients[0].operations_per_second = std::num::NonZeroU32::new(7);
    genesis.operators.truncate(1);
    genesis.operators_threshold = 1;
    let base = genesis.membership().unwrap();
    let (member, addresses) = (NodeId::new(2), vec!["a:1".to_owned(), "b:2".to_owned()]);
    base.draft(&[Change::SetAddresses { member, addresses }]).unwrap()
}

/// One of each kind of change.
pub(super) fn changes() -> Vec<Change> {
    let (signing_key, link_key) = (signing(1, 1, 1), link(2, 1, 1));
    vec![
        Change::AddMember(member(4)),
        Change::RemoveMember(NodeId::new(0)),
        Change::ReplaceMember {
            old: NodeId::new(2),
            new: member(5),
        },
        Change::RotateMemberKeys {
            member: NodeId::new(1),
            signing_key,
            link_key,
        },
        Change::SetAddresses {
            member: NodeId::new(3),
            addresses: vec!["b.example:8".to_owned()],
        },
        Change::AddClient(client(3)),
        Change::RevokeClient(ClientId::new(0)),
        Change::LimitClient {
            client: ClientId::new(1),
            rights: ClientRights {
                read: true,
                ..ClientRights::NONE
            },
            operations_per_second: std::num::NonZeroU32::new(500),
        },
        Change::RotateClientKeys {
            client: ClientId::new(2),
            signing_key: signing(3, 2, 1),
            link_key: link(4, 2, 1),
        },
        Change::SetAgreement(AgreementSetting::Unordered(true)),
        Change::SetOperators(
            Operators::new(
                1,
                (0..2)
                    .map(|number| operator_key(number).verifying_key())
                    .collect(),
            )
            .unwrap(),
        ),
        Change::RaiseProtocolVersion(4),
        Change::ActivateApplication(2),
    ]
}

/// What decodes bytes and encodes the result again.
type Again = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

/// Small encodings of each kind, and how each is read.
fn all() -> Vec<(&'static str, Vec<u8>, Again)> {
    let membership = various();
    let (head, base) = (membership.head().clone(), founding(1));
    let mut small = genesis(1);
    small.clients.truncate(1);
    small.operators.truncate(1);
    small.operators_threshold = 1;
    let cluster = membership.head().cluster();
    let next = change(&base, vec![Change::RevokeClient(ClientId::new(0))]).unwrap();
    let certificate = handover(&base, 3, &next);
    vec![
        (
            "genesis",
            small.encode(),
            Box::new(move |bytes| Genesis::decode(bytes).ok().map(|genesis| genesis.encode())),
        ),
        (
            "membership",
            membership.encode(),
            Box::new(move |bytes| {
                Membership::decode(cluster, bytes)
                    .ok()
                    .map(|membership| membership.encode())
            }),
        ),
        (
            "head",
            head.encode(),
            Box::new(move |bytes| {
                MembershipHead::decode(cluster, bytes)
                    .ok()
                    .map(|head| head.encode())
            }),
        ),
        (
            "request",
            signed(&founding(4), changes(), 2).encode(),
            Box::new(move |bytes| ChangeRequest::decode(bytes).ok().map(|request| request.encode())),
        ),
        (
            "certificate",
            certificate.encode(),
            Box::new(move |bytes| {
                HandoverCertificate::decode(bytes)
                    .ok()
                    .map(|certificate| certificate.encode())
            }),
        ),
        (
            "piece",
            encode_piece(&[certificate]).0,
            Box::new(move |bytes| {
                decode_piece(bytes)
                    .ok()
                    .map(|certificates| encode_piece(&certificates).0)
            }),
        ),
    ]
}

#[test]
fn everything_is_read_as_it_was_written_and_cut_or_longer_it_is_refused() {
    for (name, bytes, again) in all() {
        assert_eq!(again(&bytes).as_ref(), Some(&bytes), "{name}");
        for length in 0..bytes.len() {
            assert_eq!(again(&bytes[..length]), None, "{name} cut after {length} bytes");
        }
        for more in [0, 1, 255] {
            assert_eq!(
                again(&[&bytes[..], &[more]].concat()),
                None,
                "{name} and one byte"
            );
        }
    }
}

#[test]
fn every_change_of_a_byte_is_refused_or_means_something_else_in_its_one_form() {
    for (name, bytes, again) in all() {
        let (mut refused, mut read) = (0, 0);
        for at in 0..bytes.len() {
            for value in 0..=255 {
                let mut changed = bytes.clone();
                changed[at] = value;
                match again(&changed) {
                    None => refused += 1,
                    Some(same) => {
                        assert!(same == changed, "{name}: byte {at} as {value}");
                        read += 1;
                    }
                }
            }
        }
        assert!(refused > 0 && read > bytes.len(), "{name}: {refused} {read}");
    }
}

#[test]
fn what_a_membership_cannot_be_is_no_encoding_of_one() {
    let membership = founding(4);
    let cluster = membership.head().cluster();
    let refused = |change: fn(&mut MembershipHead)| {
        let mut head = membership.head().clone();
        change(&mut head);
        let refusal = MembershipHead::decode(cluster, &head.encode()).unwrap_err();
        assert!(!refusal.to_string().is_empty());
        refusal
    };
    use MalformedMembership as Malformed;
    type Broken = fn(&mut MembershipHead);
    let impossible: [Broken; 8] = [
        |head| head.members.swap(0, 1),
        |head| head.members[1].signing_key = head.members[0].signing_key,
        |head| head.next_node = 3,
        |head| head.next_node = 65_537,
        |head| head.next_client = 2,
        |head| head.next_client = (1 << 32) + 1,
        |head| head.agreement.checkpoint_decisions = 0,
        |head| head.protocol_version = 0,
    ];
    for (number, broken) in impossible.iter().enumerate() {
        assert!(matches!(refused(*broken), Malformed::Impossible(_)), "{number}");
    }
    assert_eq!(
        refused(|head| head.application = ApplicationId::NONE),
        Malformed::Unknown("the application")
    );
    assert!(matches!(
        refused(|head| head.operators = Operators::unchecked(4, head.operators.keys().to_vec())),
        Malformed::Impossible(MembershipError::Threshold { .. })
    ));
}

#[test]
fn clients_that_are_not_the_ones_of_a_head_do_not_make_a_membership() {
    let membership = founding(4);
    let with = |change: fn(&mut Vec<RegisteredClient>)| {
        let mut clients = membership.clients().to_vec();
        change(&mut clients);
        Membership::new(membership.head().clone(), clients)
    };
    assert_eq!(with(|_| {}), Ok(membership.clone()));
    assert_eq!(
        with(|clients| clients.truncate(2)),
        Err(MembershipError::OtherClients)
    );
    assert_eq!(
        with(|clients| clients[1].rights.admin = false),
        Err(MembershipError::OtherClients)
    );
    assert!(matches!(
        with(|clients| clients.swap(0, 2)),
        Err(MembershipError::ClientOrder(_))
    ));
    assert!(matches!(
        with(|clients| clients[0].signing_key = founder(1).signing_key),
        Err(MembershipError::OtherClients)
    ));
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused_before_anything_is_made() {
    let mut request = signed(&founding(4), changes(), 2).encode();
    for (count, expected) in [
        (u32::MAX, "4294967295 changes, at most 1024"),
        (1024, "the bytes end in the middle of changes"),
    ] {
        request[26..30].copy_from_slice(&u32::to_le_bytes(count));
        assert_eq!(ChangeRequest::decode(&request).unwrap_err().to_string(), expected);
    }
    let long = vec![0; CHANGE_REQUEST_BYTES_MAX + 1];
    assert!(matches!(
        ChangeRequest::decode(&long),
        Err(MalformedMembership::TooMany { .. })
    ));
    let mut genesis = genesis(1).encode();
    genesis[2..6].copy_from_slice(&[0xff; 4]);
    let refused = Genesis::decode(&genesis).unwrap_err().to_string();
    assert_eq!(refused, "4294967295 bytes of a name, at most 256");
    genesis[0] = 2;
    let refused = Genesis::decode(&genesis).unwrap_err().to_string();
    assert_eq!(refused, "format 2 of a genesis, expected 1");
}

#[test]
fn signatures_out_of_order_are_no_encoding() {
    let mut request = signed(&founding(4), changes(), 2);
    request.signatures.reverse();
    let refused = ChangeRequest::decode(&request.encode());
    assert_eq!(refused, Err(MalformedMembership::Unsorted("signatures")));
}
