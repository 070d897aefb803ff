//! What each path answers.

use std::fmt::Write;
use std::sync::Arc;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::exposition;
use super::http::{Method, Request, Response};
use super::subject::Subject;
use super::token::TokenSlot;
use crate::runtime::flight::{DumpCause, DumpError};
use crate::runtime::metrics::ReplicaRow;

/// The pages of one replica.
#[derive(Debug)]
pub(super) struct Pages {
    subject: Arc<Subject>,
    token: TokenSlot,
    registry: Registry,
}

impl Pages {
    /// For those who name the token, if there is one.
    pub fn new(subject: Subject, token: TokenSlot) -> Self {
        let subject = Arc::new(subject);
        Self {
            registry: exposition::registry(subject.clone()),
            subject,
            token,
        }
    }

    /// The answer to a request.
    pub fn answer(&self, request: &Request) -> Response {
        if !self.token.admits(request.authorization.as_deref()) {
            return Response::text(
                401,
                "this endpoint asks for its token: Authorization: Bearer TOKEN\n",
            )
            .with("WWW-Authenticate: Bearer");
        }
        let is_read = matches!(request.method, Some(Method::Get | Method::Head));
        let is_put = request.method == Some(Method::Put);
        match request.path.as_str() {
            "/metrics" if is_read => self.metrics(),
            "/livez" if is_read => self.liveness(),
            "/readyz" if is_read => self.readiness(),
            "/status" if is_read => self.status(),
            "/debug/flight" if is_read => self.flight(),
            "/debug/peers" if is_read => self.peers(),
            "/log-level" if is_read => self.log_level(),
            "/log-level" if is_put => self.change_log_level(&request.body),
            "/log-level" => not_allowed("Allow: GET, HEAD, PUT"),
            "/metrics" | "/livez" | "/readyz" | "/status" | "/debug/flight" | "/debug/peers" => {
                not_allowed("Allow: GET, HEAD")
            }
            _ => Response::text(
                404,
                "there are /metrics, /livez, /readyz, /status, /log-level, /debug/flight and /debug/peers\n",
            ),
        }
    }

    fn metrics(&self) -> Response {
        let mut text = String::new();
        match prometheus_text::encode(&mut text, &self.registry) {
            Ok(()) => Response::of(200, prometheus_text::CONTENT_TYPE, text.into_bytes()),
            Err(_) => Response::text(500, "the metrics cannot be written\n"),
        }
    }

    fn liveness(&self) -> Response {
        let silent = self.subject.silent_threads();
        if silent.is_empty() {
            return Response::text(200, "alive\n");
        }
        let lines = silent.iter().fold(String::new(), |mut lines, thread| {
            let _ = writeln!(lines, "hangs: no sign of life of {thread}");
            lines
        });
        Response::text(503, lines)
    }

    fn readiness(&self) -> Response {
        let reasons = self.subject.unready();
        if reasons.is_empty() {
            return Response::text(200, "ready\n");
        }
        let lines = reasons.iter().fold(String::new(), |mut lines, (reason, words)| {
            let _ = writeln!(lines, "{reason}: {words}");
            lines
        });
        Response::text(503, lines)
    }

    fn status(&self) -> Response {
        let Subject {
            metrics,
            cluster,
            quorum,
            ..
        } = &*self.subject;
        json(&ReplicaRow::of(&metrics.status()).in_cluster(*cluster, *quorum))
    }

    fn peers(&self) -> Response {
        json(&self.subject.metrics.evidence_report())
    }

    /// The record as a file has it.
    fn flight(&self) -> Response {
        match self.subject.flight.capture(DumpCause::Asked, "") {
            Some(dump) => Response::of(200, "application/octet-stream", dump.encode())
                .with("Content-Disposition: attachment; filename=\"atlas.flight\""),
            None => Response::text(404, format!("{}\n", DumpError::Off)),
        }
    }

    fn log_level(&self) -> Response {
        match self.subject.log_filter.current() {
            Some(current) => Response::text(200, format!("{current}\n")),
            None => Response::text(404, "this program does not say what it logs\n"),
        }
    }

    fn change_log_level(&self, body: &[u8]) -> Response {
        let refused = |why: &str| Response::text(400, format!("{why}; what is logged is what was before\n"));
        let Ok(filter) = std::str::from_utf8(body) else {
            return refused("a filter is text");
        };
        let filter = filter.trim();
        if filter.is_empty() {
            return refused("the body has to be a filter of logs, such as info,atlas_smr_replica=debug");
        }
        match self.subject.log_filter.change(filter) {
            Ok(()) => {
                tracing::info!(filter, "the filter of logs was changed");
                Response::text(200, format!("{filter}\n"))
            }
            Err(why) => refused(&why),
        }
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(mut json) => {
            json.push(b'\n');
            Response::of(200, "application/json", json)
        }
        Err(error) => Response::text(500, format!("{error}\n")),
    }
}

fn not_allowed(allowed: &'static str) -> Response {
    Response::text(405, "this page is asked otherwise\n").with(allowed)
}
