//! The lab by itself, without portald: what a test sees behind the portal is there without it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use portal_lab::{
    Lab,
    clients::{
        browser,
        http::{self, Family},
        network_manager::NetworkManager,
    },
    lab::SITE_PAGE,
    process::{Service, sh, wait_for},
};
use rustix::{
    fs::{FlockOperation, flock},
    process::Signal,
};

use crate::turn::lab;

/// The namespaces of the lab that this process has made.
fn namespaces(pid: u32) -> Result<Vec<String>> {
    let names = sh("ip netns list")?;
    let names = names.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    Ok(names.filter(|name| name.starts_with(&format!("pl{pid}-"))).collect())
}

/// Starts `lab up` and waits until it is up.
fn lab_up(log: &Path) -> Result<Service> {
    let up = Service::start("lab up", portal_tools::command(env!("CARGO_BIN_EXE_lab")).arg("up"), log)?;
    wait_for("a lab", Duration::from_secs(30), || up.log().contains("Ctrl-C").then_some(()))?;
    assert_eq!(namespaces(up.pid())?.len(), 4);
    Ok(up)
}

#[test]
fn a_signal_removes_the_lab_and_a_kill_leaves_it_to_the_next() -> Result<()> {
    let lab = lab()?;
    let log = lab.directory().join("up.log");
    let mut up = lab_up(&log)?;
    up.signal(Signal::INT)?;
    assert_eq!(up.wait(Duration::from_secs(15))?.code(), Some(0));
    assert_eq!(namespaces(up.pid())?, Vec::<String>::new());

    std::fs::remove_file(&log)?;
    let mut up = lab_up(&log)?;
    let files = std::fs::read_dir("/run/portal-lab")?.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let files: Vec<_> = files.filter(|name| name.starts_with(&format!("pl{}-", up.pid()))).collect();
    assert_eq!(files.len(), 1);
    up.kill()?;
    // And one of which a namespace is all that is left, by a process that cannot be: Linux has no such pid.
    sh("ip netns add pl4999999-0-guest")?;
    drop(Lab::new()?);
    assert_eq!(namespaces(4_999_999)?, Vec::<String>::new());
    assert_eq!(namespaces(up.pid())?, Vec::<String>::new());
    let left = Path::new("/run/portal-lab").join(&files[0]);
    assert!(!left.exists(), "{} is still there", left.display());
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    assert!(!mounts.contains(&files[0]), "{mounts}");
    Ok(())
}

#[test]
fn the_lab_of_another_build_or_pid_namespace_is_left_alone() -> Result<()> {
    let _lab = lab()?;
    let make = |name: &str, owner: &str| -> Result<PathBuf> {
        let directory = Path::new("/run/portal-lab").join(name);
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("owner"), owner)?;
        Ok(directory)
    };
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let began = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).context("no start time")?;
    // Linux has no such pids: a pid of another namespace may well be one that is not here.
    let by_pid = make("pl4999997-0", &format!("{} {began}", std::process::id()))?;
    let by_lock = make("pl4999997-1", "4999997 1")?;
    let lock = File::open(by_lock.join("owner"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let young = Path::new("/run/portal-lab/pl4999997-2");
    std::fs::create_dir(young)?;
    let dead = make("pl4999997-3", "4999997 1")?;
    drop(Lab::new()?);
    assert_eq!([by_pid.exists(), by_lock.exists(), young.exists(), dead.exists()], [true, true, true, false]);
    // Now the first two are as the last was.
    drop(lock);
    std::fs::write(by_pid.join("owner"), "4999997 1")?;
    std::fs::remove_dir(young)?;
    drop(Lab::new()?);
    assert_eq!([by_pid.exists(), by_lock.exists()], [false, false]);
    Ok(())
}

#[test]
fn every_client_reaches_the_site() -> Result<()> {
    let lab = lab()?;
    for namespace in [&lab.guest, &lab.other] {
        for family in Family::ALL {
            let response = http::get(namespace, family, "http://www.example.com/")?;
            assert_eq!((response.status, response.body.as_str()), (200, SITE_PAGE), "{family:?}");
            let wget = http::wget(namespace, family, "http://www.example.com/")?;
            assert_eq!((wget.code, wget.stdout.as_str()), (Some(0), SITE_PAGE), "{}", wget.stderr);
        }
    }
    assert_eq!(http::python_requests(&lab.guest, "http://www.example.com/")?, (200, SITE_PAGE.to_owned()));
    assert!(browser::document(&lab, "http://www.example.com/")?.contains("This page is from the internet."));
    assert_eq!(http::curl(&lab.guest, &["-k", "https://www.example.com/"])?.success()?, SITE_PAGE);
    let manager = NetworkManager::start(&lab)?;
    assert_eq!(manager.connectivity(&lab)?, "full", "{}", manager.log());
    Ok(())
}
