//! The secrets behind the SYN cookies: made, kept over a restart, and renewed.

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use portal_common::{siphash::Key, tables::CookieKeys};
use rustix::rand::{GetRandomFlags, getrandom};

/// The secrets, in the kernel's map and in the daemon's memory.
pub struct Secrets {
    map: Array<MapData, CookieKeys>,
    keys: CookieKeys,
}

impl Secrets {
    /// The secrets in this map. An earlier daemon's are kept, so that handshakes in flight survive a restart; a new map gets new ones.
    pub fn over(map: Array<MapData, CookieKeys>) -> Result<Self> {
        const UNFILLED: CookieKeys = CookieKeys::new([Key([0; 2]); 4]);
        let keys = map.get(&0, 0).context("cannot read the cookies' secrets")?;
        let mut secrets = Self { map, keys };
        if secrets.keys == UNFILLED {
            secrets.keys = CookieKeys::new([random_key()?, random_key()?, random_key()?, random_key()?]);
            secrets.store()?;
        }
        Ok(secrets)
    }

    /// The secrets as they are now.
    pub fn keys(&self) -> CookieKeys {
        self.keys
    }

    /// Renews the secret of the next time slot, which no cookie in flight was made with. To be called once in each slot.
    pub fn renew(&mut self, now_ns: u64) -> Result<()> {
        self.keys.renew_next(now_ns, random_key()?);
        self.store()
    }

    fn store(&mut self) -> Result<()> {
        self.map.set(0, self.keys, 0).context("cannot store the cookies' secrets")
    }
}

pub(super) fn random_key() -> Result<Key> {
    let mut bytes = [0u8; 16];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).context("the kernel has no randomness to give")?;
    anyhow::ensure!(filled == bytes.len(), "the kernel gave {filled} random bytes instead of {}", bytes.len());
    let (low, high) = bytes.split_at(8);
    Ok(Key([low, high].map(|half| u64::from_ne_bytes(half.try_into().expect("half of 16 bytes is 8")))))
}
