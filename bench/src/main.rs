//! Load generator for any Kafka-compatible broker.
fn main() {}
