//! What the responder would answer, without sending, counting or remembering anything.

use portal_common::{frame::MAX_REDIRECTED_LEN, tables::CookieKeys};

use super::{
    exchange::{Exchange, Silence},
    policies::Policies,
    reassembly::Limits,
};

/// The answer to a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// Its name, see [`super::segment::Content::name`].
    pub name: &'static str,
    /// The whole frame, from the destination MAC on, without its check sequence.
    pub frame: Vec<u8>,
}

/// What a worker would send back for this frame if it were the first that it gets, or why it would send nothing. `now_ns` is `CLOCK_MONOTONIC` in
/// nanoseconds. A frame in the middle of a request gets nothing here: what came before it is not known.
///
/// # Errors
/// If the frame gets no answer.
pub fn rehearse(frame: &[u8], policies: &Policies, keys: &CookieKeys, now_ns: u64) -> Result<Rehearsed, Silence> {
    // The gate trims what it redirects.
    let redirected = &frame[..frame.len().min(MAX_REDIRECTED_LEN)];
    let mut exchange = Exchange::new(Limits::default(), std::sync::Arc::default());
    let reply = exchange.receive(redirected, policies, keys, now_ns)?;
    let mut frame = vec![0; reply.frame_length()];
    reply.write(&mut frame);
    Ok(Rehearsed { name: reply.content.name(), frame })
}

#[cfg(test)]
mod tests {
    use portal_common::{
        cookie::{self, SLOT_NS},
        siphash::Key,
    };

    use super::{
        super::{
            Policy,
            answers::{Answers, Family},
            probes::Probes,
            segment::{
                Segment,
                tests::{frame, tcp, verify},
            },
            tls::tests::client_hellos,
        },
        *,
    };

    #[test]
    fn names_and_frames() {
        let now = 5 * SLOT_NS;
        let keys = CookieKeys::new(std::array::from_fn(|i| Key([i as u64, 1])));
        let policies = Policies::untagged(Policy {
            answers: Answers::new("http://192.0.2.1/", "http://[2001:db8::1]/").unwrap(),
            probes: Probes::new([]),
        });
        let hello = client_hellos().into_iter().next().unwrap().1;
        let long = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[b'x'; 3000], b"\r\n\r\n"].concat();
        for family in [Family::V4, Family::V6] {
            let run = |port: u16, data: &[u8], fin: bool, received: u32| {
                let syn = etherparse::TcpHeader { destination_port: port, ..tcp(7, 0, false) };
                let tuple = Segment::read(&frame(family, &[], syn, b"")).unwrap().path.tuple();
                let ack = cookie::isn(&keys, &tuple, 7, now).wrapping_add(1 + received);
                let header = etherparse::TcpHeader { destination_port: port, ..tcp(8, ack, fin) };
                let cause = frame(family, &[], header, data);
                let first = rehearse(&cause, &policies, &keys, now);
                assert_eq!(first, rehearse(&cause, &policies, &keys, now), "nothing is remembered");
                first.map(|reply| {
                    let (header, payload) = verify(&reply.frame);
                    assert_eq!(header.sequence_number, ack);
                    let text = String::from_utf8_lossy(&payload).lines().next().unwrap_or_default().to_owned();
                    (reply.name, text)
                })
            };
            let get = |host: &str| format!("GET /generate_204 HTTP/1.1\r\n{host}\r\n").into_bytes();
            let reply = |name, first_line: &str| Ok((name, first_line.to_owned()));
            assert_eq!(run(80, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", false, 0).map(|(name, _)| name), Ok("511"));
            assert_eq!(run(80, &get("Host: a\r\n"), false, 0), reply("302", "HTTP/1.1 302 Found"));
            assert_eq!(run(80, &get(""), true, 0), reply("400", "HTTP/1.1 400 Bad Request"));
            assert_eq!(run(80, b"GET /", false, 0), reply("acknowledgement", ""));
            assert_eq!(run(80, &long, false, 0), reply("acknowledgement", ""), "the gate trims it");
            assert_eq!(run(80, b"", true, 0), reply("close", ""));
            assert_eq!(run(443, &hello, false, 0), reply("alert 49", "\u{15}\u{3}\u{1}\0\u{2}\u{2}1"));
            assert_eq!(run(443, &hello, false, 8), Err(Silence::HasAnswer));
            assert_eq!(run(443, b"", false, 0), Err(Silence::SaysNothing));
        }
    }
}
