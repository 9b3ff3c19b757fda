//! Many entries into a map by one system call: BPF_MAP_UPDATE_BATCH (Linux 5.6), which aya does not have.
#![expect(unsafe_code, reason = "bpf(2) takes addresses, and no crate in use wraps this command")]

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::{
    Pod,
    maps::{MapData, MapError, MapInfo},
};

/// `BPF_MAP_UPDATE_BATCH` in `enum bpf_cmd` (Linux `include/uapi/linux/bpf.h`).
const UPDATE_BATCH: libc::c_long = 26;
/// How many entries a system call writes at most. It cannot be interrupted by a signal; and more at once is not faster.
const AT_ONCE: usize = 8192;

/// Of `union bpf_attr`: the struct `batch`.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Why entries could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The map's keys or values have another size: it is of another layout.
    #[error("the map has keys of {key} bytes and values of {value}, not of {wanted_key} and {wanted_value}")]
    Layout {
        /// The map's keys, bytes.
        key: u32,
        /// The map's values, bytes.
        value: u32,
        /// The keys to write, bytes.
        wanted_key: usize,
        /// The values to write, bytes.
        wanted_value: usize,
    },
    /// The kernel could not be asked about the map.
    #[error("the kernel does not tell about the map")]
    Map(#[source] MapError),
    /// The map has no room for all of them.
    #[error("the map is full")]
    Full,
    /// The kernel refused.
    #[error("the kernel refused to write many entries at once (BPF_MAP_UPDATE_BATCH, Linux 5.6 and later)")]
    Kernel(#[source] io::Error),
}

/// A map that takes many entries at once. Its keys and values are of the sizes of `K` and `V`.
#[derive(Debug)]
pub struct Batch<K, V> {
    map: OwnedFd,
    types: PhantomData<fn(K, V)>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// The same map, once more.
    pub fn over(map: &MapData) -> Result<Self, BatchError> {
        let info = map.info().map_err(BatchError::Map)?;
        Self::demand_layout(&info)?;
        let map = map.fd().as_fd().try_clone_to_owned().map_err(BatchError::Kernel)?;
        Ok(Self { map, types: PhantomData })
    }

    fn demand_layout(info: &MapInfo) -> Result<(), BatchError> {
        let (wanted_key, wanted_value) = (size_of::<K>(), size_of::<V>());
        let (key, value) = (info.key_size(), info.value_size());
        if (key as usize, value as usize) == (wanted_key, wanted_value) {
            return Ok(());
        }
        Err(BatchError::Layout { key, value, wanted_key, wanted_value })
    }

    /// Writes the n-th value under the n-th key, for as many as there are of both. What was there is replaced. Where it fails, some may have been
    /// written.
    pub fn write(&self, keys: &[K], values: &[V]) -> Result<(), BatchError> {
        keys.chunks(AT_ONCE).zip(values.chunks(AT_ONCE)).try_for_each(|(keys, values)| self.write_once(keys, values))
    }

    /// One system call, for as many keys as there are, or as there are values if those are fewer.
    fn write_once(&self, keys: &[K], values: &[V]) -> Result<(), BatchError> {
        let count = keys.len().min(values.len()) as u32;
        let mut attributes = Attributes {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr().expose_provenance() as u64,
            values: values.as_ptr().expose_provenance() as u64,
            count,
            map_fd: self.map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `count` keys and values of the map's sizes, which `over` has found to be those of `K` and `V`, from the two slices,
        // which hold at least so many; both outlive the call. It writes to nothing but the attributes.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, UPDATE_BATCH, &raw mut attributes, size_of::<Attributes>()) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::E2BIG) => Err(BatchError::Full),
            _ => Err(BatchError::Kernel(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use aya::maps::{Array, HashMap, IterableMap as _};

    use super::*;

    fn hash(entries: u32) -> HashMap<MapData, u64, [u64; 3]> {
        HashMap::create(entries, 0).expect("a BPF map needs root")
    }

    #[test]
    fn what_is_written_at_once_is_what_is_read_one_by_one() {
        let map = hash(50_000);
        // More than a call takes, and no multiple of it.
        let keys: Vec<u64> = (0..40_001).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let values: Vec<[u64; 3]> = (0..40_001).map(|i| [i, i * 2, !i]).collect();
        Batch::over(map.map()).unwrap().write(&keys, &values).unwrap();
        for (key, value) in keys.iter().zip(&values) {
            assert_eq!(map.get(key, 0).unwrap(), *value);
        }
        assert_eq!(map.keys().count(), keys.len());
    }

    #[test]
    fn an_array_takes_them_too() {
        let map: Array<MapData, u64> = Array::create(20_000, 0).unwrap();
        let keys: Vec<u32> = (0..20_000).rev().collect();
        let values: Vec<u64> = keys.iter().map(|key| u64::from(*key) + 7).collect();
        Batch::over(map.map()).unwrap().write(&keys, &values).unwrap();
        assert!((0..20_000).all(|key| map.get(&key, 0).unwrap() == u64::from(key) + 7));
    }

    #[test]
    fn a_full_map_and_another_layout_are_refused() {
        let map = hash(100);
        let keys: Vec<u64> = (0..101).collect();
        let full = Batch::over(map.map()).unwrap().write(&keys, &[[0u64; 3]; 101]);
        assert!(matches!(full, Err(BatchError::Full)), "{full:?}");
        let other = Batch::<u64, [u64; 2]>::over(map.map()).unwrap_err();
        assert_eq!(other.to_string(), "the map has keys of 8 bytes and values of 24, not of 8 and 16");
    }

    #[test]
    fn nothing_to_write_is_written() {
        let map = hash(10);
        Batch::<u64, [u64; 3]>::over(map.map()).unwrap().write(&[], &[]).unwrap();
        assert_eq!(map.keys().count(), 0);
    }
}
