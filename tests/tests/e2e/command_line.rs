//! What portald does beside guarding: `--check`, `--detach`, `--log-format json`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GATEWAY_V4, GATEWAY_V6, OTHER_MAC, PORTAL_PORT},
    portald::{config_path, config_text, portald},
};
use serde_json::Value;

use crate::{
    expect::{a_guest, a_stranger, done, pins, program},
    turn::lab,
};

#[test]
fn check_prints_what_it_would_do_and_touches_nothing() -> Result<()> {
    let lab = lab()?;
    let config = config_path(&lab).display().to_string();
    fs::write(&config, config_text(&lab, &Settings::default()))?;
    let printed = portald(&lab, &["--config", &config, "--check"])?.success()?;
    for words in [format!("{GATEWAY_V4}:{PORTAL_PORT}"), format!("[{GATEWAY_V6}]:{PORTAL_PORT}"), "terms".to_owned()] {
        ensure!(printed.contains(&words), "no {words} in:\n{printed}");
    }
    nothing_is_attached(&lab)?;
    // What it prints is a configuration, and means the same.
    fs::write(&config, &printed)?;
    assert_eq!(portald(&lab, &["--config", &config, "--check"])?.success()?, printed);

    // Beside a running portald it changes nothing either.
    let mut running = Portald::start_with(&lab, &printed, &[])?;
    done(&lab, &["allow", OTHER_MAC])?;
    let gate = program(&lab)?;
    assert_eq!(portald(&lab, &["--config", &config, "--check"])?.success()?, printed);
    assert_eq!(program(&lab)?, gate);
    a_guest(&lab.other)?;
    a_stranger(&lab.guest)?;
    ensure!(running.is_running()?);

    fs::write(&config, printed.replace("\"native\"", "\"fast\""))?;
    let output = portald(&lab, &["--config", &config, "--check"])?;
    ensure!(output.code == Some(1) && output.stderr.contains("fast") && output.stdout.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn detach_opens_the_network_and_leaves_nothing() -> Result<()> {
    let lab = lab()?;
    let mut running = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", OTHER_MAC])?;
    let config = config_path(&lab).display().to_string();
    let detach = || portald(&lab, &["--config", &config, "--detach"]);

    // Not under a running portald, which would go on without a gate.
    let output = detach()?;
    ensure!(output.code == Some(1) && output.stderr.contains("another portald"), "{output:?}");
    a_stranger(&lab.guest)?;

    assert!(running.stop(Duration::from_secs(30))?.success());
    let output = detach()?;
    ensure!(output.code == Some(0) && output.stderr.contains("open"), "no word of caution: {output:?}");
    nothing_is_attached(&lab)?;
    for client in [&lab.guest, &lab.other] {
        a_guest(client).context("the network is not open")?;
    }
    // Again is no error: nothing is what was asked for.
    detach()?.success()?;

    // And closed again by the next start, with all sessions forgotten.
    running.restart(&lab)?;
    a_stranger(&lab.guest)?;
    a_stranger(&lab.other)
}

/// Neither a program on the interface nor a pin.
fn nothing_is_attached(lab: &Lab) -> Result<()> {
    let shown = lab.gateway.ip("link show dev guest0")?;
    ensure!(!shown.contains("xdp"), "{shown}");
    let pins = pins(&lab.bpffs().join("portal"))?;
    ensure!(pins.is_empty(), "{pins:?}");
    Ok(())
}

#[test]
fn the_log_is_one_json_object_a_line_where_that_is_asked_for() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let mut running = Portald::start_with(&lab, &config, &["--log-format", "json"])?;
    done(&lab, &["allow", OTHER_MAC])?;
    // What ends a start is a line of the same kind.
    let path = config_path(&lab).display().to_string();
    let refused = portald(&lab, &["--config", &path, "--log-format", "json"])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(running.stop(Duration::from_secs(30))?.success());

    let told = lines(&running.log())?;
    let has = |line: &Value, name: &str, value: &str| line["fields"][name] == value;
    ensure!(told.iter().any(|line| has(line, "client", OTHER_MAC)), "no line names the client: {told:?}");
    let refused = lines(&refused.stderr)?;
    let last = refused.last().context("it said nothing")?;
    ensure!(
        last["level"] == "ERROR" && last["fields"]["error"].as_str().is_some_and(|e| e.contains("another portald"))
    );
    Ok(())
}

/// Each line, which must be an object with a time, a level and fields.
fn lines(log: &str) -> Result<Vec<Value>> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let is_whole = value["timestamp"].is_string() && value["level"].is_string() && value["fields"].is_object();
        ensure!(is_whole, "something is missing in: {line}");
        Ok(value)
    };
    log.lines().map(parse).collect()
}
