//! A client may close its half of the connection right after the request (RFC 9293 section 3.6): it gets the whole answer.

use std::{
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use portal_lab::{Portald, addresses::SITES};
use rustix::net::{SendFlags, send};

use crate::{
    expect::{REQUEST, read_to_end, the_511},
    turn::lab,
};

/// Often enough to meet both orders of the request and the FIN on their way through two programs.
const TIMES: u32 = 300;
/// At once, so that the responder is sometimes busy when the FIN comes.
const CLIENTS: u32 = 4;

#[test]
fn a_client_that_closes_its_half_at_once_gets_the_whole_answer() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start_without_budgets(&lab)?;
    for site in SITES {
        let expected = the_511(&lab, site)?;
        for (sentence, flags) in
            [("a FIN of its own", SendFlags::empty()), ("a FIN in the request's segment", SendFlags::MORE)]
        {
            let client = || (0..TIMES / CLIENTS).try_for_each(|_| half_close(site, flags, &expected));
            lab.guest
                .enter(|| {
                    thread::scope(|scope| {
                        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
                        clients.into_iter().try_for_each(|c| c.join().map_err(|_| anyhow!("a client panicked"))?)
                    })
                })
                .with_context(|| format!("{site}, {sentence}"))?;
        }
    }
    Ok(())
}

/// One exchange.
fn half_close(site: IpAddr, flags: SendFlags, expected: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(site, 80), Duration::from_secs(5))?;
    ensure!(send(&stream, REQUEST, flags)? == REQUEST.len(), "only a part of the request was taken");
    stream.shutdown(Shutdown::Write)?;
    let answer = read_to_end(&mut stream)?;
    ensure!(answer == expected, "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}
