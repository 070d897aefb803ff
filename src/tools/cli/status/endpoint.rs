//! Asks an admin endpoint where its replica stands.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::runtime::metrics::ReplicaRow;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long one may take as a whole.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a replica is asked.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As host and port.
    pub address: String,
    pub token: Option<Zeroizing<String>>,
}

/// Reads an address as a command line names it: as host and port, or as the replica prints it.
pub(super) fn parse_address(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("the endpoint speaks no TLS; name what does as http:// host and port".to_owned());
    }
    let plain = text.strip_prefix("http://").unwrap_or(text);
    let address = plain.strip_suffix('/').unwrap_or(plain);
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
        port.parse::<u16>().ok().filter(|_| is_host)
    });
    match port {
        Some(_) => Ok(address.to_owned()),
        None => Err("must be a host and a port, as 127.0.0.1:9464".to_owned()),
    }
}

impl Endpoint {
    /// Where the replica stands, or why it does not say so, in words.
    pub fn status(&self) -> Result<ReplicaRow, String> {
        let end = Instant::now() + PATIENCE;
        let answer = self.ask(end).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer in {} s", PATIENCE.as_secs()),
            _ => error.to_string(),
        })?;
        self.read(&answer)
    }

    fn ask(&self, end: Instant) -> std::io::Result<Vec<u8>> {
        let mut stream = self.connect(end)?;
        let mut request = Zeroizing::new(format!(
            "GET /status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        ));
        if let Some(token) = &self.token {
            request.push_str("Authorization: Bearer ");
            request.push_str(token);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.set_write_timeout(Some(left(end)?))?;
        stream.write_all(request.as_bytes())?;
        let (mut answer, mut chunk) = (Vec::new(), [0; 16 << 10]);
        loop {
            stream.set_read_timeout(Some(left(end)?))?;
            match stream.read(&mut chunk)? {
                0 => return Ok(answer),
                count => answer.extend_from_slice(&chunk[..count]),
            }
            if answer.len() > ANSWER_BYTES_MAX {
                let what = "its answer is too long to be a replica's";
                return Err(std::io::Error::new(ErrorKind::InvalidData, what));
            }
        }
    }

    fn connect(&self, end: Instant) -> std::io::Result<TcpStream> {
        let mut last = None;
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(end)?) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ErrorKind::NotFound.into()))
    }

    fn read(&self, answer: &[u8]) -> Result<ReplicaRow, String> {
        let no_endpoint = "no admin endpoint answers there";
        let text = std::str::from_utf8(answer).map_err(|_| no_endpoint)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(no_endpoint)?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        match (status, &self.token) {
            (Some("200"), _) => {}
            (Some("401"), None) => {
                return Err("it asks for its token: name its file by --token-file".to_owned());
            }
            (Some("401"), Some(_)) => return Err("it asks for another token".to_owned()),
            (Some(other), _) => return Err(format!("it answers {other}: {}", body.trim_end())),
            (None, _) => return Err(no_endpoint.to_owned()),
        }
        serde_json::from_str(body).map_err(|error| format!("what it answers cannot be read: {error}"))
    }
}

/// What is left of the time, if anything is.
fn left(end: Instant) -> std::io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::types::NodeId;

    #[test]
    fn addresses_are_hosts_and_ports_also_as_replicas_print_them() {
        for (text, address) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("http://r0.example:9464", "r0.example:9464"),
            ("http://[::1]:9464/", "[::1]:9464"),
        ] {
            assert_eq!(parse_address(text).as_deref(), Ok(address));
        }
        for bad in [
            "",
            "r0",
            ":9464",
            "r0:http",
            "http://r0:1/status",
            "https://r0:9464",
            "user@r0:1",
            "r0:70000",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_status_is_told_in_words() {
        let endpoint = |token: Option<&str>| Endpoint {
            address: "r0:1".to_owned(),
            token: token.map(|token| Zeroizing::new(token.to_owned())),
        };
        let row = serde_json::to_string(&ReplicaRow::unanswered(NodeId::new(2).to_string(), None)).unwrap();
        let sound = format!("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{row}");
        assert_eq!(endpoint(None).read(sound.as_bytes()).unwrap().node, "r2");
        for (token, answer, said) in [
            (None, "", "no admin endpoint"),
            (None, "SSH-2.0-x\r\n", "no admin endpoint"),
            (None, "HTTP/1.1 401 Unauthorized\r\n\r\n", "--token-file"),
            (Some("t"), "HTTP/1.1 401 Unauthorized\r\n\r\n", "another token"),
            (
                None,
                "HTTP/1.1 503 No\r\n\r\nthere are too many\n",
                "it answers 503: there are too many",
            ),
            (None, "HTTP/1.1 200 OK\r\n\r\n{\"node\": 1}", "cannot be read"),
        ] {
            let error = endpoint(token).read(answer.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{answer:?}: {error}");
        }
        assert!(endpoint(None).read(b"\xff\xfe").is_err());
    }
}
