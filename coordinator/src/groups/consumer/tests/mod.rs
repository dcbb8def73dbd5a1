//! Groups as a whole: single rules one by one, and random histories with lost messages, timeouts and restarts.

pub(in crate::groups) mod cluster;
mod histories;
mod offsets;
mod regexes;
mod rules;
