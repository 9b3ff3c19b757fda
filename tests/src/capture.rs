//! tcpdump's files: what has been on a wire, to the byte.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{
    lab::Lab,
    namespace::Namespace,
    process::{Service, wait_for},
};

/// A running capture of one interface.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Service,
    file: PathBuf,
}

/// Frames and their bytes, as they are on the wire without the check sequence.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

/// What of a client was captured.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// From it.
    pub up: Sum,
    /// To it.
    pub down: Sum,
}

impl Capture {
    /// Starts to capture. The interface's own receive offload must be off, or frames are captured that have never been.
    pub fn start(lab: &Lab, at: &Namespace, interface: &str) -> Result<Self> {
        let file = lab.directory().join(format!("{}-{interface}.pcap", at.name()));
        let mut command = at.service("tcpdump");
        // Headers are enough, and the buffer (KiB) is large: a capture that misses a frame proves nothing.
        // At once: else what is in the kernel's last block when tcpdump is told to end (up to a second's frames) is lost without a word.
        command.args(["-Z", "root", "--immediate-mode", "-i", interface, "-s", "64", "-B", "131072", "-U", "-w"]);
        command.arg(&file);
        let log = file.with_extension("log");
        let tcpdump = Service::start("tcpdump", &mut command, &log)?;
        wait_for("tcpdump's start", Duration::from_secs(10), || tcpdump.log().contains("listening on").then_some(()))?;
        Ok(Self { tcpdump, file })
    }

    /// Ends it, and adds up what of the client was captured.
    pub fn finish(mut self, client: [u8; 6]) -> Result<Sums> {
        thread::sleep(Duration::from_millis(200));
        self.tcpdump.signal(Signal::INT)?;
        self.tcpdump.wait(Duration::from_secs(10))?;
        let log = self.tcpdump.log();
        ensure!(log.contains("\n0 packets dropped by kernel"), "the capture is not whole: {log}");
        sums(&fs::read(&self.file)?, client)
    }
}

/// Adds up a file in the classic format (pcap-savefile(5)) of this machine's byte order.
fn sums(file: &[u8], client: [u8; 6]) -> Result<Sums> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    ensure!(file.get(..4) == Some(&0xa1b2_c3d4_u32.to_ne_bytes()[..]), "not a capture of this machine");
    let word = |at: usize| -> Result<u32> {
        let bytes = file.get(at..at + 4).context("the capture ends inside of a record")?;
        Ok(u32::from_ne_bytes(bytes.try_into().context("four bytes")?))
    };
    let (mut sums, mut at) = (Sums::default(), HEADER);
    while at < file.len() {
        let (captured, length) = (word(at + 8)? as usize, u64::from(word(at + 12)?));
        let frame = file.get(at + RECORD..at + RECORD + captured).context("the capture ends inside of a frame")?;
        if frame.get(6..12) == Some(&client[..]) {
            sums.up.add(length);
        }
        if frame.get(..6) == Some(&client[..]) {
            sums.down.add(length);
        }
        at += RECORD + captured;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_on_the_wire_are_added_up_by_direction() {
        let (client, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let record = |to: [u8; 6], from: [u8; 6], length: u32| {
            let words = [0, 0, 14, length].map(u32::to_ne_bytes).concat();
            [words, to.to_vec(), from.to_vec(), vec![8, 0]].concat()
        };
        let header = [0xa1b2_c3d4, 0, 0, 0, 64, 1_u32].map(u32::to_ne_bytes).concat();
        let file = [header, record(other, client, 60), record(client, other, 1514), record(client, other, 70)].concat();
        let expected = Sums { up: Sum { packets: 1, bytes: 60 }, down: Sum { packets: 2, bytes: 1584 } };
        assert_eq!(sums(&file, client).expect("it is whole"), expected);
        assert!(sums(&file[..file.len() - 1], client).is_err());
    }
}
