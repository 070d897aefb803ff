//! A client of an application with types.

use std::fmt;
use std::marker::PhantomData;

use super::{CallError, Client};
use crate::smr::execution::{
    EncodingError, TypedApplication, TypedError, decode_error, decode_reply, encode_request,
};

/// A [`Client`] that asks a [`TypedApplication`], in its own types. Clones share what clones of a client
/// share.
///
/// ```no_run
/// # use atlas_smr_replica::client::{Client, TypedCallError, TypedClient};
/// # use atlas_smr_replica::execution::TypedApplication;
/// # type Outcome<A> = Result<(), TypedCallError<<A as TypedApplication>::Error>>;
/// # async fn ask<A: TypedApplication>(client: Client, request: A::Request) -> Outcome<A> {
/// let client = TypedClient::<A>::new(client);
/// let reply: A::Reply = client.call(&request).await?;
/// # Ok(())
/// # }
/// ```
pub struct TypedClient<A> {
    client: Client,
    application: PhantomData<fn() -> A>,
}

/// Why a typed call has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypedCallError<E> {
    /// The application refuses the request, and says why.
    #[error("the application refuses the request: {0}")]
    Refused(E),
    /// The replicas say that this is no request of their application: another version's, or beyond the limits
    /// of one.
    #[error("the replicas cannot read the request")]
    Unreadable,
    /// The application's answer refuses to be written. What the request changed stays changed.
    #[error("the replicas cannot write their answer")]
    Unwritable,
    /// The request refuses to be written, and was not sent; or f+1 replicas gave an answer that is none of
    /// this application's.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The call itself gave nothing.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl<E> From<TypedError<E>> for TypedCallError<E> {
    fn from(error: TypedError<E>) -> Self {
        match error {
            TypedError::Unreadable => Self::Unreadable,
            TypedError::Unwritable => Self::Unwritable,
            TypedError::Refused(error) => Self::Refused(error),
        }
    }
}

/// What a call gave, in an application's types: for clients that call in bytes.
///
/// # Errors
/// What the application or the call says; [`TypedCallError::Encoding`] when the answer is none of this
/// application's.
pub fn typed_result<A: TypedApplication>(
    result: Result<impl AsRef<[u8]>, CallError>,
) -> Result<A::Reply, TypedCallError<A::Error>> {
    match result {
        Ok(value) => Ok(decode_reply::<A>(value.as_ref())?),
        Err(CallError::Application(error)) => Err(decode_error::<A>(&error)?.into()),
        Err(error) => Err(error.into()),
    }
}

impl<A: TypedApplication> TypedClient<A> {
    /// A client that asks this application.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            application: PhantomData,
        }
    }

    /// Executes one request in the order all replicas agree on, as [`Client::call`].
    ///
    /// # Errors
    /// See [`TypedCallError`].
    pub async fn call(&self, request: &A::Request) -> Result<A::Reply, TypedCallError<A::Error>> {
        let operation = encode_request::<A>(request)?;
        typed_result::<A>(self.client.call(operation).await)
    }

    /// Executes one read-only request, as [`Client::read`].
    ///
    /// # Errors
    /// See [`TypedCallError`].
    pub async fn read(&self, request: &A::Request) -> Result<A::Reply, TypedCallError<A::Error>> {
        let operation = encode_request::<A>(request)?;
        typed_result::<A>(self.client.read(operation).await)
    }

    /// As [`call`](Self::call), blocking this thread.
    ///
    /// # Errors
    /// See [`TypedCallError`].
    pub fn call_blocking(&self, request: &A::Request) -> Result<A::Reply, TypedCallError<A::Error>> {
        futures_lite::future::block_on(self.call(request))
    }

    /// As [`read`](Self::read), blocking this thread.
    ///
    /// # Errors
    /// See [`TypedCallError`].
    pub fn read_blocking(&self, request: &A::Request) -> Result<A::Reply, TypedCallError<A::Error>> {
        futures_lite::future::block_on(self.read(request))
    }
}

impl<A> Clone for TypedClient<A> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            application: PhantomData,
        }
    }
}

impl<A> fmt::Debug for TypedClient<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedClient")
    }
}
