//! Chromium as a person has it, captive portal detection included, driven by chromedriver (W3C WebDriver: JSON over HTTP).

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{lab::Lab, namespace::Namespace, process::Service};

/// On the loopback interface of the client's own namespace.
const PORT: u16 = 9515;
/// How long one command may take: Chromium's start is the longest.
const LIMIT: Duration = Duration::from_mins(1);

/// A browser with one tab.
#[derive(Debug)]
pub struct Browser {
    driver: Service,
    client: Namespace,
    session: String,
}

impl Browser {
    /// Starts Chromium in the guest.
    pub fn start(lab: &Lab) -> Result<Self> {
        let home = lab.directory().join("webdriver");
        fs::create_dir_all(&home)?;
        let mut command = lab.guest.client_tree("chromedriver");
        command.arg(format!("--port={PORT}")).env("HOME", &home).env("TMPDIR", &home);
        command.env_remove("http_proxy").env_remove("https_proxy");
        let driver = Service::start("chromedriver", &mut command, &lab.directory().join("chromedriver.log"))?;
        lab.guest.wait_for_listener(&PORT.to_string()).with_context(|| driver.log())?;
        let mut browser = Self { driver, client: lab.guest.clone(), session: String::new() };
        let profile = home.join("profile");
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-component-update",
            "--disable-sync",
            // Shared memory in files: a container's /dev/shm is small.
            "--disable-dev-shm-usage",
            format!("--user-data-dir={}", profile.display()),
        ]);
        let options = json!({
            "binary": "/usr/bin/chromium",
            "args": arguments,
            // Both belong to captive portal detection: the setting allows it, and chromedriver's switch forbids it.
            "prefs": {"alternate_error_pages": {"enabled": true}},
            "excludeSwitches": ["disable-background-networking"],
        });
        let capabilities = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let session = browser.ask("POST", "/session", &capabilities)?;
        session["sessionId"]
            .as_str()
            .with_context(|| format!("no session: {session}"))?
            .clone_into(&mut browser.session);
        Ok(browser)
    }

    /// Loads the page in the current tab. That it cannot be loaded is no error.
    pub fn go(&self, url: &str) -> Result<()> {
        self.tab("POST", "/url", &json!({ "url": url })).map(drop)
    }

    /// The URLs of all tabs. The last one is the current one then.
    pub fn tabs(&self) -> Result<Vec<String>> {
        let handles = self.tab("GET", "/window/handles", &Value::Null)?;
        let mut urls = Vec::new();
        for handle in handles.as_array().with_context(|| format!("no windows: {handles}"))? {
            self.tab("POST", "/window", &json!({ "handle": handle }))?;
            let url = self.tab("GET", "/url", &Value::Null)?;
            urls.push(url.as_str().with_context(|| format!("no URL: {url}"))?.to_owned());
        }
        Ok(urls)
    }

    /// What chromedriver has printed.
    pub fn log(&self) -> String {
        self.driver.log()
    }

    fn tab(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    /// The value in the answer, an error's as well as a result's.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = self.client.connect(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nContent-Type: application/json; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let body =
            read_body(&mut BufReader::new(stream)).with_context(|| format!("{method} {path}: {}", self.log()))?;
        let mut answer: Value = serde_json::from_slice(&body).with_context(|| format!("{method} {path}"))?;
        Ok(answer["value"].take())
    }
}

/// The body of a response, by its length: chromedriver leaves the connection open whatever it is asked.
fn read_body(stream: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the header has no end");
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}
