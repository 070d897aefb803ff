//! One page of an admin endpoint: a GET that takes no longer, and keeps no more bytes, than it is told.
//!
//! It asks in HTTP/1.0: the answer is whole when the connection ends or its stated length is there, and comes
//! in no chunks. What comes may be anybody's: a wrong answer is an error, whatever it is, and what is shown of
//! one steers no terminal.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::runtime::metrics::ReplicaRow;

/// Bytes of `/status`: a replica's has a tenth of this.
pub(super) const STATUS_BYTES_MAX: usize = 256 << 10;
/// Letters of a name in it that are kept.
pub(super) const NAME_MAX: usize = 60;
/// Letters that are kept of what a replica does, in words.
pub(super) const WORDS_MAX: usize = 300;

/// Headers of an answer that are looked at.
const HEADERS_MAX: usize = 64;
/// A longer head is no endpoint's.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// Nobody knows the host, or nobody listens there.
    #[error("{}", in_words(.0))]
    Unreachable(io::Error),
    /// The answer did not come whole in its time.
    #[error("no answer in time")]
    TooSlow,
    /// The answer is longer than any page is.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// The connection ended in the midst of the answer.
    #[error("its answer is cut off")]
    CutOff,
    /// It speaks something else.
    #[error("this is no admin endpoint: {0}")]
    NotHttp(&'static str),
    /// It answers otherwise.
    #[error("it answers {status}{}", hint(*status))]
    Refused {
        /// The answer's status.
        status: u16,
    },
}

/// Without the number that the system has for it.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ": it asks for another token (--token-file)",
        404 => ": this is no admin endpoint of a replica",
        _ => "",
    }
}

/// Reads the address of an endpoint as a command line names it: as host and port, or as the replica prints it.
///
/// # Errors
/// In words, when it is none, or would break a request.
pub(super) fn parse_address(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("the endpoint speaks no TLS; name what does as http:// host and port".to_owned());
    }
    let plain = text.strip_prefix("http://").unwrap_or(text);
    let address = plain.strip_suffix('/').unwrap_or(plain);
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || ".-_:[]".contains(letter);
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && host.chars().all(is_letter))
        .and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(1..) => Ok(address.to_owned()),
        _ => Err("must be a host and a port, as 127.0.0.1:9464".to_owned()),
    }
}

/// Reads what `/status` says. Of each text so many letters are kept, and none that steers a terminal.
///
/// # Errors
/// In words, when it is not what a replica says.
pub(super) fn read_status(page: &[u8]) -> Result<ReplicaRow, String> {
    let mut row: ReplicaRow = serde_json::from_slice(page)
        .map_err(|error| format!("this is no admin endpoint: its /status cannot be read: {error}"))?;
    if row.node.is_empty() {
        return Err("this is no admin endpoint: its /status names no replica".to_owned());
    }
    let clean = |text: &mut String, letters_max| *text = shown(text, letters_max);
    clean(&mut row.node, NAME_MAX);
    clean(&mut row.cluster, NAME_MAX);
    clean(&mut row.phase, WORDS_MAX);
    row.error.iter_mut().for_each(|error| clean(error, WORDS_MAX));
    row.checkpoint_digest
        .iter_mut()
        .for_each(|digest| clean(digest, NAME_MAX));
    for evidence in &mut row.evidence {
        clean(&mut evidence.peer, NAME_MAX);
        clean(&mut evidence.kind, NAME_MAX);
        evidence
            .digest
            .iter_mut()
            .for_each(|digest| clean(digest, WORDS_MAX));
    }
    let counters = std::mem::take(&mut row.counters).into_iter();
    row.counters = counters
        .map(|(name, value)| (shown(&name, NAME_MAX), value))
        .collect();
    Ok(row)
}

/// A text of somebody else's as it can be shown on one line: its first letters, and none that steers a
/// terminal.
pub(super) fn shown(text: &str, letters_max: usize) -> String {
    let letters = text.chars().filter(|letter| !letter.is_control());
    letters.take(letters_max).collect()
}

/// Asks for a page, with this token if there is one.
///
/// # Errors
/// When there is no answer until `deadline`, none of at most `bytes_max` bytes, or none that says 200.
pub(super) fn get(
    address: &str,
    path: &str,
    token: Option<&str>,
    bytes_max: usize,
    deadline: Instant,
) -> Result<Vec<u8>, PageError> {
    let mut stream = connect(address, deadline)?;
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{authorization}\r\n");
    stream
        .set_write_timeout(Some(time_left(deadline)?))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .map_err(unreachable_or_slow)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let left = time_left(deadline)?;
        let read = stream
            .set_read_timeout(Some(left))
            .and_then(|()| stream.read(&mut chunk));
        let read = match read {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(unreachable_or_slow)?,
        };
        answer.extend_from_slice(&chunk[..read]);
        if let Some(body) = parse(&answer, read == 0, bytes_max)? {
            return Ok(body.to_vec());
        }
    }
}

fn connect(address: &str, deadline: Instant) -> Result<TcpStream, PageError> {
    let mut last = io::Error::from(ErrorKind::NotFound);
    for address in address.to_socket_addrs().map_err(PageError::Unreachable)? {
        match TcpStream::connect_timeout(&address, time_left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(unreachable_or_slow(last))
}

fn time_left(deadline: Instant) -> Result<Duration, PageError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(PageError::TooSlow)
    } else {
        Ok(left)
    }
}

fn unreachable_or_slow(error: io::Error) -> PageError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => PageError::TooSlow,
        _ => PageError::Unreachable(error),
    }
}

/// The body of an answer, once it is whole; `is_end` if nothing more comes.
fn parse(answer: &[u8], is_end: bool, bytes_max: usize) -> Result<Option<&[u8]>, PageError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let looked_at = &answer[..answer.len().min(HEAD_BYTES_MAX)];
    let start = match head.parse(looked_at) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if answer.len() >= HEAD_BYTES_MAX => {
            return Err(PageError::NotHttp("its head has no end"));
        }
        Ok(httparse::Status::Partial) if is_end => return Err(PageError::CutOff),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(PageError::NotHttp("what it answers is not HTTP")),
    };
    let status = head.code.unwrap_or_default();
    if status != 200 {
        return Err(PageError::Refused { status });
    }
    let named = |name: &str| {
        let mut found = head.headers.iter();
        found.find(|header| header.name.eq_ignore_ascii_case(name))
    };
    if named("transfer-encoding").is_some() {
        return Err(PageError::NotHttp("it answers HTTP/1.0 in chunks"));
    }
    let body = &answer[start..];
    let Some(length) = named("content-length") else {
        return match body.len() {
            length if length > bytes_max => Err(PageError::TooLong(bytes_max)),
            _ => Ok(is_end.then_some(body)),
        };
    };
    let digits = std::str::from_utf8(length.value).unwrap_or_default();
    match digits.parse::<usize>() {
        Err(_) => Err(PageError::NotHttp("its Content-Length is no length")),
        Ok(length) if length > bytes_max => Err(PageError::TooLong(bytes_max)),
        Ok(length) => match body.get(..length) {
            None if is_end => Err(PageError::CutOff),
            body => Ok(body),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc;

    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 100;

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
            "r0:",
            "r0:0",
            ":9464",
            "r0:http",
            "r0:70000",
            "http://r0:1/status",
            "https://r0:9464",
            "user@r0:1",
            "a b:1",
            "a\r\nX: y:1",
        ] {
            assert!(parse_address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_status_says_is_kept_within_bounds_and_steers_no_terminal() {
        let row = serde_json::json!({
            "node": "\u{1b}[2Jr0", "phase": "x".repeat(1000), "checkpoint_digest": "a\u{7}b",
            "evidence": [{
                "peer": "r1\n", "kind": "\u{1b}[1m", "misbehaviour": true, "count": 1, "last_unix_ms": 2, "digest": "\u{8}c",
            }],
            "counters": { "\u{1b}c": 3 },
        });
        let row = read_status(row.to_string().as_bytes()).unwrap();
        assert_eq!((row.node.as_str(), row.phase.len()), ("[2Jr0", WORDS_MAX));
        assert_eq!(row.checkpoint_digest.as_deref(), Some("ab"));
        let evidence = &row.evidence[0];
        assert_eq!(
            (
                evidence.peer.as_str(),
                evidence.kind.as_str(),
                evidence.digest.as_deref()
            ),
            ("r1", "[1m", Some("c"))
        );
        assert_eq!(row.counters.get("c"), Some(&3));
    }

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_not_before() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody and more";
        let whole = text.len() - " and more".len();
        for length in 0..whole {
            assert!(matches!(parse(&text[..length], false, MAX), Ok(None)), "{length}");
            assert!(
                matches!(parse(&text[..length], true, MAX), Err(PageError::CutOff)),
                "{length}"
            );
        }
        assert_eq!(parse(&text[..whole], false, MAX).unwrap(), Some(&b"body"[..]));
        let endless = b"HTTP/1.0 200 OK\r\n\r\nbody";
        assert!(matches!(parse(endless, false, MAX), Ok(None)));
        assert_eq!(parse(endless, true, MAX).unwrap(), Some(&b"body"[..]));
    }

    #[test]
    fn what_is_no_page_is_refused_with_the_reason() {
        let long = format!("HTTP/1.0 200 OK\r\n\r\n{}", "a".repeat(MAX + 1));
        let endless = format!("HTTP/1.0 200 OK\r\nA: {}", "b".repeat(HEAD_BYTES_MAX));
        for (text, reason) in [
            ("SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", "--token-file"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "503"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
                "longer than 100",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                "no length",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunks"),
            (long.as_str(), "longer than 100"),
            (endless.as_str(), "no end"),
        ] {
            let error = parse(text.as_bytes(), false, MAX).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:.40}: {error}");
        }
    }

    /// What one connection gets, which then stays open until the end of the test.
    fn answering(answer: Vec<u8>) -> (SocketAddr, mpsc::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (keep, until) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Who stopped listening has heard enough.
            let _ = stream.write_all(&answer);
            let _ = until.recv();
        });
        (address, keep)
    }

    #[test]
    fn one_that_sends_without_end_or_nothing_at_all_is_given_up() {
        let soon = || Instant::now() + Duration::from_millis(200);
        let (address, _keep) = answering(Vec::new());
        let silent = get(&address.to_string(), "/status", None, MAX, soon());
        assert!(matches!(silent, Err(PageError::TooSlow)), "{silent:?}");
        let flood = [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), vec![b'a'; 8 << 20]].concat();
        let (address, _keep) = answering(flood);
        let late = Instant::now() + Duration::from_secs(60);
        let flooded = get(&address.to_string(), "/status", None, MAX, late);
        assert!(matches!(flooded, Err(PageError::TooLong(MAX))), "{flooded:?}");
        let (address, _keep) = answering(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
        assert_eq!(
            get(&address.to_string(), "/", Some("token"), MAX, late).unwrap(),
            b"ok"
        );
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = get(&closed.to_string(), "/", None, MAX, late);
        assert!(matches!(refused, Err(PageError::Unreachable(_))), "{refused:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..300), is_end: bool,
        ) {
            let head = b"HTTP/1.1 200 OK\r\n".to_vec();
            for answer in [bytes.clone(), [head, bytes].concat()] {
                if let Ok(Some(body)) = parse(&answer, is_end, MAX) {
                    prop_assert!(body.len() <= MAX);
                }
            }
        }
    }
}
