//! Fuzz targets, one per family of parsers, for libFuzzer on the stable compiler and without a sanitizer.
//!
//! Each module has `run`, which takes any bytes and panics where a promise does not hold, and `seeds`, which makes real encodings
//! to start from. A panic in a parser is only one of the findings: what was decoded must survive being encoded and decoded again,
//! a checksum must notice every changed byte, memory must stay in proportion to the input, and where two parsers read the same
//! bytes they must agree. `ci/fuzz` builds and runs all of them; the files in `fuzz_targets/` hold nothing but a name.
//!
//! Broker and benchmark are programs, not libraries: [`programs`] says how their parsers come here.

pub mod batches;
pub mod checkpoints;
pub mod compression;
pub mod frames;
pub mod indexes;
pub mod journal;
pub mod memory;
pub mod messages;
pub mod metadata_log;
pub mod metadata_records;
pub mod producers;
pub mod programs;
pub mod properties;
pub mod responses;
pub mod workload;

// The programs' files name each other by these paths.
pub use programs::{client, config, controller, shard};

use std::path::Path;

/// The environment variable that asks a target for its seeds instead of a run.
const SEEDS: &str = "RINGLOG_FUZZ_SEEDS";

/// The entry points that libFuzzer needs for one module.
#[macro_export]
macro_rules! target {
    ($family:ident) => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds($crate::$family::seeds),
            |input: &[u8]| $crate::$family::run(input)
        );
    };
}

/// Where RINGLOG_FUZZ_SEEDS names a directory: writes the seeds there, one a file, and ends the process.
pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(directory) = std::env::var_os(SEEDS) else {
        return;
    };
    let directory = Path::new(&directory);
    let written = std::fs::create_dir_all(directory).and_then(|()| {
        seeds().iter().enumerate().try_for_each(|(number, seed)| {
            std::fs::write(directory.join(format!("seed-{number:04}")), seed)
        })
    });
    match written {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("seeds in {}: {error}", directory.display());
            std::process::exit(1)
        }
    }
}

/// Takes bytes off the front of an input; zeros where there are none left.
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Over an input.
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.rest.len());
        let (now, later) = self.rest.split_at(length);
        taken[..length].copy_from_slice(now);
        self.rest = later;
        taken
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    /// The next two bytes as a number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(u16::from_be_bytes(self.take())) % limit
    }

    /// The next eight bytes, as an offset or a time: not negative.
    pub fn from_zero(&mut self) -> i64 {
        i64::from_be_bytes(self.take()) & i64::MAX
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not taken.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// `bytes` with one byte at `at` changed by `change`, which is made odd so that it changes something.
pub fn changed(bytes: &[u8], at: usize, change: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    if let Some(byte) = changed.get_mut(at) {
        *byte ^= change | 1;
    }
    changed
}
