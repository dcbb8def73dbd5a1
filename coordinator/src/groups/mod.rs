//! Consumer groups and their committed offsets: the state of one partition of `__consumer_offsets`.
