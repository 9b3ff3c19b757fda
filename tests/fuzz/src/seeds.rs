//! The seeds: inputs as text, a line of hexadecimal each, with lines of comment that begin with `#`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

/// Reads seeds.
///
/// # Errors
/// If a line is neither a comment nor hexadecimal; it names the line.
pub fn read(text: &str) -> Result<Vec<Vec<u8>>> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| decode(line).with_context(|| format!("line {number} is no hexadecimal")))
        .collect()
}

/// A seed's line.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut line, byte| {
        let _: std::fmt::Result = write!(line, "{byte:02x}");
        line
    })
}

fn decode(line: &str) -> Result<Vec<u8>> {
    ensure!(line.is_ascii() && line.len().is_multiple_of(2), "a byte has two digits");
    (0..line.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&line[at..at + 2], 16)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_as_they_are_written() {
        let seeds: [Vec<u8>; 3] = [vec![], vec![0], (0..=255).collect()];
        let text = seeds.each_ref().map(|seed| format!("# a comment\n{}\n", encode(seed))).concat();
        assert_eq!(read(&text).unwrap(), seeds[1..], "an empty line is no seed");
        assert_eq!(read("# x\n00g0").unwrap_err().to_string(), "line 2 is no hexadecimal");
        assert!(read("000").is_err());
    }
}
