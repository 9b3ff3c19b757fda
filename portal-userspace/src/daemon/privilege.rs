//! What the kernel must permit the daemon.

use anyhow::{Context as _, Result, ensure};

/// The capabilities (Linux `include/uapi/linux/capability.h`) without which the gate cannot be loaded, attached or answered for.
const NEEDED: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),    // attach XDP
    (13, "CAP_NET_RAW"),      // open AF_XDP sockets
    (PERFMON, "CAP_PERFMON"), // have the verifier trust pointer arithmetic and reads of the stack (Linux 5.8)
    (BPF, "CAP_BPF"),         // load programs and maps (Linux 5.8)
];
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// Implies CAP_BPF and CAP_PERFMON.
const SYS_ADMIN: u32 = 21;

/// Refuses to go on without the privilege that everything after this needs.
pub(super) fn check() -> Result<()> {
    let missing = lacking()?;
    ensure!(missing.is_empty(), "portald lacks {}: run it as root, or grant these capabilities", missing.join(", "));
    Ok(())
}

/// The capabilities that this process lacks.
pub(super) fn lacking() -> Result<Vec<&'static str>> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    Ok(missing(effective(&status).context("/proc/self/status does not tell the effective capabilities")?))
}

fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let granted = |capability: u32| effective & (1 << capability) != 0;
    let has = |capability: u32| granted(capability) || (matches!(capability, BPF | PERFMON) && granted(SYS_ADMIN));
    NEEDED.iter().filter(|(capability, _)| !has(*capability)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"];
        let table: [(&str, &str, &[&str]); 5] = [
            ("root has all", "CapEff:\t000001ffffffffff", &[]),
            ("nobody has none", "CapEff:\t0000000000000000", &all),
            ("CAP_SYS_ADMIN stands in for CAP_BPF and CAP_PERFMON", "CapEff:\t0000000000203000", &[]),
            ("without CAP_PERFMON the verifier refuses the gate", "CapEff:\t0000008000003000", &["CAP_PERFMON"]),
            ("the four suffice", "CapEff:\t000000c000003000", &[]),
        ];
        for (sentence, status, expected) in table {
            assert_eq!(missing(effective(status).unwrap()), expected, "{sentence}");
        }
        assert_eq!(effective("Name:\tportald"), None);
    }
}
