//! The host's side: who else can change what portald keeps, what it may itself, and who reaches it on its socket.

use std::{
    fs::{self, File, Permissions},
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portal_lab::{
    Lab, Portald, Settings,
    addresses::{GUEST_MAC, OTHER_MAC, SECOND_INTERFACE, SITES},
    portald::{binary, config_path, config_text, portalctl, portalctl_start, refused, socket},
    process::{Service, run, succeed, wait_for},
};
use rustix::mount::{UnmountFlags, unmount};

use crate::{
    expect::{a_guest, a_stranger, done, program, the_site_is_out_of_reach},
    turn::lab,
};

/// A user that is nobody's.
const STRANGER: u32 = 64_000;
/// How long portald may take to notice that a pin is gone, on a busy machine.
const NOTICE: Duration = Duration::from_secs(10);

/// Runs a program as a user that is nobody's; its exit code.
fn as_stranger(command: &mut Command) -> Result<Option<i32>> {
    use std::os::unix::process::CommandExt as _;
    Ok(run(command.uid(STRANGER).gid(STRANGER), Duration::from_secs(10))?.code)
}

/// The directory with the pins of this version.
fn version(lab: &Lab) -> Result<PathBuf> {
    Ok(fs::read_dir(lab.bpffs().join("portal"))?.next().context("nothing is pinned")??.path())
}

/// The names of what is pinned.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = entries.collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[test]
fn a_pin_directory_that_another_user_can_change_is_refused() -> Result<()> {
    let lab = lab()?;
    let config = config_text(&lab, &Settings::default());
    let pins = lab.bpffs().join("portal");
    let remake = |owner, mode| -> Result<()> {
        let _ = fs::remove_dir_all(&pins);
        fs::create_dir(&pins)?;
        chown(&pins, Some(owner), Some(owner))?;
        fs::set_permissions(&pins, Permissions::from_mode(mode))?;
        Ok(())
    };
    // The sentence, the owner, the mode, and the remedy.
    for (sentence, owner, mode, remedy) in [
        ("made by another user", STRANGER, 0o700, "rm -r"),
        ("root's, and all may write", 0, 0o777, "chmod go-w"),
        ("root's, and all may make something", 0, 0o1777, "chmod go-w"),
        ("root's, and its group may write", 0, 0o775, "chmod go-w"),
    ] {
        remake(owner, mode)?;
        let output = refused(&lab, &config)?;
        let cause = format!("owner {owner}, mode {mode:04o}");
        ensure!(output.code == Some(1), "{sentence}: {output:?}");
        for part in [&*pins.to_string_lossy(), &cause, remedy, "paths.pins"] {
            ensure!(output.stderr.contains(part), "{sentence}: no «{part}» in {}", output.stderr);
        }
        ensure!(names(&pins)?.is_empty(), "{sentence}: something was made");
    }
    // What is above it, and where the socket is.
    let open = lab.directory().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, Permissions::from_mode(0o777))?;
    let _ = fs::remove_dir_all(&pins);
    let output = refused(&lab, &config.replace("/portald.sock", "/open/run/portald.sock"))?;
    ensure!(output.code == Some(1) && output.stderr.contains("paths.socket"), "{output:?}");
    ensure!(!open.join("run").exists());
    // A directory of an earlier version's, which another user holds locked: it keeps nobody out, and is closed.
    remake(0, 0o755)?;
    let held = File::open(&pins)?;
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for directory in [&pins, &version(&lab)?] {
        let mode = fs::metadata(directory)?.mode() & 0o7777;
        ensure!(mode == 0o700, "{}: {mode:o}", directory.display());
        let locked = as_stranger(portal_tools::command("flock").args(["--nonblock"]).arg(directory).arg("true"))?;
        ensure!(locked != Some(0), "another user locks {}", directory.display());
    }
    // And so it does beside another portald.
    let output = refused(&lab, &config.replace("portald.sock", "second.sock"))?;
    ensure!(output.code == Some(1) && output.stderr.contains("another portald is running"), "{output:?}");
    a_stranger(&lab.guest)
}

/// No ping of this client arrives, over either IP version.
fn no_ping_passes(client: &portal_lab::Namespace) -> Result<()> {
    for site in SITES {
        let site = site.to_string();
        let output = run(client.service("ping").args(["-c", "2", "-W", "1", &site]), Duration::from_secs(10))?;
        ensure!(output.code != Some(0), "a stranger's ping arrived: {}", output.stdout);
    }
    Ok(())
}

/// What is done to the pins, in a sentence; how; and what portald says.
type Damage<'d> = (&'static str, &'d dyn Fn() -> Result<()>, &'static str);

#[test]
fn whatever_happens_to_the_pins_the_next_crash_opens_nothing() -> Result<()> {
    let lab = lab()?;
    let mut portald = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", OTHER_MAC])?;
    let directory = version(&lab)?;
    let pinned = names(&directory)?;
    ensure!(pinned.iter().any(|name| name.starts_with("link-")), "{pinned:?}");
    let mode = fs::metadata(lab.bpffs())?.mode();

    let remove = |which: &dyn Fn(&str) -> bool| -> Result<()> {
        for name in names(&directory)?.into_iter().filter(|name| which(name)) {
            fs::remove_file(directory.join(name))?;
        }
        Ok(())
    };
    let table: [Damage<'_>; 5] = [
        ("the links are removed", &|| remove(&|name| name.contains('-')), "somebody has removed it"),
        ("everything is removed", &|| Ok(fs::remove_dir_all(lab.bpffs().join("portal"))?), "somebody has removed it"),
        (
            "another map is in the place of one",
            &|| Ok(fs::rename(directory.join("ZONES"), directory.join("CONFIG"))?),
            "another was in its place",
        ),
        ("the file system is unmounted", &|| Ok(unmount(lab.bpffs(), UnmountFlags::DETACH)?), "was unmounted"),
        (
            "it is mounted anew by somebody",
            &|| {
                unmount(lab.bpffs(), UnmountFlags::DETACH)?;
                succeed(portal_tools::command("mount").args(["-t", "bpf", "bpf"]).arg(lab.bpffs()))?;
                Ok(())
            },
            "somebody has removed it",
        ),
    ];
    for (sentence, damage, told) in table {
        let gate = program(&lab)?;
        let before = portald.log().len();
        damage().context(sentence)?;
        wait_for("all pins and a warning", NOTICE, || {
            let whole = names(&directory).is_ok_and(|names| names == pinned);
            (whole && portald.log().get(before..).is_some_and(|log| log.contains(told))).then_some(())
        })
        .with_context(|| format!("{sentence}: {:?}", names(&directory)))?;
        ensure!(fs::metadata(lab.bpffs())?.mode() == mode, "{sentence}");
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mounted = mounts.lines().filter(|line| line.contains(&*lab.bpffs().to_string_lossy())).count();
        ensure!(mounted == 1, "{sentence}: it is mounted {mounted} times");
        // The lock is that of the new directory.
        let output = refused(&lab, &config_text(&lab, &Settings::default()).replace("portald.sock", "second.sock"))?;
        ensure!(output.stderr.contains("another portald is running"), "{sentence}: {output:?}");
        portald.kill9()?;
        ensure!(program(&lab)? == gate, "{sentence}: the gate went with the daemon");
        no_ping_passes(&lab.guest).context(sentence)?;
        the_site_is_out_of_reach(&lab.guest).context(sentence)?;
        a_guest(&lab.other).context(sentence)?;
        portald.restart(&lab)?;
        a_stranger(&lab.guest).context(sentence)?;
        a_guest(&lab.other).context(sentence)?;
    }
    Ok(())
}

/// The statuses of all threads of a process, by their names.
fn threads(pid: u32) -> Result<Vec<(String, String)>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.map(|thread| {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        Ok((field(&status, "Name:")?.to_owned(), status))
    });
    threads.collect()
}

fn field<'s>(status: &'s str, name: &str) -> Result<&'s str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name} in {status}"))?.trim())
}

#[test]
fn a_running_portald_has_few_privileges_and_does_all_it_does_with_them() -> Result<()> {
    let mut lab = lab()?;
    let visitor = lab.add_second_network()?;
    let config = config_text(&lab, &Settings::default());
    let portald = Portald::start_with(&lab, &config, &[])?;
    // What begins later does not have more: another network, with a responder of its own.
    let second = format!("{config}\n[[zone]]\nname = \"second\"\ninterface = \"{SECOND_INTERFACE}\"\n");
    fs::write(config_path(&lab), second)?;
    done(&lab, &["zones", "attach", "second"])?;
    a_stranger(&visitor)?;
    // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK and CAP_BPF; and what looks after the pins has CAP_SYS_ADMIN and CAP_BPF.
    let (most, keeping) = (1 << 10 | 1 << 12 | 1 << 13 | 1 << 14 | 1_u64 << 39, 1 << 21 | 1_u64 << 39);
    let threads = threads(portald.pid())?;
    ensure!(threads.iter().any(|(name, _)| name == "pins") && threads.len() > 4, "{threads:?}");
    for (name, status) in threads {
        let most = if name == "pins" { keeping } else { most };
        for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"] {
            let set_of = u64::from_str_radix(field(&status, set)?, 16)?;
            ensure!(set_of & !most == 0, "{name}: {set} {set_of:x}");
        }
        for (what, expected) in [("NoNewPrivs:", "1"), ("Seccomp:", "2")] {
            ensure!(field(&status, what)? == expected, "{name}: {what} is not {expected}");
        }
    }
    ensure!(
        !portald.log().contains("privileges") && !portald.log().contains("filter of system calls"),
        "{}",
        portald.log()
    );
    done(&lab, &["zones", "detach", "second", "--open"])?;
    a_guest(&visitor)
}

#[test]
fn portald_starts_with_the_capabilities_that_it_names_and_no_others() -> Result<()> {
    let lab = lab()?;
    let settings = config_text(&lab, &Settings::default());
    fs::write(config_path(&lab), settings)?;
    // CAP_IPC_LOCK stands for a LimitMEMLOCK that suffices.
    let kept = "-all,+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock";
    let mut command = lab.gateway.service("setpriv");
    command.arg(format!("--bounding-set={kept}")).arg(binary("portald")?);
    command.arg("--config").arg(config_path(&lab)).env("NO_COLOR", "1");
    let service = Service::start("portald", &mut command, &lab.directory().join("limited.log"))?;
    wait_for("portald's answer", Duration::from_secs(10), || {
        portalctl(&lab, &["status"]).ok().filter(|output| output.code == Some(0))
    })
    .with_context(|| service.log())?;
    a_stranger(&lab.guest).with_context(|| service.log())?;
    // It can't mount what is unmounted, and says so; when somebody does, it pins the gate anew.
    let directory = version(&lab)?;
    let pinned = names(&directory)?;
    unmount(lab.bpffs(), UnmountFlags::DETACH)?;
    wait_for("a complaint", NOTICE, || service.log().contains("the network is OPEN; mount it").then_some(()))
        .with_context(|| service.log())?;
    a_stranger(&lab.guest)?;
    succeed(portal_tools::command("mount").args(["-t", "bpf", "bpf"]).arg(lab.bpffs()))?;
    wait_for("the pins", NOTICE, || names(&directory).is_ok_and(|names| names == pinned).then_some(()))
        .with_context(|| service.log())
}

#[test]
fn a_capture_can_be_read_by_nobody_else() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    let file = lab.directory().join("guest.pcapng");
    fs::write(&file, "earlier")?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    let written = file.to_string_lossy();
    done(&lab, &["capture", "--client", GUEST_MAC, "--write", &written, "--seconds", "1"])?;
    let metadata = fs::metadata(&file)?;
    ensure!(metadata.mode() & 0o7777 == 0o600 && metadata.len() > 0, "{:o}", metadata.mode());
    Ok(())
}

#[test]
fn however_many_watch_and_ask_root_is_answered() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    done(&lab, &["allow", GUEST_MAC])?;
    let names: Vec<_> = (0..34).map(|number| format!("monitor{number}")).collect();
    let mut monitors =
        names.iter().map(|name| portalctl_start(&lab, name, &["monitor"])).collect::<Result<Vec<_>>>()?;
    done(&lab, &["revoke", GUEST_MAC])?;
    for monitor in &mut monitors {
        ensure!(monitor.ended()?.is_none(), "a monitor has ended: {}", monitor.log());
    }
    a_stranger(&lab.guest)?;
    // Ten thousand calls, sixty at once; and two thousand at once.
    for (calls, at_once) in [(10_000, 60), (2_000, 2_000)] {
        let answered = status_calls(&socket(&lab), calls, at_once);
        ensure!(answered == calls, "{answered} of {calls}, {at_once} at once");
    }
    Ok(())
}

/// How many of these calls of `/v1/status` are answered.
fn status_calls(socket: &Path, calls: usize, at_once: usize) -> usize {
    let left = AtomicUsize::new(calls);
    let call = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: portald\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200 "))
    };
    let caller = || {
        let mut answered = 0;
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            answered += usize::from(call().unwrap_or(false));
        }
        answered
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..at_once).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap_or(0)).sum()
    })
}
