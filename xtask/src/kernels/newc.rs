//! An archive in cpio's `newc` format, which the kernel unpacks into its first root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What is at a path.
enum Node {
    Directory,
    File { mode: u32, bytes: Vec<u8> },
}

/// An archive in the making. Its directories come by themselves.
#[derive(Default)]
pub(super) struct Archive {
    // In the order of their paths: what is in a directory comes behind it, as the kernel demands.
    nodes: BTreeMap<PathBuf, Node>,
}

impl Archive {
    /// Adds an empty directory.
    pub(super) fn directory(&mut self, path: impl AsRef<Path>) {
        for directory in relative(path.as_ref()).ancestors().filter(|path| !path.as_os_str().is_empty()) {
            self.nodes.entry(directory.to_owned()).or_insert(Node::Directory);
        }
    }

    /// Adds a file, in place of one that was there.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, mode: u32, bytes: Vec<u8>) {
        let path = relative(path.as_ref());
        if let Some(directory) = path.parent() {
            self.directory(directory);
        }
        self.nodes.insert(path.to_owned(), Node::File { mode, bytes });
    }

    /// Whether something is there.
    pub(super) fn holds(&self, path: impl AsRef<Path>) -> bool {
        self.nodes.contains_key(relative(path.as_ref()))
    }

    /// The archive.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, node)) in (1..).zip(&self.nodes) {
            let (mode, bytes): (u32, &[u8]) = match node {
                Node::Directory => (0o040_755, &[]),
                Node::File { mode, bytes } => (0o100_000 | mode, bytes),
            };
            append(&mut out, number, path.as_os_str().as_bytes(), mode, bytes);
        }
        append(&mut out, 0, b"TRAILER!!!", 0, &[]);
        out
    }
}

/// Paths in the archive are relative to its root.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn append(out: &mut Vec<u8>, inode: u32, name: &[u8], mode: u32, bytes: &[u8]) {
    let size = u32::try_from(bytes.len()).expect("no file here has 4 GiB, more than the format's eight digits hold");
    let name_size = u32::try_from(name.len() + 1).expect("no path has 4 GiB");
    // Owner and group are root, there is one link, and the time and the devices are of no interest.
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    out.extend(b"070701");
    out.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    out.extend(name);
    out.push(0);
    pad(out);
    out.extend(bytes);
    pad(out);
}

/// Name and content each end at a multiple of four bytes.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_kernels_documentation_says() {
        let mut archive = Archive::default();
        archive.file("/bin/x", 0o755, b"hello".to_vec());
        archive.directory("/proc");
        let line = |fields: &str, rest: &str| format!("070701{}{rest}", fields.replace(' ', ""));
        let zero = "00000000";
        let expected = [
            line(
                &format!(
                    "00000001 000041ed {zero} {zero} 00000001 {zero} {zero} {zero} {zero} {zero} {zero} 00000004 {zero}"
                ),
                "bin\0\0\0",
            ),
            line(
                &format!(
                    "00000002 000081ed {zero} {zero} 00000001 {zero} 00000005 {zero} {zero} {zero} {zero} 00000006 {zero}"
                ),
                "bin/x\0hello\0\0\0",
            ),
            line(
                &format!(
                    "00000003 000041ed {zero} {zero} 00000001 {zero} {zero} {zero} {zero} {zero} {zero} 00000005 {zero}"
                ),
                "proc\0\0",
            ),
            line(
                &format!(
                    "{zero} {zero} {zero} {zero} 00000001 {zero} {zero} {zero} {zero} {zero} {zero} 0000000b {zero}"
                ),
                "TRAILER!!!\0\0\0\0",
            ),
        ];
        assert_eq!(String::from_utf8(archive.to_bytes()).expect("ASCII"), expected.concat());
    }
}
