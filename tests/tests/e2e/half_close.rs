//! A client may close its half of the connection right after the request (RFC 9293 section 3.6): it gets the whole answer.

use std::{
    io::Write as _,
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portal_lab::{Portald, Settings, addresses::SITES};

use crate::{
    expect::{REQUEST, read_to_end, the_511},
    turn::lab,
};

/// Often enough to meet both orders of the request and the FIN on their way through two programs.
const TIMES: u32 = 300;

#[test]
fn a_client_that_closes_its_half_at_once_gets_the_whole_answer() -> Result<()> {
    let lab = lab()?;
    let _portald = Portald::start(&lab, &Settings::default())?;
    for site in SITES {
        let expected = the_511(&lab, site)?;
        lab.guest.enter(|| {
            for time in 0..TIMES {
                let mut stream = TcpStream::connect_timeout(&SocketAddr::new(site, 80), Duration::from_secs(5))?;
                stream.write_all(REQUEST)?;
                stream.shutdown(Shutdown::Write)?;
                let answer = read_to_end(&mut stream).with_context(|| format!("{site}, time {time}"))?;
                ensure!(answer == expected, "{site}, time {time}: {:?}", String::from_utf8_lossy(&answer));
            }
            Ok(())
        })?;
    }
    Ok(())
}
