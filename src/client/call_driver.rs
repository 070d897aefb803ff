//! The door for applications: calls from any thread or task, on any runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use futures_channel::oneshot;

use super::config::SubmitError;
use super::engine::{Completion, Driver, Engine, EngineError, EngineHandle};
use super::error::CallError;
use super::outcome::Outcome;
use super::session::Session;
use crate::runtime::config::ClientConfig;
use crate::smr::messages::Mode;
use crate::smr::types::Time;

/// The value that one operation gave, as the application wrote it.
pub type Reply = Bytes;

/// How long [`Client::connect`] waits for links with f+1 replicas.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits for a quorum before it is content with those.
const QUORUM_PATIENCE: Duration = Duration::from_millis(250);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Too few replicas can be reached.
    #[error("fewer than {needed} of {n} replicas can be reached: {reasons}")]
    Unreachable {
        /// Links needed.
        needed: usize,
        /// Replicas.
        n: usize,
        /// What each missing one said.
        reasons: String,
    },
}

struct Call {
    operation: Bytes,
    mode: Mode,
    deadline: Time,
    answer: oneshot::Sender<Result<Reply, CallError>>,
}

/// Calls on their way to the engine's thread.
///
/// Invariant: once the engine is gone no call stays in the queue, so that no caller waits for ever.
struct CallQueue {
    queue: ArrayQueue<Call>,
    closed: AtomicBool,
}

impl CallQueue {
    fn push(&self, call: Call) -> Result<(), CallError> {
        self.queue.push(call).map_err(|_| CallError::Full)?;
        // Pairs with the store in `close`: either this load sees it, or `close` sees the call.
        if self.closed.load(Ordering::SeqCst) {
            self.drop_all();
        }
        Ok(())
    }

    /// The engine is gone. Calls that are dropped tell their callers so.
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.drop_all();
    }

    fn drop_all(&self) {
        while self.queue.pop().is_some() {}
    }
}

/// A client of the cluster. Clones share one identity, its links, and its frames: calls made at the same time
/// travel together.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    calls: Arc<CallQueue>,
    deadline: Duration,
    engine: EngineHandle,
}

impl Client {
    /// Connects: dials every replica, and returns when f+1 are linked, whose equal answers end a call. The
    /// others are dialled on.
    ///
    /// # Errors
    /// When fewer can be reached within ten seconds: each missing one is named with its reason.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let (sender, receiver) = oneshot::channel();
        // Waiting blocks a thread, so it is one of its own.
        std::thread::spawn(move || {
            let _ = sender.send(Self::connect_blocking(config));
        });
        receiver.await.unwrap_or_else(|_| {
            Err(ConnectError::Engine(EngineError::Resources(
                std::io::Error::other("the connecting thread died"),
            )))
        })
    }

    /// As [`connect`](Self::connect), blocking this thread.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_blocking(config: ClientConfig) -> Result<Self, ConnectError> {
        let calls = Arc::new(CallQueue {
            queue: ArrayQueue::new(config.tuning.operations_max),
            closed: AtomicBool::new(false),
        });
        let driver = CallDriver {
            calls: calls.clone(),
            waiting: Vec::new(),
            free: Vec::new(),
            held: None,
        };
        let deadline = Duration::from_millis(config.tuning.deadline_ms);
        let quorum = config.cluster.quorum();
        let name = format!("client-{}", config.client);
        let engine = Engine::start(&name, &[config], None, Box::new(driver))?;
        // With a quorum the first call most likely finds the leader; fewer can still answer it.
        engine
            .wait_connected(quorum.quorum(), QUORUM_PATIENCE)
            .or_else(|_| engine.wait_connected(quorum.weak(), CONNECT_TIMEOUT))
            .map_err(|reasons| ConnectError::Unreachable {
                needed: quorum.weak(),
                n: quorum.n(),
                reasons,
            })?;
        Ok(Self {
            shared: Arc::new(Shared {
                calls,
                deadline,
                engine,
            }),
        })
    }

    /// Executes one operation in the order all replicas agree on. Linearizable.
    ///
    /// # Errors
    /// By the configured deadline at the latest; see [`CallError`]. An operation that gave no value is an
    /// error as well: [`CallError::Application`], [`CallError::ResultTooLong`], [`CallError::Panicked`].
    pub async fn call(&self, operation: impl Into<Bytes>) -> Result<Reply, CallError> {
        self.start(operation.into(), Mode::Ordered).await
    }

    /// Executes one read-only operation: beside the order where the cluster enables that, else in order. The
    /// client's [`ReadLevel`](crate::runtime::config::ReadLevel) says what the result promises.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn read(&self, operation: impl Into<Bytes>) -> Result<Reply, CallError> {
        self.start(operation.into(), Mode::Unordered).await
    }

    /// As [`call`](Self::call), blocking this thread.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_blocking(&self, operation: impl Into<Bytes>) -> Result<Reply, CallError> {
        futures_lite::future::block_on(self.call(operation))
    }

    /// As [`read`](Self::read), blocking this thread.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn read_blocking(&self, operation: impl Into<Bytes>) -> Result<Reply, CallError> {
        futures_lite::future::block_on(self.read(operation))
    }

    async fn start(&self, operation: Bytes, mode: Mode) -> Result<Reply, CallError> {
        let (answer, result) = oneshot::channel();
        let deadline = self.shared.engine.now().after(self.shared.deadline);
        let call = Call {
            operation,
            mode,
            deadline,
            answer,
        };
        self.shared.calls.push(call)?;
        self.shared.engine.wake();
        result.await.unwrap_or(Err(CallError::Closed))
    }
}

/// Moves calls from the queue into the session, and results back.
struct CallDriver {
    calls: Arc<CallQueue>,
    waiting: Vec<Option<oneshot::Sender<Result<Reply, CallError>>>>,
    free: Vec<usize>,
    /// A call that the session had no room for: it goes first.
    held: Option<Call>,
}

impl CallDriver {
    fn name(&mut self, answer: oneshot::Sender<Result<Reply, CallError>>) -> u64 {
        match self.free.pop() {
            Some(place) => {
                self.waiting[place] = Some(answer);
                place as u64
            }
            None => {
                self.waiting.push(Some(answer));
                self.waiting.len() as u64 - 1
            }
        }
    }

    fn answer(&mut self, token: u64, result: Result<Reply, CallError>) {
        let place = token as usize;
        if let Some(answer) = self.waiting[place].take() {
            self.free.push(place);
            // A caller that stopped waiting wants no answer.
            let _ = answer.send(result);
        }
    }
}

impl Drop for CallDriver {
    fn drop(&mut self) {
        self.calls.close();
    }
}

impl Driver for CallDriver {
    fn step(&mut self, now: Time, sessions: &mut [Session]) -> bool {
        let mut any = false;
        while let Some(call) = self.held.take().or_else(|| self.calls.queue.pop()) {
            let Call {
                operation,
                mode,
                deadline,
                answer,
            } = call;
            let token = self.name(answer);
            match sessions[0].submit(now, &operation, mode, token, deadline) {
                Ok(()) => any = true,
                Err(SubmitError::Full) => {
                    let answer = self.waiting[token as usize].take();
                    self.free.push(token as usize);
                    self.held = answer.map(|answer| Call {
                        operation,
                        mode,
                        deadline,
                        answer,
                    });
                    if deadline <= now
                        && let Some(call) = self.held.take()
                    {
                        let _ = call.answer.send(Err(CallError::Full));
                        continue;
                    }
                    break;
                }
                Err(SubmitError::TooLarge { got, max }) => {
                    self.answer(token, Err(CallError::TooLarge { got, max }));
                }
            }
        }
        any
    }

    fn on_ended(&mut self, _: Time, completion: Completion) {
        let Completion { tokens, outcome, .. } = completion;
        match outcome {
            Outcome::Results(body) => {
                for (token, result) in tokens.into_iter().zip(body.values()) {
                    self.answer(token, result);
                }
            }
            Outcome::Failed(error) => {
                tokens
                    .into_iter()
                    .for_each(|token| self.answer(token, Err(error.clone())));
            }
        }
    }

    fn has_input(&self) -> bool {
        self.held.is_none() && !self.calls.queue.is_empty()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.held.as_ref().map(|call| call.deadline)
    }
}
