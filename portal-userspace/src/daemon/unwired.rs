//! Stands in for what the daemon does not have yet.

use std::sync::Arc;

use anyhow::{Result, bail};
use portal_common::tables::ClientKey;

use crate::{
    control::{Zones, api::ZoneView},
    observe::{
        capture::{CapturedTable, Captures},
        explain::{ExplainProgram, Explainer, Ran},
    },
};

struct Absent;

impl ExplainProgram for Absent {
    fn run(&self, _: &[u8], _: u32) -> Result<Ran> {
        bail!("the gate cannot be asked yet")
    }
}

impl CapturedTable for Absent {
    fn insert(&mut self, _: ClientKey) -> Result<()> {
        bail!("the gate does not capture yet")
    }

    fn remove(&mut self, _: ClientKey) -> Result<()> {
        Ok(())
    }
}

impl Zones for Absent {
    fn list(&self) -> Vec<ZoneView> {
        Vec::new()
    }
}

pub(super) fn zones() -> Arc<dyn Zones> {
    Arc::new(Absent)
}

pub(super) fn explainer() -> Arc<Explainer> {
    Arc::new(Explainer::new(Absent, Box::new(|_, _| None)))
}

pub(super) fn captures() -> Arc<Captures> {
    Captures::new(Absent)
}
