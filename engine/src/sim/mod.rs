//! Running the engine's own code in a small world of its own: one thread, virtual time, everything decided by a seed.
//!
//! [`Executor`] runs tasks and timers; [`SimEnvironment`] is what the code under test is handed; the disk is
//! [`crate::disk::sim::SimDisk`]. Nothing here reads a real clock or starts a thread, so a seed replays exactly.

mod environment;
mod executor;

pub use environment::SimEnvironment;
pub use executor::{Executor, Outcome, Sleep, StopAt, World};

#[cfg(test)]
mod tests;
