//! Whatever can be refused, refused before anything is touched: a gate that runs goes on as it was.

use anyhow::{Result, bail, ensure};
use portal_common::tables::MAX_QUEUES;

use crate::{
    datapath::pins::{MAX_SERVICES, MapFault, Survey},
    net::{Interface, XdpMode},
};

/// What the kernel needs of a page beside the frame where XDP runs in the driver: headroom (`XDP_PACKET_HEADROOM`), Ethernet header and
/// `struct skb_shared_info`. The gate does not take frames in parts (`xdp.frags`).
const PAGE_OVERHEAD: usize = 256 + 14 + 320;

/// Refuses an interface that can't be guarded as it is.
pub(super) fn interface(interface: &Interface, mode: XdpMode, destinations: usize, page_size: usize) -> Result<()> {
    let Interface { name, rx_queues: queues, mtu, .. } = interface;
    ensure!(
        *queues <= MAX_QUEUES,
        "{name} has {queues} receive queues, and the gate serves {MAX_QUEUES}: use fewer (`ethtool -L {name} combined {MAX_QUEUES}`)"
    );
    let largest = page_size.saturating_sub(PAGE_OVERHEAD);
    ensure!(
        mode != XdpMode::Native || *mtu as usize <= largest,
        "the MTU of {name} is {mtu}, and native XDP takes at most {largest}: lower it (`ip link set {name} mtu 1500`), \
         or set `guest.xdp_mode = \"generic\"`"
    );
    ensure!(
        destinations <= MAX_SERVICES as usize,
        "`dns.resolvers` (two each, UDP and TCP) and `portal.listen` come to {destinations} destinations, and there is room for {MAX_SERVICES}: name fewer"
    );
    Ok(())
}

/// Refuses what an earlier portald, or anybody else, has left on the interface and among the pins.
pub(super) fn leftovers(interface: &Interface, mode: XdpMode, survey: &Survey) -> Result<()> {
    let name = &interface.name;
    // An index means something only in its own network namespace: the attachment is this interface's if its program is here too.
    let attached = |program| interface.xdp.iter().find(|xdp| xdp.program_id == program);
    let mut own = None;
    for attachment in &survey.attachments {
        let Some(ifindex) = attachment.ifindex else { continue };
        match attached(attachment.program_id).filter(|_| ifindex == interface.index) {
            Some(xdp) => own = Some(xdp),
            None => bail!(
                "the gate is attached to another interface (index {ifindex} in its network namespace, pinned at {}): `portald --detach` takes it \
                 off there, which opens that network and ends all sessions; or set `guest.interface` back, or give this portald its own `paths.pins`",
                attachment.pin.display()
            ),
        }
    }
    if let Some(foreign) = interface.xdp.iter().find(|xdp| Some(*xdp) != own) {
        let id = foreign.program_id;
        bail!(
            "another XDP program is attached to {name}: number {id}. `bpftool prog show id {id}` tells what it is and `bpftool link show` what \
             holds it: end its owner or remove its pin; one that no link holds goes with `ip link set {name} xdp off` (`xdpgeneric off`)"
        );
    }
    let Some(own) = own else { return Ok(()) };
    if own.mode != Some(mode) {
        let attached = own.mode.map_or("offloaded", XdpMode::name);
        bail!(
            "the gate is attached to {name} in {attached} mode, and a running gate cannot change to {mode} mode; set `guest.xdp_mode` back, \
             or run `portald --detach` first (the network is open until portald runs again)"
        );
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
        let table: [(&str, Interface, XdpMode, usize, &[&str]); 9] = [
            ("an ordinary one", guest(), native, 3, &[]),
            ("the largest MTU", mtu(3506), native, 3, &[]),
            ("an MTU too large for native", mtu(3507), native, 3, &["3506", "mtu 1500", "generic"]),
            ("a large MTU in generic mode", mtu(9000), XdpMode::Generic, 3, &[]),
            ("as many queues as there are places", queues(64), native, 3, &[]),
            ("too many queues", queues(65), native, 3, &["65 receive queues", "ethtool -L eth1 combined 64"]),
            ("as many destinations as fit", guest(), native, 256, &[]),
            ("too many destinations", guest(), native, 257, &["257", "dns.resolvers", "256"]),
            ("one that is down: the gate is there before it is up", Interface { up: false, ..guest() }, native, 3, &[]),
        ];
        for (sentence, given, mode, destinations, parts) in table {
            assert_outcome(sentence, interface(&given, mode, destinations, PAGE), parts);
        }
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
            assert_outcome(sentence, leftovers(&interface, native, &survey), parts);
        }
    }
}
