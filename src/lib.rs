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
//! **Two kinds of rooms.** `types`, `crypto`, `messages`, `protocol`, `ordering`, `view_transfer`,
//! `decision_log`, `log_transfer`, `state_transfer`, `preprocessing`, `execution`, `replica`, `net`,
//! `storage::LogWriter` and `client::Session` are sans-io: deterministic, no clock, no socket, no thread.
//! `ring`, `shard`, `server`, `storage`, `client::Engine`, `load` and `cli` are shells around them; [`sim`]
//! runs the same rooms in virtual time.
//!
//! **More**: [`docs`] has architecture, protocol, storage formats, costs, operations, testing and a glossary.
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

#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod client;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod crypto;
#[forbid(unsafe_code)]
pub mod decision_log;
#[cfg(doc)]
pub mod docs;
#[forbid(unsafe_code)]
pub mod execution;
#[forbid(unsafe_code)]
pub mod load;
#[forbid(unsafe_code)]
pub mod log_transfer;
pub mod messages;
#[forbid(unsafe_code)]
pub mod metrics;
#[forbid(unsafe_code)]
pub mod mutants;
pub mod net;
#[forbid(unsafe_code)]
pub mod ordering;
#[forbid(unsafe_code)]
pub mod preprocessing;
#[forbid(unsafe_code)]
pub mod protocol;
#[forbid(unsafe_code)]
pub mod replica;
pub mod ring;
#[forbid(unsafe_code)]
pub mod server;
pub mod shard;
#[forbid(unsafe_code)]
pub mod sim;
#[forbid(unsafe_code)]
pub mod state_transfer;
pub mod storage;
#[forbid(unsafe_code)]
pub mod types;
pub use client::Client;
pub use server::ReplicaHandle;
pub use server::divisible_state_server::DivStReplica;
pub use server::monolithic_server::MonReplica;
#[forbid(unsafe_code)]
pub mod view_transfer;
