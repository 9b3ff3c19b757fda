//! A guest network that is guarded: its sessions, and its login page.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use portal_common::tables::Zone;
use tokio::{sync::watch, task::JoinHandle};

use super::setup::{BoundZone, ZoneSetup};
use crate::{
    config::Limits,
    datapath::connections::Connections,
    net::{KernelNeighbours, Mac, Neighbours},
    session::{SessionService, SessionStore},
    web::{self, LoginPage, Stations},
};

/// A guest network that is guarded.
pub struct RunningZone {
    /// Its number in the kernel's tables.
    pub number: Zone,
    /// Its sessions.
    pub sessions: Arc<SessionService>,
    /// Who has which address there.
    pub neighbours: Arc<dyn Neighbours>,
    /// Where its login page listens.
    pub listeners: Vec<SocketAddr>,
    pub(super) setup: ZoneSetup,
    page: Page,
}

/// The login page's task.
struct Page {
    stop: watch::Sender<bool>,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// The stations of one network, as the gate has noted them.
struct Noted {
    connections: Arc<Connections>,
    zone: Zone,
    /// The interface that has the network's addresses.
    interface_index: u32,
}

impl Stations for Noted {
    fn station(&self, peer: SocketAddr) -> Result<Option<Mac>> {
        self.connections.station(self.zone, self.interface_index, peer)
    }
}

impl RunningZone {
    /// Serves the login page from now on.
    pub(super) fn start(
        bound: BoundZone,
        number: Zone,
        store: &Arc<SessionStore>,
        connections: &Arc<Connections>,
        limits: Limits,
    ) -> Result<Self> {
        let BoundZone { setup, listeners } = bound;
        let addresses = web::local_addresses(&listeners).context("cannot tell where the login page listens")?;
        let config = &setup.effective.zone;
        let sessions = Arc::new(SessionService::new(Arc::clone(store), number, config));
        let interface_index = setup.network.neighbour_index();
        let neighbours: Arc<dyn Neighbours> = Arc::new(KernelNeighbours { interface_index });
        let stations = Noted { connections: Arc::clone(connections), zone: number, interface_index };
        let (stop, stopped) = watch::channel(false);
        let page = LoginPage::new(config, limits, Arc::clone(&sessions), Arc::new(stations));
        let task = std::sync::Mutex::new(Some(tokio::spawn(page.serve(listeners, stopped))));
        Ok(Self { number, sessions, neighbours, listeners: addresses, setup, page: Page { stop, task } })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.setup.name()
    }

    /// Its configuration, with every default filled in.
    pub fn config(&self) -> &crate::config::Effective {
        &self.setup.effective
    }

    /// As it was when the gate was told of it.
    pub(in crate::daemon) fn setup(&self) -> &ZoneSetup {
        &self.setup
    }

    /// Ends the login page; what is being answered is answered.
    pub(super) async fn stop(&self) {
        let _: Result<(), _> = self.page.stop.send(true);
        let task = self.page.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(task) = task {
            // How it ended was its own matter.
            let _: Result<(), _> = task.await;
        }
    }

    /// Whether the login page has ended by itself.
    pub(super) fn page_ended(&self) -> bool {
        let task = self.page.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        task.as_ref().is_some_and(JoinHandle::is_finished)
    }
}
