//! The measurements in their shortest form: whether every packet takes the path that a figure is said to be of. No time is judged.
//!
//! Needs root. The rivals' programs need not be installed; where one is, it has to work.

use portal_bench::{Effort, measurements};

/// A rival's row begins with its name, and it needs this program.
const PROGRAMS: [(&str, &str); 2] = [("nftables", "nft"), ("iptables", "ipset")];

#[test]
fn every_packet_takes_the_path_that_is_measured() {
    for name in ["hot", "growth", "strangers", "forward", "flood", "host", "memory", "exchange", "bulk"] {
        let one = measurements::ALL.iter().find(|one| one.name == name).expect("it is in the list");
        let findings = (one.run)(&Effort::CHECK).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(!findings.rows.is_empty(), "{name} has no rows");
        for row in findings.rows {
            assert!(row.ours.is_some_and(f64::is_finite), "{row:?}");
            if row.rival.contains("does not run") {
                let program =
                    PROGRAMS.iter().find(|(rival, _)| row.rival.starts_with(rival)).map(|(_, program)| *program);
                let program = program.unwrap_or_else(|| panic!("{row:?}"));
                assert!(portal_tools::find(program).is_none(), "{program} is installed: {row:?}");
                println!("not compared: {}", row.rival);
            }
        }
    }
}
