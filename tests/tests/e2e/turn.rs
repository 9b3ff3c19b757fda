//! Whose turn it is: what measures time or load runs while no other test does.

use std::{
    ops::{Deref, DerefMut},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use anyhow::Result;
use portal_lab::{Lab, Options};

static TURN: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "held for what dropping it does")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A test's lab, and its turn, which ends when the lab is removed.
pub(crate) struct TestLab {
    lab: Lab,
    _turn: Turn,
}

/// A lab for a test that others may run beside. A test that wants two makes the second by [`Lab::new`].
pub(crate) fn lab() -> Result<TestLab> {
    lab_with(Options::default())
}

/// A lab that differs, for a test that others may run beside.
pub(crate) fn lab_with(options: Options) -> Result<TestLab> {
    // A failed test is no reason for the next to fail.
    let turn = Turn::Shared(TURN.read().unwrap_or_else(PoisonError::into_inner));
    Ok(TestLab { lab: Lab::with(options)?, _turn: turn })
}

/// A lab for a test that nothing may run beside.
pub(crate) fn lab_alone() -> Result<TestLab> {
    lab_alone_with(Options::default())
}

/// A lab that differs, for a test that nothing may run beside.
pub(crate) fn lab_alone_with(options: Options) -> Result<TestLab> {
    let turn = Turn::Alone(TURN.write().unwrap_or_else(PoisonError::into_inner));
    Ok(TestLab { lab: Lab::with(options)?, _turn: turn })
}

impl Deref for TestLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for TestLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}
