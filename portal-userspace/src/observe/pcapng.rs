//! Frames with what was done with them, as a pcapng stream (draft-ietf-opsawg-pcapng) that Wireshark and tcpdump read.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgBlock, PcapNgWriteError, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution},
            opt_common::CommonOption,
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

/// Where the frame's two MAC addresses end, and a VLAN tag belongs.
const TAG_AT: usize = 12;
/// `epb_flags`: the frame's direction, seen from the interface.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A frame, and what was done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedFrame {
    /// When, since 1970.
    pub at: Duration,
    /// The interface's index.
    pub ifindex: u32,
    /// As many of its bytes as there are.
    pub bytes: Vec<u8>,
    /// How long it is, bytes.
    pub whole_len: u32,
    /// A VLAN tag that stands beside the bytes: its EtherType and tag control information.
    pub tag: Option<(u16, u16)>,
    /// Whether it goes to the client.
    pub outbound: bool,
    /// What was done with it and why.
    pub comment: String,
}

/// Writes a stream, block by block.
pub struct PcapngStream {
    writer: PcapNgWriter<Vec<u8>>,
    /// Which of the stream's interfaces an index stands for.
    interfaces: HashMap<u32, u32>,
}

impl PcapngStream {
    /// A stream of this client's frames, which says so at its beginning.
    pub fn new(comment: &str) -> Result<Self, PcapNgWriteError> {
        let options = vec![
            SectionHeaderOption::UserApplication(Cow::Owned(format!("Portal {}", env!("CARGO_PKG_VERSION")))),
            SectionHeaderOption::Common(CommonOption::Comment(Cow::Borrowed(comment))),
        ];
        let section = SectionHeaderBlock { options, ..SectionHeaderBlock::default() };
        let writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        Ok(Self { writer, interfaces: HashMap::new() })
    }

    /// A frame. `interface` names its interface, and is asked once for each; `lost` frames before it found no room.
    pub fn frame(
        &mut self,
        frame: &CapturedFrame,
        interface: impl FnOnce() -> String,
        lost: u64,
    ) -> Result<(), PcapNgWriteError> {
        let interface_id = if let Some(id) = self.interfaces.get(&frame.ifindex) {
            *id
        } else {
            let id = u32::try_from(self.interfaces.len()).expect("there are no 2^32 interfaces");
            self.writer.write_pcapng_block(description(&interface()))?;
            self.interfaces.insert(frame.ifindex, id);
            id
        };
        let data = match frame.tag {
            Some((kind, tag)) if frame.bytes.len() >= TAG_AT => {
                let (addresses, rest) = frame.bytes.split_at(TAG_AT);
                Cow::Owned([addresses, &kind.to_be_bytes(), &tag.to_be_bytes(), rest].concat())
            }
            _ => Cow::Borrowed(&frame.bytes[..]),
        };
        let added = data.len() - frame.bytes.len();
        let mut options = vec![
            EnhancedPacketOption::Flags(if frame.outbound { OUTBOUND } else { INBOUND }),
            EnhancedPacketOption::Common(CommonOption::Comment(Cow::Borrowed(&frame.comment))),
        ];
        if lost > 0 {
            options.push(EnhancedPacketOption::DropCount(lost));
        }
        let original_len = (frame.whole_len as usize + added).max(data.len());
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: frame.at,
            original_len: u32::try_from(original_len).unwrap_or(u32::MAX),
            data,
            options,
        };
        self.writer.write_block(&block.into_block()).map(drop)
    }

    /// What has been written since the last time: whole blocks.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}

fn description(name: &str) -> InterfaceDescriptionBlock<'_> {
    InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        // No limit that is worth a number: a frame's own lengths tell what is missing.
        snaplen: 0,
        options: vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
            InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        build::{FrameSpec, Surroundings},
        input,
    };

    fn frames() -> (Vec<u8>, [CapturedFrame; 3]) {
        let around = Surroundings {
            gateway_mac: [2, 0, 0, 0, 0, 1],
            mac: [2, 0, 0, 0, 1, 1],
            host_v4: Some([192, 0, 2, 50].into()),
            host_v6: None,
            gateway_v4: None,
        };
        let bytes = FrameSpec::default().build(&around).unwrap();
        let frame = |ifindex, outbound, tag, whole_len, comment: &str| CapturedFrame {
            at: Duration::new(1_700_000_000, 123_456_789),
            ifindex,
            bytes: bytes.clone(),
            whole_len,
            tag,
            outbound,
            comment: comment.into(),
        };
        let frames = [
            frame(7, false, None, 60, "answered: http_handshake: why"),
            frame(9, true, None, 1_514, "passed"),
            frame(7, true, Some((0x8100, 0x2064)), 60, "dropped: rate_down: why"),
        ];
        (bytes, frames)
    }

    fn stream(frames: &[CapturedFrame]) -> Vec<u8> {
        let mut stream = PcapngStream::new("of 02:00:00:00:01:01").unwrap();
        let mut file = stream.take();
        for (lost, frame) in (0..).zip(frames) {
            stream.frame(frame, || format!("eth{}", frame.ifindex), lost).unwrap();
            file.extend(stream.take());
        }
        file
    }

    #[test]
    fn tshark_reads_frames_with_comment_direction_time_and_interface() {
        let (_, frames) = frames();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), stream(&frames)).unwrap();
        let mut tshark = portal_tools::command("tshark");
        tshark.args(["-T", "fields", "-E", "separator=|", "-r"]).arg(file.path());
        for field in [
            "frame.time_epoch",
            "frame.interface_name",
            "frame.packet_flags_direction",
            "frame.len",
            "frame.cap_len",
            "vlan.id",
            "tcp.dstport",
            "frame.comment",
        ] {
            tshark.args(["-e", field]);
        }
        let output = tshark.output().expect("tshark is installed");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let time = "1700000000.123456789";
        // The direction is written in decimal or in hexadecimal, by the version.
        let text = text.replace("0x00000001", "1").replace("0x00000002", "2");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                format!("{time}|eth7|1|60|60||80|answered: http_handshake: why"),
                format!("{time}|eth9|2|1514|60||80|passed"),
                format!("{time}|eth7|2|64|64|100|80|dropped: rate_down: why"),
            ]
        );
    }

    #[test]
    fn what_is_written_is_read_back_as_frames() {
        let (bytes, [inbound, _, tagged]) = frames();
        let file = stream(&[inbound, tagged]);
        let tag = [0x81, 0, 0x20, 0x64];
        assert_eq!(input::read(&file), Ok(vec![bytes.clone(), [&bytes[..12], &tag, &bytes[12..]].concat()]));
    }
}
