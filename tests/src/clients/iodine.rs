//! iodine: a tunnel through DNS queries and answers, which a stranger would like to have.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    addresses::{DELEGATED, GATEWAY_V4},
    lab::Lab,
    namespace::Namespace,
    process::{Service, wait_for},
};

/// The server's address inside of the tunnel.
pub const SERVER: &str = "10.99.0.1";
const PASSWORD: &str = "portal";
/// How long the handshake may take: it tries many encodings and sizes, each with a few queries.
const HANDSHAKE: Duration = Duration::from_mins(1);

/// A tunnel from a client to the internet, through the resolver that strangers may ask.
#[derive(Debug)]
pub struct Tunnel {
    client: Service,
    _server: Service,
}

impl Tunnel {
    /// Starts both ends, and waits until the client has got through.
    pub fn start(lab: &Lab, from: &Namespace) -> Result<Self> {
        ensure!(std::path::Path::new("/dev/net/tun").exists(), "no /dev/net/tun: iodine cannot run on this machine");
        let mut command = lab.internet.service("iodined");
        command.args(["-f", "-c", "-P", PASSWORD, "-d", "dns0", SERVER, DELEGATED]);
        let server = Service::start("iodined", &mut command, &lab.directory().join("iodined.log"))?;
        wait_for("iodined", Duration::from_secs(30), || server.log().contains("Listening to dns").then_some(()))
            .with_context(|| server.log())?;
        // Not past the resolver (-r). It tries by itself which kinds of records and how large answers get through.
        let mut command = from.service("iodine");
        command.args(["-f", "-r", "-P", PASSWORD, "-d", "dns0", &GATEWAY_V4.to_string(), DELEGATED]);
        let mut client = Service::start("iodine", &mut command, &lab.directory().join("iodine.log"))?;
        let is_up = || match client.ended() {
            Ok(None) => client.log().contains("Connection setup complete").then_some(Ok(())),
            Ok(Some(status)) => Some(Err(anyhow!("iodine ended: {status}"))),
            Err(e) => Some(Err(e)),
        };
        wait_for("a tunnel", HANDSHAKE, is_up).and_then(|up| up).with_context(|| client.log())?;
        Ok(Self { client, _server: server })
    }

    /// What the client has printed.
    pub fn log(&self) -> String {
        self.client.log()
    }
}
