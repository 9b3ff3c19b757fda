//! The words that `portalctl` understands.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    config::{BarTime, BitRate, ByteCount, DEFAULT_SOCKET, IdleTime, OrNone, QuotaPer, SessionLength},
    control::api::Direction,
    garden::{ports::PortRule, rules::Target},
    net::Mac,
    observe::{
        build::{AnyMac, Flags, FrameSpec, Protocol, Text, Vlans},
        input,
    },
    session::Reason,
};

/// Control Portal, the captive-portal gate.
#[derive(Debug, Parser)]
#[command(
    name = "portalctl",
    version,
    max_term_width = 100,
    after_help = "Exit code: 0 done, 1 refused or failed, 2 wrong usage."
)]
pub(super) struct Cli {
    /// portald's control socket
    #[arg(long, global = true, value_name = "PATH", env = "PORTAL_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// Print JSON, with a stable schema; on standard error too, but for wrong usage
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how the gate, the daemon and the session table are
    Status,
    /// List the guest networks, guard one, or guard one no longer
    Zones {
        #[command(subcommand)]
        command: ZonesCommand,
    },
    /// Show what strangers may reach, add to it, or remove from it
    Garden {
        #[command(subcommand)]
        command: GardenCommand,
    },
    /// List the clients that are logged in, or show one
    Clients {
        #[command(subcommand)]
        command: ClientsCommand,
    },
    /// Let a client through, as if it had logged in; returns when the kernel has it. Lifts whatever kept it out
    Allow {
        /// The client's MAC address, as 02:00:5e:10:00:01, 02-00-5e-10-00-01 or 0200.5e10.0001
        mac: Mac,
        /// How long from now, as 45m, 2h or "1d 12h"; or `forever`: until it is revoked or the gateway restarts [default:
        /// as long as a login]
        #[arg(long = "for", value_name = "TIME")]
        length: Option<AllowFor>,
        /// The zone [default: the only one]
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Log a client out; when this returns, it is a stranger
    Revoke {
        /// The client's MAC address
        mac: Mac,
        /// Keep it from logging in again for so long, as 45m or 2h; or `forever`, until it is unblocked; or `none` [default: as
        /// `bar_after_revoke` says]
        #[arg(long, value_name = "TIME")]
        bar: Option<OrNone<BarTime>>,
        /// The zone [default: where it has a session]
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
    /// Keep a client from logging in; a running session ends. When this returns, it is a stranger
    Block {
        /// The client's MAC address
        mac: Mac,
        /// For how long, as 45m, 2h or "1d 12h" [default: until it is unblocked, also over a restart of the gateway]
        #[arg(long = "for", value_name = "TIME", default_value = "forever", hide_default_value = true)]
        time: BarTime,
        /// Why, as `portalctl blocks` is to show it; guests are not told
        #[arg(long, value_name = "TEXT")]
        reason: Option<Reason>,
        /// The zone [default: where it has a session, or the only one]
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
    /// Let a client log in again that was blocked, revoked with --bar, or has spent its quota
    Unblock {
        /// The client's MAC address
        mac: Mac,
        /// The zone [default: where it is kept out]
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
    /// List the clients that may not log in now, why, and until when
    Blocks {
        /// One zone only
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
    /// Show how many packets were dropped, and why
    Drops {
        /// Show the reasons that pass and answer packets too
        #[arg(long)]
        all: bool,
        /// One zone only
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
        /// Show every second what was added, until Ctrl-C
        #[arg(long)]
        watch: bool,
        /// End after so many seconds
        #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Ask what the gate would do with a frame now; nothing is counted or changed by it
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Box<ExplainArgs>),
    /// Show what happens as it happens: logins, expiries, spoofed addresses, spent budgets, names learned; until Ctrl-C
    Monitor {
        /// End after so many events
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Write a client's packets with the gate's verdicts as a pcapng file, for Wireshark and tcpdump; until Ctrl-C
    Capture(CaptureArgs),
    /// Print a completion script, as `source <(portalctl completions bash)`
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, as `portalctl man | man -l -`
    Man {
        /// The command, as `allow` or `clients list`; none for portalctl itself
        page: Vec<String>,
    },
}

const EXPLAIN_HELP: &str = "\
A frame is given in hexadecimal (plain, or as tcpdump -xx, xxd, hexdump -C and Wireshark print it; `-` reads standard input), \
in a pcap or pcapng file, or by flags, of which --mac is needed and the others have defaults: a SYN to TCP/80 somewhere in the \
internet, sent to the gateway.

  portalctl explain --mac 02:00:5e:10:00:01 --dport 443
  portalctl explain --mac 02:00:5e:10:00:01 --proto udp --dst 192.0.2.1 --dport 53
  tcpdump -c 1 -xx -i eth1 | portalctl explain -
  portalctl explain --file frames.pcapng --json
  portalctl explain --direction out --file to-a-guest.pcapng

With --json each frame's answer is a line: {\"verdict\", \"reason\", \"rule\", \"reply_hex\"}.";

/// What is asked about.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("frames").required(true).multiple(false))]
pub(super) struct ExplainArgs {
    /// A frame from the destination MAC on, in hexadecimal; `-` for standard input, which may be a capture file too
    #[arg(group = "frames", value_name = "HEX")]
    pub(super) hex: Vec<String>,
    /// The frames in a pcap or pcapng file
    #[arg(long, group = "frames", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Build a frame that this client sends
    #[arg(long, group = "frames", value_name = "MAC")]
    pub(super) mac: Option<AnyMac>,
    /// The zone whose interface it arrives at [default: the first]
    #[arg(long, value_name = "NAME")]
    pub(super) zone: Option<String>,
    /// Which way the frames go
    #[arg(long, value_enum, default_value_t, conflicts_with = "mac")]
    pub(super) direction: Direction,
    /// The gateway itself sends them; without, they have come in by another interface
    #[arg(long, conflicts_with = "mac")]
    pub(super) own: bool,
    #[command(flatten)]
    pub(super) frame: FrameArgs,
}

/// A frame by its fields.
#[derive(Debug, Args)]
#[command(next_help_heading = "The frame, beside --mac")]
pub(super) struct FrameArgs {
    /// What it holds
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t)]
    proto: Protocol,
    /// The sender's address [default: the client's, or one that nobody uses]
    #[arg(long, value_name = "ADDRESS", requires = "mac")]
    src: Option<IpAddr>,
    /// The receiver's address [default: somewhere in the internet]
    #[arg(long, value_name = "ADDRESS", requires = "mac")]
    dst: Option<IpAddr>,
    /// The sender's port [default: 40000]
    #[arg(long, value_name = "PORT", requires = "mac")]
    sport: Option<u16>,
    /// The receiver's port [default: 80 for TCP, 53 for UDP]
    #[arg(long, value_name = "PORT", requires = "mac")]
    dport: Option<u16>,
    /// TCP's flags, as `syn,ack` [default: syn; with data psh,ack]
    #[arg(long, value_name = "FLAGS", requires = "mac")]
    flags: Option<Flags>,
    /// TCP's sequence number
    #[arg(long, value_name = "N", requires = "mac", default_value_t = 1_000)]
    seq: u32,
    /// TCP's acknowledgement number
    #[arg(long, value_name = "N", requires = "mac", default_value_t = 0)]
    ack: u32,
    /// The ICMP type [default: an echo request]
    #[arg(long = "type", value_name = "N", requires = "mac")]
    icmp_type: Option<u8>,
    /// The ICMP code
    #[arg(long = "code", value_name = "N", requires = "icmp_type", default_value_t = 0)]
    icmp_code: u8,
    /// VLAN ids, as 10, or 100.10 with the outer first [default: the zone's; `none`: no tag]
    #[arg(long, value_name = "VLAN", requires = "mac")]
    vlan: Option<VlanArg>,
    /// The receiver's MAC address [default: the gateway's; for ARP everybody's]
    #[arg(long, value_name = "MAC", requires = "mac")]
    dst_mac: Option<AnyMac>,
    /// Time to live, or hop limit
    #[arg(long, value_name = "N", requires = "mac", default_value_t = 64)]
    ttl: u8,
    /// The data, as text with \r, \n and \x41
    #[arg(long, value_name = "TEXT", requires = "mac", conflicts_with = "payload_hex")]
    data: Option<Text>,
    /// The data, in hexadecimal
    #[arg(long, value_name = "HEX", requires = "mac")]
    payload_hex: Option<HexBytes>,
}

impl FrameArgs {
    /// Whether one of them is given that has no default.
    pub(super) fn is_given(&self) -> bool {
        let Self { src, dst, sport, dport, flags, icmp_type, vlan, dst_mac, data, payload_hex, .. } = self;
        src.is_some()
            || dst.is_some()
            || sport.is_some()
            || dport.is_some()
            || flags.is_some()
            || icmp_type.is_some()
            || vlan.is_some()
            || dst_mac.is_some()
            || data.is_some()
            || payload_hex.is_some()
    }

    /// The frame that this client sends; in this VLAN, where no other is named.
    pub(super) fn spec(&self, mac: AnyMac, vlan: &Vlans) -> FrameSpec {
        let data = self.data.as_ref().map(|text| &text.0).or(self.payload_hex.as_ref().map(|hex| &hex.0));
        FrameSpec {
            mac: Some(mac),
            dst_mac: self.dst_mac,
            vlan: self.vlan.as_ref().map_or_else(|| vlan.clone(), |vlan| vlan.0.clone()),
            src: self.src,
            dst: self.dst,
            protocol: self.proto,
            sport: self.sport,
            dport: self.dport,
            flags: self.flags,
            seq: self.seq,
            ack: self.ack,
            icmp_type: self.icmp_type,
            icmp_code: self.icmp_code,
            ttl: Some(self.ttl),
            data: data.cloned(),
        }
    }
}

/// VLAN tags, or `none`.
#[derive(Clone, Debug)]
pub(super) struct VlanArg(Vlans);

impl FromStr for VlanArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self(Vlans::default())) } else { text.parse().map(Self) }
    }
}

/// Bytes in hexadecimal.
#[derive(Clone, Debug)]
pub(super) struct HexBytes(Vec<u8>);

impl FromStr for HexBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        input::bytes(text).map(Self).map_err(|e| e.to_string())
    }
}

/// Whose packets, where to, and how many.
#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// The client's MAC address
    #[arg(long, value_name = "MAC")]
    pub(super) client: Mac,
    /// In one zone only
    #[arg(long, value_name = "NAME")]
    pub(super) zone: Option<String>,
    /// The file; `-` for standard output, as in `portalctl capture --client MAC --write - | wireshark -k -i -` [default: -]
    #[arg(long, short, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub(super) write: PathBuf,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seconds: Option<u64>,
}

/// How long a client is let through.
#[derive(Clone, Copy, Debug)]
pub(super) enum AllowFor {
    Time(SessionLength),
    Forever,
}

impl FromStr for AllowFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" { Ok(Self::Forever) } else { text.parse().map(Self::Time) }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientsCommand {
    /// List the clients that are logged in
    List {
        /// One zone only
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
    /// Show one client's session
    Show {
        /// The client's MAC address
        mac: Mac,
        /// The zone [default: where it has a session]
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
}

/// What a client may use: what is not said stays as it is, or is as the configuration says; `none` is no limit.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Limits (left out: as they are, or as the configuration says; `none`: no limit)")]
pub(super) struct LimitArgs {
    /// How fast the client may send, as 10mbit
    #[arg(long, value_name = "RATE")]
    pub(super) up: Option<OrNone<BitRate>>,
    /// How fast the client may be sent to
    #[arg(long, value_name = "RATE")]
    pub(super) down: Option<OrNone<BitRate>>,
    /// How much it may send and receive, together, from the session's beginning, as 2GB
    #[arg(long, value_name = "BYTES")]
    pub(super) quota: Option<OrNone<ByteCount>>,
    /// What that is of: `session`, or `day`, so that its further logins within 24 hours get what is left of it [default: as
    /// `quota_per` says]
    #[arg(long, value_name = "WHAT", requires = "quota")]
    pub(super) quota_per: Option<QuotaPer>,
    /// After how long without a packet from it the session ends, as 30m
    #[arg(long, value_name = "TIME")]
    pub(super) idle: Option<OrNone<IdleTime>>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ZonesCommand {
    /// List the guest networks that are guarded, and those of the configuration file that are not
    List,
    /// Guard a network, as the configuration file has it now
    Attach {
        /// Its name
        name: String,
    },
    /// Guard a network no longer: its frames are dropped, or, where it is the last on its interface, pass
    Detach {
        /// Its name
        name: String,
        /// Also where the gate then comes off the interface, so that everything passes there
        #[arg(long)]
        open: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum GardenCommand {
    /// List what strangers may reach, and what is open for it now
    List,
    /// Let strangers reach an address, a prefix, or the addresses of a name, until it is removed or portald ends
    Add {
        /// Where to, as 203.0.113.7, 2001:db8::/32, pay.example or *.pay.example
        to: Target,
        /// A port, as 443/tcp, 123/udp or any/tcp; can be given several times [default: 80/tcp and 443/tcp]
        #[arg(long = "port", value_name = "PORT")]
        ports: Vec<PortRule>,
        /// The zone [default: the only one]
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
    /// Remove what was added by `garden add`
    Remove {
        /// Where to, as it was added
        to: Target,
        /// The zone [default: the only one]
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
    },
}
