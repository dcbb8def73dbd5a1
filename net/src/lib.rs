//! The wire: Kafka messages and frames, and the endpoints that carry them.
