//! nftables REDIRECT and nginx: what an operator sets up to answer strangers without a portal's daemon.
//!
//! At its best: the interface's NAPI polls (as ours), connections are accepted when their request is there, nothing is logged, the neighbour table is
//! filled, and the limits that a gateway of this size would raise are raised. `rivals/nginx.conf` and `rivals/redirect.nft` are what it runs.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use portal_bench_ebpf::crowd::Crowd;
use portal_lab::{
    Lab, Namespace,
    process::{Service, run, sh, succeed},
};
use portal_userspace::datapath::object;

use crate::{
    exchange::{
        cpu::{Cpus, Threads},
        gateway::{PAGE, PROBE, SERVER},
        generator::{Plan, Question, Response, Tally},
        wire::{Wire, addresses},
    },
    login,
};

/// nginx's configuration; `@name@` is what differs from run to run.
const CONFIGURATION: &str = include_str!("../../rivals/nginx.conf");
/// The ruleset.
const RULES: &str = include_str!("../../rivals/redirect.nft");
/// Where nginx listens.
const PORT: u16 = 8511;

/// nginx on the gateway, with the rules that lead strangers to it.
pub struct Nginx {
    service: Service,
    gateway: Namespace,
    responses: [[Vec<u8>; 2]; 2],
    // A veth delivers what its peer's XDP program sends only to an interface that has a program itself: it passes everything.
    _pass: Ebpf,
}

impl Nginx {
    /// Starts it on the gateway's end of the wire, for so many clients.
    pub fn start(lab: &Lab, wire: &Wire, clients: u32, cpus: Cpus) -> Result<Self> {
        let gateway = lab.gateway.clone();
        for (setting, value) in [
            ("net/core/somaxconn", "65535"),
            ("net/ipv4/tcp_max_syn_backlog", "65535"),
            ("net/ipv4/tcp_max_tw_buckets", "1048576"),
            ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
            ("net/netfilter/nf_conntrack_tcp_timeout_last_ack", "5"),
            ("net/netfilter/nf_conntrack_tcp_timeout_fin_wait", "5"),
        ] {
            gateway.set(setting, value).with_context(|| format!("cannot raise {setting}"))?;
        }
        let directory = lab.directory().join("rival-nginx");
        fs::create_dir_all(&directory)?;
        let body = [IpAddr::V4(addresses::gateway_v4(wire.number)), IpAddr::V6(addresses::gateway_v6(wire.number))]
            .map(|address| page(&SocketAddr::new(address, 8080)));
        let text = CONFIGURATION
            .replace("@directory@", &directory.display().to_string())
            .replace("@port@", &PORT.to_string())
            .replace("@page_v4@", &body[0].1)
            .replace("@page_v6@", &body[1].1)
            .replace("@url_v4@", &body[0].0)
            .replace("@url_v6@", &body[1].0);
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, text)?;
        let log = directory.join("error.log");
        let mut command = gateway.service_on(cpus.gateway, "nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&configuration).arg("-e").arg(&log);
        let service = Service::start("nginx", &mut command, &log)?;
        let rules = directory.join("redirect.nft");
        fs::write(&rules, RULES.replace("@interface@", &wire.gateway).replace("@port@", &PORT.to_string()))?;
        succeed(gateway.service("nft").arg("-f").arg(&rules)).context("nft refuses the rules")?;
        neighbours(&gateway, wire, clients, &directory)?;
        let pass = gateway.enter(|| {
            let mut objects = Ebpf::load(object::LAB)?;
            let program: &mut Xdp = objects.program_mut("pass").context("no program `pass`")?.try_into()?;
            program.load()?;
            program.attach(wire.gateway.as_str(), XdpMode::Driver)?;
            Ok(objects)
        })?;
        let ask = |address: IpAddr, (target, host)| ask(&gateway, address, target, host);
        let (v4, v6) = (addresses::gateway_v4(wire.number).into(), addresses::gateway_v6(wire.number).into());
        let responses = [PAGE, PROBE].map(|question| [ask(v4, question), ask(v6, question)]);
        let [[a, b], [c, d]] = responses;
        let responses = [[a?, b?], [c?, d?]];
        for (responses, status) in responses.iter().zip(["HTTP/1.1 511 ", "HTTP/1.1 302 "]) {
            for response in responses {
                ensure!(
                    response.starts_with(status.as_bytes()),
                    "nginx answers {:?}; its log: {}",
                    String::from_utf8_lossy(response),
                    service.log()
                );
            }
        }
        Ok(Self { service, gateway, responses, _pass: pass })
    }

    /// Its processes.
    pub fn threads(&self) -> Result<Threads> {
        Threads::of_process(self.service.pid())
    }

    /// A crowd that asks it, and knows its answers. The date in them is nginx's own affair, and so are the checksums, which its kernel leaves to the
    /// interface.
    pub fn plan(&self, clients: u32, in_flight: u32) -> Plan {
        let response = |bytes: &Vec<u8>| {
            let ignored = find(bytes, b"\r\nDate: ").map_or(0..0, |at| {
                let value = at + b"\r\nDate: ".len();
                value..value + find(&bytes[value..], b"\r\n").unwrap_or_default()
            });
            Response { bytes: bytes.clone(), ignored }
        };
        let question = |(target, host), responses: &[Vec<u8>; 2]| Question {
            target,
            host,
            responses: [response(&responses[0]), response(&responses[1])],
        };
        Plan {
            clients,
            in_flight,
            families: Crowd::V4 | Crowd::V6,
            probe_every: 8,
            verifies_checksums: false,
            server: SERVER,
            questions: [question(PAGE, &self.responses[0]), question(PROBE, &self.responses[1])],
        }
    }

    /// Demands that the rules have led every connection to nginx.
    pub fn demand_redirects(&self, tally: &Tally) -> Result<()> {
        let text = run(
            self.gateway.service("nft").args(["-j", "list", "table", "inet", "portal_rival"]),
            Duration::from_secs(10),
        )?
        .success()?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let counted: u64 = json["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|item| item["rule"]["expr"].as_array().into_iter().flatten())
            .filter_map(|expression| expression["counter"]["packets"].as_u64())
            .sum();
        // A connection may be counted twice where its SYN came twice.
        ensure!(counted >= tally.syns(), "nftables redirected {counted} connections of {}", tally.syns());
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It would still redirect if its lab lived on.
        let _ = sh(&format!("nsenter --net={} nft delete table inet portal_rival", self.gateway.path().display()));
        let _ = self.service.stop();
    }
}

/// The login page's URL, and the page that Portal would send for it: the rival sends as many bytes.
fn page(portal: &SocketAddr) -> (String, String) {
    use portal_userspace::responder::answers::{Answers, Choice, Family, Status};
    let url = format!("http://{portal}/");
    let answers = Answers::new(&url, &url).expect("it is a URL");
    let answer = answers.pick(Choice { status: Status::AuthenticationRequired, head: false }, Family::V4).bytes();
    let body = find(answer, b"\r\n\r\n").map_or(&[][..], |at| &answer[at + 4..]);
    (url, String::from_utf8_lossy(body).replace('\\', "\\\\").replace('\'', "\\'").replace('$', ""))
}

/// Fills the neighbour table: a gateway that resolves while it is measured would be slower.
fn neighbours(gateway: &Namespace, wire: &Wire, clients: u32, directory: &std::path::Path) -> Result<()> {
    let crowd_v4 = u32::from(addresses::client_v4(wire.number));
    let crowd_v6 = u128::from(addresses::client_v6(wire.number));
    let mut batch = String::new();
    for client in 0..clients {
        let mac = login::text(Crowd::mac(client));
        let addresses = [IpAddr::V4((crowd_v4 + client).into()), IpAddr::V6((crowd_v6 + u128::from(client)).into())];
        for address in addresses {
            writeln!(batch, "neighbor replace {address} lladdr {mac} dev {} nud permanent", wire.gateway)?;
        }
    }
    let file = directory.join("neighbours");
    fs::write(&file, batch)?;
    let mut command = portal_tools::command("ip");
    command.args(["-n", gateway.name(), "-batch"]).arg(file);
    run(&mut command, Duration::from_mins(1))?.success().context("cannot fill the neighbour table")?;
    Ok(())
}

/// What nginx answers.
fn ask(gateway: &Namespace, address: IpAddr, target: &str, host: &str) -> Result<Vec<u8>> {
    let limit = Duration::from_secs(5);
    portal_lab::process::wait_for("nginx's answer", limit, || {
        let mut stream: TcpStream = gateway.connect(address, PORT, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: x\r\n\r\n").as_bytes()).ok()?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).ok()?;
        (!response.is_empty()).then_some(response)
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
