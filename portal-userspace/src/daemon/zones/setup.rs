//! A guest network as its configuration and the machine say, before anything is touched.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use portal_common::tables::Attachment;
use tokio::net::TcpListener;

use crate::{
    config::{Config, Effective, ZoneConfig},
    net::{Interface, local_addresses},
    responder::{Policy, answers::Answers, probes::Probes},
    web,
};

/// A guest network, checked.
#[derive(Clone)]
pub(crate) struct ZoneSetup {
    /// Its configuration, as written: what follows from the interface follows anew when that changes.
    pub(crate) written: ZoneConfig,
    /// With every default filled in.
    pub(crate) effective: Effective,
    /// The interface that its frames arrive at, where the gate is.
    pub(crate) port: Interface,
    /// The interface with the gateway's addresses and the neighbours.
    pub(crate) network: Interface,
    /// Every address of this machine as the network was set up.
    pub(crate) local: Vec<IpAddr>,
    /// What its clients' requests are answered with.
    pub(crate) answers: Arc<Policy>,
}

/// A guest network whose login page listens.
pub(crate) struct BoundZone {
    pub(crate) setup: ZoneSetup,
    pub(crate) listeners: Vec<TcpListener>,
}

impl ZoneSetup {
    /// Every network of the configuration.
    pub(crate) async fn all(config: &Config) -> Result<Vec<Self>> {
        let mut setups = Vec::new();
        for zone in config.zones() {
            setups.push(Self::new(config, zone).await?);
        }
        check_together(&setups)?;
        Ok(setups)
    }

    /// One network.
    pub(crate) async fn new(config: &Config, written: ZoneConfig) -> Result<Self> {
        let (port, network) = interfaces(&written).await?;
        let effective = written.resolve(&network).with_context(|| format!("network `{}`", written.guest.name))?;
        let answers = Policy {
            answers: Answers::new(effective.url_v4.as_str(), effective.url_v6.as_str())?,
            probes: Probes::new(config.probes.iter().cloned()),
        };
        Ok(Self { written, effective, port, network, local: local_addresses().await?, answers: Arc::new(answers) })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.written.guest.name.as_str()
    }

    /// Its VLAN ids, the outer first; 0 where there is no tag.
    pub(crate) fn vlans(&self) -> (u16, u16) {
        self.written.guest.vlan.map_or((0, 0), |vlan| (vlan.outer(), vlan.inner()))
    }

    /// Where its frames arrive.
    pub(crate) fn attachment(&self) -> Attachment {
        let (outer, inner) = self.vlans();
        Attachment::new(self.port.index, outer, inner)
    }

    /// The first listener of its login page that another network's page also has.
    pub(crate) fn shares_listener(&self, other: &Self) -> Option<SocketAddr> {
        let meets = |a: &SocketAddr, b: &SocketAddr| {
            let any = a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (any || a.ip() == b.ip())
        };
        self.effective.listen.iter().find(|a| other.effective.listen.iter().any(|b| meets(a, b))).copied()
    }

    /// Makes its login page listen. `shared`: another network's page listens at the same address, so that each hears its own network alone.
    pub(crate) async fn bind(self, shared: bool) -> Result<BoundZone> {
        let device = shared.then(|| self.network.neighbour_name());
        let listeners = web::bind(&self.effective.listen, device).await?;
        Ok(BoundZone { setup: self, listeners })
    }
}

/// The interface that the network's frames arrive at, and the one with the gateway's addresses.
pub(crate) async fn interfaces(zone: &ZoneConfig) -> Result<(Interface, Interface), crate::net::NetError> {
    let port = Interface::by_name(zone.guest.interface.as_str()).await?;
    let network = match &zone.guest.gateway {
        Some(name) => Interface::by_name(name.as_str()).await?,
        None => port.in_vlans(zone.guest.vlan.into_iter().flat_map(crate::config::Vlan::ids)).await?,
    };
    Ok((port, network))
}

/// Refuses networks that could not be told from each other.
pub(crate) fn check_together(setups: &[ZoneSetup]) -> Result<()> {
    for (i, one) in setups.iter().enumerate() {
        for other in &setups[..i] {
            ensure!(
                one.network.neighbour_index() != other.network.neighbour_index(),
                "the networks `{}` and `{}` have their gateway on one interface, {}, so that the login page cannot tell whose client asks: put the gate on \
                 that interface instead of its ports (with `xdp_mode = \"generic\"` for a bridge), or give each network an interface of its own by `gateway`",
                other.name(),
                one.name(),
                one.network.neighbour_name()
            );
        }
    }
    Ok(())
}
