//! The first and only root file system of the machine in software: busybox, the kernel's modules, and the tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::newc::Archive;
use super::programs::Program;
use crate::child::named;
use crate::requirements::BUSYBOX;
use crate::{environment, unpack};

/// What the tests and the lab's links need of a kernel that has it as modules. What these depend on comes with them.
const MODULES: [&str; 6] = ["veth", "8021q", "bridge", "macvlan", "sch_ingress", "cls_bpf"];

/// How many generated frames the differential test tries: enough in a processor that is software.
const FRAMES: u32 = 5_000;

/// The lab's programs. They hide busybox's, whose `ip` and `mount` lack some of what the lab asks of them.
const TOOLS: [&str; 14] = [
    "ip", "tc", "ss", "ethtool", "nsenter", "unshare", "setpriv", "mount", "umount", "dnsmasq", "nginx", "openssl",
    "curl", "tcpdump",
];

/// The binaries that the lab runs, and where it is told to look for them ([`init.sh`](init.sh)).
const BINARIES: [&str; 2] = ["portald", "portalctl"];

/// Files that these programs read.
const FILES: [(&str, &str); 4] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n\
      tcpdump:x:100:100:tcpdump:/tmp:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\ntcpdump:x:100:\n"),
    // Nothing is asked of it: `ip netns exec` puts the namespace's own in its place.
    ("etc/resolv.conf", ""),
    // openssl refuses to make a certificate without one; what it is to hold is in its arguments.
    ("usr/lib/ssl/openssl.cnf", "[req]\ndistinguished_name = subject\n[subject]\n"),
];

/// Makes the archive for the kernel whose package is unpacked in `kernel`.
pub(super) fn make(kernel: &Path, programs: &[Program]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, include_str!("init.sh").replace("@FRAMES@", &FRAMES.to_string()).into_bytes());
    archive.directory("tmp");
    let busybox = unpack::directory(&BUSYBOX).join("bin/busybox");
    archive.file("bin/busybox", 0o755, read(&busybox)?);
    for (number, (name, bytes)) in (10..).zip(modules(kernel, &busybox)?) {
        archive.file(format!("modules/{number}-{name}.ko"), 0o644, bytes);
    }
    for tool in TOOLS {
        let program = portal_tools::find(tool).with_context(|| format!("{tool} is not installed"))?;
        executable(&mut archive, &Path::new("usr/bin").join(tool), &program)?;
    }
    for binary in BINARIES {
        executable(
            &mut archive,
            &Path::new("binaries").join(binary),
            &environment::target().join("debug").join(binary),
        )?;
    }
    for (file, text) in FILES {
        archive.file(file, 0o644, text.as_bytes().to_vec());
    }
    for (number, program) in (1..).zip(programs) {
        let directory = PathBuf::from(format!("tests/{number}-{}", program.name));
        executable(&mut archive, &directory.join("run"), &program.executable)?;
        archive.file(directory.join("arguments"), 0o644, program.arguments.join(" ").into_bytes());
    }
    Ok(archive.to_bytes())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Adds a program and the shared libraries that it needs, which stay where the linker looks for them.
fn executable(archive: &mut Archive, place: &Path, program: &Path) -> Result<()> {
    archive.file(place, 0o755, read(program)?);
    let mut command = portal_tools::command("ldd");
    command.arg(program).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {}", named(&command)))?;
    let shown = String::from_utf8_lossy(&output.stdout);
    if shown.contains("not found") {
        bail!("{} lacks a library:\n{shown}", program.display());
    }
    // A static program has none, and ldd fails.
    for library in libraries(&shown).filter(|_| output.status.success()) {
        if !archive.holds(library) {
            archive.file(library, 0o755, read(library)?);
        }
    }
    Ok(())
}

/// Of `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x..)` and `/lib64/ld-linux-x86-64.so.2 (0x..)`, the paths.
fn libraries(shown: &str) -> impl Iterator<Item = &Path> {
    shown.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(Path::new)
}

/// The modules, each behind those that it needs.
fn modules(kernel: &Path, busybox: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    for directory in ["lib/modules", "usr/lib/modules"] {
        index(&kernel.join(directory), &mut files)?;
    }
    if files.is_empty() {
        bail!("no module is in {}: remove that directory, and it is made again", kernel.display());
    }
    let mut ordered = Vec::new();
    for name in MODULES {
        append_module(name, &files, busybox, &mut Vec::new(), &mut ordered)?;
    }
    Ok(ordered)
}

/// Appends the module behind those that it needs. `wanting` are those that this one is needed by.
fn append_module(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    busybox: &Path,
    wanting: &mut Vec<String>,
    ordered: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    // What is no module here is built into the kernel; if it is not, a test fails that needs it.
    let Some(file) = files.get(name).filter(|_| !ordered.iter().any(|(done, _)| done == name)) else { return Ok(()) };
    if wanting.iter().any(|one| one == name) {
        bail!("the kernel's modules {} need each other", wanting.join(" "));
    }
    let bytes = module(file, busybox)?;
    wanting.push(name.to_owned());
    for needed in dependencies(&bytes) {
        append_module(&needed, files, busybox, wanting, ordered)?;
    }
    wanting.pop();
    ordered.push((name.to_owned(), bytes));
    Ok(())
}

/// Every module below `directory`, by the name that others know it by.
fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let path = entry.path();
        if entry.file_type().with_context(|| format!("cannot look at {}", path.display()))?.is_dir() {
            index(&path, files)?;
        } else if let Some((name, "" | ".xz")) = entry.file_name().to_str().and_then(|name| name.split_once(".ko")) {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The module's bytes. Debian's are compressed from Linux 6.12 on.
fn module(file: &Path, busybox: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return read(file);
    }
    let mut command = portal_tools::command(busybox);
    command.arg("xzcat").arg(file).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot start {}", named(&command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", named(&command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The modules that this one says it needs: `depends=a,b` among the NUL-terminated strings of its section `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|byte| *byte == 0);
    let depends = strings.find_map(|text| str::from_utf8(text.strip_prefix(b"depends=")?).ok()).unwrap_or_default();
    depends.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let shown = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(shown).collect();
        assert_eq!(found, [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
    }

    #[test]
    fn a_module_comes_behind_what_it_needs() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let modules_of = |directory: &Path| {
            modules(directory, Path::new("/nonexistent"))
                .map(|list| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" "))
        };
        let write = |name: &str, depends: &str| {
            let place = directory.path().join("lib/modules/6.1/kernel").join(name);
            fs::create_dir_all(place.parent().expect("below")).expect("a directory");
            fs::write(place, format!("\x7fELF\0license=GPL\0depends={depends}\0")).expect("a file");
        };
        assert!(modules_of(directory.path()).is_err(), "no modules at all");
        for (name, depends) in
            [("net/8021q.ko", "mrp,garp"), ("mrp.ko", ""), ("garp.ko", "stp"), ("stp.ko", "llc"), ("llc.ko", "")]
        {
            write(name, depends);
        }
        write("veth.ko", "");
        assert_eq!(modules_of(directory.path()).expect("ordered"), "veth mrp llc stp garp 8021q");
        write("llc.ko", "stp");
        assert!(modules_of(directory.path()).is_err(), "a circle");
    }
}
