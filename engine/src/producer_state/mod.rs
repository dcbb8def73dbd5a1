//! Producer state of one log: what makes idempotent produce exactly-once per session (KIP-98), and the open transactions of the log.
//!
//! Pure and single-threaded. The log asks [`ProducerStates::check`] before it appends a batch and calls [`ProducerStates::record`] once the batch has its offset; flushing is not
//! known here, a duplicate is answered with the offset that follows the original, which the caller waits for. Tables are bounded ([`ProducerLimits`]) and survive restarts by snapshots in Kafka's format.

mod last;
mod rules;
mod snapshot;
mod table;
mod transactional;
mod verification;

pub use last::LastOfProducer;
pub use rules::{
    BATCHES_KEPT, Duplicate, ProducerBatch, ProducerEvent, SequenceCheck, SequenceError,
};
pub use snapshot::SnapshotError;
pub use table::{ProducerLimits, ProducerStates, ProducerView};
pub use verification::{VerificationGuard, Verifications};

#[cfg(test)]
mod tests;
