//! What only user space needs of the shared types.
#![expect(
    unsafe_code,
    reason = "`aya::Pod` is an unsafe trait: it promises that any bit pattern of the size is a value"
)]

use crate::{
    budget::Budgets,
    event::Lost,
    tables::{
        AddressOwner, Attachment, Bucket, ClientKey, ClientRow, ClientState, ConnectionKey, ConnectionNote, CookieKeys,
        Counters, GardenKey, GateConfig, KnownAnswer, OwnedWord, RecentPass, SealKeys, ServiceKey, Session, ZoneRow,
    },
};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)`, of integers and byte arrays, without padding (asserted beside each).
            unsafe impl aya::Pod for $type {}
        )+
    };
}

pod!(
    AddressOwner,
    Attachment,
    Bucket,
    Budgets<u64>,
    ClientKey,
    ClientRow<u64>,
    ClientState<u64>,
    ConnectionKey,
    ConnectionNote,
    CookieKeys,
    Counters,
    GardenKey,
    GateConfig,
    KnownAnswer,
    Lost,
    OwnedWord,
    RecentPass<u64>,
    SealKeys,
    ServiceKey,
    Session,
    ZoneRow,
);
