//! Arrays of the kernel's, mapped into the daemon's memory (`BPF_F_MMAPABLE`, Linux 5.5): read and written word by word, without system calls.
#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::{
    marker::PhantomData,
    mem::{MaybeUninit, align_of, size_of},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Linux `include/uapi/linux/bpf.h`.
const BPF_F_MMAPABLE: u32 = 1 << 10;
const WORD: usize = size_of::<AtomicU64>();

/// A mapped array of values that consist of whole words.
pub(super) struct Mapped<V: Pod> {
    words: NonNull<AtomicU64>,
    entries: u32,
    values: PhantomData<V>,
}

// SAFETY: the memory is shared by nature, and every access to it is atomic.
unsafe impl<V: Pod + Send> Send for Mapped<V> {}
// SAFETY: as above.
unsafe impl<V: Pod + Sync> Sync for Mapped<V> {}

impl<V: Pod> Mapped<V> {
    const WORDS: usize = size_of::<V>() / WORD;

    /// An array of its own, that no program reads.
    pub(super) fn create(entries: u32) -> Result<Self> {
        let map = Array::create(entries, BPF_F_MMAPABLE).context("cannot create a BPF array")?;
        Self::new(&map)
    }

    /// Maps the array.
    pub(super) fn new(map: &Array<MapData, V>) -> Result<Self> {
        const { assert!(size_of::<V>().is_multiple_of(WORD) && align_of::<V>() <= WORD) };
        let entries = map.len();
        let len = (entries as usize * size_of::<V>()).next_multiple_of(rustix::param::page_size());
        // The kernel keeps the array for as long as it is mapped.
        // SAFETY: a new mapping, of as many bytes as the kernel has allocated for the array (`array_map_mmap`).
        let start = unsafe {
            let fd = map.map().fd();
            mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
        };
        let start = start.context("cannot map a BPF array into memory")?;
        let words = NonNull::new(start.cast()).context("the kernel has mapped a BPF array at no address")?;
        Ok(Self { words, entries, values: PhantomData })
    }

    /// How many values it holds.
    pub(super) fn len(&self) -> u32 {
        self.entries
    }

    /// The words of a value. Panics beyond the end.
    pub(super) fn words(&self, index: u32) -> &[AtomicU64] {
        assert!(index < self.entries, "value {index} of {}", self.entries);
        // SAFETY: within the mapping, which lives as long as this; aligned to words, as a mapping begins at a page.
        unsafe { slice::from_raw_parts(self.words.as_ptr().add(index as usize * Self::WORDS), Self::WORDS) }
    }

    /// The value as it is now. Who changes it meanwhile changes it word by word.
    pub(super) fn read(&self, index: u32) -> V {
        let mut value = MaybeUninit::<V>::uninit();
        let to = value.as_mut_ptr().cast::<u64>();
        for (i, word) in self.words(index).iter().enumerate() {
            // SAFETY: the value has so many words.
            unsafe { to.add(i).write_unaligned(word.load(Acquire)) };
        }
        // SAFETY: every byte is written, and any bit pattern is a value: it is `Pod`.
        unsafe { value.assume_init() }
    }

    /// Writes the value: the last word first, so that the first word is the last to change. Panics beyond the end.
    pub(super) fn write(&self, index: u32, value: &V) {
        self.write_part(index, 0, value);
    }

    /// Writes a part of a value, from this word of it on, as [`Self::write`] does. Panics beyond the value's end.
    pub(super) fn write_part<P: Pod>(&self, index: u32, at: usize, part: &P) {
        const { assert!(size_of::<P>().is_multiple_of(WORD)) };
        let from = ptr::from_ref(part).cast::<u64>();
        let words = &self.words(index)[at..at + size_of::<P>() / WORD];
        for (i, word) in words.iter().enumerate().rev() {
            // SAFETY: the part has so many words, all of them initialised: it is `Pod`, without padding.
            word.store(unsafe { from.add(i).read_unaligned() }, Release);
        }
    }
}

impl<V: Pod> Drop for Mapped<V> {
    fn drop(&mut self) {
        let len = (self.entries as usize * size_of::<V>()).next_multiple_of(rustix::param::page_size());
        // SAFETY: mapped by `new`; no reference into it outlives this.
        if let Err(e) = unsafe { munmap(self.words.as_ptr().cast(), len) } {
            tracing::warn!(error = %e, "a BPF array stays mapped");
        }
    }
}
