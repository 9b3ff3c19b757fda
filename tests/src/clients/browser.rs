//! Chromium without a screen.

use std::time::Duration;

use anyhow::Result;

use crate::{lab::Lab, process::run};

/// How often Chromium is asked.
const ATTEMPTS: usize = 5;

/// The document that Chromium in the guest has after it has loaded the page and followed where that leads.
pub fn document(lab: &Lab, url: &str) -> Result<String> {
    let mut document = String::new();
    for _ in 0..ATTEMPTS {
        document = dump(lab, url)?;
        // Where its clock runs out between two pages, as on a busy machine, it prints an empty document.
        if !document.trim().is_empty() {
            break;
        }
    }
    Ok(document)
}

fn dump(lab: &Lab, url: &str) -> Result<String> {
    let profile = lab.directory().join("browser");
    let home = profile.display();
    let mut command = lab.guest.client_tree("chromium");
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        // Shared memory in files: a container's /dev/shm is small.
        .arg("--disable-dev-shm-usage")
        .arg(format!("--user-data-dir={home}"))
        // The clock that pages see jumps ahead, so that a meta refresh is followed before the document is printed.
        .args(["--virtual-time-budget=5000", "--dump-dom", url])
        .env("HOME", &profile)
        .env_remove("http_proxy")
        .env_remove("https_proxy");
    run(&mut command, Duration::from_mins(1))?.success()
}
