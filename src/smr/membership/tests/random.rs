use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What a change is to be about: whatever `choice` finds, among what there is.
fn change_of(base: &Membership, next: (u32, u32), kind: u8, choice: u32) -> Change {
    let members = base.head().members();
    let node = members[choice as usize % members.len()].id;
    let client_id = match base.clients().len() {
        0 => ClientId::new(choice),
        all => base.clients()[choice as usize % all].id,
    };
    let renewal = (choice % 200) as u8 + 1;
    let joining = member(next.0 as u16);
    match kind % 14 {
        0 | 1 => Change::AddMember(joining),
        2 => Change::RemoveMember(node),
        3 => Change::ReplaceMember {
            old: node,
            new: joining,
        },
        4 => Change::RotateMemberKeys {
            member: node,
            signing_key: signing(1, node.get().into(), renewal),
            link_key: link(2, node.get().into(), renewal),
        },
        5 => Change::SetAddresses {
            member: node,
            addresses: vec![format!("h{choice}:1")],
        },
        6 | 7 => Change::AddClient(client(next.1)),
        8 => Change::RevokeClient(client_id),
        9 => Change::LimitClient {
            client: client_id,
            rights: ClientRights {
                write: choice.is_multiple_of(2),
                ..ClientRights::ALL
            },
            operations_per_second: std::num::NonZeroU32::new(choice % 5),
        },
        10 => Change::RotateClientKeys {
            client: client_id,
            signing_key: signing(3, client_id.get(), renewal),
            link_key: link(4, client_id.get(), renewal),
        },
        11 => Change::SetAgreement(AgreementSetting::BatchFramesMax(choice as usize % 3000)),
        12 => Change::ActivateApplication(base.head().application().version() + choice % 2),
        _ => Change::RaiseProtocolVersion(base.head().protocol_version() + (choice % 3) as u16),
    }
}

/// What has been given away, and never comes back.
#[derive(Default)]
struct Given {
    nodes: BTreeSet<NodeId>,
    clients: BTreeSet<ClientId>,
}

impl Given {
    /// Looks at a membership that follows another one, with arithmetic of its own.
    fn judge(&mut self, base: &Membership, next: &Membership) {
        let (before, after) = (base.head(), next.head());
        assert_eq!(after.epoch().get(), before.epoch().get() + 1);
        assert_eq!(after.cluster(), before.cluster());
        assert!((1..=64).contains(&after.members().len()));
        for member in after.members() {
            let is_old = before.members().iter().any(|old| old.id == member.id);
            assert!(
                is_old || !self.nodes.contains(&member.id),
                "{} is given again",
                member.id
            );
        }
        for client in next.clients() {
            let is_old = base.clients().iter().any(|old| old.id == client.id);
            assert!(
                is_old || !self.clients.contains(&client.id),
                "{} is given again",
                client.id
            );
        }
        let members = after
            .members()
            .iter()
            .flat_map(|member| [*member.signing_key.as_bytes(), *member.link_key.as_bytes()]);
        let clients = next
            .clients()
            .iter()
            .flat_map(|client| [*client.signing_key.as_bytes(), *client.link_key.as_bytes()]);
        let operators = after.operators().keys().iter().map(|key| *key.as_bytes());
        let keys: Vec<[u8; 32]> = members.chain(clients).chain(operators).collect();
        let distinct: BTreeSet<&[u8; 32]> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "a key is there twice");
        let slots = after
            .members()
            .iter()
            .map(|member| after.slot_of(member.id).unwrap().index());
        assert!(slots.eq(0..after.members().len()));
        assert!(after.agreement().validate().is_ok());
        assert!((1..=after.operators().keys().len()).contains(&after.operators().threshold()));
        assert!(after.protocol_version() - before.protocol_version() <= 1);
        assert!(after.application().version() >= before.application().version());
        let again = Membership::decode(after.cluster(), &next.encode());
        assert_eq!(
            again.as_ref(),
            Ok(next),
            "all that is checked of what is read holds"
        );
        assert_ne!(after.digest(), before.digest());
        self.note(next);
    }

    fn note(&mut self, membership: &Membership) {
        self.nodes
            .extend(membership.head().members().iter().map(|member| member.id));
        self.clients
            .extend(membership.clients().iter().map(|client| client.id));
    }
}

/// Signs the end of an epoch with the keys its members have.
fn certify(base: &Membership, next: &Membership, renewals: &[(NodeId, u8)]) -> HandoverCertificate {
    let statement = HandoverStatement {
        cluster: base.head().cluster(),
        epoch: base.head().epoch(),
        closing: closing(base.head().epoch().get()),
        next: next.digest(),
    };
    let sign = |member: &Member| {
        let last = renewals.iter().rev().find(|(node, _)| *node == member.id);
        let seed = seed(1, member.id.get().into(), last.map_or(0, |(_, renewal)| *renewal));
        statement.sign(member.id, &SigningKey::from_seed(&seed))
    };
    let signatures: Vec<_> = base.head().members().iter().map(sign).collect();
    let head = next.head().clone();
    HandoverCertificate::gather(base.head(), statement.closing, head, &signatures).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_operators_ask_for_every_epoch_is_a_sound_one_and_the_chain_leads_to_it(
        members in 1..8u16,
        requests in proptest::collection::vec(
            proptest::collection::vec((any::<u8>(), any::<u32>()), 1..4), 1..16)
    ) {
        let mut base = founding(members);
        let mut chain = MembershipChain::from_genesis(&genesis(members)).unwrap();
        let (mut given, mut renewals, mut done) = (Given::default(), Vec::new(), 0);
        given.note(&base);
        for request in requests {
            let mut next_ids = (base.head().next_node(), base.head().next_client() as u32);
            let changes: Vec<Change> = request
                .iter()
                .map(|(kind, choice)| {
                    let change = change_of(&base, next_ids, *kind, *choice);
                    match change {
                        Change::AddMember(_) | Change::ReplaceMember { .. } => next_ids.0 += 1,
                        Change::AddClient(_) => next_ids.1 += 1,
                        _ => {}
                    }
                    change
                })
                .collect();
            let signed = signed(&base, changes.clone(), 2);
            let read = ChangeRequest::decode(&signed.encode()).unwrap();
            prop_assert_eq!(&read, &signed);
            let (result, again) = (base.next(&read), base.next(&signed));
            prop_assert_eq!(&result, &again, "the same everywhere");
            prop_assert_eq!(&base.draft(&changes), &result);
            let Ok(next) = result else { continue };
            given.judge(&base, &next);
            let certificate = certify(&base, &next, &renewals);
            prop_assert_eq!(chain.extend(&certificate), Ok(Extension::New));
            prop_assert_eq!(chain.newest(), next.head());
            for change in &changes {
                if let Change::RotateMemberKeys { member, signing_key, .. } = change {
                    let renewal = (1..=200u8)
                        .find(|renewal| signing(1, member.get().into(), *renewal) == *signing_key);
                    renewals.push((*member, renewal.unwrap()));
                }
            }
            let _ = Risk::of(&base, &next);
            base = next;
            done += 1;
        }
        let whole = MembershipChain::from_genesis(&genesis(members)).unwrap();
        let (piece, count) = encode_piece(chain.since(Epoch::ZERO).unwrap());
        prop_assert_eq!(count, done);
        prop_assert_eq!(whole.verify(&decode_piece(&piece).unwrap()).unwrap(), chain);
    }

    #[test]
    fn bytes_of_anybody_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Genesis::decode(&bytes);
        let _ = Membership::decode(genesis(1).cluster_id(), &bytes);
        let _ = ChangeRequest::decode(&bytes);
        let _ = HandoverCertificate::decode(&bytes);
        let _ = decode_piece(&bytes);
    }
}
