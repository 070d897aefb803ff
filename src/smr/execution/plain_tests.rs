use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::smr::execution::fixtures::digester;

/// Something of everything that serde writes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Everything {
    name: String,
    entries: BTreeMap<String, (u64, Option<i128>)>,
    set: BTreeSet<char>,
    kinds: Vec<Kind>,
    nothing: (),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    New(Vec<u8>),
    Tuple(bool, f64),
    Struct { at: [u16; 3], inner: Box<Kind> },
}

fn everything() -> impl Strategy<Value = Everything> {
    let leaf = prop_oneof![
        Just(Kind::Unit),
        any::<Vec<u8>>().prop_map(Kind::New),
        any::<(bool, f64)>().prop_map(|(is, number)| Kind::Tuple(is, number)),
    ];
    let kind = leaf.prop_recursive(4, 16, 1, |inner| {
        (any::<[u16; 3]>(), inner).prop_map(|(at, inner)| Kind::Struct {
            at,
            inner: inner.into(),
        })
    });
    let entries = prop::collection::btree_map(any::<String>(), any::<(u64, Option<i128>)>(), 0..8);
    let set = prop::collection::btree_set(any::<char>(), 0..8);
    (any::<String>(), entries, set, prop::collection::vec(kind, 0..8)).prop_map(
        |(name, entries, set, kinds)| Everything {
            name,
            entries,
            set,
            kinds,
            nothing: (),
        },
    )
}

fn digest<T>(state: &mut Plain<T>) -> Digest
where
    Plain<T>: MonolithicState,
{
    let mut digests = Vec::new();
    let mut snapshot = state.snapshot();
    assert!(Plain::digest_step(&mut snapshot, &digester(), 1, &mut digests));
    assert_eq!(digests.len(), Plain::piece_count(&snapshot));
    digests[0]
}

fn piece<T>(state: &mut Plain<T>) -> Vec<u8>
where
    Plain<T>: MonolithicState,
{
    let mut bytes = Vec::new();
    Plain::write_piece(&mut state.snapshot(), &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_state_read_back_is_the_same_to_the_last_byte(value in everything()) {
        let mut state = Plain::new(value.clone());
        let bytes = piece(&mut state);
        let mut read = Plain::<Everything>::blank();
        read.read_piece(0, &bytes).unwrap();
        prop_assert_eq!(digest(&mut read), digest(&mut state));
        prop_assert_eq!(digest(&mut read), digester().digest(Domain::State, &bytes));
        // The bytes, as what is not a number equals nothing.
        prop_assert_eq!(piece(&mut read), bytes);
    }

    #[test]
    fn whatever_bytes_come_they_are_read_or_refused(bytes: Vec<u8>) {
        let mut state = Plain::<Everything>::blank();
        let is_read = state.read_piece(0, &bytes).is_ok();
        prop_assert!(!is_read || piece(&mut state) == bytes);
    }

    #[test]
    fn a_damaged_state_is_read_or_refused(value in everything(), at: prop::sample::Index, bits: u8) {
        let mut bytes = piece(&mut Plain::new(value));
        let at = at.index(bytes.len());
        match bits {
            0 => bytes.truncate(at),
            bits => bytes[at] ^= bits,
        }
        let mut state = Plain::<Everything>::blank();
        let is_read = state.read_piece(0, &bytes).is_ok();
        prop_assert!(!is_read || piece(&mut state) == bytes);
    }
}

#[test]
fn equal_states_have_equal_digests_however_they_came_about() {
    let mut one: Plain<BTreeMap<u32, u32>> =
        (0..100).map(|key| (key, key)).collect::<BTreeMap<_, _>>().into();
    let mut other: Plain<BTreeMap<u32, u32>> = Plain::default();
    for key in (0..200).rev() {
        other.insert(key, key);
        digest(&mut other);
    }
    other.retain(|key, _| *key < 100);
    assert_eq!(digest(&mut one), digest(&mut other));
    one.insert(7, 8);
    assert_ne!(digest(&mut one), digest(&mut other));
}

#[test]
fn a_snapshot_stays_as_it_was_and_is_written_by_whoever_is_there_first() {
    let mut state = Plain::new(vec![1u8, 2]);
    let mut before = state.snapshot();
    state.push(3);
    let help = Plain::digest_help(&before, &digester()).unwrap();
    std::thread::scope(|scope| scope.spawn(|| help.run()).join()).unwrap();
    let mut bytes = Vec::new();
    Plain::write_piece(&mut before, &mut bytes);
    assert_eq!(bytes, [2, 1, 2]);
    assert_eq!(piece(&mut state), [3, 1, 2, 3]);
    drop(before);
    state.push(4);
    assert_eq!(
        piece(&mut state),
        [4, 1, 2, 3, 4],
        "what was written before stands for nothing"
    );
}

#[test]
fn a_map_in_hash_order_is_found_by_the_check_and_refused_when_it_is_read() {
    let map: HashMap<u32, u32> = (0..100).map(|key| (key, key)).collect();
    let state = Plain::new(map);
    assert_eq!(state.check(), Err(EncodingError::NotCanonical));
    let bytes = encode(&*state).unwrap();
    let mut read = Plain::<HashMap<u32, u32>>::blank();
    assert_eq!(read.read_piece(0, &bytes), Err(SnapshotError::State));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "does it iterate in hash order?")]
fn a_checkpoint_of_a_map_in_hash_order_stops_the_replica() {
    let map: HashMap<u32, u32> = (0..100).map(|key| (key, key)).collect();
    digest(&mut Plain::new(map));
}

#[test]
fn a_type_that_can_be_written_but_not_read_is_found_by_the_check() {
    #[derive(Clone, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
    }
    let error = Plain::new(Untagged::Number(5)).check().unwrap_err();
    assert!(
        matches!(error, EncodingError::Unreadable { bytes: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_number_that_is_longer_than_it_need_be_is_no_state() {
    let mut state = Plain::<u64>::blank();
    assert_eq!(state.read_piece(0, &[0x85, 0x00]), Err(SnapshotError::State));
    assert_eq!(state.read_piece(0, &[5, 5]), Err(SnapshotError::State));
    assert_eq!(state.read_piece(0, &[5]), Ok(()));
    assert_eq!(*state, 5);
    assert_eq!(
        decode_canonical::<u64>(&[5, 5]),
        Err(EncodingError::Trailing { left: 1 })
    );
}
