//! Whatever can be refused, refused before anything is touched: a gate that runs goes on as it was.

use anyhow::{Result, bail, ensure};
use portal_common::tables::{MAX_QUEUES, Zone};

use super::zones::{ZoneSetup, zone_policy};
use crate::{
    datapath::pins::{MAX_SERVICES, MapFault, Survey},
    net::{Interface, XdpMode},
};

/// What the kernel needs of a page beside the frame where XDP runs in a driver that hands it no frames in several buffers: headroom
/// (`XDP_PACKET_HEADROOM`), Ethernet header and `struct skb_shared_info`.
const PAGE_OVERHEAD: usize = 256 + 14 + 320;

/// Refuses a network whose interface can't be guarded as it is.
pub(super) fn interface(setup: &ZoneSetup) -> Result<()> {
    let (mode, tagged) = (setup.effective.zone.xdp_mode, setup.written.guest.vlan.is_some());
    check_interface(&setup.port, mode, tagged, rustix::param::page_size())
}

fn check_interface(interface: &Interface, mode: XdpMode, tagged: bool, page_size: usize) -> Result<()> {
    let Interface { name, rx_queues: queues, mtu, .. } = interface;
    ensure!(
        *queues <= MAX_QUEUES,
        "{name} has {queues} receive queues, and the gate serves {MAX_QUEUES}: use fewer (`ethtool -L {name} combined {MAX_QUEUES}`)"
    );
    let largest = page_size.saturating_sub(PAGE_OVERHEAD);
    ensure!(
        mode != XdpMode::Native || interface.takes_frames_in_parts || *mtu as usize <= largest,
        "the MTU of {name} is {mtu}, and its driver's native XDP takes at most {largest}: lower it (`ip link set {name} mtu 1500`), \
         or set `xdp_mode = \"generic\"`"
    );
    ensure!(
        !tagged || !interface.strips_vlan_tags,
        "the driver of {name} takes VLAN tags off before XDP sees a frame, so that the gate could not tell the networks apart: switch that off \
         (`ethtool -K {name} rxvlan off`)"
    );
    Ok(())
}

/// Refuses networks that permit more destinations than there is room for.
pub(super) fn destinations(setups: &[ZoneSetup]) -> Result<()> {
    check_destinations(setups.iter().map(|setup| zone_policy(setup, Zone::FIRST, 0).destinations().len()).sum())
}

fn check_destinations(count: usize) -> Result<()> {
    ensure!(
        count <= MAX_SERVICES as usize,
        "the gateway's addresses, `dns.resolvers` (two each, UDP and TCP), `ntp.servers` and `portal.listen` of all networks come to {count}, and there is \
         room for {MAX_SERVICES}: name fewer"
    );
    Ok(())
}

/// Refuses what an earlier portald, or anybody else, has left on these interfaces and among the pins. `guarded`: interfaces that this portald guards
/// already.
pub(super) fn leftovers(ports: &[(&Interface, XdpMode)], guarded: &[&Interface], survey: &Survey) -> Result<()> {
    // An index means something only in its own network namespace: the attachment is this interface's if its program is here too.
    let on = |interface: &Interface, program| interface.xdp.iter().position(|xdp| xdp.program_id == program);
    let mut own = vec![None; ports.len()];
    for attachment in &survey.attachments {
        let Some(ifindex) = attachment.ifindex else { continue };
        if guarded.iter().any(|interface| interface.index == ifindex) {
            continue;
        }
        let port = ports.iter().position(|(interface, _)| interface.index == ifindex);
        match port.and_then(|port| Some((port, on(ports[port].0, attachment.program_id)?))) {
            Some((port, xdp)) => own[port] = Some(xdp),
            None => bail!(
                "the gate is attached to another interface (index {ifindex} in its network namespace, pinned at {}): `portald --detach` takes it \
                 off there, which opens that network and ends all sessions; or set `guest.interface` (or a zone's) back, or give this portald its own \
                 `paths.pins`",
                attachment.pin.display()
            ),
        }
    }
    let mut taken_over = false;
    for ((interface, mode), own) in ports.iter().zip(own) {
        let name = &interface.name;
        if let Some((_, foreign)) = interface.xdp.iter().enumerate().find(|(i, _)| Some(*i) != own) {
            let id = foreign.program_id;
            bail!(
                "another XDP program is attached to {name}: number {id}. `bpftool prog show id {id}` tells what it is and `bpftool link show` what \
                 holds it: end its owner or remove its pin; one that no link holds goes with `ip link set {name} xdp off` (`xdpgeneric off`)"
            );
        }
        let Some(own) = own else { continue };
        taken_over = true;
        let attached = interface.xdp[own].mode;
        if attached != Some(*mode) {
            let attached = attached.map_or("offloaded", XdpMode::name);
            bail!(
                "the gate is attached to {name} in {attached} mode, and a running gate cannot change to {mode} mode; set `guest.xdp_mode` back, \
                 or run `portald --detach` first (the network is open until portald runs again)"
            );
        }
    }
    if !taken_over {
        return Ok(());
    }
    if let Some(unfit) = survey.unfit.first() {
        let pin = unfit.pin.display();
        match unfit.fault {
            MapFault::Layout => bail!(
                "the pinned map {pin} has another layout than this version of Portal uses; \
                 run `portald --detach` (the network is open until portald runs again)"
            ),
            MapFault::Size { pinned, wanted } => bail!(
                "the pinned map {pin} has room for {pinned} entries, not {wanted}: a running gate's tables cannot be resized; set `limits.clients` \
                 back, or run `portald --detach`, which ends all sessions (the network is open until portald runs again)"
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datapath::{attachment::Attachment, pins::UnfitMap},
        net::AttachedXdp,
    };

    const PAGE: usize = 4096;

    fn guest() -> Interface {
        Interface { name: "eth1".into(), index: 7, mtu: 1500, up: true, rx_queues: 1, ..Interface::default() }
    }

    fn assert_outcome(sentence: &str, outcome: Result<()>, parts: &[&str]) {
        match outcome {
            Ok(()) => assert!(parts.is_empty(), "{sentence}: not refused"),
            Err(e) => {
                let text = format!("{e:#}");
                assert!(!parts.is_empty(), "{sentence}: {text}");
                for part in parts {
                    assert!(text.contains(part), "{sentence}: no «{part}» in: {text}");
                }
            }
        }
    }

    #[test]
    fn an_interface_that_cannot_be_guarded_is_refused_with_the_remedy() {
        let native = XdpMode::Native;
        let mtu = |mtu| Interface { mtu, ..guest() };
        let queues = |rx_queues| Interface { rx_queues, ..guest() };
        let stripping = Interface { strips_vlan_tags: true, ..guest() };
        let table: [(&str, Interface, XdpMode, bool, &[&str]); 10] = [
            ("an ordinary one", guest(), native, false, &[]),
            ("the largest MTU", mtu(3506), native, false, &[]),
            ("an MTU too large for native", mtu(3507), native, false, &["3506", "mtu 1500", "generic"]),
            (
                "and where the driver takes parts",
                Interface { takes_frames_in_parts: true, ..mtu(9000) },
                native,
                false,
                &[],
            ),
            ("a large MTU in generic mode", mtu(9000), XdpMode::Generic, false, &[]),
            ("as many queues as there are places", queues(64), native, false, &[]),
            ("too many queues", queues(65), native, false, &["65 receive queues", "ethtool -L eth1 combined 64"]),
            (
                "one that is down: the gate is there before it is up",
                Interface { up: false, ..guest() },
                native,
                true,
                &[],
            ),
            ("a driver that takes tags off, without VLANs", stripping.clone(), native, false, &[]),
            ("a driver that takes tags off, and a VLAN", stripping, native, true, &["ethtool -K eth1 rxvlan off"]),
        ];
        for (sentence, given, mode, tagged, parts) in table {
            assert_outcome(sentence, check_interface(&given, mode, tagged, PAGE), parts);
        }
        assert_outcome("as many destinations as fit", check_destinations(4096), &[]);
        assert_outcome("too many destinations", check_destinations(4097), &["4097", "dns.resolvers", "4096"]);
    }

    #[test]
    fn leftovers_are_taken_over_or_refused_with_the_remedy() {
        let on = |ids: &[(u32, XdpMode)]| {
            let xdp = ids.iter().map(|&(program_id, mode)| AttachedXdp { program_id, mode: Some(mode) }).collect();
            Interface { xdp, ..guest() }
        };
        let link = |ifindex, program_id| Attachment { pin: "/bpf/link".into(), program_id, ifindex };
        let size = UnfitMap { pin: "/bpf/SESSIONS".into(), fault: MapFault::Size { pinned: 9, wanted: 5 } };
        let layout = UnfitMap { pin: "/bpf/CONFIG".into(), fault: MapFault::Layout };
        let left = |attachments: &[Attachment], unfit: &[UnfitMap]| Survey {
            attachments: attachments.to_vec(),
            meters: Vec::new(),
            unfit: unfit.to_vec(),
        };
        let (native, generic) = (XdpMode::Native, XdpMode::Generic);
        let own = || on(&[(42, native)]);
        let ours = || link(Some(7), 42);
        let table: [(&str, Interface, Survey, &[&str]); 11] = [
            ("nothing", guest(), left(&[], &[]), &[]),
            ("our own gate", own(), left(&[ours()], &[]), &[]),
            ("a gate whose interface is gone", guest(), left(&[link(None, 42)], &[]), &[]),
            (
                "maps of another size that nothing uses",
                guest(),
                left(&[link(None, 42)], std::slice::from_ref(&size)),
                &[],
            ),
            ("our own gate and one that is gone", own(), left(&[link(None, 41), ours()], &[]), &[]),
            (
                "another live interface",
                guest(),
                left(&[link(Some(8), 42)], &[]),
                &["portald --detach", "index 8", "/bpf/link"],
            ),
            ("the same index in another namespace", guest(), left(&[ours()], &[]), &["portald --detach"]),
            (
                "somebody else's program",
                on(&[(99, native)]),
                left(&[], &[]),
                &["bpftool prog show id 99", "bpftool link show"],
            ),
            (
                "another mode",
                on(&[(42, generic)]),
                left(&[ours()], &[]),
                &["generic mode", "to native mode", "--detach"],
            ),
            (
                "another size under a running gate",
                own(),
                left(&[ours()], std::slice::from_ref(&size)),
                &["9 entries, not 5", "limits.clients"],
            ),
            (
                "another layout under a running gate",
                own(),
                left(&[ours()], &[layout]),
                &["/bpf/CONFIG", "layout", "--detach"],
            ),
        ];
        for (sentence, interface, survey, parts) in table {
            assert_outcome(sentence, leftovers(&[(&interface, native)], &[], &survey), parts);
        }
    }

    /// (sentence, interfaces, those guarded already, what is left, what the refusal must contain)
    type Case<'c> = (&'c str, Vec<(&'c Interface, XdpMode)>, Vec<&'c Interface>, &'c Survey, &'c [&'c str]);

    #[test]
    fn of_several_interfaces_each_is_looked_at() {
        let (native, generic) = (XdpMode::Native, XdpMode::Generic);
        let named = |name: &str, index, program| Interface {
            name: name.into(),
            index,
            xdp: Option::into_iter(program)
                .map(|(program_id, mode)| AttachedXdp { program_id, mode: Some(mode) })
                .collect(),
            ..guest()
        };
        let link = |ifindex, program_id| Attachment { pin: "/bpf/link".into(), program_id, ifindex: Some(ifindex) };
        let (one, two) = (named("eth1", 7, Some((42, native))), named("eth2", 8, Some((43, native))));
        let bare = named("eth2", 8, None);
        let size = UnfitMap { pin: "/bpf/SESSIONS".into(), fault: MapFault::Size { pinned: 9, wanted: 5 } };
        let left = |attachments: &[Attachment], unfit: &[UnfitMap]| Survey {
            attachments: attachments.to_vec(),
            meters: Vec::new(),
            unfit: unfit.to_vec(),
        };
        let both = left(&[link(7, 42), link(8, 43)], &[]);
        let first = left(&[link(7, 42)], std::slice::from_ref(&size));
        let table: [Case<'_>; 7] = [
            ("both are ours", vec![(&one, native), (&two, native)], vec![], &both, &[]),
            ("one is new", vec![(&one, native), (&bare, native)], vec![], &left(&[link(7, 42)], &[]), &[]),
            ("one is no longer named", vec![(&one, native)], vec![], &both, &["index 8", "portald --detach"]),
            (
                "the second is another's",
                vec![(&one, native), (&two, native)],
                vec![],
                &left(&[link(7, 42)], &[]),
                &["eth2", "id 43"],
            ),
            (
                "the second in another mode",
                vec![(&one, native), (&two, generic)],
                vec![],
                &both,
                &["eth2", "to generic mode"],
            ),
            (
                "a map that does not fit under the first",
                vec![(&one, native), (&bare, native)],
                vec![],
                &first,
                &["9 entries"],
            ),
            ("a new one beside what is guarded", vec![(&bare, native)], vec![&one], &left(&[link(7, 42)], &[]), &[]),
        ];
        for (sentence, ports, guarded, survey, parts) in table {
            assert_outcome(sentence, leftovers(&ports, &guarded, survey), parts);
        }
    }
}
