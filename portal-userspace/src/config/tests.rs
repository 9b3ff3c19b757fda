use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("portal.toml"))
}

#[test]
fn the_interface_is_all_that_must_be_written() {
    let config = parse("[guest]\ninterface = \"eth1\"\n").unwrap();
    assert_eq!(config.guest.interface.as_str(), "eth1");
    assert_eq!(config.portal.session.get(), Duration::from_hours(8));
    assert_eq!(config.limits.clients.get(), 65_536);
    assert_eq!(config.paths.socket.as_path(), Path::new("/run/portal/portald.sock"));
}

#[test]
fn the_reference_means_the_same_as_an_empty_configuration() {
    let reference = parse(REFERENCE).unwrap();
    assert_eq!(reference, parse("[guest]\ninterface = \"eth1\"\n").unwrap());
    // With its commented keys switched on it is valid too, and then every key there is has been described.
    let full: String = REFERENCE
        .lines()
        .map(|line| line.strip_prefix("#: ").map_or_else(|| format!("{line}\n"), |key| format!("{key}\n")))
        .collect();
    let full = parse(&full).unwrap();
    let written = toml::Table::try_from(&full).unwrap();
    let Config { guest, portal, session: _, budgets: _, dns, ntp: _, garden, limits: _, paths: _, control, probes, zone } =
        full;
    assert!(portal.listen.is_some() && portal.url.is_some() && portal.url_v4.is_some() && portal.url_v6.is_some());
    assert!(dns.resolvers.is_some() && control.group.is_some() && !probes.is_empty() && !garden.is_empty());
    assert!(
        guest.xdp_mode == Some(XdpMode::Native) && guest.vlan.is_some() && guest.gateway.is_some() && !zone.is_empty()
    );
    for (section, keys) in &written {
        assert!(REFERENCE.contains(&format!("[{section}]")), "no section [{section}]");
        for key in keys.as_table().into_iter().flat_map(toml::Table::keys) {
            assert!(REFERENCE.lines().any(|l| l.trim_start_matches("#: ").starts_with(&format!("{key} = "))), "{key}");
        }
    }
}

/// (sentence, configuration, line, what the message must contain)
const BAD: &[(&str, &str, usize, &[&str])] = &[
    ("no interface", "[portal]\ntitle = \"x\"\n", 0, &["guest", "missing", "interface = \""]),
    ("an empty guest section", "\n[guest]\n", 2, &["guest.interface", "missing"]),
    ("a misspelt key", "[guest]\ninterfce = \"eth1\"\n", 2, &["guest.interfce", "did you mean `interface`"]),
    ("a misspelt section", "[guest]\ninterface = \"eth1\"\n[limit]\n", 3, &["limit", "did you mean `limits`"]),
    ("a key of nothing", "[guest]\ninterface = \"eth1\"\nqqqqqqqqqq = 1\n", 3, &["unknown", "interface", "xdp_mode"]),
    ("not TOML", "[guest\n", 1, &["line 1"]),
    (
        "an interface name that is too long",
        "[guest]\ninterface = \"abcdefghijklmnop\"\n",
        2,
        &["guest.interface", "15"],
    ),
    ("an interface name with a slash", "[guest]\ninterface = \"a/b\"\n", 2, &["guest.interface", "/"]),
    ("another type", "[guest]\ninterface = 5\n", 2, &["guest.interface", "expected a string"]),
    (
        "no such mode",
        "[guest]\ninterface = \"eth1\"\nxdp_mode = \"nativ\"\n",
        3,
        &["guest.xdp_mode", "nativ", "did you mean `native`"],
    ),
    (
        "an address without a port",
        "[guest]\ninterface = \"eth1\"\n[portal]\nlisten = [\"192.0.2.1\"]\n",
        4,
        &["portal.listen", "socket address"],
    ),
    ("a relative URL", "[guest]\ninterface = \"eth1\"\n[portal]\nurl = \"/login\"\n", 4, &["portal.url", "http://"]),
    (
        "a URL that would break out of the page",
        "[guest]\ninterface = \"eth1\"\n[portal]\nurl_v4 = 'http://a/\"><script>'\n",
        4,
        &["portal.url_v4"],
    ),
    (
        "a session of no length",
        "[guest]\ninterface = \"eth1\"\n[portal]\nsession = \"0s\"\n",
        4,
        &["portal.session", "1s"],
    ),
    (
        "a session that is not a duration",
        "[guest]\ninterface = \"eth1\"\n[portal]\nsession = \"eight hours\"\n",
        4,
        &["portal.session", "8h"],
    ),
    ("no clients", "[guest]\ninterface = \"eth1\"\n[limits]\nclients = 0\n", 4, &["limits.clients", "16777216"]),
    ("negative clients", "[guest]\ninterface = \"eth1\"\n[limits]\nclients = -1\n", 4, &["limits.clients"]),
    (
        "a relative path",
        "[guest]\ninterface = \"eth1\"\n[paths]\nsocket = \"portald.sock\"\n",
        4,
        &["paths.socket", "absolute"],
    ),
    (
        "a resolver by name",
        "[guest]\ninterface = \"eth1\"\n[dns]\nresolvers = [\"dns.example\"]\n",
        4,
        &["dns.resolvers", "IP address"],
    ),
    (
        "a probe with an answer that is none",
        "[guest]\ninterface = \"eth1\"\n[[probes]]\nhost = \"a.example\"\nanswer = 404\n",
        5,
        &["probes", "404", "200, 302 or 511"],
    ),
    (
        "a probe that would match everything",
        "[guest]\ninterface = \"eth1\"\n[[probes]]\nanswer = 302\n",
        3,
        &["probes", "host", "path"],
    ),
    (
        "a probe whose path has no slash",
        "[guest]\ninterface = \"eth1\"\n[[probes]]\npath = \"x\"\nanswer = 302\n",
        4,
        &["probes.path", "`x`", "`/exact/path`"],
    ),
    (
        "a probe with a misspelt key",
        "[guest]\ninterface = \"eth1\"\n[[probes]]\nhots = \"a.example\"\nanswer = 302\n",
        4,
        &["hots", "did you mean `host`"],
    ),
    (
        "a VLAN that cannot be",
        "[guest]\ninterface = \"eth1\"\nvlan = 4095\n",
        3,
        &["guest.vlan", "4095", "from 1 to 4094"],
    ),
    (
        "a policy that is none",
        "[guest]\ninterface = \"eth1\"\nhttps = \"alrt\"\n",
        3,
        &["guest.https", "did you mean `alert`"],
    ),
    ("a strictness that is none", "[guest]\ninterface = \"eth1\"\nanti_spoofing = true\n", 3, &["guest.anti_spoofing"]),
    (
        "a rate without a unit",
        "[guest]\ninterface = \"eth1\"\n[session]\nrate_up = \"10\"\n",
        4,
        &["session.rate_up", "10mbit"],
    ),
    (
        "a budget that is none",
        "[guest]\ninterface = \"eth1\"\n[budgets]\nlink = \"a lot\"\n",
        4,
        &["budgets.link", "20/s burst 100"],
    ),
    (
        "a zone without a name",
        "[guest]\ninterface = \"eth1\"\n[[zone]]\ninterface = \"eth2\"\n",
        3,
        &["zone.name", "missing"],
    ),
    (
        "a zone without an interface",
        "[guest]\ninterface = \"eth1\"\n[[zone]]\nname = \"a\"\n",
        3,
        &["zone.interface", "missing", "interface = \"eth1\""],
    ),
    (
        "a zone's name with a slash",
        "[guest]\ninterface = \"eth1\"\n[[zone]]\nname = \"a/b\"\ninterface = \"eth2\"\n",
        4,
        &["zone.name", "letters"],
    ),
    (
        "a misspelt key of a zone's section",
        "[guest]\ninterface = \"eth1\"\n[[zone]]\nname = \"a\"\ninterface = \"eth2\"\n[zone.session]\nqouta = \"1GB\"\n",
        7,
        &["zone.session.qouta", "did you mean `quota`"],
    ),
    (
        "two networks of one name",
        "[guest]\ninterface = \"eth1\"\n[[zone]]\ninterface = \"eth2\"\nname = \"guest\"\n",
        5,
        &["zone.name", "`guest`"],
    ),
    (
        "two networks at one place",
        "[guest]\ninterface = \"eth1\"\n[[zone]]\nname = \"a\"\ninterface = \"eth1\"\n",
        5,
        &["zone.interface", "`guest`", "without a VLAN tag on eth1"],
    ),
    (
        "two networks in one VLAN",
        "[guest]\ninterface = \"eth1\"\nvlan = 7\n[[zone]]\nname = \"a\"\nvlan = \"7\"\ninterface = \"eth1\"\n",
        7,
        &["zone.interface", "in VLAN 7 on eth1"],
    ),
    (
        "two modes on one interface",
        "[guest]\ninterface = \"eth1\"\nxdp_mode = \"native\"\n\
         [[zone]]\nname = \"a\"\ninterface = \"eth1\"\nvlan = 5\nxdp_mode = \"generic\"\n",
        8,
        &["zone.xdp_mode", "`guest` says native"],
    ),
    (
        "a garden that opens everything",
        "[guest]\ninterface = \"eth1\"\n[[garden]]\nto = \"0.0.0.0/0\"\n",
        4,
        &["garden.to", "would open the network"],
    ),
    ("a group that cannot be", "[guest]\ninterface = \"eth1\"\n[control]\ngroup = \"\"\n", 4, &["control.group"]),
];

#[test]
fn a_bad_configuration_is_refused_with_key_line_and_cause() {
    for (sentence, text, line, parts) in BAD {
        let message = parse(text).expect_err(sentence).to_string();
        assert!(message.starts_with("portal.toml"), "{sentence}: {message}");
        if *line > 0 {
            assert!(message.contains(&format!("line {line}:")), "{sentence}: {message}");
        }
        for part in *parts {
            assert!(message.contains(part), "{sentence}: no «{part}» in: {message}");
        }
    }
}

#[test]
fn an_unreadable_file_is_named_with_a_remedy() {
    let message = Config::load(Path::new("/nonexistent/portal.toml")).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/portal.toml") && message.contains("--config"), "{message}");
}

#[test]
fn there_are_as_many_networks_and_interfaces_as_fit() {
    let zones = |count: usize, interfaces: usize| {
        let zone =
            |n: usize| format!("[[zone]]\nname = \"z{n}\"\ninterface = \"eth{}\"\nvlan = {}\n", n % interfaces, n + 1);
        let text: String = (0..count).map(zone).collect();
        parse(&format!("[guest]\ninterface = \"eth0\"\n{text}"))
    };
    assert_eq!(zones(63, 16).unwrap().zones().len(), 64);
    let message = zones(64, 16).unwrap_err().to_string();
    assert!(
        message.contains("zone.name") && message.contains("at most 64") && message.contains("line 256"),
        "{message}"
    );
    let message = zones(17, 17).unwrap_err().to_string();
    assert!(message.contains("zone.interface") && message.contains("at most 16"), "{message}");
}

#[test]
fn a_zone_is_as_the_common_sections_say_unless_it_says_otherwise() {
    let config = parse(
        "[guest]\ninterface = \"eth1\"\nhttps = \"alert\"\n\
         [portal]\nurl_v4 = \"http://all.example/\"\ntitle = \"All\"\n\
         [session]\nquota = \"2GB\"\nrate_up = \"1mbit\"\n[budgets]\nlink = \"off\"\n[dns]\nresolvers = [\"192.0.2.53\"]\n\
         [[zone]]\nname = \"same\"\ninterface = \"eth2\"\n\
         [[zone]]\nname = \"other\"\ninterface = \"eth1\"\nvlan = 5\nxdp_mode = \"generic\"\n\
         [zone.portal]\nurl = \"http://own.example/\"\n[zone.session]\nquota = \"none\"\n[zone.budgets]\nlink = \"5/s burst 9\"\n\
         [zone.dns]\nresolvers = []\n[[zone.garden]]\nto = \"a.example\"\n[[zone.garden]]\nto = \"192.0.2.0/24\"\n\
         [[garden]]\nto = \"pay.example\"\n",
    )
    .unwrap();
    let [guest, same, other] = <[ZoneConfig; 3]>::try_from(config.zones()).unwrap();
    assert_eq!(
        (&same.portal, &same.session, &same.budgets, &same.dns),
        (&guest.portal, &guest.session, &guest.budgets, &guest.dns)
    );
    assert_eq!(
        (guest.guest.https, same.guest.https),
        (Https::Alert, Https::Reset),
        "of [guest] itself nothing is taken over"
    );
    assert_eq!([guest.xdp_mode, same.xdp_mode, other.xdp_mode], [XdpMode::Generic, XdpMode::Native, XdpMode::Generic]);
    assert_eq!((other.portal.url_v4, other.portal.title.as_str()), (None, "All"));
    assert_eq!((other.session.quota, other.session.rate_up), (OrNone::NONE, guest.session.rate_up));
    assert_eq!((other.budgets.link.to_string().as_str(), other.dns.resolvers), ("5/s burst 9", Some(vec![])));
    assert_eq!(other.budgets.replies, guest.budgets.replies);
    assert_eq!((same.garden.len(), other.garden.len()), (1, 2), "a garden of its own is in place of the common one");
}
