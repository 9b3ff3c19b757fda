//! Turns the seeds into files for libFuzzer, and files of libFuzzer's into seeds.

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use portal_fuzz::{TARGETS, seeds};

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", target, directory] => {
            let Some((_, _, text)) = TARGETS.iter().find(|(name, ..)| *name == target) else {
                bail!("there is no target {target}: they are {:?}", TARGETS.map(|(name, ..)| name));
            };
            fs::create_dir_all(directory).with_context(|| format!("cannot make {directory}"))?;
            for (i, seed) in seeds::read(text)?.iter().enumerate() {
                let path = Path::new(directory).join(format!("seed-{i:03}"));
                fs::write(&path, seed).with_context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(())
        }
        ["print", directory] => {
            let entries = fs::read_dir(directory).with_context(|| format!("cannot read {directory}"))?;
            let mut seeds = entries
                .map(|entry| {
                    let path = entry?.path();
                    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
                })
                .collect::<Result<Vec<_>>>()?;
            seeds.sort_unstable_by_key(|seed| (seed.len(), seed.clone()));
            for seed in seeds.iter().filter(|seed| !seed.is_empty()) {
                println!("{}", seeds::encode(seed));
            }
            Ok(())
        }
        _ => bail!("usage: fuzz-corpus write TARGET DIRECTORY | fuzz-corpus print DIRECTORY"),
    }
}
