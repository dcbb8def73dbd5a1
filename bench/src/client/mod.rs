//! A small Kafka client core for load generation: batches, connections and administration on the project's own codec.
//!
//! It knows nothing of workloads or measurements; it does no retries and hides no error, because a generator must see both.

pub mod admin;
pub mod batch;
pub mod clock;
pub mod compression;
pub mod connection;
pub mod coordination;
pub mod error;
pub mod fleet;
pub mod poller;
pub mod wire;
