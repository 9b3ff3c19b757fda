//! Removing labs: one's own, those of a process that a signal ends, and those whose process is gone.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

use crate::process::{run, sh};

/// Where every lab has its directory.
pub(crate) const LABS: &str = "/run/portal-lab";
/// Where iproute2 keeps the files that `ip netns exec` mounts over those of /etc.
const NETNS_ETC: &str = "/etc/netns";
/// The parts of a lab, as the namespaces' names end.
pub(crate) const PARTS: [&str; 4] = ["guest", "other", "gateway", "internet"];
/// The parts that a lab gets on demand.
pub(crate) const THIRD: &str = "third";
pub(crate) const VISITOR: &str = "visitor";
/// The file in a lab's directory that names the process that made it and is locked for as long as that process lives.
const OWNER: &str = "owner";

/// The labs of this process, with their locked owner files.
static OURS: Mutex<BTreeMap<String, File>> = Mutex::new(BTreeMap::new());
/// A signal has come that ends this process.
static SIGNALLED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// With what the process exits at a signal that is its ordinary end; [`INTERRUPTED`] where none has been announced.
static EXIT_CODE: AtomicI32 = AtomicI32::new(INTERRUPTED);
/// A signal interrupts what the process is at: it exits with 128 and the signal's number.
const INTERRUPTED: i32 = -1;
/// The signals that end a process with labs, and what they are called.
const SIGNALS: [(i32, &str); 3] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP")];

/// Prints the text, which says that a signal is the end, and waits for it; the process then removes its labs and exits with this code.
///
/// A signal that came before is no such end: then nothing is printed any more.
pub fn announce_and_wait_for_signal(text: &str, exit_code: i32) -> ! {
    {
        // Held, so that the removal sees both the text and the code, or neither.
        let _held = give_way();
        println!("{text}");
        EXIT_CODE.store(exit_code, Ordering::Relaxed);
    }
    wait_for_the_end()
}

/// Tells the error, if there is one, and exits with this code, unless a signal came before, whose exit it then is.
pub fn exit(code: i32, error: Option<&str>) -> ! {
    // Held until the end, so that a signal from now on is too late to say anything else.
    let _held = give_way();
    if let Some(error) = error {
        eprintln!("{error}");
    }
    std::process::exit(code)
}

/// Lets a signal that has come end the process. What came of a step is worth nothing from then on: the terminal sends Ctrl-C to the
/// step's own processes as well, and the removal takes away what the step is made of.
pub(crate) fn give_way() -> impl Drop {
    let held = ours();
    if SIGNALLED.load(Ordering::SeqCst) {
        drop(held);
        wait_for_the_end()
    }
    held
}

/// Waits for the thread that a signal has woken or will wake, and that ends the process.
fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

/// The parts that a lab may have.
fn parts() -> impl Iterator<Item = &'static str> {
    PARTS.into_iter().chain([THIRD, VISITOR])
}

fn ours() -> MutexGuard<'static, BTreeMap<String, File>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lab's directory.
pub(crate) fn directory(lab: &str) -> PathBuf {
    Path::new(LABS).join(lab)
}

/// A lab that goes when this is dropped, or when this process does.
#[derive(Debug)]
pub(crate) struct Registration(String);

impl Registration {
    /// Removes the labs that were abandoned, and makes this one's directory.
    pub(crate) fn of(lab: String) -> Result<(Self, PathBuf)> {
        let directory = register(&lab)?;
        Ok((Self(lab), directory))
    }

    /// The lab's name.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        unregister(&self.0);
    }
}

fn register(lab: &str) -> Result<PathBuf> {
    remove_on_signal();
    fs::create_dir_all(LABS).with_context(|| format!("cannot make {LABS}"))?;
    // Two runners that start at once must not sweep the same lab, nor one that is not locked yet.
    let lock = File::open(LABS)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    remove_abandoned()?;
    let directory = directory(lab);
    let mut ours = ours();
    fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut owner = File::create_new(directory.join(OWNER))?;
    flock(&owner, FlockOperation::NonBlockingLockExclusive)?;
    write!(owner, "{} {}", std::process::id(), start_time(std::process::id())?.unwrap_or(0))?;
    ours.insert(lab.to_owned(), owner);
    Ok(directory)
}

/// Holds off the removal at a signal, which then sees all that was made meanwhile; whoever waits for it here was overtaken by
/// the signal and makes nothing any more.
pub(crate) fn hold_off() -> impl Drop {
    ours()
}

/// Removes a lab of this process.
fn unregister(lab: &str) {
    // Held until it is gone, so that a signal meanwhile ends the process only then.
    let mut ours = ours();
    // A name that another pid namespace's process has taken is not ours.
    if ours.contains_key(lab) {
        remove(lab);
        ours.remove(lab);
    }
}

/// Removes labs whose process is gone, as after a `kill -9`.
fn remove_abandoned() -> Result<()> {
    for entry in fs::read_dir(LABS)? {
        let entry = entry?;
        if !is_alive(&entry.path()) {
            remove(&entry.file_name().to_string_lossy());
        }
    }
    // A namespace that was being made while its process was killed may have no directory any more.
    let Ok(namespaces) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in namespaces {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some((lab, part)) = name.rsplit_once('-') else { continue };
        let owner = lab.strip_prefix("pl").and_then(|rest| rest.split_once('-')?.0.parse().ok());
        let is_gone = |pid| matches!(start_time(pid), Ok(None));
        if parts().any(|known| known == part) && !directory(lab).exists() && owner.is_some_and(is_gone) {
            remove(lab);
        }
    }
    Ok(())
}

/// Whether the lab may still be somebody's. In doubt it is: of two labs at once neither may remove the other, whatever their
/// builds, and an error here (too many open files, for one) says nothing about a process.
fn is_alive(directory: &Path) -> bool {
    let owner = directory.join(OWNER);
    // The lock is what counts: unlike a pid it is not used again, and it is the same in every pid namespace.
    match File::open(&owner).map(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| file)) {
        Ok(Ok(_unlocked)) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // Being made or removed at this instant, unless it is old.
            let age = fs::metadata(directory).and_then(|meta| meta.modified()).map(|modified| modified.elapsed());
            return !matches!(age, Ok(Ok(age)) if age > Duration::from_mins(1));
        }
        Ok(Err(_)) | Err(_) => return true,
    }
    // Without a lock it is still somebody's if that process lives.
    let Ok(text) = fs::read_to_string(&owner) else { return true };
    let Some((pid, start)) =
        text.split_once(' ').and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)))
    else {
        return false;
    };
    start_time(pid).map_or(true, |now| now == Some(start))
}

/// When the live process started, in clock ticks since boot (field 22 of `proc_pid_stat(5)`): a pid alone may have been reused.
/// `None` if there is no such process any more.
fn start_time(pid: u32) -> Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // ESRCH: it ended between the opening and the reading.
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            return Ok(None);
        }
        other => other?,
    };
    // The name, in parentheses, may hold anything; two fields end with it.
    let mut fields = stat.rsplit_once(')').context("no name in the stat file")?.1.split_whitespace();
    // A process that nobody has reaped yet is gone all the same.
    if matches!(fields.next(), Some("Z" | "X")) {
        return Ok(None);
    }
    Ok(Some(fields.nth(18).context("no start time in the stat file")?.parse()?))
}

/// Removes everything of a lab that is there; goes on after an error, and says it.
fn remove(lab: &str) {
    let namespaces = || parts().map(|part| format!("{lab}-{part}"));
    let there = |name: &String| Path::new("/run/netns").join(name).exists();
    for name in namespaces().filter(there) {
        end_processes(&name);
    }
    let directory = directory(lab);
    let _ = unmount(directory.join("bpf"), UnmountFlags::DETACH);
    for name in namespaces().filter(there) {
        complain(sh(&format!("ip netns del {name}")));
    }
    for name in namespaces() {
        let etc = Path::new(NETNS_ETC).join(name);
        if etc.exists() {
            complain(fs::remove_dir_all(&etc).with_context(|| format!("cannot remove {}", etc.display())));
        }
    }
    // Only if no namespace needs it.
    let _ = fs::remove_dir(NETNS_ETC);
    // Last, and only then: whoever finds the directory finds what else there is of the lab.
    if directory.exists() && !namespaces().any(|name| there(&name)) {
        complain(fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display())));
    }
}

/// Kills what still runs in a namespace of ours: nothing else can be in there.
fn end_processes(namespace: &str) {
    for _ in 0..50 {
        let list = run(portal_tools::command("ip").args(["netns", "pids", namespace]), Duration::from_secs(5));
        let Ok(list) = list else { return complain(list) };
        let own = i32::try_from(std::process::id()).ok();
        let pids = list.stdout.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
        let pids: Vec<_> = pids.filter(|pid| Some(*pid) != own).filter_map(Pid::from_raw).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
    say(&format!("processes in {namespace} do not end"));
}

fn complain<T, E: std::fmt::Debug>(result: std::result::Result<T, E>) {
    if let Err(e) = result {
        say(&format!("{e:?}"));
    }
}

/// Tells the user, who may be gone: after SIGHUP the terminal takes nothing any more, and the removal must go on.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "lab: {text}");
}

/// Removes this process's labs when a signal ends it; then it exits as a shell reports that signal, and says so.
pub fn remove_on_signal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // First: who gives way relies on the thread.
        let mut signals = Signals::new(SIGNALS.map(|(signal, _)| signal)).expect("these signals can be caught");
        for (signal, _) in SIGNALS {
            // In the handler itself: the thread may be late, and whoever sees the signal's consequences has to see it, too.
            flag::register(signal, Arc::clone(&SIGNALLED)).expect("these signals can be caught");
        }
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Held until the exit, so that no thread starts or removes a lab meanwhile.
                let ours = ours();
                // Read before anything is removed: what breaks by that must not pass for the ordinary end.
                let announced = EXIT_CODE.load(Ordering::Relaxed);
                if announced == INTERRUPTED {
                    let name =
                        SIGNALS.iter().find(|(number, _)| *number == signal).map_or("a signal", |(_, name)| name);
                    say(&format!("interrupted by {name}; removes what it has made"));
                }
                ours.keys().for_each(|lab| remove(lab));
                std::process::exit(if announced == INTERRUPTED { 128 + signal } else { announced });
            }
        });
    });
}
