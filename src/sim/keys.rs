use std::sync::OnceLock;

use crate::smr::crypto::{LinkPublic, LinkSecret, MacKey, SigningKey, VerifyingKey};
use crate::smr::membership::{
    Agreement, ClientRights, Genesis, Member, Membership, MembershipHead, RegisteredClient,
};
use crate::smr::preprocessing::{ClientAuth, ClientDirectory, ClientKeys, RequireSignature};
use crate::smr::types::{ApplicationId, ClientId, ClusterId, NodeId, PROTOCOL_VERSION, REPLICAS_MAX};

/// The simulated cluster.
pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes(*b"simulated world.");
/// The most clients of a simulated cluster, honest and faulty.
pub(super) const CLIENTS_MAX: usize = 8;

/// Everybody's secrets: the same in every run, made once.
pub(super) struct Keyring {
    replicas: Vec<SigningKey>,
    verifying: Vec<VerifyingKey>,
    clients: Vec<SigningKey>,
    /// By client, then by replica.
    macs: Vec<Vec<MacKey>>,
}

impl Keyring {
    pub(super) fn get() -> &'static Self {
        static KEYRING: OnceLock<Keyring> = OnceLock::new();
        KEYRING.get_or_init(Self::make)
    }

    fn make() -> Self {
        let replicas: Vec<SigningKey> = (0..REPLICAS_MAX)
            .map(|index| SigningKey::from_seed(&seed(1, index)))
            .collect();
        let macs = |client: usize| {
            let ours = link_secret(4, client);
            (0..REPLICAS_MAX)
                .map(|index| {
                    let theirs = link_secret(3, index).public();
                    MacKey::between(&ours, &theirs, CLUSTER).expect("the key of a fixed seed is sound")
                })
                .collect()
        };
        Self {
            verifying: replicas.iter().map(SigningKey::verifying_key).collect(),
            replicas,
            clients: (0..CLIENTS_MAX)
                .map(|index| SigningKey::from_seed(&seed(2, index)))
                .collect(),
            macs: (0..CLIENTS_MAX).map(macs).collect(),
        }
    }

    pub(super) fn replica(&self, node: NodeId) -> &SigningKey {
        &self.replicas[node.index()]
    }

    pub(super) fn verifying(&self, n: usize) -> &[VerifyingKey] {
        &self.verifying[..n]
    }

    pub(super) fn client(&self, client: ClientId) -> &SigningKey {
        &self.clients[client.get() as usize]
    }

    pub(super) fn macs(&self, client: ClientId, n: usize) -> &[MacKey] {
        &self.macs[client.get() as usize][..n]
    }

    /// Who is in a cluster of so many replicas and clients at first. One operator may change that.
    pub(super) fn founding(&self, replicas: usize, clients: usize) -> Membership {
        let genesis = Genesis {
            name: "simulated".to_owned(),
            random: String::new(),
            members: (0..replicas)
                .map(|index| Member {
                    id: NodeId::new(index as u16),
                    signing_key: self.verifying[index],
                    link_key: link(7, index),
                    addresses: Vec::new(),
                })
                .collect(),
            clients: (0..clients)
                .map(|index| RegisteredClient {
                    id: ClientId::new(index as u32),
                    signing_key: self.clients[index].verifying_key(),
                    link_key: link(8, index),
                    rights: ClientRights::ALL,
                    operations_per_second: None,
                })
                .collect(),
            operators: vec![operator(0).verifying_key()],
            operators_threshold: 1,
            agreement: Agreement::default(),
            application: ApplicationId::new("simulated", 1).expect("the name is short"),
            protocol_version: PROTOCOL_VERSION,
        };
        let founding = genesis.membership().expect("a cluster can be born like that");
        // Every simulated cluster has one identity.
        let head = MembershipHead::decode(CLUSTER, &founding.head().encode());
        let head = head.expect("what was written can be read");
        Membership::new(head, founding.clients().to_vec()).expect("it was possible")
    }

    /// What replica `node` judges clients by.
    pub(super) fn directory(&self, node: NodeId, clients: usize, auth: ClientAuth) -> ClientDirectory {
        let keys = self.clients[..clients].iter().zip(&self.macs);
        let keys = keys.map(|(signing, macs)| ClientKeys {
            verifying: signing.verifying_key(),
            mac: (auth == ClientAuth::Mac).then(|| macs[node.index()].clone()),
            must_sign: RequireSignature::default(),
        });
        ClientDirectory::new(keys.collect())
    }
}

/// A secret, of its kind and number.
fn seed(kind: u8, index: usize) -> [u8; 32] {
    let mut seed = [kind; 32];
    seed[0] = index as u8;
    seed
}

/// What an operator signs with.
pub(super) fn operator(number: usize) -> SigningKey {
    SigningKey::from_seed(&seed(5, number))
}

/// A client that nobody plays.
pub(super) fn newcomer(id: ClientId) -> RegisteredClient {
    RegisteredClient {
        id,
        signing_key: SigningKey::from_seed(&seed(6, id.get() as usize)).verifying_key(),
        link_key: link(9, id.get() as usize),
        rights: ClientRights::ALL,
        operations_per_second: None,
    }
}

/// What a party of a membership proves itself with on links, of which there are none here.
fn link(kind: u8, index: usize) -> LinkPublic {
    link_secret(kind, index).public()
}

/// A secret for key agreement. X25519 sets the bits at both ends itself: numbers that stood there would be lost, and
/// eight parties have one key.
fn link_secret(kind: u8, index: usize) -> LinkSecret {
    let mut seed = [kind; 32];
    seed[8..16].copy_from_slice(&(index as u64).to_le_bytes());
    LinkSecret::from_bytes(&seed)
}
