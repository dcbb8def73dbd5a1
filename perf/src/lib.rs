//! The hot paths of a broker, each ready to be run on its own: what is counted under callgrind (`benches/counts.rs`) and timed by criterion
//! (`benches/micro.rs`) is the very same code on the same inputs.
//!
//! A path is a value that holds everything it needs; making it costs what it likes, `run` is what is measured. Inputs are fixed, so that two runs
//! count the same.

pub mod engine;
pub mod hop;
pub mod records;
#[expect(
    clippy::len_without_is_empty,
    reason = "a lint about libraries, which these files are only here"
)]
pub mod shard;
pub mod wire;

/// A time for everything that wants one, milliseconds since the epoch.
pub const NOW_MS: i64 = 1_704_067_200_000;
