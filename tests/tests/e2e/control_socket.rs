//! The control API is HTTP on a Unix socket: curl drives it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, OTHER_MAC},
    portald::socket,
    process::run,
};
use serde_json::{Value, json};

use crate::{
    expect::{a_guest, a_stranger},
    turn::lab,
};

/// The status and the body, which must be JSON, of a request to the control socket.
fn ask(lab: &Lab, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let mut command = lab.gateway.service("curl");
    command.args(["-sS", "--max-time", "5", "--write-out", "\n%{http_code}", "--request", method]);
    command.arg("--unix-socket").arg(socket(lab));
    if !body.is_empty() {
        command.args(["--data-binary", body]);
    }
    let text = run(command.arg(format!("http://portal{path}")), Duration::from_secs(10))?.success()?;
    let (body, status) = text.rsplit_once('\n').context("no status")?;
    Ok((status.parse()?, serde_json::from_str(body).with_context(|| format!("{method} {path}: {body}"))?))
}

#[test]
fn curl_drives_portald_over_its_socket() -> Result<()> {
    let lab = lab()?;
    let portald = Portald::start(&lab, &Settings::default())?;
    let (status, body) = ask(&lab, "GET", "/v1/status", "")?;
    assert_eq!((status, &body["pid"]), (200, &json!(portald.pid())), "{body}");

    let guest = format!("/v1/clients/{GUEST_MAC}");
    let (status, body) = ask(&lab, "PUT", &guest, r#"{"for_seconds": 600}"#)?;
    ensure!(status == 200 && body["mac"] == GUEST_MAC && body["remaining_seconds"] == 600, "{status} {body}");
    a_guest(&lab.guest)?;
    a_stranger(&lab.other)?;
    let (status, body) = ask(&lab, "GET", "/v1/clients", "")?;
    let macs: Vec<_> = body["clients"].as_array().context("no clients")?.iter().map(|c| c["mac"].clone()).collect();
    assert_eq!((status, macs), (200, vec![json!(GUEST_MAC)]), "{body}");
    assert_eq!(ask(&lab, "DELETE", &guest, "")?.0, 200);
    a_stranger(&lab.guest)?;

    let other = format!("/v1/clients/{OTHER_MAC}");
    for (sentence, method, path, body, status, code) in [
        ("a client that is not there", "DELETE", guest.as_str(), "", 404, "no_such_client"),
        ("a path that is not there", "GET", "/v1/nonsense", "", 404, "no_such_path"),
        ("a method that is not there", "POST", "/v1/status", "", 405, "method_not_allowed"),
        ("a MAC that isn't one", "PUT", "/v1/clients/nonsense", "", 400, "bad_mac"),
        ("a body that isn't JSON", "PUT", &other, "{", 400, "bad_request"),
        ("an unknown field", "PUT", &other, r#"{"for_second": 1}"#, 400, "bad_request"),
    ] {
        let (got, answer) = ask(&lab, method, path, body).context(sentence)?;
        ensure!(got == status && answer["error"]["code"] == code, "{sentence}: {got} {answer}");
        for part in ["message", "remedy"] {
            ensure!(answer["error"][part].as_str().is_some_and(|text| !text.is_empty()), "{sentence}: {answer}");
        }
    }
    a_stranger(&lab.other)
}
