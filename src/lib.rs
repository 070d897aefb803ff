//! Byzantine fault tolerant state machine replication for Linux.
//!
//! n = 3f+1 replicas run the same deterministic service; any f of them may crash, lie or be stolen, and
//! clients still see one correct, durable, linearizable service.
//!
//! ```text
//!              ┌───────────────────────── one replica ──────────────────────────┐
//!  clients ──► │ network ─► preprocess ─► consensus ─► execution ─► network     │ ──► clients: f+1 equal replies
//!              │    ▲ │        hash,         pool,        state,                │
//!  replicas ◄─►│    │ └──────► authenticate  PBFT         client table          │
//!              │    └───────────── votes, proposals ◄┘─► log: RWF_DSYNC         │
//!              │ control: listen, handshake, reconnect (glommio)                │
//!              └────────────────────────────────────────────────────────────────┘
//!    data shards: one pinned thread, one io_uring ring, some of the roles; lanes between them are SPSC rings
//! ```
//!
//! **The way of a request**: [`client`] gathers operations into a frame and proves it; [`net`] carries it
//! sealed; [`shard`]'s network role receives it into the buffer it stays in; [`preprocessing`] checks, hashes
//! and pools it; [`replica`] has [`ordering`] propose and decide it, each vote after [`storage`] has it on
//! disk; [`execution`] executes it once and answers; the client takes what f+1 replicas say.
//!
//! **The walls.** [`smr`] decides and is sans-io: deterministic, no clock, no socket, no thread. [`runtime`]
//! is the shells around it, [`client`] the other end of the link, [`sim`] runs the same code in virtual time,
//! and [`tools`] are what the `atlas` command is made of (the feature `tools`, which is on unless
//! `default-features = false` says otherwise). Their modules are found here at the root as well,
//! which is where programs name them. Also sans-io: `net`, `storage::LogWriter` and `client::Session`.
//!
//! **More**: [`docs`] has architecture, protocol, membership, storage formats, costs, operations, testing and a
//! glossary.
//!
//! | word | meaning |
//! |---|---|
//! | operation | one application call by a client |
//! | frame | what a client sends, proves and retransmits: 1..k operations, one sequence number |
//! | batch | what one consensus instance orders: a list of frames |
//! | decision | a batch with its sequence number, committed |
//! | view | a leader's term; leader = view mod n |
//! | checkpoint | a digest of state, client table and membership at a sequence number; stable with a quorum of signatures |
//! | shard | one pinned thread with its own event loop, running one or more roles |
//! | role | network, preprocess, consensus, execution, log |
//! | lane | a bounded ring between two roles |
//! | stack | the set of protocol implementations a replica is built from |
//! | host | what a replica meets the machine with: its log on disk, its links |

#[forbid(unsafe_code)]
pub mod client;
#[cfg(doc)]
pub mod docs;
pub mod runtime;
#[forbid(unsafe_code)]
pub mod sim;
pub mod smr;
#[cfg(feature = "tools")]
#[forbid(unsafe_code)]
pub mod tools;

#[doc(inline)]
pub use runtime::{admin, config, evidence, flight, metrics, net, ring, server, shard, storage};
#[doc(inline)]
pub use smr::{
    crypto, decision_log, execution, log_transfer, membership, messages, mutants, ordering, preprocessing,
    protocol, reconfiguration, replica, state_transfer, types, view_transfer,
};
#[cfg(feature = "tools")]
#[doc(inline)]
pub use tools::{cli, load};

pub use client::Client;
pub use server::ReplicaHandle;
pub use server::divisible_state_server::DivStReplica;
pub use server::monolithic_server::MonReplica;
