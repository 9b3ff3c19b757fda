//! Asking the real gate, over maps of its own: what `explain` says is what `gate` does, and leaves no trace.

use std::sync::{Arc, Mutex};

use aya::maps::{MapData, PerCpuArray};
use portal_common::{
    Reason,
    event::Lost,
    reason::Outcome,
    tables::{Attachment, ClientKey, GateConfig, Zone},
};

use super::{
    build::{AnyMac, FrameSpec, Protocol, Surroundings},
    capture::Captures,
    events::EventLine,
    explain::{self, Departing, ExplainProgram, Explained, Explainer, Ran},
    hub::{EventHub, Watcher},
    kernel,
};
use crate::{
    datapath::{
        counters::CounterReader,
        gate::{Gate, GateMaps},
        zones::ZonePolicy,
    },
    session::SessionStore,
};

const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The loopback interface is in every network namespace.
const LO: u32 = 1;
const VLAN: u16 = 7;

/// The programs, with a zone on the loopback interface's VLAN 7, and a resolver at 192.0.2.53.
struct Bench {
    gate: Arc<Mutex<Gate>>,
    explainer: Explainer,
    counters: CounterReader,
}

struct Program(Arc<Mutex<Gate>>);

impl ExplainProgram for Program {
    fn run(&self, frame: &[u8], ifindex: u32) -> anyhow::Result<Ran> {
        explain::run(self.0.lock().unwrap().explain()?, frame, ifindex)
    }

    fn run_out(&self, frame: &[u8], departing: Departing) -> anyhow::Result<u32> {
        explain::run_out(self.0.lock().unwrap().explain_out()?, frame, departing)
    }
}

/// What is left of the maps beside what the bench keeps.
struct Rest {
    store: Arc<SessionStore>,
    captured: kernel::CapturedClients,
    events: aya::maps::RingBuf<MapData>,
    captures: aya::maps::RingBuf<MapData>,
    lost: PerCpuArray<MapData, Lost>,
}

fn bench() -> (Bench, Rest) {
    let (gate, maps) = Gate::load_unpinned(16).expect("loading a BPF program needs root");
    let GateMaps { mut zones, sessions, owners, counters, captured, events, captures, lost, .. } = maps;
    let policy = ZonePolicy {
        zone: Zone::FIRST,
        attachment: Attachment::new(LO, VLAN, 0),
        config: GateConfig::new(GATEWAY),
        gateway: vec![[192, 0, 2, 1].into()],
        resolvers: vec![[192, 0, 2, 53].into()],
        listeners: Vec::new(),
        ntp: Vec::new(),
        sources: Vec::new(),
    };
    zones.fill(&policy).unwrap();
    let zones = Mutex::new(zones);
    let captured = kernel::CapturedClients::new(captured, move |zone, on| {
        let mut zones = zones.lock().unwrap();
        let config = zones.config(zone)?;
        zones.configure(zone, config.with_capturing(on))
    });
    let store = Arc::new(SessionStore::over(sessions, owners).unwrap());
    let gate = Arc::new(Mutex::new(gate));
    let explainer = Explainer::new(Program(Arc::clone(&gate)), Box::new(|_, _| Some(b"a response".to_vec())));
    (Bench { gate, explainer, counters }, Rest { store, captured, events, captures, lost })
}

impl Bench {
    /// Really, as if it came by the interface.
    fn send(&self, frame: &[u8]) -> Ran {
        explain::run(self.gate.lock().unwrap().program().unwrap(), frame, LO).unwrap()
    }

    fn counted(&self) -> u64 {
        self.counters.read().unwrap().iter().map(|(_, n)| n).sum()
    }
}

fn frame(change: impl FnOnce(&mut FrameSpec)) -> Vec<u8> {
    let around = Surroundings {
        gateway_mac: GATEWAY,
        mac: STRANGER,
        host_v4: Some([192, 0, 2, 50].into()),
        host_v6: None,
        gateway_v4: Some([192, 0, 2, 1].into()),
    };
    let mut spec = FrameSpec { vlan: VLAN.to_string().parse().unwrap(), ..FrameSpec::default() };
    change(&mut spec);
    spec.build(&around).unwrap()
}

#[test]
fn what_is_explained_is_what_happens_and_explaining_leaves_no_trace() {
    let (bench, _rest) = bench();
    let table = [
        ("a SYN to port 80", frame(|_| {}), Outcome::Answered, Reason::HttpHandshake),
        ("to port 443", frame(|f| f.dport = Some(443)), Outcome::Answered, Reason::HttpsRefused),
        ("to another port", frame(|f| f.dport = Some(22)), Outcome::Answered, Reason::TcpRefused),
        (
            "over IPv6",
            frame(|f| f.dst = Some("2001:db8::7".parse().unwrap())),
            Outcome::Answered,
            Reason::HttpHandshake,
        ),
        (
            "a DNS query",
            frame(|f| {
                f.protocol = Protocol::Udp;
                f.dst = Some([192, 0, 2, 53].into());
            }),
            Outcome::Passed,
            Reason::Dns,
        ),
        ("ARP", frame(|f| f.protocol = Protocol::Arp), Outcome::Passed, Reason::Arp),
        ("a ping", frame(|f| f.protocol = Protocol::Icmp), Outcome::Answered, Reason::EchoRefused),
        ("of no zone", frame(|f| f.vlan = "9".parse().unwrap()), Outcome::Dropped, Reason::NoZone),
        ("from a group", frame(|f| f.mac = Some(AnyMac([1, 0, 0, 0, 0, 1]))), Outcome::Dropped, Reason::SourceMac),
        ("a jumbo", [frame(|f| f.dport = Some(22)), vec![0; 8_900]].concat(), Outcome::Answered, Reason::TcpRefused),
    ];
    for (sentence, frame, verdict, reason) in table {
        let before = bench.counted();
        let explained = bench.explainer.explain(&frame, LO).expect(sentence);
        assert_eq!((explained.verdict, explained.reason), (verdict, reason), "{sentence}");
        assert_eq!(bench.counted(), before, "{sentence}: explaining is not counted");
        let again = bench.explainer.explain(&frame, LO).unwrap();
        let Ran { value, frame: left } = bench.send(&frame);
        let action = [Outcome::Dropped, Outcome::Passed, Outcome::Answered, Outcome::Redirected][value as usize - 1];
        assert_eq!(action, verdict, "{sentence}");
        if verdict == Outcome::Answered && reason != Reason::HttpHandshake {
            assert_eq!((explained.reply.as_ref(), again.reply.as_ref()), (Some(&left), Some(&left)), "{sentence}");
        }
        assert_eq!(explained.reply.is_some(), verdict == Outcome::Answered, "{sentence}");
        assert_eq!(bench.counted(), before + 1, "{sentence}: what happens is counted");
    }
}

#[test]
fn an_empty_budget_is_explained_and_explaining_spends_nothing() {
    let (bench, _rest) = bench();
    let syn = frame(|f| f.dport = Some(22));
    for _ in 0..10_000 {
        bench.explainer.explain(&syn, LO).unwrap();
    }
    let explain = || -> Explained { bench.explainer.explain(&syn, LO).unwrap() };
    assert_eq!(explain().reason, Reason::TcpRefused, "10,000 explanations spend nothing");
    for _ in 0..10_000 {
        bench.send(&syn);
    }
    assert_eq!((explain().verdict, explain().reason), (Outcome::Dropped, Reason::BudgetReplies));
}

/// The next event of this name, within five seconds.
async fn heard(watcher: &mut Watcher, name: &str) -> EventLine {
    let listening = async {
        loop {
            let event = watcher.next().await.expect("somebody tells");
            if event.event == name {
                return event;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), listening).await.expect("in time")
}

#[tokio::test]
async fn the_gate_tells_of_strangers_and_budgets_and_captures_frames() {
    let (bench, Rest { store, captured, events, captures: ring, lost }) = bench();
    let hub = EventHub::default();
    let mut watcher = hub.watch();
    let captures = Captures::new(captured);
    let telling = tokio::spawn(kernel::tell_events(events, store, hub));
    let delivering = tokio::spawn(kernel::deliver_captures(ring, Arc::clone(&captures)));

    let syn = frame(|f| f.dport = Some(22));
    bench.send(&syn);
    let stranger = heard(&mut watcher, "stranger").await;
    assert_eq!(stranger.client.unwrap().bytes(), STRANGER);
    let mut capture = captures.begin(vec![ClientKey::new(Zone::FIRST, STRANGER)]).unwrap();
    bench.explainer.explain(&syn, LO).unwrap();
    bench.send(&frame(|f| f.protocol = Protocol::Icmp));
    let next = tokio::time::timeout(std::time::Duration::from_secs(5), capture.next());
    let (shown, lost_before) = next.await.expect("in time").unwrap();
    assert_eq!(shown.bytes, frame(|f| f.protocol = Protocol::Icmp), "the explained frame was none");
    assert!(shown.comment.starts_with("answered: echo_refused: ") && lost_before == 0, "{}", shown.comment);
    assert!(!shown.outbound && shown.ifindex == LO);
    drop(capture);

    for _ in 0..10_000 {
        bench.send(&syn);
    }
    let spent = heard(&mut watcher, "budget_spent").await;
    assert_eq!(spent.reason.as_deref(), Some("budget_replies"));
    assert_eq!(kernel::LostReader::new(lost).read().unwrap().events, 0);
    assert!(!telling.is_finished() && !delivering.is_finished());
}
