//! The answers: HTTP responses and the TLS alert, fixed byte strings, built once when the configuration is loaded.
//!
//! Nothing of a request is in them. Each fits one segment, because the exchange keeps no state: a lost response comes
//! again as a whole when the client repeats its request.
//!
//! There is no Date field: RFC 9110 section 6.6.1 forbids it to a server without a clock, and the responder has none.
//! Its one clock is `CLOCK_MONOTONIC`, and a gateway without a battery-backed clock hands out these answers before it knows
//! the time.

use portal_common::{
    checksum::Sum,
    cookie::{ALERT_LEN, RESPONSE_MAX, RESPONSE_MIN},
};

pub use portal_common::Family;

/// TLS's answer to a stranger: a record of an alert (21) in the clear, fatal (2), access_denied (49): "a valid certificate was received,
/// but the sender decided not to proceed" (RFC 8446 section 6). The record's version is 3.1, as in a first ClientHello (section 5.1), which
/// clients of every version take. Chromium and Firefox look for a portal at once when they get it.
const ALERT: [u8; ALERT_LEN] = [21, 3, 1, 0, 2, 2, 49];

/// The status of a response, or the alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 200 with Apple's success page: what the operator chose for a probe.
    Success,
    /// 302 to the portal.
    Redirect,
    /// 400.
    BadRequest,
    /// 414.
    TargetTooLong,
    /// 431.
    FieldsTooLarge,
    /// 505.
    VersionNotSupported,
    /// 511: everything that no other rule is for.
    AuthenticationRequired,
    /// No HTTP status but TLS's alert access_denied: whatever comes on port 443.
    Alert,
}

impl Status {
    /// Every status, in the order of their codes, and the alert.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::Redirect,
        Self::BadRequest,
        Self::TargetTooLong,
        Self::FieldsTooLarge,
        Self::VersionNotSupported,
        Self::AuthenticationRequired,
        Self::Alert,
    ];

    /// The status code, or the alert's number.
    pub const fn code(self) -> u16 {
        match self {
            Self::Success => 200,
            Self::Redirect => 302,
            Self::BadRequest => 400,
            Self::TargetTooLong => 414,
            Self::FieldsTooLarge => 431,
            Self::VersionNotSupported => 505,
            Self::AuthenticationRequired => 511,
            Self::Alert => ALERT[ALERT_LEN - 1] as u16,
        }
    }

    /// What people call it: stable, as in `portalctl explain --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "200",
            Self::Redirect => "302",
            Self::BadRequest => "400",
            Self::TargetTooLong => "414",
            Self::FieldsTooLarge => "431",
            Self::VersionNotSupported => "505",
            Self::AuthenticationRequired => "511",
            Self::Alert => "alert 49",
        }
    }

    /// The name of the counter of these answers: stable, as in `portalctl status --json`.
    pub const fn counter_name(self) -> &'static str {
        match self {
            Self::Success => "answered_200",
            Self::Redirect => "answered_302",
            Self::BadRequest => "answered_400",
            Self::TargetTooLong => "answered_414",
            Self::FieldsTooLarge => "answered_431",
            Self::VersionNotSupported => "answered_505",
            Self::AuthenticationRequired => "answered_511",
            Self::Alert => "answered_alert_49",
        }
    }

    /// The reason phrase (RFC 9110 section 15, RFC 6585); TLS's name of the alert.
    const fn phrase(self) -> &'static str {
        match self {
            Self::Success => "OK",
            Self::Redirect => "Found",
            Self::BadRequest => "Bad Request",
            Self::TargetTooLong => "URI Too Long",
            Self::FieldsTooLarge => "Request Header Fields Too Large",
            Self::VersionNotSupported => "HTTP Version Not Supported",
            Self::AuthenticationRequired => "Network Authentication Required",
            Self::Alert => "access_denied",
        }
    }
}

/// Which response a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// The status.
    pub status: Status,
    /// Without a body, because the method is HEAD (RFC 9110 section 9.3.2).
    pub head: bool,
}

/// One response, or the alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: Status,
    bytes: Box<[u8]>,
    sum: Sum,
}

impl Answer {
    fn new(status: Status, bytes: Vec<u8>) -> Self {
        Self { status, sum: Sum::new().bytes(&bytes), bytes: bytes.into_boxed_slice() }
    }

    /// What it is.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The whole response, header and body; the alert's record.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The Internet checksum's sum over the bytes, from an even offset: summed once, not once per client.
    pub fn sum(&self) -> Sum {
        self.sum
    }
}

/// Why no answers can be made from a portal URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL that a browser could be sent to.
    #[error(
        "`{0}` can't be the portal's URL: it must begin with `http://` or `https://`, name a host, and hold only visible ASCII \
         characters; percent-encode the others"
    )]
    Invalid(String),
    /// The response would not fit one segment.
    #[error(
        "the portal's URL is {url} bytes long, so that the {status} response takes {response} bytes, but it must fit one \
         segment of {RESPONSE_MAX}: shorten the URL by {} bytes or more",
        (response - RESPONSE_MAX).div_ceil(2)
    )]
    TooLong {
        /// The URL's length, bytes.
        url: usize,
        /// The response it made too long.
        status: u16,
        /// That response's length, bytes.
        response: usize,
    },
}

/// Every response that a client can get.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Indexed by family, status and whether it is for HEAD.
    table: [[[Answer; 2]; Status::ALL.len()]; 2],
}

impl Answers {
    /// The responses that send clients to these URLs, one for each address family: the portal has an address in each, and a
    /// client may be able to reach only the one it uses.
    pub fn new(url_v4: &str, url_v6: &str) -> Result<Self, UrlError> {
        Ok(Self { table: [for_url(url_v4)?, for_url(url_v6)?] })
    }

    /// The response of this choice for a client that uses this family.
    pub fn pick(&self, choice: Choice, family: Family) -> &Answer {
        &self.table[family as usize][choice.status as usize][usize::from(choice.head)]
    }

    /// Every response, for whoever must recognise them.
    pub fn all(&self) -> impl Iterator<Item = &Answer> {
        self.table.iter().flatten().flatten()
    }
}

fn for_url(url: &str) -> Result<[[Answer; 2]; Status::ALL.len()], UrlError> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
    // The URL goes into a header field as it is: no byte of it may end the field.
    if host.is_empty() || host.starts_with(['/', '?', '#']) || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(UrlError::Invalid(url.to_owned()));
    }
    for status in Status::ALL {
        let response = render(status, url, false).len();
        if response > RESPONSE_MAX {
            return Err(UrlError::TooLong { url: url.len(), status: status.code(), response });
        }
    }
    Ok(Status::ALL.map(|status| {
        [false, true].map(|head| {
            let bytes = render(status, url, head);
            match status {
                Status::Alert => assert!(bytes.len() == ALERT_LEN),
                _ => assert!(bytes.len() >= RESPONSE_MIN, "the header alone is longer"),
            }
            Answer::new(status, bytes)
        })
    }))
}

fn render(status: Status, url: &str, head: bool) -> Vec<u8> {
    let Some(body) = body(status, &escape(url)) else {
        return ALERT.to_vec();
    };
    let location = if status == Status::Redirect { format!("Location: {url}\r\n") } else { String::new() };
    let header = format!(
        "HTTP/1.1 {} {}\r\n\
         {location}\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         \r\n",
        status.code(),
        status.phrase(),
        body.len()
    );
    let mut bytes = header.into_bytes();
    if !head {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

/// The page; none if the answer is no HTTP.
fn body(status: Status, url: &str) -> Option<String> {
    let (title, refresh, text) = match status {
        // Apple's page, which only Apple's detector reads as "online". Android and ChromeOS want a 204; Windows, Firefox and
        // NetworkManager compare with texts of their own: to them any other 200 is the sign of a portal.
        Status::Success => {
            return Some("<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>\n".to_owned());
        }
        Status::AuthenticationRequired => (
            "Log in to this network",
            format!("<meta http-equiv=\"refresh\" content=\"0; url={url}\">\n"),
            format!(
                "You need to log in before you can use the internet.</p>\n<p><a href=\"{url}\">Go to the login page</a>"
            ),
        ),
        Status::Redirect => {
            ("Log in to this network", String::new(), format!("<a href=\"{url}\">Go to the login page</a>"))
        }
        Status::BadRequest => ("Bad request", String::new(), "This is not a valid HTTP request.".to_owned()),
        Status::TargetTooLong => ("Address too long", String::new(), "The address of the page is too long.".to_owned()),
        Status::FieldsTooLarge => {
            ("Request too large", String::new(), "The header of the request is too large.".to_owned())
        }
        Status::VersionNotSupported => {
            ("Version not supported", String::new(), "This version of HTTP is not supported here.".to_owned())
        }
        Status::Alert => return None,
    };
    Some(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         {refresh}<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{text}</p>\n</body>\n</html>\n"
    ))
}

/// Escapes for text and for attributes in double quotes.
fn escape(url: &str) -> String {
    let mut escaped = String::with_capacity(url.len());
    for c in url.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "http://192.0.2.1/login?a=1&b=2";
    const V6: &str = "http://[2001:db8::1]/login?a=1&b=2";

    struct Parsed<'a> {
        code: u16,
        fields: Vec<(String, &'a str)>,
        body: &'a str,
    }

    impl Parsed<'_> {
        fn field(&self, name: &str) -> Option<&str> {
            let mut found = self.fields.iter().filter(|(n, _)| n == name);
            let value = found.next().map(|(_, value)| *value);
            assert!(found.next().is_none(), "{name} twice");
            value
        }
    }

    fn parse(bytes: &[u8]) -> Parsed<'_> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = response.parse(bytes).unwrap() else { panic!("incomplete") };
        Parsed {
            code: response.code.unwrap(),
            fields: response
                .headers
                .iter()
                .map(|field| (field.name.to_ascii_lowercase(), std::str::from_utf8(field.value).unwrap()))
                .collect(),
            body: std::str::from_utf8(&bytes[length..]).unwrap(),
        }
    }

    fn http() -> impl Iterator<Item = Status> {
        Status::ALL.into_iter().filter(|status| *status != Status::Alert)
    }

    fn answers() -> Answers {
        Answers::new(V4, V6).unwrap()
    }

    #[test]
    fn every_answer_has_these_fields_and_no_others() {
        for (family, url) in [(Family::V4, V4), (Family::V6, V6)] {
            for status in http() {
                let answers = answers();
                let get = answers.pick(Choice { status, head: false }, family);
                let head = answers.pick(Choice { status, head: true }, family);
                let parsed = parse(get.bytes());
                assert_eq!(parsed.code, status.code());
                for (name, value) in [
                    ("content-type", "text/html; charset=utf-8"),
                    ("cache-control", "no-store"),
                    ("connection", "close"),
                    ("x-content-type-options", "nosniff"),
                    ("referrer-policy", "no-referrer"),
                    ("content-length", &parsed.body.len().to_string()),
                ] {
                    assert_eq!(parsed.field(name), Some(value), "{status:?}");
                }
                let redirects = status == Status::Redirect;
                assert_eq!(parsed.field("location"), redirects.then_some(url), "{status:?}");
                assert_eq!(parsed.fields.len(), 6 + usize::from(redirects), "{status:?}: {:?}", parsed.fields);
                for answer in [get, head] {
                    assert!((RESPONSE_MIN..=RESPONSE_MAX).contains(&answer.bytes().len()), "{status:?}");
                    assert_eq!(answer.sum(), Sum::new().bytes(answer.bytes()));
                }
                let parsed_head = parse(head.bytes());
                assert_eq!(parsed_head.fields, parsed.fields, "{status:?}: HEAD has the fields of GET");
                assert_eq!(parsed_head.body, "", "{status:?}");
            }
        }
    }

    #[test]
    fn the_alert_is_the_one_that_makes_browsers_look_for_a_portal() {
        for family in [Family::V4, Family::V6] {
            for head in [false, true] {
                let answers = answers();
                let alert = answers.pick(Choice { status: Status::Alert, head }, family);
                assert_eq!(alert.bytes(), [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x31]);
                assert_eq!(alert.sum(), Sum::new().bytes(alert.bytes()));
            }
        }
    }

    #[test]
    fn every_answer_has_names_of_its_own() {
        for (i, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, i, "the order of the counters");
            assert!(status.name().ends_with(&status.code().to_string()), "{status:?}");
            assert_eq!(status.counter_name(), format!("answered_{}", status.name().replace(' ', "_")));
        }
    }

    #[test]
    fn pages_lead_to_the_portal_and_hold_no_form() {
        for status in [Status::AuthenticationRequired, Status::Redirect] {
            let answers = answers();
            let page = parse(answers.pick(Choice { status, head: false }, Family::V4).bytes()).body;
            assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"), "{page}");
            assert!(page.contains("<a href=\"http://192.0.2.1/login?a=1&amp;b=2\">"), "{page}");
            assert!(page.contains("<meta name=\"viewport\"") && page.contains("<title>"), "{page}");
            let refresh = "<meta http-equiv=\"refresh\" content=\"0; url=http://192.0.2.1/login?a=1&amp;b=2\">";
            assert_eq!(page.contains(refresh), status == Status::AuthenticationRequired, "{page}");
            assert!(!page.contains("<form") && !page.contains("<script"), "{page}");
        }
    }

    /// Android `CaptivePortalProbeResult.isPortal` with `NetworkMonitor`'s reading of a 200: a short one is no portal.
    fn android_sees_a_portal(response: &Parsed<'_>) -> bool {
        let length: i64 = response.field("content-length").map_or(-1, |v| v.parse().unwrap());
        let code = if response.code == 200 && (0..=4).contains(&length) { 204 } else { response.code };
        code != 204 && (200..=399).contains(&code)
    }

    /// `ChromeOS` `shill/network/portal_detector.cc`: 302 or 307 with a Location that is an absolute HTTP URL.
    fn chromeos_sees_a_portal(response: &Parsed<'_>) -> bool {
        let absolute = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        matches!(response.code, 302 | 307) && response.field("location").is_some_and(absolute)
    }

    /// Chromium `captive_portal_detector.cc`: 511 by name, and any redirect.
    fn chromium_sees_a_portal(response: &Parsed<'_>) -> bool {
        response.code == 511 || (300..400).contains(&response.code)
    }

    /// Firefox `CaptiveDetect.sys.mjs`: 511 by name, a redirect, or a 200 with another page than its own.
    fn firefox_sees_a_portal(response: &Parsed<'_>) -> bool {
        response.code == 511 || (200..400).contains(&response.code)
    }

    /// `NetworkManager` `nm-connectivity.c`: any answer but its own.
    fn network_manager_sees_a_portal(response: &Parsed<'_>) -> bool {
        response.field("x-networkmanager-status").is_none() && !response.body.starts_with("NetworkManager is online")
    }

    /// `ConnMan` `src/wispr.c`: a 302 with a Location; a 200 only with its own header field.
    fn connman_sees_a_portal(response: &Parsed<'_>) -> bool {
        response.code == 302 && response.field("location").is_some()
    }

    #[test]
    fn detectors_make_of_our_answers_what_facts_say() {
        type Oracle = fn(&Parsed<'_>) -> bool;
        let table: [(&str, Oracle, bool, bool); 6] = [
            ("Android", android_sees_a_portal, false, true),
            ("ChromeOS", chromeos_sees_a_portal, false, true),
            ("Chromium", chromium_sees_a_portal, true, true),
            ("Firefox", firefox_sees_a_portal, true, true),
            ("NetworkManager", network_manager_sees_a_portal, true, true),
            ("ConnMan", connman_sees_a_portal, false, true),
        ];
        let answers = answers();
        for (name, oracle, on_511, on_302) in table {
            for family in [Family::V4, Family::V6] {
                for (status, expected) in [(Status::AuthenticationRequired, on_511), (Status::Redirect, on_302)] {
                    for head in [false, true] {
                        let response = parse(answers.pick(Choice { status, head }, family).bytes());
                        assert_eq!(oracle(&response), expected, "{name}, {status:?}, HEAD: {head}");
                    }
                }
            }
        }
    }

    #[test]
    fn urls_that_cannot_be_the_portals() {
        for url in
            ["", "login", "//a/", "http://", "http:///x", "ftp://a/", "http://a/\r\nX: y", "http://a/b c", "http://ä/"]
        {
            assert_eq!(Answers::new(url, V6).unwrap_err(), UrlError::Invalid(url.to_owned()), "{url}");
            assert_eq!(Answers::new(V4, url).unwrap_err(), UrlError::Invalid(url.to_owned()), "{url}");
        }
    }

    #[test]
    fn a_url_too_long_for_one_segment_is_refused_with_the_remedy() {
        let url = |length: usize| format!("http://a/{}", "x".repeat(length - 9));
        let longest = (9..=RESPONSE_MAX).take_while(|n| Answers::new(&url(*n), V6).is_ok()).last().unwrap();
        assert!(longest >= 200, "a portal's URL of {longest} bytes is the longest");
        let error = Answers::new(&url(longest + 10), V6).unwrap_err();
        let UrlError::TooLong { url: length, response, .. } = error else { panic!("{error}") };
        assert_eq!(length, longest + 10);
        let remedy = (response - RESPONSE_MAX).div_ceil(2);
        assert!(error.to_string().contains(&format!("shorten the URL by {remedy} bytes")), "{error}");
        assert!(Answers::new(&url(longest + 10 - remedy), V6).is_ok(), "the remedy helps");
        // Every `&` becomes five bytes: the length that counts is that of the response.
        assert!(matches!(
            Answers::new(&format!("http://a/{}", "&".repeat(longest - 9)), V6),
            Err(UrlError::TooLong { .. })
        ));
    }

    #[test]
    fn a_url_cannot_break_out_of_its_attribute() {
        let answers = Answers::new("http://a/\"><script>", V6).unwrap();
        for answer in http().map(|status| answers.pick(Choice { status, head: false }, Family::V4)) {
            assert!(!parse(answer.bytes()).body.contains("<script>"));
        }
    }
}
