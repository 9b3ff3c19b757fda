//! What only shows when the guest networks are looked at together.

use std::collections::HashMap;

use super::{Config, Guest, XdpMode, ZoneConfig};

/// How many guest networks there can be.
const MAX_ZONES: usize = portal_common::tables::MAX_ZONES as usize;
/// On how many interfaces.
const MAX_INTERFACES: usize = portal_common::tables::MAX_INTERFACES as usize;

/// What is wrong, and with which key of which network.
pub(super) struct Contradiction {
    /// Counted from 0: `[guest]`, then each `[[zone]]`.
    pub(super) zone: usize,
    pub(super) key: &'static str,
    pub(super) message: String,
}

/// The first contradiction between the guest networks.
pub(super) fn check(config: &Config) -> Result<(), Contradiction> {
    let zones = config.zones();
    let mut names = HashMap::new();
    let mut attachments = HashMap::new();
    let mut modes: HashMap<_, (&Guest, XdpMode)> = HashMap::new();
    let mut interfaces = std::collections::HashSet::new();
    for (zone, ZoneConfig { guest, .. }) in zones.iter().enumerate() {
        let refuse = |key, message| Err(Contradiction { zone, key, message });
        let Guest { name, interface, vlan, xdp_mode, .. } = guest;
        if zone == MAX_ZONES {
            return refuse(
                "name",
                format!("there can be at most {MAX_ZONES} guest networks, `[guest]` included: remove some"),
            );
        }
        if names.insert(name.as_str(), zone).is_some() {
            return refuse("name", format!("another network is called `{name}` too: give each a name of its own"));
        }
        if let Some(other) = attachments.insert((interface.as_str(), *vlan), name) {
            let place = vlan.map_or_else(|| "without a VLAN tag".to_owned(), |vlan| format!("in VLAN {vlan}"));
            return refuse(
                "interface",
                format!(
                    "`{other}` has the frames {place} on {interface} already: name another interface or another `vlan`"
                ),
            );
        }
        interfaces.insert(interface.as_str());
        if interfaces.len() > MAX_INTERFACES {
            return refuse(
                "interface",
                format!("the gate guards at most {MAX_INTERFACES} interfaces, and this is one more: use VLANs"),
            );
        }
        if let Some(mode) = *xdp_mode {
            let (other, first) = *modes.entry(interface.as_str()).or_insert((guest, mode));
            if first != mode {
                return refuse(
                    "xdp_mode",
                    format!(
                        "`{}` says {first} for {interface}: one gate serves all networks on an interface, so write it once",
                        other.name
                    ),
                );
            }
        }
    }
    Ok(())
}
