//! The storage engine: disks, journal, logs, segments, indexes, tail cache, recovery, retention.
