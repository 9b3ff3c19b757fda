//! Under which names a browser may use the page.
//!
//! `Origin` tells another site's page by its name. A name of the attacker's that resolves to this machine (DNS rebinding)
//! makes that page look like ours; only knowing the names that are ours helps. Addresses can't be rebound.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{Request, Uri, header, uri::Authority};

use crate::config::{Portal, PortalUrl};

/// The names of the configured URLs, beside whatever address a connection was made to.
pub(super) struct Hosts {
    urls: Vec<Uri>,
    url_v4: Option<PortalUrl>,
    url_v6: Option<PortalUrl>,
}

impl Hosts {
    /// The names in this configuration.
    pub(super) fn new(portal: &Portal) -> Self {
        let Portal { url, url_v4, url_v6, .. } = portal;
        let urls = [url, url_v4, url_v6].into_iter().flatten().filter_map(|url| url.as_str().parse().ok());
        let (url_v4, url_v6) = (url_v4.as_ref().or(url.as_ref()), url_v6.as_ref().or(url.as_ref()));
        Self { urls: urls.collect(), url_v4: url_v4.cloned(), url_v6: url_v6.cloned() }
    }

    /// Whether the request names us: by a configured name, or by the address that its connection was made to. The port
    /// does not count: where the operator has redirected another one here, the address is still ours.
    pub(super) fn is_own<B>(&self, request: &Request<B>, local: IpAddr) -> bool {
        let Some(authority) = authority(request) else { return false };
        let host = bare(authority.host());
        // Links have their own numbers of an interface: a zone is the client's matter (RFC 6874 section 3).
        let address = host.split('%').next().and_then(|a| a.parse::<IpAddr>().ok());
        address == Some(local) || self.configured(host).is_some()
    }

    /// The scheme and the authority that the client has named us by, in which its redirects are. That of a configured name is as
    /// configured: whatever serves `https` for it stands before us.
    pub(super) fn origin<B>(&self, request: &Request<B>) -> Option<String> {
        let authority = authority(request)?;
        let configured = self.configured(bare(authority.host()));
        if let Some((scheme, authority)) = configured.and_then(|url| Some((url.scheme_str()?, url.authority()?))) {
            return Some(format!("{scheme}://{authority}"));
        }
        // Only the client knows by which of its links it reaches a link-local address (RFC 6874 section 3): there the URL's path alone
        // leads back.
        let address = bare(authority.host()).split('%').next().and_then(|a| a.parse::<Ipv6Addr>().ok());
        if address.is_some_and(|address| address.is_unicast_link_local()) {
            return None;
        }
        let without_user = authority.as_str().rsplit('@').next()?;
        Some(format!("http://{without_user}"))
    }

    /// The configured URL with this host.
    fn configured(&self, host: &str) -> Option<&Uri> {
        self.urls.iter().find(|url| url.host().is_some_and(|name| bare(name).eq_ignore_ascii_case(host)))
    }

    /// The page's URL, for whoever came by another name.
    pub(super) fn page(&self, local: SocketAddr) -> String {
        let configured = if local.is_ipv4() { &self.url_v4 } else { &self.url_v6 };
        configured.as_ref().map_or_else(|| format!("http://{local}/"), PortalUrl::to_string)
    }
}

/// Whom the request names.
fn authority<B>(request: &Request<B>) -> Option<Authority> {
    // A target with an authority overrides Host (RFC 9112 section 3.2.2).
    request.uri().authority().cloned().or_else(|| {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next().filter(|_| hosts.next().is_none())?;
        host.to_str().ok()?.parse::<Authority>().ok()
    })
}

/// The host without the brackets of an IPv6 address and a name's last dot.
fn bare(host: &str) -> &str {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_where_the_client_has_found_us() {
        let url = |text: &str| Some(text.to_owned().try_into().unwrap());
        let portal = Portal {
            url: url("https://Portal.example/"),
            url_v6: url("http://[2001:db8::1]:8080/"),
            ..Portal::default()
        };
        let hosts = Hosts::new(&portal);
        for (sentence, host, expected) in [
            ("an address with a port", "192.0.2.1:8080", Some("http://192.0.2.1:8080")),
            ("an address", "192.0.2.1", Some("http://192.0.2.1")),
            ("an address of IPv6", "[2001:db8::2]:8080", Some("http://[2001:db8::2]:8080")),
            ("a link-local address, whose link the client alone knows", "[fe80::1]:8080", None),
            (
                "the configured name, which something else serves by https",
                "portal.example",
                Some("https://Portal.example"),
            ),
            ("the configured address by another port", "[2001:db8::1]", Some("http://[2001:db8::1]:8080")),
            ("a user's name", "somebody@192.0.2.1", Some("http://192.0.2.1")),
            ("nothing", "", None),
        ] {
            let request = Request::builder().uri("/").header("host", host).body(()).unwrap();
            assert_eq!(hosts.origin(&request).as_deref(), expected, "{sentence}");
        }
    }

    #[test]
    fn only_the_connections_address_and_configured_names_are_ours() {
        let portal = Portal {
            url: Some("https://Portal.example/".to_owned().try_into().unwrap()),
            url_v6: Some("http://[2001:db8::1]:8080/".to_owned().try_into().unwrap()),
            ..Portal::default()
        };
        let hosts = Hosts::new(&portal);
        let (v4, v6) = ("192.0.2.1", "fe80::1");
        // (sentence, the connection's own address, target, Host lines, ours)
        let cases: &[(&str, &str, &str, &[&str], bool)] = &[
            ("the address", v4, "/", &["192.0.2.1:8080"], true),
            ("the address by another port", v4, "/", &["192.0.2.1"], true),
            ("another address", v4, "/", &["192.0.2.2:8080"], false),
            ("a rebinding name", v4, "/", &["evil.example:8080"], false),
            ("a name that begins like the address", v4, "/", &["192.0.2.1.evil.example"], false),
            ("a user name like ours", v4, "/", &["portal.example@evil.example"], false),
            ("the configured name", v4, "/", &["portal.example"], true),
            ("the configured name in capitals with a dot", v4, "/", &["PORTAL.EXAMPLE.:80"], true),
            ("a configured address", v4, "/", &["[2001:db8:0::1]"], false),
            ("a configured address as written", v4, "/", &["[2001:db8::1]:8080"], true),
            ("a link-local address", v6, "/", &["[fe80::1]:8080"], true),
            ("no Host", v4, "/", &[], false),
            ("two", v4, "/", &["192.0.2.1", "192.0.2.1"], false),
            ("nothing", v4, "/", &[""], false),
            ("a target that names us", v4, "http://192.0.2.1:8080/", &["evil.example"], true),
            ("a target that does not", v4, "http://evil.example/", &["192.0.2.1"], false),
        ];
        for (sentence, local, target, lines, ours) in cases {
            let mut request = Request::builder().uri(*target);
            for line in *lines {
                request = request.header("host", *line);
            }
            assert_eq!(hosts.is_own(&request.body(()).unwrap(), local.parse().unwrap()), *ours, "{sentence}");
        }
        assert_eq!(hosts.page("192.0.2.1:8080".parse().unwrap()), "https://Portal.example/");
        assert_eq!(hosts.page("[2001:db8::9]:8080".parse().unwrap()), "http://[2001:db8::1]:8080/");
        assert_eq!(Hosts::new(&Portal::default()).page("192.0.2.1:80".parse().unwrap()), "http://192.0.2.1:80/");
    }
}
