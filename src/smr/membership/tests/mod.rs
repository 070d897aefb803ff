use super::*;
use crate::smr::crypto::{Digester, Domain, LinkPublic, LinkSecret, SigningKey, VerifyingKey};
use crate::smr::messages::CheckpointClaim;
use crate::smr::types::{ApplicationId, ClientId, Digest, Epoch, NodeId, SeqNo};

mod chains;
mod encodings;
mod random;
mod transitions;
mod vectors;

/// Whose secret it is, of which number, and how often it was renewed.
fn seed(kind: u8, number: u32, renewal: u8) -> [u8; 32] {
    let mut seed = [kind; 32];
    // Not at the ends, of which X25519 sets some bits itself.
    seed[8..12].copy_from_slice(&number.to_le_bytes());
    seed[12] = renewal;
    seed
}

pub(crate) fn member_key(number: u16) -> SigningKey {
    SigningKey::from_seed(&seed(1, number.into(), 0))
}

fn operator_key(number: u32) -> SigningKey {
    SigningKey::from_seed(&seed(5, number, 0))
}

fn link(kind: u8, number: u32, renewal: u8) -> LinkPublic {
    LinkSecret::from_bytes(&seed(kind, number, renewal)).public()
}

fn signing(kind: u8, number: u32, renewal: u8) -> VerifyingKey {
    SigningKey::from_seed(&seed(kind, number, renewal)).verifying_key()
}

/// A member that joins.
fn member(number: u16) -> Member {
    Member {
        addresses: vec![format!("host-{number}.example:7000")],
        ..founder(number)
    }
}

fn founder(number: u16) -> Member {
    Member {
        id: NodeId::new(number),
        signing_key: member_key(number).verifying_key(),
        link_key: link(2, number.into(), 0),
        addresses: Vec::new(),
    }
}

pub(crate) fn client(number: u32) -> RegisteredClient {
    RegisteredClient {
        id: ClientId::new(number),
        signing_key: signing(3, number, 0),
        link_key: link(4, number, 0),
        rights: ClientRights::ALL,
        operations_per_second: None,
    }
}

/// A cluster of so many members, with three clients, of which two of three operators have to sign.
pub(crate) fn genesis(members: u16) -> Genesis {
    Genesis {
        name: "test".to_owned(),
        random: "00".to_owned(),
        members: (0..members).map(founder).collect(),
        clients: (0..3).map(client).collect(),
        operators: (0..3)
            .map(|number| operator_key(number).verifying_key())
            .collect(),
        operators_threshold: 2,
        agreement: Agreement::default(),
        application: ApplicationId::new("kv", 1).unwrap(),
        protocol_version: 3,
    }
}

pub(crate) fn founding(members: u16) -> Membership {
    genesis(members).membership().unwrap()
}

/// A request that the first operators have signed.
pub(crate) fn signed(base: &Membership, changes: Vec<Change>, signers: u32) -> ChangeRequest {
    let head = base.head();
    let mut request = ChangeRequest::new(head.cluster(), head.epoch(), changes);
    (0..signers).for_each(|number| request.sign(&operator_key(number)));
    request
}

/// What two operators' request makes of a membership.
pub(crate) fn change(base: &Membership, changes: Vec<Change>) -> Result<Membership, ChangeRefused> {
    base.next(&signed(base, changes, 2))
}

fn closing(seq: u64) -> CheckpointClaim {
    CheckpointClaim {
        seq: SeqNo::new(seq),
        digest: Digest::from_bytes([seq as u8; 32]),
    }
}

/// The signatures of these members of an end and a successor.
fn signatures(
    ending: &MembershipHead,
    closing: CheckpointClaim,
    next: &MembershipHead,
    signers: impl IntoIterator<Item = u16>,
) -> Vec<HandoverSignature> {
    let statement = HandoverStatement {
        cluster: ending.cluster(),
        epoch: ending.epoch(),
        closing,
        next: next.digest(),
    };
    let sign = |signer| statement.sign(NodeId::new(signer), &member_key(signer));
    signers.into_iter().map(sign).collect()
}

/// The certificate that all members of an epoch sign.
fn handover(ending: &Membership, seq: u64, next: &Membership) -> HandoverCertificate {
    let (ending, next) = (ending.head(), next.head().clone());
    let signers = ending.members().iter().map(|member| member.id.get());
    let signed = signatures(ending, closing(seq), &next, signers);
    HandoverCertificate::gather(ending, closing(seq), next, &signed).unwrap()
}

#[test]
fn the_identity_covers_all_of_the_founding_membership_but_addresses() {
    let base = genesis(4);
    let id = base.cluster_id();
    assert_eq!(base.membership().unwrap().head().cluster(), id);
    let others: [fn(&mut Genesis); 9] = [
        |genesis| genesis.name.push('x'),
        |genesis| genesis.random.push('x'),
        |genesis| {
            genesis.members[2] = Member {
                link_key: link(9, 9, 9),
                ..founder(2)
            }
        },
        |genesis| genesis.clients.truncate(2),
        |genesis| genesis.clients[1].rights.admin = false,
        |genesis| genesis.operators_threshold = 1,
        |genesis| genesis.operators.truncate(2),
        |genesis| genesis.agreement.clock_bound_ms += 1,
        |genesis| genesis.application = ApplicationId::new("kv", 2).unwrap(),
    ];
    for (number, change) in others.iter().enumerate() {
        let mut other = base.clone();
        change(&mut other);
        assert_ne!(other.cluster_id(), id, "{number}");
    }
    // The name and the random text are apart.
    let mut moved = base.clone();
    (moved.name, moved.random) = ("tes".to_owned(), "t00".to_owned());
    assert_ne!(moved.cluster_id(), id);
    // Operators are a set.
    let mut turned = base.clone();
    turned.operators.reverse();
    assert_eq!(turned.cluster_id(), id);
}

#[test]
fn a_genesis_of_which_no_cluster_can_be_born_is_refused() {
    use MembershipError as Error;
    let refused = |change: fn(&mut Genesis)| {
        let mut genesis = genesis(4);
        change(&mut genesis);
        genesis.membership().unwrap_err()
    };
    assert!(matches!(
        refused(|genesis| genesis.members.clear()),
        Error::Size(_)
    ));
    assert!(matches!(
        refused(|genesis| genesis.members = (0..65).map(founder).collect()),
        Error::Size(_)
    ));
    assert_eq!(
        refused(|genesis| genesis.members.swap(1, 2)),
        Error::MemberOrder(NodeId::new(1))
    );
    assert_eq!(
        refused(|genesis| genesis.clients.swap(0, 1)),
        Error::ClientOrder(ClientId::new(0))
    );
    assert_eq!(
        refused(|genesis| genesis.members[1] = member(1)),
        Error::FoundingAddress(NodeId::new(1))
    );
    let twice = refused(|genesis| genesis.clients[2].signing_key = genesis.members[1].signing_key);
    let words = format!(
        "the signing_key {} of client 2 is also replica 1's",
        founder(1).signing_key
    );
    assert_eq!(twice.to_string(), words);
    let bad = refused(|genesis| genesis.members[1].signing_key = VerifyingKey::from_bytes([0; 32]));
    assert!(
        matches!(
            bad,
            Error::BadKey {
                party: Party::Member(_),
                ..
            }
        ),
        "{bad}"
    );
    for (threshold, operators) in [(0, 3), (4, 3), (1, 0)] {
        let mut genesis = genesis(4);
        genesis.operators_threshold = threshold;
        genesis.operators.truncate(operators);
        assert!(matches!(
            genesis.membership().unwrap_err(),
            Error::Threshold { .. }
        ));
    }
    assert!(matches!(
        refused(|genesis| genesis.operators[1] = genesis.operators[0]),
        Error::OperatorTwice(_)
    ));
    assert_eq!(
        refused(|genesis| genesis.clients[1].rights = ClientRights::NONE),
        Error::NoRights(ClientId::new(1))
    );
    assert!(matches!(
        refused(|genesis| genesis.agreement.window = 3),
        Error::Agreement(_)
    ));
    assert_eq!(
        refused(|genesis| genesis.application = ApplicationId::NONE),
        Error::NoApplication
    );
    assert_eq!(
        refused(|genesis| genesis.protocol_version = 0),
        Error::NoProtocolVersion
    );
    assert!(matches!(
        refused(|genesis| genesis.name = "n".repeat(257)),
        Error::GenesisText("name", 257)
    ));
}

#[test]
fn members_have_the_slots_of_their_order_and_numbers_that_stay() {
    let base = founding(4);
    let next = change(
        &base,
        vec![Change::RemoveMember(NodeId::new(1)), Change::AddMember(member(4))],
    );
    let next = next.unwrap();
    let head = next.head();
    let slots = [0, 2, 3, 4].map(|number| head.slot_of(NodeId::new(number)).map(|slot| slot.index()));
    assert_eq!(slots, [0, 1, 2, 3].map(Some));
    assert_eq!(head.slot_of(NodeId::new(1)), None);
    for member in head.members() {
        let slot = head.slot_of(member.id).unwrap();
        assert_eq!(head.member_at(slot), Some(member));
    }
    assert_eq!((head.quorum().quorum(), head.epoch()), (3, Epoch::new(1)));
    assert_eq!((head.next_node(), head.next_client()), (5, 3));
    assert_eq!(head.cluster(), base.head().cluster());
}

#[test]
fn a_release_that_does_not_speak_an_epochs_version_says_so() {
    let base = founding(4);
    let raised = change(&base, vec![Change::RaiseProtocolVersion(4)]).unwrap();
    assert_eq!(base.head().check_release(3..=3), Ok(()));
    assert_eq!(raised.head().check_release(3..=4), Ok(()));
    let error = raised.head().check_release(3..=3).unwrap_err().to_string();
    assert!(
        error.contains("epoch 1 speaks protocol version 4, this release 3 to 3"),
        "{error}"
    );
}
