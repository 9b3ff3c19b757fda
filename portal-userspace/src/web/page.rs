//! What the guest reads: each page's words, in one template.

use std::time::{Duration, SystemTime};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse as _, Response},
};
use minijinja::{Environment, Value, context};

use crate::session::{BarCause, Barred};

/// One of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The terms, and the button that accepts them.
    Terms,
    /// The client has a session that lasts this much longer; None: without end.
    Online { remaining: Option<Duration> },
    /// The form came without the acceptance.
    NotAccepted,
    /// The gate has not noted whose connection it is.
    UnknownDevice,
    /// The form was sent by another site's page.
    CrossSite,
    /// The form was sent to us under a name that is not ours.
    WrongName,
    /// The client may not log in now.
    Barred(Barred),
    /// Every place in the session table is taken.
    Full,
    /// Too many log in at the moment.
    Busy,
    /// There is nothing here.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// The form can't be read.
    BadForm(StatusCode),
    /// Our fault.
    Failed,
}

/// What all pages share.
pub(super) struct Pages {
    environment: Environment<'static>,
    title: Value,
    terms: Value,
    length: Value,
}

const TEMPLATE: &str = "page.html";
/// When who comes while too many log in is to ask again: by then the default rate has taken another 250.
const BUSY_RETRY_SECONDS: u64 = 5;

impl Pages {
    /// Pages of the network with this name, these terms, and sessions of this length.
    pub(super) fn new(title: &str, terms: &str, length: Duration) -> Self {
        let mut environment = Environment::new();
        environment.add_template(TEMPLATE, include_str!("page.html")).expect("the template is part of the program");
        Self { environment, title: title.into(), terms: paragraphs(terms).into(), length: spoken(length).into() }
    }

    /// The page as an answer.
    pub(super) fn render(&self, page: Page) -> Response {
        self.render_with_link(page, "/")
    }

    /// The page as an answer, with its link to this URL.
    pub(super) fn render_with_link(&self, page: Page, href: &str) -> Response {
        let Words { status, kind, heading, text, link } = words(page);
        let nonce = nonce();
        let html = self.environment.get_template(TEMPLATE).and_then(|template| {
            let (title, terms, length) = (self.title.clone(), self.terms.clone(), self.length.clone());
            template.render(context! { title, terms, length, kind, heading, text, link, href, nonce => nonce.as_str() })
        });
        match html {
            Ok(html) => {
                let mut headers = HeaderMap::new();
                let policy = format!(
                    "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
                );
                let policy = HeaderValue::try_from(policy).expect("a nonce is hexadecimal");
                headers.insert(header::CONTENT_SECURITY_POLICY, policy);
                let retry_after = match page {
                    Page::Full => Some(60),
                    Page::Busy => Some(BUSY_RETRY_SECONDS),
                    Page::Barred(Barred { left, .. }) => left.map(whole_seconds),
                    _ => None,
                };
                if let Some(seconds) = retry_after {
                    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                (status, headers, Html(html)).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "cannot render the login page");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// What one page says.
struct Words {
    status: StatusCode,
    /// Which controls the template shows: `terms`, `online`, or `message` with a link.
    kind: &'static str,
    heading: &'static str,
    text: String,
    link: &'static str,
}

fn words(page: Page) -> Words {
    let again = "Try again";
    let start = "To the start page";
    let (status, kind, heading, text, link) = match page {
        Page::Terms => (
            StatusCode::OK,
            "terms",
            "Welcome",
            "To use the internet here, accept the terms of this network.".into(),
            "",
        ),
        Page::Online { remaining } => (
            StatusCode::OK,
            "online",
            "You are online",
            match remaining {
                Some(remaining) => {
                    format!("This device is connected for another {}. You can close this page.", spoken(remaining))
                }
                None => "This device is connected. You can close this page.".into(),
            },
            "",
        ),
        Page::NotAccepted => (
            StatusCode::BAD_REQUEST,
            "message",
            "Not connected",
            "The terms were not accepted, so this device stays offline.".into(),
            "Back to the terms",
        ),
        Page::UnknownDevice => (
            StatusCode::FORBIDDEN,
            "message",
            "We could not find your device",
            "Load this page again. If that does not help, this device may not be on this network directly: turn off any VPN or \
                 proxy, reconnect to the network, and try again."
                .into(),
            again,
        ),
        Page::CrossSite => (
            StatusCode::FORBIDDEN,
            "message",
            "Please use this page's own button",
            "The request came from another website, so nothing was changed.".into(),
            start,
        ),
        Page::WrongName => (
            StatusCode::FORBIDDEN,
            "message",
            "Please use the network's own page",
            "This network's login page has another address, so nothing was changed.".into(),
            "To the login page",
        ),
        Page::Barred(barred) => {
            (StatusCode::FORBIDDEN, "message", "This device cannot connect now", why_barred(barred), again)
        }
        Page::Full => (
            StatusCode::SERVICE_UNAVAILABLE,
            "message",
            "The network is full",
            "As many devices as this network can take are connected. Please try again in a few minutes.".into(),
            again,
        ),
        Page::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "message",
            "One moment, please",
            "Many devices are connecting to this network right now. Please try again in a moment.".into(),
            again,
        ),
        Page::NotFound => (
            StatusCode::NOT_FOUND,
            "message",
            "There is no such page",
            "This is the login page of the network you are on.".into(),
            start,
        ),
        Page::MethodNotAllowed => (
            StatusCode::METHOD_NOT_ALLOWED,
            "message",
            "That does not work here",
            "The page does not take this kind of request.".into(),
            start,
        ),
        Page::BadForm(status) => {
            (status, "message", "That did not work", "The form arrived incomplete. Please try again.".into(), start)
        }
        Page::Failed => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "message",
            "Something went wrong",
            "That is the network's fault, not yours. Please try again in a moment.".into(),
            again,
        ),
    };
    Words { status, kind, heading, text, link }
}

/// Why the client may not log in, and until when.
fn why_barred(Barred { cause, left }: Barred) -> String {
    let why = match cause {
        BarCause::Quota => "This device has used up what it may send and receive.",
        BarCause::Day => "This device has used up what it may send and receive in a day.",
        BarCause::Revoked => "The network's operator has ended this device's connection.",
        BarCause::Blocked => "The network's operator has blocked this device.",
    };
    let Some(left) = left else { return format!("{why} Please ask the operator if you think that this is a mistake.") };
    // Never a moment too early. Whoever reads it may be in any time zone, and its clock may be wrong: the duration is first.
    let left = Duration::from_secs(whole_seconds(left));
    let until = SystemTime::now().checked_add(left).map(|until| humantime::format_rfc3339_seconds(until).to_string());
    let until = until
        .as_deref()
        .and_then(|text| text.split_once('T'))
        .map_or_else(String::new, |(date, time)| format!(" ({date} {} UTC)", time.trim_end_matches('Z')));
    format!("{why} It can connect again in {}{until}.", spoken(left))
}

/// Seconds, rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Text in paragraphs: an empty line begins one.
fn paragraphs(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

/// A duration as people say it, in its two largest units.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
    // Minutes are exact enough from an hour on, hours from a day on.
    let mut left = seconds;
    let parts: Vec<String> = units
        .iter()
        .filter_map(|(name, size)| {
            let n = left / size;
            left %= size;
            (n > 0).then(|| format!("{n} {name}{}", if n == 1 { "" } else { "s" }))
        })
        .take(2)
        .collect();
    if parts.is_empty() { "less than a second".into() } else { parts.join(" ") }
}

/// A number that no page can guess, for the one style sheet that may apply.
fn nonce() -> String {
    let mut bytes = [0_u8; 16];
    // Blocks only until the kernel has entropy for the first time; a failure leaves zeros, which costs only styling's
    // protection on a page that reflects nothing.
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if let Err(error) = filled {
        tracing::warn!(%error, "no random numbers");
    }
    bytes.iter().fold(String::with_capacity(32), |mut hex, byte| {
        use std::fmt::Write as _;
        write!(hex, "{byte:02x}").expect("writing to a String does not fail");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken() {
        let cases = [
            (0, "less than a second"),
            (1, "1 second"),
            (90, "1 minute 30 seconds"),
            (3_600, "1 hour"),
            (8 * 3_600 - 1, "7 hours 59 minutes"),
            (86_400 + 7_200 + 5, "1 day 2 hours"),
        ];
        for (seconds, text) in cases {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_bar_says_why_and_until_when() {
        let hours = Some(Duration::from_millis(7_199_500));
        for (cause, left, parts) in [
            (BarCause::Quota, hours, ["used up", "again in 2 hours (20"]),
            (BarCause::Day, hours, ["in a day", " UTC)."]),
            (BarCause::Revoked, None, ["operator has ended", "ask the operator"]),
            (BarCause::Blocked, None, ["blocked this device", "ask the operator"]),
        ] {
            let text = why_barred(Barred { cause, left });
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        assert_eq!(why_barred(Barred { cause: BarCause::Quota, left: Some(Duration::MAX) }).matches("UTC").count(), 0);
    }

    #[test]
    fn an_empty_line_begins_a_paragraph() {
        assert_eq!(paragraphs("a\nb\r\n\r\n c \n\n\n"), ["a\nb", "c"]);
    }
}
