//! Frames as they come: in hexadecimal, as tools print them, or in a capture file.

use pcap_file::{
    DataLink,
    pcap::PcapParser,
    pcapng::{Block, PcapNgParser},
};

/// The shortest frame, bytes: an Ethernet header. The kernel's test run refuses less.
pub const MIN_FRAME: usize = 14;
/// The longest frame, bytes: Ethernet's largest jumbo frames in use, with two VLAN tags.
pub const MAX_FRAME: usize = 9_240;
/// The most frames that are asked about at once.
pub const MAX_FRAMES: usize = 10_000;
/// The largest capture file or text that is read, bytes.
pub const MAX_INPUT: usize = 64 * 1024 * 1024;

/// Why these are no frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// There is none.
    #[error("there is no frame in it; give one in hexadecimal, or a pcap or pcapng file")]
    Empty,
    /// Too much.
    #[error("there are more than {MAX_FRAMES} frames in it; give a part of them (as `editcap -c {MAX_FRAMES}` makes)")]
    TooMany,
    /// It isn't hexadecimal.
    #[error(
        "line {line}: `{text}` is not hexadecimal; write two digits for each byte, as `02 00 5e`, `0200:5e` or `0x02005e`"
    )]
    NotHex {
        /// The line's number, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// The offsets of a dump don't fit together.
    #[error("line {line}: the offset says {says} bytes came before it, but there were {found}; paste the whole dump")]
    Offset {
        /// The line's number, from 1.
        line: usize,
        /// By the offset.
        says: usize,
        /// In truth.
        found: usize,
    },
    /// Shorter than an Ethernet header.
    #[error(
        "frame {number} has {len} bytes; an Ethernet frame has at least {MIN_FRAME} (`tcpdump -xx` shows the Ethernet header, -x does not)"
    )]
    Short {
        /// Which, from 1.
        number: usize,
        /// Its length.
        len: usize,
    },
    /// Longer than any.
    #[error("frame {number} has {len} bytes, more than the {MAX_FRAME} of the longest Ethernet frame")]
    Long {
        /// Which, from 1.
        number: usize,
        /// Its length.
        len: usize,
    },
    /// A part of a frame would be judged otherwise than the whole.
    #[error("frame {number} was captured in part only ({len} of {whole} bytes); capture whole frames (`tcpdump -s 0`)")]
    Partial {
        /// Which, from 1.
        number: usize,
        /// What there is of it.
        len: usize,
        /// Its length on the wire.
        whole: usize,
    },
    /// Other frames than Ethernet's.
    #[error(
        "the file holds frames of link type {0}, not of Ethernet; capture on the guest interface itself, not on `any`"
    )]
    LinkType(String),
    /// Not a file of either kind, or broken.
    #[error("the file can't be read as pcap or pcapng: {0}")]
    File(String),
}

/// Reads a capture file or hexadecimal text, whichever it is.
pub fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, InputError> {
    if is_capture(bytes) {
        return capture(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => hex(text),
        Err(_) => Err(InputError::File("it begins like neither, and is no hexadecimal text".into())),
    }
}

/// Whether it begins as a pcap or a pcapng file does.
pub fn is_capture(bytes: &[u8]) -> bool {
    const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
    const PCAP_MICRO: u32 = 0xa1b2_c3d4;
    const PCAP_NANO: u32 = 0xa1b2_3c4d;
    bytes.first_chunk().is_some_and(|magic| {
        let numbers = [u32::from_be_bytes(*magic), u32::from_le_bytes(*magic)];
        *magic == PCAPNG || numbers.iter().any(|n| [PCAP_MICRO, PCAP_NANO].contains(n))
    })
}

/// The frames in a pcap or pcapng file.
pub fn capture(bytes: &[u8]) -> Result<Vec<Vec<u8>>, InputError> {
    if !is_capture(bytes) {
        return Err(InputError::File("it begins like neither".into()));
    }
    let mut frames = Frames::default();
    if bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        pcapng(bytes, &mut frames)?;
    } else {
        pcap(bytes, &mut frames)?;
    }
    frames.done()
}

fn pcap(bytes: &[u8], frames: &mut Frames) -> Result<(), InputError> {
    let broken = |e: &dyn std::error::Error| InputError::File(in_full(e));
    let (mut rest, parser) = PcapParser::new(bytes).map_err(|e| broken(&e))?;
    ethernet(parser.header().datalink)?;
    while !rest.is_empty() {
        let (after, packet) = parser.next_raw_packet(rest).map_err(|e| broken(&e))?;
        frames.add(&packet.data, packet.orig_len as usize)?;
        rest = after;
    }
    Ok(())
}

fn pcapng(bytes: &[u8], frames: &mut Frames) -> Result<(), InputError> {
    let broken = |e: &dyn std::error::Error| InputError::File(in_full(e));
    let (mut rest, mut parser) = PcapNgParser::new(bytes).map_err(|e| broken(&e))?;
    while !rest.is_empty() {
        let (after, block) = parser.next_block(rest).map_err(|e| broken(&e))?;
        let interface = match &block {
            Block::EnhancedPacket(packet) => Some(packet.interface_id as usize),
            // It has no number: it is of the section's first interface (pcapng section 4.4).
            Block::SimplePacket(_) => Some(0),
            Block::Packet(packet) => Some(usize::from(packet.interface_id)),
            _ => None,
        };
        if let Some(interface) = interface.and_then(|id| parser.interfaces().get(id)) {
            ethernet(interface.linktype)?;
        }
        match &block {
            Block::EnhancedPacket(packet) => frames.add(&packet.data, packet.original_len as usize)?,
            Block::SimplePacket(packet) => frames.add(&packet.data, packet.original_len as usize)?,
            Block::Packet(packet) => frames.add(&packet.data, packet.original_len as usize)?,
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

/// An error and its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        // Some errors repeat their cause's words.
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

fn ethernet(link: DataLink) -> Result<(), InputError> {
    if link == DataLink::ETHERNET { Ok(()) } else { Err(InputError::LinkType(format!("{link:?}"))) }
}

/// Frames in hexadecimal: plain, with spaces, colons, commas or `0x`; or a dump with offsets, as `tcpdump -xx`, `xxd`,
/// `hexdump -C` and Wireshark print it. In a dump offset 0 begins a frame, in plain text an empty line ends one.
pub fn hex(text: &str) -> Result<Vec<Vec<u8>>, InputError> {
    let mut frames = Frames::default();
    if text.lines().any(|line| DumpLine::read(line).is_some_and(|dump| dump.offset == 0)) {
        dump(text, &mut frames)?;
    } else {
        plain(text, &mut frames)?;
    }
    frames.done()
}

fn plain(text: &str, frames: &mut Frames) -> Result<(), InputError> {
    let mut frame = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            frames.add_if_any(&mut frame)?;
            continue;
        }
        plain_line(at, line, &mut frame)?;
    }
    frames.add_if_any(&mut frame)
}

fn plain_line(at: usize, line: &str, bytes: &mut Vec<u8>) -> Result<(), InputError> {
    let separators = |c: char| c.is_whitespace() || ":-,;.{}()[]\"'\\".contains(c);
    for word in line.split(separators).filter(|word| !word.is_empty()) {
        let bare = word.strip_prefix("0x").or_else(|| word.strip_prefix('x')).unwrap_or(word);
        let not_hex = || InputError::NotHex { line: at + 1, text: word.chars().take(40).collect() };
        bytes.extend(digits(bare).ok_or_else(not_hex)?);
    }
    Ok(())
}

fn dump(text: &str, frames: &mut Frames) -> Result<(), InputError> {
    let mut frame = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // What stands between, as tcpdump's line about the packet, is no part of it.
        let Some(dump) = DumpLine::read(line) else { continue };
        if dump.offset == 0 {
            frames.add_if_any(&mut frame)?;
        } else if dump.offset != frame.len() {
            // hexdump's last line is the length alone; after it no bytes come.
            return Err(InputError::Offset { line: at + 1, says: dump.offset, found: frame.len() });
        }
        frame.extend(dump.bytes);
    }
    frames.add_if_any(&mut frame)
}

/// A line of a dump: `0x0010:  4500 0034`, `00000010: 4500 0034  E..4` or `0010   45 00 00 34   E..4`.
struct DumpLine {
    offset: usize,
    bytes: Vec<u8>,
}

impl DumpLine {
    fn read(line: &str) -> Option<Self> {
        /// In bytes.
        const LINE: usize = 16;
        let line = line.trim();
        let end = line.find(|c: char| c == ':' || c.is_whitespace()).unwrap_or(line.len());
        let (number, rest) = line.split_at(end);
        let number = number.strip_prefix("0x").unwrap_or(number);
        if !(3..=8).contains(&number.len()) {
            return None;
        }
        let offset = usize::from_str_radix(number, 16).ok()?;
        // `0000:5e00` and `0000 5e00` are bytes: only a wider gap is behind an offset.
        let body = match rest.strip_prefix(':') {
            Some(rest) => Some(rest).filter(|rest| rest.starts_with(char::is_whitespace)),
            None => Some(rest).filter(|rest| rest.starts_with("  ") || rest.starts_with('\t') || rest.is_empty()),
        }?;
        let mut bytes = Vec::new();
        let mut gap = 0;
        for word in body.trim_start().split(' ') {
            if word.is_empty() {
                gap += 1;
                continue;
            }
            // The text column is behind a gap. Between the two halves of a line there may be one of two spaces.
            let text_column = gap > 1 || (gap == 1 && bytes.len() != LINE / 2);
            gap = 0;
            match digits(word).filter(|_| !text_column && bytes.len() < LINE) {
                Some(more) => bytes.extend(more),
                None => break,
            }
        }
        // A line of nothing but an offset ends what `hexdump` prints.
        (!bytes.is_empty()).then_some(Self { offset, bytes })
    }
}

/// The bytes of hexadecimal digits without anything between them; None for what is none.
pub(super) fn digits(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if text.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
        text
    })
}

/// Bytes in hexadecimal, written in any plain way.
pub fn bytes(text: &str) -> Result<Vec<u8>, InputError> {
    let mut bytes = Vec::new();
    text.lines().enumerate().try_for_each(|(at, line)| plain_line(at, line, &mut bytes)).map(|()| bytes)
}

/// The one frame of these digits, as the API takes it.
pub fn one(number: usize, text: &str) -> Result<Vec<u8>, InputError> {
    let not_hex = || InputError::NotHex { line: 1, text: text.chars().take(40).collect() };
    let frame = digits(text).ok_or_else(not_hex)?;
    check(number, frame.len()).map(|()| frame)
}

fn check(number: usize, len: usize) -> Result<(), InputError> {
    if len < MIN_FRAME {
        Err(InputError::Short { number, len })
    } else if len > MAX_FRAME {
        Err(InputError::Long { number, len })
    } else {
        Ok(())
    }
}

/// Frames that have been checked.
#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl Frames {
    fn add(&mut self, frame: &[u8], whole: usize) -> Result<(), InputError> {
        let number = self.0.len() + 1;
        if number > MAX_FRAMES {
            return Err(InputError::TooMany);
        }
        if whole > frame.len() {
            return Err(InputError::Partial { number, len: frame.len(), whole });
        }
        check(number, frame.len())?;
        self.0.push(frame.to_vec());
        Ok(())
    }

    fn add_if_any(&mut self, frame: &mut Vec<u8>) -> Result<(), InputError> {
        let frame = std::mem::take(frame);
        if frame.is_empty() { Ok(()) } else { self.add(&frame, frame.len()) }
    }

    fn done(self) -> Result<Vec<Vec<u8>>, InputError> {
        if self.0.is_empty() { Err(InputError::Empty) } else { Ok(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, time::Duration};

    use pcap_file::{
        Endianness,
        pcap::{PcapHeader, PcapPacket, PcapWriter},
        pcapng::{
            PcapNgWriter,
            blocks::{enhanced_packet::EnhancedPacketBlock, interface_description::InterfaceDescriptionBlock},
        },
    };
    use proptest::prelude::*;

    use super::*;

    const FRAME: &str = "020000000001020000000101080645000102";

    fn frame() -> Vec<u8> {
        digits(FRAME).unwrap()
    }

    #[test]
    fn hexadecimal_however_it_is_written() {
        let spaced = "02 00 00 00 00 01 02 00 00 00 01 01 08 06 45 00 01 02";
        let table: &[(&str, String)] = &[
            ("digits", FRAME.into()),
            ("upper case", FRAME.to_uppercase()),
            ("0x in front", format!("0x{FRAME}")),
            ("spaces", spaced.into()),
            ("colons", spaced.replace(' ', ":")),
            ("a C array", format!("{{0x{}}};", spaced.replace(' ', ", 0x"))),
            ("a C string", format!("\"\\x{}\"", spaced.replace(' ', "\\x"))),
            ("folded", "02000000000102000000\n01010806 4500\n0102\n".into()),
            (
                "tcpdump -xx, with its line about the packet",
                "19:20:21.123456 IP6 0000  face > beef: ICMP6\n\t0x0000:  0200 0000 0001 0200 0000 0101 0806 4500\n\t0x0010:  0102\n".into(),
            ),
            (
                "tcpdump -XX, whose text looks like digits",
                "\t0x0000:  0200 0000 0001 0200 0000 0101 0806 4500  ..........abcd00\n\t0x0010:  0102                                     ab\n".into(),
            ),
            (
                "xxd",
                "00000000: 0200 0000 0001 0200 0000 0101 0806 4500  ..............E.\n00000010: 0102                                     ..\n".into(),
            ),
            (
                "hexdump -C",
                "00000000  02 00 00 00 00 01 02 00  00 00 01 01 08 06 45 00  |..............E.|\n00000010  01 02                                             |..|\n00000012\n".into(),
            ),
            (
                "Wireshark's dump",
                "0000   02 00 00 00 00 01 02 00 00 00 01 01 08 06 45 00   ..............E.\n0010   01 02                                             ab\n".into(),
            ),
        ];
        for (sentence, text) in table {
            assert_eq!(hex(text), Ok(vec![frame()]), "{sentence}");
            assert_eq!(read(text.as_bytes()), Ok(vec![frame()]), "{sentence}");
        }
    }

    #[test]
    fn several_frames_are_told_apart() {
        assert_eq!(hex(&format!("{FRAME}\n\n{FRAME}\n")).unwrap().len(), 2);
        let dump = "0000  02 00 00 00 00 01 02 00 00 00 01 01 08 06 45 00\n0010  01 02\n";
        assert_eq!(hex(&format!("{dump}{dump}")), Ok(vec![frame(), frame()]));
    }

    #[test]
    fn what_is_no_frame_is_refused_by_its_place() {
        let gap = "0000  02 00 00 00 00 01 02 00 00 00 01 01 08 06 45 00\n0020  01 02\n";
        let table: &[(&str, &str, &str)] = &[
            ("nothing", "", "no frame"),
            ("half a byte", "020", "line 1: `020`"),
            ("words", "02 00\nhello", "line 2: `hello`"),
            ("13 bytes", "00112233445566778899aabbcc", "frame 1 has 13 bytes"),
            ("a line is missing", gap, "says 32 bytes came before it, but there were 16"),
            ("a jumbo beyond jumbos", &"00".repeat(MAX_FRAME + 1), "more than the 9240"),
        ];
        for (sentence, text, part) in table {
            let message = hex(text).unwrap_err().to_string();
            assert!(message.contains(part), "{sentence}: {message}");
        }
        assert!(read(&[0xff, 0xfe]).unwrap_err().to_string().contains("neither"));
        assert_eq!(one(3, "0102"), Err(InputError::Short { number: 3, len: 2 }));
    }

    fn pcap_file(link: DataLink, endianness: Endianness, packets: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let header = PcapHeader { datalink: link, endianness, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for (len, data) in packets {
            writer.write_packet(&PcapPacket::new(Duration::from_secs(1), *len, data).unwrap()).unwrap();
        }
        writer.into_inner()
    }

    fn pcapng_file(link: DataLink, original_len: u32) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let interface = InterfaceDescriptionBlock { linktype: link, snaplen: 0, options: Vec::new() };
        writer.write_pcapng_block(interface).unwrap();
        let data = frame();
        for _ in 0..2 {
            let packet =
                EnhancedPacketBlock { original_len, data: Cow::Borrowed(&data), ..EnhancedPacketBlock::default() };
            writer.write_pcapng_block(packet).unwrap();
        }
        writer.into_inner()
    }

    #[test]
    fn capture_files_of_both_kinds_and_orders_are_read() {
        for endianness in [Endianness::Big, Endianness::Little] {
            let file = pcap_file(DataLink::ETHERNET, endianness, &[(18, frame()), (18, frame())]);
            assert_eq!(read(&file), Ok(vec![frame(), frame()]));
        }
        assert_eq!(read(&pcapng_file(DataLink::ETHERNET, 18)), Ok(vec![frame(), frame()]));
    }

    #[test]
    fn capture_files_that_do_not_serve_are_refused_with_the_cause() {
        let whole = pcapng_file(DataLink::ETHERNET, 18);
        let many = vec![(18, frame()); MAX_FRAMES + 1];
        let table = [
            (
                "captured on `any`",
                pcap_file(DataLink::LINUX_SLL, Endianness::Little, &[(18, frame())]),
                "not of Ethernet",
            ),
            ("and as pcapng", pcapng_file(DataLink::RAW, 18), "not of Ethernet"),
            ("cut frames", pcapng_file(DataLink::ETHERNET, 1514), "18 of 1514 bytes"),
            ("a cut file", whole[..whole.len() - 5].to_vec(), "can't be read"),
            ("no frames", pcap_file(DataLink::ETHERNET, Endianness::Big, &[]), "no frame"),
            ("a short frame", pcap_file(DataLink::ETHERNET, Endianness::Big, &[(3, vec![1, 2, 3])]), "frame 1 has 3"),
            ("too many", pcap_file(DataLink::ETHERNET, Endianness::Big, &many), "more than 10000"),
        ];
        for (sentence, file, part) in table {
            let message = read(&file).unwrap_err().to_string();
            assert!(message.contains(part), "{sentence}: {message}");
        }
        assert!(capture(b"no capture at all").unwrap_err().to_string().contains("neither"));
    }

    proptest! {
        #[test]
        fn any_text_is_frames_or_an_error(text in "[0-9a-fA-FxX: \\n\\t|.é]{0,200}") {
            if let Ok(frames) = hex(&text) {
                prop_assert!(frames.iter().all(|frame| frame.len() >= MIN_FRAME));
            }
        }

        #[test]
        fn any_bytes_behind_a_magic_are_frames_or_an_error(ng: bool, bytes: Vec<u8>, at in 0_usize..200, byte: u8) {
            let mut file = if ng { pcapng_file(DataLink::ETHERNET, 18) } else {
                pcap_file(DataLink::ETHERNET, Endianness::Little, &[(18, frame())])
            };
            let at = 4 + at % (file.len() - 4);
            file[at] = byte;
            file.extend(bytes);
            let _: Result<_, InputError> = read(&file);
        }

        #[test]
        fn what_is_written_is_read_back(frame in prop::collection::vec(any::<u8>(), MIN_FRAME..100)) {
            prop_assert_eq!(one(1, &to_hex(&frame)), Ok(frame.clone()));
            prop_assert_eq!(hex(&to_hex(&frame)), Ok(vec![frame]));
        }
    }
}
