//! What the running daemon gives up: every capability that it needs no more, new privileges by executing, and system calls that only an intruder would make.
//!
//! Capabilities are of a thread, so every thread gives them up as it starts: tokio's by a hook, and all others are started by threads that have. Only one keeps
//! `CAP_SYS_ADMIN`: the one that looks after the pins, which may have to mount the BPF file system again. It reads nothing that comes from a network or a client.
//!
//! | what is kept | for what |
//! |---|---|
//! | `CAP_NET_ADMIN` | attach the gate to another network's interface, and take it off |
//! | `CAP_NET_RAW` | the AF_XDP and packet sockets of such a network |
//! | `CAP_NET_BIND_SERVICE` | its login page, if that listens below port 1024 |
//! | `CAP_BPF` | read and write the gate's maps where `kernel.unprivileged_bpf_disabled` is set |
//! | `CAP_IPC_LOCK` | the memory of those sockets, which `RLIMIT_MEMLOCK` does not bound then |

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};
use tracing::{error, warn};

use crate::datapath::{keep::MOUNT_FLAGS, pins::Pins};

/// What the running daemon needs, of what it was given.
const RUNNING: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::IPC_LOCK);
/// What looking after the pins needs. It implies `CAP_BPF`, and in a container where it is missing that has to do.
const KEEPING: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::BPF);

/// How often it is looked whether the pins are there.
const LOOK: Duration = Duration::from_secs(2);
/// How often a fault that stays is told again.
const REMIND: Duration = Duration::from_mins(1);

/// Gives up what this thread needs no more of what it was given.
pub(super) fn thread() -> Result<()> {
    let permitted = capabilities(None).context("cannot tell the capabilities")?.permitted;
    keep(running(permitted))
}

/// What is kept of these. Before Linux 5.8, and in some containers, `CAP_SYS_ADMIN` stands in for `CAP_BPF`.
fn running(permitted: CapabilitySet) -> CapabilitySet {
    let stands_in = !permitted.contains(CapabilitySet::BPF);
    permitted & if stands_in { RUNNING.union(CapabilitySet::SYS_ADMIN) } else { RUNNING }
}

/// Gives up all but these, for this thread and those that it starts.
fn keep(kept: CapabilitySet) -> Result<()> {
    let own = capabilities(None).context("cannot tell the capabilities")?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept) {
            match remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(e) => return Err(e).context("cannot give up capabilities for good"),
            }
        }
    }
    clear_ambient_capability_set().context("cannot clear the ambient capabilities")?;
    let kept = kept & own.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("cannot give up capabilities")?;
    set_no_new_privs(true).context("cannot set no_new_privs")
}

/// Confines the process: this thread gives up what it needs no more, and a filter of system calls lies over all threads.
///
/// A kernel without such filters is no reason to leave a network unguarded.
pub(super) fn process() -> Result<()> {
    thread()?;
    let installed = filter().and_then(|filter| apply_filter_all_threads(&filter).context("the kernel refused it"));
    if let Err(e) = installed {
        warn!(
            error = format!("{e:#}"),
            "portald runs without a filter of system calls; it needs a kernel with CONFIG_SECCOMP_FILTER"
        );
    }
    Ok(())
}

/// Looks after the pins, in a thread of its own, for as long as they live. To be called before this thread gives up what that needs.
pub(super) fn look_after(pins: &Arc<Pins>) -> Result<()> {
    let pins = Arc::downgrade(pins);
    let work = move || {
        if let Err(e) = keep(KEEPING) {
            error!(error = format!("{e:#}"), "the pins are not looked after");
            return;
        }
        let mut told: Option<(String, Instant)> = None;
        loop {
            thread::sleep(LOOK);
            let Some(pins) = pins.upgrade() else { return };
            match pins.look_after() {
                Ok(done) => {
                    for what in done {
                        warn!("{what}");
                    }
                    told = None;
                }
                Err(e) => {
                    let fault = format!("{e:#}");
                    if told.as_ref().is_none_or(|(last, at)| *last != fault || at.elapsed() >= REMIND) {
                        error!("{fault}");
                        told = Some((fault, Instant::now()));
                    }
                }
            }
        }
    };
    thread::Builder::new().name("pins".into()).spawn(work).context("cannot start a thread")?;
    Ok(())
}

/// What the running daemon never calls, and an intruder might: executing and watching other programs, changing the kernel, the namespaces, the clock or the
/// user, and ways round such a filter. A list of what is allowed would be safer, and would break with the next version of a library, at night.
const DENIED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_personality,
    libc::SYS_vhangup,
    // Its operations pass no filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// On x86-64 the same calls have other numbers in the x32 ABI, which only differ in this bit.
#[cfg(target_arch = "x86_64")]
const OTHER_ABI: &[i64] = &[0, 0x4000_0000];
#[cfg(not(target_arch = "x86_64"))]
const OTHER_ABI: &[i64] = &[0];

/// The filter: what is denied fails with EPERM; calls of another architecture's ABI end the daemon.
fn filter() -> Result<BpfProgram> {
    // Nothing but a file system without devices and programs, which is what the BPF one is mounted as.
    let flags = u64::from(MOUNT_FLAGS.bits());
    let other_flags = SeccompCondition::new(3, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, flags)?;
    let mount = SeccompRule::new(vec![other_flags])?;
    let denied = DENIED.iter().map(|call| (*call, Vec::new())).chain([(libc::SYS_mount, vec![mount])]);
    let rules: BTreeMap<i64, Vec<SeccompRule>> =
        denied.flat_map(|(call, rules)| OTHER_ABI.iter().map(move |abi| (call | abi, rules.clone()))).collect();
    let denial = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().context("there is none for this architecture")?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denial, architecture)?;
    filter.try_into().context("it does not become a BPF program")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a thread of its own, whose capabilities and filters go with it.
    fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join()).expect("it does not panic")
    }

    #[test]
    fn what_is_kept_is_what_is_needed_of_what_was_given() {
        let given = |capabilities: &[CapabilitySet]| capabilities.iter().copied().collect::<CapabilitySet>();
        let needed = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW];
        let four = given(&[CapabilitySet::BPF, CapabilitySet::PERFMON]) | given(&needed);
        let table = [
            ("root", CapabilitySet::all(), RUNNING),
            ("the four that suffice", four, given(&[CapabilitySet::BPF]) | given(&needed)),
            (
                "CAP_SYS_ADMIN in place of CAP_BPF",
                given(&[CapabilitySet::SYS_ADMIN, CapabilitySet::CHOWN]) | given(&needed),
                given(&[CapabilitySet::SYS_ADMIN]) | given(&needed),
            ),
            ("none", CapabilitySet::empty(), CapabilitySet::empty()),
        ];
        for (sentence, permitted, expected) in table {
            assert_eq!(running(permitted), expected, "{sentence}");
        }
    }

    #[test]
    fn a_thread_gives_up_the_rest_for_good() {
        let (before, status) = apart(|| {
            let before = capabilities(None).unwrap().permitted;
            thread().unwrap();
            (before, std::fs::read_to_string("/proc/thread-self/status").unwrap())
        });
        assert!(before.contains(CapabilitySet::SETPCAP), "this test needs root");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let set = |name: &str| CapabilitySet::from_bits_retain(u64::from_str_radix(&field(name), 16).unwrap());
        for (name, expected) in [
            ("CapEff:", running(before)),
            ("CapPrm:", running(before)),
            ("CapBnd:", running(before)),
            ("CapInh:", CapabilitySet::empty()),
            ("CapAmb:", CapabilitySet::empty()),
        ] {
            assert_eq!(set(name), expected, "{name}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
    }

    #[test]
    fn what_is_denied_fails_and_what_is_needed_does_not() {
        apart(|| {
            set_no_new_privs(true).unwrap();
            // This thread alone, not the test's others.
            seccompiler::apply_filter(&filter().unwrap()).unwrap();
            let executed = portal_tools::command("/bin/true").status().unwrap_err();
            assert_eq!(executed.raw_os_error(), Some(libc::EPERM));
            let place = tempfile::tempdir().unwrap();
            let mount = |kind: &str, flags| rustix::mount::mount("none", place.path(), kind, flags, None);
            assert_eq!(mount("tmpfs", rustix::mount::MountFlags::empty()), Err(Errno::PERM));
            assert!(std::fs::read("/proc/self/status").is_ok() && thread::spawn(|| 1).join().is_ok());
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
        });
    }
}
