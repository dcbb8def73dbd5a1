//! The parsers of the broker and of the benchmark, read from their own files.
//!
//! Both are programs, which nothing can depend on; instead of making libraries of them for this crate's sake, the files that hold
//! parsers are mounted here, under the paths by which they name each other. A file that begins to need another one of its
//! program makes this crate fail to build until that one is mounted, too.

pub mod client;
/// The broker's configuration: `server.properties`, keys, listeners.
#[path = "../../broker/src/config/mod.rs"]
pub mod config;
/// What metadata records mean.
#[path = "../../broker/src/controller/mod.rs"]
pub mod controller;
pub mod metadata;
/// The benchmark's workload files.
#[path = "../../bench/src/workload/mod.rs"]
pub mod workload;

/// What the configuration resolves to on a shard; a shard itself is no parser.
pub mod shard {
    /// As in the broker.
    pub mod settings {
        /// What holds for produce to a topic.
        #[derive(Clone, Copy, Debug)]
        pub struct TopicSettings {
            /// What batches are checked against.
            pub rules: ringlog_engine::batch::ProduceRules,
            /// `min.insync.replicas`.
            pub min_insync_replicas: usize,
        }
    }
}
