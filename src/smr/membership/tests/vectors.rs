use super::*;

/// Compares an encoding with the file of an earlier release. Files are for ever: another encoding is another
/// format, with another number and a file of its own.
fn same(name: &str, file: &str, bytes: &[u8]) {
    let text = hex::encode(bytes);
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.concat() == text, "{name} is now {text}");
}

macro_rules! vector {
    ($name:literal, $bytes:expr) => {
        same(
            $name,
            include_str!(concat!("../../../../tests/vectors/membership/", $name, ".hex")),
            $bytes,
        )
    };
}

#[test]
fn encodings_identities_and_signatures_are_those_of_the_files() {
    let genesis = genesis(4);
    vector!("genesis-1", &genesis.encode());
    assert_eq!(
        Genesis::decode(&genesis.encode())
            .as_ref()
            .map(Genesis::cluster_id),
        Ok(genesis.cluster_id())
    );
    let base = genesis.membership().unwrap();
    vector!("membership-1", &base.encode());
    vector!("cluster-id-1", base.head().cluster().as_bytes());
    let request = signed(&base, encodings::changes(), 2);
    vector!("change-request-1", &request.encode());
    let next = base.next(&request).unwrap();
    vector!("next-membership-1", &next.encode());
    vector!("handover-1", &handover(&base, 17, &next).encode());
}
