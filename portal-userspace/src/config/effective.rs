//! A guest network's configuration with every default filled in from its interface.

use std::net::{IpAddr, SocketAddr};

use super::{Config, DEFAULT_PORT, Dns, Guest, Portal, PortalUrl, ZoneConfig, ZoneSection};
use crate::net::Interface;

/// The login page's URL for one family.
pub type Url = PortalUrl;

/// A guest network's configuration with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The configuration; `portal` and `dns` are filled in.
    pub zone: ZoneConfig,
    /// Where the login page listens, as bound: may hold an unspecified address.
    pub listen: Vec<SocketAddr>,
    /// Where guests reach the login page: `listen` with unspecified addresses replaced by the interface's own.
    pub services: Vec<SocketAddr>,
    /// What clients that asked over IPv4 are sent to.
    pub url_v4: Url,
    /// What clients that asked over IPv6 are sent to.
    pub url_v6: Url,
    /// The resolvers that strangers may ask.
    pub resolvers: Vec<IpAddr>,
}

/// Why the configuration does not fit the interface.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is nothing to listen on.
    #[error(
        "interface {interface} has no IPv4 and no global or unique-local IPv6 address, so the login page has nowhere to \
         listen; give it one (ip address add ADDRESS/PREFIX dev {interface}), or set `portal.listen`"
    )]
    NoAddress {
        /// The interface.
        interface: String,
    },
    /// `portal.listen = []`.
    #[error("`portal.listen` is empty: nobody could log in; name an address, or remove the key for the default")]
    NoListener,
    /// A listener without a fixed port.
    #[error("`portal.listen` has {0}: guests are sent to a fixed port, so write one, such as 8080")]
    NoPort(SocketAddr),
    /// Nothing tells where guests should be sent.
    #[error(
        "no URL for the login page follows from `portal.listen`: it has no address that guests can reach; set `portal.url`"
    )]
    NoUrl,
}

impl ZoneConfig {
    /// Fills in the defaults that depend on the interface with the gateway's addresses.
    pub fn resolve(&self, interface: &Interface) -> Result<Effective, ResolveError> {
        let own: Vec<IpAddr> = interface.addresses().collect();
        let listen = match &self.portal.listen {
            Some(listen) if listen.is_empty() => return Err(ResolveError::NoListener),
            Some(listen) => listen.clone(),
            None if own.is_empty() => return Err(ResolveError::NoAddress { interface: interface.name.clone() }),
            None => own.iter().map(|address| SocketAddr::new(*address, DEFAULT_PORT)).collect(),
        };
        if let Some(listener) = listen.iter().find(|l| l.port() == 0) {
            return Err(ResolveError::NoPort(*listener));
        }
        let services = reachable(&listen, &own);
        let url = |family: &dyn Fn(&SocketAddr) -> bool| {
            // A link-local address needs its interface's number on the client, which no URL can name (browsers never took up RFC 6874).
            let usable = |s: &&SocketAddr| !matches!(s.ip(), IpAddr::V6(a) if a.is_unicast_link_local());
            services.iter().filter(usable).find(|s| family(s)).map(|address| {
                PortalUrl::try_from(format!("http://{address}/")).expect("an address and a port make a valid URL")
            })
        };
        let Portal { url: both, url_v4, url_v6, .. } = &self.portal;
        let v4 = url_v4.clone().or_else(|| both.clone()).or_else(|| url(&SocketAddr::is_ipv4));
        let v6 = url_v6.clone().or_else(|| both.clone()).or_else(|| url(&SocketAddr::is_ipv6));
        // A family that the page has no address of: the client may well have the other family too.
        let url_v4 = v4.clone().or_else(|| v6.clone()).ok_or(ResolveError::NoUrl)?;
        let url_v6 = v6.or(v4).ok_or(ResolveError::NoUrl)?;
        let resolvers = self.dns.resolvers.clone().unwrap_or_else(|| {
            // Router advertisements often name the router's link-local address as the resolver (RFC 8106 section 5.1).
            own.iter().copied().chain(interface.v6_link_local.iter().copied().map(IpAddr::V6)).collect()
        });
        let mut zone = self.clone();
        zone.portal.listen = Some(listen.clone());
        zone.portal.url = None;
        zone.portal.url_v4 = Some(url_v4.clone());
        zone.portal.url_v6 = Some(url_v6.clone());
        zone.dns = Dns { resolvers: Some(resolvers.clone()) };
        Ok(Effective { zone, listen, services, url_v4, url_v6, resolvers })
    }
}

impl Config {
    /// The configuration that means the same as this, with the guest networks as they are here, in the same order, and every default written.
    #[must_use]
    pub fn filled(&self, networks: &[Effective]) -> Self {
        let Some((first, further)) = networks.split_first() else { return self.clone() };
        let ZoneConfig { guest, xdp_mode, portal, dns, ntp, garden, session, budgets } = first.zone.clone();
        Self {
            guest: Guest { xdp_mode: Some(xdp_mode), ..guest },
            portal,
            dns,
            ntp,
            garden,
            session,
            budgets,
            zone: further.iter().map(|network| ZoneSection::all(&network.zone)).collect(),
            ..self.clone()
        }
    }

    /// The configuration as it would be written.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every value of a configuration has a form in TOML")
    }
}

/// The addresses at which guests reach these listeners.
fn reachable(listen: &[SocketAddr], own: &[IpAddr]) -> Vec<SocketAddr> {
    let mut services = Vec::new();
    for listener in listen {
        if listener.ip().is_unspecified() {
            // `[::]` is bound for IPv6 alone (`web::bind`), so each family speaks for itself.
            let family = own.iter().filter(|a| a.is_ipv4() == listener.is_ipv4());
            services.extend(family.map(|address| SocketAddr::new(*address, listener.port())));
        } else {
            services.push(*listener);
        }
    }
    services.sort_unstable_by_key(|s| !s.is_ipv4());
    services.dedup();
    services
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn interface(v4: &[&str], v6: &[&str]) -> Interface {
        Interface {
            name: "eth1".into(),
            v4: v4.iter().map(|a| a.parse().unwrap()).collect(),
            v6: v6.iter().map(|a| a.parse().unwrap()).collect(),
            v6_link_local: vec!["fe80::1".parse().unwrap()],
            ..Interface::default()
        }
    }

    fn parse(rest: &str) -> Config {
        Config::parse(&format!("[guest]\ninterface = \"eth1\"\n{rest}"), Path::new("test")).unwrap()
    }

    fn config(rest: &str) -> ZoneConfig {
        parse(rest).zones().remove(0)
    }

    #[test]
    fn defaults_follow_the_interface() {
        let e = config("").resolve(&interface(&["192.0.2.1"], &["2001:db8::1", "fd00::1"])).unwrap();
        assert_eq!(e.services, ["192.0.2.1:8080", "[2001:db8::1]:8080", "[fd00::1]:8080"].map(|a| a.parse().unwrap()));
        assert_eq!(e.listen, e.services);
        assert_eq!(e.url_v4.as_str(), "http://192.0.2.1:8080/");
        assert_eq!(e.url_v6.as_str(), "http://[2001:db8::1]:8080/");
        assert_eq!(
            e.resolvers,
            ["192.0.2.1", "2001:db8::1", "fd00::1", "fe80::1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn an_unspecified_listener_is_reached_at_the_own_addresses_of_its_family() {
        let e = config("[portal]\nlisten = [\"0.0.0.0:80\", \"[2001:db8::9]:81\"]\n")
            .resolve(&interface(&["192.0.2.1"], &["2001:db8::1"]))
            .unwrap();
        assert_eq!(e.listen[0], "0.0.0.0:80".parse().unwrap());
        assert_eq!(e.services, ["192.0.2.1:80", "[2001:db8::9]:81"].map(|a| a.parse().unwrap()));
        assert_eq!(e.url_v4.as_str(), "http://192.0.2.1:80/");
    }

    #[test]
    fn a_url_of_a_family_wins_over_the_common_one_and_a_missing_family_takes_the_other() {
        let e = config("[portal]\nurl = \"https://portal.example/\"\nurl_v4 = \"http://v4.example/\"\n")
            .resolve(&interface(&["192.0.2.1"], &[]))
            .unwrap();
        assert_eq!((e.url_v4.as_str(), e.url_v6.as_str()), ("http://v4.example/", "https://portal.example/"));
        let e = config("").resolve(&interface(&["192.0.2.1"], &[])).unwrap();
        assert_eq!(e.url_v6.as_str(), "http://192.0.2.1:8080/");
    }

    #[test]
    fn what_check_prints_is_a_configuration_that_means_the_same() {
        let there = interface(&["192.0.2.1"], &["2001:db8::1"]);
        let other = interface(&["198.51.100.1"], &[]);
        let rest = "xdp_mode = \"generic\"\n[control]\ngroup = \"portal\"\n[portal]\nurl = \"https://portal.example/\"\nsession = \"1h\"\n\
                    [session]\nquota = \"2GB\"\n[budgets]\nlink = \"off\"\n[ntp]\nservers = [\"192.0.2.123\"]\n\
                    [[probes]]\nhost = \"*.Example.net\"\nanswer = 511\n[[garden]]\nto = \"*.pay.example\"\n\
                    [[zone]]\nname = \"staff\"\ninterface = \"eth1\"\nvlan = \"100.10\"\nhttps = \"alert\"\n\
                    [zone.session]\nquota = \"none\"\n[zone.ntp]\nservers = []\n\
                    [[zone]]\nname = \"lobby\"\ninterface = \"eth2\"\nshadow = true\ngarden = []\n";
        let resolve = |config: &Config| {
            let zones = config.zones();
            zones.iter().zip([&there, &other, &other]).map(|(z, i)| z.resolve(i).unwrap()).collect::<Vec<_>>()
        };
        let config = parse(rest);
        let networks = resolve(&config);
        let printed = config.filled(&networks);
        let again = Config::parse(&printed.to_toml(), Path::new("printed")).unwrap();
        assert_eq!(again, printed);
        let once_more = resolve(&again);
        // What was taken from another network on the same interface is written out.
        let modes = |networks: &[Effective]| networks.iter().map(|n| n.zone.xdp_mode).collect::<Vec<_>>();
        assert_eq!(modes(&once_more), modes(&networks));
        assert_eq!(again.filled(&once_more), printed);
    }

    #[test]
    fn without_an_address_the_error_says_what_to_do() {
        let cases = [
            ("", "ip address add"),
            ("[portal]\nlisten = []\n", "portal.listen"),
            ("[portal]\nlisten = [\"[::]:80\"]\n", "portal.url"),
            ("[portal]\nlisten = [\"[fe80::1%3]:80\"]\n", "portal.url"),
            ("[portal]\nlisten = [\"192.0.2.1:0\"]\n", "fixed port"),
        ];
        for (rest, part) in cases {
            let message = config(rest).resolve(&interface(&[], &[])).unwrap_err().to_string();
            assert!(message.contains(part), "{rest}: {message}");
        }
    }
}
