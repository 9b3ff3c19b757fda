//! Words that several CPUs change at once.
//!
//! Rust's atomic types have no read-modify-write operations for BPF (its target declares none, although Linux has had them since 5.12), so the kernel's
//! programs bring words of their own. Every operation is relaxed: the words count, and guard nothing.

/// A 64-bit word that several CPUs change at once.
pub trait Word {
    /// Its value.
    fn load(&self) -> u64;
    /// Changes it, whatever it was.
    fn store(&self, value: u64);
    /// Adds to it; what it was before.
    fn add(&self, value: u64) -> u64;
    /// Changes it if it is what it is thought to be; whether it was.
    fn replace(&self, expected: u64, new: u64) -> bool;
}

#[cfg(target_has_atomic = "64")]
impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(core::sync::atomic::Ordering::Relaxed)
    }

    fn store(&self, value: u64) {
        self.store(value, core::sync::atomic::Ordering::Relaxed);
    }

    fn add(&self, value: u64) -> u64 {
        self.fetch_add(value, core::sync::atomic::Ordering::Relaxed)
    }

    fn replace(&self, expected: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::Relaxed;
        self.compare_exchange(expected, new, Relaxed, Relaxed).is_ok()
    }
}
