//! The places in the kernel's table of states: which are free, and which is next.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The free places. What was freed last is used last: a frame that another CPU is at when its session ends then finds nobody new in its place.
pub(super) struct Slots(Mutex<VecDeque<u32>>);

impl Slots {
    /// All places but those in use.
    pub(super) fn new(capacity: u32, used: impl IntoIterator<Item = u32>) -> Self {
        let used: std::collections::HashSet<u32> = used.into_iter().collect();
        Self(Mutex::new((0..capacity).filter(|slot| !used.contains(slot)).collect()))
    }

    /// A free place, which is the caller's from now on; None where there is none.
    pub(super) fn take(&self) -> Option<u32> {
        self.lock().pop_front()
    }

    /// So many free places at once; None where there are fewer.
    pub(super) fn take_many(&self, count: usize) -> Option<Vec<u32>> {
        let mut free = self.lock();
        (count <= free.len()).then(|| free.drain(..count).collect())
    }

    /// Gives a place back after use.
    pub(super) fn give_back(&self, slot: u32) {
        self.lock().push_back(slot);
    }

    /// Gives a place back that was not used after all.
    pub(super) fn untake(&self, slot: u32) {
        self.lock().push_front(slot);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_last() {
        let slots = Slots::new(5, [1, 3, 9]);
        assert_eq!(slots.take(), Some(0));
        slots.give_back(0);
        assert_eq!(slots.take(), Some(2));
        slots.untake(2);
        assert_eq!(slots.take_many(4), None);
        assert_eq!(slots.take_many(2), Some(vec![2, 4]));
        assert_eq!(std::iter::from_fn(|| slots.take()).collect::<Vec<_>>(), [0]);
    }
}
