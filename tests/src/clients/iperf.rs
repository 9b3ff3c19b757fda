//! iperf3: how much a client gets through.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    lab::Lab,
    namespace::Namespace,
    process::{Service, run},
};

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the internet.
    Up,
    /// From the internet to the client.
    Down,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];
}

/// A measurement to come.
#[derive(Debug, Clone, Copy)]
pub struct Iperf {
    /// The server's address in the internet.
    pub to: IpAddr,
    /// Which way.
    pub direction: Direction,
    /// How long, in seconds.
    pub seconds: u32,
    /// Connections at once.
    pub streams: u32,
    /// The CPU of both ends; `None`: any.
    pub cpu: Option<usize>,
}

impl Iperf {
    /// TCP goodput in bits per second: what has arrived, divided by the time.
    pub fn run(&self, lab: &Lab, client: &Namespace) -> Result<f64> {
        // A port of its own each time: the last one's connections may not be over.
        static PORT: AtomicU16 = AtomicU16::new(5201);
        let Self { to, direction, seconds, streams, cpu } = *self;
        let port = PORT.fetch_add(1, Ordering::Relaxed).to_string();
        let start = |from: &Namespace| match cpu {
            Some(cpu) => from.service_on(cpu, "iperf3"),
            None => from.service("iperf3"),
        };
        let log = lab.directory().join("iperf3.log");
        let mut server = start(&lab.internet);
        let _server = Service::start("iperf3 -s", server.args(["--server", "--one-off", "--port", &port]), &log)?;
        lab.internet.wait_for_listener(&port)?;
        let mut command = start(client);
        // A fixed congestion control: what the machine's default makes of a token bucket is not what is asked here.
        command.args(["--client", &to.to_string(), "--port", &port, "--json", "--congestion", "cubic"]);
        command.args(["--time", &seconds.to_string(), "--parallel", &streams.to_string(), "--connect-timeout", "3000"]);
        if direction == Direction::Down {
            command.arg("--reverse");
        }
        let output = run(&mut command, Duration::from_secs(u64::from(seconds) + 60))?;
        let json: Value = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
        json["end"]["sum_received"]["bits_per_second"].as_f64().with_context(|| format!("no sum: {}", json["error"]))
    }
}
