//! The injector in the kernel: frames from N clients, into a program or the kernel's own path.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray, xdp::DevMap},
    programs::{ProgramFd, Xdp},
};

use crate::{
    frames::{self, Version},
    kernel, object,
    plan::{self, Done, Plan, Population},
};

/// In which order clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One after the other.
    Sequential,
    /// At random, all alike.
    Uniform,
    /// At random, few of them most of the time.
    Zipf,
}

/// The injector, loaded, with the programs that it is held against.
pub struct Injector {
    ebpf: Ebpf,
    plan: Array<MapData, Bytes<{ size_of::<Plan>() }>>,
    done: PerCpuArray<MapData, Bytes<{ size_of::<Done>() }>>,
    target: ProgramArray<MapData>,
    out: DevMap<MapData>,
    counts: PerCpuArray<MapData, u64>,
    clients: HashMap<MapData, u64, u64>,
    frame: Vec<u8>,
}

/// A value as the kernel takes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Bytes<const N: usize>([u8; N]);

// SAFETY: bytes, without padding where N is a multiple of eight, which `Injector::load` checks.
unsafe impl<const N: usize> Pod for Bytes<N> {}

/// Programs beside the injector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Passes everything.
    Empty,
    /// Drops everything.
    Discard,
    /// A hash table by MAC address.
    Hash,
}

impl Reference {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Discard => "discard",
            Self::Hash => "hash",
        }
    }
}

/// How two populations share the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// How many of 65,536 frames the second sends.
    pub share: u32,
    /// How many of 65,536 of these are made, and withheld.
    pub withheld: u32,
}

/// What the programs that count have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Let through by the tc filter.
    pub passed: u64,
    /// Dropped by the tc filter.
    pub dropped: u64,
    /// Arrived at the sink.
    pub sunk: u64,
}

impl Injector {
    /// Loads everything, with a hash table for so many clients.
    pub fn load(clients: u32) -> Result<Self> {
        const { assert!(size_of::<Plan>().is_multiple_of(8) && size_of::<Done>().is_multiple_of(8)) };
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("CLIENTS_BY_MAC", clients)
            .load(object::PROGRAMS)
            .context("cannot load the injector")?;
        for name in ["inject", "empty", "discard", "oracle", "hash", "swallow"] {
            let program: &mut Xdp = ebpf.program_mut(name).context("a program is missing")?.try_into()?;
            program.load().with_context(|| format!("the verifier refuses `{name}`"))?;
        }
        for name in ["filter", "sink"] {
            let program: &mut aya::programs::SchedClassifier =
                ebpf.program_mut(name).context("a program is missing")?.try_into()?;
            program.load().with_context(|| format!("the verifier refuses `{name}`"))?;
        }
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        let plan = take("PLAN")?.try_into()?;
        let done = take("DONE")?.try_into()?;
        let target = take("TARGET")?.try_into()?;
        let out = take("OUT")?.try_into()?;
        let counts = take("COUNTS")?.try_into()?;
        let clients = take("CLIENTS_BY_MAC")?.try_into()?;
        let mut injector = Self { ebpf, plan, done, target, out, counts, clients, frame: Vec::new() };
        injector.seed()?;
        Ok(injector)
    }

    /// Fills the hash table with these clients.
    pub fn fill_hash(&mut self, first: u32, clients: u32) -> Result<()> {
        for number in first..first + clients {
            let mut key = [0; 8];
            key[..6].copy_from_slice(&frames::mac(number));
            self.clients.insert(u64::from_le_bytes(key), u64::MAX, 0)?;
        }
        Ok(())
    }

    /// Hands frames on to a program of another object.
    pub fn aim_at(&mut self, program: &ProgramFd) -> Result<()> {
        self.target.set(0, program, 0).context("cannot aim the injector at the program")
    }

    /// Hands frames on to a program beside it.
    pub fn aim(&mut self, reference: Reference) -> Result<()> {
        let program: &Xdp = self.ebpf.program(reference.name()).context("a program is missing")?.try_into()?;
        let fd = program.fd()?.try_clone()?;
        self.aim_at(&fd)
    }

    /// Sends frames out of an interface.
    pub fn aim_out(&mut self, ifindex: u32) -> Result<()> {
        self.out.set(0, ifindex, None, 0).context("cannot aim the injector at the interface")
    }

    /// One of the programs beside the injector.
    pub fn program<'e, P>(&'e mut self, name: &str) -> Result<&'e mut P>
    where
        &'e mut P: TryFrom<&'e mut aya::programs::Program, Error = aya::programs::ProgramError>,
    {
        Ok(self.ebpf.program_mut(name).context("a program is missing")?.try_into()?)
    }

    /// Sets what is sent from now on.
    pub fn send(
        &mut self,
        frame: &[u8],
        version: Version,
        from: Population,
        pattern: Pattern,
        then: u32,
    ) -> Result<()> {
        self.send_mixed(frame, version, [from, from], Mix::default(), pattern, then)
    }

    /// Sets what is sent from now on, of two populations.
    pub fn send_mixed(
        &mut self,
        frame: &[u8],
        version: Version,
        [main, other]: [Population; 2],
        Mix { share, withheld }: Mix,
        pattern: Pattern,
        then: u32,
    ) -> Result<()> {
        ensure!(main.clients > 0 && other.clients > 0, "nobody sends");
        let (family, sum) = match version {
            Version::V4 => (4, frames::open_sum(frame)),
            Version::V6 => (6, 0),
        };
        let pattern = match pattern {
            Pattern::Sequential => plan::SEQUENTIAL,
            Pattern::Uniform => plan::UNIFORM,
            Pattern::Zipf => plan::ZIPF,
        };
        // Powers of two that begin below the number of clients, and the one client's own.
        let octaves = (main.clients.ilog2()).max(1);
        let head = *frame.first_chunk().context("a frame without addresses")?;
        let plan = Plan { head, main, other, share, pattern, octaves, family, sum, then, withheld, reserved: 0 };
        self.frame = frame.to_vec();
        // SAFETY: integers only, without padding.
        let bytes = unsafe { std::mem::transmute::<Plan, [u8; size_of::<Plan>()]>(plan) };
        self.plan.set(0, Bytes(bytes), 0).context("cannot tell the injector what to do")
    }

    /// Sends so many frames over the same memory; the cost of one.
    pub fn repeat(&mut self, repeat: u32) -> Result<f64> {
        let frame = self.frame.clone();
        let before = self.done()?;
        let program: &Xdp = self.ebpf.program("inject").context("no injector")?.try_into()?;
        let (duration, verdict) = kernel::repeat(program, &frame, repeat)?;
        let made = self.since(before)?;
        ensure!(made == u64::from(repeat), "{made} frames were made of {repeat}; the last verdict is {verdict}");
        Ok(kernel::ns(duration))
    }

    /// Sends so many frames that arrive at the interface; the cost of one.
    pub fn live(&mut self, ifindex: u32, frames: u32) -> Result<f64> {
        let frame = self.frame.clone();
        let before = self.done()?;
        let program: &Xdp = self.ebpf.program("inject").context("no injector")?.try_into()?;
        let duration = kernel::live(program, &frame, ifindex, frames)?;
        let made = self.since(before)?;
        ensure!(made == u64::from(frames), "{made} frames were made of {frames}");
        Ok(kernel::ns(duration))
    }

    /// What the programs that count have counted so far.
    pub fn counts(&self) -> Result<Counts> {
        let sum = |index| -> Result<u64> { Ok(self.counts.get(&index, 0)?.iter().sum()) };
        Ok(Counts { passed: sum(0)?, dropped: sum(1)?, sunk: sum(2)? })
    }

    /// What the injector has done so far, on all CPUs together.
    pub fn done(&self) -> Result<Done> {
        let mut sum = Done::default();
        for bytes in self.done.get(&0, 0)?.iter() {
            // SAFETY: integers only: any bytes are a value.
            let one = unsafe { std::mem::transmute::<[u8; size_of::<Done>()], Done>(bytes.0) };
            sum.made += one.made;
            sum.others += one.others;
            sum.withheld += one.withheld;
            sum.failed += one.failed;
        }
        Ok(sum)
    }

    /// Frames made since then; an error if one could not be handed on.
    fn since(&self, before: Done) -> Result<u64> {
        let now = self.done()?;
        let failed = now.failed - before.failed;
        ensure!(failed == 0, "{failed} frames could not be handed on");
        Ok(now.made - before.made)
    }

    /// Gives each CPU's random numbers a beginning, which must not be zero.
    fn seed(&mut self) -> Result<()> {
        let mut values = self.done.get(&0, 0)?.to_vec();
        for (cpu, value) in values.iter_mut().enumerate() {
            let done = Done { random: 0x9e37_79b9_7f4a_7c15 ^ cpu as u64, ..Done::default() };
            // SAFETY: integers only, without padding.
            value.0 = unsafe { std::mem::transmute::<Done, [u8; size_of::<Done>()]>(done) };
        }
        self.done.set(0, aya::maps::PerCpuValues::try_from(values)?, 0).context("cannot seed the injector")
    }
}
