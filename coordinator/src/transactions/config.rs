//! What the transaction coordinator is configured with; defaults are Kafka's where Kafka has the limit.

/// Limits and times of one [`TransactionCoordinator`](super::TransactionCoordinator).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`: the longest timeout a producer may ask for.
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`: an id unused for so long is forgotten.
    pub id_expiration_ms: u64,
    /// How many transactional ids this partition may hold. A new id beyond them is refused with COORDINATOR_NOT_AVAILABLE, which clients retry.
    pub transactional_ids_max: usize,
    /// Partitions of one transaction; more are refused with UNKNOWN_SERVER_ERROR, as Kafka does when the record becomes too large.
    pub partitions_max: usize,
    /// What a transaction's record may come to, in bytes; it must fit, with [`TransactionConfig::event_bytes`], into a batch of `__transaction_state`.
    pub record_bytes_max: usize,
    /// What an event that touches many ids (timeouts, expiration) may write before the rest is left to the next, in bytes.
    pub event_bytes: usize,
    /// How many requests of one transactional id may wait for its transaction to end.
    pub held_per_id_max: usize,
    /// How many requests may wait in all.
    pub held_max: usize,
    /// How long a request waits before it is told CONCURRENT_TRANSACTIONS.
    pub held_ms: u64,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            timeout_ms_max: 15 * 60 * 1000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1000,
            transactional_ids_max: 100_000,
            partitions_max: 10_000,
            record_bytes_max: 512 << 10,
            event_bytes: 256 << 10,
            held_per_id_max: 5,
            held_max: 1000,
            held_ms: 1000,
        }
    }
}
