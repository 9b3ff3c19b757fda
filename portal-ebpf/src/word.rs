//! Words that several CPUs change at once, by BPF's atomic instructions (Linux 5.12).
#![expect(unsafe_code, reason = "Rust has no atomic operations for BPF: its own are instructions")]

use core::{arch::asm, cell::UnsafeCell};

use portal_common::word::Word;

/// A word in a map.
#[repr(transparent)]
pub(crate) struct KernelWord(UnsafeCell<u64>);

// SAFETY: every access is one load, one store, or one atomic instruction.
unsafe impl Sync for KernelWord {}

impl KernelWord {
    /// The word at this address.
    ///
    /// # Safety
    ///
    /// The address is that of an aligned word that is only accessed through words for as long as this lives.
    #[inline(always)]
    pub(crate) unsafe fn from_ptr<'a>(address: *mut u64) -> &'a Self {
        // SAFETY: as the caller says; the type is transparent.
        unsafe { &*address.cast() }
    }
}

impl Word for KernelWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: an aligned word is loaded whole.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: an aligned word is stored whole.
        unsafe { self.0.get().write_volatile(value) };
    }

    #[inline(always)]
    fn add(&self, value: u64) -> u64 {
        let mut word = value;
        // SAFETY: the instruction adds to the word at this address, and leaves in the register what was there before.
        unsafe {
            asm!("{word} = atomic_fetch_add((u64 *)({at} + 0), {word})", word = inout(reg) word, at = in(reg) self.0.get());
        }
        word
    }

    #[inline(always)]
    fn replace(&self, expected: u64, new: u64) -> bool {
        let mut seen = expected;
        // SAFETY: the instruction compares the word at this address with r0, stores the new one where they are the same, and leaves in r0 what
        // was there before.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({at} + 0, r0, {new})",
                inout("r0") seen,
                at = in(reg) self.0.get(),
                new = in(reg) new,
            );
        }
        seen == expected
    }
}

/// The same value, of which the compiler knows nothing: it must not leave out what only the verifier needs.
#[inline(always)]
pub(crate) fn opaque(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: it adds nothing. Without an instruction there would be two lines for the next, which the kernel refuses.
    unsafe { asm!("{value} += 0", value = inout(reg) value, options(nomem, nostack)) };
    value as u32
}
