//! What it means when the kernel refuses the gate: the cause as far as the kernel tells it, and the remedy.

use std::{io, path::Path};

use anyhow::{Error, anyhow};
use aya::{EbpfError, maps::MapError, programs::ProgramError};

use crate::net::XdpMode;

/// Where the kernel describes its own types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// What a client takes up in the maps that are as large as `limits.clients` says, with the kernel's own overhead, in bytes: a session 110, its state
/// 192, four addresses of 90.
const CLIENT_BYTES: u64 = 660;
/// How much of the verifier's log is shown: the cause is at its end.
const VERIFIER_LINES: usize = 20;

const NOT_PERMITTED: &str = "portald needs root, or the capabilities CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW, \
                             and a kernel that is not locked down to `confidentiality` (/sys/kernel/security/lockdown)";

/// The maps could not be made.
pub(super) fn maps_refused(error: EbpfError, clients: u32) -> Error {
    match &error {
        EbpfError::MapError(MapError::CreateError { name, io_error, .. }) => match io_error.raw_os_error() {
            Some(libc::ENOMEM | libc::E2BIG) => anyhow!(
                "the kernel has no memory for the gate's map {name} ({io_error}): `limits.clients` = {clients} needs about {} MiB; \
                 lower it, or the memory limit of portald's service is too low",
                u64::from(clients) * CLIENT_BYTES / (1 << 20) + 1
            ),
            Some(libc::EPERM | libc::EACCES) => {
                anyhow!("not permitted to make the gate's map {name} ({io_error}): {NOT_PERMITTED}")
            }
            _ => anyhow!("the kernel refused to make the gate's map {name}: {io_error}"),
        },
        EbpfError::BtfError(_) if !Path::new(KERNEL_BTF).exists() => {
            anyhow!("{error}; there is no {KERNEL_BTF}: Portal needs a kernel with CONFIG_DEBUG_INFO_BTF")
        }
        _ => Error::new(error).context("the kernel refused the gate's maps"),
    }
}

/// The program could not be loaded.
pub(super) fn program_refused(error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            load_refused(&io_error, &verifier_log.to_string(), Path::new(KERNEL_BTF).exists())
        }
        other => Error::new(other).context("the kernel refused the gate"),
    }
}

fn load_refused(error: &io::Error, log: &str, has_btf: bool) -> Error {
    let lines: Vec<_> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    if !lines.is_empty() {
        let last = &lines[lines.len().saturating_sub(VERIFIER_LINES)..];
        return anyhow!("the kernel's verifier refused the gate ({error}). Its log ends with: {}", last.join(" | "));
    }
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => anyhow!("not permitted to load the gate ({error}): {NOT_PERMITTED}"),
        Some(libc::ENOMEM) => {
            anyhow!("the kernel has no memory to load the gate ({error}): portald's memory limit is too low")
        }
        _ if !has_btf => {
            anyhow!(
                "the kernel refused the gate ({error}); there is no {KERNEL_BTF}: Portal needs a kernel with CONFIG_DEBUG_INFO_BTF"
            )
        }
        _ => anyhow!("the kernel refused to load the gate: {error}"),
    }
}

/// The program could not be attached.
pub(super) fn attach_refused(error: &ProgramError, interface: &str, mode: XdpMode) -> Error {
    let code = match error {
        ProgramError::SyscallError(e) => e.io_error.raw_os_error(),
        _ => None,
    };
    let generic = "set `guest.xdp_mode = \"generic\"`";
    match (code, mode) {
        (Some(libc::EBUSY | libc::EEXIST), _) => anyhow!(
            "another XDP program is attached to {interface}: `ip link show {interface}` shows its id; end its owner, or remove what pins it"
        ),
        (Some(libc::EOPNOTSUPP), XdpMode::Native) => {
            anyhow!("the driver of {interface} has no native XDP; {generic}")
        }
        (Some(libc::ERANGE | libc::EINVAL), XdpMode::Native) => anyhow!(
            "the driver of {interface} refuses native XDP with the interface as it is set up, most often because of a large MTU or of offloads; \
             lower the MTU (1500 always works), or {generic}"
        ),
        (Some(libc::EPERM | libc::EACCES), _) => anyhow!("not permitted to attach to {interface}: {NOT_PERMITTED}"),
        (Some(libc::ENODEV), _) => anyhow!("{interface} is gone; check `guest.interface`"),
        _ => anyhow!("cannot attach the gate to {interface}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = &'static [&'static str];

    #[test]
    fn a_refused_program_is_explained_by_what_the_kernel_said() {
        let log = (0..1000).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
        let table: [(&str, i32, &str, bool, Parts, Parts); 5] = [
            ("no capability", libc::EPERM, "", true, &["not permitted", "CAP_PERFMON", "lockdown"], &["verifier"]),
            (
                "the verifier",
                libc::EACCES,
                &log,
                true,
                &["verifier refused", "line 999", "line 980"],
                &["line 979", "older"],
            ),
            ("no memory", libc::ENOMEM, "", true, &["no memory"], &["verifier"]),
            (
                "no BTF",
                libc::EINVAL,
                "",
                false,
                &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"],
                &["not permitted"],
            ),
            ("anything else", libc::EINVAL, "", true, &["Invalid argument"], &["BTF", "memory", "not permitted"]),
        ];
        for (sentence, code, log, has_btf, present, absent) in table {
            let text = format!("{:#}", load_refused(&io::Error::from_raw_os_error(code), log, has_btf));
            for part in present {
                assert!(text.contains(part), "{sentence}: no «{part}» in: {text}");
            }
            for part in absent {
                assert!(!text.contains(part), "{sentence}: «{part}» in: {text}");
            }
        }
    }

    #[test]
    fn maps_that_do_not_fit_are_a_matter_of_the_configured_size() {
        let refused = |code| {
            let io_error = io::Error::from_raw_os_error(code);
            let error = MapError::CreateError { name: "SESSIONS".into(), io_error };
            format!("{:#}", maps_refused(EbpfError::MapError(error), 16_777_216))
        };
        let text = refused(libc::ENOMEM);
        assert!(text.contains("`limits.clients` = 16777216") && text.contains("10561 MiB"), "{text}");
        let text = refused(libc::EPERM);
        assert!(text.contains("CAP_BPF") && !text.contains("clients"), "{text}");
    }
}
