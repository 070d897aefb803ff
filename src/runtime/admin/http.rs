//! One request and one answer of HTTP/1.1, as bytes.

/// The longest body of a request.
pub const BODY_BYTES_MAX: usize = 1024;
/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// What a request may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    /// A [`Get`](Self::Get) whose answer has no body.
    Head,
    Put,
}

/// A request that is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// `None`: one that no page knows.
    pub method: Option<Method>,
    /// Without what follows a `?`.
    pub path: String,
    pub authorization: Option<Vec<u8>>,
    pub body: Vec<u8>,
}

/// What bytes are, as far as they came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a request.
    Partial,
    Whole(Request),
    /// No request that would be answered.
    Refused(Response),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub status: u16,
    content_type: &'static str,
    /// A header of this status alone.
    more: Option<&'static str>,
    pub body: Vec<u8>,
}

impl Response {
    /// Lines of text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::of(status, "text/plain; charset=utf-8", body.into().into_bytes())
    }

    pub fn of(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type,
            more: None,
            body,
        }
    }

    /// With another header, whole and without an end of line.
    pub fn with(mut self, header: &'static str) -> Self {
        self.more = Some(header);
        self
    }

    /// Its bytes; one to a [`Head`](Method::Head) ends with its head.
    pub fn encode(&self, is_head: bool) -> Vec<u8> {
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        if let Some(more) = self.more {
            bytes.push_str(more);
            bytes.push_str("\r\n");
        }
        bytes.push_str("\r\n");
        let mut bytes = bytes.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

fn refused(status: u16, why: &str) -> Parsed {
    Parsed::Refused(Response::text(status, format!("{why}\n")))
}

/// The most bytes of a request that are ever looked at, with so many of its head.
pub(super) const fn request_bytes_max(header_bytes_max: usize) -> usize {
    header_bytes_max + BODY_BYTES_MAX
}

/// What these bytes are, the first that came on a connection.
pub(super) fn parse(bytes: &[u8], header_bytes_max: usize) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    // A longer head is not one that is a little more than complete.
    let looked_at = &bytes[..bytes.len().min(header_bytes_max)];
    let length = match head.parse(looked_at) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < header_bytes_max => return Parsed::Partial,
        Ok(httparse::Status::Partial) => return refused(431, "the head of the request is too long"),
        Err(httparse::Error::TooManyHeaders) => return refused(431, "there are too many headers"),
        Err(httparse::Error::Version) => return refused(505, "this is HTTP/1.1"),
        Err(_) => return refused(400, "this is no request of HTTP/1.1"),
    };
    let body = match body_bytes(head.headers) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Some(body) = bytes[length..].get(..body) else {
        return Parsed::Partial;
    };
    let mut named = head.headers.iter().filter(|header| is(header, "authorization"));
    let authorization = named.next().map(|header| header.value.to_vec());
    if named.next().is_some() {
        return refused(400, "there are two Authorization headers");
    }
    let target = head.path.unwrap_or_default();
    Parsed::Whole(Request {
        method: match head.method.unwrap_or_default() {
            "GET" => Some(Method::Get),
            "HEAD" => Some(Method::Head),
            "PUT" => Some(Method::Put),
            _ => None,
        },
        path: target.split('?').next().unwrap_or_default().to_owned(),
        authorization,
        body: body.to_vec(),
    })
}

fn is(header: &httparse::Header<'_>, name: &str) -> bool {
    header.name.eq_ignore_ascii_case(name)
}

/// How many bytes follow a head.
fn body_bytes(headers: &[httparse::Header<'_>]) -> Result<usize, Parsed> {
    if headers.iter().any(|header| is(header, "transfer-encoding")) {
        return Err(refused(411, "say how long the body is: Content-Length"));
    }
    let mut lengths = headers.iter().filter(|header| is(header, "content-length"));
    let Some(length) = lengths.next() else {
        return Ok(0);
    };
    let digits = std::str::from_utf8(length.value).unwrap_or_default();
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number || lengths.next().is_some() {
        return Err(refused(400, "this Content-Length is no length"));
    }
    match digits.parse() {
        Ok(length @ ..=BODY_BYTES_MAX) => Ok(length),
        _ => Err(refused(413, "the body is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_MAX: usize = 1024;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes(), HEAD_MAX) {
            Parsed::Whole(request) => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_whole_with_its_last_byte_and_not_before() {
        let text = "PUT /log-level?x HTTP/1.1\r\nAuthorization: Bearer t\r\nContent-Length: 4\r\n\r\ninfo";
        for length in 0..text.len() {
            let parsed = parse(&text.as_bytes()[..length], HEAD_MAX);
            assert_eq!(parsed, Parsed::Partial, "{length} bytes");
        }
        let request = whole(text);
        assert_eq!(request.method, Some(Method::Put));
        assert_eq!(request.path, "/log-level");
        assert_eq!(request.authorization.as_deref(), Some(&b"Bearer t"[..]));
        assert_eq!(request.body, b"info");
        assert_eq!(whole("GET / HTTP/1.0\n\n").method, Some(Method::Get));
        assert_eq!(whole("BREW /pot HTTP/1.1\r\n\r\n").method, None);
        // What follows is another request, which nobody reads.
        assert_eq!(whole("HEAD /a HTTP/1.1\r\n\r\nGET /b").path, "/a");
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_status() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_MAX));
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(HEAD_MAX));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        let put = |header: &str| format!("PUT /log-level HTTP/1.1\r\n{header}\r\n\r\n");
        for (text, status) in [
            ("\x16\x03\x01\x02\0\x01".to_owned(), 400),
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
            ("GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400),
            (long, 431),
            (endless, 431),
            (many, 431),
            (put("Transfer-Encoding: chunked"), 411),
            (put("Content-Length: 1025"), 413),
            (put("Content-Length: 99999999999999999999999"), 413),
            (put("Content-Length: -1"), 400),
            (put("Content-Length: "), 400),
            (put("Content-Length: 1\r\nContent-Length: 1"), 400),
            (put("Authorization: a\r\nAuthorization: a"), 400),
        ] {
            match parse(text.as_bytes(), HEAD_MAX) {
                Parsed::Refused(response) => assert_eq!(response.status, status, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_that_nothing_follows() {
        let response = Response::text(503, "why\n").with("Retry-After: 1");
        let text = String::from_utf8(response.encode(false)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for line in ["Content-Length: 4", "Connection: close", "Retry-After: 1"] {
            assert!(head.lines().any(|own| own == line), "{head}");
        }
        assert_eq!(body, "why\n");
        let head = String::from_utf8(response.encode(true)).unwrap();
        assert!(
            head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }
}
