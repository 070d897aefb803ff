use std::sync::OnceLock;

use crate::smr::crypto::{LinkSecret, MacKey, SigningKey, VerifyingKey};
use crate::smr::preprocessing::{ClientAuth, ClientDirectory, ClientKeys, RequireSignature};
use crate::smr::types::{ClientId, ClusterId, NodeId, REPLICAS_MAX};

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
        let seed = |kind: u8, index: usize| {
            let mut seed = [kind; 32];
            seed[0] = index as u8;
            seed
        };
        let replicas: Vec<SigningKey> = (0..REPLICAS_MAX)
            .map(|index| SigningKey::from_seed(&seed(1, index)))
            .collect();
        let macs = |client: usize| {
            let ours = LinkSecret::from_bytes(&seed(4, client));
            (0..REPLICAS_MAX)
                .map(|index| {
                    let theirs = LinkSecret::from_bytes(&seed(3, index)).public();
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
