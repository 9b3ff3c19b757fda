//! The daemon's life: set up everything that can fail, guard the interface, serve, and stop.
//!
//! Whatever can be refused is refused before the gate is attached, and the gate is attached last: by then it is configured and its responder
//! listens. When the daemon ends, by whatever cause, the gate stays: strangers stay out and guests stay in.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use portal_common::{cookie, tables::Zone};
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use super::{preflight, privilege, signals::Signals, watch::Watch};
use crate::{
    clock,
    config::{Config, Effective},
    control::{Access, Control, ControlSocket, api::GateInfo},
    datapath::{
        gate::{Gate, Policy as GatePolicy},
        pins::{PinDirectory, Pins},
        secrets::Secrets,
    },
    net::{Interface, KernelNeighbours, Neighbours},
    responder::{
        Policies, Policy as ResponderPolicy, Queues, Responder, Shared, SharedKeys, SharedPolicies, SocketOptions,
        answers::Answers, answers::Status, probes::Probes, reassembly::Limits,
    },
    session::{self, SessionService},
    web::{self, LoginPage},
};

/// How often it is looked whether a responder thread has died.
const RESPONDER_CHECK: Duration = Duration::from_secs(5);
/// How far from a slot's edges its successor's secret is renewed: the clock that picks the slot is coarse.
const CLEAR_OF_SLOT: Duration = Duration::from_secs(1);
/// How long requests in progress may take at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// Everything that follows from the configuration and the interface, checked.
pub(super) struct Setup {
    /// The configuration as written.
    config: Config,
    effective: Effective,
    interface: Interface,
    responder: ResponderPolicy,
    limits: Limits,
}

impl Setup {
    pub(super) fn new(config: Config, interface: Interface) -> Result<Self> {
        let effective = config.resolve(&interface)?;
        let responder = ResponderPolicy {
            answers: Answers::new(effective.url_v4.as_str(), effective.url_v6.as_str())?,
            probes: Probes::new(effective.config.probes.iter().cloned()),
        };
        let memory = effective.config.limits.responder_memory_kib.get() as usize * 1024;
        let limits = Limits::per_worker(memory, interface.rx_queues)?;
        Ok(Self { config, effective, interface, responder, limits })
    }

    pub(super) fn effective(&self) -> &Effective {
        &self.effective
    }

    /// Refuses what `run` would refuse, without touching anything.
    pub(super) fn check(&self) -> Result<()> {
        let Self { effective: Effective { config, .. }, .. } = self;
        self.check_interface()?;
        ControlSocket::group(config.control.group.as_ref())?;
        let lacking = privilege::lacking()?;
        if !lacking.is_empty() {
            warn!(
                "without {} it is not checked what an earlier portald or others have left on the interface",
                lacking.join(", ")
            );
            return Ok(());
        }
        let survey = PinDirectory::below(config.paths.pins.as_path())?.survey(config.limits.clients.get())?;
        preflight::leftovers(&self.interface, config.guest.xdp_mode, &survey)
    }

    fn check_interface(&self) -> Result<()> {
        let mode = self.effective.config.guest.xdp_mode;
        let destinations = self.gate_policy().destinations().len();
        preflight::interface(&self.interface, mode, destinations, rustix::param::page_size())
    }

    fn gate_policy(&self) -> GatePolicy {
        GatePolicy {
            gateway_mac: self.interface.gateway_mac(),
            gateway: self.interface.every_address().collect(),
            resolvers: self.effective.resolvers.clone(),
            listeners: self.effective.services.clone(),
        }
    }

    /// Guards the interface until the daemon is told to stop.
    pub(super) async fn run(self) -> Result<()> {
        let started = Instant::now();
        let mut signals = Signals::catch()?;

        // First whatever can be refused. Nothing of it touches a gate that an earlier portald has left.
        self.check_interface()?;
        let policy = self.gate_policy();
        let Self { config: written, effective, interface, responder: responder_policy, limits } = self;
        let config = &effective.config;
        let (clients, mode) = (config.limits.clients.get(), config.guest.xdp_mode);
        let pins = Pins::lock(config.paths.pins.as_path())?;
        let survey = pins.directory().survey(clients)?;
        preflight::leftovers(&interface, mode, &survey)?;
        let group = ControlSocket::group(config.control.group.as_ref())?;
        let socket = ControlSocket::bind(config.paths.socket.as_path(), group.as_ref())?;
        let listeners = web::bind(&effective.listen).await?;
        if !interface.up {
            warn!(
                interface = interface.name,
                "the interface is down; bring it up with `ip link set {} up`", interface.name
            );
        }

        // Then what only the kernel can refuse: the program and the sockets.
        pins.clear(&survey)?;
        let fresh = pins.fresh_maps();
        let (mut gate, maps) = Gate::load(&pins, clients)?;
        let keys: SharedKeys = Arc::new(RwLock::new(maps.secrets.keys()));
        let queues = Queues { ifindex: interface.index, count: interface.rx_queues, xsk_base: 0 };
        let shared = Shared {
            sockets: Arc::new(Mutex::new(maps.sockets)),
            policies: SharedPolicies::new(Policies::untagged(responder_policy)),
            keys: Arc::clone(&keys),
        };
        let responder = Responder::spawn(queues, &shared, limits, SocketOptions::default())
            .with_context(|| format!("cannot answer requests on {}", interface.name))?;
        let responder = Arc::new(responder);

        // Last what changes what happens to packets.
        gate.fill(&policy)?;
        gate.attach(&pins, interface.index, &interface.name, mode)?;
        fresh.keep();
        match gate.take_log() {
            // Beside the tasks: its end is no reason for the daemon's.
            Ok(log) => drop(tokio::spawn(log)),
            Err(e) => warn!(error = format!("{e:#}"), "what the gate has to say will not be in this log"),
        }

        let (stop, stopped) = watch::channel(false);
        let sessions = Arc::new(SessionService::new(maps.sessions, Zone::FIRST, config.portal.session));
        let neighbours: Arc<dyn Neighbours> =
            Arc::new(KernelNeighbours { interface_index: interface.neighbour_index() });
        let program_id = gate.program_id()?;
        let info = GateInfo {
            interface: interface.name.clone(),
            interface_index: interface.index,
            xdp_mode: mode.to_string(),
            queues: interface.rx_queues,
            program_id,
            url_v4: effective.url_v4.to_string(),
            url_v6: effective.url_v6.to_string(),
            listeners: web::local_addresses(&listeners).context("cannot tell where the login page listens")?,
        };
        info!(
            interface = info.interface, mode = info.xdp_mode, queues = info.queues, program = info.program_id,
            login = info.url_v4, login_v6 = info.url_v6, socket = %socket.path().display(), "the gate is closed"
        );
        let counting = Arc::clone(&responder);
        let control = Control {
            gate: info,
            sessions: Arc::clone(&sessions),
            counters: Arc::new(maps.counters),
            responder: Arc::new(move || responder_counters(&counting)),
            neighbours: Arc::clone(&neighbours),
            access: Access::new(group),
            started,
            zones: super::unwired::zones(),
            explainer: super::unwired::explainer(),
            events: crate::observe::hub::EventHub::default(),
            captures: super::unwired::captures(),
            lost: Arc::new(|| Ok(crate::control::api::Lost::default())),
        };

        let mut tasks = JoinSet::new();
        tasks.spawn(control.serve(socket, stopped.clone()));
        tasks.spawn(LoginPage::new(config, Arc::clone(&sessions), neighbours).serve(listeners, stopped.clone()));
        tasks.spawn(session::sweep_regularly(sessions, stopped.clone()));
        tasks.spawn(renew_secrets(maps.secrets, keys, stopped));
        let watch = Watch { config: written, interface, program_id, effective };

        let cause = tokio::select! {
            cause = until_told_to_stop(&mut signals, &mut tasks, &responder) => cause,
            lost = watch.until_lost() => Err(lost),
        };
        let _: Result<(), _> = stop.send(true);
        if tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            info!("requests in progress were cut off");
        }
        if cause.is_ok() {
            info!("portald ends; the gate stays: guests stay in, strangers stay out");
        }
        cause
    }
}

/// Waits for a signal; an error if a part of the daemon ended by itself.
async fn until_told_to_stop(signals: &mut Signals, tasks: &mut JoinSet<()>, responder: &Responder) -> Result<()> {
    let mut check = tokio::time::interval(RESPONDER_CHECK);
    loop {
        tokio::select! {
            name = signals.next() => {
                info!(signal = name, "told to end");
                return Ok(());
            }
            ended = tasks.join_next() => match ended {
                Some(Err(e)) => return Err(e).context("a part of portald failed"),
                Some(Ok(())) | None => bail!("a part of portald ended by itself"),
            },
            _ = check.tick() => if let Some(queue) = responder.failed() {
                bail!("the responder of receive queue {queue} failed; the log says why");
            },
        }
    }
}

/// Renews the secret of the next cookie slot once in every slot.
async fn renew_secrets(mut secrets: Secrets, shared: SharedKeys, mut stopped: watch::Receiver<bool>) {
    let now = clock::now_ns();
    // A start at the very end of a slot: by the time the new secret is stored its slot may have begun, and cookies with it.
    let mut wait = if to_next_slot(now) < CLEAR_OF_SLOT { to_next_slot(now) + CLEAR_OF_SLOT } else { Duration::ZERO };
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let now = clock::now_ns();
        if let Err(e) = secrets.renew(now) {
            // The old secret goes on working; only its age suffers.
            warn!(error = format!("{e:#}"), "cannot renew the cookies' secret");
        }
        *shared.write().unwrap_or_else(PoisonError::into_inner) = secrets.keys();
        wait = to_next_slot(now) + CLEAR_OF_SLOT;
    }
}

fn to_next_slot(now_ns: u64) -> Duration {
    Duration::from_nanos(cookie::SLOT_NS - now_ns % cookie::SLOT_NS)
}

fn responder_counters(responder: &Responder) -> Vec<(&'static str, u64)> {
    let total = responder.total();
    let answered = Status::ALL.iter().zip(total.answered).map(|(status, count)| (status.counter_name(), count));
    answered
        .chain([
            ("closed", total.closed),
            ("acknowledged", total.acknowledged),
            ("ignored", total.ignored),
            ("orphans", total.orphans),
            ("orphans_answered", total.orphans_answered),
            ("over_budget", total.over_budget),
            ("evictions", total.evictions),
            ("abandoned", total.abandoned),
            ("tx_retries", total.tx_retries),
        ])
        .collect()
}
