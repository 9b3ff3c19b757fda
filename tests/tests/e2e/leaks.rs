//! No kind of packet of a stranger gets into the internet.

use anyhow::Result;
use portal_lab::{Portald, Settings, addresses::OTHER_MAC};

use crate::{
    expect::done,
    turn::lab,
    watch::{GUEST, OTHER, Watch, knock},
};

#[test]
fn nothing_of_a_stranger_gets_into_the_internet() -> Result<()> {
    for xdp_mode in ["native", "generic"] {
        let lab = lab()?;
        let _portald = Portald::start(&lab, &Settings { xdp_mode, ..Settings::default() })?;
        done(&lab, &["allow", OTHER_MAC])?;
        let watch = Watch::start(&lab)?;
        knock(&lab.guest)?;
        watch.sees_only_the_guest(GUEST, &lab.other, OTHER)?;
    }
    Ok(())
}
