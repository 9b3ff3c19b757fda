//! The list of measurements, in the order of the table.

use crate::{
    Measurement, bulk, exchange, flood, forward, growth, host, hot, login, memory, soak, strangers, throughput,
};

/// All of them.
pub const ALL: &[Measurement] = &[
    Measurement { name: "hot", about: "what one client's packet costs, everything in the caches", run: hot::run },
    Measurement { name: "growth", about: "how that cost grows with the number of clients", run: growth::run },
    Measurement { name: "strangers", about: "what it costs to drop a stranger's packet", run: strangers::run },
    Measurement { name: "exchange", about: "whole HTTP exchanges with strangers, against nginx", run: exchange::run },
    Measurement { name: "host", about: "what the responder does with a request, without sockets", run: host::run },
    Measurement { name: "login", about: "one login, until the gate lets the client through", run: login::run },
    Measurement { name: "bulk", about: "a million sessions into the kernel at once", run: bulk::run },
    Measurement {
        name: "forward",
        about: "what a client's packet costs more where the kernel forwards it",
        run: forward::run,
    },
    Measurement { name: "flood", about: "what remains of clients' packets while strangers flood", run: flood::run },
    Measurement { name: "throughput", about: "a guest's iperf3 while trafgen floods", run: throughput::run },
    Measurement { name: "memory", about: "what a session costs in kernel memory", run: memory::run },
    Measurement { name: "soak", about: "a day of use in minutes: memory, log and counters", run: soak::run },
];
