//! Command-line HTTP clients: curl, wget, python-requests.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    namespace::Namespace,
    process::{Output, run},
};

/// How long a client may take before the test kills it; its own limit is shorter.
const LIMIT: Duration = Duration::from_secs(15);

/// An IP version, as an option of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The option that curl and wget have for it.
    pub fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// A response as curl saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The status line and the header fields.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// A header field's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The status and the title, for a table.
    pub fn summary(&self) -> String {
        let title = self.body.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
        match (title, self.header("location")) {
            (_, Some(location)) => format!("{} to {location}", self.status),
            (Some((title, _)), None) => format!("{} \"{}\"", self.status, title.trim()),
            (None, None) => self.status.to_string(),
        }
    }
}

/// curl in the namespace, silent but for errors, with a limit of 10 s.
pub fn curl(namespace: &Namespace, arguments: &[&str]) -> Result<Output> {
    let mut command = namespace.client("curl");
    command.args(["-sS", "--noproxy", "*", "--max-time", "10"]).args(arguments);
    run(&mut command, LIMIT)
}

/// Gets a page by curl over one IP version; an error if there is no response.
pub fn get(namespace: &Namespace, family: Family, url: &str) -> Result<Response> {
    request(namespace, &[family.option(), url])
}

/// The response that curl gets with these arguments.
pub fn request(namespace: &Namespace, arguments: &[&str]) -> Result<Response> {
    let mut all = vec!["-i"];
    all.extend_from_slice(arguments);
    let text = curl(namespace, &all)?.success().with_context(|| format!("curl {}", arguments.join(" ")))?;
    parse(&text)
}

/// The last response in what `curl -i` printed: with `-L` there are those that led there before it.
fn parse(text: &str) -> Result<Response> {
    let mut rest = text;
    loop {
        let (head, body) = rest.split_once("\r\n\r\n").context("no end of the header")?;
        let status: u16 = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).context("no status")?;
        if body.starts_with("HTTP/") {
            rest = body;
        } else {
            return Ok(Response { status, head: head.to_owned(), body: body.to_owned() });
        }
    }
}

/// wget in the namespace, as a person types it.
pub fn wget(namespace: &Namespace, family: Family, url: &str) -> Result<Output> {
    let arguments = ["--no-proxy", "--server-response", "--tries=1", "--timeout=10", "--output-document=-"];
    run(namespace.client("wget").arg(family.option()).args(arguments).arg(url), LIMIT)
}

/// Gets a page by python-requests: prints the status, then the body.
pub fn python_requests(namespace: &Namespace, url: &str) -> Result<(u16, String)> {
    let script = "import requests, sys\n\
                  r = requests.get(sys.argv[1], timeout=10)\n\
                  print(r.status_code)\n\
                  print(r.text, end='')\n";
    // By its path: the package is Debian's, whatever other python comes first in PATH.
    let mut command: Command = namespace.client("/usr/bin/python3");
    let text = run(command.args(["-c", script, url]), LIMIT)?.success()?;
    let (status, body) = text.split_once('\n').context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// Loads the login page and submits its form as a browser does; the page that comes then.
pub fn log_in(namespace: &Namespace, page: &str) -> Result<Response> {
    let form = request(namespace, &[page])?;
    if form.status != 200 {
        bail!("the login page answers {}", form.summary());
    }
    let (action, fields) = login_form(&form.body).with_context(|| format!("no login form in: {}", form.body))?;
    let url = if action.starts_with('/') { format!("{}{action}", origin(page)) } else { action };
    let mut arguments = vec!["-L".to_owned(), url];
    for (name, value) in fields {
        arguments.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
    }
    request(namespace, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

/// The action and the fields of the first form that posts to a login.
fn login_form(page: &str) -> Option<(String, Vec<(String, String)>)> {
    for form in page.split("<form").skip(1) {
        let form = form.split("</form>").next()?;
        let (tag, inside) = form.split_once('>')?;
        let Some(action) = attribute(tag, "action") else { continue };
        if !action.contains("login") || !attribute(tag, "method").is_some_and(|m| m.eq_ignore_ascii_case("post")) {
            continue;
        }
        let controls = inside.split('<').filter(|t| t.starts_with("input") || t.starts_with("button"));
        let fields = controls.filter_map(|tag| {
            // What a checked box without a value sends (HTML, "default/on").
            Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_else(|| "on".to_owned())))
        });
        return Some((action, fields.collect()));
    }
    None
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_form_is_found_with_its_fields() {
        let page = "<form method=\"get\" action=\"/login\"></form>\
                    <form class=\"x\" action=\"/login\" method=\"post\"><input type=\"hidden\" name=\"a\" value=\"1\">\
                    <input name=\"b\" type=\"checkbox\"><button name=\"accept\" value=\"yes\">Go</button></form>";
        let fields = [("a", "1"), ("b", "on"), ("accept", "yes")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(login_form(page), Some(("/login".to_owned(), fields.to_vec())));
        assert_eq!(login_form("<form action=\"/logout\" method=\"post\"></form>"), None);
    }

    #[test]
    fn the_last_response_counts() {
        let text = "HTTP/1.1 303 See Other\r\nLocation: /\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
        let response = parse(text).expect("it is well-formed");
        assert_eq!((response.status, response.body.as_str(), response.header("a")), (200, "body", Some("b")));
        assert_eq!(origin("http://[2001:db8::1]:8080/x"), "http://[2001:db8::1]:8080");
    }
}
