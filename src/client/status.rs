//! Asks one replica where it stands: a link of its own, one question, one answer.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

use super::dialer::{self, Target};
use crate::runtime::config::ClientConfig;
use crate::runtime::net::framing::{RecordReader, RecordWriter};
use crate::runtime::net::handshake::Identity;
use crate::runtime::net::pool::BufferPool;
use crate::smr::messages::lengths::{ADMIN_BYTES_MAX, link_record_bytes};
use crate::smr::messages::{AdminReply, AdminRequest, Checked, Envelope, Kind, encode};
use crate::smr::types::NodeId;
use crate::smr::types::Peer;

/// An answer's record is at most this long.
const RECORD_BYTES_MAX: usize = link_record_bytes(ADMIN_BYTES_MAX);

/// Asks replica `node` for its status.
///
/// # Errors
/// In words, why there is no answer.
pub fn status(config: &ClientConfig, node: NodeId) -> Result<Checked<AdminReply>, String> {
    let cluster = &config.cluster;
    let replica = cluster
        .replicas
        .get(node.index())
        .ok_or("there is no such replica")?;
    let identity = Identity {
        cluster: cluster.cluster_id(),
        application: cluster.application,
        epoch: cluster.epoch(),
        own: Peer::Client(config.client),
        secret: config.keys.link.clone(),
    };
    let target = Target {
        node,
        address: replica.address.clone(),
        key: replica.link_key,
    };
    let (socket, link) = dialer::connect(&target, &identity).map_err(|error| error.to_string())?;
    let mut socket = TcpStream::from(socket);
    let envelope = Envelope::new(Kind::Admin, cluster.cluster_id(), cluster.epoch());
    let mut messages = [encode(envelope, &AdminRequest::Status, 8)].into_iter().collect();
    let mut out = Vec::new();
    RecordWriter::new(link.sealer)
        .seal(&mut messages, &mut out, usize::MAX)
        .map_err(|error| error.to_string())?;
    socket.write_all(&out).map_err(|error| error.to_string())?;
    let mut reader = RecordReader::new(link.opener, RECORD_BYTES_MAX, BufferPool::new(1));
    let mut chunk = [0; 16 << 10];
    loop {
        let read = socket.read(&mut chunk).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the link ended without an answer".to_owned());
        }
        reader.push(&chunk[..read]).map_err(|error| error.to_string())?;
        while let Some(message) = reader.next_message().map_err(|error| error.to_string())? {
            if let Some(status) = open(&message, config) {
                return Ok(status);
            }
        }
    }
}

fn open(message: &Bytes, config: &ClientConfig) -> Option<Checked<AdminReply>> {
    let envelope = Envelope::open(message, config.cluster.cluster_id(), config.cluster.epoch()).ok()?;
    if envelope.kind != Kind::Admin {
        return None;
    }
    Checked::body_of(message).ok()
}
