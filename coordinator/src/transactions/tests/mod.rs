//! The coordinator's rules one by one, over random histories, and over all histories of a bounded kind.

mod bench;
mod explorer;
mod properties;
mod rules_add;
mod rules_end;
mod rules_held;
mod rules_init;
mod rules_log;
mod rules_time;
