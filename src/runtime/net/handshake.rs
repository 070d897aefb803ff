//! Noise XK (Perrin, The Noise Protocol Framework, revision 34, section 7.5) with pinned keys.
//!
//! ```text
//! initiator                                  responder
//!   hello (76, clear) ‖ e, es (48)     ──►   who is it? is it listed?
//!   go on?                             ◄──   verdict (40, clear) ‖ e, ee (48)
//!   s, se (64)                         ──►   is the proven key the listed one?
//!   up                                 ◄──   verdict (40) ‖ sealed empty record (20)
//! ```
//!
//! Every message has one size, so nothing a stranger says is ever a length. The hello is the prologue: a
//! changed bit in it breaks the handshake. The responder's last message proves that it accepted: an initiator
//! that is refused learns why, and no link is up at one end only. A replayed transcript ends at the
//! third message, because the responder's ephemeral key is new each time.

use snow::{Builder, HandshakeState};

use super::hello::{HELLO_BYTES, HandshakeRefusal, Hello, Peer, VERDICT_BYTES};
use crate::smr::crypto::{LinkPublic, LinkSecret, Opener, RECORD_OVERHEAD, Sealer, TAG_BYTES};
use crate::smr::types::{ApplicationId, ClusterId, Epoch, NodeId};

const PATTERN: &str = "Noise_XK_25519_AESGCM_SHA256";
const FIRST_BYTES: usize = 48;
const SECOND_BYTES: usize = 48;
const THIRD_BYTES: usize = 64;

/// What the shell does next: write, then read exactly so many bytes or take the link over.
#[derive(Debug)]
pub struct Progress {
    /// To be written first; may be empty.
    pub write: Vec<u8>,
    /// What comes then.
    pub then: Then,
}

/// What follows the writing.
#[derive(Debug)]
pub enum Then {
    /// Read exactly so many bytes and give them to `on_bytes`.
    Read(usize),
    /// The link is up.
    Established(Box<Established>),
}

/// A link that is up: who it is with, and the keys of both directions.
#[derive(Debug)]
pub struct Established {
    /// The proven peer.
    pub peer: Peer,
    /// Seals what we send.
    pub sealer: Sealer,
    /// Opens what we receive.
    pub opener: Opener,
}

/// The listed keys: what the cluster's configuration knows of its members.
pub trait Directory {
    /// The link key of a replica or client; `None` for a stranger.
    fn link_key(&self, peer: Peer) -> Option<LinkPublic>;
}

/// Who we are in a handshake.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Our cluster.
    pub cluster: ClusterId,
    /// The application we know it to serve.
    pub application: ApplicationId,
    /// The membership we know.
    pub epoch: Epoch,
    /// Our own place in it.
    pub own: Peer,
    /// The secret that proves it.
    pub secret: LinkSecret,
}

fn read(wanted: usize, write: Vec<u8>) -> Progress {
    Progress {
        write,
        then: Then::Read(wanted),
    }
}

fn split(state: &mut HandshakeState, peer: Peer, initiator: bool) -> Established {
    let (first, second) = state.dangerously_get_raw_split();
    let (ours, theirs) = if initiator {
        (first, second)
    } else {
        (second, first)
    };
    Established {
        peer,
        sealer: Sealer::new(&ours),
        opener: Opener::new(&theirs),
    }
}

fn bad(_: snow::Error) -> HandshakeRefusal {
    HandshakeRefusal::BadHandshake
}

fn write_message(state: &mut HandshakeState, bytes: usize) -> Result<Vec<u8>, HandshakeRefusal> {
    let mut message = vec![0; bytes];
    let written = state.write_message(&[], &mut message).map_err(bad)?;
    debug_assert_eq!(written, bytes, "the messages of this pattern have one size");
    Ok(message)
}

fn read_message(state: &mut HandshakeState, message: &[u8]) -> Result<(), HandshakeRefusal> {
    let mut nothing = [0; 64];
    state.read_message(message, &mut nothing).map_err(bad).map(|_| ())
}

/// The dialling end.
pub struct Initiator {
    state: HandshakeState,
    dialled: NodeId,
    application: ApplicationId,
    step: InitiatorStep,
    established: Option<Established>,
}

#[derive(Debug, Clone, Copy)]
enum InitiatorStep {
    FirstVerdict,
    Second,
    LastVerdict,
    Confirmation,
}

impl Initiator {
    /// Dials replica `dialled`, whose listed key is `key`.
    ///
    /// # Errors
    /// When `key` is no key at all.
    pub fn start(
        identity: &Identity,
        dialled: NodeId,
        key: &LinkPublic,
    ) -> Result<(Self, Progress), HandshakeRefusal> {
        let hello = Hello {
            cluster: identity.cluster,
            application: identity.application,
            epoch: identity.epoch,
            claimed: identity.own,
            dialled,
        }
        .to_bytes();
        let mut state = Builder::new(PATTERN.parse().map_err(bad)?)
            .prologue(&hello)
            .and_then(|builder| {
                builder
                    .local_private_key(&*identity.secret.to_bytes())?
                    .remote_public_key(key.as_bytes())?
                    .build_initiator()
            })
            .map_err(bad)?;
        let mut first = hello.to_vec();
        first.extend(write_message(&mut state, FIRST_BYTES)?);
        let initiator = Self {
            state,
            dialled,
            application: identity.application,
            step: InitiatorStep::FirstVerdict,
            established: None,
        };
        Ok((initiator, read(VERDICT_BYTES, first)))
    }

    /// Takes exactly the bytes that were asked for.
    ///
    /// # Errors
    /// The reason why there will be no link; the connection is to be closed.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<Progress, HandshakeRefusal> {
        match self.step {
            InitiatorStep::FirstVerdict => {
                HandshakeRefusal::from_verdict(exactly(bytes)?, self.application)?;
                self.step = InitiatorStep::Second;
                Ok(read(SECOND_BYTES, Vec::new()))
            }
            InitiatorStep::Second => {
                read_message(&mut self.state, &exactly::<SECOND_BYTES>(bytes)?)?;
                let third = write_message(&mut self.state, THIRD_BYTES)?;
                self.established = Some(split(&mut self.state, Peer::Replica(self.dialled), true));
                self.step = InitiatorStep::LastVerdict;
                Ok(read(VERDICT_BYTES, third))
            }
            InitiatorStep::LastVerdict => {
                HandshakeRefusal::from_verdict(exactly(bytes)?, self.application)?;
                self.step = InitiatorStep::Confirmation;
                Ok(read(RECORD_OVERHEAD, Vec::new()))
            }
            InitiatorStep::Confirmation => {
                let record = exactly::<RECORD_OVERHEAD>(bytes)?;
                let mut established = self.established.take().ok_or(HandshakeRefusal::BadHandshake)?;
                if record[..4] != (TAG_BYTES as u32).to_le_bytes() {
                    return Err(HandshakeRefusal::BadHandshake);
                }
                established
                    .opener
                    .open(&record[4..])
                    .map_err(|_| HandshakeRefusal::BadHandshake)?;
                Ok(Progress {
                    write: Vec::new(),
                    then: Then::Established(Box::new(established)),
                })
            }
        }
    }
}

/// The accepting end.
pub struct Responder {
    identity: Identity,
    step: ResponderStep,
}

enum ResponderStep {
    Hello,
    Third {
        state: Box<HandshakeState>,
        claimed: Peer,
        key: LinkPublic,
    },
    Done,
}

impl Responder {
    /// Answers whoever dialled us.
    #[must_use]
    pub fn start(identity: Identity) -> (Self, Progress) {
        (
            Self {
                identity,
                step: ResponderStep::Hello,
            },
            read(HELLO_BYTES + FIRST_BYTES, Vec::new()),
        )
    }

    /// Takes exactly the bytes that were asked for.
    ///
    /// # Errors
    /// The reason why there will be no link; its [`verdict`](HandshakeRefusal::verdict) is to be written, and
    /// the connection closed.
    pub fn on_bytes(
        &mut self,
        bytes: &[u8],
        directory: &dyn Directory,
    ) -> Result<Progress, HandshakeRefusal> {
        match std::mem::replace(&mut self.step, ResponderStep::Done) {
            ResponderStep::Hello => self.on_hello(bytes, directory),
            ResponderStep::Third {
                mut state,
                claimed,
                key,
            } => {
                read_message(&mut state, &exactly::<THIRD_BYTES>(bytes)?)?;
                if state.get_remote_static() != Some(key.as_bytes()) {
                    return Err(HandshakeRefusal::WrongKey);
                }
                let mut established = split(&mut state, claimed, false);
                let mut write = vec![0; VERDICT_BYTES];
                established
                    .sealer
                    .seal(&mut write, |_| {})
                    .map_err(|_| HandshakeRefusal::BadHandshake)?;
                Ok(Progress {
                    write,
                    then: Then::Established(Box::new(established)),
                })
            }
            ResponderStep::Done => Err(HandshakeRefusal::BadHandshake),
        }
    }

    fn on_hello(&mut self, bytes: &[u8], directory: &dyn Directory) -> Result<Progress, HandshakeRefusal> {
        let bytes = exactly::<{ HELLO_BYTES + FIRST_BYTES }>(bytes)?;
        let hello_bytes: [u8; HELLO_BYTES] = exactly(&bytes[..HELLO_BYTES])?;
        let hello = Hello::parse(&hello_bytes)?;
        // Before the cluster, whose identity covers the application: this says more.
        if hello.application != self.identity.application {
            return Err(HandshakeRefusal::WrongApplication {
                ours: self.identity.application,
                theirs: hello.application,
            });
        }
        if hello.cluster != self.identity.cluster {
            return Err(HandshakeRefusal::WrongCluster);
        }
        if hello.epoch != self.identity.epoch {
            return Err(HandshakeRefusal::WrongEpoch);
        }
        if Peer::Replica(hello.dialled) != self.identity.own {
            return Err(HandshakeRefusal::WrongReplica);
        }
        if hello.claimed == self.identity.own {
            return Err(HandshakeRefusal::UnknownPeer);
        }
        let key = directory
            .link_key(hello.claimed)
            .ok_or(HandshakeRefusal::UnknownPeer)?;
        let mut state = Builder::new(PATTERN.parse().map_err(bad)?)
            .prologue(&hello_bytes)
            .and_then(|builder| {
                builder
                    .local_private_key(&*self.identity.secret.to_bytes())?
                    .build_responder()
            })
            .map_err(bad)?;
        read_message(&mut state, &bytes[HELLO_BYTES..])?;
        let mut write = vec![0; VERDICT_BYTES];
        write.extend(write_message(&mut state, SECOND_BYTES)?);
        self.step = ResponderStep::Third {
            state: Box::new(state),
            claimed: hello.claimed,
            key,
        };
        Ok(read(THIRD_BYTES, write))
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], HandshakeRefusal> {
    bytes.try_into().map_err(|_| HandshakeRefusal::BadHandshake)
}
