//! Guest networks, as an operator writes them, and what each comes to once the sections that all share are put beneath.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Config, Dns, InterfaceName, Portal, PortalUrl, SessionLength, Terms, Title, XdpMode,
    budgets::{Budgets, BudgetsOverride},
    limits::{SessionLimits, SessionLimitsOverride},
    section::section,
    values::ZoneName,
    vlan::Vlan,
};
use crate::garden::rules::GardenRule;

/// What a stranger's connection to TCP/443 gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Https {
    /// A reset.
    #[default]
    Reset,
    /// A fatal TLS alert, after which browsers look for a portal.
    Alert,
    /// Silence.
    Drop,
}

impl std::fmt::Display for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::Alert => "alert",
            Self::Drop => "drop",
        })
    }
}

/// What happens to a client that sends from an address that is not its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AntiSpoofing {
    /// Nothing.
    Off,
    /// Addresses are learned as they are used; with another client's it is a stranger.
    #[default]
    Learn,
    /// As `learn`, but only the first addresses that a session uses.
    Strict,
}

impl std::fmt::Display for AntiSpoofing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Learn => "learn",
            Self::Strict => "strict",
        })
    }
}

/// Which addresses clients may send from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceCheck {
    /// Any.
    Off,
    /// Those of the network's own prefixes, and of the prefixes behind its clients.
    #[default]
    Network,
}

/// The first guest network: `[guest]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// The network's name.
    #[serde(default)]
    pub name: ZoneName,
    /// The interface that guests are on.
    pub interface: InterfaceName,
    /// The VLAN that guests are in; None: frames without a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// The interface with the gateway's addresses on this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<InterfaceName>,
    /// Where in the kernel the gate runs; None: as another network on this interface says, or native.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<XdpMode>,
    /// The policy for TCP/443.
    #[serde(default)]
    pub https: Https,
    /// The strictness about clients' addresses.
    #[serde(default)]
    pub anti_spoofing: AntiSpoofing,
    /// Which addresses clients may send from.
    #[serde(default)]
    pub sources: SourceCheck,
    /// Prefixes that are routed to clients of the network: theirs too.
    #[serde(default)]
    pub downstream: Vec<IpNet>,
    /// Decide and count, but let everything pass.
    #[serde(default)]
    pub shadow: bool,
}

/// A further guest network: `[[zone]]`. Its sections hold what is other than in the sections of the same name that all share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneSection {
    /// As [`Guest::name`].
    pub name: ZoneName,
    /// As [`Guest::interface`].
    pub interface: InterfaceName,
    /// As [`Guest::vlan`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// As [`Guest::gateway`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<InterfaceName>,
    /// As [`Guest::xdp_mode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<XdpMode>,
    /// As [`Guest::https`].
    #[serde(default)]
    pub https: Https,
    /// As [`Guest::anti_spoofing`].
    #[serde(default)]
    pub anti_spoofing: AntiSpoofing,
    /// As [`Guest::sources`].
    #[serde(default)]
    pub sources: SourceCheck,
    /// As [`Guest::downstream`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream: Vec<IpNet>,
    /// As [`Guest::shadow`].
    #[serde(default)]
    pub shadow: bool,
    /// Its own login page.
    #[serde(default, skip_serializing_if = "is_default")]
    pub portal: PortalOverride,
    /// Its own limits for who has logged in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub session: SessionLimitsOverride,
    /// Its own budgets of strangers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub budgets: BudgetsOverride,
    /// Its own resolvers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns: Dns,
    /// Its own time servers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ntp: NtpOverride,
    /// Its own walled garden, in place of the common one; empty for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub garden: Option<Vec<GardenRule>>,
}

fn is_default<T: Default + PartialEq>(section: &T) -> bool {
    *section == T::default()
}

/// A zone's own login page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalOverride {
    /// Where the login page listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Vec<std::net::SocketAddr>>,
    /// The login page's URL for both families. With a URL of its own a zone takes none from `[portal]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<PortalUrl>,
    /// The login page's URL for clients that asked over IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_v4: Option<PortalUrl>,
    /// The login page's URL for clients that asked over IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_v6: Option<PortalUrl>,
    /// The network's name, as the page shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Title>,
    /// The terms that the guest accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// How long a session lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionLength>,
}

impl PortalOverride {
    fn over(&self, base: &Portal) -> Portal {
        let Self { listen, url, url_v4, url_v6, title, terms, session } = self.clone();
        // A URL of all networks for one family would win over this network's for both.
        let urls = if url.is_some() || url_v4.is_some() || url_v6.is_some() {
            [url, url_v4, url_v6]
        } else {
            [&base.url, &base.url_v4, &base.url_v6].map(Clone::clone)
        };
        let [url, url_v4, url_v6] = urls;
        Portal {
            listen: listen.or_else(|| base.listen.clone()),
            url,
            url_v4,
            url_v6,
            title: title.unwrap_or_else(|| base.title.clone()),
            terms: terms.unwrap_or_else(|| base.terms.clone()),
            session: session.unwrap_or(base.session),
        }
    }

    fn all(portal: &Portal) -> Self {
        let Portal { listen, url, url_v4, url_v6, title, terms, session } = portal.clone();
        Self { listen, url, url_v4, url_v6, title: Some(title), terms: Some(terms), session: Some(session) }
    }
}

section! {
    /// Which time servers a stranger may ask.
    Ntp,
    /// A zone's own time servers.
    NtpOverride {
        /// Their addresses.
        servers: Vec<IpAddr> = Vec::new(),
    }
}

/// A guest network with everything that applies to it, as far as it does not depend on its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneConfig {
    /// What tells it from others.
    pub guest: Guest,
    /// Where in the kernel its interface's gate runs.
    pub xdp_mode: XdpMode,
    /// Its login page.
    pub portal: Portal,
    /// Its resolvers.
    pub dns: Dns,
    /// Its time servers.
    pub ntp: Ntp,
    /// Its walled garden.
    pub garden: Vec<GardenRule>,
    /// Its limits for who has logged in.
    pub session: SessionLimits,
    /// Its budgets of strangers.
    pub budgets: Budgets,
}

impl Config {
    /// Every guest network; that of `[guest]` is the first.
    pub fn zones(&self) -> Vec<ZoneConfig> {
        let Self { guest, portal, dns, ntp, garden, session, budgets, zone, .. } = self;
        let first = ZoneConfig {
            guest: guest.clone(),
            xdp_mode: XdpMode::default(),
            portal: portal.clone(),
            dns: dns.clone(),
            ntp: ntp.clone(),
            garden: garden.clone(),
            session: session.clone(),
            budgets: budgets.clone(),
        };
        let further = zone.iter().map(|own| ZoneConfig {
            guest: own.guest(),
            xdp_mode: XdpMode::default(),
            portal: own.portal.over(portal),
            dns: Dns { resolvers: own.dns.resolvers.clone().or_else(|| dns.resolvers.clone()) },
            ntp: own.ntp.over(ntp),
            garden: own.garden.clone().unwrap_or_else(|| garden.clone()),
            session: own.session.over(session),
            budgets: own.budgets.over(budgets),
        });
        let mut zones: Vec<_> = std::iter::once(first).chain(further).collect();
        for i in 0..zones.len() {
            let same = |zone: &&ZoneConfig| zone.guest.interface == zones[i].guest.interface;
            let mode = zones.iter().filter(same).find_map(|zone| zone.guest.xdp_mode);
            zones[i].xdp_mode = mode.unwrap_or_default();
        }
        zones
    }
}

impl ZoneSection {
    fn guest(&self) -> Guest {
        let Self {
            name, interface, vlan, gateway, xdp_mode, https, anti_spoofing, sources, downstream, shadow, ..
        } = self;
        Guest {
            name: name.clone(),
            interface: interface.clone(),
            vlan: *vlan,
            gateway: gateway.clone(),
            xdp_mode: *xdp_mode,
            https: *https,
            anti_spoofing: *anti_spoofing,
            sources: *sources,
            downstream: downstream.clone(),
            shadow: *shadow,
        }
    }

    /// Everything of the network written out, so that nothing is taken from the sections that all share.
    pub(super) fn all(zone: &ZoneConfig) -> Self {
        let ZoneConfig { guest, xdp_mode, portal, dns, ntp, garden, session, budgets } = zone;
        let Guest { name, interface, vlan, gateway, xdp_mode: _, https, anti_spoofing, sources, downstream, shadow } =
            guest.clone();
        Self {
            name,
            interface,
            vlan,
            gateway,
            xdp_mode: Some(*xdp_mode),
            https,
            anti_spoofing,
            sources,
            downstream,
            shadow,
            portal: PortalOverride::all(portal),
            session: SessionLimitsOverride::all(session),
            budgets: BudgetsOverride::all(budgets),
            dns: dns.clone(),
            ntp: NtpOverride::all(ntp),
            garden: Some(garden.clone()),
        }
    }
}
