//! Every seed, and 20,000 mutations of seeds that are the same in every run.

use portal_fuzz::{TARGETS, seeds};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRng, TestRunner},
};

const MUTATIONS: u32 = 20_000;

/// A place in an input.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// What decides most is in front.
    Front(usize),
    Any(Index),
}

impl Place {
    fn strategy() -> impl Strategy<Value = Self> {
        prop_oneof![(0usize..80).prop_map(Self::Front), any::<Index>().prop_map(Self::Any)]
    }

    /// From 0 to the length.
    fn of(self, length: usize) -> usize {
        match self {
            Self::Front(at) => at.min(length),
            Self::Any(at) => at.index(length + 1),
        }
    }
}

/// One step away from a seed.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Place, u8),
    Put(Place, u8),
    Insert(Place, Vec<u8>),
    Remove(Place, usize),
    Repeat(Place, usize),
    /// What follows is from another seed.
    Splice(Place, Index, Place),
}

impl Mutation {
    fn strategy() -> impl Strategy<Value = Self> {
        let place = Place::strategy;
        prop_oneof![
            (place(), 0u8..8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            (place(), any::<u8>()).prop_map(|(at, byte)| Self::Put(at, byte)),
            (place(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (place(), 1usize..40).prop_map(|(at, count)| Self::Remove(at, count)),
            (place(), 1usize..40).prop_map(|(at, count)| Self::Repeat(at, count)),
            (place(), any::<Index>(), place()).prop_map(|(at, seed, from)| Self::Splice(at, seed, from)),
        ]
    }

    fn apply(&self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let length = input.len();
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = input.get_mut(at.of(length)) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Put(at, value) => {
                if let Some(byte) = input.get_mut(at.of(length)) {
                    *byte = *value;
                }
            }
            Self::Insert(at, bytes) => {
                let at = at.of(length);
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.of(length);
                input.drain(at..length.min(at + count));
            }
            Self::Repeat(at, count) => {
                let at = at.of(length);
                input.extend_from_within(at..length.min(at + count));
            }
            Self::Splice(at, seed, from) => {
                let seed = seed.get(seeds);
                input.truncate(at.of(length));
                input.extend_from_slice(&seed[from.of(seed.len())..]);
            }
        }
    }
}

#[test]
fn every_seed_and_its_mutations_hold() {
    for (name, target, text) in TARGETS {
        let seeds = seeds::read(text).unwrap();
        for seed in &seeds {
            target(seed);
        }
        let config = Config { cases: MUTATIONS, failure_persistence: None, ..Config::default() };
        let rng = TestRng::deterministic_rng(config.rng_algorithm);
        let input = (any::<Index>(), prop::collection::vec(Mutation::strategy(), 1..6));
        let run = TestRunner::new_with_rng(config, rng).run(&input, |(seed, mutations)| {
            let mut input = seed.get(&seeds).clone();
            for mutation in mutations {
                mutation.apply(&mut input, &seeds);
            }
            target(&input);
            Ok(())
        });
        if let Err(failure) = run {
            panic!("{name}: {failure}");
        }
    }
}
