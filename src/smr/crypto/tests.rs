use proptest::prelude::*;

use super::*;
use crate::smr::types::{ClusterId, Digest};

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-tests");

#[test]
fn digests_of_different_domains_and_clusters_differ() {
    let ours = Digester::new(CLUSTER);
    let theirs = Digester::new(ClusterId::from_bytes([1; 16]));
    let a = ours.digest(Domain::Batch, b"same");
    assert_eq!(a, ours.digest(Domain::Batch, b"same"));
    assert_ne!(a, ours.digest(Domain::State, b"same"));
    assert_ne!(a, theirs.digest(Domain::Batch, b"same"));
}

#[test]
fn a_signature_holds_for_its_key_domain_and_digest_only() {
    let (ours, other) = (SigningKey::generate(), SigningKey::generate());
    let digest = Digest::from_bytes([3; 32]);
    let signature = ours.sign(Domain::Checkpoint, &digest);
    let key = ours.verifying_key();
    assert_eq!(key.verify(Domain::Checkpoint, &digest, &signature), Ok(()));
    assert!(key.verify(Domain::ViewChange, &digest, &signature).is_err());
    assert!(key.verify(Domain::Checkpoint, &Digest::ZERO, &signature).is_err());
    assert!(
        other
            .verifying_key()
            .verify(Domain::Checkpoint, &digest, &signature)
            .is_err()
    );
    assert_eq!(key.to_string().parse::<VerifyingKey>().unwrap(), key);
    assert!("abc".parse::<VerifyingKey>().is_err());
}

#[test]
fn a_remembered_verdict_is_the_one_that_was_given_and_of_that_signature_alone() {
    remember_verdicts(8);
    let ours = SigningKey::generate();
    let key = ours.verifying_key();
    // More than are remembered, each twice and a forged one beside it, one by one and together.
    for number in 0..20 {
        let digest = Digest::from_bytes([number; 32]);
        let signature = ours.sign(Domain::Checkpoint, &digest);
        let mut forged = signature;
        forged[5] ^= 1;
        for _ in 0..2 {
            assert!(key.verify(Domain::Checkpoint, &digest, &signature).is_ok());
            assert!(key.verify(Domain::Checkpoint, &digest, &forged).is_err());
            assert!(key.verify(Domain::ViewChange, &digest, &signature).is_err());
            let (mut batch, mut verdicts) = (BatchVerifier::default(), Vec::new());
            for signature in [&signature, &forged, &signature] {
                batch.queue(&key, Domain::Checkpoint, &digest, signature);
                batch.queue(&key, Domain::NewView, &digest, signature);
            }
            batch.verify(|is_valid| verdicts.push(is_valid));
            assert_eq!(verdicts, [true, false, false, false, true, false]);
        }
    }
}

#[test]
fn both_ends_derive_the_same_mac_key_and_a_small_order_point_gives_none() {
    let (client, replica) = (LinkSecret::generate(), LinkSecret::generate());
    let at_client = MacKey::between(&client, &replica.public(), CLUSTER).unwrap();
    let at_replica = MacKey::between(&replica, &client.public(), CLUSTER).unwrap();
    let digest = Digest::from_bytes([7; 32]);
    let mac = at_client.mac(&digest);
    assert!(at_replica.verify(&digest, &mac));
    assert!(!at_replica.verify(&Digest::ZERO, &mac));
    let other_cluster = MacKey::between(&replica, &client.public(), ClusterId::from_bytes([0; 16])).unwrap();
    assert!(!other_cluster.verify(&digest, &mac));
    assert!(MacKey::between(&client, &LinkPublic::from_bytes([0; 32]), CLUSTER).is_none());
}

#[test]
fn records_open_once_in_order_and_unchanged_or_not_at_all() {
    let (mut sealer, key) = (Sealer::new(&[9; 32]), [9; 32]);
    let mut wire = Vec::new();
    for text in [&b"first"[..], b"", b"third"] {
        sealer.seal(&mut wire, |out| out.extend_from_slice(text)).unwrap();
    }
    let first = &wire[4..4 + 5 + TAG_BYTES];
    let second = &wire[first.len() + 8..first.len() + 8 + TAG_BYTES];
    let mut opener = Opener::new(&key);
    assert_eq!(opener.open(second), Err(OpenError), "out of order");
    assert_eq!(opener.open(first).unwrap(), &b"first"[..]);
    assert_eq!(opener.open(first), Err(OpenError), "replayed");
    assert_eq!(opener.open(second).unwrap(), &b""[..]);
    assert_eq!(opener.open(&wire[wire.len() - 3..]), Err(OpenError), "cut");
}

#[test]
fn a_key_under_which_everybody_can_sign_or_share_is_none() {
    let (signing, link) = (SigningKey::from_seed(&[5; 32]), LinkSecret::from_bytes(&[5; 32]));
    assert!(signing.verifying_key().is_usable() && link.public().is_usable());
    // The neutral element, the points of order 2 and 4, one of order 8, and what is no point.
    let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let order_2 = format!("ec{}7f", "ff".repeat(30));
    let weak = [
        &format!("01{}", "00".repeat(31)),
        &"00".repeat(32),
        &order_2,
        order_8,
    ];
    for key in weak.into_iter().chain([&*format!("02{}", "00".repeat(31))]) {
        assert!(!key.parse::<VerifyingKey>().unwrap().is_usable(), "{key}");
    }
    assert!(!LinkPublic::from_bytes([0; 32]).is_usable());
    let mut again = *link.public().as_bytes();
    again[31] ^= 0x80;
    assert!(
        !LinkPublic::from_bytes(again).is_usable(),
        "the same key once more"
    );
}

#[test]
fn lasting_digests_differ_by_domain() {
    let digest = lasting_digest(Domain::Genesis, b"same");
    assert_ne!(digest, lasting_digest(Domain::Membership, b"same"));
    assert_eq!(digest, lasting_digest(Domain::Genesis, b"same"));
}

proptest! {
    #[test]
    fn batch_verdicts_equal_single_verdicts(corrupt in proptest::collection::vec(any::<bool>(), 0..20)) {
        let keys: Vec<SigningKey> = (0..3).map(|i| SigningKey::from_seed(&[i; 32])).collect();
        let mut verifier = BatchVerifier::default();
        for (i, corrupt) in corrupt.iter().enumerate() {
            let key = &keys[i % 3];
            let digest = Digest::from_bytes([i as u8; 32]);
            let mut signature = key.sign(Domain::RequestFrame, &digest);
            signature[i % 64] ^= u8::from(*corrupt);
            verifier.queue(&key.verifying_key(), Domain::RequestFrame, &digest, &signature);
        }
        let mut verdicts = Vec::new();
        verifier.verify(|valid| verdicts.push(valid));
        prop_assert_eq!(verdicts, corrupt.iter().map(|c| !c).collect::<Vec<_>>());
        prop_assert!(verifier.is_empty());
    }
}
