//! Which requests are probes of a portal detector that ignores 511, and what each gets instead.
//!
//! The table is data. A request is matched by its host and path, never by its User-Agent: browsers on the same phone send
//! others, and `NetworkManager`'s probe sends none.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a matched request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum ProbeAnswer {
    /// 200 with the page that Apple's detector reads as "online", so that its login window stays closed. Only Apple's: Android
    /// and ChromeOS want a 204, Windows, Firefox and NetworkManager texts of their own; to them this page is a portal's.
    Success,
    /// 302 to the portal.
    Redirect,
    /// 511, as for any other request.
    AuthenticationRequired,
}

impl From<ProbeAnswer> for u16 {
    fn from(answer: ProbeAnswer) -> Self {
        match answer {
            ProbeAnswer::Success => 200,
            ProbeAnswer::Redirect => 302,
            ProbeAnswer::AuthenticationRequired => 511,
        }
    }
}

impl TryFrom<u16> for ProbeAnswer {
    type Error = PatternError;

    fn try_from(status: u16) -> Result<Self, PatternError> {
        match status {
            200 => Ok(Self::Success),
            302 => Ok(Self::Redirect),
            511 => Ok(Self::AuthenticationRequired),
            other => Err(PatternError::Answer(other)),
        }
    }
}

/// Why a row of the operator's probe table can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The host is none of the four forms.
    #[error(
        "`{0}` is no host pattern: write `example.com` for that host, `*.example.com` for the hosts below it, \
         `.example.com` for both, or `*` for every host; without scheme, port and path"
    )]
    Host(String),
    /// The path is none of the three forms.
    #[error(
        "`{0}` is no path pattern: write `/exact/path`, `/below/*` for all paths that begin with `/below/`, or `*` for \
         every path; without a query"
    )]
    Path(String),
    /// Neither a host nor a path.
    #[error("it would match every request: give a `host`, a `path` or both")]
    Everything,
    /// The answer is not on offer.
    #[error("a probe can be answered with 200, 302 or 511, not with {0}")]
    Answer(u16),
}

/// The hosts a rule is for. Labels are compared, so `notexample.com` is not below `example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// `*`: every host, and requests that name none.
    Any,
    /// `example.com`: this host.
    Exact(String),
    /// `*.example.com`: the hosts below it, at any depth, but not the domain itself.
    Below(String),
    /// `.example.com`: the domain and the hosts below it.
    Domain(String),
}

impl HostPattern {
    /// Whether the host matches. A port must be off already; letter case and one trailing dot don't count.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Any => true,
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(name) => is_below(host, name),
            Self::Domain(name) => host.eq_ignore_ascii_case(name) || is_below(host, name),
        }
    }
}

/// Whether `host` is `domain` with at least one label in front.
fn is_below(host: &str, domain: &str) -> bool {
    // Bytes, because a host from the wire need not have a character boundary at this index.
    let (host, domain) = (host.as_bytes(), domain.as_bytes());
    let Some(dot) = host.len().checked_sub(domain.len() + 1) else { return false };
    dot > 0 && host[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(domain)
}

impl TryFrom<String> for HostPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (make, name): (fn(String) -> Self, &str) = if let Some(name) = text.strip_prefix("*.") {
            (Self::Below, name)
        } else if let Some(name) = text.strip_prefix('.') {
            (Self::Domain, name)
        } else {
            (Self::Exact, &text)
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let label_is_fine = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        // `name` is without brackets and colons, so that neither a port nor an IPv6 literal gets in unnoticed.
        if name.len() > 253 || !name.split('.').all(label_is_fine) {
            return Err(PatternError::Host(text));
        }
        Ok(make(name.to_ascii_lowercase()))
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Domain(name) => write!(f, ".{name}"),
        }
    }
}

/// The paths a rule is for, compared byte by byte with the request's path without its query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PathPattern {
    /// `*`: every path.
    Any,
    /// `/exact`: this path.
    Exact(String),
    /// `/below/*`: the paths that begin with `/below/`.
    Below(String),
}

impl PathPattern {
    /// Whether the path matches. The query must be off already.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact,
            Self::Below(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (path, below) = match text.strip_suffix("/*") {
            Some(_) => (&text[..text.len() - 1], true),
            None => (text.as_str(), false),
        };
        if !path.starts_with('/') || path.bytes().any(|b| !b.is_ascii_graphic() || b"?#*".contains(&b)) {
            return Err(PatternError::Path(text));
        }
        let path = path.to_owned();
        Ok(if below { Self::Below(path) } else { Self::Exact(path) })
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(path) => f.write_str(path),
            Self::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// One row of the table, as the operator writes it: `{ host = "...", path = "...", answer = 302 }`. A key that is left out stands for `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenRule")]
pub struct Rule {
    /// The hosts it is for.
    pub host: HostPattern,
    /// The paths it is for.
    pub path: PathPattern,
    /// What GET and HEAD get.
    pub answer: ProbeAnswer,
}

/// A [`Rule`] before its parts are checked together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    host: Option<HostPattern>,
    path: Option<PathPattern>,
    answer: ProbeAnswer,
}

impl TryFrom<WrittenRule> for Rule {
    type Error = PatternError;

    fn try_from(WrittenRule { host, path, answer }: WrittenRule) -> Result<Self, PatternError> {
        if host.is_none() && path.is_none() {
            return Err(PatternError::Everything);
        }
        Ok(Self { host: host.unwrap_or(HostPattern::Any), path: path.unwrap_or(PathPattern::Any), answer })
    }
}

/// A row that every portal has. It gets 302, because its detector ignores 511, or has never been seen to know it.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// The hosts it is for, as an operator writes them.
    pub host: &'static str,
    /// The paths it is for, as an operator writes them.
    pub path: &'static str,
    /// Whose probe it is.
    pub whose: &'static str,
    /// How that is known.
    pub evidence: Evidence,
}

/// How a probe is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// From the detector's source, its vendor's documents, or what others have seen the device ask for.
    Known(&'static str),
    /// The request is known from this; that the device takes it for a portal's probe is a guess.
    Guessed(&'static str),
}

const fn known(host: &'static str, path: &'static str, whose: &'static str, source: &'static str) -> BuiltIn {
    BuiltIn { host, path, whose, evidence: Evidence::Known(source) }
}

const fn guessed(host: &'static str, path: &'static str, whose: &'static str, source: &'static str) -> BuiltIn {
    BuiltIn { host, path, whose, evidence: Evidence::Guessed(source) }
}

const APPLE: &str = "Cloud4Wi, How Automatic Detection of Captive Portal works";
const NINTENDO_CLIENTS: &str = "github.com/kinnay/NintendoClients, wiki page Connection Test";

/// The rows every portal has.
///
/// Where vendors of devices put the same detector at hosts of their own, the path decides. So Fire OS, Samsung's and Xiaomi's devices
/// are Android here. Xbox and Kobo's readers ask what Windows asks. For LG's televisions no probe was found in public; webOS comes with
/// ConnMan.
pub const BUILT_IN: &[BuiltIn] = &[
    known("*", "/generate_204", "Android, ChromeOS, Chromium", "Android's NetworkStack, res/values/config.xml"),
    known("*", "/gen_204", "Android's second probe, on www.google.com", "Android's NetworkStack, NetworkMonitor.java"),
    known(
        ".msftconnecttest.com",
        "*",
        "Windows 10 and later: /connecttest.txt and /redirect, also on ipv6.",
        "learn.microsoft.com, NCSI overview",
    ),
    known(".msftncsi.com", "*", "Windows Vista to 8.1: /ncsi.txt", "learn.microsoft.com, NCSI overview"),
    known(
        "captive.apple.com",
        "*",
        "Apple: /hotspot-detect.html, and other paths of the same detector",
        "support.apple.com/101555",
    ),
    known("www.apple.com", "/library/test/success.html", "Apple", APPLE),
    known("www.appleiphonecell.com", "/library/test/success.html", "Apple, iOS 6", APPLE),
    known("www.airport.us", "/library/test/success.html", "Apple, iOS 6", APPLE),
    known("www.ibook.info", "/library/test/success.html", "Apple, iOS 6", APPLE),
    known("www.itools.info", "/library/test/success.html", "Apple, iOS 6", APPLE),
    known("www.thinkdifferent.us", "/library/test/success.html", "Apple, iOS 6", APPLE),
    known(
        "*",
        "/online/status.html",
        "ConnMan: on ipv4.connman.net and ipv6.connman.net; Sailfish OS on ipv4.jolla.com",
        "ConnMan, src/main.c (OnlineCheckIPv4URL, which vendors set)",
    ),
    known(
        "*",
        "/kindle-wifi/*",
        "Kindle, on spectrum.s3.amazonaws.com: wifistub.html, wifistub-eink.html, wifiredirect.html",
        "github.com/tripflex/captive-portal, README (wifiredirect.html); what imitates the others for Kindles without internet",
    ),
    known(
        "conntest.nintendowifi.net",
        "*",
        "Nintendo DS, Wii, 3DS, Wii U: /, whose answer has X-Organization",
        "github.com/pbsds/hatena-server, which is a proxy for consoles",
    ),
    known("ctest.cdn.nintendo.net", "*", "Nintendo Switch: /", NINTENDO_CLIENTS),
    known(
        "ctest.cdn.n.nintendoswitch.cn",
        "*",
        "Nintendo Switch in China: /",
        "Ryujinx, its list of names that stay as they are",
    ),
    known("ctest.p01.ctest.srv.nintendo.net", "*", "Nintendo Switch 2: /", NINTENDO_CLIENTS),
    known("captive.roku.com", "*", "Roku: /ok", "PacketFence, pfConfigurationCaptivePortalURLs"),
    guessed(
        "get.net.playstation.net",
        "/networktest/*",
        "PlayStation 3 and 4: get_2m and get_6m, the download of their connection test",
        "servers that stand in for PlayStation Network",
    ),
];

/// The probe table: the operator's rows, then the built-in ones. The first that matches decides.
#[derive(Clone, Debug)]
pub struct Probes {
    rules: Vec<Rule>,
}

impl Probes {
    /// The table with the operator's rows in front, so that they can override a built-in one.
    #[expect(clippy::missing_panics_doc, reason = "the rows are constant, and a test parses each")]
    pub fn new(operator: impl IntoIterator<Item = Rule>) -> Self {
        let built_in = BUILT_IN.iter().map(|BuiltIn { host, path, .. }| Rule {
            host: HostPattern::try_from((*host).to_owned()).expect("a test parses every built-in row"),
            path: PathPattern::try_from((*path).to_owned()).expect("a test parses every built-in row"),
            answer: ProbeAnswer::Redirect,
        });
        Self { rules: operator.into_iter().chain(built_in).collect() }
    }

    /// The rows in the order in which they are matched.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What a GET or HEAD for this host (without port; empty if none was named) and path (without query) gets.
    pub fn answer(&self, host: &str, path: &str) -> ProbeAnswer {
        self.rules
            .iter()
            .find(|rule| rule.path.matches(path) && rule.host.matches(host))
            .map_or(ProbeAnswer::AuthenticationRequired, |rule| rule.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: ProbeAnswer = ProbeAnswer::Redirect;
    const A: ProbeAnswer = ProbeAnswer::AuthenticationRequired;

    #[test]
    fn probes_and_what_only_looks_like_one() {
        let table: &[(&str, &str, &str, ProbeAnswer)] = &[
            ("Android", "connectivitycheck.gstatic.com", "/generate_204", R),
            ("Android, by address", "192.0.2.1", "/generate_204", R),
            ("Android, no host (HTTP/1.0)", "", "/generate_204", R),
            ("Android, other host", "www.google.com", "/gen_204", R),
            ("Android, vendor", "connect.rom.miui.com", "/generate_204", R),
            ("longer path", "www.google.com", "/generate_2045", A),
            ("a path below it", "www.google.com", "/generate_204/x", A),
            ("in a directory", "www.google.com", "/x/generate_204", A),
            ("other letter case: paths are case-sensitive (RFC 3986 section 6.2.2.1)", "a.example", "/Generate_204", A),
            ("Windows 10", "www.msftconnecttest.com", "/connecttest.txt", R),
            ("Windows 10, IPv6", "ipv6.msftconnecttest.com", "/connecttest.txt", R),
            ("Windows 10, the browser it opens", "www.msftconnecttest.com", "/redirect", R),
            ("the domain itself", "msftconnecttest.com", "/", R),
            ("Windows 7", "www.msftncsi.com", "/ncsi.txt", R),
            ("the domain itself", "msftncsi.com", "/ncsi.txt", R),
            ("another domain with the same ending", "notmsftncsi.com", "/ncsi.txt", A),
            ("another domain with the same ending", "www.notmsftconnecttest.com", "/connecttest.txt", A),
            ("the domain as a label of another", "msftncsi.com.example", "/ncsi.txt", A),
            ("nothing before the dot", ".msftncsi.com", "/ncsi.txt", A),
            ("letter case of a host", "WWW.MsftNCSI.com", "/ncsi.txt", R),
            ("trailing dot of a host", "www.msftncsi.com.", "/ncsi.txt", R),
            ("two trailing dots", "www.msftncsi.com..", "/ncsi.txt", A),
            ("Apple", "captive.apple.com", "/hotspot-detect.html", R),
            ("Apple, other path", "captive.apple.com", "/", R),
            ("below Apple's host", "x.captive.apple.com", "/hotspot-detect.html", A),
            ("Apple, the older one", "www.apple.com", "/library/test/success.html", R),
            ("Apple's site", "www.apple.com", "/", A),
            ("Apple, iOS 6", "www.appleiphonecell.com", "/library/test/success.html", R),
            ("Apple, iOS 6", "www.airport.us", "/library/test/success.html", R),
            ("Apple, iOS 6", "www.ibook.info", "/library/test/success.html", R),
            ("Apple, iOS 6", "www.itools.info", "/library/test/success.html", R),
            ("Apple, iOS 6", "www.thinkdifferent.us", "/library/test/success.html", R),
            ("its path on another host", "www.example.com", "/library/test/success.html", A),
            ("ConnMan", "ipv4.connman.net", "/online/status.html", R),
            ("ConnMan, IPv6", "ipv6.connman.net", "/online/status.html", R),
            ("ConnMan, by another vendor: Sailfish OS", "ipv4.jolla.com", "/online/status.html", R),
            ("ConnMan, no host (HTTP/1.0)", "", "/online/status.html", R),
            ("a path below ConnMan's", "ipv4.jolla.com", "/online/status.html/x", A),
            ("in a directory", "ipv4.jolla.com", "/x/online/status.html", A),
            ("a site of ConnMan's vendors", "ipv4.jolla.com", "/", A),
            ("ConnMan's site", "www.connman.net", "/", A),
            ("Kindle", "spectrum.s3.amazonaws.com", "/kindle-wifi/wifistub.html", R),
            ("Kindle with electronic paper", "spectrum.s3.amazonaws.com", "/kindle-wifi/wifistub-eink.html", R),
            ("Kindle, what it shows then", "spectrum.s3.amazonaws.com", "/kindle-wifi/wifiredirect.html", R),
            ("Kindle, at another host of Amazon's", "kindle.example", "/kindle-wifi/wifistub.html", R),
            ("a file of another's, which lies there too", "spectrum.s3.amazonaws.com", "/kindle-wifi", A),
            ("Nintendo, Wii to Wii U", "conntest.nintendowifi.net", "/", R),
            ("another host of Nintendo's", "nas.nintendowifi.net", "/", A),
            ("Nintendo Switch", "ctest.cdn.nintendo.net", "/", R),
            ("what the Switch measures its speed by", "ctest-dl-lp1.cdn.nintendo.net", "/30m", A),
            ("Nintendo Switch in China", "ctest.cdn.n.nintendoswitch.cn", "/", R),
            ("Nintendo Switch 2", "ctest.p01.ctest.srv.nintendo.net", "/", R),
            ("Roku", "captive.roku.com", "/ok", R),
            ("another host of Roku's", "image.roku.com", "/ok", A),
            ("PlayStation", "get.net.playstation.net", "/networktest/get_2m", R),
            ("PlayStation's host, another path", "get.net.playstation.net", "/", A),
            ("Fire OS", "fireoscaptiveportal.com", "/generate_204", R),
            ("Samsung's televisions", "connectivitycheck.samsung.com", "/generate_204", R),
            ("Xbox, which is Windows here", "www.msftconnecttest.com", "/connecttest.txt", R),
            ("Firefox opens its sheet on 511", "detectportal.firefox.com", "/canonical.html", A),
            ("Firefox opens its sheet on 511", "detectportal.firefox.com", "/success.txt", A),
            ("NetworkManager opens its sheet on 511", "network-test.debian.org", "/nm", A),
            ("GNOME's", "nmcheck.gnome.org", "/check_network_status.txt", A),
            ("any page", "example.com", "/", A),
        ];
        let probes = Probes::new([]);
        for (sentence, host, path, expected) in table {
            assert_eq!(probes.answer(host, path), *expected, "{sentence}: {host}{path}");
        }
        for rule in probes.rules() {
            let hit = |(_, host, path, _): &&(&str, &str, &str, ProbeAnswer)| {
                rule.host.matches(host) && rule.path.matches(path)
            };
            assert!(table.iter().any(|row| hit(&row)), "no line of the table tests {} {}", rule.host, rule.path);
        }
        assert_eq!(probes.rules().len(), BUILT_IN.len());
    }

    #[test]
    fn every_row_says_how_its_probe_is_known() {
        for BuiltIn { host, path, whose, evidence: Evidence::Known(source) | Evidence::Guessed(source) } in BUILT_IN {
            assert!(!whose.is_empty() && !source.is_empty(), "{host} {path}");
        }
        let guesses: Vec<_> =
            BUILT_IN.iter().filter(|row| matches!(row.evidence, Evidence::Guessed(_))).map(|row| row.host).collect();
        assert_eq!(guesses, ["get.net.playstation.net"], "reference.toml says which rows are guesses");
    }

    fn operator(toml: &str) -> Result<Probes, String> {
        #[derive(Deserialize)]
        struct File {
            probes: Vec<Rule>,
        }
        toml::from_str::<File>(toml).map(|file| Probes::new(file.probes)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_operators_rows_come_first_and_in_order() {
        let probes = operator(
            r#"probes = [
                { host = "captive.apple.com", path = "/hotspot-detect.html", answer = 200 },
                { host = ".msftncsi.com", answer = 511 },
                { host = "*.kindle.example", path = "/stub/*", answer = 302 },
                { path = "/probe", answer = 302 },
            ]"#,
        )
        .unwrap();
        for (host, path, expected) in [
            ("captive.apple.com", "/hotspot-detect.html", ProbeAnswer::Success),
            ("captive.apple.com", "/", R),
            ("www.msftncsi.com", "/ncsi.txt", A),
            ("a.kindle.example", "/stub/x", R),
            ("a.kindle.example", "/stub", A),
            ("kindle.example", "/stub/x", A),
            ("any.example", "/probe", R),
            ("any.example", "/generate_204", R),
        ] {
            assert_eq!(probes.answer(host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn rows_that_cannot_be_used_say_why() {
        for (row, expected) in [
            (r#"{ host = "http://a.example", answer = 302 }"#, "no host pattern"),
            (r#"{ host = "a.example:80", answer = 302 }"#, "no host pattern"),
            (r#"{ host = "a..example", answer = 302 }"#, "no host pattern"),
            (r#"{ host = "", answer = 302 }"#, "no host pattern"),
            (r#"{ host = "a.*.example", answer = 302 }"#, "no host pattern"),
            (r#"{ path = "x", answer = 302 }"#, "no path pattern"),
            (r#"{ path = "/x?y", answer = 302 }"#, "no path pattern"),
            (r#"{ path = "/*/x", answer = 302 }"#, "no path pattern"),
            (r#"{ path = "/x", answer = 204 }"#, "200, 302 or 511, not with 204"),
            (r#"{ path = "/x" }"#, "missing field `answer`"),
            (r#"{ path = "/x", answer = 302, status = 1 }"#, "unknown field"),
        ] {
            let error = operator(&format!("probes = [{row}]")).unwrap_err();
            assert!(error.contains(expected), "{row}: {error}");
        }
    }

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in ["*", "example.com", "*.example.com", ".example.com"] {
            assert_eq!(String::from(HostPattern::try_from(text.to_owned()).unwrap()), text);
        }
        for text in ["*", "/", "/a/b", "/a/*", "/*"] {
            assert_eq!(String::from(PathPattern::try_from(text.to_owned()).unwrap()), text);
        }
    }
}
