//! What the figures were measured on.

use std::fs;

/// The machine and its kernel.
#[derive(Clone, Debug)]
pub struct Machine {
    processor: String,
    cpus: usize,
    kernel: String,
}

impl Machine {
    /// Looks.
    pub fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        // arm64 names no processor.
        let processor = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let processor = match field("cpu family") {
            Some(family) => format!("{processor} (family {family})"),
            None => processor,
        };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        Self { processor, cpus, kernel }
    }

    /// The number of CPUs this process may use.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    /// In one line.
    pub fn words(&self) -> String {
        let Self { processor, cpus, kernel } = self;
        format!("{processor}, {cpus} CPUs, Linux {kernel}")
    }
}
