//! The demonstration: what a guest sees, from the first page to the last, step by step.

use std::{fmt::Display, net::IpAddr, time::Duration};

use anyhow::{Context as _, Error, Result, anyhow, ensure};

use crate::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, GUEST_V4, GUEST_V6, PORTAL_URL},
    clients::{
        http::{self, Family, Response},
        stream::{STREAM, arriving},
    },
    lab::SITE_PAGE,
    portald::{portalctl, portalctl_line},
    removal,
    table::{Step, draw},
};

/// A site that the guest wants.
const SITE: &str = "http://www.example.com/";
/// The same over TLS.
const SECURE_SITE: &str = "https://www.example.com/";
/// What an Android phone asks to learn whether it is online.
const PROBE: &str = "http://connectivitycheck.gstatic.com/generate_204";
/// What "at once" is: sooner than the first repetition of a SYN (1 s, RFC 6298), which tells a refusal from a loss.
const AT_ONCE: Duration = Duration::from_millis(900);

/// A demonstration that has run; the lab is still up.
#[derive(Debug)]
pub struct Demo {
    steps: Vec<Step>,
    // In this order: the daemon goes before its lab.
    portald: Portald,
    lab: Lab,
}

impl Demo {
    /// Builds a lab and runs every step in it. A step that does not come as expected is no error here: see [`Self::passed`].
    pub fn run() -> Result<Self> {
        let lab = Lab::new()?;
        let mut portald = Portald::start(&lab, &Settings::default())?;
        portald.prints_log = false;
        let mut steps = Steps::default();
        ask_as_stranger(&lab, &mut steps);
        log_in_and_ask(&lab, &mut steps);
        revoke_and_ask(&lab, &mut steps);
        let mut demo = Self { steps: steps.0, portald, lab };
        demo.portald.prints_log = !demo.passed();
        Ok(demo)
    }

    /// Whether each step came as expected.
    pub fn passed(&self) -> bool {
        self.steps.iter().all(|step| step.ok)
    }

    /// The steps, as a table.
    pub fn table(&self) -> String {
        draw(&self.steps)
    }

    /// How a person gets into the lab and drives its portald.
    pub fn how_to_enter(&self) -> Result<String> {
        Ok(format!("{}portalctl  {}\n", self.lab.how_to_enter(), portalctl_line(&self.lab)?))
    }
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Adds a step: the value says what came, the error what is wrong with it.
    fn add(&mut self, what: impl Display, expected: &str, result: Result<String>) {
        drop(removal::give_way());
        let ok = result.is_ok();
        let got = result.unwrap_or_else(|e: Error| format!("{e:#}"));
        self.0.push(Step { what: what.to_string(), expected: expected.to_owned(), got, ok });
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn ask_as_stranger(lab: &Lab, steps: &mut Steps) {
    for family in Family::ALL {
        let got = http::get(&lab.guest, family, SITE).and_then(|response| expect_511(&response));
        steps.add(format!("{}: curl {SITE}", name(family)), "511, with a link to the portal", got);
    }
    for family in Family::ALL {
        let expected = format!("refused within {AT_ONCE:?}");
        steps.add(format!("{}: curl {SECURE_SITE}", name(family)), &expected, fails_at_once(lab, family));
    }
    for family in Family::ALL {
        let got = http::get(&lab.guest, family, PROBE).and_then(|response| {
            ensure!(response.status == 302, "{}", response.summary());
            let location = response.header("location").unwrap_or_default();
            ensure!(location.starts_with("http://"), "Location: {location}");
            let page = http::request(&lab.guest, &[location])?;
            ensure!(page.status == 200, "{} leads to {}", response.summary(), page.summary());
            Ok(response.summary())
        });
        steps.add(format!("{}: a phone's probe, {PROBE}", name(family)), "302 to the portal's page", got);
    }
    for family in Family::ALL {
        let to = match family {
            Family::V4 => IpAddr::V4(GUEST_V4),
            Family::V6 => IpAddr::V6(GUEST_V6),
        };
        let got = arriving(lab, to, 9_999).and_then(|arrived| {
            ensure!(arrived == 0, "{arrived} of {STREAM} datagrams arrive");
            Ok(format!("0 of {STREAM} datagrams"))
        });
        steps.add(format!("{}: a helper on the internet streams UDP to it", name(family)), "nothing arrives", got);
    }
}

fn log_in_and_ask(lab: &Lab, steps: &mut Steps) {
    let got = http::log_in(&lab.guest, PORTAL_URL).and_then(|page| {
        ensure!(page.status == 200, "{}", page.summary());
        Ok(page.summary())
    });
    steps.add(format!("log in: load {PORTAL_URL}, submit its form"), "200, a page that says so", got);
    for family in Family::ALL {
        let got = http::get(&lab.guest, family, SITE).and_then(|response| expect_site(&response));
        steps.add(format!("{}: curl {SITE}", name(family)), "200, the real site", got);
    }
    for family in Family::ALL {
        let got = http::request(&lab.guest, &["--insecure", family.option(), SECURE_SITE])
            .and_then(|response| expect_site(&response));
        steps.add(format!("{}: curl {SECURE_SITE}", name(family)), "200, the real site", got);
    }
}

fn revoke_and_ask(lab: &Lab, steps: &mut Steps) {
    let got = portalctl(lab, &["revoke", GUEST_MAC]).and_then(|output| Ok(output.success()?.trim().to_owned()));
    steps.add(format!("portalctl revoke {GUEST_MAC}"), "done", got);
    for family in Family::ALL {
        let got = http::get(&lab.guest, family, SITE).and_then(|response| expect_511(&response));
        steps.add(format!("{}: curl {SITE}", name(family)), "511 again", got);
    }
}

fn expect_511(response: &Response) -> Result<String> {
    ensure!(response.status == 511, "{}", response.summary());
    ensure!(response.body.contains(&format!(":{}", crate::addresses::PORTAL_PORT)), "no link: {}", response.body);
    Ok(response.summary())
}

fn expect_site(response: &Response) -> Result<String> {
    ensure!(response.status == 200 && response.body == SITE_PAGE, "{}", response.summary());
    Ok(response.summary())
}

fn fails_at_once(lab: &Lab, family: Family) -> Result<String> {
    // As curl tells it, without the start of its process and the name's resolution, which a loaded machine makes longer.
    let times = ["--write-out", "%{time_namelookup} %{time_total}"];
    let output = http::curl(&lab.guest, &[&times[..], &["--insecure", family.option(), SECURE_SITE]].concat())?;
    let seconds = |word: Option<&str>| word.and_then(|word| word.parse::<f64>().ok()).context("curl tells no times");
    let mut words = output.stdout.split_whitespace();
    let (looked_up, total) = (seconds(words.next())?, seconds(words.next())?);
    let took = Duration::try_from_secs_f64(total - looked_up)?;
    match output.code {
        // 7: cannot connect; 35: the handshake failed; 56: the connection was reset.
        Some(code @ (7 | 35 | 56)) if took < AT_ONCE => {
            Ok(format!("curl's error {code} after {} ms", took.as_millis()))
        }
        code => Err(anyhow!("exit code {code:?} after {} ms: {}", took.as_millis(), output.stderr.trim())),
    }
}
