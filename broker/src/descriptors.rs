//! How the process's file descriptors are shared out: segments get their half, connections what is left, so that a flood of
//! connections can never keep the engine from opening a file.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Fewest and most open segments that a shard plans with.
const SEGMENTS_PER_SHARD: (u64, u64) = (64, 65_536);
/// What the process needs whatever it does: standard streams, listeners, locks, HTTP.
const RESERVED: u64 = 64;
/// What a shard needs beyond segments: ring, journal files, and files open for a moment (indexes, checkpoints, snapshots).
const RESERVED_PER_SHARD: u64 = 32;
/// A broker that nobody can connect to is of no use, however few descriptors there are.
const CONNECTIONS_MIN: u64 = 16;

/// Who may have how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Open segments of one shard.
    pub segments_per_shard: usize,
    /// Connections of all shards.
    pub connections: u64,
}

impl Descriptors {
    /// Shares out `limit` descriptors among so many shards.
    pub fn share(limit: u64, shards: usize) -> Self {
        let shards = shards.max(1) as u64;
        let (fewest, most) = SEGMENTS_PER_SHARD;
        let segments = (limit / 2 / shards).clamp(fewest, most);
        let taken = shards * (segments + RESERVED_PER_SHARD) + RESERVED;
        Self {
            segments_per_shard: segments as usize,
            connections: limit.saturating_sub(taken).max(CONNECTIONS_MIN),
        }
    }
}

/// Raises the limit of open files to what the system allows: each partition and connection needs some. Gives the limit that holds.
pub fn raise_limit() -> u64 {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files (RLIMIT_NOFILE) could not be raised");
    }
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    //! Segments, connections and the rest together fit the limit.
    use super::*;

    #[test]
    fn everybody_gets_a_share_and_nobody_anothers() {
        for (limit, shards) in [(1024, 1), (1024, 4), (65_536, 16), (1 << 20, 2)] {
            let shared = Descriptors::share(limit, shards);
            let segments = shared.segments_per_shard as u64 * shards as u64;
            let rest = RESERVED + RESERVED_PER_SHARD * shards as u64;
            assert!(shared.connections >= limit / 8, "{limit} {shards}");
            assert!(segments + rest + shared.connections <= limit);
        }
        let few = Descriptors::share(64, 2);
        assert_eq!((few.segments_per_shard, few.connections), (64, 16));
    }
}
