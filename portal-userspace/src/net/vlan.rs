//! Finding the interface of a VLAN.

use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage};

use super::{
    Interface,
    interface::link_name,
    netlink::{NetError, ask},
};

impl Interface {
    /// The interface with the addresses and neighbours of these VLANs on this interface, the outer first: a VLAN interface on top of it, or of
    /// its bridge. Without a VLAN it is the interface itself.
    pub async fn in_vlans(&self, ids: impl IntoIterator<Item = u16>) -> Result<Self, NetError> {
        let mut found = self.clone();
        for id in ids {
            let links = ask(|h| h.link().get().execute()).await?;
            let below = [Some(found.index), found.master.as_ref().map(|m| m.index)];
            match vlan_on(&links, below, id) {
                Some(name) => found = Self::by_name(&name).await?,
                None => return Err(NetError::NoSuchVlan { interface: found.name, id }),
            }
        }
        Ok(found)
    }
}

/// The name of the interface for this VLAN on top of one of these, the first of them first.
fn vlan_on(links: &[LinkMessage], below: [Option<u32>; 2], id: u16) -> Option<String> {
    below.into_iter().flatten().find_map(|below| {
        let on =
            |link: &&LinkMessage| link.attributes.contains(&LinkAttribute::Link(below)) && vlan_id(link) == Some(id);
        links.iter().find(on).map(link_name)
    })
}

fn vlan_id(link: &LinkMessage) -> Option<u16> {
    let info = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    })?;
    if !info.contains(&LinkInfo::Kind(InfoKind::Vlan)) {
        return None;
    }
    info.iter().find_map(|i| match i {
        LinkInfo::Data(InfoData::Vlan(data)) => data.iter().find_map(|d| match d {
            InfoVlan::Id(id) => Some(*id),
            _ => None,
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, below: Option<u32>, kind: InfoKind, id: Option<u16>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link.attributes.extend(below.map(LinkAttribute::Link));
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(id.map(|id| LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]))));
        link.attributes.push(LinkAttribute::LinkInfo(info));
        link
    }

    #[test]
    fn a_vlan_is_found_on_the_interface_and_then_on_its_bridge() {
        let links = [
            link("br0.10", Some(9), InfoKind::Vlan, Some(10)),
            link("br0.20", Some(9), InfoKind::Vlan, Some(20)),
            link("eth1.10", Some(7), InfoKind::Vlan, Some(10)),
            link("eth1-macvlan", Some(7), InfoKind::MacVlan, None),
            link("veth", Some(7), InfoKind::Veth, None),
        ];
        let table = [
            ("on the interface", [Some(7), None], 10, Some("eth1.10")),
            ("on both: the interface's", [Some(7), Some(9)], 10, Some("eth1.10")),
            ("on the bridge only", [Some(7), Some(9)], 20, Some("br0.20")),
            ("on another interface", [Some(8), None], 10, None),
            ("another VLAN", [Some(7), None], 11, None),
        ];
        for (sentence, below, id, expected) in table {
            assert_eq!(vlan_on(&links, below, id).as_deref(), expected, "{sentence}");
        }
    }
}
