//! The same calls by a client that waits and by one that does not: `cargo run --example clients`.

use atlas_smr_replica::client::{TypedCallError, TypedClient};
use atlas_smr_replica::config::LoadedReplica;
use atlas_smr_replica::execution::{OperationContext, Plain, TypedApplication};
use atlas_smr_replica::{Client, MonReplica};
use futures_lite::future::{block_on, try_zip};
use local::{Local, Running};
use serde::{Deserialize, Serialize};

#[path = "local.rs"]
mod local;

/// A book in which guests sign.
struct GuestBook;

#[derive(Serialize, Deserialize)]
enum Request {
    Sign(String),
    Count,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Refusal {
    NoName,
    ReadsSignNothing,
}

impl TypedApplication for GuestBook {
    type State = Plain<Vec<String>>;
    type Request = Request;
    type Reply = usize;
    type Error = Refusal;

    fn initial_state(&self) -> Self::State {
        Plain::default()
    }

    fn execute(
        &self,
        state: &mut Self::State,
        context: &OperationContext,
        request: Request,
    ) -> Result<usize, Refusal> {
        match request {
            Request::Sign(name) if name.is_empty() => return Err(Refusal::NoName),
            Request::Sign(name) => state.push(name),
            count => return self.read(state, context, count),
        }
        Ok(state.len())
    }

    fn read(&self, state: &Self::State, _: &OperationContext, request: Request) -> Result<usize, Refusal> {
        match request {
            Request::Count => Ok(state.len()),
            Request::Sign(_) => Err(Refusal::ReadsSignNothing),
        }
    }

    fn name(&self) -> &'static str {
        "guest-book"
    }
}

type Error = TypedCallError<Refusal>;

/// One call after the other; each holds its thread up until f+1 replicas gave the same answer.
fn blocking(client: &TypedClient<GuestBook>) -> Result<usize, Error> {
    client.call_blocking(&Request::Sign("Ada".into()))?;
    client.call_blocking(&Request::Sign("Grace".into()))?;
    assert_eq!(
        client.call_blocking(&Request::Sign(String::new())),
        Err(TypedCallError::Refused(Refusal::NoName))
    );
    client.read_blocking(&Request::Count)
}

/// Calls that are under way together travel together. Any runtime will do: a call is a future like others.
async fn asynchronous(client: &TypedClient<GuestBook>) -> Result<usize, Error> {
    let (ada, grace) = (Request::Sign("Ada".into()), Request::Sign("Grace".into()));
    try_zip(client.call(&ada), client.call(&grace)).await?;
    assert_eq!(
        client.call(&Request::Sign(String::new())).await,
        Err(TypedCallError::Refused(Refusal::NoName))
    );
    client.read(&Request::Count).await
}

fn start(config: LoadedReplica) -> Running {
    let replica = block_on(MonReplica::bootstrap(config.serving(GuestBook))).unwrap();
    Running::new(replica.handle(), replica.run())
}

/// Two guests sign twice.
pub fn main() {
    let mut local = Local::new("guest-book", 2);
    let _running: Vec<Running> = local.replicas.drain(..).map(start).collect();
    let client = TypedClient::new(Client::connect_blocking(local.clients.remove(0)).unwrap());
    assert_eq!(blocking(&client), Ok(2));
    let signed = block_on(async {
        let client = TypedClient::new(Client::connect(local.clients.remove(0)).await.unwrap());
        asynchronous(&client).await
    });
    assert_eq!(signed, Ok(4));
    println!("4 guests have signed");
}
