//! How much of the heap a thread uses, for tests that hold an account of memory against it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which also counts what each thread has in use.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// What glibc takes for a block: its own header, rounded up to 16 bytes, and 32 bytes at least.
fn block(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator as it came. Counting does not allocate: the cells are initialised at compile
// time and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        USED.set(USED.get().wrapping_add(block(layout.size())));
        // A block that one thread allocates and another frees makes both counts wrong, but never wildly high.
        PEAK.set(PEAK.get().max(USED.get()));
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.set(USED.get().saturating_sub(block(layout.size())));
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How many bytes of heap this thread had in use at most, at any moment of this run, beyond those before it.
pub(super) fn peak_of(run: impl FnOnce()) -> usize {
    let before = USED.get();
    PEAK.set(before);
    run();
    PEAK.get() - before
}
