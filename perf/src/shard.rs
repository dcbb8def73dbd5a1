//! The broker's own files that make the hop between shards, under the paths by which they name each other.
//!
//! The broker is a program, which nothing can depend on; they are mounted here as `fuzz/` mounts parsers.

#[path = "../../broker/src/shard/exchange.rs"]
pub mod exchange;
#[path = "../../broker/src/shard/mailbox.rs"]
pub mod mailbox;
