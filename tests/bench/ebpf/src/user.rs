//! What only user space needs of the shared types.

use crate::crowd::{Crowd, Expected, Seen, Slot};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, of integers and arrays of them, without padding.
            unsafe impl aya::Pod for $type {}
        )+
    };
}

pod!(Crowd, Expected, Seen, Slot);
