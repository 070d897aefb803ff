//! Everything that epochs consist of: genesis, memberships, requests to change them, handover certificates,
//! and what is said about them.

use super::targets::{Runner, word};
use crate::smr::crypto::{LinkPublic, LinkSecret, SigningKey};
use crate::smr::membership::{
    Agreement, AgreementSetting, Change, ChangeRequest, ClientRights, EpochHistory, Genesis,
    HandoverCertificate, HandoverStatement, Member, Membership, MembershipChain, Operators, RegisteredClient,
    Risk, decode_piece, encode_piece,
};
use crate::smr::messages::CheckpointClaim;
use crate::smr::protocol::Outbox;
use crate::smr::reconfiguration::{
    EpochHandover, ReconfigurationMessage, ReconfigurationProtocol, SignedHandover,
};
use crate::smr::types::{ApplicationId, ClientId, Digest, Lsn, NodeId, SeqNo, Time};

/// Whose secret it is, and of which number.
fn seed(kind: u8, number: u8) -> [u8; 32] {
    let mut seed = [kind; 32];
    // Not at the ends, of which X25519 sets some bits itself.
    seed[8] = number;
    seed
}

fn signing(kind: u8, number: u8) -> SigningKey {
    SigningKey::from_seed(&seed(kind, number))
}

fn link(kind: u8, number: u8) -> LinkPublic {
    LinkSecret::from_bytes(&seed(kind, number)).public()
}

fn founder(number: u8) -> Member {
    Member {
        id: NodeId::new(number.into()),
        signing_key: signing(11, number).verifying_key(),
        link_key: link(12, number),
        addresses: Vec::new(),
    }
}

fn client(number: u8) -> RegisteredClient {
    RegisteredClient {
        id: ClientId::new(number.into()),
        signing_key: signing(13, number).verifying_key(),
        link_key: link(14, number),
        rights: ClientRights::ALL,
        operations_per_second: None,
    }
}

fn birth(members: u8) -> Genesis {
    Genesis {
        name: "fuzz".to_owned(),
        random: "00".to_owned(),
        members: (0..members).map(founder).collect(),
        clients: (0..2).map(client).collect(),
        operators: (0..2).map(|number| signing(15, number).verifying_key()).collect(),
        operators_threshold: 1,
        agreement: Agreement::default(),
        application: ApplicationId::new("fuzz", 1).expect("it is a name"),
        protocol_version: 3,
    }
}

fn founding() -> Membership {
    birth(4).membership().expect("a cluster can be born like that")
}

/// What an operator may ask for: several at once, or one that is alone.
fn changes() -> Vec<Vec<Change>> {
    let new = Member {
        addresses: vec!["fuzz.example:7000".to_owned()],
        ..founder(4)
    };
    let member = NodeId::new(1);
    let operators = vec![signing(15, 0).verifying_key(), signing(15, 7).verifying_key()];
    let operators = Operators::new(1, operators).expect("one of two is enough");
    vec![
        vec![
            Change::AddMember(new.clone()),
            Change::RotateMemberKeys {
                member,
                signing_key: signing(11, 9).verifying_key(),
                link_key: link(12, 9),
            },
            Change::SetAddresses {
                member,
                addresses: vec!["a:1".to_owned(), "b:2".to_owned()],
            },
            Change::AddClient(client(2)),
            Change::RotateClientKeys {
                client: ClientId::new(1),
                signing_key: signing(13, 9).verifying_key(),
                link_key: link(14, 9),
            },
        ],
        vec![
            Change::ReplaceMember {
                old: NodeId::new(3),
                new,
            },
            Change::RevokeClient(ClientId::new(0)),
            Change::SetOperators(operators),
        ],
        vec![
            Change::RemoveMember(NodeId::new(0)),
            Change::LimitClient {
                client: ClientId::new(1),
                rights: ClientRights {
                    read: true,
                    ..ClientRights::NONE
                },
                operations_per_second: std::num::NonZeroU32::new(9),
            },
            Change::SetAgreement(AgreementSetting::Unordered(true)),
            Change::RaiseProtocolVersion(4),
            Change::ActivateApplication(2),
        ],
    ]
}

/// The memberships that follow one another by those changes, each asked for on the founding one.
fn nexts() -> Vec<Membership> {
    let base = founding();
    let next = |changes: &Vec<Change>| base.draft(changes).expect("the changes are possible");
    changes().iter().map(next).collect()
}

/// An operator asks for the first of those changes.
fn asked() -> ChangeRequest {
    let (base, changes) = (founding(), changes().swap_remove(0));
    let mut request = ChangeRequest::new(base.head().cluster(), base.head().epoch(), changes);
    request.sign(&signing(15, 0));
    request
}

pub(super) fn geneses() -> Vec<Vec<u8>> {
    [1, 4].map(|members| birth(members).encode()).to_vec()
}

pub(super) fn genesis(input: &[u8]) -> String {
    match Genesis::decode(input) {
        Ok(genesis) => {
            assert_eq!(genesis.encode(), input, "a genesis has one form");
            let membership = genesis.membership().expect("what was decoded is sound");
            assert_eq!(membership.head().cluster(), genesis.cluster_id());
            format!("genesis of {}", genesis.members.len())
        }
        Err(error) => word(&error),
    }
}

pub(super) fn memberships() -> Vec<Vec<u8>> {
    nexts().iter().map(Membership::encode).collect()
}

pub(super) fn membership(input: &[u8]) -> String {
    let cluster = founding().head().cluster();
    match Membership::decode(cluster, input) {
        Ok(membership) => {
            assert_eq!(membership.encode(), input, "a membership has one form");
            let _ = Risk::of(&membership, &membership);
            format!("membership of {}", membership.head().quorum().n())
        }
        Err(error) => word(&error),
    }
}

pub(super) fn requests() -> Vec<Vec<u8>> {
    let base = founding();
    let (cluster, epoch) = (base.head().cluster(), base.head().epoch());
    let signed = changes().into_iter().map(|changes| {
        let mut request = ChangeRequest::new(cluster, epoch, changes);
        request.sign(&signing(15, 0));
        request.encode()
    });
    signed.collect()
}

/// A request is judged as it is, and as if operators had signed it: what is behind their signatures must be
/// as sound, since they may be wrong.
pub(super) fn request() -> Runner {
    let base = founding();
    Box::new(move |input| {
        let mut request = match ChangeRequest::decode(input) {
            Ok(request) => request,
            Err(error) => return word(&error),
        };
        assert_eq!(request.encode(), input, "a request has one form");
        let as_it_is = base
            .next(&request)
            .map_or_else(|refused| word(&refused), |_| "done".to_owned());
        request.signatures.clear();
        request.sign(&signing(15, 1));
        match base.next(&request) {
            Ok(next) => {
                let again = Membership::decode(next.head().cluster(), &next.encode());
                assert_eq!(again.as_ref(), Ok(&next), "what changes make can be read");
                let risks = Risk::of(&base, &next).len();
                format!("{as_it_is} {} {risks}", request.changes.len())
            }
            Err(refused) => format!("{as_it_is} {}", word(&refused)),
        }
    })
}

/// What members of the founding epoch sign when this follows.
fn end(next: &Membership) -> HandoverStatement {
    let base = founding();
    HandoverStatement {
        cluster: base.head().cluster(),
        epoch: base.head().epoch(),
        closing: CheckpointClaim {
            seq: SeqNo::new(9),
            digest: Digest::from_bytes([9; 32]),
        },
        next: next.digest(),
    }
}

/// The ends of the founding epoch that all of its members sign.
fn ends() -> Vec<HandoverCertificate> {
    let base = founding();
    let ends = nexts().into_iter().map(|next| {
        let statement = end(&next);
        let signatures: Vec<_> = (0..4)
            .map(|number| statement.sign(NodeId::new(number.into()), &signing(11, number)))
            .collect();
        let (closing, next) = (statement.closing, next.head().clone());
        let gathered = HandoverCertificate::gather(base.head(), closing, next, &signatures);
        gathered.expect("all members sign")
    });
    ends.collect()
}

/// One piece of a chain of each, and one of all.
pub(super) fn pieces() -> Vec<Vec<u8>> {
    let ends = ends();
    let one = ends.iter().map(|end| encode_piece(std::slice::from_ref(end)).0);
    one.chain([encode_piece(&ends).0]).collect()
}

pub(super) fn handover() -> Runner {
    let chain = MembershipChain::from_genesis(&birth(4)).expect("a cluster can be born like that");
    Box::new(move |input| {
        let certificates = match decode_piece(input) {
            Ok(certificates) => certificates,
            Err(error) => return word(&error),
        };
        assert_eq!(encode_piece(&certificates).0, input, "a piece has one form");
        let mut chain = chain.clone();
        let words = certificates.iter().map(|certificate| {
            let encoded = certificate.encode();
            let again = HandoverCertificate::decode(&encoded);
            assert_eq!(again.as_ref(), Ok(certificate), "a certificate has one form");
            match chain.extend(certificate) {
                Ok(extension) => word(&extension),
                Err(refused) => word(&refused),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    })
}

pub(super) fn messages() -> Vec<Vec<u8>> {
    let (statement, signer) = (end(&nexts()[0]), NodeId::new(1));
    let signature = statement.sign(signer, &signing(11, 1));
    let messages = [
        ReconfigurationMessage::Handover(SignedHandover { statement, signature }),
        ReconfigurationMessage::FetchChain(statement.epoch),
        ReconfigurationMessage::Chain(ends()),
        ReconfigurationMessage::FetchChange(statement.epoch),
        ReconfigurationMessage::Change(asked()),
        ReconfigurationMessage::Closing(SeqNo::new(7), asked()),
    ];
    messages.iter().map(ReconfigurationMessage::encode).collect()
}

/// A message is told to a member whose epoch ends: by another one, and by a stranger.
pub(super) fn message() -> Runner {
    let first = birth(4).membership().expect("a cluster can be born like that");
    let (history, request) = (EpochHistory::new(first), asked());
    let closing = end(&nexts()[0]).closing;
    Box::new(move |input| {
        let message = match ReconfigurationMessage::decode(history.chain().cluster(), input) {
            Ok(message) => message,
            Err(error) => return word(&error),
        };
        assert_eq!(message.encode(), input, "a message has one form");
        let mut member = EpochHandover::new(NodeId::new(0), signing(11, 0), history.clone());
        let mut out = Outbox::new(Lsn::new(1));
        member.on_decided(closing.seq, &request, &mut out);
        member.on_closed(Time::START, closing, &mut out);
        for from in [1, 200] {
            member.on_message(Time::START, NodeId::new(from), message.clone(), &mut out);
        }
        member.on_status_due(Time::START, &mut out);
        let ended = member.take_ended().is_some();
        format!("{} effects, ended {ended}", out.effects().len())
    })
}
