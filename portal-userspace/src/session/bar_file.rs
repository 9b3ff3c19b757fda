//! The file that says whom an operator keeps out: what he says outlives a restart of the machine.
//!
//! It is written whole beside the old one, and then takes its place, so that there is one at any instant, and a whole one. Only root can read it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    admission::BarCause,
    bars::{Bars, OperatorBar, Reason},
    image::UnixMs,
};
use crate::net::Mac;

const NAME: &str = "blocks.json";
const VERSION: u32 = 1;
/// Larger than any that is written here.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What to do about a file that can't be used.
const REMEDY: &str = "restore a copy, or delete it: then nobody is blocked";

/// The file in the state directory.
pub(super) struct BarFile {
    directory: PathBuf,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    blocks: Vec<Record>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    zone: String,
    mac: Mac,
    cause: BarCause,
    /// Milliseconds since 1970, as `until`.
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

impl BarFile {
    /// The file in this directory. Nothing is made or changed.
    pub(super) fn below(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Everybody in it; nobody where there is none. One that is damaged is an error: else whoever is in it would be let in.
    pub(super) fn read(&self) -> Result<Bars> {
        let path = self.path();
        let context = || format!("cannot read {}", path.display());
        match fs::metadata(&path) {
            Ok(metadata) => {
                self.check_directory()?;
                ensure!(metadata.len() <= MAX_BYTES, "{} is too large to be portald's: {REMEDY}", path.display());
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Bars::default()),
            Err(e) => return Err(e).with_context(context),
        }
        let bytes = fs::read(&path).with_context(context)?;
        let Content { version, blocks } =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged: {REMEDY}", path.display()))?;
        if version != VERSION {
            bail!("{} is of version {version}, and this portald reads version {VERSION}: {REMEDY}", path.display());
        }
        let bar = |Record { zone, mac, cause, since, until, reason }| {
            (zone, mac, OperatorBar { cause, since: UnixMs(since), until: until.map(UnixMs), reason })
        };
        Ok(blocks.into_iter().map(bar).collect())
    }

    /// Writes everybody into it. When this returns, it is on the disk.
    pub(super) fn write(&self, bars: &Bars) -> Result<()> {
        let record = |(zone, mac, bar): (&str, Mac, &OperatorBar)| Record {
            zone: zone.to_owned(),
            mac,
            cause: bar.cause,
            since: bar.since.0,
            until: bar.until.map(|until| until.0),
            reason: bar.reason.clone(),
        };
        let content = Content { version: VERSION, blocks: bars.iter().map(record).collect() };
        let mut bytes = serde_json::to_vec_pretty(&content).context("cannot encode the blocks")?;
        bytes.push(b'\n');
        let directory = &self.directory;
        DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(|| {
            format!("cannot create {}; set `paths.state` to a directory that can be", directory.display())
        })?;
        self.check_directory()?;
        let (path, new) = (self.path(), directory.join(format!("{NAME}.new")));
        let written = replace(&path, &new, &bytes).and_then(|()| File::open(directory)?.sync_all());
        written.with_context(|| format!("cannot write {}; see that there is room", path.display()))
    }

    /// Refuses a directory in which another user could put a file.
    fn check_directory(&self) -> Result<()> {
        let directory = &self.directory;
        let metadata = fs::metadata(directory).with_context(|| format!("cannot look at {}", directory.display()))?;
        let (own, owner) = (rustix::process::geteuid().as_raw(), metadata.uid());
        ensure!(
            metadata.is_dir() && (owner == own || owner == 0) && metadata.mode() & 0o022 == 0,
            "{} is not only root's: `chown root:root` and `chmod 0700` it, or set `paths.state` to another directory",
            directory.display()
        );
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }
}

/// Writes these bytes under the new name, and then gives them the path.
fn replace(path: &Path, new: &Path, bytes: &[u8]) -> io::Result<()> {
    // A daemon that was killed has left it.
    match fs::remove_file(new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn bars() -> Bars {
        let bar = |until, reason: Option<&str>| OperatorBar {
            cause: BarCause::Blocked,
            since: UnixMs(5),
            until,
            reason: reason.map(|text| text.parse().unwrap()),
        };
        let mac = |last| Mac::new([2, 0, 0, 0, 0, last]).unwrap();
        Bars::from_iter([
            ("guest".to_owned(), mac(1), bar(None, Some("sold the \"password\""))),
            ("staff".to_owned(), mac(1), bar(Some(UnixMs(77)), None)),
        ])
    }

    #[test]
    fn what_is_written_is_read_and_only_root_can() {
        let root = tempfile::tempdir().unwrap();
        let file = BarFile::below(&root.path().join("state/portal"));
        assert_eq!(file.read().unwrap(), Bars::default(), "there is none");
        assert!(!file.directory.exists(), "and none is made");
        for _ in 0..2 {
            fs::create_dir_all(&file.directory).unwrap();
            fs::write(file.directory.join("blocks.json.new"), "half of i").unwrap();
            file.write(&bars()).unwrap();
            assert_eq!(file.read().unwrap(), bars());
        }
        assert_eq!(fs::read_dir(&file.directory).unwrap().count(), 1, "nothing else is left");
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, 0o600);
        let made = BarFile::below(&root.path().join("other"));
        made.write(&bars()).unwrap();
        assert_eq!(fs::metadata(&made.directory).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_cannot_be_believed_is_refused_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let file = BarFile::below(root.path());
        file.write(&bars()).unwrap();
        let whole = fs::read_to_string(file.path()).unwrap();
        let table = [
            ("cut off", whole[..whole.len() / 2].to_owned(), "damaged"),
            ("empty", String::new(), "damaged"),
            ("of another version", whole.replace("\"version\": 1", "\"version\": 2"), "version 2"),
            ("with another key", whole.replace("\"since\"", "\"sinse\""), "damaged"),
            ("with a group's address", whole.replace("02:00:00:00:00:01", "01:00:00:00:00:01"), "damaged"),
        ];
        for (sentence, text, part) in table {
            fs::write(file.path(), text).unwrap();
            let error = format!("{:#}", file.read().expect_err(sentence));
            assert!(error.contains(part) && error.contains("delete it"), "{sentence}: {error}");
        }
        fs::write(file.path(), &whole).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        for error in [file.read().expect_err("anybody's"), file.write(&bars()).expect_err("anybody's")] {
            assert!(format!("{error:#}").contains("chmod 0700"), "{error:#}");
        }
    }
}
