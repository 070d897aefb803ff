use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::smr::execution::Plain;
use crate::smr::execution::fixtures::{decision, digester, frame};
use crate::smr::execution::{
    CheckpointRule, ExecutionEvent, Executor, REQUEST_DEPTH_MAX, SingleThreaded, StateRule,
};
use crate::smr::messages::{Checked, Mode, OperationResult, ReplyBody};
use crate::smr::types::Epoch;

/// Keeps what it is told.
struct Notes;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Request {
    Note(u32, Tree),
    Look(u32),
    Idle(Vec<()>),
    Odd,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

/// A reply that sometimes refuses to be written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Reply(Option<Tree>);

impl Serialize for Reply {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_ref().is_some_and(|tree| tree.0.len() == 13) {
            true => Err(serde::ser::Error::custom("planted")),
            false => serializer.serialize_newtype_struct("Reply", &self.0),
        }
    }
}

impl TypedApplication for Notes {
    type State = Plain<BTreeMap<u32, Tree>>;
    type Request = Request;
    type Reply = Reply;
    type Error = String;

    fn initial_state(&self) -> Self::State {
        Plain::default()
    }

    fn execute(
        &self,
        state: &mut Self::State,
        context: &OperationContext,
        request: Request,
    ) -> Result<Reply, String> {
        match request {
            Request::Note(key, tree) => Ok(Reply(state.insert(key, tree))),
            other => self.read(state, context, other),
        }
    }

    fn read(&self, state: &Self::State, _: &OperationContext, request: Request) -> Result<Reply, String> {
        match request {
            Request::Look(key) => Ok(Reply(state.get(&key).cloned())),
            other => Err(format!("{other:?} reads nothing")),
        }
    }

    fn name(&self) -> &'static str {
        "notes"
    }

    fn version(&self) -> u32 {
        3
    }
}

/// What clients see of these operations of one frame.
fn run(mode: Mode, operations: &[Vec<u8>]) -> Vec<Result<Reply, TypedError<String>>> {
    let rule = CheckpointRule {
        decisions: 1,
        bytes: u64::MAX,
        state: StateRule::ALWAYS,
    };
    let mut executor = SingleThreaded::new(Notes, 4, digester(), Epoch::ZERO, rule);
    let mut events = Vec::new();
    let frame = frame(1, 1, mode, operations);
    match mode {
        Mode::Unordered => executor.execute_unordered(&frame, &mut events),
        _ => executor.execute(&decision(1, vec![frame]), &mut events),
    }
    while executor.background_step(100, &mut events) {}
    let body = events.into_iter().find_map(|event| match event {
        ExecutionEvent::Reply { body, .. } => Some(body),
        _ => None,
    });
    let body = Checked::<ReplyBody>::new(body.unwrap()).unwrap();
    let results = body.results().map(|result| match result {
        OperationResult::Value(value) => Ok(decode_reply::<Notes>(value).unwrap()),
        OperationResult::Error(error) => Err(decode_error::<Notes>(error).unwrap()),
        other => panic!("{other:?}"),
    });
    results.collect()
}

fn request(request: &Request) -> Vec<u8> {
    encode_request::<Notes>(request).unwrap()
}

/// A tree that is so many levels high.
fn chain(levels: usize) -> Vec<u8> {
    [vec![0, 1], vec![1; levels], vec![0]].concat()
}

#[test]
fn requests_are_executed_and_what_cannot_be_read_or_written_gets_an_error_of_its_own() {
    let long = Tree(vec![Tree::default(); 13]);
    let operations = [
        request(&Request::Note(1, Tree::default())),
        request(&Request::Look(1)),
        request(&Request::Odd),
        vec![],
        vec![77],
        [request(&Request::Odd), vec![0]].concat(),
        request(&Request::Note(2, long)),
        request(&Request::Look(2)),
    ];
    let unreadable = Err(TypedError::Unreadable);
    assert_eq!(
        run(Mode::Ordered, &operations),
        [
            Ok(Reply(None)),
            Ok(Reply(Some(Tree::default()))),
            Err(TypedError::Refused("Odd reads nothing".into())),
            unreadable.clone(),
            unreadable.clone(),
            unreadable.clone(),
            Ok(Reply(None)),
            Err(TypedError::Unwritable),
        ]
    );
    assert_eq!(
        run(Mode::Unordered, &operations[1..4]),
        [
            Ok(Reply(None)),
            Err(TypedError::Refused("Odd reads nothing".into())),
            unreadable,
        ]
    );
}

#[test]
fn name_and_version_are_the_applications() {
    assert_eq!(Application::name(&Notes), "notes");
    assert_eq!(Application::version(&Notes), 3);
}

#[test]
fn requests_too_deep_or_with_more_values_than_bytes_for_them_are_refused_at_once() {
    // A tree is a newtype around a list, and in a request: two levels each, and two for the request.
    let deepest = (REQUEST_DEPTH_MAX - 2) / 2;
    assert!(decode_untrusted::<Request>(&chain(deepest - 1)).is_ok());
    let bytes = chain(deepest + 1);
    assert_eq!(
        decode_untrusted::<Request>(&bytes),
        Err(EncodingError::BeyondLimits { bytes: bytes.len() })
    );
    // Unlimited, this one would end the process.
    assert!(decode_untrusted::<Request>(&chain(1 << 20)).is_err());
    // And this one would keep it for some centuries.
    let bytes = [&[2][..], &[0xff; 9], &[1]].concat();
    assert_eq!(
        decode_untrusted::<Request>(&bytes),
        Err(EncodingError::BeyondLimits { bytes: bytes.len() })
    );
    let idle = request(&Request::Idle(vec![(); 100]));
    assert_eq!(decode_untrusted(&idle), Ok(Request::Idle(vec![(); 100])));
}

fn requests() -> impl Strategy<Value = Request> {
    let tree = Just(Tree::default()).prop_recursive(6, 40, 5, |inner| {
        prop::collection::vec(inner, 0..5).prop_map(Tree)
    });
    prop_oneof![
        (any::<u32>(), tree).prop_map(|(key, tree)| Request::Note(key, tree)),
        any::<u32>().prop_map(Request::Look),
        Just(Request::Odd),
    ]
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(expected in requests()) {
        prop_assert_eq!(decode_untrusted::<Request>(&request(&expected)).unwrap(), expected);
    }

    #[test]
    fn whatever_bytes_come_as_an_operation_they_are_answered(operation: Vec<u8>, is_read: bool) {
        let mode = if is_read { Mode::Unordered } else { Mode::Ordered };
        prop_assert_eq!(run(mode, &[operation]).len(), 1);
    }
}
