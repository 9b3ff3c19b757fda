//! Reads the head of an HTTP/1 request from the bytes that have arrived so far.
//!
//! A decision depends only on the shortest run of first bytes that settles it. That is what makes the answer the same
//! however the client cut its request into segments, and why garbage gets its 400 at once rather than after a timeout.

use std::net::Ipv6Addr;

/// The longest head that is read: more gets 431.
pub const HEAD_MAX: usize = 8 * 1024;
/// The longest request target: a longer one gets 414. RFC 9112 section 3 asks for request lines of 8,000 octets at least.
pub const TARGET_MAX: usize = 8000;
/// The most header fields: more get 431.
pub const FIELDS_MAX: usize = 96;
/// The longest method: a longer token is no HTTP.
const METHOD_MAX: usize = 32;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 400: it is not HTTP, or RFC 9112 demands a 400.
    BadRequest,
    /// 414: the request target is longer than [`TARGET_MAX`].
    TargetTooLong,
    /// 431: the head is longer than [`HEAD_MAX`] or has more than [`FIELDS_MAX`] fields.
    FieldsTooLarge,
    /// 505: another major version of HTTP.
    Version,
}

/// What kind of method the request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: the answer must not have a body (RFC 9110 section 9.3.2).
    Head,
    /// Any other: nobody's probe.
    Other,
}

impl Method {
    fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            _ => Self::Other,
        }
    }
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading<'a> {
    /// Nothing can be said yet.
    Incomplete,
    /// The head is complete and valid.
    Complete {
        /// The method.
        method: Method,
        /// The host of the target, without its port; empty if the request names none.
        host: &'a str,
        /// The path of the target, without its query.
        path: &'a str,
    },
    /// The request is refused, whatever follows.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The method, or `Other` where it had not been read yet.
        method: Method,
    },
}

/// Reads the head at the start of these bytes.
pub fn read(bytes: &[u8]) -> Reading<'_> {
    let head = &bytes[..bytes.len().min(HEAD_MAX)];
    let mut method = Method::Other;
    match read_head(head, &mut method) {
        Ok(reading) => reading,
        Err(Stop::Refused(refusal)) => Reading::Refused { refusal, method },
        Err(Stop::Incomplete) if head.len() == HEAD_MAX => {
            Reading::Refused { refusal: Refusal::FieldsTooLarge, method }
        }
        Err(Stop::Incomplete) => Reading::Incomplete,
    }
}

enum Stop {
    Incomplete,
    Refused(Refusal),
}

const BAD: Stop = Stop::Refused(Refusal::BadRequest);

/// Reads one byte after the other, so that each failure is of the first byte that can't be right.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Result<u8, Stop> {
        let byte = *self.bytes.get(self.at).ok_or(Stop::Incomplete)?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Stop> {
        if self.next()? == wanted { Ok(()) } else { Err(BAD) }
    }

    /// The non-empty run of permitted bytes before a space; the space is consumed.
    fn word(&mut self, permitted: impl Fn(u8) -> bool, max: usize, too_long: Refusal) -> Result<&'a [u8], Stop> {
        let start = self.at;
        loop {
            let byte = self.next()?;
            let length = self.at - 1 - start;
            if byte == b' ' && length > 0 {
                return Ok(&self.bytes[start..start + length]);
            }
            if !permitted(byte) {
                return Err(BAD);
            }
            if length == max {
                return Err(Stop::Refused(too_long));
            }
        }
    }
}

fn read_head<'a>(head: &'a [u8], method_kind: &mut Method) -> Result<Reading<'a>, Stop> {
    let mut cursor = Cursor { bytes: head, at: 0 };
    // RFC 9112 section 2.2: empty lines before the request line are ignored, and a bare LF ends a line.
    loop {
        match head.get(cursor.at) {
            Some(b'\r') => {
                cursor.at += 1;
                cursor.expect(b'\n')?;
            }
            Some(b'\n') => cursor.at += 1,
            Some(_) => break,
            None => return Err(Stop::Incomplete),
        }
    }
    let method = cursor.word(is_token, METHOD_MAX, Refusal::BadRequest)?;
    *method_kind = Method::of(method);
    let target = cursor.word(is_target, TARGET_MAX, Refusal::TargetTooLong)?;
    let minor = read_version(&mut cursor)?;

    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let fields = match httparse::parse_headers(&head[cursor.at..], &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Ok(httparse::Status::Partial) => return Err(Stop::Incomplete),
        Err(httparse::Error::TooManyHeaders) => return Err(Stop::Refused(Refusal::FieldsTooLarge)),
        Err(_) => return Err(BAD),
    };

    // RFC 9112 section 3.2: 400 for an HTTP/1.1 request without Host, and for any with two or an invalid one.
    let mut hosts = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let host = match (hosts.next(), hosts.next()) {
        (Some(field), None) => authority(field.value, Userinfo::Invalid)?.host,
        (None, None) if minor == 0 => "",
        _ => return Err(BAD),
    };
    let (host, path) = read_target(method, target, host)?;
    Ok(Reading::Complete { method: *method_kind, host, path })
}

/// The rest of the request line; gives the minor version.
fn read_version(cursor: &mut Cursor<'_>) -> Result<u8, Stop> {
    for byte in *b"HTTP/" {
        cursor.expect(byte)?;
    }
    match cursor.next()? {
        b'1' => {}
        b'0'..=b'9' => return Err(Stop::Refused(Refusal::Version)),
        _ => return Err(BAD),
    }
    cursor.expect(b'.')?;
    // RFC 9110 section 2.5: a minor version higher than ours is read as ours, 1.
    let minor = cursor.next()?;
    if !minor.is_ascii_digit() {
        return Err(BAD);
    }
    match cursor.next()? {
        b'\n' => {}
        b'\r' => cursor.expect(b'\n')?,
        _ => return Err(BAD),
    }
    Ok(minor - b'0')
}

/// The host and the path of a target in any of its four forms (RFC 9112 section 3.2).
fn read_target<'a>(method: &[u8], target: &'a [u8], host: &'a str) -> Result<(&'a str, &'a str), Stop> {
    let target = std::str::from_utf8(target).map_err(|_| BAD)?;
    if method == b"CONNECT" {
        // Section 3.2.3: its target is host and port, nothing else; RFC 9110 section 9.3.6 demands a 400 for an empty or
        // invalid port. A valid one is a well-formed request that we, an intercepting proxy, don't serve before login: it
        // gets the 511 (RFC 6585 section 6), which, not being 2xx, opens no tunnel.
        let authority = authority(target.as_bytes(), Userinfo::Invalid)?;
        let port: u16 = authority.port.and_then(|port| port.parse().ok()).ok_or(BAD)?;
        return if authority.host.is_empty() || port == 0 { Err(BAD) } else { Ok((authority.host, "")) };
    }
    if target.starts_with('/') {
        return Ok((host, without_query(target)));
    }
    if target == "*" {
        // Section 3.2.4: only for a server-wide OPTIONS.
        return if method == b"OPTIONS" { Ok((host, "*")) } else { Err(BAD) };
    }
    let (scheme, rest) = target.split_once("://").ok_or(BAD)?;
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return Err(BAD);
    }
    // Section 3.2.2: the authority of an absolute target wins over the Host field.
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = authority(&rest.as_bytes()[..end], Userinfo::Permitted)?.host;
    if host.is_empty() {
        // RFC 9110 section 4.2.1.
        return Err(BAD);
    }
    let path = without_query(&rest[end..]);
    Ok((host, if path.is_empty() { "/" } else { path }))
}

fn without_query(target: &str) -> &str {
    &target[..target.find(['?', '#']).unwrap_or(target.len())]
}

/// Whether `user@` may precede the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Userinfo {
    /// In a URI: deprecated (RFC 9110 section 4.2.4), but not a syntax error.
    Permitted,
    /// In Host and in a CONNECT target, whose syntax has none.
    Invalid,
}

struct Authority<'a> {
    host: &'a str,
    port: Option<&'a str>,
}

/// Reads `uri-host [ ":" port ]` (RFC 3986 section 3.2). An empty host is valid syntax.
fn authority(value: &[u8], userinfo: Userinfo) -> Result<Authority<'_>, Stop> {
    let value = std::str::from_utf8(value).map_err(|_| BAD)?;
    let value = match (value.rsplit_once('@'), userinfo) {
        (None, _) => value,
        (Some((_, value)), Userinfo::Permitted) => value,
        (Some(_), Userinfo::Invalid) => return Err(BAD),
    };
    let (host, port) = if let Some(literal) = value.strip_prefix('[') {
        let (address, rest) = literal.split_once(']').ok_or(BAD)?;
        // The other form, `[v1.x]`, has no version that anybody uses.
        address.parse::<Ipv6Addr>().map_err(|_| BAD)?;
        let port = match rest.strip_prefix(':') {
            None if !rest.is_empty() => return Err(BAD),
            port => port,
        };
        (&value[..address.len() + 2], port)
    } else {
        let (host, port) = value.split_once(':').map_or((value, None), |(host, port)| (host, Some(port)));
        if !is_reg_name(host.as_bytes()) {
            return Err(BAD);
        }
        (host, port)
    };
    if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(BAD);
    }
    Ok(Authority { host, port })
}

/// RFC 3986 section 3.2.2: unreserved characters, sub-delimiters and percent-encoded bytes.
fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        rest = match first {
            b'%' => match tail {
                [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
                _ => return false,
            },
            b if b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(b) => tail,
            _ => return false,
        };
    }
    true
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What browsers put into a target unencoded: visible ASCII and, against RFC 3986, bytes beyond.
fn is_target(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte >= 0x80
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete<'a>(method: Method, host: &'a str, path: &'a str) -> Reading<'a> {
        Reading::Complete { method, host, path }
    }

    fn refused(refusal: Refusal) -> Reading<'static> {
        Reading::Refused { refusal, method: Method::Get }
    }

    fn garbage() -> Reading<'static> {
        Reading::Refused { refusal: Refusal::BadRequest, method: Method::Other }
    }

    #[test]
    fn requests() {
        use Method::{Get, Head, Other};
        let bad = refused(Refusal::BadRequest);
        let table: Vec<(&str, &str, Reading<'_>)> = vec![
            ("a plain GET", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", complete(Get, "a.example", "/")),
            ("HEAD", "HEAD /x HTTP/1.1\r\nHost: a.example\r\n\r\n", complete(Head, "a.example", "/x")),
            ("a method is case-sensitive", "get / HTTP/1.1\r\nHost: a\r\n\r\n", complete(Other, "a", "/")),
            ("a body follows", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nxxx", complete(Other, "a", "/")),
            ("a query", "GET /generate_204?x=/y HTTP/1.1\r\nHost: a\r\n\r\n", complete(Get, "a", "/generate_204")),
            ("a port", "GET / HTTP/1.1\r\nHost: a.example:80\r\n\r\n", complete(Get, "a.example", "/")),
            ("an empty port", "GET / HTTP/1.1\r\nHost: a.example:\r\n\r\n", complete(Get, "a.example", "/")),
            ("an IPv4 address", "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", complete(Get, "192.0.2.1", "/")),
            (
                "an IPv6 address",
                "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
                complete(Get, "[2001:db8::1]", "/"),
            ),
            ("an empty Host is valid", "GET / HTTP/1.1\r\nHost:\r\n\r\n", complete(Get, "", "/")),
            ("white space about the value", "GET / HTTP/1.1\r\nhOST: \t a \t\r\n\r\n", complete(Get, "a", "/")),
            ("HTTP/1.0 needs no Host", "GET / HTTP/1.0\r\n\r\n", complete(Get, "", "/")),
            ("HTTP/1.0 with Host", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", complete(Get, "a", "/")),
            ("a higher minor version", "GET / HTTP/1.9\r\nHost: a\r\n\r\n", complete(Get, "a", "/")),
            ("bare LF", "GET / HTTP/1.1\nHost: a\n\n", complete(Get, "a", "/")),
            ("empty lines first", "\r\n\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", complete(Get, "a", "/")),
            (
                "absolute form wins",
                "GET http://b.example/y?z HTTP/1.1\r\nHost: a\r\n\r\n",
                complete(Get, "b.example", "/y"),
            ),
            (
                "absolute form, no path",
                "GET http://b.example HTTP/1.1\r\nHost: a\r\n\r\n",
                complete(Get, "b.example", "/"),
            ),
            ("absolute form, query only", "GET HTTP://b?z HTTP/1.1\r\nHost: a\r\n\r\n", complete(Get, "b", "/")),
            ("absolute form, user", "GET http://u:p@b:8/ HTTP/1.1\r\nHost: a\r\n\r\n", complete(Get, "b", "/")),
            ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", complete(Other, "a", "*")),
            ("CONNECT", "CONNECT b.example:443 HTTP/1.1\r\nHost: a\r\n\r\n", complete(Other, "b.example", "")),
            ("no end yet", "GET / HTTP/1.1\r\nHost: a\r\n", Reading::Incomplete),
            ("nothing yet", "", Reading::Incomplete),
            ("only empty lines", "\r\n\r\n", Reading::Incomplete),
            ("a cut method", "GE", Reading::Incomplete),
            ("a cut version", "GET / HTTP/1.", Reading::Incomplete),
            ("no Host", "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", bad),
            ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", bad),
            ("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", bad),
            ("absolute form, no Host", "GET http://b/ HTTP/1.1\r\n\r\n", bad),
            ("Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", bad),
            ("Host with a comma list is a reg-name, with a slash not", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", bad),
            ("Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", bad),
            ("Host with a bad port", "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", bad),
            ("Host with a bare IPv6 address", "GET / HTTP/1.1\r\nHost: 2001:db8::1\r\n\r\n", bad),
            ("Host with a bad literal", "GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", bad),
            ("Host with a bad escape", "GET / HTTP/1.1\r\nHost: a%2\r\n\r\n", bad),
            ("white space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", bad),
            ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", bad),
            ("a bare CR", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", bad),
            ("a relative target", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("* with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("absolute form, no host", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", bad),
            ("no version (HTTP/0.9)", "GET /\r\n", bad),
            ("version in lower case", "GET / http/1.1\r\n", bad),
            ("HTTP/2.0", "GET / HTTP/2.0\r\n", refused(Refusal::Version)),
            ("HTTP/0.9", "GET / HTTP/0.9\r\n", refused(Refusal::Version)),
            ("another major version, as soon as it is seen", "GET / HTTP/3", refused(Refusal::Version)),
        ];
        for (sentence, bytes, expected) in &table {
            assert_eq!(read(bytes.as_bytes()), *expected, "{sentence}");
        }
        let other = |refusal| Reading::Refused { refusal, method: Other };
        for (sentence, bytes, expected) in [
            ("HTTP/2's preface", &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], other(Refusal::Version)),
            ("a TLS record's first byte", b"\x16", garbage()),
            ("a TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00", garbage()),
            ("NUL", b"\0", garbage()),
            ("SSH", b"SSH-2.0-OpenSSH_9\r\n", garbage()),
            ("a space first", b" GET", garbage()),
            ("CR without LF", b"\rG", garbage()),
            ("a long word", &[b'A'; METHOD_MAX + 1], garbage()),
            ("CONNECT without a port", b"CONNECT b HTTP/1.1\r\nHost: b\r\n\r\n", garbage()),
            ("CONNECT to port 0", b"CONNECT b:0 HTTP/1.1\r\nHost: b\r\n\r\n", garbage()),
            ("CONNECT with a path", b"CONNECT /x HTTP/1.1\r\nHost: b\r\n\r\n", garbage()),
            ("not UTF-8 in the target", b"X /\xff HTTP/1.1\r\nHost: b\r\n\r\n", garbage()),
            ("not UTF-8 in Host", b"X / HTTP/1.1\r\nHost: \xff\r\n\r\n", garbage()),
        ] {
            assert_eq!(read(bytes), expected, "{sentence}");
        }
    }

    #[test]
    fn limits() {
        let get = |target: usize, field: usize| {
            let mut bytes = b"GET /".to_vec();
            bytes.resize(4 + target, b'a');
            bytes.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\nX: ");
            bytes.resize(bytes.len() + field, b'x');
            bytes.extend_from_slice(b"\r\n\r\n");
            bytes
        };
        let rest = get(1, 0).len() - 1;
        assert!(matches!(read(&get(TARGET_MAX, 0)), Reading::Complete { .. }), "the longest target");
        assert_eq!(read(&get(TARGET_MAX + 1, 0)), refused(Refusal::TargetTooLong), "one longer");
        assert_eq!(read(&get(TARGET_MAX + 1, 0)[..TARGET_MAX + 5]), refused(Refusal::TargetTooLong), "and at once");
        assert!(matches!(read(&get(1, HEAD_MAX - rest - 1)), Reading::Complete { .. }), "the longest head");
        assert_eq!(read(&get(1, HEAD_MAX - rest)), refused(Refusal::FieldsTooLarge), "one longer");
        let fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n - 1));
        assert!(matches!(read(fields(FIELDS_MAX).as_bytes()), Reading::Complete { .. }), "the most fields");
        assert_eq!(read(fields(FIELDS_MAX + 1).as_bytes()), refused(Refusal::FieldsTooLarge), "one more");
        assert_eq!(
            read(&[b'\n'; HEAD_MAX]),
            Reading::Refused { refusal: Refusal::FieldsTooLarge, method: Method::Other },
            "nothing but empty lines"
        );
    }

    /// Bytes that are nearly a request.
    pub(crate) fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("GET ".to_owned()),
            Just("HEAD ".to_owned()),
            Just("CONNECT ".to_owned()),
            Just("/generate_204 ".to_owned()),
            Just("http://a.example/ ".to_owned()),
            Just("/ ".to_owned()),
            Just("HTTP/1.1\r\n".to_owned()),
            Just("HTTP/1.0\n".to_owned()),
            Just("HTTP/2.0\r\n".to_owned()),
            Just("Host: a.example\r\n".to_owned()),
            Just("Host: [::1]:80\n".to_owned()),
            Just("\r\n".to_owned()),
            Just("\r\n\r\n".to_owned()),
            "[ -~\r\n]{0,40}",
            "[a-z]{0,2000}",
        ];
        prop_oneof![
            4 => prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
            1 => prop::collection::vec(any::<u8>(), 0..600),
            2 => "(GET|HEAD|POST) /[a-z0-9_?=]{0,30} HTTP/1\\.[01]\r\n(Host: [a-z.]{1,20}\r\n){0,2}(X: [ -~]{0,99}\r\n){0,5}\r\n[a-z]{0,50}"
                .prop_map(String::into_bytes),
        ]
    }

    proptest! {
        /// What a run of first bytes settles stays settled: the ground on which reassembly stands.
        #[test]
        fn a_decision_never_changes_when_more_arrives(bytes in nearly_a_request(), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(bytes.len() + 1);
            let early = read(&bytes[..cut]);
            if early != Reading::Incomplete {
                prop_assert_eq!(early, read(&bytes));
            }
        }
    }
}
