//! Applications with types for what they are asked and what they answer.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::encoding::{EncodingError, decode_untrusted, encode};
use super::{Application, MonolithicState, OperationContext, ResultWriter};

/// An [`Application`] whose operations and results are values of its own types; it is one by that.
///
/// Everything said there holds here: the same request on the same state gives the same state and reply
/// everywhere. What comes from clients is untrusted: bytes that are no request get
/// [`TypedError::Unreadable`], at every replica alike, and the application never sees them. A request that is
/// one may still ask anything.
///
/// Requests, replies and errors are written in [postcard's
/// format](https://postcard.jamesmunns.com/wire-format), which has no names in it: a variant or field put
/// anywhere but at the end of an enum changes what was written before, and needs another
/// [`version`](Self::version).
///
/// ```
/// use std::collections::BTreeMap;
/// use atlas_smr_replica::execution::{OperationContext, Plain, TypedApplication};
/// use serde::{Deserialize, Serialize};
///
/// struct Dictionary;
///
/// #[derive(Serialize, Deserialize)]
/// enum Request {
///     Define { word: String, meaning: String },
///     LookUp(String),
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Error {
///     ReadsDefineNothing,
/// }
///
/// impl TypedApplication for Dictionary {
///     type State = Plain<BTreeMap<String, String>>;
///     type Request = Request;
///     type Reply = Option<String>;
///     type Error = Error;
///
///     fn initial_state(&self) -> Self::State {
///         Plain::default()
///     }
///
///     fn execute(
///         &self,
///         state: &mut Self::State,
///         context: &OperationContext,
///         request: Request,
///     ) -> Result<Option<String>, Error> {
///         match request {
///             Request::Define { word, meaning } => Ok(state.insert(word, meaning)),
///             look_up => self.read(state, context, look_up),
///         }
///     }
///
///     fn read(
///         &self,
///         state: &Self::State,
///         _: &OperationContext,
///         request: Request,
///     ) -> Result<Option<String>, Error> {
///         match request {
///             Request::LookUp(word) => Ok(state.get(&word).cloned()),
///             Request::Define { .. } => Err(Error::ReadsDefineNothing),
///         }
///     }
///
///     fn name(&self) -> &'static str {
///         "dictionary"
///     }
/// }
/// ```
pub trait TypedApplication: Send + 'static {
    /// What the requests act on: [`Plain`](super::Plain) makes any value one.
    type State: MonolithicState;
    /// What clients ask.
    type Request: Serialize + DeserializeOwned;
    /// What they are answered.
    type Reply: Serialize + DeserializeOwned;
    /// Why they are not.
    type Error: Serialize + DeserializeOwned;

    /// The state before the first request; equal at every replica.
    fn initial_state(&self) -> Self::State;

    /// Executes one ordered request.
    ///
    /// # Errors
    /// Why it is refused. What it changed by then stays changed.
    fn execute(
        &self,
        state: &mut Self::State,
        context: &OperationContext,
        request: Self::Request,
    ) -> Result<Self::Reply, Self::Error>;

    /// Executes one read-only request.
    ///
    /// # Errors
    /// Why it is refused.
    fn read(
        &self,
        state: &Self::State,
        context: &OperationContext,
        request: Self::Request,
    ) -> Result<Self::Reply, Self::Error>;

    /// As [`Application::name`].
    fn name(&self) -> &'static str;

    /// As [`Application::version`].
    fn version(&self) -> u32 {
        1
    }
}

/// The error that a request gets: its application's, or that the application cannot be asked or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TypedError<E> {
    /// The bytes are no request of this application, or beyond the limits of one.
    #[error("not a request of this application")]
    Unreadable,
    /// The application's reply, or error, refuses to be written. What the request changed stays changed.
    #[error("the application's answer cannot be written")]
    Unwritable,
    /// The application refuses the request.
    #[error("{0}")]
    Refused(E),
}

impl<A: TypedApplication> Application for A {
    type State = A::State;

    fn initial_state(&self) -> A::State {
        TypedApplication::initial_state(self)
    }

    fn update(
        &self,
        state: &mut A::State,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        answer::<A>(operation, result, |request| self.execute(state, context, request));
    }

    fn unordered_execution(
        &self,
        state: &A::State,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        answer::<A>(operation, result, |request| self.read(state, context, request));
    }

    fn name(&self) -> &'static str {
        TypedApplication::name(self)
    }

    fn version(&self) -> u32 {
        TypedApplication::version(self)
    }
}

/// Reads the request, has it executed, and writes what comes of it.
fn answer<A: TypedApplication>(
    operation: &[u8],
    result: &mut ResultWriter,
    execute: impl FnOnce(A::Request) -> Result<A::Reply, A::Error>,
) {
    let reply = match decode_untrusted(operation) {
        Ok(request) => execute(request).map_err(TypedError::Refused),
        Err(_) => Err(TypedError::Unreadable),
    };
    let error = match reply.map(|reply| encode(&reply)) {
        Ok(Ok(bytes)) => return result.extend_from_slice(&bytes),
        Ok(Err(_)) => TypedError::Unwritable,
        Err(error) => error,
    };
    let bytes = encode(&error).or_else(|_| encode(&TypedError::<A::Error>::Unwritable));
    result.fail(bytes.unwrap_or_default());
}

/// The operation that a request is: what a client calls with.
///
/// # Errors
/// When it refuses to be written.
pub fn encode_request<A: TypedApplication>(request: &A::Request) -> Result<Vec<u8>, EncodingError> {
    encode(request)
}

/// The reply in the value that a call gave.
///
/// # Errors
/// When it is none of this application's.
pub fn decode_reply<A: TypedApplication>(value: &[u8]) -> Result<A::Reply, EncodingError> {
    decode_untrusted(value)
}

/// The error in what [`CallError::Application`](crate::client::CallError::Application) says.
///
/// # Errors
/// When it is none of this application's.
pub fn decode_error<A: TypedApplication>(error: &[u8]) -> Result<TypedError<A::Error>, EncodingError> {
    decode_untrusted(error)
}

#[cfg(test)]
#[path = "typed_tests.rs"]
mod tests;
