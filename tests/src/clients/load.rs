//! A plain client of our own: many connections, each response compared byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};

use crate::namespace::Namespace;

/// How long a connection or a response may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What a load came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Responses that were exactly the expected bytes, and then the end of the stream.
    pub exact: u64,
    /// Responses that were anything else, with the first of them.
    pub wrong: Vec<String>,
}

/// Sends the request on this many connections, one after another in each of the threads.
pub fn run(
    from: &Namespace,
    to: SocketAddr,
    request: &[u8],
    expected: &[u8],
    count: u64,
    threads: u64,
) -> Result<Tally> {
    let left = AtomicU64::new(count);
    from.enter(|| {
        // Threads start in their parent's network namespace.
        let tallies: Vec<Tally> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| worker(&left, to, request, expected))).collect();
            workers.into_iter().map(|w| w.join().map_err(|_| anyhow!("a worker panicked"))).collect::<Result<_>>()
        })?;
        let mut sum = Tally::default();
        for tally in tallies {
            sum.exact += tally.exact;
            sum.wrong.extend(tally.wrong);
        }
        Ok(sum)
    })
}

fn worker(left: &AtomicU64, to: SocketAddr, request: &[u8], expected: &[u8]) -> Tally {
    let mut tally = Tally::default();
    let take_one = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
    while take_one() {
        match exchange(to, request) {
            Ok(bytes) if bytes == expected => tally.exact += 1,
            Ok(bytes) => tally.wrong.push(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) => tally.wrong.push(e.to_string()),
        }
    }
    tally
}

/// One connection: sends the request, reads to the end.
pub fn exchange(to: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request)?;
    let mut bytes = Vec::with_capacity(2048);
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}
