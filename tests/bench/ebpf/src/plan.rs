//! What the injector does, as user space tells it, and what it has done. The same source on both sides.

/// Whom the injected frames come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Population {
    /// How many clients there are; at least one.
    pub clients: u32,
    /// The first one's number, which is in its MAC address (02:00 and four bytes) and added to the addresses.
    pub first: u32,
}

/// What to inject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Plan {
    /// The first eight bytes of each frame: the gateway's MAC address, and how the senders' begin.
    pub head: [u8; 8],
    /// Who sends.
    pub main: Population,
    /// Who else sends.
    pub other: Population,
    /// How many of 65,536 frames come from [`Self::other`].
    pub share: u32,
    /// In which order clients send: one of the constants below.
    pub pattern: u32,
    /// Powers of two below the number of clients of [`Self::main`], for [`ZIPF`].
    pub octaves: u32,
    /// 4 or 6; 0 leaves the frame as it is.
    pub family: u32,
    /// The sum over the IPv4 header, its checksum and source address left out, in its own byte order.
    pub sum: u32,
    /// What happens to the frame: one of the constants below.
    pub then: u32,
    /// How many of 65,536 frames from [`Self::other`] are made, but dropped at once: the generator's own work remains the same.
    pub withheld: u32,
    /// Nothing: room up to whole words of eight bytes.
    pub reserved: u32,
}

/// The number of the first stranger.
pub const FIRST_STRANGER: u32 = 0x80_0000;

/// One after the other, again and again.
pub const SEQUENTIAL: u32 = 0;
/// At random, each as likely as the next.
pub const UNIFORM: u32 = 1;
/// At random, the n-th as likely as 1/n, which is evened out within each octave of n.
pub const ZIPF: u32 = 2;

/// On to the program that is under test.
pub const CALL: u32 = 0;
/// To the kernel.
pub const PASS: u32 = 1;
/// Out of the interface in the map of interfaces.
pub const REDIRECT: u32 = 2;

/// What has been done, by this CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Done {
    /// Where the random numbers are.
    pub random: u64,
    /// The next client in a sequence.
    pub next: u64,
    /// Frames that were made, from both populations.
    pub made: u64,
    /// Frames from the other population.
    pub others: u64,
    /// Frames that were withheld; they are among the others.
    pub withheld: u64,
    /// Frames that could not be handed on.
    pub failed: u64,
}
