use std::fmt;

use serde::{Deserialize, Serialize};

use super::encoding::{Reader, Writer};
use super::{MalformedMembership, MembershipError};
use crate::smr::messages::lengths::{FRAME_LIMIT_MIN, WINDOW_MAX};
use crate::smr::protocol::{InvalidSetting, in_range, units};

/// Decisions between two checkpoints.
pub const CHECKPOINT_PERIOD: u64 = 1000;

/// How the clients of a cluster prove their frames. The same at every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// One Ed25519 signature per frame: a frame that convinces one replica convinces all.
    #[default]
    Signature,
    /// One MAC per replica, far cheaper; but a client can convince some replicas and not others, and then has
    /// to sign. Signatures are accepted as well.
    Mac,
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "signature",
            Self::Mac => "mac",
        })
    }
}

/// What all replicas must do alike: part of the membership of each epoch.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Agreement {
    /// How clients prove their frames.
    pub client_auth: ClientAuth,
    /// Decisions between two checkpoints.
    pub checkpoint_decisions: u64,
    /// Bytes of batches between two checkpoints, if they come first. A frame counts as its operations and the
    /// longest proof of who sent it.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub checkpoint_bytes: u64,
    /// A state is part of a checkpoint once the log has grown by so many times its size since the last that
    /// was, or if `checkpoint_bytes` are so many times its size; the checkpoints between cover the decisions
    /// alone. What snapshots cost beside the log falls with it, and a restart has more to execute again.
    pub state_log_factor: u64,
    /// How much the log grows at most until a checkpoint includes the state, in bytes: a replica that
    /// restarts executes so much again.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub state_log_bytes_max: u64,
    /// Sequence numbers accepted after the stable checkpoint.
    pub window: u64,
    /// The most bytes of one client frame.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub frame_bytes_max: usize,
    /// The most operations of one client frame.
    pub frame_operations_max: usize,
    /// The most bytes of frames in one batch.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub batch_bytes_max: usize,
    /// The most frames in one batch.
    pub batch_frames_max: usize,
    /// How far the time of a fresh proposal may be from what a replica's own clock shows, in milliseconds:
    /// what is further from it, it does not vote for. Applications are told times that near.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub clock_bound_ms: u64,
    /// Whether reads may be answered beside the order. Linearizable ones need a quorum of equal answers, and
    /// so does every ordered operation then. Else replicas refuse them, and clients ask them in order.
    pub unordered: bool,
}

impl Default for Agreement {
    fn default() -> Self {
        Self {
            client_auth: ClientAuth::Signature,
            checkpoint_decisions: CHECKPOINT_PERIOD,
            checkpoint_bytes: 32 << 20,
            state_log_factor: 16,
            state_log_bytes_max: 4 << 30,
            window: 2 * CHECKPOINT_PERIOD,
            frame_bytes_max: 1 << 20,
            frame_operations_max: 4096,
            batch_bytes_max: 1 << 20,
            batch_frames_max: 4096,
            clock_bound_ms: 10_000,
            unordered: false,
        }
    }
}

impl Agreement {
    /// Whether a cluster of any size can work with it.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        in_range(
            "checkpoint_decisions",
            self.checkpoint_decisions,
            1..=WINDOW_MAX / 2,
        )?;
        in_range("checkpoint_bytes", self.checkpoint_bytes, 1 << 16..=1 << 40)?;
        in_range("state_log_factor", self.state_log_factor, 1..=1000)?;
        in_range("state_log_bytes_max", self.state_log_bytes_max, 1 << 16..=1 << 42)?;
        // Two checkpoints fit the window: ordering goes on while one becomes stable. A view change speaks of
        // every place of it.
        in_range(
            "window",
            self.window,
            (2 * self.checkpoint_decisions)..=WINDOW_MAX,
        )?;
        in_range("frame_bytes_max", self.frame_bytes_max, FRAME_LIMIT_MIN..=1 << 26)?;
        in_range("frame_operations_max", self.frame_operations_max, 1..=1 << 20)?;
        in_range("batch_bytes_max", self.batch_bytes_max, 1024..=1 << 28)?;
        in_range("batch_frames_max", self.batch_frames_max, 1..=1 << 20)?;
        // Less than a second would have a slow disk or network replace leaders.
        in_range("clock_bound_ms", self.clock_bound_ms, 1000..=86_400_000)
    }

    /// The same with one value set.
    #[must_use]
    pub fn with(&self, setting: AgreementSetting) -> Self {
        use AgreementSetting as Set;
        let mut next = self.clone();
        match setting {
            Set::ClientAuth(value) => next.client_auth = value,
            Set::CheckpointDecisions(value) => next.checkpoint_decisions = value,
            Set::CheckpointBytes(value) => next.checkpoint_bytes = value,
            Set::StateLogFactor(value) => next.state_log_factor = value,
            Set::StateLogBytesMax(value) => next.state_log_bytes_max = value,
            Set::Window(value) => next.window = value,
            Set::FrameBytesMax(value) => next.frame_bytes_max = value,
            Set::FrameOperationsMax(value) => next.frame_operations_max = value,
            Set::BatchBytesMax(value) => next.batch_bytes_max = value,
            Set::BatchFramesMax(value) => next.batch_frames_max = value,
            Set::ClockBoundMs(value) => next.clock_bound_ms = value,
            Set::Unordered(value) => next.unordered = value,
        }
        next
    }

    /// Every value, in the order in which they are encoded.
    #[must_use]
    pub fn settings(&self) -> [AgreementSetting; 12] {
        use AgreementSetting as Set;
        // A field that is not named does not compile: whatever must be alike is part of the membership.
        let Self {
            client_auth,
            checkpoint_decisions,
            checkpoint_bytes,
            state_log_factor,
            state_log_bytes_max,
            window,
            frame_bytes_max,
            frame_operations_max,
            batch_bytes_max,
            batch_frames_max,
            clock_bound_ms,
            unordered,
        } = *self;
        [
            Set::ClientAuth(client_auth),
            Set::CheckpointDecisions(checkpoint_decisions),
            Set::CheckpointBytes(checkpoint_bytes),
            Set::StateLogFactor(state_log_factor),
            Set::StateLogBytesMax(state_log_bytes_max),
            Set::Window(window),
            Set::FrameBytesMax(frame_bytes_max),
            Set::FrameOperationsMax(frame_operations_max),
            Set::BatchBytesMax(batch_bytes_max),
            Set::BatchFramesMax(batch_frames_max),
            Set::ClockBoundMs(clock_bound_ms),
            Set::Unordered(unordered),
        ]
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        self.settings().iter().for_each(|setting| setting.encode(out));
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        let mut agreement = Self::default();
        for expected in Self::default().settings() {
            let setting = AgreementSetting::decode(from)?;
            if setting.tag() != expected.tag() {
                return Err(MalformedMembership::Unsorted("agreed values"));
            }
            agreement = agreement.with(setting);
        }
        agreement.validate().map_err(MembershipError::Agreement)?;
        Ok(agreement)
    }
}

/// One value of an [`Agreement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgreementSetting {
    /// [`Agreement::client_auth`].
    ClientAuth(ClientAuth),
    /// [`Agreement::checkpoint_decisions`].
    CheckpointDecisions(u64),
    /// [`Agreement::checkpoint_bytes`].
    CheckpointBytes(u64),
    /// [`Agreement::state_log_factor`].
    StateLogFactor(u64),
    /// [`Agreement::state_log_bytes_max`].
    StateLogBytesMax(u64),
    /// [`Agreement::window`].
    Window(u64),
    /// [`Agreement::frame_bytes_max`].
    FrameBytesMax(usize),
    /// [`Agreement::frame_operations_max`].
    FrameOperationsMax(usize),
    /// [`Agreement::batch_bytes_max`].
    BatchBytesMax(usize),
    /// [`Agreement::batch_frames_max`].
    BatchFramesMax(usize),
    /// [`Agreement::clock_bound_ms`].
    ClockBoundMs(u64),
    /// [`Agreement::unordered`].
    Unordered(bool),
}

impl AgreementSetting {
    /// Reads `KEY=VALUE` as a file would have it: sizes and durations with or without a unit.
    ///
    /// # Errors
    /// When there is no such key, or the value is none of it. Whether the value fits the others is judged
    /// with all of them: [`Agreement::validate`].
    pub fn parse(key: &str, value: &str) -> Result<Self, InvalidSetting> {
        let Some(like) = Agreement::default()
            .settings()
            .into_iter()
            .find(|like| like.key() == key)
        else {
            let known = Agreement::default().settings().map(|like| like.key()).join(", ");
            return Err(InvalidSetting {
                key: "agreement",
                value: key.to_owned(),
                rule: format!("must be one of {known}"),
            });
        };
        like.parse_like(value).ok_or_else(|| InvalidSetting {
            key: like.key(),
            value: value.to_owned(),
            rule: format!("must be as in {} = {}", like.key(), like.value()),
        })
    }

    /// The same key with the value of a text.
    fn parse_like(self, text: &str) -> Option<Self> {
        let number = || text.parse::<u64>().ok();
        let size = || usize::try_from(number()?).ok();
        let bytes = || number().or_else(|| units::parse_bytes(text));
        Some(match self {
            Self::ClientAuth(_) => Self::ClientAuth(match text {
                "signature" => ClientAuth::Signature,
                "mac" => ClientAuth::Mac,
                _ => return None,
            }),
            Self::CheckpointDecisions(_) => Self::CheckpointDecisions(number()?),
            Self::CheckpointBytes(_) => Self::CheckpointBytes(bytes()?),
            Self::StateLogFactor(_) => Self::StateLogFactor(number()?),
            Self::StateLogBytesMax(_) => Self::StateLogBytesMax(bytes()?),
            Self::Window(_) => Self::Window(number()?),
            Self::FrameBytesMax(_) => Self::FrameBytesMax(usize::try_from(bytes()?).ok()?),
            Self::FrameOperationsMax(_) => Self::FrameOperationsMax(size()?),
            Self::BatchBytesMax(_) => Self::BatchBytesMax(usize::try_from(bytes()?).ok()?),
            Self::BatchFramesMax(_) => Self::BatchFramesMax(size()?),
            Self::ClockBoundMs(_) => {
                Self::ClockBoundMs(number().or_else(|| units::parse_milliseconds(text))?)
            }
            Self::Unordered(_) => Self::Unordered(text.parse().ok()?),
        })
    }

    /// The key, as files have it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::ClientAuth(_) => "client_auth",
            Self::CheckpointDecisions(_) => "checkpoint_decisions",
            Self::CheckpointBytes(_) => "checkpoint_bytes",
            Self::StateLogFactor(_) => "state_log_factor",
            Self::StateLogBytesMax(_) => "state_log_bytes_max",
            Self::Window(_) => "window",
            Self::FrameBytesMax(_) => "frame_bytes_max",
            Self::FrameOperationsMax(_) => "frame_operations_max",
            Self::BatchBytesMax(_) => "batch_bytes_max",
            Self::BatchFramesMax(_) => "batch_frames_max",
            Self::ClockBoundMs(_) => "clock_bound_ms",
            Self::Unordered(_) => "unordered",
        }
    }

    /// The value, as files have it.
    #[must_use]
    pub fn value(self) -> String {
        match self {
            Self::ClientAuth(value) => format!("\"{value}\""),
            Self::Unordered(value) => value.to_string(),
            _ => self.number().to_string(),
        }
    }

    /// Which value it is, in what is encoded: for ever.
    fn tag(self) -> u8 {
        match self {
            Self::ClientAuth(_) => 1,
            Self::CheckpointDecisions(_) => 2,
            Self::CheckpointBytes(_) => 3,
            Self::StateLogFactor(_) => 4,
            Self::StateLogBytesMax(_) => 5,
            Self::Window(_) => 6,
            Self::FrameBytesMax(_) => 7,
            Self::FrameOperationsMax(_) => 8,
            Self::BatchBytesMax(_) => 9,
            Self::BatchFramesMax(_) => 10,
            Self::ClockBoundMs(_) => 11,
            Self::Unordered(_) => 12,
        }
    }

    /// The value as a number.
    fn number(self) -> u64 {
        match self {
            Self::ClientAuth(ClientAuth::Signature) => 0,
            Self::ClientAuth(ClientAuth::Mac) => 1,
            Self::Unordered(value) => u64::from(value),
            Self::CheckpointDecisions(value)
            | Self::CheckpointBytes(value)
            | Self::StateLogFactor(value)
            | Self::StateLogBytesMax(value)
            | Self::Window(value)
            | Self::ClockBoundMs(value) => value,
            Self::FrameBytesMax(value)
            | Self::FrameOperationsMax(value)
            | Self::BatchBytesMax(value)
            | Self::BatchFramesMax(value) => value as u64,
        }
    }

    pub(super) fn encode(self, out: &mut Writer) {
        out.u8(self.tag());
        out.u64(self.number());
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        const WHAT: &str = "an agreed value";
        let tag = from.u8(WHAT)?;
        let unknown = MalformedMembership::Unknown(WHAT);
        Ok(match tag {
            1 => Self::ClientAuth(match from.u64(WHAT)? {
                0 => ClientAuth::Signature,
                1 => ClientAuth::Mac,
                _ => return Err(unknown),
            }),
            2 => Self::CheckpointDecisions(from.u64(WHAT)?),
            3 => Self::CheckpointBytes(from.u64(WHAT)?),
            4 => Self::StateLogFactor(from.u64(WHAT)?),
            5 => Self::StateLogBytesMax(from.u64(WHAT)?),
            6 => Self::Window(from.u64(WHAT)?),
            7 => Self::FrameBytesMax(from.size(WHAT)?),
            8 => Self::FrameOperationsMax(from.size(WHAT)?),
            9 => Self::BatchBytesMax(from.size(WHAT)?),
            10 => Self::BatchFramesMax(from.size(WHAT)?),
            11 => Self::ClockBoundMs(from.u64(WHAT)?),
            12 => Self::Unordered(match from.u64(WHAT)? {
                0 => false,
                1 => true,
                _ => return Err(unknown),
            }),
            _ => return Err(unknown),
        })
    }
}

impl fmt::Display for AgreementSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key(), self.value())
    }
}
