use super::*;

fn refused(base: &Membership, changes: Vec<Change>) -> ChangeRefused {
    change(base, changes).unwrap_err()
}

fn node(number: u16) -> NodeId {
    NodeId::new(number)
}

#[test]
fn each_change_changes_what_it_says_and_nothing_else() {
    let base = founding(4);
    let next = |one: Change| change(&base, vec![one]).unwrap();
    let ids = |membership: &Membership| -> Vec<u16> {
        let members = membership.head().members().iter();
        members.map(|member| member.id.get()).collect()
    };
    assert_eq!(ids(&next(Change::AddMember(member(4)))), [0, 1, 2, 3, 4]);
    assert_eq!(ids(&next(Change::RemoveMember(node(0)))), [1, 2, 3]);
    let (old, new) = (node(2), member(4));
    let replaced = next(Change::ReplaceMember { old, new });
    assert_eq!(ids(&replaced), [0, 1, 3, 4]);
    assert_eq!(replaced.clients(), base.clients());

    let rotated = next(Change::RotateMemberKeys {
        member: node(1),
        signing_key: signing(1, 1, 1),
        link_key: link(2, 1, 0),
    });
    let known = rotated.head().member(node(1)).unwrap();
    assert_eq!(
        (known.signing_key, known.link_key),
        (signing(1, 1, 1), link(2, 1, 0))
    );
    let addresses = vec!["[::1]:7".to_owned(), "b.example:8".to_owned()];
    let moved = next(Change::SetAddresses {
        member: node(3),
        addresses: addresses.clone(),
    });
    assert_eq!(moved.head().member(node(3)).unwrap().addresses, addresses);

    let registered = next(Change::AddClient(client(3)));
    assert_eq!(registered.client(ClientId::new(3)), Some(&client(3)));
    let revoked = next(Change::RevokeClient(ClientId::new(1)));
    assert_eq!(revoked.client(ClientId::new(1)), None);
    assert_eq!((revoked.clients().len(), revoked.head().next_client()), (2, 3));
    let rights = ClientRights {
        write: false,
        ..ClientRights::ALL
    };
    let limited = next(Change::LimitClient {
        client: ClientId::new(2),
        rights,
        operations_per_second: std::num::NonZeroU32::new(10),
    });
    let known = limited.client(ClientId::new(2)).unwrap();
    assert_eq!(
        (known.rights, known.operations_per_second.unwrap().get()),
        (rights, 10)
    );
    let rotated = next(Change::RotateClientKeys {
        client: ClientId::new(0),
        signing_key: signing(3, 0, 0),
        link_key: link(4, 0, 1),
    });
    assert_eq!(rotated.client(ClientId::new(0)).unwrap().link_key, link(4, 0, 1));

    let set = next(Change::SetAgreement(AgreementSetting::BatchBytesMax(2 << 20)));
    assert_eq!(set.head().agreement().batch_bytes_max, 2 << 20);
    let operators = Operators::new(1, vec![operator_key(7).verifying_key()]).unwrap();
    let handed = next(Change::SetOperators(operators.clone()));
    assert_eq!(*handed.head().operators(), operators);
    assert_eq!(next(Change::RaiseProtocolVersion(4)).head().protocol_version(), 4);
    assert_eq!(
        next(Change::ActivateApplication(9))
            .head()
            .application()
            .version(),
        9
    );
    for other in [replaced, registered, set, handed] {
        assert_eq!(
            Membership::decode(other.head().cluster(), &other.encode()),
            Ok(other)
        );
    }
}

#[test]
fn enough_distinct_operators_have_to_sign_and_nobody_else_may() {
    let base = founding(4);
    let request = |signers| signed(&base, vec![Change::AddClient(client(3))], signers);
    assert!(base.next(&request(2)).is_ok());
    assert!(base.next(&request(3)).is_ok(), "one more does no harm");
    let (got, needed) = (1, 2);
    assert_eq!(
        base.next(&request(1)),
        Err(ChangeRefused::TooFewSignatures { got, needed })
    );

    let mut twice = request(1);
    twice.signatures.push(twice.signatures[0]);
    let key = operator_key(0).verifying_key();
    assert_eq!(base.next(&twice), Err(ChangeRefused::SignedTwice(key)));

    let mut stranger = request(2);
    stranger.sign(&operator_key(9));
    let key = operator_key(9).verifying_key();
    assert_eq!(base.next(&stranger), Err(ChangeRefused::NotAnOperator(key)));
    // A member's key is no operator's.
    let mut by_member = request(1);
    by_member.sign(&member_key(0));
    assert!(matches!(
        base.next(&by_member),
        Err(ChangeRefused::NotAnOperator(_))
    ));

    let mut forged = request(3);
    forged.signatures[2].signature[3] ^= 1;
    let key = forged.signatures[2].signer;
    assert_eq!(base.next(&forged), Err(ChangeRefused::BadSignature(key)));
    let mut altered = request(2);
    altered.changes = vec![Change::AddClient(RegisteredClient {
        rights: ClientRights {
            admin: false,
            ..ClientRights::ALL
        },
        ..client(3)
    })];
    assert!(matches!(base.next(&altered), Err(ChangeRefused::BadSignature(_))));
    // What an operator signs is no other kind of signature.
    let mut other_domain = request(1);
    let signature = operator_key(1).sign(Domain::Handover, &other_domain.digest());
    let signer = operator_key(1).verifying_key();
    other_domain
        .signatures
        .push(OperatorSignature { signer, signature });
    assert_eq!(base.next(&other_domain), Err(ChangeRefused::BadSignature(signer)));
}

#[test]
fn a_request_is_about_one_membership_of_one_cluster() {
    let base = founding(4);
    let request = signed(&base, vec![Change::AddClient(client(3))], 2);
    let next = base.next(&request).unwrap();
    let (base_epoch, current) = (Epoch::ZERO, Epoch::new(1));
    let again = ChangeRefused::OtherEpoch {
        base: base_epoch,
        current,
    };
    assert_eq!(next.next(&request), Err(again), "it is not carried out twice");
    let mut other = genesis(4);
    other.random.push('1');
    let other = other.membership().unwrap();
    let cluster = base.head().cluster();
    assert_eq!(other.next(&request), Err(ChangeRefused::OtherCluster(cluster)));

    let mut closed = genesis(4);
    (closed.operators, closed.operators_threshold) = (Vec::new(), 0);
    let closed = closed.membership().unwrap();
    assert_eq!(
        refused(&closed, vec![Change::AddClient(client(3))]),
        ChangeRefused::NoOperators
    );
}

#[test]
fn operators_of_the_base_sign_and_those_of_the_next_do_afterwards() {
    let base = founding(4);
    let operators = Operators::new(
        1,
        vec![operator_key(1).verifying_key(), operator_key(7).verifying_key()],
    );
    let next = change(&base, vec![Change::SetOperators(operators.unwrap())]).unwrap();
    let mut request = ChangeRequest::new(
        next.head().cluster(),
        next.head().epoch(),
        vec![Change::AddClient(client(3))],
    );
    request.sign(&operator_key(0));
    let key = operator_key(0).verifying_key();
    assert_eq!(next.next(&request), Err(ChangeRefused::NotAnOperator(key)));
    request.signatures.clear();
    request.sign(&operator_key(7));
    assert!(next.next(&request).is_ok());
}

#[test]
fn all_of_a_request_is_done_or_nothing_and_values_that_fit_together_are_set_together() {
    let base = founding(4);
    let window = Change::SetAgreement(AgreementSetting::Window(400));
    let period = Change::SetAgreement(AgreementSetting::CheckpointDecisions(200));
    let broken = refused(&base, vec![window.clone()]);
    assert!(
        matches!(broken, ChangeRefused::Unusable(MembershipError::Agreement(_))),
        "{broken}"
    );
    let next = change(&base, vec![window.clone(), period.clone()]).unwrap();
    assert_eq!(
        (next.head().agreement().window, next.head().epoch().get()),
        (400, 1)
    );
    let spoilt = vec![window, period, Change::RemoveMember(node(9))];
    assert_eq!(refused(&base, spoilt), ChangeRefused::NoSuchMember(node(9)));
    assert_eq!(base, founding(4));
}

#[test]
fn numbers_are_given_in_turn_and_never_again() {
    let base = founding(4);
    let (got, next) = (node(5), 4);
    assert_eq!(
        refused(&base, vec![Change::AddMember(member(5))]),
        ChangeRefused::MemberNotNext { got, next }
    );
    let gone = change(&base, vec![Change::RemoveMember(node(3))]).unwrap();
    let mut back = member(3);
    back.signing_key = signing(1, 3, 1);
    back.link_key = link(2, 3, 1);
    let (got, next) = (node(3), 4);
    assert_eq!(
        refused(&gone, vec![Change::AddMember(back)]),
        ChangeRefused::MemberNotNext { got, next }
    );
    let revoked = change(&base, vec![Change::RevokeClient(ClientId::new(2))]).unwrap();
    let (got, next) = (ClientId::new(2), 3);
    assert_eq!(
        refused(&revoked, vec![Change::AddClient(client(2))]),
        ChangeRefused::ClientNotNext { got, next }
    );
    // Also not within one request.
    let both = vec![
        Change::AddClient(client(3)),
        Change::RevokeClient(ClientId::new(3)),
    ];
    let next = change(&base, both).unwrap();
    assert_eq!((next.head().next_client(), next.clients().len()), (4, 3));
    // The last number there is.
    let mut last = genesis(4);
    last.members[3].id = node(u16::MAX);
    let last = last.membership().unwrap();
    let (got, next) = (node(4), 65_536);
    assert_eq!(
        refused(&last, vec![Change::AddMember(member(4))]),
        ChangeRefused::MemberNotNext { got, next }
    );
    assert_eq!(
        MembershipHead::decode(last.head().cluster(), &last.head().encode()).as_ref(),
        Ok(last.head())
    );
}

#[test]
fn no_key_is_two_parties_in_one_epoch_or_over_a_change() {
    let base = founding(4);
    let taken = |changes: Vec<Change>| match refused(&base, changes) {
        ChangeRefused::KeyTaken { party, owner, .. } => (party, owner),
        other => panic!("{other}"),
    };
    let new_client = Party::Client(ClientId::new(3));
    let with = |key| RegisteredClient {
        signing_key: key,
        ..client(3)
    };
    for (key, owner) in [
        (founder(1).signing_key, Party::Member(node(1))),
        (client(2).signing_key, Party::Client(ClientId::new(2))),
        (operator_key(2).verifying_key(), Party::Operator),
        // A key for links is none to sign with.
        (
            VerifyingKey::from_bytes(*founder(0).link_key.as_bytes()),
            Party::Member(node(0)),
        ),
    ] {
        assert_eq!(taken(vec![Change::AddClient(with(key))]), (new_client, owner));
    }
    // Who leaves takes its keys along.
    let mut thief = member(4);
    thief.signing_key = founder(2).signing_key;
    let (old, new) = (node(2), thief);
    let replaced = taken(vec![Change::ReplaceMember { old, new }]);
    assert_eq!(replaced, (Party::Member(node(4)), Party::Member(node(2))));
    // Two that are new.
    let mut twin = client(4);
    twin.link_key = client(3).link_key;
    let twins = taken(vec![Change::AddClient(client(3)), Change::AddClient(twin)]);
    assert_eq!(twins, (Party::Client(ClientId::new(4)), new_client));
    let mut same = member(4);
    let is_a_link_key = |key: &VerifyingKey| LinkPublic::from_bytes(*key.as_bytes()).is_usable();
    let mut renewed = (0..).map(|renewal| signing(1, 4, renewal));
    same.signing_key = renewed.find(is_a_link_key).unwrap();
    same.link_key = LinkPublic::from_bytes(*same.signing_key.as_bytes());
    assert_eq!(taken(vec![Change::AddMember(same)]).0, Party::Member(node(4)));
    let operators = Operators::new(1, vec![founder(3).signing_key]).unwrap();
    let operator = taken(vec![Change::SetOperators(operators)]);
    assert_eq!(operator, (Party::Operator, Party::Member(node(3))));
}

#[test]
fn keys_that_everybody_can_use_are_refused() {
    let base = founding(4);
    let mut weak = client(3);
    weak.signing_key = VerifyingKey::from_bytes([0; 32]);
    let mut none = member(4);
    none.link_key = LinkPublic::from_bytes([0; 32]);
    for changes in [vec![Change::AddClient(weak)], vec![Change::AddMember(none)]] {
        let refusal = refused(&base, changes);
        let is_bad = matches!(refusal, ChangeRefused::Unusable(MembershipError::BadKey { .. }));
        assert!(is_bad, "{refusal}");
    }
}

#[test]
fn what_leaves_no_usable_cluster_is_refused() {
    let base = founding(1);
    let nobody = refused(&base, vec![Change::RemoveMember(node(0))]);
    assert!(
        matches!(nobody, ChangeRefused::Unusable(MembershipError::Size(_))),
        "{nobody}"
    );
    let many = refused(
        &base,
        (1..65).map(|number| Change::AddMember(member(number))).collect(),
    );
    assert!(
        matches!(many, ChangeRefused::Unusable(MembershipError::Size(_))),
        "{many}"
    );
    let full = change(
        &base,
        (1..64).map(|number| Change::AddMember(member(number))).collect(),
    );
    assert_eq!(full.unwrap().head().quorum().n(), 64);
    let none = refused(&base, vec![Change::SetOperators(Operators::NONE)]);
    assert!(
        matches!(none, ChangeRefused::Unusable(MembershipError::Threshold { .. })),
        "{none}"
    );
    assert!(Operators::new(3, vec![operator_key(0).verifying_key()]).is_err());
    let mut lost = member(1);
    lost.addresses.clear();
    assert_eq!(
        refused(&base, vec![Change::AddMember(lost)]),
        ChangeRefused::NoAddress(node(1))
    );
    let mut same = member(2);
    same.addresses = member(1).addresses;
    let same = refused(&base, vec![Change::AddMember(member(1)), Change::AddMember(same)]);
    let is_same = matches!(
        same,
        ChangeRefused::Unusable(MembershipError::AddressTwice { .. })
    );
    assert!(is_same, "{same}");
    for address in ["host", "host:", ":7", "a b:7", "host:70000", "\u{1b}[2J:7"] {
        let addresses = vec![address.to_owned()];
        let member = node(0);
        let bad = refused(&base, vec![Change::SetAddresses { member, addresses }]);
        let is_bad = matches!(bad, ChangeRefused::Unusable(MembershipError::BadAddress(..)));
        assert!(is_bad, "{address:?}: {bad}");
    }
    let client = ClientId::new(0);
    let mute = Change::LimitClient {
        client,
        rights: ClientRights::NONE,
        operations_per_second: None,
    };
    assert_eq!(
        refused(&base, vec![mute]),
        MembershipError::NoRights(client).into()
    );
}

#[test]
fn versions_only_go_up_and_the_protocols_by_one() {
    let base = founding(4);
    let current = 3;
    for got in [0, 2, 3, 5] {
        assert_eq!(
            refused(&base, vec![Change::RaiseProtocolVersion(got)]),
            ChangeRefused::ProtocolVersionNotNext { got, current }
        );
    }
    let twice = vec![Change::RaiseProtocolVersion(4), Change::RaiseProtocolVersion(5)];
    let got = 5;
    assert_eq!(
        refused(&base, twice),
        ChangeRefused::ProtocolVersionNotNext { got, current }
    );
    for got in [0, 1] {
        let current = 1;
        assert_eq!(
            refused(&base, vec![Change::ActivateApplication(got)]),
            ChangeRefused::ApplicationVersionNotLater { got, current }
        );
    }
}

#[test]
fn what_changes_nothing_or_names_nobody_is_refused() {
    let base = founding(4);
    assert_eq!(refused(&base, Vec::new()), ChangeRefused::NoChanges);
    let (member, client) = (node(1), ClientId::new(1));
    let known = base.client(client).unwrap().clone();
    let nothing = [
        Change::RotateMemberKeys {
            member,
            signing_key: founder(1).signing_key,
            link_key: founder(1).link_key,
        },
        Change::LimitClient {
            client,
            rights: known.rights,
            operations_per_second: None,
        },
        Change::RotateClientKeys {
            client,
            signing_key: known.signing_key,
            link_key: known.link_key,
        },
        Change::SetAgreement(AgreementSetting::Unordered(false)),
        Change::SetOperators(base.head().operators().clone()),
    ];
    for change in nothing {
        let refusal = refused(&base, vec![change.clone()]);
        assert_eq!(refusal, ChangeRefused::NoEffect(change.to_string()));
    }
    let (node, client) = (node(9), ClientId::new(9));
    assert_eq!(
        refused(&base, vec![Change::RemoveMember(node)]),
        ChangeRefused::NoSuchMember(node)
    );
    assert_eq!(
        refused(&base, vec![Change::RevokeClient(client)]),
        ChangeRefused::NoSuchClient(client)
    );
    let twice = vec![Change::RevokeClient(ClientId::new(1)); 2];
    assert_eq!(
        refused(&base, twice),
        ChangeRefused::NoSuchClient(ClientId::new(1))
    );
    let many = (3..3 + 1025)
        .map(|number| Change::AddClient(client_of(number)))
        .collect();
    assert!(matches!(
        refused(&base, many),
        ChangeRefused::TooLong { changes: 1025, .. }
    ));
}

/// One whose keys nobody has made: they are not looked at.
fn client_of(number: u32) -> RegisteredClient {
    RegisteredClient {
        id: ClientId::new(number),
        ..client(3)
    }
}

#[test]
fn a_setting_is_read_as_files_write_it() {
    for (key, value, expected) in [
        (
            "client_auth",
            "mac",
            Some(AgreementSetting::ClientAuth(ClientAuth::Mac)),
        ),
        (
            "batch_bytes_max",
            "2MiB",
            Some(AgreementSetting::BatchBytesMax(2 << 20)),
        ),
        (
            "batch_bytes_max",
            "4096",
            Some(AgreementSetting::BatchBytesMax(4096)),
        ),
        ("clock_bound_ms", "5s", Some(AgreementSetting::ClockBoundMs(5000))),
        ("unordered", "true", Some(AgreementSetting::Unordered(true))),
        ("window", "2MiB", None),
        ("unordered", "yes", None),
        ("batch_byte_max", "1", None),
    ] {
        assert_eq!(
            AgreementSetting::parse(key, value).ok(),
            expected,
            "{key} = {value}"
        );
    }
    let agreement = Agreement::default();
    for setting in agreement.settings() {
        let value = setting.value();
        let read = AgreementSetting::parse(setting.key(), value.trim_matches('"'));
        assert_eq!(read.unwrap(), setting);
        assert_eq!(agreement.with(setting), agreement);
    }
    let error = AgreementSetting::parse("batch_byte_max", "1")
        .unwrap_err()
        .to_string();
    assert!(error.contains("must be one of client_auth, "), "{error}");
}

#[test]
fn operators_are_told_what_a_change_risks() {
    let risks = |base: &Membership, changes: &[Change]| Risk::of(base, &base.draft(changes).unwrap());
    let four = founding(4);
    assert_eq!(risks(&four, &[Change::AddClient(client(3))]), []);
    let (old, new) = (node(0), member(4));
    assert_eq!(risks(&four, &[Change::ReplaceMember { old, new }]), []);
    let two = [(0, 4), (1, 5)].map(|(old, new)| Change::ReplaceMember {
        old: node(old),
        new: member(new),
    });
    let (new, members, faults) = (2, 4, 1);
    assert_eq!(
        risks(&four, &two),
        [Risk::WaitsForNewMembers { new, members, faults }]
    );
    let three = [(0, 4), (1, 5), (2, 6)].map(|(old, new)| Change::ReplaceMember {
        old: node(old),
        new: member(new),
    });
    let (new, staying) = (3, 1);
    assert_eq!(
        risks(&four, &three),
        [
            Risk::WaitsForNewMembers { new, members, faults },
            Risk::StateMayBeLost { staying, faults }
        ]
    );
    let fewer = risks(&four, &[Change::RemoveMember(node(3))]);
    let (before, after) = (1, 0);
    assert_eq!(
        fewer,
        [
            Risk::NoFaultTolerated { members: 3 },
            Risk::FewerFaultsTolerated { before, after },
            Risk::MoreMembersThanNeeded {
                members: 3,
                faults: 0,
                enough: 1
            }
        ]
    );
    let five = risks(&four, &[Change::AddMember(member(4))]);
    assert_eq!(
        five,
        [Risk::MoreMembersThanNeeded {
            members: 5,
            faults: 1,
            enough: 4
        }]
    );
    let alone = Operators::new(1, vec![operator_key(8).verifying_key()]).unwrap();
    let (known, threshold) = (0, 1);
    assert_eq!(
        risks(&four, &[Change::SetOperators(alone)]),
        [
            Risk::OneOperator,
            Risk::EveryOperatorNeeded { operators: 1 },
            Risk::OperatorsUnproven { known, threshold }
        ]
    );
    let limited = |number| Change::LimitClient {
        client: ClientId::new(number),
        rights: ClientRights {
            admin: false,
            ..ClientRights::ALL
        },
        operations_per_second: None,
    };
    let mut various: Vec<Change> = (0..3).map(limited).collect();
    various.push(Change::SetAgreement(AgreementSetting::ClientAuth(
        ClientAuth::Mac,
    )));
    various.push(Change::RaiseProtocolVersion(4));
    various.push(Change::ActivateApplication(2));
    let all = risks(&four, &various);
    assert_eq!(
        all,
        [
            Risk::MacsProveFrames,
            Risk::NoAdminClient,
            Risk::ProtocolRaised { version: 4 },
            Risk::ApplicationActivated { version: 2 }
        ]
    );
    for line in all.into_iter().chain(fewer).map(|risk| risk.to_string()) {
        assert!(line.len() > 30 && !line.contains('\n'), "{line}");
    }
}
