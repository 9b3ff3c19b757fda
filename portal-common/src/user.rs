//! What only user space needs of the shared types.
#![expect(
    unsafe_code,
    reason = "`aya::Pod` is an unsafe trait: it promises that any bit pattern of the size is a value"
)]

use crate::tables::{ClientKey, CookieKeys, Counters, GateConfig, ServiceKey, Session};

// SAFETY: `repr(C)` structs of integers and byte arrays, without padding (asserted in `tables`).
unsafe impl aya::Pod for ClientKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Session {}
// SAFETY: as above.
unsafe impl aya::Pod for ServiceKey {}
// SAFETY: as above.
unsafe impl aya::Pod for GateConfig {}
// SAFETY: as above.
unsafe impl aya::Pod for Counters {}
// SAFETY: as above.
unsafe impl aya::Pod for CookieKeys {}
