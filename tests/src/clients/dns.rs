//! A DNS client that goes on the moment it has its answer: no resolver library's caches and retries are between.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
const PORT: u16 = 53;
const HEADER: usize = 12;
/// The types of records with addresses (RFC 1035 section 3.2.2, RFC 3596 section 2.1), and the internet's class.
const A: u16 = 1;
const AAAA: u16 = 28;
const IN: u16 = 1;
/// The header's flags: recursion is desired.
const RECURSION: u16 = 0x0100;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

impl Record {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::Aaaa];

    fn number(self) -> u16 {
        match self {
            Self::A => A,
            Self::Aaaa => AAAA,
        }
    }
}

/// A query for a name (RFC 1035 section 4.1).
fn query(id: u16, name: &str, record: Record) -> Vec<u8> {
    let mut bytes = [id, RECURSION, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("labels in tests are short"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([record.number(), IN].map(u16::to_be_bytes).concat());
    bytes
}

/// Asks over UDP, in the calling thread's network namespace; the addresses in the answer.
pub fn ask(server: IpAddr, name: &str, record: Record) -> Result<Vec<IpAddr>> {
    ask_within(server, name, record, LIMIT)
}

/// As [`ask`], with another limit.
pub fn ask_within(server: IpAddr, name: &str, record: Record, limit: Duration) -> Result<Vec<IpAddr>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(SocketAddr::new(server, PORT))?;
    socket.set_read_timeout(Some(limit))?;
    let id = socket.local_addr()?.port();
    socket.send(&query(id, name, record))?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).with_context(|| format!("no answer for {name}"))?;
    addresses(answer.get(..length).context("a long answer")?, id)
}

/// Asks over TCP (RFC 7766), in the calling thread's network namespace; the addresses in the answer.
pub fn ask_over_tcp(server: IpAddr, name: &str, record: Record) -> Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, PORT), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let query = query(1, name, record);
    let length = u16::try_from(query.len()).context("a long query")?;
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    addresses(&answer, 1)
}

/// An answer to this query with one address; `truncated`: it says that it is not whole.
pub fn answer(query: &[u8], address: Ipv4Addr, truncated: bool) -> Result<Vec<u8>> {
    let question = query.get(HEADER..after_name(query, HEADER)? + 4).context("half a question")?;
    let flags = if truncated { 0x8780 } else { 0x8580 };
    let header = [half(query, 0)?, flags, 1, 1, 0, 0].map(u16::to_be_bytes).concat();
    // Its name is the question's: a pointer to it (RFC 1035 section 4.1.4).
    let record = [0xc000 | HEADER as u16, A, IN, 0, 60, 4].map(u16::to_be_bytes).concat();
    Ok([&header, question, &record, &address.octets()].concat())
}

/// The addresses in a message that must be an answer to this query.
fn addresses(message: &[u8], id: u16) -> Result<Vec<IpAddr>> {
    ensure!(half(message, 0)? == id, "an answer to another query");
    let mut at = HEADER;
    for _ in 0..half(message, 4)? {
        at = after_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..half(message, 6)? {
        let fixed = after_name(message, at)?;
        let data = fixed + 10;
        at = data + usize::from(half(message, fixed + 8)?);
        let data = message.get(data..at).context("half a record")?;
        match half(message, fixed)? {
            A => found.push(IpAddr::from(<[u8; 4]>::try_from(data)?)),
            AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data)?)),
            _ => {}
        }
    }
    Ok(found)
}

fn half(message: &[u8], at: usize) -> Result<u16> {
    let bytes = message.get(at..at + 2).context("a message that is cut short")?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Where the name that begins here ends.
fn after_name(message: &[u8], mut at: usize) -> Result<usize> {
    loop {
        match *message.get(at).context("half a name")? {
            0 => return Ok(at + 1),
            length if length >= 0xc0 => return Ok(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_address_that_was_put_into_it() {
        let query = query(7, "www.example.com", Record::A);
        let address = Ipv4Addr::new(203, 0, 113, 7);
        let answer = answer(&query, address, true).expect("the query is whole");
        assert_eq!(addresses(&answer, 7).expect("it is whole"), [IpAddr::V4(address)]);
        assert!(addresses(&answer, 8).is_err() && addresses(&answer[..answer.len() - 1], 7).is_err());
        assert_eq!(addresses(&query, 7).expect("it is whole"), [] as [IpAddr; 0]);
    }
}
